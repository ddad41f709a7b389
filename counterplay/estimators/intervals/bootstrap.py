"""The bootstrap over a stream: each unit is met a Poisson number of times in each replicate (Hanley & MacGibbon 2006;
Chamandy et al. 2012). A count is a pure function of the seed, the unit and the replicate, so shards merge by adding, in
any order, and decisions of one cluster come and go together. Ratios are made anew in each replicate, numerator and
denominator together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.moments import PARTS, ClusterSums, Fold, Linear
from counterplay.estimators.terms import Terms

if TYPE_CHECKING:
    from counterplay.estimators.intervals.basis import Basis, Ends

ROWS = 1024
"""Rows counted at once: with 1,000 replicates an array of 8 MB."""

LOST = 0.01
"""The share of replicates that may have no value (nothing of a policy was drawn)."""


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How to resample: `draws` replicates, from `seed`."""

    draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise ConfigurationError(f"draws is {self.draws}; the ends of an interval need at least 100 replicates.")


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Sums of the parts of one estimator in each replicate, (P, 4, B), and what the skewness of its value needs.

    `count`, `mean` (P, 3) and `second`, `third` (P, 3, 3), (P, 3, 3, 3): centred products of numerator, denominator
    and baseline over decisions.
    """

    resampling: Resampling
    sums: Array
    count: int
    mean: Array
    second: Array
    third: Array

    def merge(self, other: Replicates) -> Replicates:
        """Both shards together; Pébay 2008 for the third products."""
        if self.resampling != other.resampling:
            raise EvidenceError("Shards were resampled with other seeds or draws; give all the same.")
        n, m, total = self.count, other.count, self.count + other.count
        d = other.mean - self.mean
        second = self.second + other.second + d[:, :, None] * d[:, None, :] * (n * m / total)
        cross = (n * other.second - m * self.second) / total
        third = self.third + other.third
        third = third + d[:, :, None, None] * d[:, None, :, None] * d[:, None, None, :] * (n * m * (n - m) / total**2)
        third += d[:, :, None, None] * cross[:, None, :, :]
        third += d[:, None, :, None] * cross[:, :, None, :]
        third += d[:, None, None, :] * cross[:, :, :, None]
        return Replicates(
            resampling=self.resampling,
            sums=self.sums + other.sums,
            count=total,
            mean=self.mean + d * (m / total),
            second=second,
            third=third,
        )

    def policy(self, p: int) -> Replicates:
        """Of one policy alone."""
        own = slice(p, p + 1)
        return replace(self, sums=self.sums[own], mean=self.mean[own], second=self.second[own], third=self.third[own])

    def values(self) -> Array:
        """(P, B) the value in each replicate; NaN where nothing of the policy was drawn."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.sums[:, 2] / self.sums[:, 3] + self.sums[:, 0] / self.sums[:, 1])


def replicates_of(evidence: Evidence, terms: dict[str, Terms], resampling: Resampling) -> dict[str, Replicates]:
    """The replicates of some estimators on one block of decisions, all from the same counts."""
    from counterplay.estimators.intervals.counts import poisson_counts

    policies, n = len(evidence.policies), len(evidence)
    parts = {name: _parts(own, policies, n) for name, own in terms.items()}
    stacked = np.concatenate([rows for _, rows in parts.values()] + [np.ones((1, n))])
    # Decisions of one cluster come and go together.
    units = evidence.position if evidence.cluster is None else evidence.cluster
    sums = np.zeros((len(stacked), resampling.draws))
    for start in range(0, n, ROWS):
        here = slice(start, start + ROWS)
        sums += stacked[:, here] @ poisson_counts(units[here], resampling.seed, resampling.draws)
    found, first = {}, 0
    for name, (places, rows) in parts.items():
        own = np.zeros((policies, PARTS, resampling.draws))
        for i, part in enumerate((terms[name].numerator, terms[name].denominator, terms[name].baseline, 1.0)):
            if not isinstance(part, np.ndarray):
                own[:, i] = part * sums[-1]
        for k, i in enumerate(places):
            own[:, i] = sums[first + k * policies : first + (k + 1) * policies]
        first += len(rows)
        mean, second, third = _third_products(places, rows, policies, terms[name])
        found[name] = Replicates(resampling=resampling, sums=own, count=n, mean=mean, second=second, third=third)
    return found


def _parts(terms: Terms, policies: int, n: int) -> tuple[list[int], Array]:
    """Which parts vary, and their rows: (parts P, n)."""
    varying = [(i, part) for i, part in enumerate(terms[:3]) if isinstance(part, np.ndarray)]
    rows = [np.broadcast_to(np.atleast_2d(part), (policies, n)) for _, part in varying]
    return [i for i, _ in varying], np.concatenate(rows) if rows else np.empty((0, n))


def _third_products(places: list[int], rows: Array, policies: int, terms: Terms) -> tuple[Array, Array, Array]:
    mean = np.zeros((policies, 3))
    for i, part in enumerate(terms[:3]):
        if not isinstance(part, np.ndarray):
            mean[:, i] = part or 0.0
    second, third = np.zeros((policies, 3, 3)), np.zeros((policies, 3, 3, 3))
    centred = {}
    for k, i in enumerate(places):
        own = rows[k * policies : (k + 1) * policies]
        mean[:, i] = own.mean(axis=1)
        centred[i] = own - mean[:, i : i + 1]
    for i, left in centred.items():
        for j, right in centred.items():
            product = left * right
            second[:, i, j] = product.sum(axis=1)
            for k, last in centred.items():
                third[:, i, j, k] = (product * last).sum(axis=1)
    return mean, second, third


def acceleration(fold: Fold, linear: Linear, replicates: Replicates) -> Array:
    """(P,) skewness of the influence of a unit / (6 sqrt(G)): Efron 1987."""
    if isinstance(fold, ClusterSums):
        moments = fold.moments()
        influence = np.einsum("pi,ipg->pg", linear.gradient, fold.sums - moments.mean.T[:, :, None])
        square, cube = (influence**2).sum(axis=1), (influence**3).sum(axis=1)
    else:
        g = linear.gradient[:, :3]
        square = np.einsum("pi,pj,pij->p", g, g, replicates.second)
        cube = np.einsum("pi,pj,pk,pijk->p", g, g, g, replicates.third)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(square > 0, cube / (6 * np.maximum(square, 0.0) ** 1.5), 0.0)


def percentile_ends(basis: Basis) -> Ends | str:
    """The quantiles of the replicates (Efron 1979)."""
    return _quantiles(basis, np.zeros(len(basis.linear.value)), np.zeros(len(basis.linear.value)))


def bca_ends(basis: Basis) -> Ends | str:
    """Bias-corrected and accelerated quantiles (Efron 1987), the acceleration from the influence of each unit."""
    from scipy.special import ndtri

    if isinstance(basis.replicates, Replicates):
        values = basis.replicates.values()
        draws = values.shape[1]
        value = basis.linear.value[:, None]
        below = (values < value).sum(axis=1) + 0.5 * (values == value).sum(axis=1)
        shift = ndtri(np.clip(below / draws, 0.5 / draws, 1 - 0.5 / draws))
        return _quantiles(basis, shift, acceleration(basis.fold, basis.linear, basis.replicates))
    return _quantiles(basis, np.empty(0), np.empty(0))


def _quantiles(basis: Basis, shift: Array, accelerate: Array) -> Ends | str:
    from scipy.special import ndtr, ndtri

    if basis.estimator.form != "ratio":
        return f"'{basis.estimator.name}' is not a ratio of sums; use t, normal or empirical_likelihood"
    if basis.replicates is None:
        return "the statistic was made without resampling: give resampling=Resampling()"
    values = basis.replicates.values()
    lost = np.isnan(values).mean(axis=1)
    ends = []
    for tail in ((1 - basis.level) / 2, (1 + basis.level) / 2):
        z = shift + ndtri(tail)
        share = ndtr(shift + z / (1 - accelerate * z))
        ends.append([_quantile(row, q) for row, q in zip(values, share, strict=True)])
    low, high = np.array(ends)
    # A value without error (a constant reward) has replicates that differ by rounding only.
    exact = basis.linear.std_error == 0
    low, high = (np.where(exact, basis.linear.value, np.where(lost > LOST, np.nan, end)) for end in (low, high))
    return low, high


def _quantile(values: Array, share: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, share)) if len(known) and np.isfinite(share) else np.nan
