"""Poisson counts as a pure function of seed, unit and replicate, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import uint64

from counterplay.compiled import compiled

# P(count <= k) for a mean of 1, k = 0..; beyond the last the chance is 1e-12.
_CUMULATIVE = np.cumsum(np.exp(-1.0) / np.cumprod(np.concatenate([[1.0], np.arange(1.0, 15.0)])))


@compiled
def _mix(x: Any) -> Any:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    x = uint64(x) + uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> uint64(30))) * uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> uint64(27))) * uint64(0x94D049BB133111EB)
    return x ^ (x >> uint64(31))


@compiled
def _fill(units: Any, key: Any, thresholds: Any, counts: Any) -> None:
    for i in range(counts.shape[0]):
        own = _mix(uint64(units[i]) ^ key)
        for b in range(counts.shape[1]):
            x = _mix(own + uint64(b) * uint64(0xD1342543DE82EF95))
            k = 0
            while x > thresholds[k]:
                k += 1
            counts[i, b] = k


def poisson_counts(units: npt.NDArray[Any], seed: int, draws: int) -> npt.NDArray[np.float64]:
    """(m, draws) counts of mean 1 for m units (integers); equal units get equal counts."""
    thresholds = np.concatenate([(_CUMULATIVE * 2.0**64).clip(max=2.0**64 - 2**12), [2.0**64 - 2**11]])
    limits = thresholds.astype(np.uint64)
    limits[-1] = np.uint64(2**64 - 1)
    key = _mix(np.uint64(seed % 2**64))
    counts = np.empty((len(units), draws))
    _fill(np.ascontiguousarray(units, dtype=np.int64).view(np.uint64), np.uint64(key), limits, counts)
    return counts
