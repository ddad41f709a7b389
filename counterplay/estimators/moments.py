"""What remains of the terms: counts, means and centred cross products over independent units; small, and mergeable.

A unit is a decision, or a cluster of decisions whose terms are summed first. Two shards merge by Chan, Golub & LeVeque
1983, which is stable, so any order of merging agrees to about 1e-13 relative.

Clusters may straddle shards: the sums of every cluster are kept (32 P bytes a cluster) and added when shards
merge, so no cut of a log can be wrong. A log without clusters keeps 20 numbers a policy, however long it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array, Codes, Evidence, distinct
from counterplay.estimators.terms import Form, Terms

PARTS = 4
"""Numerator, denominator, baseline, size (the number of decisions in the unit)."""


class Linear(NamedTuple):
    """(P,) values, their standard errors (NaN with fewer than two units), and (P, 4) gradients in the means."""

    value: Array
    std_error: Array
    gradient: Array

    def of(self, policies: slice) -> Linear:
        """Of some policies alone."""
        return Linear(self.value[policies], self.std_error[policies], self.gradient[policies])


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Over `count` units: means (P, 4) and centred cross products (P, 4, 4) of the parts.

    `powers` (P, 2): sums of the third and fourth powers of the numerator, which tell how many units make its spread;
    `largest_unit`: the most decisions in a unit.
    """

    count: int
    mean: Array
    spread: Array
    powers: Array
    largest_unit: float = 1.0

    def merge(self, other: Moments) -> Moments:
        """Both shards together."""
        total = self.count + other.count
        delta = other.mean - self.mean
        spread = self.spread + other.spread
        spread += (delta[:, :, None] * delta[:, None, :]) * (self.count * other.count / total)
        mean = self.mean + delta * (other.count / total)
        return Moments(
            count=total,
            mean=mean,
            spread=spread,
            powers=self.powers + other.powers,
            largest_unit=max(self.largest_unit, other.largest_unit),
        )

    def moments(self) -> Moments:
        """Themselves: the units were decisions."""
        return self

    def policy(self, p: int) -> Moments:
        """Of one policy alone."""
        own = slice(p, p + 1)
        return replace(self, mean=self.mean[own], spread=self.spread[own], powers=self.powers[own])

    def effective_terms(self, low: float | None = None, high: float | None = None, ratio: bool = False) -> Array:
        """(P,) about so many units make the value: with rare rewards as many as there are rewards, or failures.

        Of weighted rewards from `low` to `high` the effective number of units with w (r - low) and, for ratios, with
        w (high - r), the smaller: sum(d)^2 / sum(d^2). Of terms of either sign sum(d^2)^2 / sum(d^4) with deviations d.
        NaN where nothing varies, or where it is lost in rounding.
        """
        if low is None or high is None or not (ratio or low >= 0 or high <= 0):
            return self._from_powers()
        if not ratio:
            return self._kish(0.0, 1.0)
        return np.fmin(self._kish(low, 1.0), self._kish(high, -1.0))

    def _kish(self, level: float, sign: float) -> Array:
        """Effective number of units of sign (numerator - level denominator)."""
        mean, square = self.mean[:, 0], self.spread[:, 0, 0]
        with np.errstate(all="ignore"):
            lost = 1e-9 * square
            if level:
                mean = mean - level * self.mean[:, 1]
                parts = square, -2 * level * self.spread[:, 0, 1], level**2 * self.spread[:, 1, 1]
                square = parts[0] + parts[1] + parts[2]
                lost = 1e-9 * (np.abs(parts[0]) + np.abs(parts[1]) + np.abs(parts[2]))
            total = sign * self.count * mean
            raw = square + total * mean * sign
            return np.where((raw > 0) & (square >= 0) & (raw > lost), total * (total / raw), np.nan)

    def _from_powers(self) -> Array:
        mean, square = self.mean[:, 0], self.spread[:, 0, 0]
        third, fourth = self.powers.T
        with np.errstate(all="ignore"):
            raw = square + self.count * mean**2
            central = fourth - 4 * mean * third + 6 * mean**2 * raw - 3 * self.count * mean**4
            known = (square > 0) & (central > 1e-9 * np.abs(fourth))
            return np.where(known, square / central * square, np.nan)


@dataclass(frozen=True, kw_only=True)
class ClusterSums:
    """The sums of the parts over each cluster: `codes` (G,) ascending, `sums` (4, P, G)."""

    codes: Codes
    sums: Array

    def merge(self, other: ClusterSums) -> ClusterSums:
        """Both shards together; a cluster in both is one cluster."""
        if not len(self.codes):
            return other
        # Where clusters are numbered as they appear, a later shard goes on with some and begins others.
        known = np.searchsorted(other.codes, self.codes[-1], side="right")
        place = np.searchsorted(self.codes, other.codes[:known])
        if np.array_equal(self.codes[place], other.codes[:known]):
            sums = np.concatenate([self.sums, other.sums[:, :, known:]], axis=2)
            sums[:, :, place] += other.sums[:, :, :known]
            return ClusterSums(codes=np.concatenate([self.codes, other.codes[known:]]), sums=sums)
        codes = distinct(np.concatenate([self.codes, other.codes]))
        sums = np.zeros((*self.sums.shape[:2], len(codes)))
        sums[:, :, np.searchsorted(codes, self.codes)] = self.sums
        sums[:, :, np.searchsorted(codes, other.codes)] += other.sums
        return ClusterSums(codes=codes, sums=sums)

    def policy(self, p: int) -> ClusterSums:
        """Of one policy alone."""
        return ClusterSums(codes=self.codes, sums=self.sums[:, p : p + 1])

    def moments(self) -> Moments:
        """Moments with clusters as units."""
        terms = Terms(self.sums[0], self.sums[1], self.sums[2])
        return replace(
            moments_of(terms, self.sums.shape[1], self.sums[3]), largest_unit=float(self.sums[3].max(initial=0.0))
        )


Fold = Moments | ClusterSums


def moments_of(terms: Terms, policies: int, size: Array | float = 1.0) -> Moments:
    """Moments of (P, n) terms with the columns as units."""
    numerator = terms.numerator
    cubes = np.zeros((policies, 2))
    if isinstance(numerator, np.ndarray):
        with np.errstate(over="ignore"):
            third = numerator * numerator * numerator
        cubes[:, 0], cubes[:, 1] = np.add.reduce(third, axis=-1), np.add.reduce(third * numerator, axis=-1)
    parts = [terms.numerator, terms.denominator, terms.baseline, size]
    mean = np.empty((policies, PARTS))
    spread = np.zeros((policies, PARTS, PARTS))
    centred: dict[int, Array] = {}
    count = 1
    for i, part in enumerate(parts):
        if isinstance(part, np.ndarray):
            rows = np.atleast_2d(part)
            count = rows.shape[1]
            means = np.add.reduce(rows, axis=1) / count
            centred[i] = rows - means[:, None]
            mean[:, i] = means
        else:
            mean[:, i] = part
    for i, left in centred.items():
        for j, right in centred.items():
            if i <= j:
                # A sum of products, not a matrix product: its bits depend neither on threads nor on the other policies.
                spread[:, i, j] = spread[:, j, i] = np.add.reduce(left * right, axis=1)
    return Moments(count=count, mean=mean, spread=spread, powers=cubes)


def cluster_sums_of(terms: Terms, policies: int, codes: Codes, inverse: Codes) -> ClusterSums:
    """Sums of (P, n) terms over clusters; `inverse` (n,) holds positions in `codes` (G,)."""
    count = np.bincount(inverse, minlength=len(codes)).astype(np.float64)
    sums = np.zeros((PARTS, policies, len(codes)))
    sums[3] = count
    for i, part in enumerate((terms.numerator, terms.denominator, terms.baseline)):
        if isinstance(part, np.ndarray):
            for p, row in enumerate(np.broadcast_to(np.atleast_2d(part), (policies, len(inverse)))):
                sums[i, p] = np.bincount(inverse, weights=row, minlength=len(codes))
        else:
            sums[i] = part * count
    return ClusterSums(codes=codes, sums=sums)


def merge_folds(left: Fold, right: Fold) -> Fold:
    """Both shards together; refuses to mix clustered decisions with decisions that have no clusters."""
    if isinstance(left, Moments) and isinstance(right, Moments):
        return left.merge(right)
    if isinstance(left, ClusterSums) and isinstance(right, ClusterSums):
        return left.merge(right)
    raise EvidenceError("One shard has clusters and the other has none: give both clusters, or neither.")


def units_of(evidence: Evidence) -> tuple[Codes, Codes] | None:
    """(codes (G,), inverse (n,)) of the clusters, or None where the evidence names none."""
    if evidence.cluster is None:
        return None
    codes, inverse = np.unique(evidence.cluster, return_inverse=True)
    return codes, inverse


def linearise(moments: Moments, form: Form = "ratio") -> Linear:
    """The value of the moments, its standard error, and its gradient in the means.

    "ratio": value = baseline / size + numerator / denominator. "control": numerator w r is corrected by the chance
    deviation of the mean of the denominator w from 1 (`control_variate`).

    Var = g' S g / (G (G - 1)), g the gradient in the means and S the centred cross products over G units (delta
    method, Cochran 1977; with G - 1 it is the usual s^2 / n where denominators are constant). NaN where a denominator
    is 0.
    """
    mean, count = moments.mean, moments.count
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        value, gradient = _ratio(mean) if form == "ratio" else control_variate(moments)
        products = gradient[:, :, None] * gradient[:, None, :] * moments.spread
        square = np.add.reduce(products.reshape(len(mean), -1), axis=1)
        error = _rounding(products, gradient * mean, count)
        square = np.where(np.isfinite(error), np.where(square <= error, 0.0, square), np.nan)
        std_error = np.sqrt(square / (count * (count - 1.0))) if count > 1 else np.full(len(mean), np.nan)
    return Linear(value, std_error, gradient)


def together(found: Sequence[Moments]) -> tuple[Moments, list[slice]]:
    """Several moments over the same units in arrays of all their policies, and where in them each stands.

    What is worked out for all of them at once costs about as much as for one.
    """
    ends = np.cumsum([0, *(len(own.mean) for own in found)]).tolist()
    whole = (
        found[0]
        if len(found) == 1
        else replace(
            found[0],
            mean=np.concatenate([own.mean for own in found]),
            spread=np.concatenate([own.spread for own in found]),
            powers=np.concatenate([own.powers for own in found]),
        )
    )
    return whole, [slice(start, end) for start, end in pairwise(ends)]


def _ratio(mean: Array) -> tuple[Array, Array]:
    ratio, level = mean[:, 0] / mean[:, 1], mean[:, 2] / mean[:, 3]
    gradient = np.stack([1 / mean[:, 1], -ratio / mean[:, 1], 1 / mean[:, 3], -level / mean[:, 3]], axis=1)
    return ratio + level, gradient


def control_variate(moments: Moments) -> tuple[Array, Array]:
    """(P,) values and (P, 4) gradients of the Cressie-Read estimate from numerators w r, denominators w, baselines r.

    Empirical likelihood with the power divergence of order -2 (Karampatziakis, Langford & Mineiro 2020): the weights
    of the decisions are moved as little as lets the mean of w be 1, with one decision of an unseen weight added:
    the largest where w averages below 1, else 0. No largest weight is known, so what w lacks is taken to earn the mean
    reward of the log. Equals vw-estimators' `cressieread` with wmin = 0 and wmax = inf.
    """
    size = moments.mean[:, 3]
    n = float(moments.count)
    w, wr, r = (moments.mean[:, i] / size for i in (1, 0, 2))
    ww = moments.spread[:, 1, 1] / size**2 / n + w**2
    wwr = moments.spread[:, 0, 1] / size**2 / n + w * wr
    # Not `w < 1`: a mean of exactly 1 may be summed to a little less, and the two cases differ by order 1 / n.
    low = w < 1 - 1e-12
    a, b = w * n / (1 + n), ww * n / (1 + n)
    gap = a * a - b
    gamma = np.where(low, -(1 + n) / n, (b - a) / gap)
    beta = np.where(low, 0.0, (1 - a) / gap)
    value = (-gamma * wr - beta * wwr) * n / (1 + n)
    missing = np.maximum(0.0, 1 - (-gamma * w - beta * ww) * n / (1 + n))
    value = value + missing * r
    varies = moments.spread[:, 1, 1] > 0
    slope = np.where(low, r, np.where(varies, moments.spread[:, 0, 1] / moments.spread[:, 1, 1], 0.0))
    gradient = np.stack([1 / size, -slope / size, missing / size, -(wr - slope * w + missing * r) / size], axis=1)
    return value, gradient


def _rounding(products: Array, parts: Array, count: int) -> Array:
    # A constant reward leaves nothing but rounding error of large terms that cancel; a width made of it is no width.
    cancelled = 1e-13 * np.add.reduce(np.abs(products).reshape(len(products), -1), axis=1)
    flat: Array = count * (16 * np.finfo(float).eps) ** 2 * np.add.reduce(parts**2, axis=1)
    # One part alone cannot cancel: then only the flat error counts.
    alone = np.count_nonzero(products.reshape(len(products), -1), axis=1) <= 1
    return np.maximum(np.where(alone, 0.0, cancelled), flat)
