"""Estimate the policies of an experiment that do not learn, and frozen snapshots of those that do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from counterplay.estimators import Evidence, compare, evaluate
from counterplay.estimators.table import resolve_all
from counterplay.replay.agents import learner_of
from counterplay.replay.evidence import exact_values, gather_evidence
from counterplay.replay.experiment import EstimateSettings, Experiment
from counterplay.replay.freezing import policy_of
from counterplay.replay.policies import Policy
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.rows import Exact, Row, difference_rows, estimate_rows
from counterplay.replay.single import replay_rejection


def estimate_policies(
    settings: Experiment, prepared: PreparedLog, truth: PreparedLog | None, step: Callable[[str], None]
) -> tuple[list[Row], list[Row]]:
    """Estimates of every policy by every estimator, and the differences from the baseline, as plain rows.

    All are estimated on the same decisions: all of the log, or where agents are to be frozen its second half, after
    these have learned by rejection replay on the first. Where the truth is known, each row has it, and whether the
    interval covers it.
    """
    wanted = settings.estimate
    if wanted is None:
        return [], []
    count = len(prepared.log.context)
    half = count // 2 if wanted.frozen else 0
    learn, report = prepared.part(np.arange(half)), prepared.part(np.arange(half, count))
    policies = [policy_of(report, agent) for agent in settings.agents if learner_of(agent) is None]
    for name in wanted.frozen:
        policies.append(_frozen(settings, name, learn, report))
        step(f"{name}, frozen")
    needed = {need for estimator in resolve_all(wanted.estimators) for need in estimator.needs}
    evidence = gather_evidence(report.log, policies, reward_model=bool(needed & {"q_logged", "q_target"}))
    exact: Exact = {}
    if truth is not None:
        values = exact_values(truth.log.subset(np.arange(half, count)), policies).mean(axis=1)
        exact = dict(zip(evidence.policies, values.tolist(), strict=True))
    step("evidence")
    estimates = estimate_rows(evaluate(evidence, wanted.estimators, wanted.level), exact)
    differences = _differences(evidence, wanted, exact)
    step("estimates")
    return estimates, differences


def _frozen(settings: Experiment, name: str, learn: PreparedLog, report: PreparedLog) -> Policy:
    agent = next(agent for agent in settings.agents if agent.name == name)
    replayed = replay_rejection(
        learn,
        agent,
        seed=settings.first_seed,
        constant=None if settings.rejection is None else settings.rejection.constant,
        order=settings.order,
        batch=settings.batch,
    )
    return policy_of(report, agent, replayed.state)


def _differences(evidence: Evidence, wanted: EstimateSettings, exact: Exact) -> list[Row]:
    if len(evidence.policies) < 2:
        return []
    baseline = wanted.baseline or evidence.policies[0]
    if baseline in wanted.frozen:
        baseline = f"{baseline}, frozen"
    estimators = resolve_all(wanted.estimators)
    found = [compare(evidence, baseline, estimator, level=wanted.level) for estimator in estimators]
    return [row for differences in found for row in difference_rows(differences, exact)]
