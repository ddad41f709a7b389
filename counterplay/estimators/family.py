"""One pass for the importance family: from evidence to the moments of many members and the sums of their weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.moments import PARTS, Moments
from counterplay.estimators.weighted import BASELINES, KINDS, RISING, Shrinkage, Weighted
from counterplay.estimators.weights import LARGEST, TAIL, WeightSums, largest_of

IMPORTANCE = "importance"
"""The name of the weights that are not shrunk, which many estimators share."""

PARALLEL = 1_000_000
"""Weights below which threads cost more than they save."""

SAMPLED = 64
ENOUGH = 96
"""Every 64th weight, and the 96th largest of these: 6,144 weights are expected above it, of which 4,096 are wanted."""


def weights_name(member: Weighted) -> str:
    """The name under which the sums of a member's weights stand: members with one shrinkage share them."""
    shrinkage = member.shrinkage
    return IMPORTANCE if shrinkage.kind == "none" else f"{shrinkage.kind}({shrinkage.parameter!r})"


def fold_family(
    evidence: Evidence, members: Mapping[str, Weighted], floors: Array | None = None
) -> tuple[dict[str, Moments], dict[str, WeightSums]]:
    """Moments of each member by its name, and the sums of their weights by `weights_name`; decisions are the units.

    `floors` (P,): weights below cannot reach the tail of the shard this one will be merged into.
    """
    tails = any(member.shrinkage.kind == "none" for member in members.values())
    return _fold(evidence, distinct_members(members.values()), floors, tails).parts(members)


def distinct_members(members: Iterable[Weighted]) -> list[Weighted]:
    """Members without their denominators: those that differ in nothing else are folded once.

    The first is plain IPS: the weights before anything is shrunk must average 1, whoever is asked for.
    """
    return list(dict.fromkeys((Weighted(), *(replace(member, normalised=False) for member in members))))


@dataclass(frozen=True, kw_only=True)
class FamilySums:
    """What one pass over n decisions leaves of P policies and M `members`, whoever made the pass.

    `mean` (P, M, 3) of g x, g and baseline, `spread` (P, M, 3, 3) their centred products, `powers` (P, M, 2) sums of
    (g x)^3 and (g x)^4; `zeros`, `largest` (P, M) of g; `moved` (P, M) sums of |w - g|; `heaviest` (P,) weight; `tail`:
    the largest weights of each policy, ascending, or () where every member shrinks.
    """

    n: int
    members: Sequence[Weighted]
    mean: Array
    spread: Array
    powers: Array
    zeros: Array
    largest: Array
    moved: Array
    heaviest: Array
    tail: tuple[Array, ...]

    def parts(self, members: Mapping[str, Weighted]) -> tuple[dict[str, Moments], dict[str, WeightSums]]:
        """Moments of each member by its name, and the sums of their weights by `weights_name`."""
        place = {member: m for m, member in enumerate(self.members)}
        moments = {
            name: self._moments(place[replace(member, normalised=False)], member.normalised)
            for name, member in members.items()
        }
        wanted = {weights_name(member): place[replace(member, normalised=False)] for member in members.values()}
        weights = {name: self._weights(m, self.members[m].shrinkage) for name, m in wanted.items()}
        return moments, weights

    def _moments(self, m: int, normalised: bool) -> Moments:
        policies = len(self.mean)
        mean, spread = np.zeros((policies, PARTS)), np.zeros((policies, PARTS, PARTS))
        mean[:, :3], spread[:, :3, :3] = self.mean[:, m], self.spread[:, m]
        mean[:, 3] = 1.0
        if not normalised:
            mean[:, 1] = 1.0
            spread[:, 1, :] = spread[:, :, 1] = 0.0
        return Moments(count=self.n, mean=mean, spread=spread, powers=self.powers[:, m].copy())

    def _weights(self, m: int, shrinkage: Shrinkage) -> WeightSums:
        plain = shrinkage.kind == "none"
        average, square = self.mean[:, m, 1], self.spread[:, m, 1, 1]
        tail = self.tail
        if not plain:
            tail = tuple(row[row > 0] for row in self.largest[:, m : m + 1])
        return WeightSums(
            n=self.n,
            total=average * self.n,
            squares=square + self.n * average**2,
            zeros=self.zeros[:, m],
            tail=tail,
            mean=self._of_weights(m),
            before=None if plain else self._of_weights(0),
            heaviest=self.heaviest,
            moved=self.moved[:, m],
            keep=TAIL if plain else LARGEST,
        )

    def _of_weights(self, m: int) -> Moments:
        """Moments with g as the numerator."""
        policies = len(self.mean)
        mean, spread = np.zeros((policies, PARTS)), np.zeros((policies, PARTS, PARTS))
        mean[:, 0], mean[:, 1], mean[:, 3] = self.mean[:, m, 1], 1.0, 1.0
        spread[:, 0, 0] = self.spread[:, m, 1, 1]
        return Moments(count=self.n, mean=mean, spread=spread, powers=np.zeros((policies, 2)))


def _fold(evidence: Evidence, members: Sequence[Weighted], floors: Array | None, tails: bool) -> FamilySums:
    from counterplay.estimators.kernel import fold_policies

    policies, n = len(evidence.policies), len(evidence)
    given = evidence.weights
    target = evidence.target if given is None else given
    inverse = np.empty(0) if given is not None or evidence.propensity is None else 1.0 / evidence.propensity
    model = any(member.baseline == "model" for member in members)
    q_logged = np.atleast_2d(evidence.q_logged) if model and evidence.q_logged is not None else np.empty((0, 0))
    q_target = evidence.q_target if model and evidence.q_target is not None else np.empty((policies, 0))
    kinds = np.array([KINDS.index(member.shrinkage.kind) for member in members])
    parameters = np.array([member.shrinkage.parameter for member in members])
    baselines = np.array([BASELINES.index(member.baseline) for member in members])
    mean, spread = np.zeros((policies, len(members), 3)), np.zeros((policies, len(members), 3, 3))
    powers, zeros = np.zeros((policies, len(members), 2)), np.zeros((policies, len(members)))
    largest, moved = np.zeros_like(zeros), np.zeros_like(zeros)
    heaviest, kept = np.zeros(policies), np.zeros(policies, np.int64)
    tail = np.empty((policies, 2 * TAIL)) if tails else np.empty((0, 0))
    known = np.zeros(policies) if floors is None else floors
    guess = _guess(target, inverse, known) if tails else known
    least = guess.copy()

    def fold(own: slice) -> None:
        fold_policies(
            target[own], inverse, evidence.reward, q_logged[own] if len(q_logged) > 1 else q_logged, q_target[own],
            kinds, parameters, baselines, mean[own], spread[own], powers[own], zeros[own], largest[own],
            moved[own], heaviest[own], least[own], tail[own], kept[own],
        )  # fmt: skip

    with np.errstate(over="ignore", invalid="ignore"):
        _side_by_side(fold, policies, n)
    for m, member in enumerate(members):
        if member.shrinkage.kind in RISING:
            largest[:, m] = member.shrinkage.apply(heaviest)
    found = []
    for p in range(policies if tails else 0):
        own = tail[p, : kept[p]]
        if len(own) < TAIL and guess[p] > known[p]:
            row = target[p] * inverse if len(inverse) else target[p]
            own = row[row > known[p]]
        found.append(largest_of(own, TAIL))
    return FamilySums(
        n=n,
        members=members,
        mean=mean,
        spread=spread,
        powers=powers,
        zeros=zeros,
        largest=largest,
        moved=moved,
        heaviest=heaviest,
        tail=tuple(found),
    )


def _guess(target: Array, inverse: Array, known: Array) -> Array:
    """(P,) weights that very likely more than `TAIL` others exceed or equal; no lower than those `known` to."""
    if target.shape[1] // SAMPLED <= 4 * ENOUGH:
        return known
    sample = target[:, ::SAMPLED] * (inverse[::SAMPLED] if len(inverse) else 1.0)
    # One step below: where many weights are the same, none of them may be lost.
    return np.maximum(known, np.nextafter(np.partition(sample, -ENOUGH, axis=1)[:, -ENOUGH], 0.0))


def _side_by_side(fold: Callable[[slice], None], policies: int, n: int) -> None:
    workers = min(policies, os.cpu_count() or 1)
    if workers == 1 or policies * n < PARALLEL:
        fold(slice(0, policies))
        return
    cuts = np.linspace(0, policies, workers + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(fold, [slice(int(a), int(b)) for a, b in pairwise(cuts)]))
