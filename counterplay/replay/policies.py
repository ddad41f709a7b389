"""Policies: fixed probabilities pi(a|x), for estimators and for exact values.

A policy answers for a block of decisions at a time, with one probability for each allowed action: the columns are the
log's candidates in their order, or all K actions where the log has none. So no array ever holds every decision times
every action.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import InputError
from counterplay.logs.chunks import Chunk
from counterplay.logs.log import Log

BLOCK = 2048


class Policy(Protocol):
    """Anything that gives probabilities for a block of decisions of a log."""

    @property
    def name(self) -> str: ...

    def probabilities(self, log: Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities `(b, S)` over ``allowed(log, rows)``; 0 where that is -1; each row sums to 1."""
        ...


@runtime_checkable
class SaysLogged(Protocol):
    """A policy that knows the probability of the logged action without a look at every other: a log with a thousand
    actions is then as quick as one with ten."""

    def of_logged(self, log: Chunk) -> NDArray[np.float64]:
        """pi(logged action) `(b,)` of all decisions of the chunk."""
        ...

    def whole(self, log: Chunk) -> bool:
        """Whether the probabilities of the other actions are known too. Where they are not, the prediction for the
        logged action stands for its mean over the policy's actions: right for a policy that took it itself."""
        ...


def allowed(log: Log | Chunk, rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """The allowed actions of the decisions ``rows`` `(b,)`: `(b, S)`, padded with -1."""
    if log.candidates is not None:
        return log.candidates[rows]
    every = np.arange(len(log.action_labels), dtype=np.int32)
    if isinstance(log, Chunk) and (log.sizes[rows] != len(every)).any():
        raise InputError(f"These decisions of log '{log.name}' were read without their candidates: ask for them.")
    return np.broadcast_to(every, (len(rows), len(every)))


def blocks(count: int, width: int) -> Iterator[NDArray[np.int64]]:
    """The decisions 0..count in blocks that keep a `(b, width)` array small."""
    size = max(1, min(BLOCK, 4_000_000 // max(1, width)))
    for start in range(0, count, size):
        yield np.arange(start, min(count, start + size))


def uniform(actions: NDArray[np.int32]) -> NDArray[np.float64]:
    """The same probability for each action of a row `(b, S)` that is not -1."""
    present = actions >= 0
    return np.asarray(present / present.sum(axis=1, keepdims=True), dtype=np.float64)


def spread(columns: NDArray[np.int32], actions: NDArray[np.int32], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities `(b, S)` over the actions in ``columns``, from a table of actions and probabilities `(b, k)`; -1 in
    the table's first column means uniform."""
    result = np.zeros(columns.shape)
    for j in range(actions.shape[1]):
        action = actions[:, j]
        result += (columns == action[:, None]) * np.where(action >= 0, weights[:, j], 0.0)[:, None]
    guess = actions[:, 0] < 0
    result[guess] = uniform(columns[guess])
    return result


@dataclass(frozen=True, kw_only=True)
class TablePolicy:
    """Actions `(n, k)` int32 and probabilities `(n, k)` for each decision of one log; -1 in the first column means
    uniform."""

    name: str
    actions: NDArray[np.int32]
    weights: NDArray[np.float64]

    def probabilities(self, log: Log | Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return spread(allowed(log, rows), self.actions[rows], self.weights[rows])


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Each of several policies with its own probability: a hybrid that has stopped learning."""

    name: str
    parts: Sequence[Policy]
    shares: tuple[float, ...]

    def probabilities(self, log: Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        weighted = (
            share * part.probabilities(log, rows)
            for share, part in zip(self.shares, self.parts, strict=True)
            if share > 0
        )
        return np.asarray(sum(weighted), dtype=np.float64)
