"""Student's t, asked for again and again with the same degrees of freedom."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from counterplay.estimators.evidence import Array


@lru_cache(maxsize=1024)
def t_quantile(below: float, freedom: float) -> float:
    """The quantile of t with `freedom` degrees of freedom that leaves `below` beneath it."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, below))


def half_width(level: float, units: float) -> float:
    """How many standard errors of a mean of `units` lie on either side of it: NaN of fewer than two."""
    return t_quantile(0.5 + level / 2, units - 1.0) if units > 1 else np.nan


def two_sided_p(t: Array, units: int) -> Array:
    """P(|T| >= |t|) with units - 1 degrees of freedom."""
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(units - 1.0, -np.abs(t)))
