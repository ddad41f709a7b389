"""Sums of d (r - m) over decisions, and t tests of them that stand up to rare rewards and seldom actions.

r - m is an outcome less the mean of its category, and d a difference with mean zero given context and category, so the
sum has mean zero unless outcomes go with d. Two things go wrong with the plain t test of it.

- An action without a single click has hardly any variance of its own, so it looks certainly bad. So the larger of two
  variances is taken: the statistic's own, over units (clusters, or decisions), and the one it has where all actions of
  a category vary alike. The first is right for any spread of rewards in a large log, the second where spreads are
  equal; where some actions of a category have rewards with a heavy tail and others have not, neither helps a small log.
- A sum that rests on few decisions is not normal. It counts as many as matter, (sum d^2)^2 / sum d^4, unit by unit; t
  has one degree of freedom less, and below `LEAST` of them there is no test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterplay.estimators.estimate import number
from counterplay.estimators.evidence import Array, Codes
from counterplay.estimators.quantiles import half_width

LEAST = 30
"""A sum that rests on fewer decisions is not tested."""

ROUNDING = 1e-12
"""What is left of a constant, relative to it."""


def units_of_clusters(cluster: Codes | None, n: int) -> Codes:
    """(n,) the unit of each decision, from 0 on: its cluster, or the decision itself."""
    return np.arange(n) if cluster is None else np.unique(cluster, return_inverse=True)[1]


def centred(outcome: Array, category: Codes) -> Array:
    """(n,) outcomes less the mean of the other decisions of their category; of all others, where it has no other.

    A mean without the decision itself knows nothing of what was logged there, so no expectation changes.
    """
    n, own = len(outcome), np.bincount(category)[category]
    if n == 1:
        return np.zeros(1)
    mean = _mean_by(category, outcome)
    with_others = (outcome - mean) * (own / np.maximum(own - 1, 1))
    residual = np.where(own > 1, with_others, (outcome - outcome.mean()) * (n / (n - 1)))
    # An effect must not be made of the rounding error of a constant.
    return np.where(np.abs(residual) <= ROUNDING * np.abs(outcome).max(), 0.0, residual)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its error; NaN where too few decisions `matter`."""

    value: float
    std_error: float
    matter: float

    @property
    def p_value(self) -> float:
        """Of a mean of zero."""
        return 1.0 if self.std_error == 0 else float(_p_value(self.value / self.std_error, self.matter))

    def half_width(self, level: float) -> float:
        """Of the interval of confidence `level`."""
        return 0.0 if self.std_error == 0 else half_width(level, self.matter) * self.std_error


def mean_of(difference: Array, residual: Array, category: Codes, unit: Codes) -> Mean:
    """The mean of `difference` times `residual`; all are (n,)."""
    n, terms = len(residual), difference * residual
    if not difference.any():
        return Mean(value=0.0, std_error=0.0, matter=float(n))
    matter = float(_matter(_sums(unit, difference**2), np.zeros(int(unit.max()) + 1, dtype=np.int64))[0])
    if matter < LEAST:
        return Mean(value=math.nan, std_error=math.nan, matter=matter)
    value, size = float(terms.mean()), np.bincount(unit)
    own = float(((_sums(unit, terms) - size * value) ** 2).sum()) * len(size) / (len(size) - 1)
    alike = float((difference**2 * _mean_by(category, residual**2)).sum())
    return Mean(value=value, std_error=math.sqrt(max(own, alike)) / n, matter=matter)


@dataclass(frozen=True, kw_only=True)
class WorstAction:
    """The action that stands out most: its p-value, corrected for all that were tested, and its effect."""

    p_value: float | None
    action: int | None
    effect: float | None
    tested: int
    left_out: int


def worst_action(
    action: Codes, placebo: npt.NDArray[np.integer], within: Array, residual: Array, categories: Codes, unit: Codes
) -> WorstAction:
    """Each action that shares its category, against what might have been logged in its place.

    `action` (n,) with probability `within` (n,) given its category, `placebo` (J, n) drawn from the same probabilities,
    `residual` (n,), `categories` (K,), `unit` (n,). The statistic is the sum of residuals times d, d being 1 where the
    action was logged less its share of placebos; the effect is that sum over sum of p (1 - p), estimated.
    """
    width = len(categories)
    row, of, d = _differences(action, placebo, width)
    pairs, pair = np.unique(unit[row] * width + of, return_inverse=True)
    of_pair = pairs % width
    statistic = _sums(of, d * residual[row], width)
    own = _sums(of_pair, _sums(pair, d * residual[row]) ** 2, width)
    alike = _sums(of, d**2 * _mean_by(categories[action], residual**2)[row], width)
    matter = _matter(_sums(pair, d**2), of_pair, width)
    spread = _sums(action, 1 - within, width)
    shared = np.bincount(categories)[categories] > 1
    tested = shared & (spread > 0) & (matter >= LEAST)
    count, left_out = int(np.count_nonzero(tested)), int(np.count_nonzero(shared & ~tested))
    if count == 0:
        return WorstAction(p_value=None, action=None, effect=None, tested=0, left_out=left_out)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(statistic == 0, 0.0, statistic / np.sqrt(np.maximum(own, alike)))
    p = np.where(tested, _p_value(t, np.where(tested, matter, LEAST)), 2.0)
    worst = int(np.argmin(p))
    return WorstAction(
        p_value=min(1.0, count * float(p[worst])),
        action=worst,
        effect=number(statistic[worst] / spread[worst]),
        tested=count,
        left_out=left_out,
    )


def _differences(action: Codes, placebo: npt.NDArray[np.integer], width: int) -> tuple[Codes, Codes, Array]:
    """(row, action, d) wherever a decision logged an action or had it as placebo, and d is not zero."""
    draws, n = placebo.shape
    row = np.arange(n) * width
    keys, at = np.unique(np.concatenate([row + action, (row + placebo).ravel()]), return_inverse=True)
    d = _sums(at, np.concatenate([np.full(n, float(draws)), np.full(draws * n, -1.0)])) / draws
    kept = d != 0
    return keys[kept] // width, keys[kept] % width, d[kept]


def _sums(group: npt.NDArray[np.integer], of: Array, length: int = 0) -> Array:
    return np.bincount(group, weights=of, minlength=length).astype(np.float64, copy=False)


def _mean_by(group: Codes, of: Array) -> Array:
    """(n,) the mean of `of` over each decision's group."""
    return (_sums(group, of) / np.maximum(np.bincount(group), 1))[group]


def _matter(squares: Array, group: Codes, length: int = 0) -> Array:
    """For each group, how many of its terms matter to their sum: all of them, where the `squares` of d are equal."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = squares / squares.max(initial=0.0)
        found = _sums(group, scaled, length) ** 2 / _sums(group, scaled**2, length)
    return np.where(np.isfinite(found), found, 0.0)


def _p_value(t: Array | float, matter: Array | float) -> Array:
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(matter - 1, -np.abs(t)), dtype=np.float64)
