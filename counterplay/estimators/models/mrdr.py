"""More robust doubly robust: reward models fitted to make DR's variance small, one for each policy.

Farajtabar, Chow & Ghavamzadeh 2018 choose the reward model that minimises the variance of DR instead of the error of
its predictions. It matters where the model is wrong; a right model is a minimiser of both. DR stays unbiased with any
cross-fitted model. MRDR is the estimator `dr` on evidence whose `q_logged` (P, n) comes from one such model a policy.

For a linear model the variance of DR's terms,

    t = x̄'b + w (r - x'b) = w r - z'b,    z = w x - x̄,    x̄ = sum over actions of pi x,    w = target / propensity

is a sum of squares in b, so that the minimiser is a least-squares fit on z, for deterministic and stochastic policies
alike. `MRDRSums` fits it from a plain ridge b0: it regresses w (r - x'b0) on z with a constant and adds the result to
b0. The two regressions have the same minimiser in the population (they differ by x̄'b0, which depends on the context
only, and z has mean zero given the context), and the second has far less noise. `alpha` shrinks towards b0, so a policy
whose actions were hardly ever logged gets the plain model.

For models that only take weights, `mrdr_weights` gives w^2 (1 - propensity): the diagonal of that variance, and all of
it where the policy is deterministic. The Open Bandit Pipeline's `fitting_method="mrdr"` has target in the place of
target^2: the same for deterministic policies, no part of the variance for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.models.features import ROWS, HashedFeatures, as_table
from counterplay.estimators.models.ridge import CrossFittedLinear, NormalEquations


def mrdr_weights(target: npt.ArrayLike, propensity: npt.ArrayLike) -> Array:
    """(P, n) weights of the decisions for models that take weights: target (P, n) or (n,), propensity (n,).

    (target / propensity)^2 (1 - propensity). A decision that the logging policy took with certainty has weight 0: its
    reward is known, whatever a model says. Does not hold exactly for stochastic policies (products of two actions'
    errors are left out); prefer `fit_mrdr` where a linear model will do.
    """
    p, mu = np.atleast_2d(np.asarray(target, dtype=np.float64)), np.asarray(propensity, dtype=np.float64)
    if mu.ndim != 1 or p.shape[1:] != mu.shape:
        raise EvidenceError(f"target {p.shape} and propensity {mu.shape} do not fit: (P, n) and (n,) are needed.")
    bad = np.flatnonzero(~((mu > 0) & (mu <= 1)))
    if len(bad):
        raise EvidenceError(f"propensity at row {bad[0]} is {mu[bad[0]]:g}; it must be in (0, 1].")
    return np.asarray((p / mu) ** 2 * (1 - mu))


@dataclass(frozen=True, kw_only=True)
class MRDRSums:
    """What P linear models that minimise DR's variance are fitted from; mergeable.

    `plain`: the normal equations of the ridge that all start from. `terms`, one a policy: those of w r on
    (w x, w, x̄, 1). Memory: folds (p + 1)^2 + P folds (2 p + 3)^2 numbers, whatever the number of decisions.
    """

    plain: NormalEquations
    terms: tuple[NormalEquations, ...]

    @classmethod
    def empty(cls, folds: int, features: int, policies: int) -> MRDRSums:
        """No decisions yet."""
        terms = tuple(NormalEquations.empty(folds, 2 * features + 2) for _ in range(policies))
        return cls(plain=NormalEquations.empty(folds, features), terms=terms)

    def add(
        self,
        features: npt.ArrayLike,
        target_features: Sequence[npt.ArrayLike] | npt.ArrayLike,
        reward: npt.ArrayLike,
        weights: npt.ArrayLike,
        fold: npt.ArrayLike,
    ) -> MRDRSums:
        """These sums with more decisions.

        `features` (n, p) of the logged actions; `target_features` (P, n, p), the mean of the features of each
        policy's action, sum over actions of pi x; `reward` (n,); `weights` (P, n), target / propensity; `fold` (n,).
        """
        x, r, w = _dense(features), np.asarray(reward, dtype=np.float64), np.asarray(weights, dtype=np.float64)
        k, means = np.asarray(fold), [np.asarray(mean) for mean in target_features]  # type: ignore[union-attr]
        policies = len(self.terms)
        if len(means) != policies or any(mean.shape != x.shape for mean in means) or w.shape != (policies, len(x)):
            raise EvidenceError(
                f"features {x.shape}, target_features {[mean.shape for mean in means]} and weights {w.shape} do not "
                f"fit {policies} policies: (n, p), (P, n, p) and (P, n) are needed."
            )
        bad = np.argwhere(~((w >= 0) & np.isfinite(w)))
        if len(bad):
            raise EvidenceError(
                f"weights of policy {bad[0][0]} at row {bad[0][1]} is {w[tuple(bad[0])]:g}, one of {len(bad)} that are "
                "no finite number, or negative."
            )
        plain, terms = self.plain.add(x, r, k), list(self.terms)
        for start in range(0, len(r), ROWS):
            rows = slice(start, start + ROWS)
            for p, mean in enumerate(means):
                both = np.hstack([w[p, rows, None] * x[rows], w[p, rows, None], mean[rows], np.ones((len(r[rows]), 1))])
                terms[p] = terms[p].add(both, w[p, rows] * r[rows], k[rows])
        return MRDRSums(plain=plain, terms=tuple(terms))

    def merge(self, other: MRDRSums) -> MRDRSums:
        """Both shards together."""
        terms = tuple(ours.merge(theirs) for ours, theirs in zip(self.terms, other.terms, strict=True))
        return MRDRSums(plain=self.plain.merge(other.plain), terms=terms)

    def solve(self, alpha: float = 1.0) -> list[CrossFittedLinear]:
        """One model a policy. `alpha` > 0 shrinks the plain ridge to 0 and each policy's model to the plain ridge.

        Both are set against sums over all decisions, as in `NormalEquations.solve`.
        """
        plain = self.plain.solve(alpha)
        return [
            CrossFittedLinear(np.stack([_least_variance(sums, k, plain[k], alpha) for k in range(len(plain))]))
            for sums in self.terms
        ]


def fit_mrdr(
    features: npt.ArrayLike,
    target_features: Sequence[npt.ArrayLike] | npt.ArrayLike,
    reward: npt.ArrayLike,
    weights: npt.ArrayLike,
    fold: npt.ArrayLike,
    *,
    alpha: float = 1.0,
) -> list[CrossFittedLinear]:
    """One cross-fitted linear model for each policy, whose DR has the least variance; arrays as in `MRDRSums.add`.

        models = fit_mrdr(features, target_features, reward, target / propensity, fold)
        q_logged = np.stack([model.predict(features, fold) for model in models])
        q_target = np.stack([model.predict(mean, fold) for model, mean in zip(models, target_features)])

    The weights must be known, not estimated from rewards. With few decisions of large weight the fit is noisy: then a
    plain ridge, or a larger `alpha`, does as well.
    """
    x, w, k = _dense(features), np.asarray(weights), np.asarray(fold)
    if w.ndim != 2 or not k.size or k.dtype.kind not in "iu":
        raise EvidenceError(
            f"features {x.shape}, weights {w.shape} and fold {k.shape} do not fit: (n, p), (P, n) and (n,) with at "
            "least one decision are needed, fold holding integers."
        )
    sums = MRDRSums.empty(int(k.max()) + 1, x.shape[1], len(w))
    return sums.add(x, target_features, reward, w, k).solve(alpha)


def _dense(features: npt.ArrayLike) -> npt.NDArray[Any]:
    """(n, p) numbers; hashed features are refused: the mean over a policy's actions is no such record."""
    table = as_table(features)
    if isinstance(table, HashedFeatures):
        raise EvidenceError("fit_mrdr needs dense features (n, p); for hashed ones fit a model with mrdr_weights.")
    return table


def _least_variance(sums: NormalEquations, fold: int, plain: Array, alpha: float) -> Array:
    """b0 plus the ridge regression of w (r - x'b0) on z with a free constant, from the sums of the other folds."""
    gram, moment = sums.others(fold)
    width = len(plain)
    logged, target = slice(0, width), slice(width, 2 * width)
    count, total = gram[-1, -1], gram[-1, :-1]
    mean_z, mean_e = total[logged] - total[target], moment[-1] - total[logged] @ plain
    z_logged = gram[logged, logged] - gram[target, logged]
    z_z = z_logged - gram[logged, target] + gram[target, target]
    z_e = moment[logged] - moment[target] - z_logged @ plain
    spread = z_z - np.outer(mean_z, mean_z) / count
    correction = np.linalg.solve(spread + alpha * np.eye(width), z_e - mean_z * (mean_e / count))
    return np.asarray(plain + correction)
