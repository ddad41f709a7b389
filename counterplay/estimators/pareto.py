"""Pareto k: the shape of the tail of the weights, which says how many moments they have."""

from __future__ import annotations

import math

import numpy as np

from counterplay.estimators.evidence import Array
from counterplay.estimators.weights import TAIL

SMALL_TAIL = 5
FEW_VALUES = 10

STEEP = 1e30
"""Eight factors of at most this do not overflow."""


def pareto_k(tail: Array, n: int) -> tuple[float | None, str]:
    """Shape k of the largest min(0.2 n, 3 sqrt n) of n weights, or None with the reason.

    `tail`: the largest positive weights, ascending (at most 4096: above 1.8 million decisions the fit uses those).
    Vehtari, Simpson, Gelman, Yao & Gabry 2024. The fit assumes a continuous tail: weights that take a
    handful of values (uniform logging, deterministic policy) are bounded, and k says nothing about them.
    """
    size = min(int(min(0.2 * n, math.ceil(3 * math.sqrt(n)))), TAIL - 1)
    if size < SMALL_TAIL:
        return None, f"no Pareto k: {n} decisions are too few for a tail"
    excess = np.zeros(size)
    beyond = tail[-size:] - (tail[-size - 1] if len(tail) > size else 0.0)
    excess[size - len(beyond) :] = beyond
    if 1 + np.count_nonzero(excess[1:] != excess[:-1]) < FEW_VALUES:
        return None, "no Pareto k: the largest weights take a few values only"
    excess = excess[np.searchsorted(excess, 0.0, side="right") :]
    k = _generalised_pareto(excess) if len(excess) >= SMALL_TAIL else math.nan
    return (k, "") if math.isfinite(k) else (None, "no Pareto k: the tail could not be fitted")


def _generalised_pareto(excess: Array) -> float:
    """Shape of the generalised Pareto for excesses (m,), ascending and positive.

    Zhang & Stephens 2009, with the weak prior at 0.5 of Vehtari et al. 2024.
    """
    m = len(excess)
    excess = excess / excess[-1]
    grid = 30 + int(math.sqrt(m))
    theta = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    with np.errstate(all="ignore"):
        theta = theta / (3 * excess[int(m / 4 + 0.5) - 1]) + 1.0
        shape = _mean_logs(theta, excess)
        likelihood = m * (np.log(-theta / shape) - shape - 1)
        weight = 1 / np.exp(likelihood - likelihood[:, None]).sum(axis=1)
    weight = np.where(np.isfinite(weight) & (weight >= 10 * np.finfo(float).eps), weight, 0.0)
    if weight.sum() <= 0:
        return math.nan
    best = float((theta * weight).sum() / weight.sum())
    k = float(np.log1p(-best * excess).mean())
    return (m * k + 10 * 0.5) / (m + 10)


def _mean_logs(theta: Array, excess: Array) -> Array:
    """The mean over excesses of log(1 - theta excess)."""
    if not theta[0] > -STEEP:
        return np.asarray(np.log1p(-theta[:, None] * excess).mean(axis=1))
    from counterplay.estimators.pareto_kernel import mean_logs

    means = np.empty(len(theta))
    mean_logs(theta, excess, means)
    return means
