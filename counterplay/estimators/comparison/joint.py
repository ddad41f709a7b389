"""How the estimates of a set of policies vary together: one pass over the influences serves every comparison.

The policies stand in an order that depends on nothing but their own estimates, and everything random is drawn in that
order: neither the order in which policies were given nor their names can change a result (unless two different
policies have the same value and error, to the last bit).
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from counterplay.errors import ConfigurationError
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.influence import influences, without_lone_clusters
from counterplay.estimators.statistic import statistic_of
from counterplay.estimators.terms import Estimator

ROUNDING = 1e-13
"""Differences, and errors of differences, that are this small beside what they are differences of, are 0."""

Group = tuple[int, slice]
"""One policy and those that it is compared with, as places among the U."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Joint:
    """The U policies that have a value and an error, on the same `units`.

    - `place` (U,): their places in the evidence. `value`, `std_error` (U,).
    - `covariance` (U + 1, U + 1): of each value minus a reference, and last of the reference itself, in squares of
      `scale`. The reference is the baseline, or the mean of all: so near that their differences keep their digits.
    - `baseline`: where it stands among the U, None where all are compared with each other.
    - `groups`: which pairs are compared. For those, `error` (U, U) is the standard error of the difference, and `share`
      (U, U) the largest share of one unit in the sum of squared influences on it; both NaN elsewhere.
    """

    place: Codes
    value: Array
    std_error: Array
    covariance: Array
    scale: float
    baseline: int | None
    groups: tuple[Group, ...]
    error: Array
    share: Array
    units: int

    def pairs(self) -> tuple[Codes, Codes]:
        """(K,) policies and (K,) what each is compared with: the baseline, or the earlier one in the evidence.

        Both as places among the U.
        """
        first = [np.full(len(self.place), one)[others] for one, others in self.groups]
        other = [np.arange(len(self.place))[others] for _, others in self.groups]
        one, two = np.concatenate([[], *first]).astype(np.int64), np.concatenate([[], *other]).astype(np.int64)
        one, two = one[one != two], two[one != two]
        if self.baseline is not None:
            return two, one
        later = self.place[one] > self.place[two]
        return np.where(later, one, two), np.where(later, two, one)

    def gaps(self, left: Codes, right: Codes) -> Array:
        """Value of `left` minus value of `right`: exactly 0 where they differ by rounding only."""
        gap = self.value[left] - self.value[right]
        # Equal values that differ in their last bits would meet an error of zero, and be called certainly different.
        scale = np.maximum(np.abs(self.value[left]), np.abs(self.value[right]))
        return np.where(np.abs(gap) <= ROUNDING * scale, 0.0, gap)


def joint_of(
    evidence: Evidence, estimator: Estimator, level: float, baseline: int | None = None
) -> tuple[list[Estimate], Joint]:
    """Estimates, and their joint: every policy against `baseline` (a place), or all against each other.

    Time: P^2 n multiplications in matrix products; all against each other also P^2 n subtractions.
    """
    evidence = without_lone_clusters(evidence)
    statistic = statistic_of(evidence, estimator)
    estimates = statistic.estimate(level)
    known = [p for p, e in enumerate(estimates) if e.value is not None and e.std_error is not None]
    known.sort(key=lambda p: (estimates[p].value, estimates[p].std_error, estimates[p].policy))
    if baseline is not None and baseline not in known:
        known = []
    place, count = np.array(known, dtype=np.int64), len(known)
    base = None if baseline is None or not known else known.index(baseline)
    groups = ((base, slice(None)),) if base is not None else tuple((i, slice(i + 1, None)) for i in range(count - 1))
    value, error = (np.array([getattr(estimates[p], name) for p in known]) for name in ("value", "std_error"))
    sums, scale = _Sums(count, base, groups), _power_of_two(np.abs([value, error]).max(initial=0.0))
    if known:
        for influence in influences(evidence, estimator, statistic):
            sums.add(influence[place] / scale)
    divisor = sums.units * (sums.units - 1.0) if known else 1.0
    share = np.divide(sums.largest, sums.square, out=np.full((count, count), np.nan), where=sums.square > 0)
    joint = Joint(
        place=place,
        value=value,
        std_error=error,
        covariance=sums.product / divisor,
        scale=scale,
        baseline=base,
        groups=groups,
        error=_errors(scale * np.sqrt(sums.square / divisor), value, error),
        share=share,
        units=sums.units,
    )
    return estimates, joint


def _power_of_two(size: float) -> float:
    # Squares of influences in this unit neither overflow nor vanish, and dividing by it rounds nothing.
    return float(2.0 ** np.clip(np.floor(np.log2(size)), -1000, 1000)) if size > 0 else 1.0


class _Sums:
    """What is added up over blocks of influences."""

    def __init__(self, count: int, base: int | None, groups: tuple[Group, ...]) -> None:
        self.base, self.groups, self.units = base, groups, 0
        self.product = np.zeros((count + 1, count + 1))
        self.square, self.largest = np.full((2, count, count), np.nan)
        for first, others in groups:
            for table in (self.square, self.largest):
                table[first, others] = table[others, first] = 0.0

    def add(self, influence: Array) -> None:
        """One block (U, units)."""
        reference = influence.mean(axis=0) if self.base is None else influence[self.base].copy()
        influence -= reference
        rows = np.vstack([influence, reference])
        self.product += rows @ rows.T
        self.units += influence.shape[1]
        for first, others in self.groups:
            # Squares of differences, not differences of squares: policies that are nearly the same keep their digits.
            gap = influence[others] - influence[first]
            gap *= gap
            self.square[first, others] += gap.sum(axis=1)
            self.square[others, first] = self.square[first, others]
            self.largest[first, others] = np.maximum(self.largest[first, others], gap.max(axis=1))
            self.largest[others, first] = self.largest[first, others]


def _errors(error: Array, value: Array, std_error: Array) -> Array:
    """(U, U) errors of differences without those that are made of rounding."""
    # Where neither estimate varies (a constant reward leaves rounding only), their difference cannot.
    error = np.minimum(error, std_error[:, None] + std_error[None, :])
    scale = np.maximum(np.abs(value), std_error)
    return np.where(error <= ROUNDING * np.maximum(scale[:, None], scale[None, :]), 0.0, error)


def one_thread() -> AbstractContextManager[Any]:
    """Linear algebra on one thread: the same bits however many cores there are.

    And no waiting for a core that another process holds, which made small products a hundred times slower.
    """
    limits: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limits


@cache
def _libraries() -> Any:
    # The search for the loaded libraries takes longer than a small comparison.
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def check_draws(seed: int, draws: int) -> None:
    """Refuse a seed below 0, and too few draws for a quantile."""
    if seed < 0:
        raise ConfigurationError(f"seed is {seed}; it must be 0 or a positive whole number.")
    if draws < 100:
        raise ConfigurationError(f"draws is {draws}; at least 100 are needed, and 20,000 are usual.")
