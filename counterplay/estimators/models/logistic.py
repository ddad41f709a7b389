"""Logistic regression by Newton's method, each step from sums that stream and merge.

Sums taken at the same coefficients merge exactly, so any cut of the log, on any number of machines, gives the penalised
maximum-likelihood fit of the whole to rounding. The price is a pass over the log for each step, of which five to eight
are needed as a rule.
One step alone would be one pass, but from a start at zero it is a linear discriminant and not calibrated, and averaging
shards' fits is not the fit of their union; where one pass is all there is, `CrossFittedAdaGrad` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
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
from counterplay.estimators.models.ridge import check_alpha
from counterplay.estimators.models.training import Training, check_binary_range, no_row_left, training

MOST_STEPS = 100

ROUNDING = 1e-13
"""How much larger, a decision, the loss may look by rounding alone."""

CONVERGED = 1e-16
"""What the next step may gain in log-likelihood a decision. Newton doubles its digits, so what is left is rounding."""


@dataclass(frozen=True, kw_only=True)
class LogisticSums:
    """Where the fit of each fold's model stands, and what the decisions of the other folds say there; mergeable.

    `coefficients` (folds, p + 1), the last that of the constant. At them: `gain` (folds, 2), the weight of the rewards
    and of what they lack to 1; `loss` (folds,), minus the log-likelihood; `gradient` (folds, p + 1); `curvature`
    (folds, p + 1, p + 1). `before` and `loss_before` are the last accepted point, `done` (folds,) the models that have
    converged. Memory: folds (p + 1)^2 numbers.
    """

    coefficients: Array
    before: Array
    loss_before: Array
    done: npt.NDArray[np.bool_]
    gain: Array
    loss: Array
    gradient: Array
    curvature: Array

    @classmethod
    def empty(cls, folds: int, features: int) -> LogisticSums:
        """No decisions yet, at coefficients 0."""
        start = np.zeros((folds, features + 1))
        return cls._at(start, start, np.full(folds, np.inf), np.zeros(folds, bool))

    @classmethod
    def _at(cls, coefficients: Array, before: Array, loss_before: Array, done: npt.NDArray[np.bool_]) -> LogisticSums:
        folds, width = coefficients.shape
        return cls(
            coefficients=coefficients, before=before, loss_before=loss_before, done=done, gain=np.zeros((folds, 2)),
            loss=np.zeros(folds), gradient=np.zeros((folds, width)), curvature=np.zeros((folds, width, width)),
        )  # fmt: skip

    def add(
        self, features: Features, reward: npt.ArrayLike, fold: npt.ArrayLike, weight: npt.ArrayLike | None = None
    ) -> LogisticSums:
        """These sums with more decisions: features (n, p), reward (n,) in [0, 1], fold (n,), weight (n,)."""
        folds, width = self.coefficients.shape
        data = training(features, reward, fold, weight, shape=(folds, width - 1))
        check_binary_range(data.reward)
        return self._added(data)

    def _added(self, data: Training) -> LogisticSums:
        gain, loss = self.gain.copy(), self.loss.copy()
        gradient, curvature = self.gradient.copy(), self.curvature.copy()
        for rows in blocks(len(data.reward)):
            block, r = with_constant(take(data.features, rows)), data.reward[rows]
            weight = 1.0 if data.weight is None else data.weight[rows]
            for k in np.flatnonzero(~self.done):
                w = weight * (data.fold[rows] != k)
                margin = block @ self.coefficients[k]
                p, lack = sigmoid(margin), sigmoid(-margin)
                gain[k] += (w @ r, w @ (1 - r))
                loss[k] += w @ (np.logaddexp(0.0, margin) - r * margin)
                # Not p - r and 1 - p: where the classes are nearly separable these would be all rounding.
                gradient[k] += block.T @ (w * (p * (1 - r) - lack * r))
                curvature[k] += weighted_gram(block, w * p * lack)
        return replace(self, gain=gain, loss=loss, gradient=gradient, curvature=curvature)

    def merge(self, other: LogisticSums) -> LogisticSums:
        """Both shards together; both must stand at the same coefficients."""
        if not np.array_equal(self.coefficients, other.coefficients):
            raise EvidenceError("Sums at different coefficients do not merge: take one step with all shards merged.")
        return replace(
            self,
            gain=self.gain + other.gain,
            loss=self.loss + other.loss,
            gradient=self.gradient + other.gradient,
            curvature=self.curvature + other.curvature,
        )

    def step(self, alpha: float) -> LogisticSums:
        """No decisions yet, at the next coefficients: all decisions are to be added again until `done.all()`.

        `alpha` > 0 shrinks all but the constant: the fit minimises minus the log-likelihood plus alpha / 2 |b|^2, set
        against the sum over all decisions. Where a step made it worse, the next point lies half-way back.
        """
        check_alpha(alpha)
        ridge = np.full(self.coefficients.shape[1], float(alpha))
        ridge[-1] = 0.0
        following, before = self.coefficients.copy(), self.before.copy()
        loss_before, done = self.loss_before.copy(), self.done.copy()
        for k in np.flatnonzero(~self.done):
            here, (ones, zeros) = self.coefficients[k], self.gain[k]
            if ones + zeros <= 0:
                raise no_row_left(int(k))
            if ones == 0 or zeros == 0:
                # The likelihood of one class has no maximum: the model says that class with certainty.
                following[k], done[k] = 0.0, True
                following[k, -1] = np.inf if zeros == 0 else -np.inf
                continue
            loss = self.loss[k] + 0.5 * (ridge * here) @ here
            if loss > loss_before[k] + ROUNDING * (ones + zeros):
                following[k] = (before[k] + here) / 2
                continue
            slope = self.gradient[k] + ridge * here
            try:
                move = np.linalg.solve(self.curvature[k] + np.diag(ridge), slope)
            except np.linalg.LinAlgError:
                raise EvidenceError(_UNSTABLE) from None
            following[k], before[k], loss_before[k] = here - move, here, loss
            done[k] = slope @ move <= CONVERGED * (ones + zeros)
        if not np.isfinite(following[~done]).all():
            raise EvidenceError(_UNSTABLE)
        return LogisticSums._at(following, before, loss_before, done)


_UNSTABLE = "Logistic regression finds no maximum: the features differ too much in size. Scale them to about 1 each."


class CrossFittedLogistic:
    """Probability of reward 1: 1 / (1 + exp(-(w'x + b))), one model a fold, each fitted on the other folds.

    Rewards lie in [0, 1]; shares between 0 and 1 are fitted as they are (Papke & Wooldridge 1996). Where the other
    folds hold one class only, that class is predicted with certainty.
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

        `alpha` is set against the sum over all decisions (see `LogisticSums.step`). Cost: folds p^2 n a step, five to
        eight steps.
        """
        data = training(features, reward, fold, weight)
        check_binary_range(data.reward)
        sums = LogisticSums.empty(data.folds, gram_width(data.features))
        for _ in range(MOST_STEPS):
            sums = sums._added(data).step(alpha)
            if sums.done.all():
                break
        else:
            raise EvidenceError(_UNSTABLE)
        self.coefficients: Array = sums.coefficients

    @classmethod
    def from_sums(cls, sums: LogisticSums) -> CrossFittedLogistic:
        """The same from sums that were streamed or merged, after their last step."""
        if not sums.done.all():
            raise EvidenceError(
                f"The fit has not converged for {int((~sums.done).sum())} of {len(sums.done)} folds: "
                "add all decisions again and take another step."
            )
        model = cls.__new__(cls)
        model.coefficients = sums.coefficients
        return model

    def predict(self, features: Features, fold: npt.ArrayLike) -> Array:
        """(m,) probabilities for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        return sigmoid(linear(features, self.coefficients, fold))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))
