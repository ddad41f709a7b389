"""What an interval is made of, the same for all kinds."""

from __future__ import annotations

from dataclasses import dataclass

from counterplay.estimators.evidence import Array
from counterplay.estimators.intervals.bootstrap import Replicates
from counterplay.estimators.intervals.bounds import Bounds
from counterplay.estimators.moments import Fold, Linear, Moments
from counterplay.estimators.terms import Estimator

Ends = tuple[Array, Array]
"""(P,) low and (P,) high; NaN where a policy has none."""


@dataclass(frozen=True, kw_only=True)
class Basis:
    """One estimator's part of a statistic, P policies.

    - `fold` with its `moments` and their `linear`isation; `largest_weight` (P,) seen, NaN without weights;
    - `binary`: every reward is 0 or 1;
    - `bounds`, `replicates`: what was given, or None.
    """

    estimator: Estimator
    fold: Fold
    moments: Moments
    linear: Linear
    largest_weight: Array
    binary: bool
    level: float
    bounds: Bounds | None
    replicates: Replicates | None

    def unit_width(self) -> float | str:
        """How far apart the terms of two units can be for one value of the policy; a reason where nobody knows."""
        if self.bounds is None:
            return "it needs bounds: the range of rewards, and the largest weight possible"
        if self.estimator.width is None:
            return f"'{self.estimator.name}' does not say how large its terms can become"
        width = self.estimator.width(self.bounds.reward, self.bounds.weight) * self.moments.largest_unit
        if width == float("inf"):
            return "it needs the largest weight possible, or an estimator that shrinks weights"
        return width
