"""The table of intervals.

| name | holds | needs |
|---|---|---|
| `t` | for large effective samples; delta method for ratios | |
| `normal` | the same, a little shorter | |
| `percentile` | for large effective samples; follows skewness halfway | resampling |
| `bca` | for large effective samples; follows skewness (Efron 1987) | resampling |
| `hoeffding` | always (Hoeffding 1963); wide | bounds with a largest weight |
| `bernstein` | always (Maurer & Pontil 2009); less wide where the variance is small | bounds with a largest weight |
| `clopper_pearson` | for any n, rewards of 0 or 1 (Clopper & Pearson 1934) | a largest weight, or equal weights |
| `empirical_likelihood` | for large n, of `cressie_read` (Karampatziakis et al. 2020) | bounds |

All take clusters as units, but the ratios of `clopper_pearson`, which refuse them. Where an interval does not apply the
estimate has none and says why: no other is put in its place. For logs that still grow see `sequences.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from counterplay.errors import ConfigurationError, nearest
from counterplay.estimators.intervals.basis import Basis, Ends
from counterplay.estimators.intervals.binomial import binomial_ends
from counterplay.estimators.intervals.bootstrap import bca_ends, percentile_ends
from counterplay.estimators.intervals.concentration import bernstein_ends, hoeffding_ends
from counterplay.estimators.intervals.likelihood import likelihood_ends
from counterplay.estimators.intervals.normal import normal_ends, t_ends

Interval = Literal[
    "t", "normal", "percentile", "bca", "hoeffding", "bernstein", "clopper_pearson", "empirical_likelihood"
]

RESAMPLED = ("percentile", "bca")

INTERVALS: dict[str, Callable[[Basis], Ends | str]] = {
    "t": t_ends,
    "normal": normal_ends,
    "percentile": percentile_ends,
    "bca": bca_ends,
    "hoeffding": hoeffding_ends,
    "bernstein": bernstein_ends,
    "clopper_pearson": binomial_ends,
    "empirical_likelihood": likelihood_ends,
}


def check_interval(interval: str, level: float) -> None:
    """Raise `ConfigurationError` for an interval that is not in the table, or a level outside (0, 1)."""
    if not 0 < level < 1:
        raise ConfigurationError(f"level is {level:g}; it must lie between 0 and 1, for example 0.95.")
    if interval not in INTERVALS:
        raise ConfigurationError(f"There is no interval '{interval}'. {nearest(interval, INTERVALS)}")
