"""Empirical likelihood intervals with the power divergence of order -2 (Cressie & Read 1984).

Karampatziakis, Langford & Mineiro 2020, "Empirical likelihood for contextual bandits": of all ways to move the shares
of the decisions that keep the mean weight at 1, those are plausible whose divergence from equal shares is below a
quantile of F; the interval is what the value can be among them, with one decision of an unseen weight and an extreme
reward added. Closed in the moments of w and w r, so it streams and merges.
"""

from __future__ import annotations

import numpy as np

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.basis import Basis, Ends

TOLERANCE = 1e-9
SUMMED = 1e-12
"""A mean weight of exactly 1 may be summed to so little less."""


def likelihood_ends(basis: Basis) -> Ends | str:
    """The interval of each policy, or why there is none. Holds for large n; units are decisions or clusters."""
    if basis.estimator.form != "control":
        return "it belongs to the estimator 'cressie_read'"
    if basis.bounds is None:
        return "it needs bounds: the range of rewards"
    with np.errstate(all="ignore"):
        sums = _Sums(basis)
        low = _bound(sums, basis, basis.bounds.reward[0], 1.0)
        high = _bound(sums, basis, basis.bounds.reward[1], -1.0)
    return low, high


class _Sums:
    """Sums over n units of w, w^2, w r, w^2 r, w^2 r^2; a cluster counts as one unit of average size."""

    def __init__(self, basis: Basis) -> None:
        moments = basis.moments
        self.n = float(moments.count)
        size = moments.mean[:, 3]
        mean = moments.mean / size[:, None]
        raw = moments.spread / size[:, None, None] ** 2 + self.n * mean[:, :, None] * mean[:, None, :]
        self.w, self.wr = self.n * mean[:, 1], self.n * mean[:, 0]
        self.ww, self.wwr, self.wwrr = raw[:, 1, 1], raw[:, 0, 1], raw[:, 0, 0]


def _bound(sums: _Sums, basis: Basis, reward: float, sign: float) -> Array:
    """(P,) the lower bound for sign 1 with the unseen reward `reward`, the upper one for sign -1."""
    from scipy.special import fdtri

    assert basis.bounds is not None
    (least, greatest), n = basis.bounds.reward, sums.n
    heaviest = basis.bounds.weight
    # The divergence of the best shares without any demand on the value, and how much more is plausible.
    unseen = np.where(sums.w < n * (1 - SUMMED), heaviest, 0.0)
    a, b = (unseen + sums.w) / (1 + n), (unseen**2 + sums.ww) / (1 + n)
    base = np.where(np.isinf(unseen), 1 + 1 / n, (1 + n) * (a - 1) ** 2 / (b - a * a))
    phi = (-base - fdtri(1, n, basis.level)) / (2 * (1 + n))
    found = [_at(sums, phi, weight, reward, sign) for weight in (0.0, heaviest)]
    best = np.fmin(*found)
    best = np.where(np.isnan(best), sign * (least if sign > 0 else greatest), best)
    return np.clip(sign * best, least, greatest)


def _at(sums: _Sums, phi: Array, weight: float, reward: float, sign: float) -> Array:
    """(P,) the extreme value (times sign) with an unseen decision of this weight and reward; NaN where impossible."""
    n = sums.n
    if np.isinf(weight):
        x = sign * (reward + (sums.wr - sums.w * reward) / n)
        residual = reward**2 * sums.ww - 2 * reward * sums.wwr + sums.wwrr
        y = (reward * sums.w - sums.wr) ** 2 / (n * (1 + n)) - residual / (1 + n)
        z = phi + 1 / (2 * n)
        possible = np.ones(len(x), dtype=bool)
    else:
        w, ww = (weight + sums.w) / (1 + n), (weight**2 + sums.ww) / (1 + n)
        wr, wwr = (weight * reward + sums.wr) / (1 + n), (weight**2 * reward + sums.wwr) / (1 + n)
        wwrr = (weight**2 * reward**2 + sums.wwrr) / (1 + n)
        variance, joint = ww - w * w, wwr - w * wr
        possible = variance > 0
        x = sign * (wr + (1 - w) * joint / variance)
        y = joint**2 / variance - (wwrr - wr**2)
        z = phi + (1 - w) ** 2 / (2 * variance)
    flat = np.abs(y * z) <= TOLERANCE**2
    root = np.where(flat, np.sqrt(2) * TOLERANCE, np.sqrt(np.maximum(0.0, 2 * y * z)))
    return np.where(possible & (flat | ((z <= 0) & (y * z >= 0))), x - root, np.nan)
