"""Intervals from the standard error of the linearised value: right where the mean of the terms is nearly normal."""

from __future__ import annotations

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.basis import Basis, Ends
from counterplay.estimators.quantiles import half_width


def t_ends(basis: Basis) -> Ends:
    """Student's t with units - 1 degrees of freedom."""
    return _around(basis, half_width(basis.level, basis.moments.count))


def normal_ends(basis: Basis) -> Ends:
    """The normal limit."""
    from scipy.special import ndtri

    return _around(basis, float(ndtri(0.5 + basis.level / 2)))


def _around(basis: Basis, quantile: float) -> Ends:
    half: Array = quantile * basis.linear.std_error
    return basis.linear.value - half, basis.linear.value + half
