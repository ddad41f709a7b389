"""Bets on the mean of numbers that are never negative: how the bettor's wealth grows, and which means it rules out.

For X_t >= 0 whose conditional mean, given all that came before, is m_t, and a bet b > 0,

    W_t(m) = product over i <= t of (1 + b X_i) / (1 + b m)

With m_i in place of m this is a non-negative martingale that starts at 1. A logarithm is concave, so t log(1 + b m) at
the running mean m of the m_i is no less than sum log(1 + b m_i): there W is at most that martingale, whether the m_i
are all the same or drift. A mixture over bets, with shares that sum to 1, inherits this, and by Ville's inequality it
ever reaches 1 / alpha with a probability of at most alpha. W falls in m, so what it rules out is every mean below one
number.

Kept are sums alone, S_b = sum log(1 + b X_i), which serve every m: no variance, no predicted mean, no largest X, and no
matter in which order they were added. (1 + b X) / (1 + b m) is 1 + c (X - m) with c = b / (1 + b m) < 1 / m: the bets
of Waudby-Smith & Ramdas 2024. Mixing constant bets is Cover's universal portfolio (Orabona & Jun 2024).
"""

from __future__ import annotations

from math import log

import numpy as np

from counterplay.compiled import compiled
from counterplay.estimators.evidence import Array

_POWER = np.arange(4.0, -20.0, -1.0)

BETS: Array = 2.0**_POWER
"""(K,) the bets, falling. Bet b is the best where the sum of (X - m)^2 is about 12 / b^2: from 0.05 to 3e12."""

_SHARE: Array = (1 + np.maximum(_POWER, 0) + np.maximum(-9 - _POWER, 0)) ** -2.0

LOG_SHARE: Array = np.log(_SHARE / _SHARE.sum())
"""(K,) what each bet starts with: the same from 1 down to 2^-9 (sums of squares from 12 to 3 million), less outside."""

HUGE = 1e100
"""An outcome above this is left out of the products."""

FULL = 1e150
"""A product above this is put away as a logarithm: the next factor is at most 1 + 16 HUGE."""

ROUNDS = 200
"""Newton needs about ten; the bound is valid, if wider, after any number."""


@compiled
def log_growth(outcome: Array, bets: Array) -> Array:
    """(R, K) sums over n of log(1 + bet x): x is `outcome` (R, n), finite and never negative; `bets` (K,) fall.

    Factors are multiplied, and the logarithm taken only of full products: one multiplication a bet in the place of
    one logarithm. Strict IEEE arithmetic: the same rows give the same bits.
    """
    rows, count = outcome.shape
    found = np.zeros((rows, len(bets)))
    product = np.empty(len(bets))
    for r in range(rows):
        product[:] = 1.0
        for i in range(count):
            x = outcome[r, i]
            if x > HUGE:
                for k in range(len(bets)):
                    found[r, k] += log(bets[k]) + log(x)
                continue
            for k in range(len(bets)):
                product[k] *= 1.0 + bets[k] * x
            if product[0] > FULL:
                for k in range(len(bets)):
                    found[r, k] += log(product[k])
                    product[k] = 1.0
        for k in range(len(bets)):
            found[r, k] += log(product[k])
    return found


def log_wealth(growth: Array, offset: Array, n: int, mean: Array) -> Array:
    """(...) logarithm of the mixed wealth after n outcomes if their mean were `mean` (...).

    `growth` (..., F, K): sums of F ways to bet on the same mean, the outcomes of way f being higher by `offset` (F,).
    """
    return _mixture(growth, offset, n, mean)[0]


def least_mean(growth: Array, offset: Array, n: int, needed: float, start: float) -> Array:
    """(...) the least mean, not below `start`, at which the logarithm of the wealth is no more than `needed` > 0.

    Newton from below: the logarithm of the wealth is convex and falls in the mean, so no step passes the answer, and
    where the steps end early the bound is wider, never too tight. `start + offset` must not be negative.
    """
    mean = np.full(growth.shape[:-2], start)
    for _ in range(ROUNDS):
        wealth, slope = _mixture(growth, offset, n, mean)
        step = np.maximum(wealth - needed, 0.0) / np.maximum(slope, np.finfo(float).tiny)
        mean += step
        if np.all(step <= 1e-14 * (np.abs(mean) + offset.max())):
            break
    return mean


def _mixture(growth: Array, offset: Array, n: int, mean: Array) -> tuple[Array, Array]:
    """(...) the logarithm of the wealth, and how fast it falls in the mean."""
    shifted = mean[..., None, None] + offset[:, None]
    logs = growth - n * np.log1p(BETS * shifted) + (LOG_SHARE - np.log(len(offset)))
    top = logs.max(axis=(-2, -1), keepdims=True)
    part = np.exp(logs - top)
    total = part.sum(axis=(-2, -1))
    slope = n * (part * (BETS / (1 + BETS * shifted))).sum(axis=(-2, -1)) / total
    return top[..., 0, 0] + np.log(total), slope
