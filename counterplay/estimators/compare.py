"""Comparison of policies on the same decisions: differences, not overlapping intervals.

Two policies evaluated on one log share its luck, so the interval of their difference is far shorter than their own
intervals suggest. With many policies against one baseline some difference looks large by luck alone: the simultaneous
intervals cover all differences at once, and the adjusted p-values bound the chance of any false discovery.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from counterplay.errors import ConfigurationError, nearest
from counterplay.estimators.diagnostics import t_quantile, two_sided_p
from counterplay.estimators.estimate import Estimate, Gate, number, plain
from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.moments import Moments, cluster_sums_of, linearise, units_of
from counterplay.estimators.statistic import BLOCK, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator, Terms

ROUNDING = 1e-13

GATES: tuple[Gate, ...] = ("ok", "caution", "unreliable")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """value = policy minus baseline, in units of reward; None where either has no number.

    [`low`, `high`] covers this difference alone; [`low_all`, `high_all`] covers the differences of the whole set
    together, each at confidence `level`. `p_value` is for this difference alone, `p_holm` (Holm 1979) and `p_max_t`
    (Romano & Wolf 2005, single step) are corrected for the number of policies compared.
    """

    policy: str
    baseline: str
    estimator: str
    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    low_all: float | None
    high_all: float | None
    level: float
    n: int
    p_value: float | None
    p_holm: float | None
    p_max_t: float | None
    gate: Gate
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`."""
        return {key: plain(value) for key, value in asdict(self).items()}


def compare(
    evidence: Evidence,
    baseline: str,
    estimator: str | Estimator = "snips",
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> list[Difference]:
    """Every other policy of the evidence against `baseline`, in the evidence's order.

    To compare with the logging policy itself, give the evidence a policy whose target is the propensity.

    The simultaneous intervals are those of the max-t multiplier bootstrap (Chernozhukov, Chetverikov & Kato 2013). With
    Gaussian multipliers its distribution given the log is normal with the covariance of the influences, so `draws` come
    from that directly (Philox, `seed`), at a cost that does not grow with the log; divided by a chi for few
    clusters. Holds where `Statistic.estimate` says that t intervals hold. Memory: P numbers a cluster.
    """
    chosen = resolve(estimator)
    if baseline not in evidence.policies:
        raise ConfigurationError(f"There is no policy '{baseline}'. {nearest(baseline, evidence.policies)}")
    if evidence.cluster is not None and len(np.unique(evidence.cluster)) == len(evidence):
        evidence = evidence.part(slice(None), clustered=False)
    statistic = statistic_of(evidence, chosen)
    estimates = statistic.estimate(level)
    base = evidence.policies.index(baseline)
    usable = [p for p, e in enumerate(estimates) if p != base and None not in (e.std_error, estimates[base].std_error)]
    moments = statistic.folds[chosen.name].moments()
    covariance = _covariance(evidence, chosen, moments, base, usable)
    value = _differences(estimates, base, usable)
    tests = _tests(value, covariance, moments.count, level, seed, draws)
    place = {p: i for i, p in enumerate(usable)}
    return [
        _difference(estimates[p], estimates[base], level, tests[place[p]] if p in place else {})
        for p in range(len(estimates))
        if p != base
    ]


def _differences(estimates: list[Estimate], base: int, usable: list[int]) -> Array:
    values = np.array([e.value if e.value is not None else np.nan for e in estimates])
    difference = values[usable] - values[base]
    # Equal values that differ in their last bits would meet an error of zero, and be called certainly different.
    same = np.abs(difference) <= ROUNDING * np.maximum(np.abs(values[usable]), np.abs(values[base]))
    return np.where(same, 0.0, difference)


def _covariance(evidence: Evidence, estimator: Estimator, moments: Moments, base: int, usable: list[int]) -> Array:
    """(D, D) covariance of the differences from the base, from the influence of each unit."""
    total = np.zeros((len(usable), len(usable)))
    if not usable:
        return total
    for influence in _influences(evidence, estimator, moments):
        with np.errstate(invalid="ignore"):
            difference = influence[usable] - influence[base]
        for i in range(len(usable)):
            total[i, i:] += np.add.reduce(difference[i:] * difference[i], axis=1)
    total = np.triu(total) + np.triu(total, 1).T
    return total / (moments.count * (moments.count - 1.0))


def _influences(evidence: Evidence, estimator: Estimator, moments: Moments) -> Iterator[Array]:
    """(P, units) influences g'(x - mean), block by block."""
    gradient = linearise(moments).gradient
    clusters = units_of(evidence)
    policies = len(evidence.policies)
    if clusters is not None:
        sums = cluster_sums_of(estimator.terms(evidence), policies, *clusters).sums
        yield _centred(Terms(sums[0], sums[1], sums[2]), sums[3], moments.mean, gradient)
        return
    for start in range(0, len(evidence), BLOCK):
        terms = estimator.terms(evidence.part(slice(start, start + BLOCK)))
        yield _centred(terms, 1.0, moments.mean, gradient)


def _centred(terms: Terms, size: Array | float, mean: Array, gradient: Array) -> Array:
    parts = (terms.numerator, terms.denominator, terms.baseline, size)
    with np.errstate(invalid="ignore"):
        return np.asarray(
            sum(
                gradient[:, i : i + 1] * (np.atleast_2d(part) - mean[:, i : i + 1])
                for i, part in enumerate(parts)
                if isinstance(part, np.ndarray)
            )
        )


def _tests(
    value: Array, covariance: Array, units: int, level: float, seed: int, draws: int
) -> list[dict[str, float | None]]:
    if not len(value):
        return []
    error = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    error = np.where(error <= ROUNDING * np.abs(value), 0.0, error)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(value == 0, 0.0, np.abs(value) / error)
    one, largest = t_quantile(level, units), _max_t(covariance, error, units, seed, draws)
    # One comparison needs no simulation: the quantile is known.
    many = one if len(value) == 1 else max(one, float(np.quantile(largest, level)))
    p_value = np.array([two_sided_p(float(x), units) for x in t])
    p_max = (1 + len(largest) - np.searchsorted(largest, t)) / (1 + len(largest))
    p_holm = _holm(p_value)
    return [
        {
            "std_error": float(error[i]),
            "low": float(value[i] - one * error[i]),
            "high": float(value[i] + one * error[i]),
            "low_all": float(value[i] - many * error[i]),
            "high_all": float(value[i] + many * error[i]),
            "p_value": float(p_value[i]),
            "p_holm": float(p_holm[i]),
            "p_max_t": float(max(p_max[i], p_value[i])),
        }
        for i in range(len(value))
    ]


def _max_t(covariance: Array, error: Array, units: int, seed: int, draws: int) -> Array:
    """Ascending draws of the largest |t| of the set if no policy differed from the baseline."""
    generator = np.random.Generator(np.random.Philox(seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(error > 0, 1 / error, 0.0)
    correlation = covariance * scale[:, None] * scale[None, :]
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = generator.standard_normal((draws, len(error))) @ root.T
    chi = np.sqrt(generator.chisquare(units - 1.0, draws) / (units - 1.0))
    return np.sort(np.abs(normal).max(axis=1) / chi)


def _holm(p: Array) -> Array:
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _difference(ours: Estimate, base: Estimate, level: float, tests: dict[str, float | None]) -> Difference:
    worst = max((ours, base), key=lambda e: GATES.index(e.gate))
    reason = f"{worst.policy}: {worst.reason}" if worst.reason else ""
    found = None if ours.value is None or base.value is None else number(ours.value - base.value)
    names = ("std_error", "low", "high", "low_all", "high_all", "p_value", "p_holm", "p_max_t")
    return Difference(
        policy=ours.policy,
        baseline=base.policy,
        estimator=ours.estimator,
        value=found,
        level=level,
        n=ours.n,
        gate=worst.gate,
        reason=reason,
        **{name: tests.get(name) for name in names},
    )
