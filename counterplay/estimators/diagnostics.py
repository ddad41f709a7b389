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

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from counterplay.estimators.estimate import Diagnostics, Gate, number
from counterplay.estimators.moments import Moments, linearise
from counterplay.estimators.pareto import pareto_k
from counterplay.estimators.quantiles import half_width, two_sided_p
from counterplay.estimators.terms import Estimator
from counterplay.estimators.weights import TAIL, WeightSums

FEW_TERMS, VERY_FEW_TERMS = 20, 3


class MeanTest(NamedTuple):
    """Of the mean weight, against 1: the units; (P,) means, p-values, and shares that are certainly missing."""

    units: int
    mean: list[float | None]
    p_value: list[float | None]
    missing: list[float | None]


def weight_facts(weights: Mapping[str, WeightSums]) -> dict[str, list[dict[str, Any]]]:
    """By name of the weights, for each policy in their sums what `Diagnostics` says of weights, by its fields."""
    # Of shrunken weights those before shrinking are tested: they must average 1, whatever was made of them.
    tested = {name: sums.mean if sums.before is None else sums.before for name, sums in weights.items()}
    distinct = {id(fold): fold for fold in tested.values()}
    tests = {key: _mean_test(fold.moments()) for key, fold in distinct.items()}
    return {name: _facts(sums, tests[id(tested[name])]) for name, sums in weights.items()}


def _facts(sums: WeightSums, test: MeanTest) -> list[dict[str, Any]]:
    with np.errstate(all="ignore"):
        # Divided first: the square of the total may overflow where the sum of squares does not.
        effective = np.where(sums.squares > 0, sums.total / sums.squares * sums.total, 0.0).tolist()
    total, zeros, moved = sums.total.tolist(), sums.zeros.tolist(), sums.moved.tolist()
    found = []
    for p, tail in enumerate(sums.tail):
        largest = float(tail[-1]) if len(tail) else 0.0
        k, note = pareto_k(tail, sums.n) if sums.keep == TAIL else (None, "no Pareto k: shrunken weights are bounded")
        found.append({
            "n": sums.n,
            "units": test.units,
            "effective_sample_size": number(effective[p]),
            "largest_weight": number(largest),
            "largest_weight_share": number(largest / total[p]) if total[p] > 0 else None,
            "mean_weight": test.mean[p],
            "mean_weight_p": test.p_value[p],
            "share_zero_weight": zeros[p] / sums.n,
            "share_without_support": test.missing[p],
            "pareto_k": k,
            "moved_weight": number(moved[p] / sums.n),
            "note": note,
        })  # fmt: skip
    return found


def _mean_test(moments: Moments) -> MeanTest:
    mean, error, _ = linearise(moments)
    units = moments.count
    with np.errstate(all="ignore"):
        average = (moments.mean[:, 0] / moments.mean[:, 3]).tolist()
        p_value = two_sided_p((mean - 1) / error, units)
        missing = np.maximum(0.0, 1 - mean - half_width(0.95, units) * error)
    # Weights that are all the same have a mean that needs no test.
    same = np.abs(mean - 1) < 1e-9
    constant, known = error == 0, np.isfinite(error)
    p_value = np.where(constant, np.where(same, 1.0, 0.0), np.where(known, p_value, np.nan))
    missing = np.where(constant, np.where(same, 0.0, np.maximum(0.0, 1 - mean)), np.where(known, missing, np.nan))
    return MeanTest(units, *([number(one) for one in row] for row in (average, p_value.tolist(), missing.tolist())))


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
