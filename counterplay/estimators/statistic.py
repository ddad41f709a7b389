"""The mergeable statistic: evidence folded into a few numbers for each policy and estimator.

    statistic_of(shard) for each shard, merged in any order, gives the estimate of all of them at once

to 1e-12 relative. Rows are folded in blocks, so temporaries stay in the processor's cache and no array of n x actions,
or of n x policies beyond the evidence itself, is ever made. Policies do not influence each other: one alone
gives the same bits as among a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.diagnostics import gate, t_quantile, weight_diagnostics
from counterplay.estimators.estimate import Diagnostics, Estimate, number
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.moments import Fold, Linear, cluster_sums_of, linearise, merge_folds, moments_of, units_of
from counterplay.estimators.table import resolve_all
from counterplay.estimators.terms import Estimator
from counterplay.estimators.weights import WeightSums, weight_sums_of

BLOCK = 16_384
"""Rows folded at once: 128 KiB an array. A constant, because it decides the last bits of every sum."""

IMPORTANCE = "importance"

Interval = Literal["t", "normal"]


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """All that is kept of n decisions.

    `folds`: the terms of each estimator, by name. `weights`: the weights, by the name that `weight_of` gives each
    estimator (estimators that use the importance weights share one entry).
    """

    estimators: tuple[Estimator, ...]
    policies: tuple[str, ...]
    n: int
    folds: Mapping[str, Fold]
    weights: Mapping[str, WeightSums]
    weight_of: Mapping[str, str]

    def add(self, batch: Evidence) -> Statistic:
        """This statistic with more decisions of the same policies."""
        floors = {name: sums.floors() for name, sums in self.weights.items()}
        return self.merge(statistic_of(batch, self.estimators, floors=floors))

    def merge(self, other: Statistic) -> Statistic:
        """Two shards together. Raises `EvidenceError` where they speak of other policies or estimators."""
        names = [e.name for e in self.estimators], [e.name for e in other.estimators]
        if self.policies != other.policies or names[0] != names[1]:
            raise EvidenceError(
                f"Shards of {list(self.policies)} by {names[0]} and of {list(other.policies)} by {names[1]} do not "
                "merge: policies and estimators must be the same, in the same order."
            )
        # Sums that leave the range of float64 become an estimate without a value, with that reason: no warning is due.
        with np.errstate(over="ignore", invalid="ignore"):
            return Statistic(
                estimators=self.estimators,
                policies=self.policies,
                n=self.n + other.n,
                folds={name: merge_folds(fold, other.folds[name]) for name, fold in self.folds.items()},
                weights={name: sums.merge(other.weights[name]) for name, sums in self.weights.items()},
                weight_of=self.weight_of,
            )

    def estimate(self, level: float = 0.95, interval: Interval = "t") -> list[Estimate]:
        """One estimate for each policy and estimator, policies first.

        `interval`: "t" with units - 1 degrees of freedom, or "normal". Both are right where the mean of the terms is
        nearly normal: effective sample size in the hundreds. With rewards rarer than about 10 in the effective
        sample they are too short on the side of the high values.
        """
        if not 0 < level < 1:
            raise ConfigurationError(f"level is {level:g}; it must lie between 0 and 1, for example 0.95.")
        if interval not in ("t", "normal"):
            raise ConfigurationError(f"There is no interval '{interval}'. Known: normal, t.")
        found: dict[tuple[int, str], Estimate] = {}
        diagnoses = {name: weight_diagnostics(sums) for name, sums in self.weights.items()}
        for estimator in self.estimators:
            moments = self.folds[estimator.name].moments()
            linear = linearise(moments)
            plain = Diagnostics(n=self.n, units=moments.count)
            own = diagnoses.get(self.weight_of.get(estimator.name, ""), [plain])
            for p, policy in enumerate(self.policies):
                diagnosis = own[p if len(own) > 1 else 0]
                found[p, estimator.name] = _estimate(policy, estimator, linear, p, diagnosis, level, interval)
        return [found[p, e.name] for p in range(len(self.policies)) for e in self.estimators]


def _estimate(
    policy: str, estimator: Estimator, linear: Linear, p: int, diagnosis: Diagnostics, level: float, interval: Interval
) -> Estimate:
    value, error = number(linear.value[p]), number(linear.std_error[p])
    if estimator.weight_mean != "one":
        # The mean of shrunken or matching weights is not meant to be 1: a test would accuse an innocent log.
        diagnosis = replace(diagnosis, mean_weight_p=None, share_without_support=None)
    verdict, reason = gate(diagnosis, estimator, error)
    if diagnosis.largest_weight == 0:
        cut = estimator.weight_mean == "shrunk"
        reason = "every weight is cut off" if cut else "no logged decision has an action of this policy"
        value, error, verdict = None, None, "unreliable"
    elif value is None:
        error, verdict, reason = None, "unreliable", "the sums leave the range of floating-point numbers"
    half = math.nan if error is None else _quantile(level, diagnosis.units, interval) * error
    return Estimate(
        policy=policy,
        estimator=estimator.name,
        value=value,
        std_error=error,
        low=None if value is None else number(value - half),
        high=None if value is None else number(value + half),
        level=level,
        n=diagnosis.n,
        diagnostics=diagnosis,
        gate=verdict,
        reason=reason,
    )


def _quantile(level: float, units: int, interval: Interval) -> float:
    if interval == "t":
        return t_quantile(level, units)
    from scipy.special import ndtri

    return float(ndtri(0.5 + level / 2))


def statistic_of(
    evidence: Evidence,
    estimators: str | Estimator | Iterable[str | Estimator] = ("ips", "snips", "dr"),
    *,
    floors: Mapping[str, Array] | None = None,
) -> Statistic:
    """The statistic of one shard. Raises `MissingEvidenceError` where an estimator needs what the evidence lacks.

    `floors` only saves time: weights below them cannot reach the tail of the shard this one will be merged into.
    """
    chosen = resolve_all(estimators)
    for estimator in chosen:
        estimator.require(evidence)
    clusters = units_of(evidence)
    if clusters is not None:
        return _fold(evidence, chosen, clusters, floors or {})
    found: Statistic | None = None
    for start in range(0, len(evidence), BLOCK):
        rows = slice(start, min(start + BLOCK, len(evidence)))
        low = floors if found is None else {name: sums.floors() for name, sums in found.weights.items()}
        block = _fold(evidence.part(rows), chosen, None, low or {})
        found = block if found is None else found.merge(block)
    assert found is not None
    return found


def _fold(
    evidence: Evidence,
    estimators: tuple[Estimator, ...],
    clusters: tuple[Codes, Codes] | None,
    floors: Mapping[str, Array],
) -> Statistic:
    policies = len(evidence.policies)
    folds: dict[str, Fold] = {}
    weights: dict[str, WeightSums] = {}
    weight_of: dict[str, str] = {}
    for estimator in estimators:
        with np.errstate(over="ignore", invalid="ignore"):
            terms = estimator.terms(evidence)
            folds[estimator.name] = (
                moments_of(terms, policies) if clusters is None else cluster_sums_of(terms, policies, *clusters)
            )
        if terms.weight is None:
            continue
        # The evidence computes its importance weights once, so the very same array tells that they are shared.
        shared = evidence.propensity is not None and terms.weight is evidence.weight
        key = weight_of[estimator.name] = IMPORTANCE if shared else estimator.name
        if key not in weights:
            weights[key] = weight_sums_of(terms.weight, clusters, floors.get(key))
    return Statistic(
        estimators=estimators,
        policies=evidence.policies,
        n=len(evidence),
        folds=folds,
        weights=weights,
        weight_of=weight_of,
    )


def evaluate(
    evidence: Evidence,
    estimators: str | Estimator | Iterable[str | Estimator] = ("ips", "snips", "dr"),
    level: float = 0.95,
    interval: Interval = "t",
) -> list[Estimate]:
    """Estimates of every policy by every estimator, in one pass: policies first, estimators in the order given."""
    clusters = evidence.cluster
    if clusters is not None and len(np.unique(clusters)) == len(evidence):
        # Here nothing is merged later, so clusters of one decision need no table of clusters.
        evidence = evidence.part(slice(None), clustered=False)
    return statistic_of(evidence, estimators).estimate(level, interval)
