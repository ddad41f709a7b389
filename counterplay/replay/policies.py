"""Policies: fixed probabilities pi(a|x), for estimators and for exact values.

A policy answers for a block of decisions at a time, with one probability for each allowed action: the columns are the
log's candidates in their order, or all K actions where the log has none. So no array ever holds every decision times
every action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import UnsupportedError
from counterplay.logs.log import Log

BLOCK = 2048


class Policy(Protocol):
    """Anything that gives probabilities for a block of decisions of a log."""

    @property
    def name(self) -> str: ...

    def probabilities(self, log: Log, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities `(b, S)` over ``allowed(log, rows)``; 0 where that is -1; each row sums to 1."""
        ...


def allowed(log: Log, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """The allowed actions of the decisions ``rows`` `(b,)`: `(b, S)`, padded with -1."""
    if log.candidates is not None:
        return log.candidates[rows]
    every = np.arange(len(log.action_labels), dtype=np.int32)
    return np.broadcast_to(every, (len(rows), len(every)))


def blocks(count: int, width: int) -> Iterator[NDArray[np.int64]]:
    """The decisions 0..count in blocks that keep a `(b, width)` array small."""
    size = max(1, min(BLOCK, 4_000_000 // max(1, width)))
    for start in range(0, count, size):
        yield np.arange(start, min(count, start + size))


def _uniform(actions: NDArray[np.int32]) -> NDArray[np.float64]:
    present = actions >= 0
    return np.asarray(present / present.sum(axis=1, keepdims=True), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class TablePolicy:
    """Actions `(n, k)` int32 and probabilities `(n, k)` for each decision of one log; -1 in the first column means
    uniform."""

    name: str
    actions: NDArray[np.int32]
    weights: NDArray[np.float64]

    def probabilities(self, log: Log, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        columns = allowed(log, rows)
        result = np.zeros(columns.shape)
        for j in range(self.actions.shape[1]):
            action = self.actions[rows, j]
            result += (columns == action[:, None]) * np.where(action >= 0, self.weights[rows, j], 0.0)[:, None]
        guess = self.actions[rows, 0] < 0
        result[guess] = _uniform(columns[guess])
        return result


@dataclass(frozen=True, kw_only=True)
class FrozenBandit:
    """A bandit that has stopped learning: greedy in x W z_a, with what was left of its exploration."""

    name: str
    weights: NDArray[np.float32]
    action_features: NDArray[np.float32]
    exploration: float
    explore: NDArray[np.int32]

    def probabilities(self, log: Log, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        if log.context_features is None:
            raise UnsupportedError(f"'{self.name}' needs context features, which log '{log.name}' does not have.")
        projected = log.context_features[log.context[rows]] @ self.weights
        columns = allowed(log, rows)
        if log.candidates is None:
            scores = projected @ self.action_features.T
        else:
            scores = np.einsum("bm,bsm->bs", projected, self.action_features[np.maximum(columns, 0)])
            scores[columns < 0] = -np.inf
        result = self._explored(columns)
        top = scores == scores.max(axis=1, keepdims=True)
        greedy = np.argmin(np.where(top, columns, np.iinfo(np.int32).max), axis=1)
        result[np.arange(len(rows)), greedy] += 1.0 - self.exploration
        return result

    def _explored(self, columns: NDArray[np.int32]) -> NDArray[np.float64]:
        if len(self.explore) == 0:
            return self.exploration * _uniform(columns)
        return self.exploration * np.isin(columns, self.explore) / len(self.explore)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Each of several policies with its own probability: a hybrid that has stopped learning."""

    name: str
    parts: Sequence[Policy]
    shares: tuple[float, ...]

    def probabilities(self, log: Log, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        weighted = (
            share * part.probabilities(log, rows)
            for share, part in zip(self.shares, self.parts, strict=True)
            if share > 0
        )
        return np.asarray(sum(weighted), dtype=np.float64)
