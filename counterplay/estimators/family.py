"""One pass for the importance family: from evidence to the moments of many members and the sums of their weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.moments import PARTS, Moments
from counterplay.estimators.weighted import BASELINES, KINDS, RISING, Weighted
from counterplay.estimators.weights import LARGEST, TAIL, WeightSums, largest_of

if TYPE_CHECKING:
    from counterplay.estimators.kernel import Found, Logged, Members

IMPORTANCE = "importance"
"""The name of the weights that are not shrunk, which many estimators share."""

PARALLEL = 2_000_000
"""Terms (policies x members x decisions) below which threads cost more than they save."""

SQUARE = [[3, 4, 5], [4, 6, 7], [5, 7, 8]]
"""Where the centred products stand in what the kernel folds."""

FINITE = float(np.finfo(np.float64).max)

SAMPLED = 64
ENOUGH = 96
"""Every 64th weight, and the 96th largest of these: 6,144 weights are expected above it, of which 4,096 are wanted."""


def weights_name(member: Weighted) -> str:
    """The name under which the sums of a member's weights stand, which members with one shrinkage and baseline share.

    The last bits of shrunken weights may differ with what stands beside them; those of plain weights do not.
    """
    shrinkage = member.shrinkage
    if shrinkage.kind == "none":
        return IMPORTANCE
    return f"{shrinkage.kind}({shrinkage.parameter!r})" + ("" if member.baseline == "none" else f", {member.baseline}")


def fold_family(evidence: Evidence, members: Collection[Weighted], floors: Array | None = None) -> FamilySums:
    """The sums of some members over the evidence; decisions are the units.

    `floors` (P,): weights below cannot reach the tail of the shard this one will be merged into.
    """
    tails = any(member.shrinkage.kind == "none" for member in members)
    return _fold(evidence, distinct_members(members), floors, tails)


def distinct_members(members: Iterable[Weighted]) -> list[Weighted]:
    """Members without their denominators: those that differ in nothing else are folded once.

    The first is plain IPS: the weights before anything is shrunk must average 1, whoever is asked for.
    """
    return list(dict.fromkeys((Weighted(), *(_undivided(member) for member in members))))


def _undivided(member: Weighted) -> Weighted:
    return Weighted(shrinkage=member.shrinkage, baseline=member.baseline) if member.normalised else member


@dataclass(frozen=True, kw_only=True)
class FamilySums:
    """What one pass over n decisions leaves of P policies and M `members`.

    `mean` (P, M, 3) of g x, g and baseline, `spread` (P, M, 3, 3) their centred products, `powers` (P, M, 2) sums of
    (g x)^3 and (g x)^4; `zeros`, `largest` (P, M) of g; `moved` (P, M) sums of |w - g|; `heaviest` (P,) weight; `tail`:
    the largest weights of each policy, ascending, or () where every member shrinks; `predicted`: the range of a reward
    model's predictions, where a member has one.
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
    predicted: tuple[float, float] | None = None

    def parts(self, members: Mapping[str, Weighted]) -> tuple[dict[str, Moments], dict[str, WeightSums]]:
        """Moments of each member by its name, and the sums of their weights by `weights_name`."""
        places = {member: m for m, member in enumerate(self.members)}
        place = {name: places[_undivided(member)] for name, member in members.items()}
        moments = self._moments([(place[name], member.normalised) for name, member in members.items()])
        wanted = {weights_name(member): place[name] for name, member in members.items()}
        own = self._of_weights([0, *wanted.values()])
        weights = {
            name: self._weights(m, moments, own[0]) for (name, m), moments in zip(wanted.items(), own[1:], strict=True)
        }
        return dict(zip(members, moments, strict=True)), weights

    def _moments(self, wanted: Sequence[tuple[int, bool]]) -> list[Moments]:
        """Of some members, each with whether it is normalised: in arrays of all, at about the price of one."""
        places = [m for m, _ in wanted]
        mean, spread = self._empty(len(wanted))
        mean[:, :, :3] = self.mean[:, places].swapaxes(0, 1)
        spread[:, :, :3, :3] = self.spread[:, places].swapaxes(0, 1)
        divided = [not normalised for _, normalised in wanted]
        mean[divided, :, 1] = 1.0
        spread[divided, :, 1] = spread[divided, :, :, 1] = 0.0
        return self._each(mean, spread, self.powers[:, places].swapaxes(0, 1))

    def _of_weights(self, places: Sequence[int]) -> list[Moments]:
        """Moments with g of some members as the numerator."""
        mean, spread = self._empty(len(places))
        mean[:, :, 0] = self.mean[:, places, 1].T
        mean[:, :, 1] = 1.0
        spread[:, :, 0, 0] = self.spread[:, places, 1, 1].T
        return self._each(mean, spread, np.zeros((len(places), len(self.mean), 2)))

    def _empty(self, count: int) -> tuple[Array, Array]:
        mean = np.zeros((count, len(self.mean), PARTS))
        mean[:, :, 3] = 1.0
        return mean, np.zeros((*mean.shape, PARTS))

    def _each(self, mean: Array, spread: Array, powers: Array) -> list[Moments]:
        return [
            Moments(count=self.n, mean=own, spread=products, powers=sums)
            for own, products, sums in zip(mean, spread, powers, strict=True)
        ]

    def _weights(self, m: int, own: Moments, before: Moments) -> WeightSums:
        plain = self.members[m].shrinkage.kind == "none"
        average, square = self.mean[:, m, 1], self.spread[:, m, 1, 1]
        return WeightSums(
            n=self.n,
            total=average * self.n,
            squares=square + self.n * average**2,
            zeros=self.zeros[:, m],
            tail=self.tail if plain else tuple(row[row > 0] for row in self.largest[:, m : m + 1]),
            mean=own,
            before=None if plain else before,
            heaviest=self.heaviest,
            moved=self.moved[:, m],
            keep=TAIL if plain else LARGEST,
        )


def _fold(evidence: Evidence, members: Sequence[Weighted], floors: Array | None, tails: bool) -> FamilySums:
    from counterplay.estimators.kernel import FIELDS, SEGMENT, Found, Share, fold_share, merge_segments

    logged, folded = _logged(evidence, members), _members(members)
    (policies, n), count = logged.target.shape, len(members)
    known = np.zeros(policies) if floors is None else floors
    guess = _guess(logged.target, logged.propensity, known) if tails else known
    segments = -(-n // SEGMENT)
    shares = _shares(segments, policies, policies * count * n)
    threads = shares[-1][0] + 1
    found = Found(
        folded=np.zeros((segments, policies, count, FIELDS)),
        heaviest=np.zeros((segments, policies)),
        predicted=np.tile([np.inf, -np.inf], (segments, policies, 1)),
        tail=np.empty((threads, policies, 2 * TAIL)) if tails else np.empty((threads, 0, 0)),
        kept=np.zeros((threads, policies), np.int64),
        floors=np.tile(guess, (threads, 1)),
    )

    def fold(thread: int, rows: slice, own: slice) -> None:
        fold_share(logged, folded, found, Share(thread, rows.start, rows.stop, own.start, own.stop))

    with np.errstate(over="ignore", invalid="ignore"):
        _side_by_side(fold, shares)
    merge_segments(n, found)
    return _sums_of(logged, members, found, guess, known)


def _sums_of(logged: Logged, members: Sequence[Weighted], found: Found, guess: Array, known: Array) -> FamilySums:
    whole, heaviest, predicted = found.folded[0], found.heaviest[0], found.predicted[0]
    largest = whole[:, :, 13].copy()
    for m, member in enumerate(members):
        if member.shrinkage.kind in RISING:
            largest[:, m] = member.shrinkage.apply(heaviest)
    return FamilySums(
        n=len(logged.reward),
        members=members,
        mean=whole[:, :, :3],
        spread=whole[:, :, SQUARE],
        powers=whole[:, :, 9:11],
        zeros=whole[:, :, 12],
        largest=largest,
        moved=whole[:, :, 11],
        heaviest=heaviest,
        predicted=(float(predicted[:, 0].min()), float(predicted[:, 1].max())) if len(logged.q_logged) else None,
        tail=tuple(_tail(logged, found, p, guess[p], known[p]) for p in range(found.tail.shape[1])),
    )


def _logged(evidence: Evidence, members: Sequence[Weighted]) -> Logged:
    from counterplay.estimators.kernel import Logged

    policies, given = len(evidence.policies), evidence.weights
    model = any(member.baseline == "model" for member in members)
    return Logged(
        target=evidence.target if given is None else given,
        propensity=np.empty(0) if given is not None or evidence.propensity is None else evidence.propensity,
        reward=evidence.reward,
        q_logged=np.atleast_2d(evidence.q_logged) if model and evidence.q_logged is not None else np.empty((0, 0)),
        q_target=evidence.q_target if model and evidence.q_target is not None else np.empty((policies, 0)),
    )


def _members(members: Sequence[Weighted]) -> Members:
    from counterplay.estimators.kernel import Members

    shrinkages = [member.shrinkage for member in members]
    return Members(
        kinds=np.array([KINDS.index(own.kind) for own in shrinkages]),
        # Of optimistic shrinkage the inverse, finite: weights of 0 stay 0.
        parameters=np.array([
            own.limit if own.kind == "none"
            else min(1 / own.parameter, FINITE) if own.kind == "optimistic" else own.parameter
            for own in shrinkages
        ]),
        limits=np.array([own.limit for own in shrinkages]),
        baselines=np.array([BASELINES.index(member.baseline) for member in members]),
    )  # fmt: skip


def _tail(logged: Logged, found: Found, p: int, guess: float, known: float) -> Array:
    own = np.concatenate([tail[p, : kept[p]] for tail, kept in zip(found.tail, found.kept, strict=True)])
    if len(own) < TAIL and guess > known:
        row = logged.target[p] * (1.0 / logged.propensity) if len(logged.propensity) else logged.target[p]
        own = row[row > known]
    return largest_of(own, TAIL)


def _guess(target: Array, propensity: Array, known: Array) -> Array:
    """(P,) weights that very likely more than `TAIL` others exceed or equal; no lower than those `known` to."""
    if target.shape[1] // SAMPLED <= 4 * ENOUGH:
        return known
    sample = target[:, ::SAMPLED] * (1.0 / propensity[::SAMPLED] if len(propensity) else 1.0)
    # One step below: where many weights are the same, none of them may be lost.
    return np.maximum(known, np.nextafter(np.partition(sample, -ENOUGH, axis=1)[:, -ENOUGH], 0.0))


def _shares(segments: int, policies: int, terms: int) -> list[tuple[int, slice, slice]]:
    """The tails that a thread writes, its segments and its policies; policies are cut where rows are too few to cut.

    Threads that share out rows read once what all policies have in common.
    """
    workers = (os.cpu_count() or 1) if terms >= PARALLEL else 1
    rows = _cuts(segments, min(segments, workers))
    own = _cuts(policies, max(1, min(policies, workers // len(rows))))
    return [(thread, some, few) for thread, some in enumerate(rows) for few in own]


def _side_by_side(fold: Callable[[int, slice, slice], None], shares: Sequence[tuple[int, slice, slice]]) -> None:
    if len(shares) == 1:
        fold(*shares[0])
        return
    with ThreadPoolExecutor(len(shares)) as pool:
        list(pool.map(lambda share: fold(*share), shares))


def _cuts(count: int, parts: int) -> list[slice]:
    cuts = np.linspace(0, count, parts + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(cuts)]
