"""What a reward model sees of a decision and an action, made from whatever the log has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.estimators.models import HashedFeatures
from counterplay.estimators.models.features import WIDEST
from counterplay.logs.chunks import Chunk

MOST_INDICATORS = 1000
"""Actions without features are told apart by an indicator each, up to so many."""

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class PairFeatures:
    """Features of pairs of decision and action, ``width`` of them.

    The action's features, or without them one indicator an action (up to 1,000 actions); the context's features; and
    where contexts and actions live in one space, their inner product and its terms. The models bring the constant.
    ``sparse``: the indicators are kept as the place of the one that is 1. ``numbers``: how many each pair takes.
    """

    def __init__(self, log: Chunk) -> None:
        """For logs like this one: its actions, and as many context features."""
        z, x = log.action_features, log.context_features
        count, contexts = len(log.action_labels), 0 if x is None else x.shape[1]
        self._indicators = count if z is None and count <= MOST_INDICATORS else 0
        self._shared = z is not None and x is not None and z.shape[1] == contexts
        self.sparse = self._indicators > 0 and self._indicators + contexts <= WIDEST
        self._z: Floats | None = None if z is None else z.astype(np.float64)
        if self._indicators and not self.sparse:
            self._z = np.eye(count)
        actions = self._indicators if self._z is None else self._z.shape[1]
        self.width = actions + contexts + (contexts + 1) * self._shared
        self.numbers = 1 + contexts if self.sparse else self.width

    def of(self, log: Chunk, rows: Rows, actions: NDArray[np.int32]) -> Floats | HashedFeatures:
        """Features `(m, width)` of the decisions ``rows`` `(m,)`, each with one of ``actions`` `(m,)`."""
        if not self.sparse:
            return self._joined(log, rows, None if self._z is None else self._z[actions])
        indices = np.empty((len(rows), self.numbers), np.int32)
        indices[:, 0] = actions
        indices[:, 1:] = np.arange(self._indicators, self.width)
        values = np.ones(indices.shape, np.float32)
        if log.context_features is not None:
            values[:, 1:] = log.context_features[log.context[rows]]
        return HashedFeatures(indices=indices, values=values, width=self.width)

    def averages(self, log: Chunk) -> bool:
        """Whether ``mean`` is quicker than to look at every pair: not where candidates are few of many indicators."""
        return not (self.sparse and log.candidates is not None)

    def mean(self, log: Chunk, rows: Rows, columns: NDArray[np.int32], p: Floats) -> Floats:
        """Features `(b, width)` of the decisions ``rows`` `(b,)`, averaged over the actions ``columns`` `(b, S)` with
        probabilities ``p`` `(b, S)`: as all features are linear in the action's, no pair is ever made."""
        if self.sparse:
            return self._joined(log, rows, p)
        if self._z is None:
            return self._joined(log, rows, None)
        if log.candidates is None:
            return self._joined(log, rows, p @ self._z)
        return self._joined(log, rows, np.matmul(p[:, None, :], self._z[np.maximum(columns, 0)])[:, 0])

    def _joined(self, log: Chunk, rows: Rows, z: Floats | None) -> Floats:
        parts = [] if z is None else [z]
        if log.context_features is not None:
            x = log.context_features[log.context[rows]].astype(np.float64)
            parts.append(x)
            if self._shared and z is not None:
                product = x * z
                parts += [product.sum(axis=1, keepdims=True), product]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(rows), 0))
