"""Diagnostics of weights, and the gate that stands beside every number.

| gate | when (the first that applies is the reason) |
|---|---|
| `unreliable` | fewer than 2 units; effective sample size < 100; largest weight > 10 % of the sum; Pareto k > 0.7; |
| | fewer than 3 units make the spread of the terms; mean weight off 1 by more than 0.1 with p < 1e-4; |
| | shrinking moved more than half of the weight of a mean of weighted rewards, or more than all of it |
| `caution` | the estimator's own (`dm`); shrinking moved more than 5 % of the weight, or so much that the bias may |
| | exceed the standard error; effective sample size < 400; |
| | Pareto k > 0.5; mean weight off 1 by more than 0.02 with p < 1e-3; fewer than 30 units; fewer than 20 units make |
| | the spread of the terms; no variation at all; what the evidence takes for granted; no interval of the kind asked |
| `ok` | none of these |

The test of the mean weight misses lack of support that is confined to rare contexts, and no test sees propensities that
are wrong yet average out. `ok` means that nothing alarming was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from counterplay.estimators.estimate import Diagnostics, Gate, number
from counterplay.estimators.evidence import Array
from counterplay.estimators.moments import Linear, Moments, linearise_all
from counterplay.estimators.terms import Estimator
from counterplay.estimators.weights import TAIL, WeightSums

SMALL_TAIL = 5
FEW_VALUES = 10
FEW_TERMS, VERY_FEW_TERMS = 20, 3


def t_quantile(level: float, units: int) -> float:
    """The two-sided quantile: t with units - 1 degrees of freedom leaves (1 - level) / 2 above it."""
    from scipy.special import stdtrit

    return float(stdtrit(units - 1.0, 0.5 + level / 2))


def two_sided_p(t: float, units: int) -> float:
    """P(|T| >= |t|) with units - 1 degrees of freedom."""
    from scipy.special import stdtr

    return float(2 * stdtr(units - 1.0, -abs(t)))


def weight_diagnostics(weights: Mapping[str, WeightSums]) -> dict[str, list[Diagnostics]]:
    """By name of the weights, one `Diagnostics` for each policy in their sums."""
    # Of shrunken weights those before shrinking are tested: they must average 1, whatever was made of them.
    tested = [(sums.mean if sums.before is None else sums.before).moments() for sums in weights.values()]
    linear = linearise_all(tested)
    of_all = zip(weights.items(), tested, linear, strict=True)
    return {name: _diagnoses(sums, moments, own) for (name, sums), moments, own in of_all}


def _diagnoses(sums: WeightSums, moments: Moments, linear: Linear) -> list[Diagnostics]:
    mean, error, _ = linear
    found = []
    for p, tail in enumerate(sums.tail):
        largest = float(tail[-1]) if len(tail) else 0.0
        total = float(sums.total[p])
        k, note = pareto_k(tail, sums.n) if sums.keep == TAIL else (None, "no Pareto k: shrunken weights are bounded")
        p_value, missing = _mean_test(float(mean[p]), float(error[p]), moments.count)
        found.append(
            Diagnostics(
                n=sums.n,
                units=moments.count,
                effective_sample_size=_effective(total, float(sums.squares[p])),
                largest_weight=number(largest),
                largest_weight_share=number(largest / total) if total > 0 else None,
                mean_weight=number(float(moments.mean[p, 0] / moments.mean[p, 3])),
                mean_weight_p=p_value,
                share_zero_weight=float(sums.zeros[p]) / sums.n,
                share_without_support=missing,
                pareto_k=k,
                moved_weight=number(float(sums.moved[p]) / sums.n),
                note=note,
            )
        )
    return found


def _effective(total: float, square: float) -> float | None:
    # Divided first: the square of the total may overflow where the sum of squares does not.
    return number(total / square * total) if square > 0 else 0.0


def _mean_test(mean: float, error: float, units: int) -> tuple[float | None, float | None]:
    if units < 2 or not math.isfinite(error):
        return None, None
    if error == 0:
        same = abs(mean - 1) < 1e-9
        return (1.0, 0.0) if same else (0.0, max(0.0, 1 - mean))
    return two_sided_p((mean - 1) / error, units), max(0.0, 1 - mean - t_quantile(0.95, units) * error)


def pareto_k(tail: Array, n: int) -> tuple[float | None, str]:
    """Shape k of the largest min(0.2 n, 3 sqrt n) of n weights, or None with the reason.

    `tail`: the largest positive weights, ascending (at most 4096: above 1.8 million decisions the fit uses those).
    Vehtari, Simpson, Gelman, Yao & Gabry 2024. The fit assumes a continuous tail: weights that take a
    handful of values (uniform logging, deterministic policy) are bounded, and k says nothing about them.
    """
    size = min(int(min(0.2 * n, math.ceil(3 * math.sqrt(n)))), TAIL - 1)
    if size < SMALL_TAIL:
        return None, f"no Pareto k: {n} decisions are too few for a tail"
    padded = np.concatenate([np.zeros(max(0, size + 1 - len(tail))), tail])[-size - 1 :]
    excess = padded[1:] - padded[0]
    if len(np.unique(excess)) < FEW_VALUES:
        return None, "no Pareto k: the largest weights take a few values only"
    excess = excess[excess > 0]
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
    theta = theta / (3 * excess[int(m / 4 + 0.5) - 1]) + 1.0
    with np.errstate(all="ignore"):
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
    """The mean over excesses of log(1 - theta excess): a logarithm of eight factors at a time, in arrays that stay in
    the processor's cache."""
    factors = 8 if theta.min() > -1e30 else 1  # eight of them must not overflow
    padded = np.zeros((factors, -(-len(excess) // factors)))
    padded.ravel()[: len(excess)] = excess
    sums = np.empty(len(theta))
    for start in range(0, len(theta), 8):
        terms = theta[start : start + 8, None, None] * padded
        np.subtract(1.0, terms, out=terms)
        sums[start : start + 8] = np.log(np.multiply.reduce(terms, axis=1)).sum(axis=1)
    return np.asarray(sums / len(excess))


def gate(
    diagnostics: Diagnostics, estimator: Estimator, std_error: float | None, reward: float = 0.0
) -> tuple[Gate, str]:
    """The gate and its reason; the table of thresholds stands in this module's docstring.

    `reward`: how much a decision's weight can change the value: the largest reward, or their range where they are
    compared with a model or with each other.
    """
    reason = _unreliable(diagnostics, estimator)
    if reason:
        return "unreliable", reason
    reason = _caution(diagnostics, estimator, std_error, reward)
    return ("caution", reason) if reason else ("ok", "")


def _unreliable(d: Diagnostics, estimator: Estimator) -> str:
    if d.units < 2:
        return f"{d.units} independent unit gives no interval"
    if d.effective_sample_size is not None and d.effective_sample_size < 100:
        return f"the effective sample size is {d.effective_sample_size:.3g} of {d.n} decisions"
    if d.largest_weight_share is not None and d.largest_weight_share > 0.1:
        return f"one decision carries {d.largest_weight_share:.0%} of the weight"
    if d.pareto_k is not None and d.pareto_k > 0.7:
        return f"the weights have too heavy a tail (Pareto k {d.pareto_k:.2f})"
    if d.effective_terms is not None and d.effective_terms < VERY_FEW_TERMS:
        return f"about {d.effective_terms:.1f} of {d.units} independent units make the spread of the estimate"
    if d.mean_weight is None:
        return ""
    if estimator.weight_mean != "free" and _off(d, 0.1, 1e-4):
        return f"the mean weight is {d.mean_weight:.3g}, not 1: wrong propensities, or actions that were never logged"
    # A ratio loses no level with its weights, and a model stands in for what is cut.
    bare = not estimator.normalised and "q_target" not in estimator.needs
    if d.moved_weight is not None and d.moved_weight > (0.5 if bare else 1.0):
        share = f"{d.moved_weight:.0%}" if d.moved_weight <= 1 else "more than all"
        return f"shrinking moved {share} of the weight"
    return ""


def _caution(d: Diagnostics, estimator: Estimator, std_error: float | None, reward: float) -> str:
    if estimator.caution:
        return estimator.caution
    if d.moved_weight is not None and d.moved_weight > 0.05:
        towards = " towards the model" if "q_target" in estimator.needs else ""
        return f"shrinking moved {d.moved_weight:.0%} of the weight: the value is biased{towards}"
    if std_error is not None and d.moved_weight and d.moved_weight * reward > std_error:
        return f"shrinking moved {d.moved_weight:.1%} of the weight: the bias may exceed the standard error"
    if d.effective_sample_size is not None and d.effective_sample_size < 400:
        return f"the effective sample size is {d.effective_sample_size:.3g} of {d.n} decisions"
    if d.pareto_k is not None and d.pareto_k > 0.5:
        return f"the weights have a heavy tail (Pareto k {d.pareto_k:.2f})"
    if d.mean_weight is not None and estimator.weight_mean != "free" and _off(d, 0.02, 1e-3):
        return f"the mean weight is {d.mean_weight:.3g}, a little off 1: check the propensities"
    if d.units < 30:
        return f"{d.units} independent units are few for an interval"
    if d.effective_terms is not None and d.effective_terms < FEW_TERMS:
        return f"about {d.effective_terms:.1f} of {d.units} independent units make the spread of the estimate"
    if std_error == 0:
        return "the decisions show no variation, so the interval has no width; that is no proof that there is none"
    return ""


def _off(d: Diagnostics, effect: float, p: float) -> bool:
    return (
        d.mean_weight is not None
        and d.mean_weight_p is not None
        and abs(d.mean_weight - 1) > effect
        and d.mean_weight_p < p
    )
