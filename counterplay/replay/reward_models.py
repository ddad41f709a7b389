"""Reward models for DM and DR, fitted on a log a chunk at a time: each decision is predicted from other folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, EvidenceError, nearest
from counterplay.estimators.models import (
    CrossFittedLogistic,
    CrossFittedRidge,
    LogisticSums,
    NormalEquations,
    RewardModel,
    assign_folds,
)
from counterplay.estimators.models.features import Features
from counterplay.estimators.models.logistic import MOST_STEPS
from counterplay.logs.chunks import Chunk
from counterplay.replay.pair_features import PairFeatures

FOLDS = 5
ALPHA = 1.0
ROWS = 131_072
PAIRS = 4_000_000
"""Numbers in the features that are made at once."""

Chunks = Callable[[], Iterable[Chunk]]
"""The chunks of a log, as often as they are asked for: some models need more than one pass."""

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class FittedRewards:
    """A cross-fitted model with the features that it reads. ``linear``: it predicts the mean of features by the mean of
    its predictions."""

    features: PairFeatures
    model: RewardModel
    linear: bool

    def of_logged(self, log: Chunk) -> Floats:
        """Predictions `(b,)` for the logged actions of a chunk."""
        found = np.empty(len(log))
        for rows in _blocks(log, self.features.numbers):
            found[rows] = self.model.predict(self.features.of(log, rows, log.action[rows]), folds_of(log, rows))
        return found

    def numbers_a_pair(self, log: Chunk) -> int:
        """How many numbers a pair of decision and action takes in ``of_policy``."""
        return 1 if self.linear and log.candidates is None else 1 + self.features.numbers

    def of_policy(self, log: Chunk, rows: Rows, columns: NDArray[np.int32], p: Floats) -> Floats:
        """Sums `(b,)` over the actions ``columns`` `(b, S)` of their probability ``p`` `(b, S)` times prediction."""
        folds = folds_of(log, rows)
        if self.linear and self.features.averages(log):
            return np.asarray(self.model.predict(self.features.mean(log, rows, columns, p), folds))
        # Only what the policy may do is asked for: one action a decision where it is deterministic.
        at, place = np.nonzero(p)
        found = self.model.predict(self.features.of(log, rows[at], columns[at, place]), folds[at])
        return np.bincount(at, weights=p[at, place] * found, minlength=len(rows)).astype(np.float64)


def folds_of(log: Chunk, rows: Rows) -> Rows:
    """The fold of some decisions: a hash of its cluster, or of its place in the log, whatever chunk it comes in."""
    return assign_folds(len(rows), FOLDS, cluster=log.start + rows if log.cluster is None else log.cluster[rows])


def fit_rewards(chunks: Chunks, kind: str = "ridge") -> FittedRewards:
    """Fit a model of the reward, given features of context and action, on the logged actions.

    Args:
        chunks: the log. ``ridge`` reads it once, ``logistic`` (rewards in [0, 1] only) once a step, five to eight
            times.
        kind: a name in ``KINDS``.

    Raises:
        ConfigurationError: there is no such model.
        EvidenceError: it cannot be fitted: too few decisions, rewards outside [0, 1] for ``logistic``.
    """
    if kind not in KINDS:
        raise ConfigurationError(f"There is no reward model '{kind}'. {nearest(kind, KINDS)}")
    features, model = KINDS[kind](chunks)
    return FittedRewards(features=features, model=model, linear=kind == "ridge")


def _ridge(chunks: Chunks) -> tuple[PairFeatures, RewardModel]:
    sums: NormalEquations | None = None
    for features, x, r, fold in _training(chunks):
        sums = (NormalEquations.empty(FOLDS, features.width) if sums is None else sums).add(x, r, fold)
    if sums is None:
        raise _no_decisions()
    return features, CrossFittedRidge.from_sums(sums, ALPHA)


def _logistic(chunks: Chunks) -> tuple[PairFeatures, RewardModel]:
    sums: LogisticSums | None = None
    for _ in range(MOST_STEPS):
        for features, x, r, fold in _training(chunks):
            sums = (LogisticSums.empty(FOLDS, features.width) if sums is None else sums).add(x, r, fold)
        if sums is None:
            raise _no_decisions()
        sums = sums.step(ALPHA)
        if sums.done.all():
            break
    assert sums is not None
    return features, CrossFittedLogistic.from_sums(sums)


KINDS: dict[str, Callable[[Chunks], tuple[PairFeatures, RewardModel]]] = {"ridge": _ridge, "logistic": _logistic}


def _training(chunks: Chunks) -> Iterator[tuple[PairFeatures, Features, Floats, Rows]]:
    """The features of the logged pairs, with their rewards and folds, a block at a time."""
    features: PairFeatures | None = None
    for log in chunks():
        features = features or PairFeatures(log)
        for rows in _blocks(log, features.numbers):
            yield features, features.of(log, rows, log.action[rows]), log.reward[rows], folds_of(log, rows)


def _no_decisions() -> EvidenceError:
    """The error for a log that holds nothing to learn from."""
    return EvidenceError("The log has no decisions, so there is nothing to fit a reward model on.")


def _blocks(log: Chunk, width: int) -> Iterable[Rows]:
    size = max(1, min(ROWS, PAIRS // max(1, width)))
    for start in range(0, len(log), size):
        yield np.arange(start, min(len(log), start + size))
