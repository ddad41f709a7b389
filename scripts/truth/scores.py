"""From estimates of many logs to what they are worth beside the exact values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from truth.draws import GATES
from truth.worlds import Array

Flags = npt.NDArray[np.bool_]

FAR = 2.0
"""A far miss is an error of more than so many half widths: with a right interval, once in ten thousand logs."""

JUDGED = 20
"""Estimates with the gate `ok` that one policy must have before their coverage is looked at."""


class Setting(NamedTuple):
    """One way to draw logs."""

    world: str
    logger: str
    n: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Estimates of L logs: `value`, `low`, `high`, `gate` (L, E, P); of each policy the `truth` (P,) and the share that
    is `supported` (P,) by the logging policy.

    NaN where an estimate has no value or no interval; a gate of NaN where it was not asked for.
    """

    estimators: tuple[str, ...]
    policies: tuple[str, ...]
    truth: Array
    supported: Array
    value: Array
    low: Array
    high: Array
    gate: Array

    @classmethod
    def of(cls, numbers: Array, **fields: Any) -> Found:
        """From (L, E, P, 4) numbers as `draws.numbers` gives them."""
        value, low, high, gate = np.moveaxis(numbers, 3, 0)
        return cls(value=value, low=low, high=high, gate=gate, **fields)

    @property
    def error(self) -> Array:
        """(L, E, P) value - truth."""
        return self.value - self.truth

    @property
    def half(self) -> Array:
        """(L, E, P) half widths."""
        return (self.high - self.low) / 2

    @property
    def covers(self) -> Array:
        """(L, E, P) 1 where the interval holds the truth, 0 where not, NaN where there is none."""
        inside = (self.low <= self.truth) & (self.truth <= self.high)
        return np.where(np.isnan(self.low), np.nan, inside)

    @property
    def far(self) -> Flags:
        """(L, E, P) whether the truth lies more than `FAR` half widths away."""
        return np.asarray(np.abs(self.error) > FAR * self.half)

    def has_gate(self, name: str) -> Flags:
        """(L, E, P) whether the gate is the one of that name."""
        return np.asarray(self.gate == GATES.index(name))

    def part(self, estimators: Iterable[str]) -> Found:
        """Of some estimators."""
        names = tuple(estimators)
        places = [self.estimators.index(name) for name in names]
        arrays = {name: getattr(self, name)[:, places] for name in ("value", "low", "high", "gate")}
        return replace(self, estimators=names, **arrays)


class Score(NamedTuple):
    """What one estimator is worth under one setting, over logs and policies; NaN where nothing tells.

    `bias`: mean over policies of |mean error|; `rmse`: root of the mean squared error; `coverage`, `coverage_ok`: of
    the intervals, and of those whose estimate has the gate `ok`; `half`: mean half width; `ok`, `caution` and
    `unreliable`: shares of the estimates; `no_value`: the share without a value; `rank`: mean Spearman correlation
    with the truth.
    """

    estimator: str
    bias: float
    rmse: float
    coverage: float
    half: float
    ok: float
    caution: float
    unreliable: float
    no_value: float
    coverage_ok: float
    rank: float


def score(found: Found) -> list[Score]:
    """One score for each estimator."""
    rows = []
    for e, name in enumerate(found.estimators):
        one = found.part((name,))
        asked = ~np.isnan(one.gate[:, 0, 0])
        error, covers = one.error[asked, 0], one.covers[asked, 0]
        gates = {gate: float(np.mean(one.has_gate(gate)[asked])) for gate in GATES}
        ranks = np.array([_spearman(own, found.truth) for own in found.value[asked, e]])
        rows.append(
            Score(
                estimator=name,
                bias=_mean(np.abs([_mean(own) for own in error.T])),
                rmse=float(np.sqrt(_mean(error**2))),
                coverage=_mean(covers),
                half=_mean(one.half[asked]),
                no_value=float(np.isnan(error).mean()),
                coverage_ok=_mean(covers[one.has_gate("ok")[asked, 0]]),
                rank=_mean(ranks),
                **gates,
            )
        )
    return rows


class Trust(NamedTuple):
    """How the gates did for a set of estimators: of each gate, the share of estimates, the coverage, the far misses."""

    gate: str
    share: float
    coverage: float
    far: float


def trust(found: Found) -> list[Trust]:
    """One row a gate; far misses as shares of the estimates with that gate."""
    rows = []
    for gate in GATES:
        own = found.has_gate(gate) & ~np.isnan(found.low)
        covers, far = found.covers[own], found.far[own].astype(np.float64)
        rows.append(Trust(gate, float(own.mean()), _mean(covers), _mean(far)))
    return rows


class Failure(NamedTuple):
    """A policy whose `ok` estimates by one estimator missed the truth too often."""

    estimator: str
    policy: str
    estimates: int
    coverage: float
    bias: float
    half: float


def failures(found: Found) -> Iterator[Failure]:
    """For each estimator the policy whose `ok` estimates covered the truth least often."""
    ok = found.has_gate("ok") & ~np.isnan(found.low)
    for e, name in enumerate(found.estimators):
        own = [
            Failure(
                name,
                policy,
                int(ok[:, e, p].sum()),
                _mean(found.covers[ok[:, e, p], e, p]),
                _mean(found.error[ok[:, e, p], e, p]),
                _mean(found.half[ok[:, e, p], e, p]),
            )
            for p, policy in enumerate(found.policies)
            if ok[:, e, p].sum() >= JUDGED
        ]
        if own:
            yield min(own, key=lambda failure: failure.coverage)


class Width(NamedTuple):
    """One kind of interval of one estimator: how often the truth was below, inside, above; its mean half width."""

    interval: str
    given: float
    below: float
    coverage: float
    above: float
    half: float


def widths(found: Found) -> list[Width]:
    """One row for each "interval, estimator"; `given` is the share of estimates that had such an interval."""
    rows = []
    for e, name in enumerate(found.estimators):
        given = ~np.isnan(found.low[:, e])
        below = (found.truth < found.low[:, e])[given].astype(np.float64)
        above = (found.truth > found.high[:, e])[given].astype(np.float64)
        inside, half = found.covers[:, e][given], found.half[:, e][given]
        rows.append(Width(name, float(given.mean()), _mean(below), _mean(inside), _mean(above), _mean(half)))
    return rows


def _mean(values: Array) -> float:
    """Of what is not NaN; NaN where that is nothing."""
    known = np.asarray(values)[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _spearman(values: Array, truth: Array) -> float:
    from scipy.stats import rankdata

    known = ~np.isnan(values)
    ranks = [rankdata(own[known]) for own in (values, truth)]
    if known.sum() < 3 or any(np.ptp(own) == 0 for own in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
