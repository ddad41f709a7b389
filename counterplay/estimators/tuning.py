"""Estimators whose parameter is chosen from a grid, for each policy by itself, on other decisions than it is used on.

The decisions (or clusters) are split into two halves by a hash. What is chosen on one half is used on the other, and
the two are put together; so the choice is no part of the noise that the interval measures, and no policy inherits
another's choice.

| rule | chosen | paper |
|---|---|---|
| `slope` | the strongest shrinkage whose interval meets those of all weaker ones | Su, Srinath & Krishnamurthy 2020 |
| `mse` | least (difference from the unshrunken estimate)^2 + variance | Su, Dimakopoulou, Krishnamurthy & Dudík 2020 |

The estimate keeps the bias of what was chosen, which no interval sees. So its standard error is never taken to be less
than that of the weakest shrinkage: measured on real tables, 95 % intervals then cover about as often as without tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.lepski import choose_by_error
from counterplay.estimators.models.folds import assign_folds
from counterplay.estimators.moments import Linear
from counterplay.estimators.terms import Estimator, Terms
from counterplay.estimators.weighted import Weighted

Rule = Literal["slope", "mse"]

RULES: tuple[Rule, ...] = ("slope", "mse")

LIMITS = (float("inf"), *(float(f"{x:.3g}") for x in np.geomspace(5000, 1, 19)))
"""Limits and sizes, from none to the value that leaves weights of 1."""

SAME = 1e-9
"""Estimates and errors that differ by less than this part of both are equal."""

SHARES = (0.0, *(float(f"{x:.3g}") for x in np.geomspace(2e-4, 1, 19)))
"""Shares of sub-Gaussian shrinkage, from none to all."""


WIDTHS = 0.125
"""Half widths of SLOPE's intervals in standard errors. Theirs are some four standard errors, for estimates that err
independently; shrunken estimates of one log err nearly alike, so far smaller differences tell bias from luck. Measured
against the truth of two real tables of outcomes, eight ways of logging them: root mean square error of clipped IPS over
that of IPS 1.02 with 0.125, 1.05 with 0.25, 1.17 with 0.5, 1.74 with 1, 2.9 with 2; of clipped DR over DR .99, 1.03,
1.14, 1.41, 1.80. So tuning gains little there, and loses little.
"""


@dataclass(frozen=True, kw_only=True)
class Tuned(Estimator):
    """An estimator that stands for one of a grid, from the weakest shrinkage to the strongest."""

    grid: tuple[Estimator, ...] = ()
    rule: Rule = "slope"

    def choose(self, found: Sequence[Linear]) -> Codes:
        """(P,) places in the grid, from each member's values and standard errors."""
        value = np.stack([linear.value for linear in found])
        error = np.stack([linear.std_error for linear in found])
        place = choose_by_error(value, error, WIDTHS) if self.rule == "slope" else _by_error(value, error)
        return _weakest(value, error, np.maximum(place, 0))

    def using(self, chosen: Sequence[Estimator]) -> Estimator:
        """The same estimator, its terms as wide as those of the ones chosen."""
        return replace(self, width=_Widest(chosen=tuple(chosen)))

    def settle(self, chosen: tuple[Codes, Codes]) -> Estimator:
        """The same estimator with its choices made: (P,) places in the grid for decisions of half 0 and of half 1.

        For evidence of the same policies in the same order.
        """
        own = {field.name: getattr(self, field.name) for field in fields(Estimator)}
        return Estimator(**(own | {"terms": _Settled(grid=self.grid, chosen=chosen)}))


@dataclass(frozen=True, kw_only=True)
class _Widest:
    chosen: tuple[Estimator, ...]

    def __call__(self, reward: tuple[float, float], weight: float) -> float:
        return max(own.width(reward, weight) for own in self.chosen if own.width is not None)


def tuned_estimator(name: str, grid: tuple[Estimator, ...], rule: Rule) -> Tuned:
    """A `Tuned` estimator with what its grid has in common."""
    first = grid[0]
    return Tuned(
        name=name,
        terms=_unsettled,
        needs=first.needs,
        paper=first.paper,
        weight_mean="shrunk",
        normalised=first.normalised,
        grid=grid,
        rule=rule,
    )


def halves_of(evidence: Evidence) -> Codes:
    """(n,) 0 or 1: the half of each decision; decisions of a cluster share theirs."""
    units = evidence.position if evidence.cluster is None else evidence.cluster
    return assign_folds(len(evidence), 2, units, seed=1)


def _unsettled(_evidence: Evidence) -> Terms:
    raise AssertionError("a tuned estimator has terms once its parameters are chosen")


@dataclass(frozen=True, kw_only=True)
class _Settled:
    grid: tuple[Estimator, ...]
    chosen: tuple[Codes, Codes]

    def __call__(self, evidence: Evidence) -> Terms:
        half = halves_of(evidence).astype(bool)
        rows = [self._policy(evidence, p, half) for p in range(len(evidence.policies))]
        return Terms(*(_stack([row[i] for row in rows]) for i in range(4)))

    def _policy(self, evidence: Evidence, p: int, half: Any) -> Terms:
        own = evidence.part(slice(None), slice(p, p + 1))
        first, second = (self.grid[chosen[p]].terms(own) for chosen in self.chosen)
        return Terms(*(_either(a, b, half) for a, b in zip(first, second, strict=True)))


def _either(first: Any, second: Any, half: Any) -> Any:
    if not isinstance(first, np.ndarray):
        return first
    return np.where(half, second, first)


def _stack(rows: list[Any]) -> Any:
    return np.concatenate([np.atleast_2d(row) for row in rows]) if isinstance(rows[0], np.ndarray) else rows[0]


def _by_error(value: Array, error: Array) -> Codes:
    square = (value - value[0]) ** 2 + error**2
    return np.asarray(np.argmin(np.where(np.isnan(square), np.inf, square), axis=0), dtype=np.int64)


def _weakest(value: Array, error: Array, place: Codes) -> Codes:
    """The weakest shrinkage with the estimate of the one at each place (P,): else rounding would choose among equals.

    Where weights are 0 or one other number, as of a policy that does not draw on a uniform log, clipping changes no
    normalised estimate.
    """
    own = value[place, np.arange(len(place))], error[place, np.arange(len(place))]
    near = SAME * (np.abs(own[0]) + own[1])
    same = (np.abs(value - own[0]) <= near) & (np.abs(error - own[1]) <= near)
    return np.where(same.any(axis=0), same.argmax(axis=0), place)


def parameter_of(estimator: Estimator) -> float:
    """The number in an estimator's name."""
    assert isinstance(estimator.terms, Weighted)
    return estimator.terms.shrinkage.parameter
