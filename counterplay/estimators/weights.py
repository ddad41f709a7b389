"""What remains of the weights: the sums and the largest values that the diagnostics need; small, and mergeable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from counterplay.estimators.evidence import Array, Codes
from counterplay.estimators.moments import Fold, cluster_sums_of, merge_folds, moments_of
from counterplay.estimators.terms import Terms

TAIL = 4096
"""How many of the largest weights are kept: as many as Pareto k wants (3 sqrt n) up to 1.8 million decisions."""

LARGEST = 1
"""How many are kept of shrunken weights: they are bounded, so a tail has nothing to tell."""


@dataclass(frozen=True, kw_only=True)
class WeightSums:
    """Over n decisions, for P policies (or for 1, where all policies share the weights).

    `total`, `squares`, `zeros` (P,): sums of w, w^2 and [w = 0]; `tail`: P arrays with the largest positive weights,
    ascending, at most `keep` of them; `heaviest` (P,): the largest before anything was shrunk; `moved` (P,): the
    sum of what shrinking changed, |before - after|; `mean`: the moments of the weights, clusters as units, and `before`
    those of the weights that were shrunk, None where none were.
    """

    n: int
    total: Array
    squares: Array
    zeros: Array
    tail: tuple[Array, ...]
    mean: Fold
    heaviest: Array
    moved: Array
    before: Fold | None = None
    keep: int = TAIL

    def merge(self, other: WeightSums) -> WeightSums:
        """Both shards together."""
        return WeightSums(
            n=self.n + other.n,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            zeros=self.zeros + other.zeros,
            tail=tuple(largest_of(np.concatenate(pair), self.keep) for pair in zip(self.tail, other.tail, strict=True)),
            mean=merge_folds(self.mean, other.mean),
            heaviest=np.maximum(self.heaviest, other.heaviest),
            moved=self.moved + other.moved,
            before=None if self.before is None or other.before is None else merge_folds(self.before, other.before),
            keep=self.keep,
        )

    def policy(self, p: int) -> WeightSums:
        """Of one policy alone."""
        p = min(p, len(self.total) - 1)
        own = slice(p, p + 1)
        return replace(
            self,
            total=self.total[own],
            squares=self.squares[own],
            zeros=self.zeros[own],
            tail=self.tail[own],
            mean=self.mean.policy(p),
            heaviest=self.heaviest[own],
            moved=self.moved[own],
            before=None if self.before is None else self.before.policy(p),
        )

    def floors(self) -> Array:
        """(P,) a weight that is not above this cannot change the tail."""
        return np.array([tail[0] if len(tail) == self.keep else 0.0 for tail in self.tail])


def weight_sums_of(
    weight: Array,
    clusters: tuple[Codes, Codes] | None,
    floors: Array | None = None,
    keep: int = TAIL,
    before: Array | None = None,
) -> WeightSums:
    """The sums of (P, n) weights; `before` (P, n) they were shrunk, where they were.

    `floors` (P,) spares the sorting of weights that another shard's tail excludes.
    """
    policies, n = weight.shape
    low = np.zeros(policies) if floors is None else floors
    with np.errstate(over="ignore"):
        squares = np.add.reduce(weight * weight, axis=1)

    def fold(rows: Array) -> Fold:
        terms = Terms(rows)
        return moments_of(terms, policies) if clusters is None else cluster_sums_of(terms, policies, *clusters)

    return WeightSums(
        n=n,
        total=np.add.reduce(weight, axis=1),
        squares=squares,
        zeros=n - np.count_nonzero(weight, axis=1).astype(np.float64),
        tail=tuple(largest_of(row[row > least], keep) for row, least in zip(weight, low, strict=True)),
        mean=fold(weight),
        heaviest=(weight if before is None else before).max(axis=1),
        moved=np.zeros(policies) if before is None else np.add.reduce(np.abs(before - weight), axis=1),
        before=None if before is None else fold(before),
        keep=keep,
    )


def largest_of(weights: Array, keep: int) -> Array:
    """The `keep` largest of some weights, ascending."""
    if len(weights) > keep:
        weights = np.partition(weights, len(weights) - keep)[-keep:]
    return np.sort(weights)
