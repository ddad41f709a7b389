"""Estimate the policies of an experiment that do not learn, and frozen snapshots of those that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.estimators import Evidence, evaluate
from counterplay.estimators.comparison import compare
from counterplay.estimators.table import resolve_all
from counterplay.replay.agents import Bandit, Hybrid
from counterplay.replay.evidence import exact_values, gather_evidence
from counterplay.replay.experiment import EstimateSettings, Experiment
from counterplay.replay.freezing import policy_of
from counterplay.replay.policies import Policy
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_rejection

Rows = list[dict[str, Any]]


def estimate_policies(
    settings: Experiment, prepared: PreparedLog, truth: PreparedLog | None, step: Callable[[str], None]
) -> tuple[Rows, Rows]:
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
    policies = [policy_of(report, agent) for agent in settings.agents if not isinstance(agent, (Bandit, Hybrid))]
    for name in wanted.frozen:
        policies.append(_frozen(settings, name, learn, report))
        step(f"{name}, frozen")
    needed = {need for estimator in resolve_all(wanted.estimators) for need in estimator.needs}
    evidence = gather_evidence(report.log, policies, reward_model=bool(needed & {"q_logged", "q_target"}))
    exact = None
    if truth is not None:
        exact = exact_values(truth.log.subset(np.arange(half, count)), policies).mean(axis=1)
    step("evidence")
    rows = _estimates(evidence, wanted, exact), _differences(evidence, wanted, exact)
    step("estimates")
    return rows


def _frozen(settings: Experiment, name: str, learn: PreparedLog, report: PreparedLog) -> Policy:
    agent = next(agent for agent in settings.agents if agent.name == name)
    replayed = replay_rejection(
        learn,
        agent,
        seed=settings.first_seed,
        constant=settings.rejection.constant,
        order=settings.order,
        batch=settings.batch,
    )
    return policy_of(report, agent, replayed.state)


def _estimates(evidence: Evidence, wanted: EstimateSettings, exact: NDArray[np.float64] | None) -> Rows:
    rows = [estimate.to_json() for estimate in evaluate(evidence, wanted.estimators, wanted.level)]
    return [_with_truth(row, _truth_of(evidence, row["policy"], exact)) for row in rows]


def _differences(evidence: Evidence, wanted: EstimateSettings, exact: NDArray[np.float64] | None) -> Rows:
    if len(evidence.policies) < 2:
        return []
    baseline = wanted.baseline or evidence.policies[0]
    if baseline in wanted.frozen:
        baseline = f"{baseline}, frozen"
    rows: Rows = []
    for name in wanted.estimators:
        for difference in compare(evidence, baseline, name, level=wanted.level):
            ours, base = (_truth_of(evidence, policy, exact) for policy in (difference.policy, baseline))
            rows.append(_with_truth(difference.to_json(), None if ours is None or base is None else ours - base))
    return rows


def _truth_of(evidence: Evidence, policy: str, exact: NDArray[np.float64] | None) -> float | None:
    return None if exact is None else float(exact[evidence.policies.index(policy)])


def _with_truth(row: dict[str, Any], truth: float | None) -> dict[str, Any]:
    known = truth is not None and row["low"] is not None
    covered = bool(row["low"] <= truth <= row["high"]) if known else None
    return {**row, "truth": truth, "covered": covered}
