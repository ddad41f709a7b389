"""Policies by name, for the decisions of a log that comes in chunks.

| name | what it does |
|---|---|
| ``uniform`` | every allowed action with the same probability |
| ``logging`` | what the log's own policy did: probability the propensity |
| ``always=LABEL`` | one action for everybody; where it is not allowed, an allowed action at random |
| ``NAME`` | a policy whose choices are stored (``counterplay generate``, ``counterplay import choices``) |
| ``stored=NAME`` | the same, where a stored policy is called like one of the above |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError, MissingOutputError, nearest
from counterplay.logs.chunks import Chunk, Table
from counterplay.logs.survey import Survey
from counterplay.replay.policies import allowed, spread, uniform

UNIFORM, LOGGING = "uniform", "logging"
ALWAYS, STORED = "always=", "stored="

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class UniformPolicy:
    """Every allowed action with the same probability."""

    name: str = UNIFORM
    needs_candidates: bool = False

    def probabilities(self, log: Chunk, rows: Rows) -> Floats:
        return uniform(allowed(log, rows))

    def of_logged(self, log: Chunk) -> Floats:
        return np.asarray(1.0 / log.sizes)

    def whole(self, log: Chunk) -> bool:
        del log
        return True


@dataclass(frozen=True, kw_only=True)
class LoggingPolicy:
    """The policy that made the log: its propensities, and its whole distribution where the log stores it."""

    name: str = LOGGING
    needs_candidates: bool = False

    def probabilities(self, log: Chunk, rows: Rows) -> Floats:
        if log.distribution is None:
            raise MissingEvidenceError(
                f"log '{log.name}' has the logging policy's probability of the logged action only, not of the others."
            )
        return log.distribution[rows]

    def of_logged(self, log: Chunk) -> Floats:
        if log.propensity is None:
            raise MissingEvidenceError(_unknown(log.name))
        return log.propensity

    def whole(self, log: Chunk) -> bool:
        return log.distribution is not None


@dataclass(frozen=True, kw_only=True)
class ConstantPolicy:
    """One action, by its index; where it is not allowed, an allowed action at random."""

    name: str
    action: int
    needs_candidates: bool = True

    def probabilities(self, log: Chunk, rows: Rows) -> Floats:
        columns = allowed(log, rows)
        outside = ~(columns == self.action).any(axis=1)
        actions = np.where(outside, -1, self.action).astype(np.int32)[:, None]
        return spread(columns, actions, np.ones(actions.shape))

    def of_logged(self, log: Chunk) -> Floats:
        taken: Floats = (log.action == self.action).astype(np.float64)
        if log.candidates is None:
            return taken
        return np.asarray(np.where((log.candidates == self.action).any(axis=1), taken, 1.0 / log.sizes))

    def whole(self, log: Chunk) -> bool:
        del log
        return True


@dataclass(frozen=True, kw_only=True)
class StoredPolicy:
    """A policy whose choices are stored under ``key``; it must have one in every decision."""

    name: str
    key: str
    needs_candidates: bool = True

    def probabilities(self, log: Chunk, rows: Rows) -> Floats:
        actions, weights = self._table(log, rows)
        return spread(allowed(log, rows), actions, weights)

    def of_logged(self, log: Chunk) -> Floats:
        actions, weights = self._table(log, np.arange(len(log)))
        same = (actions == log.action[:, None]) & (actions >= 0)
        return np.asarray(np.where(same, weights, 0.0).sum(axis=1))

    def whole(self, log: Chunk) -> bool:
        del log
        return True

    def _table(self, log: Chunk, rows: Rows) -> Table:
        """Its choices in these decisions, if it has one that is allowed in each."""
        every, weights = log.choices[self.key]
        actions = every[rows]
        absent = actions[:, 0] < 0
        outside = np.zeros(len(actions), dtype=bool)
        if log.candidates is not None:
            for action in actions.T:
                outside |= (action >= 0) & ~(log.candidates[rows] == action[:, None]).any(axis=1)
        if absent.any() or outside.any():
            first = log.start + int(rows[np.argmax(absent | outside)])
            raise MissingOutputError(
                f"policy '{self.key}' has no choice for {int(absent.sum()):,} and a choice that is not allowed for "
                f"{int(outside.sum()):,} of {len(actions):,} decisions of log '{log.name}', the first at place "
                f"{first:,}. Fill them with `counterplay generate` or `counterplay import choices`; an experiment with "
                'missing = "uniform" plays at random there.'
            )
        return actions, weights[rows]


NamedPolicy = UniformPolicy | LoggingPolicy | ConstantPolicy | StoredPolicy


def policy_named(text: str, log: Survey) -> NamedPolicy:
    """The policy that ``text`` names, on this log.

    Raises:
        ConfigurationError: there is none of that name, or no such action; with the nearest.
        MissingEvidenceError: ``logging``, and the log has no propensities.
    """
    if text == UNIFORM:
        return UniformPolicy()
    if text == LOGGING:
        if log.propensities < log.decisions:
            raise MissingEvidenceError(_unknown(log.log))
        return LoggingPolicy()
    if text.startswith(ALWAYS):
        label = text.removeprefix(ALWAYS)
        if label not in log.action_labels:
            raise ConfigurationError(f"log '{log.log}' has no action '{label}'. {nearest(label, log.action_labels)}")
        return ConstantPolicy(name=text, action=log.action_labels.index(label))
    key = text.removeprefix(STORED)
    if key in log.stored:
        return StoredPolicy(name=text, key=key)
    if text in log.action_labels:
        raise ConfigurationError(f"'{text}' is an action of log '{log.log}', not a policy: say {ALWAYS}{text}.")
    known = log.stored if text.startswith(STORED) else (UNIFORM, LOGGING, *log.stored)
    raise ConfigurationError(
        f"log '{log.log}' has no policy '{key}'. {nearest(key, known)} {ALWAYS}LABEL takes one action, and "
        "`counterplay import choices` stores a policy of yours."
    )


def _unknown(log: str) -> str:
    return (
        f"log '{log}' has decisions without a propensity, so what its own policy would do again is not known. What it "
        "earned is its mean reward, which `counterplay check` prints."
    )


def shadowed(text: str, log: Survey) -> str:
    """A sentence where a stored policy bears a name that means something else; "" where none does."""
    if text in log.stored and (text in (UNIFORM, LOGGING) or text.startswith((ALWAYS, STORED))):
        return f"Log '{log.log}' also stores a policy '{text}', which is not this one: ask for {STORED}{text}."
    return ""
