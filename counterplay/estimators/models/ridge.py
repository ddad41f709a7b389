"""Ridge regression by streamed, mergeable normal equations.

A model used on the decisions it was fitted on makes DR's interval too short (Chernozhukov et al. 2018): decisions
are split into folds, and fold k is predicted by the model of the other folds. One pass over the features serves all
folds: the sums of the others are the total minus the fold's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.models.features import (
    Features,
    blocks,
    gram_width,
    linear,
    take,
    weighted_gram,
    with_constant,
)
from counterplay.estimators.models.training import no_row_left, training


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

    def add(
        self, features: Features, reward: npt.ArrayLike, fold: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> NormalEquations:
        """These sums with more decisions: features (n, p) of the logged actions, reward (n,), fold (n,).

        `weight` (n,), not negative: a decision of weight 3 counts as three decisions.
        """
        folds, width = self.moment.shape
        data = training(features, reward, fold, weight, shape=(folds, width - 1))
        gram_width(data.features)
        gram, moment = self.gram.copy(), self.moment.copy()
        for rows in blocks(len(data.reward)):
            for own in np.unique(data.fold[rows]):
                chosen = np.flatnonzero(data.fold[rows] == own) + rows.start
                block = with_constant(take(data.features, chosen))
                r, w = data.reward[chosen], None if data.weight is None else data.weight[chosen]
                gram[own] += weighted_gram(block, w)
                moment[own] += block.T @ (r if w is None else r * w)
        if not (np.isfinite(moment).all() and np.isfinite(gram).all()):
            raise EvidenceError("The squares of the features leave the range of floating-point numbers; scale them.")
        return NormalEquations(gram=gram, moment=moment)

    def merge(self, other: NormalEquations) -> NormalEquations:
        """Both shards together."""
        if self.moment.shape != other.moment.shape:
            raise EvidenceError(
                f"Sums of (folds, features) {self.moment.shape} and {other.moment.shape} do not merge; "
                "use the same folds and features in every shard."
            )
        return NormalEquations(gram=self.gram + other.gram, moment=self.moment + other.moment)

    def others(self, fold: int) -> tuple[Array, Array]:
        """The sums (p + 1, p + 1) and (p + 1,) of all folds but one."""
        # Added up, not subtracted from the total: the model must not keep even the rounding of its own fold.
        kept = np.arange(len(self.moment)) != fold
        gram, moment = self.gram[kept].sum(axis=0), self.moment[kept].sum(axis=0)
        if not kept.any() or gram[-1, -1] <= 0:
            raise no_row_left(fold)
        return gram, moment

    def solve(self, alpha: float) -> Array:
        """(folds, p + 1) coefficients, row k fitted on all folds but k; `alpha` > 0 shrinks all but the constant.

        They minimise sum(weight (r - x'b)^2) + alpha |b|^2: `alpha` is set against the whole sum, so it weighs less
        the more decisions there are, and it must grow with the weights where those are scaled up.
        """
        check_alpha(alpha)
        ridge = np.full(self.moment.shape[1], float(alpha))
        ridge[-1] = 0.0
        found = np.empty_like(self.moment)
        for k in range(len(found)):
            gram, moment = self.others(k)
            found[k] = np.linalg.solve(gram + np.diag(ridge), moment)
        return found


class CrossFittedLinear:
    """x'b, with one row of coefficients (folds, p + 1) a fold, the last that of the constant."""

    def __init__(self, coefficients: Array) -> None:
        """Take coefficients as they are."""
        self.coefficients = coefficients

    def predict(self, features: Features, fold: npt.ArrayLike) -> Array:
        """(m,) predicted rewards for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        return linear(features, self.coefficients, fold)


class CrossFittedRidge(CrossFittedLinear):
    """r ~ w'x + b, one model a fold, each fitted on the other folds (Hoerl & Kennard 1970).

    Linear in the features given: for a bilinear model give products of context and action features. Predictions are
    not cut to [0, 1]: DR stays unbiased with any model, and cutting would break the normal equations' exactness.
    """

    def __init__(
        self,
        features: Features,
        reward: npt.ArrayLike,
        fold: npt.ArrayLike,
        *,
        weight: npt.ArrayLike | None = None,
        alpha: float = 1.0,
    ) -> None:
        """Fit on features (n, p) of the logged actions, reward (n,), fold (n,) and, where wanted, weight (n,).

        `alpha` is set against the sum over all decisions (see `NormalEquations.solve`). Raises `EvidenceError` where
        a fold leaves no row to fit on.
        """
        data = training(features, reward, fold, weight)
        sums = NormalEquations.empty(data.folds, gram_width(data.features))
        super().__init__(sums.add(data.features, data.reward, data.fold, data.weight).solve(alpha))

    @classmethod
    def from_sums(cls, sums: NormalEquations, alpha: float = 1.0) -> CrossFittedRidge:
        """The same from sums that were streamed or merged."""
        model = cls.__new__(cls)
        CrossFittedLinear.__init__(model, sums.solve(alpha))
        return model


def check_alpha(alpha: float) -> None:
    """Refuse what is no strength of shrinkage."""
    if not (alpha > 0 and np.isfinite(alpha)):
        raise ConfigurationError(f"alpha is {alpha:g}; a ridge needs it above 0, for example 1.0.")
