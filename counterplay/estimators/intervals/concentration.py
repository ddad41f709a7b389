"""Intervals that hold for any number of decisions and any distribution, from bounds that are known beforehand.

Of a mean: the terms of independent units lie within a known width B, so their mean is near its expectation (Hoeffding
1963; Maurer & Pontil 2009 with the variance seen). Of a ratio: v is in the interval where the mean of numerator -
v denominator is near 0, which is its expectation for the true v; so the denominator's luck is accounted for.
They hold at least as often as they say, mostly far more often; a constant reward does not make them vanish.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.basis import Basis, Ends

GRID = 1025
HALVINGS = 50


def hoeffding_ends(basis: Basis) -> Ends | str:
    """Hoeffding 1963: radius B sqrt(log(2 / alpha) / (2 G)) over G units."""
    width = basis.unit_width()
    if isinstance(width, str):
        return width
    radius = width * math.sqrt(math.log(2 / (1 - basis.level)) / (2 * basis.moments.count))
    return _invert(basis, 0.0, radius)


def bernstein_ends(basis: Basis) -> Ends | str:
    """Maurer & Pontil 2009, on both sides: radius sqrt(2 V log(4 / alpha) / G) + 7 B log(4 / alpha) / (3 (G - 1))."""
    width = basis.unit_width()
    if isinstance(width, str):
        return width
    count = basis.moments.count
    if count < 2:
        return "it needs two independent units"
    log = math.log(4 / (1 - basis.level))
    return _invert(basis, math.sqrt(2 * log / count), 7 * width * log / (3 * (count - 1)))


def _invert(basis: Basis, factor: float, radius: float) -> Ends | str:
    """All v in the range of rewards with |mean(N - v D)| <= factor sd(N - v D) + radius."""
    moments, bounds = basis.moments, basis.bounds
    assert bounds is not None
    if basis.estimator.form != "ratio":
        return f"'{basis.estimator.name}' is no ratio of sums"
    mean, variance = moments.mean, moments.spread / max(1, moments.count - 1)
    level, size = mean[:, 2], mean[:, 3]
    if level.any() and basis.estimator.normalised:
        return "an estimate of two ratios has no such interval"
    # Without normalisation the denominator is the size, so the baseline joins the numerator.
    top = mean[:, 0] + level
    under = mean[:, 1] if basis.estimator.normalised else size
    j = 1 if basis.estimator.normalised else 3
    s_nn = variance[:, 0, 0] + 2 * variance[:, 0, 2] + variance[:, 2, 2]
    s_nd = variance[:, 0, j] + variance[:, 2, j]
    s_dd = variance[:, j, j]

    def inside(v: Array) -> Array:
        square = np.maximum(0.0, s_nn - 2 * v * s_nd + v * v * s_dd)
        near = np.abs(top - v * under) <= factor * np.sqrt(square) + radius
        return np.asarray(near, dtype=bool)

    low, high = bounds.reward
    centre = np.clip(top / np.where(under > 0, under, 1.0), low, high)
    ends = np.full(len(top), low), np.full(len(top), high)
    if np.all(under > factor * np.sqrt(s_dd)) and np.all(inside(centre)):
        # The left side then falls towards the centre faster than the right one can: one edge on each side.
        return _edge(inside, ends[0], centre), _edge(inside, ends[1], centre)
    grid = np.linspace(low, high, GRID)[:, None]
    points = np.sort(np.concatenate([np.broadcast_to(grid, (GRID, len(top))), centre[None]]), axis=0)
    held = inside(points)
    first, last = held.argmax(axis=0), len(points) - 1 - held[::-1].argmax(axis=0)
    policies = np.arange(len(top))
    lower = _edge(inside, points[np.maximum(first - 1, 0), policies], points[first, policies])
    upper = _edge(inside, points[np.minimum(last + 1, len(points) - 1), policies], points[last, policies])
    none = ~held.any(axis=0)
    return np.where(none, np.nan, lower), np.where(none, np.nan, upper)


def _edge(inside: Callable[[Array], Array], outer: Array, inner: Array) -> Array:
    """Where `inside` begins between an outer and an inner point (the outer itself where it is inside)."""
    for _ in range(HALVINGS):
        middle = (outer + inner) / 2
        held = inside(middle)
        outer, inner = np.where(held, outer, middle), np.where(held, middle, inner)
    return np.where(inside(outer), outer, inner)
