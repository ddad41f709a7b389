"""Reward models for DM and DR: cross-fitted ridge regression by streamed, mergeable normal equations.

A model used on the decisions it was fitted on makes DR's interval too short (Chernozhukov et al. 2018): decisions
are split into folds, and fold k is predicted by the model of the other folds. One pass over the features serves all
folds: the sums of the others are the total minus the fold's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array, Codes

ROWS = 8192
"""Rows turned into float64 at once."""


def assign_folds(n: int, folds: int = 5, cluster: npt.ArrayLike | None = None, seed: int = 0, start: int = 0) -> Codes:
    """(n,) fold of each decision, in [0, folds): a hash of the seed and its cluster, or of its position from `start`.

    Decisions of one cluster share a fold. Pure: the same decision gets the same fold in any chunk of the log.
    """
    if folds < 2:
        raise ConfigurationError(f"folds is {folds}; at least 2 are needed: a model never predicts its own rows.")
    keys = np.arange(start, start + n) if cluster is None else np.asarray(cluster)
    if keys.shape != (n,):
        raise EvidenceError(f"cluster has shape {keys.shape}; one code for each of {n} decisions is needed.")
    mixed = _mix(keys.astype(np.int64).view(np.uint64) ^ _mix(np.array([seed], dtype=np.int64).view(np.uint64)))
    return (mixed % np.uint64(folds)).astype(np.int64)


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class NormalEquations:
    """Sums of x x' (folds, p + 1, p + 1) and x r (folds, p + 1), the last feature being the constant 1; mergeable.

    Memory: folds (p + 1)^2 numbers, whatever the number of decisions.
    """

    gram: Array
    moment: Array

    @classmethod
    def empty(cls, folds: int, features: int) -> NormalEquations:
        """No decisions yet."""
        return cls(gram=np.zeros((folds, features + 1, features + 1)), moment=np.zeros((folds, features + 1)))

    def add(self, features: npt.ArrayLike, reward: npt.ArrayLike, fold: npt.ArrayLike) -> NormalEquations:
        """These sums with more decisions: features (n, p) of the logged actions, reward (n,), fold (n,)."""
        x, r, k = np.asarray(features), np.asarray(reward, dtype=np.float64), np.asarray(fold)
        self._check(x, r, k)
        gram, moment = self.gram.copy(), self.moment.copy()
        for start in range(0, len(r), ROWS):
            rows = slice(start, start + ROWS)
            for own in np.unique(k[rows]):
                chosen = k[rows] == own
                block = _with_constant(x[rows][chosen])
                gram[own] += block.T @ block
                moment[own] += block.T @ r[rows][chosen]
        if not (np.isfinite(moment).all() and np.isfinite(gram).all()):
            raise EvidenceError(
                "A feature or reward of the reward model is NaN or infinite; all must be finite numbers."
            )
        return NormalEquations(gram=gram, moment=moment)

    def merge(self, other: NormalEquations) -> NormalEquations:
        """Both shards together."""
        return NormalEquations(gram=self.gram + other.gram, moment=self.moment + other.moment)

    def solve(self, alpha: float) -> Array:
        """(folds, p + 1) coefficients, row k fitted on all folds but k; `alpha` > 0 shrinks all but the constant."""
        if not (alpha > 0 and np.isfinite(alpha)):
            raise ConfigurationError(f"alpha is {alpha:g}; a ridge needs it above 0, for example 1.0.")
        ridge = np.full(self.moment.shape[1], float(alpha))
        ridge[-1] = 0.0
        gram, moment = self.gram.sum(axis=0), self.moment.sum(axis=0)
        found = np.empty_like(self.moment)
        for k in range(len(found)):
            others = gram - self.gram[k]
            if others[-1, -1] < 1:
                raise EvidenceError(
                    f"All decisions are in fold {k}: no row is left to fit its model on. Use more folds."
                )
            found[k] = np.linalg.solve(others + np.diag(ridge), moment - self.moment[k])
        return found

    def _check(self, x: npt.NDArray[np.generic], r: Array, k: npt.NDArray[np.generic]) -> None:
        folds, width = self.moment.shape
        if x.ndim != 2 or x.shape != (len(r), width - 1) or k.shape != r.shape:
            raise EvidenceError(
                f"features {x.shape}, reward {r.shape} and fold {k.shape} do not fit: "
                f"(n, {width - 1}), (n,) and (n,) are needed."
            )
        if k.dtype.kind not in "iu" or (len(k) and (int(k.min()) < 0 or int(k.max()) >= folds)):
            raise EvidenceError(f"fold must hold integers from 0 to {folds - 1}: take them from assign_folds.")


class CrossFittedRidge:
    """r ~ w'x + b, one model a fold, each fitted on the other folds (Hoerl & Kennard 1970).

    Linear in the features given: for a bilinear model give products of context and action features. Predictions are
    not cut to [0, 1]: DR stays unbiased with any model, and cutting would break the normal equations' exactness.
    """

    def __init__(self, features: npt.ArrayLike, reward: npt.ArrayLike, fold: npt.ArrayLike, alpha: float = 1.0) -> None:
        """Fit on features (n, p) of the logged actions, reward (n,) and fold (n,)."""
        x, folds = np.asarray(features), np.asarray(fold)
        if x.ndim != 2 or not len(x) or not len(folds):
            raise EvidenceError(f"features has shape {x.shape}; (n, p) with at least one decision is needed.")
        sums = NormalEquations.empty(int(folds.max()) + 1, x.shape[1]).add(x, reward, folds)
        self.coefficients: Array = sums.solve(alpha)

    @classmethod
    def from_sums(cls, sums: NormalEquations, alpha: float = 1.0) -> CrossFittedRidge:
        """The same from sums that were streamed or merged."""
        model = cls.__new__(cls)
        model.coefficients = sums.solve(alpha)
        return model

    def predict(self, features: npt.ArrayLike, fold: npt.ArrayLike) -> Array:
        """(m,) predicted rewards for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        x, k = np.asarray(features), np.asarray(fold)
        if x.ndim != 2 or x.shape[1] != self.coefficients.shape[1] - 1 or k.shape != (len(x),):
            raise EvidenceError(
                f"features {x.shape} and fold {k.shape} do not fit: (m, {self.coefficients.shape[1] - 1}) and (m,)."
            )
        found = np.empty(len(x))
        for own in np.unique(k):
            chosen = k == own
            weight = self.coefficients[own]
            found[chosen] = x[chosen] @ weight[:-1] + weight[-1]
        return found


def _with_constant(x: npt.NDArray[np.generic]) -> Array:
    block = np.ones((len(x), x.shape[1] + 1))
    block[:, :-1] = x
    return block
