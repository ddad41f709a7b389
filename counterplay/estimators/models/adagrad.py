"""Linear and logistic regression in one pass, for features too wide for a gram matrix: AdaGrad on hashed features.

The step of each coefficient is set by the squares of its own gradients (Duchi, Hazan & Singer 2011) and by the scale of
its feature (Ross, Mineiro & Langford 2013), so features need not be scaled. The model is the average of the path, late
points counting more (in the manner of Lacoste-Julien, Schmidt & Bach 2012), which takes most of the noise of the last
steps away. Every decision updates the models of all folds but its own, in the same pass.

One pass is an approximation: on data it suits (indicators of categories and their crosses) it comes near the best ridge
penalty; with features that are nearly multiples of each other or of the constant it stays far from the optimum. Use
`CrossFittedRidge` and `CrossFittedLogistic` wherever the features are narrow enough for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.models.features import Features, HashedFeatures, Table, blocks, linear, take, width_of
from counterplay.estimators.models.logistic import sigmoid
from counterplay.estimators.models.training import check_binary_range, no_row_left, training

Loss = Literal["squared", "logistic"]

LOSSES = ("squared", "logistic")

WIDE = ("coefficient", "drift", "square", "scale")
SHORT = ("steps", "active", "mass", "mean", "spread")


@dataclass(frozen=True, kw_only=True)
class AdaGradState:
    """How far the models of all folds have come.

    (p + 1, folds), the last row that of the constant: `coefficient`; `drift`, what the average of the path lacks to it
    times t (t + 1); `square`, the sum of squared gradients; `scale`, the largest absolute value of the feature.
    (folds,): `steps` t; `active`, the sum of squared scaled features; `mass`, `mean` and `spread` of the rewards
    (squared loss only). Memory: 4 folds (p + 1) numbers.
    """

    loss: Loss
    rate: float
    coefficient: Array
    drift: Array
    square: Array
    scale: Array
    steps: Array
    active: Array
    mass: Array
    mean: Array
    spread: Array

    @classmethod
    def empty(cls, folds: int, features: int, loss: Loss = "squared", rate: float = 0.5) -> AdaGradState:
        """No decisions yet. `rate` > 0 is the size of the first steps."""
        if loss not in LOSSES:
            raise ConfigurationError(f"There is no loss '{loss}'. Known: {', '.join(LOSSES)}.")
        if not (rate > 0 and np.isfinite(rate)):
            raise ConfigurationError(f"rate is {rate:g}; the size of the steps must be above 0, for example 0.5.")
        wide = {name: np.zeros((features + 1, folds)) for name in WIDE}
        short = {name: np.zeros(folds) for name in SHORT}
        return cls(loss=loss, rate=rate, **wide, **short)

    def add(
        self, features: Features, reward: npt.ArrayLike, fold: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> AdaGradState:
        """This state after more decisions: features (n, p), reward (n,), fold (n,), weight (n,).

        The order of decisions matters, how they are cut into calls does not. Each call copies the state: give many
        decisions at once.
        """
        from counterplay.estimators.models.adagrad_kernel import learn

        width, folds = self.coefficient.shape
        data = training(features, reward, fold, weight, shape=(folds, width - 1))
        if self.loss == "logistic":
            check_binary_range(data.reward)
        copies = {name: getattr(self, name).copy() for name in (*WIDE, *SHORT)}
        weights = np.ones(len(data.reward)) if data.weight is None else data.weight
        folds_of = data.fold.astype(np.int64)
        for rows in blocks(len(data.reward)):
            indices, values = _entries(take(data.features, rows))
            learn(
                indices, values, data.reward[rows], folds_of[rows], weights[rows],
                self.loss == "logistic", self.rate, *copies.values(),
            )  # fmt: skip
        return replace(self, **copies)

    def merge(self, other: AdaGradState) -> AdaGradState:
        """Both shards together: each coefficient is averaged, weighted by the sum of its squared gradients.

        So a feature that one shard never met keeps what the other learnt (Agarwal, Chapelle, Dudík & Langford 2014);
        where shards are alike this is the average weighted by counts of Zinkevich et al. 2010. The order of merging
        does not matter. The merged model is **not** that of a single pass: each shard's errors from a short path stay
        in it, so it is a little worse than one pass over all, and worse the more shards there are.
        """
        if (self.coefficient.shape, self.loss, self.rate) != (other.coefficient.shape, other.loss, other.rate):
            raise EvidenceError("AdaGrad states of other folds, features, loss or rate do not merge.")
        square, steps, mass = self.square + other.square, self.steps + other.steps, self.mass + other.mass
        share = _share(self.square, square)
        coefficient = share * self.coefficient + (1 - share) * other.coefficient
        average = share * self._average() + (1 - share) * other._average()
        heavy = _share(self.mass, mass)
        off = other.mean - self.mean
        return replace(
            self,
            coefficient=coefficient,
            drift=(coefficient - average) * steps * (steps + 1),
            square=square,
            scale=np.maximum(self.scale, other.scale),
            steps=steps,
            active=self.active + other.active,
            mass=mass,
            mean=heavy * self.mean + (1 - heavy) * other.mean,
            spread=self.spread + other.spread + off**2 * heavy * other.mass,
        )

    def coefficients(self) -> Array:
        """(folds, p + 1) averaged coefficients, the last that of the constant."""
        empty = np.flatnonzero(self.steps == 0)
        if len(empty):
            raise no_row_left(int(empty[0]))
        found = self._average()
        found[-1] += self.mean
        return np.ascontiguousarray(found.T)

    def _average(self) -> Array:
        return np.asarray(self.coefficient - self.drift / np.maximum(self.steps * (self.steps + 1), 1.0))


class CrossFittedAdaGrad:
    """w'x + b (`loss="squared"`) or 1 / (1 + exp(-(w'x + b))) (`loss="logistic"`), one model a fold, in one pass.

    There is no penalty: features that were seldom seen have moved little, which shrinks them enough.
    """

    def __init__(
        self,
        features: Features,
        reward: npt.ArrayLike,
        fold: npt.ArrayLike,
        *,
        weight: npt.ArrayLike | None = None,
        loss: Loss = "squared",
        rate: float = 0.5,
    ) -> None:
        """Fit on features (n, p), reward (n,), fold (n,) and weight (n,), in the order of the rows.

        A log that is sorted (by reward, by action) must be shuffled first.
        """
        data = training(features, reward, fold, weight)
        state = AdaGradState.empty(data.folds, width_of(data.features), loss, rate)
        state = state.add(data.features, data.reward, data.fold, data.weight)
        self.loss, self.coefficients = loss, state.coefficients()

    @classmethod
    def from_state(cls, state: AdaGradState) -> CrossFittedAdaGrad:
        """The same from a state that was streamed or merged."""
        model = cls.__new__(cls)
        model.loss, model.coefficients = state.loss, state.coefficients()
        return model

    def predict(self, features: Features, fold: npt.ArrayLike) -> Array:
        """(m,) predictions for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        found = linear(features, self.coefficients, fold)
        return sigmoid(found) if self.loss == "logistic" else found


def _entries(table: Table) -> tuple[npt.NDArray[np.int32], Array]:
    """Columns (n, k + 1) and their values, the constant last."""
    n, width = len(table), width_of(table)
    if isinstance(table, HashedFeatures):
        indices, values = table.indices, table.values
    else:
        indices, values = np.tile(np.arange(width, dtype=np.int32), (n, 1)), table
    constant = np.full((n, 1), width, np.int32)
    return np.hstack([indices, constant]), np.hstack([values.astype(np.float64), np.ones((n, 1))])


def _share(part: Array, whole: Array) -> Array:
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, 0.5), where=whole > 0))
