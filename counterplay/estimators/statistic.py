"""The mergeable statistic: evidence folded into a few numbers for each policy and estimator.

    statistic_of(shard) for each shard, merged in any order, gives the estimate of all of them at once

to 1e-12 relative. The importance family is folded by one compiled pass (`family.py`), other estimators block by block
through their terms; no array of n x actions, or of n x policies beyond the evidence itself, is ever made. Policies
do not influence each other: one alone gives the same bits as among a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from counterplay.errors import EvidenceError
from counterplay.estimators.answers import Asked, Rewards, answers, seen_of
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence, distinct
from counterplay.estimators.family import IMPORTANCE, fold_family, weights_name
from counterplay.estimators.intervals import Bounds, Interval, Resampling, check_interval
from counterplay.estimators.intervals.bootstrap import Replicates, replicates_of
from counterplay.estimators.intervals.table import RESAMPLED
from counterplay.estimators.moments import Fold, cluster_sums_of, linearise, merge_folds, moments_of, units_of
from counterplay.estimators.table import resolve_all
from counterplay.estimators.terms import Estimator
from counterplay.estimators.tuning import Tuned, halves_of, parameter_of
from counterplay.estimators.weighted import Weighted
from counterplay.estimators.weights import LARGEST, TAIL, WeightSums, weight_sums_of

BLOCK = 16_384
"""Rows folded at once where estimators give their terms: 128 KiB an array. A constant: it decides last bits."""

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """All that is kept of n decisions.

    `folds`: the terms of each estimator, by name. `weights`: the weights, by the name that `weight_of` gives each
    estimator (estimators that use the same weights share one entry). `replicates`: by estimator, where asked for.
    `halves`: what remains of the grids of tuned estimators on the two halves of the decisions; None for an empty half.
    """

    estimators: tuple[Estimator, ...]
    policies: tuple[str, ...]
    n: int
    rewards: Rewards
    folds: Mapping[str, Fold]
    weights: Mapping[str, WeightSums]
    weight_of: Mapping[str, str]
    replicates: Mapping[str, Replicates]
    halves: tuple[Statistic | None, Statistic | None] = (None, None)
    resampling: Resampling | None = None
    assumption: str = ""

    def add(self, batch: Evidence) -> Statistic:
        """This statistic with more decisions of the same policies."""
        return self.merge(statistic_of(batch, self.estimators, resampling=self.resampling, floors=_floors(self)))

    def merge(self, other: Statistic) -> Statistic:
        """Two shards together. Raises `EvidenceError` where they speak of other policies or estimators."""
        names = [e.name for e in self.estimators], [e.name for e in other.estimators]
        if self.policies != other.policies or names[0] != names[1]:
            raise EvidenceError(
                f"Shards of {list(self.policies)} by {names[0]} and of {list(other.policies)} by {names[1]} do not "
                "merge: policies and estimators must be the same, in the same order."
            )
        if self.resampling != other.resampling:
            raise EvidenceError("Shards were resampled with other seeds or draws; give all the same.")
        # Sums that leave the range of float64 become an estimate without a value, with that reason: no warning is due.
        with np.errstate(over="ignore", invalid="ignore"):
            return Statistic(
                estimators=self.estimators,
                policies=self.policies,
                n=self.n + other.n,
                rewards=self.rewards.merge(other.rewards),
                folds=_both(self.folds, other.folds, merge_folds),
                weights=_both(self.weights, other.weights, WeightSums.merge),
                weight_of=self.weight_of,
                replicates=_both(self.replicates, other.replicates, Replicates.merge),
                halves=(_either(self.halves[0], other.halves[0]), _either(self.halves[1], other.halves[1])),
                resampling=self.resampling,
                assumption=self.assumption or other.assumption,
            )

    def estimate(self, level: float = 0.95, interval: Interval = "t", bounds: Bounds | None = None) -> list[Estimate]:
        """One estimate for each policy and estimator, policies first.

        `interval`: see `intervals/table.py` for what each is good for. The default "t" is right where the mean of the
        terms is nearly normal: effective sample size in the hundreds, more than ten rewarded decisions. `bounds`: what
        is known of rewards and weights beforehand, for the intervals that rest on it. An interval that does not apply
        to an estimator is left out, with the reason. Raises `ConfigurationError` for an unknown interval or level, and
        `EvidenceError` where the log shows that the bounds are wrong.
        """
        check_interval(interval, level)
        asked = Asked(
            n=self.n, rewards=self.rewards, assumption=self.assumption, level=level, interval=interval, bounds=bounds
        )
        plain = tuple(estimator for estimator in self.estimators if not isinstance(estimator, Tuned))
        seen = seen_of(plain, self.folds, self.weights, self.weight_of, self.replicates, self.rewards)
        found = {own.estimator.name: answers(self.policies, own, asked) for own in seen}
        found |= {own.name: self._tuned(own, asked) for own in self.estimators if isinstance(own, Tuned)}
        return [found[e.name][p] for p in range(len(self.policies)) for e in self.estimators]

    def settled(self, estimator: Estimator) -> Estimator:
        """An estimator of this statistic with its parameters chosen, ready to give terms; others pass through."""
        return estimator.settle(self._chosen(estimator)) if isinstance(estimator, Tuned) else estimator

    def _chosen(self, tuned: Tuned) -> tuple[Codes, Codes]:
        """(P,) places in the grid for decisions of half 0, chosen on half 1, and the other way round."""
        chosen = [np.zeros(len(self.policies), np.int64)] * 2
        for i, half in enumerate(self.halves):
            if half is not None:
                linear = [linearise(half.folds[own.name].moments(), own.form) for own in tuned.grid]
                chosen[1 - i] = tuned.choose(linear)
        return chosen[0], chosen[1]

    def _tuned(self, tuned: Tuned, asked: Asked) -> list[Estimate]:
        chosen = self._chosen(tuned)
        found = []
        for p, policy in enumerate(self.policies):
            used = [tuned.grid[places[p]] for places in chosen]
            known = [(half, own) for half, own in zip(self.halves, used, strict=True) if half is not None]
            fold, weights, replicates = _sum_of([half.policy(p, own) for half, own in known])
            told = " and ".join(dict.fromkeys(f"{parameter_of(own):g}" for own in used))
            # An interval knows nothing of the bias of shrinking: it is as wide as without, at least.
            least = float(
                linearise(_sum_of([half.policy(p, tuned.grid[0]) for half, _ in known])[0].moments()).std_error[0]
            )
            least = 0.0 if np.isnan(least) else least
            name, replicated = tuned.name, {} if replicates is None else {tuned.name: replicates}
            (seen,) = seen_of(
                [tuned.using(used)], {name: fold}, {name: weights}, {name: name}, replicated, self.rewards
            )
            found += answers([policy], seen, asked, told, least)
        return found

    def policy(self, p: int, estimator: Estimator) -> tuple[Fold, WeightSums, Replicates | None]:
        """What remains of one policy under one estimator, for a single policy."""
        replicates = self.replicates.get(estimator.name)
        return (
            self.folds[estimator.name].policy(p),
            self.weights[self.weight_of[estimator.name]].policy(p),
            None if replicates is None else replicates.policy(p),
        )


def _both(
    left: Mapping[str, Part], right: Mapping[str, Part], merge: Callable[[Part, Part], Part]
) -> Mapping[str, Part]:
    return {name: merge(part, right[name]) for name, part in left.items()}


def _either(left: Statistic | None, right: Statistic | None) -> Statistic | None:
    return left.merge(right) if left is not None and right is not None else left or right


def _sum_of(
    parts: list[tuple[Fold, WeightSums, Replicates | None]],
) -> tuple[Fold, WeightSums, Replicates | None]:
    fold, weights, replicates = parts[0]
    for other, its_weights, its_replicates in parts[1:]:
        fold, weights = merge_folds(fold, other), weights.merge(its_weights)
        if replicates is not None and its_replicates is not None:
            replicates = replicates.merge(its_replicates)
    return fold, weights, replicates


def statistic_of(
    evidence: Evidence,
    estimators: str | Estimator | Iterable[str | Estimator] = ("ips", "snips", "dr"),
    *,
    resampling: Resampling | None = None,
    floors: Mapping[str, Array] | None = None,
) -> Statistic:
    """The statistic of one shard. Raises `MissingEvidenceError` where an estimator needs what the evidence lacks.

    `resampling` is needed by the intervals `percentile` and `bca`: `draws` products a decision, policy and estimator.
    `floors` only saves time: weights below them cannot reach the tail of the shard this one will be merged into.
    """
    chosen = resolve_all(estimators)
    for estimator in chosen:
        estimator.require(evidence)
    plain = tuple(estimator for estimator in chosen if not isinstance(estimator, Tuned))
    clusters = units_of(evidence)
    (folds, weights, weight_of), predicted = _folds(evidence, plain, clusters, floors or {})
    model = any("q_target" in estimator.needs for estimator in chosen)
    grids = {own.name: own for estimator in chosen if isinstance(estimator, Tuned) for own in estimator.grid}
    return Statistic(
        estimators=chosen,
        policies=evidence.policies,
        n=len(evidence),
        rewards=Rewards.of(evidence, model, predicted),
        folds=folds,
        weights=weights,
        weight_of=weight_of,
        replicates=_replicates(evidence, plain, resampling),
        halves=_halves(evidence, tuple(grids.values()), resampling) if grids else (None, None),
        resampling=resampling,
        assumption=evidence.assumption,
    )


def fold_shards(
    shards: Iterable[Evidence],
    estimators: str | Estimator | Iterable[str | Estimator],
    *,
    resampling: Resampling | None = None,
) -> Statistic:
    """The statistic of shards that come one after the other, as those of a log do; at least one.

    Merged as a binary counter carries: what was merged grows by doubling, so a table of clusters is copied as often as
    shards can be halved, and not once a shard. Errors: those of `statistic_of`.
    """
    chosen = resolve_all(estimators)
    held: list[tuple[int, Statistic]] = []
    for shard in shards:
        floors = _floors(held[0][1]) if held else None
        count, own = 1, statistic_of(shard, chosen, resampling=resampling, floors=floors)
        while held and held[-1][0] == count:
            before = held.pop()[1]
            count, own = 2 * count, before.merge(own)
        held.append((count, own))
    if not held:
        raise EvidenceError("There is no shard to make a statistic of.")
    whole = held.pop()[1]
    while held:
        whole = held.pop()[1].merge(whole)
    return whole


def _floors(statistic: Statistic) -> dict[str, Array]:
    return {name: sums.floors() for name, sums in statistic.weights.items()}


def _halves(
    evidence: Evidence, grid: tuple[Estimator, ...], resampling: Resampling | None
) -> tuple[Statistic | None, Statistic | None]:
    half = halves_of(evidence)
    found = []
    for own in (0, 1):
        rows = np.flatnonzero(half == own)
        part = evidence.chosen(rows) if len(rows) else None
        found.append(None if part is None else statistic_of(part, grid, resampling=resampling))
    return found[0], found[1]


def _replicates(
    evidence: Evidence, estimators: tuple[Estimator, ...], resampling: Resampling | None
) -> Mapping[str, Replicates]:
    found: Mapping[str, Replicates] = {}
    if resampling is None:
        return found
    for start in range(0, len(evidence), BLOCK):
        block = evidence.part(slice(start, min(start + BLOCK, len(evidence))))
        own = replicates_of(block, {e.name: e.terms(block) for e in estimators if e.form == "ratio"}, resampling)
        found = _both(found, own, Replicates.merge) if found else own
    return found


Folds = tuple[dict[str, Fold], dict[str, WeightSums], dict[str, str]]


def _folds(
    evidence: Evidence,
    estimators: tuple[Estimator, ...],
    clusters: tuple[Codes, Codes] | None,
    floors: Mapping[str, Array],
) -> tuple[Folds, tuple[float, float] | None]:
    """The folds, and the range of a reward model's predictions where the pass met it."""
    if clusters is not None:
        return _through_terms(evidence, estimators, clusters, floors), None
    members = {e.name: e.terms for e in estimators if isinstance(e.terms, Weighted)}
    others = tuple(e for e in estimators if e.name not in members)
    folds: dict[str, Fold] = {}
    weights: dict[str, WeightSums] = {}
    predicted = None
    if members:
        family = fold_family(evidence, members.values(), floors.get(IMPORTANCE))
        moments, weights = family.parts(members)
        folds.update(moments)
        predicted = family.predicted
    weight_of = {name: weights_name(member) for name, member in members.items()}
    for start in range(0, len(evidence) if others else 0, BLOCK):
        block = evidence.part(slice(start, min(start + BLOCK, len(evidence))))
        own, own_weights, own_weight_of = _through_terms(block, others, None, floors)
        for name, fold in own.items():
            folds[name] = merge_folds(folds[name], fold) if name in folds else fold
        for name, sums in own_weights.items():
            weights[name] = weights[name].merge(sums) if start else sums
        weight_of |= own_weight_of
    return (folds, weights, weight_of), predicted


def _through_terms(
    evidence: Evidence,
    estimators: tuple[Estimator, ...],
    clusters: tuple[Codes, Codes] | None,
    floors: Mapping[str, Array],
) -> Folds:
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
        member = estimator.terms
        key = weight_of[estimator.name] = weights_name(member) if isinstance(member, Weighted) else estimator.name
        if key not in weights:
            keep = LARGEST if estimator.weight_mean == "shrunk" else TAIL
            before = evidence.weight if keep == LARGEST and evidence.has("propensity") else None
            weights[key] = weight_sums_of(terms.weight, clusters, floors.get(key), keep, before)
    return folds, weights, weight_of


def evaluate(
    evidence: Evidence,
    estimators: str | Estimator | Iterable[str | Estimator] = ("ips", "snips", "dr"),
    level: float = 0.95,
    interval: Interval = "t",
    *,
    bounds: Bounds | None = None,
    resampling: Resampling | None = None,
) -> list[Estimate]:
    """Estimates of every policy by every estimator, in one pass: policies first, estimators in the order given.

    `interval`, `bounds`: see `Statistic.estimate`. The bootstrap intervals take `Resampling()` where none is given.
    """
    check_interval(interval, level)
    clusters = evidence.cluster
    if clusters is not None and len(distinct(clusters)) == len(evidence):
        # Here nothing is merged later, so clusters of one decision need no table of clusters.
        evidence = evidence.part(slice(None), clustered=False)
    if interval in RESAMPLED and resampling is None:
        resampling = Resampling()
    return statistic_of(evidence, estimators, resampling=resampling).estimate(level, interval, bounds)
