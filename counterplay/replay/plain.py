"""Agents in plain Python: a class with three methods, replayed like the built-in ones.

The built-in agents run in compiled loops; these run one decision at a time, in the same order, with the same luck and
the same rule of acceptance. They see one decision, never the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.kernels.records import Trace
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an agent sees: the context's features `(d,)` or None, and the allowed actions `(S,)` with their features
    `(S, m)` or None."""

    features: NDArray[np.float32] | None
    actions: NDArray[np.int32]
    action_features: NDArray[np.float32] | None


@runtime_checkable
class Agent(Protocol):
    """A policy that learns, as pure functions over a state of the user's own making."""

    @property
    def name(self) -> str: ...

    def init(self, seed: int) -> Any:
        """The state before the first decision."""
        ...

    def probabilities(self, state: Any, decision: Decision) -> NDArray[np.float64]:
        """The probability of each of ``decision.actions``: `(S,)`, summing to 1."""
        ...

    def learn(self, state: Any, decision: Decision, action: int, reward: float) -> Any:
        """The state after ``action`` (one of ``decision.actions``) has earned ``reward``."""
        ...


def _decision(prepared: PreparedLog, row: int) -> Decision:
    log = prepared.log
    actions = allowed(log, np.array([row]))[0]
    actions = actions[actions >= 0]
    return Decision(
        features=None if log.context_features is None else log.context_features[log.context[row]],
        actions=actions,
        action_features=None if log.action_features is None else log.action_features[actions],
    )


def _probabilities(agent: Agent, state: Any, decision: Decision) -> NDArray[np.float64]:
    p = np.asarray(agent.probabilities(state, decision), dtype=np.float64)
    if p.shape != decision.actions.shape or not (p >= 0).all() or abs(p.sum() - 1) > 1e-6:
        raise ConfigurationError(
            f"agent '{agent.name}' gave probabilities of shape {p.shape} and sum {p.sum():.6g} for "
            f"{len(decision.actions)} actions; they must be one for each action, not negative, and sum to 1."
        )
    return p


def _trace(rows: list[tuple[int, int, float]]) -> Trace:
    return Trace(
        decision=np.array([row[0] for row in rows], np.int64),
        action=np.array([row[1] for row in rows], np.int32),
        reward=np.array([row[2] for row in rows], np.float64),
        base=np.zeros(len(rows), np.int8),
        p_bandit=np.ones(len(rows), np.float32),
        alone=np.zeros(0),
    )


def exact(prepared: PreparedLog, agent: Agent, seed: int, rounds: NDArray[np.int64]) -> Trace:
    """Exact replay of a plain agent over the decisions ``rounds``."""
    log, luck, state = prepared.log, prepared.luck(seed), agent.init(seed)
    assert log.outcomes is not None
    rows: list[tuple[int, int, float]] = []
    for row in rounds:
        decision = _decision(prepared, row)
        p = _probabilities(agent, state, decision)
        place = min(int(np.searchsorted(np.cumsum(p), luck.action[row], side="right")), len(p) - 1)
        action = int(decision.actions[place])
        reward = float(log.outcomes.reward(log.context[row], action))
        if np.isnan(reward):
            raise MissingEvidenceError(
                f"the outcome table does not know what '{agent.name}' would have earned with action {action} in "
                f"decision {row}; exact replay needs every outcome."
            )
        state = agent.learn(state, decision, action, reward)
        rows.append((int(row), action, reward))
    return _trace(rows)


def rejection(
    prepared: PreparedLog, agent: Agent, seed: int, rounds: NDArray[np.int64], constant: float, horizon: int
) -> tuple[Trace, Acceptance]:
    """Rejection replay of a plain agent over the decisions ``rounds``, until ``horizon`` are accepted."""
    log, luck, state = prepared.log, prepared.luck(seed), agent.init(seed)
    rows: list[tuple[int, int, float]] = []
    read, expected, violations, excess = 0, 0.0, 0, 0.0
    for row in rounds:
        if len(rows) >= horizon:
            break
        read += 1
        decision = _decision(prepared, row)
        p = _probabilities(agent, state, decision)
        action = int(log.action[row])
        ratio = constant * float(p[decision.actions == action].sum()) / float(log.propensity[row])
        if ratio > 1.0 + 1e-9:
            violations, excess = violations + 1, excess + ratio - 1.0
        expected += min(ratio, 1.0)
        if luck.accept[row] < ratio:
            reward = float(log.reward[row])
            state = agent.learn(state, decision, action, reward)
            rows.append((int(row), action, reward))
    report = Acceptance(
        constant=constant, read=read, accepted=len(rows), expected=expected, violations=violations, excess=excess
    )
    return _trace(rows), report
