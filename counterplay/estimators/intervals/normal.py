"""Intervals from the standard error of the linearised value: right where the mean of the terms is nearly normal."""

from __future__ import annotations

import numpy as np

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.basis import Basis, Ends


def t_ends(basis: Basis) -> Ends:
    """Student's t with units - 1 degrees of freedom."""
    from scipy.special import stdtrit

    units = basis.moments.count
    return _around(basis, float(stdtrit(units - 1.0, 0.5 + basis.level / 2)) if units > 1 else np.nan)


def normal_ends(basis: Basis) -> Ends:
    """The normal limit."""
    from scipy.special import ndtri

    return _around(basis, float(ndtri(0.5 + basis.level / 2)))


def _around(basis: Basis, quantile: float) -> Ends:
    half: Array = quantile * basis.linear.std_error
    return basis.linear.value - half, basis.linear.value + half
