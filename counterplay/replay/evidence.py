"""From a log and policies to evidence for the estimators, and to exact values where outcomes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import InputError, MissingEvidenceError
from counterplay.estimators.evidence import Evidence
from counterplay.logs.chunks import Chunk, chunk_of
from counterplay.logs.log import Log, Outcomes
from counterplay.replay.policies import Policy, SaysLogged, allowed, blocks
from counterplay.replay.reward_models import FittedRewards, fit_rewards

Floats = NDArray[np.float64]


def gather_evidence(log: Log, policies: Sequence[Policy], *, reward_model: bool = True) -> Evidence:
    """What each policy would have done in the logged decisions.

    Args:
        log: n decisions with a logged action.
        policies: P policies.
        reward_model: also fit a reward model and give the predictions that DM and DR need: ridge on context and action
            features, cross-fitted over 5 folds, so that no decision is predicted from itself.

    Raises:
        MissingEvidenceError: a decision has no logged action or no reward.
    """
    whole = chunk_of(log)
    _check_known(whole)
    return evidence_of(whole, policies, fit_rewards(lambda: [whole]) if reward_model else None)


def evidence_of(log: Chunk, policies: Sequence[Policy], rewards: FittedRewards | None = None) -> Evidence:
    """The evidence of the decisions of a chunk; that of all chunks of a log together is that of the log.

    Args:
        log: b decisions.
        policies: P policies.
        rewards: a fitted reward model, where estimators need one.

    Raises:
        MissingEvidenceError: a decision has no logged action or no reward.
    """
    _check_known(log)
    shape = (len(policies), len(log))
    target = np.zeros(shape)
    q_logged, q_target = (None, None) if rewards is None else (rewards.of_logged(log), np.zeros(shape))
    wide = []
    for i, policy in enumerate(policies):
        if isinstance(policy, SaysLogged):
            target[i] = policy.of_logged(log)
            if q_target is None:
                continue
            if not policy.whole(log):
                q_target[i] = q_logged
                continue
        wide.append((target[i], None if q_target is None else q_target[i], policy))
    if wide:
        _look_at_every_action(log, wide, rewards)
    return Evidence(
        reward=log.reward,
        propensity=log.propensity,
        target=np.clip(target, 0.0, 1.0, out=target),
        q_logged=q_logged,
        q_target=q_target,
        cluster=log.cluster,
        policies=tuple(policy.name for policy in policies),
        start=log.start,
    )


def _look_at_every_action(
    log: Chunk, wide: Sequence[tuple[Floats, Floats | None, Policy]], rewards: FittedRewards | None
) -> None:
    """Fill in `(b,)` targets and predicted values of policies, a block of decisions at a time."""
    width = len(log.action_labels) if log.candidates is None else log.candidates.shape[1]
    for rows in blocks(len(log), width * (1 if rewards is None else rewards.numbers_a_pair(log))):
        columns = allowed(log, rows)
        for target, q_target, policy in wide:
            p = policy.probabilities(log, rows)
            if not isinstance(policy, SaysLogged):
                target[rows] = (p * (columns == log.action[rows, None])).sum(axis=1)
            if rewards is not None and q_target is not None:
                q_target[rows] = rewards.of_policy(log, rows, columns, p)


def _check_known(log: Chunk) -> None:
    known = (log.action >= 0) & np.isfinite(log.reward)
    if not known.all():
        raise MissingEvidenceError(
            f"{int((~known).sum()):,} of {len(known):,} decisions of log '{log.name}' have no logged action or reward; "
            f"without them there is nothing to weigh."
        )


def exact_values(log: Log | Chunk, policies: Sequence[Policy]) -> Floats:
    """The expected reward of each policy in each decision, from the outcome table: `(P, n)`.

    Raises:
        MissingEvidenceError: the log has no outcome table, or it lacks an outcome that a policy may reach.
    """
    if log.outcomes is None:
        raise MissingEvidenceError(f"log '{log.name}' has no outcome table, so exact values are not known.")
    whole = log if isinstance(log, Chunk) else chunk_of(log)
    values = np.zeros((len(policies), len(whole)))
    width = len(log.action_labels) if log.candidates is None else log.candidates.shape[1]
    for rows in blocks(len(whole), width):
        columns = allowed(whole, rows)
        rewards = log.outcomes.reward(log.context[rows, None], columns)
        for i, policy in enumerate(policies):
            p = policy.probabilities(whole, rows)
            reached = p > 0
            if np.isnan(rewards[reached]).any():
                raise MissingEvidenceError(f"log '{log.name}' lacks outcomes that '{policy.name}' may reach.")
            values[i, rows] = np.where(reached, p * np.where(reached, rewards, 0.0), 0.0).sum(axis=1)
    return values


def with_outcomes(log: Log, truth: Log) -> Log:
    """``log`` with the outcome table of ``truth``, matched by context id and action label.

    Raises:
        InputError: a context or an action of ``log`` is not in ``truth``.
    """
    if truth.outcomes is None:
        raise MissingEvidenceError(f"log '{truth.name}' has no outcome table, so it cannot be the truth of another.")
    contexts = {name: row for row, name in enumerate(truth.context_ids)}
    actions = {label: index for index, label in enumerate(log.action_labels)}
    lost = [name for name in log.context_ids if name not in contexts][:1]
    lost += [label for label in log.action_labels if label not in set(truth.action_labels)][:1]
    if lost:
        raise InputError(
            f"log '{truth.name}' does not know '{lost[0]}' of log '{log.name}', so it cannot be its truth."
        )
    rows = np.array([contexts[name] for name in log.context_ids], np.int64)
    renamed = np.array([actions.get(label, -1) for label in truth.action_labels], np.int64)
    return replace(log, outcomes=_rearranged(truth.outcomes, rows, renamed), fingerprint="")


def _rearranged(outcomes: Outcomes, rows: NDArray[np.int64], renamed: NDArray[np.int64]) -> Outcomes:
    """The outcomes of the contexts ``rows``, in that order, with actions renamed (-1: dropped)."""
    lengths = np.diff(outcomes.offsets)[rows]
    starts = np.repeat(outcomes.offsets[rows] - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
    entries = starts + np.arange(int(lengths.sum()))
    context = np.repeat(np.arange(len(rows)), lengths)
    action = renamed[outcomes.actions[entries]]
    rewards = outcomes.rewards[entries]
    kept = action >= 0
    context, action, rewards = context[kept], action[kept], rewards[kept]
    order = np.lexsort((action, context))
    return Outcomes(
        offsets=np.concatenate(([0], np.cumsum(np.bincount(context, minlength=len(rows))))),
        actions=action[order].astype(np.int32),
        rewards=rewards[order],
        default=outcomes.default,
    )
