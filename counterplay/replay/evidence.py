"""From a log and policies to evidence for the estimators, and to exact values where outcomes are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import InputError, MissingEvidenceError
from counterplay.estimators.evidence import Evidence
from counterplay.estimators.models import CrossFittedRidge, assign_folds
from counterplay.logs.log import Log, Outcomes
from counterplay.replay.policies import Policy, allowed, blocks

FOLDS = 5


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
    known = (log.action >= 0) & np.isfinite(log.reward)
    if not known.all():
        raise MissingEvidenceError(
            f"{int((~known).sum()):,} of {len(known):,} decisions of log '{log.name}' have no logged action or reward; "
            f"without them there is nothing to weigh."
        )
    width = len(log.action_labels) if log.candidates is None else log.candidates.shape[1]
    features = _PairFeatures(log)
    model, folds = _fit(log, features) if reward_model else (None, np.zeros(len(known), np.int64))
    target = np.zeros((len(policies), len(known)))
    q_target = np.zeros(target.shape)
    q_logged = np.zeros(len(known))
    for rows in blocks(len(known), width * (features.width if reward_model else 1)):
        columns = allowed(log, rows)
        chosen = columns == log.action[rows, None]
        predicted = np.zeros(columns.shape)
        if model is not None:
            pairs = features.of(rows, columns)
            predicted = model.predict(pairs, np.repeat(folds[rows], columns.shape[1])).reshape(columns.shape)
            q_logged[rows] = (predicted * chosen).sum(axis=1)
        for i, policy in enumerate(policies):
            p = policy.probabilities(log, rows)
            target[i, rows] = (p * chosen).sum(axis=1)
            q_target[i, rows] = (p * predicted).sum(axis=1)
    return Evidence(
        reward=log.reward,
        propensity=log.propensity if np.isfinite(log.propensity).all() else None,
        target=np.clip(target, 0.0, 1.0),
        q_logged=q_logged if reward_model else None,
        q_target=q_target if reward_model else None,
        cluster=log.cluster,
        policies=tuple(policy.name for policy in policies),
    )


def exact_values(log: Log, policies: Sequence[Policy]) -> NDArray[np.float64]:
    """The expected reward of each policy in each decision, from the outcome table: `(P, n)`.

    Raises:
        MissingEvidenceError: the log has no outcome table, or it lacks an outcome that a policy may reach.
    """
    if log.outcomes is None:
        raise MissingEvidenceError(f"log '{log.name}' has no outcome table, so exact values are not known.")
    values = np.zeros((len(policies), len(log.context)))
    width = len(log.action_labels) if log.candidates is None else log.candidates.shape[1]
    for rows in blocks(len(log.context), width):
        columns = allowed(log, rows)
        rewards = log.outcomes.reward(log.context[rows, None], columns)
        for i, policy in enumerate(policies):
            p = policy.probabilities(log, rows)
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


class _PairFeatures:
    """Features of pairs of decision and action for the reward model, from whatever the log has.

    A constant; the action's features, or without them one indicator an action (up to 1,000 actions); the context's
    features; and where contexts and actions live in one space, their inner product and its terms.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        count = len(log.action_labels)
        self._indicators = log.action_features is None and count <= 1000
        self._shared = (
            log.action_features is not None
            and log.context_features is not None
            and log.action_features.shape[1] == log.context_features.shape[1]
        )
        actions = log.action_features.shape[1] if log.action_features is not None else count * self._indicators
        contexts = 0 if log.context_features is None else log.context_features.shape[1]
        self.width = 1 + actions + contexts + (contexts + 1) * self._shared

    def of(self, rows: NDArray[np.int64], columns: NDArray[np.int32]) -> NDArray[np.float64]:
        """Features `(b S, width)` of the decisions ``rows`` `(b,)` with each of their actions ``columns`` `(b, S)`."""
        log, shape = self._log, columns.shape
        actions = np.maximum(columns, 0)
        parts = [np.ones((*shape, 1))]
        x = None if log.context_features is None else log.context_features[log.context[rows]].astype(np.float64)
        z = None if log.action_features is None else log.action_features[actions].astype(np.float64)
        if z is not None:
            parts.append(z)
        elif self._indicators:
            parts.append(np.eye(len(log.action_labels))[actions])
        if x is not None:
            parts.append(np.broadcast_to(x[:, None, :], (*shape, x.shape[1])))
        if self._shared and x is not None and z is not None:
            product = x[:, None, :] * z
            parts += [product.sum(axis=2, keepdims=True), product]
        return np.concatenate(parts, axis=2).reshape(-1, self.width)


def _fit(log: Log, features: _PairFeatures) -> tuple[CrossFittedRidge, NDArray[np.int64]]:
    folds = assign_folds(len(log.context), FOLDS, cluster=log.cluster)
    logged = features.of(np.arange(len(log.context)), log.action[:, None])
    return CrossFittedRidge(logged, log.reward, folds), folds
