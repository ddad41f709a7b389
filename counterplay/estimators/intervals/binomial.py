"""Clopper & Pearson 1934: intervals of a chance, for any number of decisions, where rewards are 0 or 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.basis import Basis, Ends

SAME = 1e-9


def clopper_pearson(successes: npt.ArrayLike, trials: npt.ArrayLike, level: float = 0.95) -> Ends:
    """(low, high) of the chance of success, of the broadcast shape; parts of successes and of trials are allowed.

    Exact for whole successes in independent trials. With parts (weights that vary) it is wide enough in practice, but
    that is not proved. NaN where there are no trials.
    """
    from scipy.special import betaincinv

    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    tail = (1 - level) / 2
    some, short = (k > 0) & (n > 0), (k < n) & (n > 0)
    low, high = np.zeros(k.shape), np.ones(k.shape)
    low[some] = betaincinv(k[some], n[some] - k[some] + 1, tail)
    high[short] = betaincinv(k[short] + 1, n[short] - k[short], 1 - tail)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def binomial_ends(basis: Basis) -> Ends | str:
    """The interval of each policy, or why there is none.

    Of a ratio whose weights are 0 or one and the same number (the mean, replay, SNIPS of a deterministic policy under
    a constant propensity) the trials are the decisions with weight. Of a mean over all decisions the terms w r are
    successes of size 1 / W in n trials, W being the largest weight possible; a cluster is one trial, as large as the
    largest cluster makes it. (vw-estimators counts n / W trials with the chance v instead, which is too short: at
    v = 0.5 and W = 10 about 0.73 of the width that covers.)
    """
    if not basis.binary:
        return "rewards must be 0 or 1"
    moments = basis.moments
    if "q_target" in basis.estimator.needs or basis.estimator.form != "ratio":
        return "rewards must be weighed as they are, without a model"
    if basis.estimator.normalised:
        return _of_ratio(basis)
    width = basis.unit_width()
    if isinstance(width, str):
        return width
    trials = np.full(len(moments.mean), float(moments.count))
    low, high = clopper_pearson(np.minimum(moments.mean[:, 0] / width, 1.0) * trials, trials, basis.level)
    scale = width / moments.mean[:, 3]
    return low * scale, np.minimum(high * scale, 1.0)


def _of_ratio(basis: Basis) -> Ends | str:
    moments, weight = basis.moments, basis.largest_weight
    if moments.largest_unit > 1:
        return "the decisions of a ratio must be independent, and this log has clusters"
    count = moments.count
    hits, trials = moments.mean[:, 0] * count, moments.mean[:, 1] * count
    squares = moments.spread[:, 1, 1] + trials**2 / count
    with np.errstate(all="ignore"):
        one_weight = np.abs(squares - weight * trials) <= SAME * np.abs(squares)
        low, high = clopper_pearson(np.minimum(hits, trials) / weight, trials / weight, basis.level)
    if not one_weight.any():
        return "the weights of a ratio must be 0 or one and the same number"
    nothing: Array = np.full(len(trials), np.nan)
    return np.where(one_weight, low, nothing), np.where(one_weight, high, nothing)
