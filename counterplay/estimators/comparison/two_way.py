"""Values of agents over seeds and groups of decisions, how they vary together, and which may be the highest.

A value is the sum of rewards over the number of rounds. Its variance is that of a mean over seeds crossed with groups:
the variance between seeds, plus what two seeds have in common in the same groups, where that is not negative; with one
seed between groups only (two-way clusters: Cameron, Gelbach & Miller 2011). Differences are paired: their cells are
subtracted before anything is squared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.estimators.comparison.joint import ROUNDING

Array = NDArray[np.float64]


class Sums(NamedTuple):
    """rewards and rounds `(A, S, G)`: the sum of rewards and the number of rounds of A agents under S seeds in G groups
    of decisions. Every agent has at least one round."""

    rewards: Array
    rounds: Array

    def values(self) -> Array:
        """`(A,)` average rewards."""
        return np.asarray(self.rewards.sum(axis=(1, 2)) / self.rounds.sum(axis=(1, 2)))

    def errors(self) -> Array:
        """`(A, S, G)` what each cell adds to the error of the value, to first order; they sum to 0."""
        size = self.rounds.sum(axis=(1, 2), keepdims=True)
        return np.asarray((self.rewards - self.values()[:, None, None] * self.rounds) / size)


def spread_of(errors: Array) -> tuple[Array, Array]:
    """`(A,)` standard errors and degrees of freedom (Satterthwaite 1946) of sums of cells `(A, S, G)`."""
    seeds, groups = errors.shape[1:]
    per_seed = errors.sum(axis=2)
    # Without what belongs to a seed as a whole, or the luck of seeds would be taken for a difference between groups.
    within = errors - per_seed[:, :, None] / groups
    shared = groups / (groups - 1) * (within.sum(axis=1) ** 2).sum(axis=1)
    if seeds == 1:
        return np.sqrt(shared), np.full(len(shared), groups - 1.0)
    between = seeds / (seeds - 1) * (per_seed**2).sum(axis=1)
    own = groups / (groups - 1) * (within**2).sum(axis=(1, 2))
    # What seeds have in common is in the products of two different ones: S (S - 1) of the S^2 that ``shared`` adds up.
    pairs = seeds / (seeds - 1)
    variance = between + pairs * np.maximum(0.0, shared - own)
    doubt = between**2 / (seeds - 1) + (pairs * shared) ** 2 / (groups - 1)
    freedom = np.divide(variance**2, doubt, out=np.ones_like(doubt), where=doubt > 0)
    return np.sqrt(variance), np.maximum(freedom, 1.0)


def may_be_highest(sums: Sums, level: float) -> NDArray[np.bool_]:
    """`(A,)` whether an agent is not significantly lower than any other.

    The set holds the truly highest with confidence ``level`` (Gupta 1965; Hsu 1984): each agent is compared with all
    its rivals at once, by Bonferroni. Every difference has its own degrees of freedom, and with few seeds few of them:
    the largest of many t that are drawn with the covariance of the values alone would be too small.
    """
    values, errors = sums.values(), sums.errors()
    beyond = (1 - level) / max(1, len(values) - 1)
    return np.array([_smallest_p(values, errors, i) >= beyond for i in range(len(values))])


def _smallest_p(values: Array, errors: Array, i: int) -> float:
    """The smallest probability, among the rivals of one agent, of being as far above it by luck."""
    from scipy.special import stdtr

    gap = values - values[i]
    gap[np.abs(gap) <= ROUNDING * np.maximum(np.abs(values), abs(values[i]))] = 0.0
    error, freedom = spread_of(errors - errors[i])
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(gap == 0, 0.0, gap / error)
    return float(stdtr(freedom, -t).min())


class Choice(NamedTuple):
    """Chosen in one half: which agent, its value there, and its value in the other half."""

    agent: int
    where_chosen: float
    elsewhere: float


def choose_by_halves(sums: Sums) -> tuple[list[Choice], Sums] | None:
    """Choose the highest on half of the seeds and half of the groups, judge it on the other half of both: four ways.

    Also the sums of the judged halves put together, as of one agent `(1, S, G)`: their value is what choosing earns
    where it was not chosen. With one seed the groups alone are halved, two ways. None where a half has no rounds.
    """
    seeds, groups = sums.rewards.shape[1:]
    first_seeds, first_groups = np.arange(seeds) % 2 == 0, np.arange(groups) % 2 == 0
    ways = [(first_seeds, ~first_seeds), (~first_seeds, first_seeds)]
    if seeds == 1:
        ways = [(first_seeds, first_seeds)]
    rewards, rounds = np.zeros((2, 1, seeds, groups))
    choices = []
    for chosen_seeds, other_seeds in ways:
        for chosen_groups, other_groups in ((first_groups, ~first_groups), (~first_groups, first_groups)):
            here, there = np.ix_(chosen_seeds, chosen_groups), np.ix_(other_seeds, other_groups)
            count, other = (sums.rounds[:, *cells].sum(axis=(1, 2)) for cells in (here, there))
            if not count.all() or not other.all():
                return None
            found = sums.rewards[:, *here].sum(axis=(1, 2)) / count
            best = int(np.argmax(found))
            rewards[0][there], rounds[0][there] = sums.rewards[best][there], sums.rounds[best][there]
            elsewhere = float(sums.rewards[best][there].sum() / other[best])
            choices.append(Choice(best, float(found[best]), elsewhere))
    return choices, Sums(rewards, rounds)
