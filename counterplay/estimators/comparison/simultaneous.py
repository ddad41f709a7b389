"""Statements about many differences at once: max-t intervals and p-values, and Holm's.

The multiplier bootstrap of the largest t (Chernozhukov, Chetverikov & Kato 2013) is, with Gaussian multipliers and
given the log, exactly normal with the covariance of the influences. So draws come from that covariance (Philox), at a
cost that does not grow with the log, and are divided by a chi: their errors are estimated too. Every difference has
an error of its own, so with few units each has its own chi. That is a little too careful where differences move
together (simulated, 12 to 50 units: the intervals of a set hold in 94 to 98 % at level 0.95); one chi for all would be
too short (91 %). Holds where the estimates themselves are nearly normal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from counterplay.estimators.comparison.joint import Joint
from counterplay.estimators.evidence import Array
from counterplay.estimators.quantiles import half_width, two_sided_p

CHUNK = 2048
"""Draws at once: never draws x pairs, however many pairs there are."""

FEW = 500
"""Up to so many units each difference has a chi of its own; beyond, chis are so near 1 that one does for all."""

RESOLVED = 1e-6
"""A joint draw keeps differences down to this part of the spread of the policies around their reference.

Where policies differ less than that while others differ more, their comparison is not counted among the many.
"""


class Tests(NamedTuple):
    """(K,) intervals and p-values of K differences, and the `critical` value of the simultaneous intervals."""

    low: Array
    high: Array
    low_all: Array
    high_all: Array
    p_value: Array
    p_holm: Array
    p_max_t: Array
    critical: float


def tests_of(value: Array, error: Array, largest: Array, units: int, level: float) -> Tests:
    """Two-sided tests of (K,) differences with their errors, given ascending draws of the largest t."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(value == 0, 0.0, np.abs(value) / error)
    one = half_width(level, units)
    many = critical_value(largest, level, one, int(np.count_nonzero(error)))
    p_value = two_sided_p(t, units)
    p_max = (1 + len(largest) - np.searchsorted(largest, t)) / (1 + len(largest))
    return Tests(
        low=value - one * error,
        high=value + one * error,
        low_all=value - many * error,
        high_all=value + many * error,
        p_value=p_value,
        p_holm=holm(p_value),
        p_max_t=np.maximum(p_max, p_value),
        critical=many,
    )


def critical_value(largest: Array, level: float, one: float, count: int) -> float:
    """The quantile of the draws, and never less than `one`, the quantile of a single comparison."""
    # One comparison needs no simulation: its quantile is known.
    return one if count < 2 else max(one, float(np.quantile(largest, level)))


def holm(p: Array) -> Array:
    """(K,) adjusted p-values (Holm 1979): the chance of any false discovery stays below the level, whatever depends."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


class Drawn(NamedTuple):
    """A chunk of draws: `normal` (U + 1, chunk), the errors of each value minus the reference and of the reference.

    `chi` (chunk,) is what makes them multivariate t.
    """

    normal: Array
    chi: Array
    units: int
    generator: np.random.Generator

    def studentised(self, t: Array) -> Array:
        """(K, chunk) normal t of unit variance, divided in place by chis."""
        if self.units > FEW:
            t /= self.chi
        else:
            t /= np.sqrt(self.generator.chisquare(self.units - 1.0, t.shape) / (self.units - 1.0))
        return t


def joint_draws(joint: Joint, draws: int, seed: int) -> Iterator[Drawn]:
    """Draws of how far estimates fall from the truth, in chunks."""
    generator = np.random.Generator(np.random.Philox(seed))
    spread = np.sqrt(np.maximum(np.diag(joint.covariance), 0.0))
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
    values, vectors = np.linalg.eigh(joint.covariance * inverse[:, None] * inverse[None, :])
    root = joint.scale * spread[:, None] * vectors * np.sqrt(np.maximum(values, 0.0))
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        normal = root @ generator.standard_normal((len(root), size))
        chi = np.sqrt(generator.chisquare(joint.units - 1.0, size) / (joint.units - 1.0))
        yield Drawn(normal, chi, joint.units, generator)


def pair_scale(joint: Joint) -> Array:
    """(U, U) by what a drawn difference is multiplied to become a t; 0 where it has no error."""
    spread = joint.scale * np.sqrt(np.maximum(np.diag(joint.covariance)[:-1], 0.0))
    # Below that the draw is rounding; divided by a tiny error it would pass for the largest t of all.
    error = np.maximum(joint.error, RESOLVED * (spread[:, None] + spread[None, :]))
    return np.divide(1.0, error, out=np.zeros_like(error), where=joint.error > 0)


def largest_t(joint: Joint, draws: int, seed: int) -> Array:
    """(draws,) ascending: the largest |t| among the pairs of the joint if no policy differed from another."""
    scale = pair_scale(joint)
    found = []
    for drawn in joint_draws(joint, draws, seed):
        top, errors = np.zeros(len(drawn.chi)), drawn.normal[:-1]
        for first, others in joint.groups:
            t = drawn.studentised((errors[others] - errors[first]) * scale[first, others, None])
            np.maximum(top, np.abs(t, out=t).max(axis=0), out=top)
        found.append(top)
    return np.sort(np.concatenate(found))
