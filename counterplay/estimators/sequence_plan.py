"""What a confidence sequence is about, chosen before the first look at the log, and the outcomes that are bet on.

Rewards r are scaled to [0, 1]. A policy's gain w r has the mean v, its value, and its loss w (1 - r) the mean 1 - v.
With a reward model the gain is w (r - q) + (the model's value of the policy), and the loss 1 - gain. An outcome is
never negative, and its mean is a known offset plus v (v - v' for a difference), or plus 1 - v (v' - v) for the upper
bound. Each row is a way to bet; where the largest weight k is known, and there is no model, all its rows are mixed:

| asked | known | for the lower bound | for the upper bound | offset |
|---|---|---|---|---|
| v | | gain | loss | 0 |
| | and weights <= k | k - loss | k - gain | k - 1 |
| | weights <= k, a model | gain + k | loss + k | k |
| v - v' | | gain + loss' | loss + gain' | 1 |
| | and weights <= k | k + gain - gain' | k - gain + gain' | k |
| | and weights <= k | k - loss + loss' | k + loss - loss' | k |
| | weights <= k, a model | k + 1 + gain - gain' | k + 1 - gain + gain' | k + 1 |

The ways without k hold whatever the weights are, and also where their mean is below 1; the others do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError, nearest
from counterplay.estimators.evidence import ROUNDING, Array, Evidence
from counterplay.estimators.table import resolve

LARGEST = 1e100
"""Where no largest weight is given: above it a squared weight leaves the range of float64."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked, and what is known before. Fields: see `ConfidenceSequence.start`.

    Raises `ConfigurationError` with the option that is wrong.
    """

    policies: tuple[str, ...]
    level: float
    reward_range: tuple[float, float]
    baseline: str | None
    estimator: Literal["ips", "dr"]
    largest_weight: float | None

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.policies if self.policies.count(name) > 1})
        if not self.policies or twice:
            what = f"policy '{twice[0]}' is named more than once" if twice else "no policy is named"
            raise ConfigurationError(f"A confidence sequence needs policies with different names; {what}.")
        if not 0 < self.level < 1:
            raise ConfigurationError(f"level is {self.level:g}; it must lie between 0 and 1, for example 0.95.")
        low, high = self.reward_range
        if not (low < high and math.isfinite(high - low)):
            raise ConfigurationError(
                f"reward_range is ({low:g}, {high:g}); the least reward, then a larger one: (0, 1)."
            )
        if self.baseline is not None and (self.baseline not in self.policies or len(self.policies) < 2):
            hint = nearest(self.baseline, self.policies)
            raise ConfigurationError(f"baseline '{self.baseline}' must be one of two policies or more. {hint}")
        if self.estimator not in ("ips", "dr"):
            raise ConfigurationError(f"There is no confidence sequence for '{self.estimator}'. Known: dr, ips.")
        k = self.largest_weight
        if k is not None and not 1 <= k <= LARGEST:
            raise ConfigurationError(f"largest_weight is {k:g}; it must be at least 1, as weights are 1 on average.")
        if k is None and self.estimator == "dr":
            raise ConfigurationError(
                "estimator 'dr' needs largest_weight: the model's errors are bounded only where the weights are. "
                "Use 'ips', or give the largest weight that can occur (1 / the smallest propensity is always enough)."
            )

    @property
    def offset(self) -> Array:
        """(F,) how much higher than what they measure the outcomes of each of the F ways to bet are."""
        k, difference = self.largest_weight, self.baseline is not None
        if self.estimator == "dr":
            assert k is not None
            return np.array([k + 1 if difference else k])
        with_k = [] if k is None else [k, k] if difference else [k - 1]
        return np.array([1.0 if difference else 0.0, *with_k])

    @property
    def rows(self) -> list[int]:
        """(D,) the policies that are asked about: all, or all but the baseline."""
        return [p for p, name in enumerate(self.policies) if name != self.baseline]

    def outcomes(self, evidence: Evidence) -> tuple[Array, Array]:
        """(P, n) gains, and the outcomes (F, 2, D, n) to bet on, for the lower and for the upper bound."""
        gain, loss = self._gain_and_loss(evidence)
        # Where an outcome may be 0, rounding may leave it a little below.
        return gain, np.maximum(np.array(self._ways(gain, loss)), 0.0)

    def _gain_and_loss(self, evidence: Evidence) -> tuple[Array, Array]:
        low, high = self.reward_range
        weight, reward = evidence.weight, (evidence.reward - low) / (high - low)
        if self.estimator == "ips":
            return weight * reward, weight * (1 - reward)
        assert evidence.q_logged is not None
        assert evidence.q_target is not None
        logged, target = (evidence.q_logged - low) / (high - low), (evidence.q_target - low) / (high - low)
        gain = weight * (reward - logged) + target
        return gain, 1 - gain

    def _ways(self, gain: Array, loss: Array) -> list[tuple[Array, Array]]:
        k = self.largest_weight
        if self.baseline is None:
            if k is None:
                return [(gain, loss)]
            return [(gain + k, loss + k)] if self.estimator == "dr" else [(gain, loss), (k - loss, k - gain)]
        base = self.policies.index(self.baseline)
        gain, loss, gain_base, loss_base = gain[self.rows], loss[self.rows], gain[base], loss[base]
        ahead, behind = gain - gain_base, loss - loss_base
        if k is None:
            return [(gain + loss_base, loss + gain_base)]
        if self.estimator == "dr":
            return [(k + 1 + ahead, k + 1 - ahead)]
        return [(gain + loss_base, loss + gain_base), (k + ahead, k - ahead), (k - behind, k + behind)]

    def check(self, evidence: Evidence) -> None:
        """Refuse by name and row what these bets do not hold for."""
        if evidence.policies != self.policies:
            raise EvidenceError(
                f"The evidence is about {list(evidence.policies)} and the sequence about {list(self.policies)}: "
                "policies must be the same, in the same order."
            )
        resolve(self.estimator).require(evidence)
        _check_clusters(evidence)
        low, high = self.reward_range
        slack = ROUNDING * (high - low)
        why = f"in the reward_range [{low:g}, {high:g}] chosen at the start; where that was too narrow, begin again"
        for name in ("reward", "q_logged", "q_target")[: 1 if self.estimator == "ips" else 3]:
            _within(name, getattr(evidence, name), low - slack, high + slack, why, 0)

    def check_weight(self, weight: Array, row: int) -> None:
        """Refuse weights (P, rows), the first of which is that of `row`, above what was said to occur."""
        largest = self.largest_weight or LARGEST
        why = f"at most {largest:g}" + (", the largest weight that was said to occur" if self.largest_weight else "")
        _within("the weight", weight, 0.0, largest * (1 + ROUNDING), why, row)


def ends_of(evidence: Evidence) -> tuple[int, int]:
    """The place of the first decision, and the one after that of the last."""
    if evidence.places is None:
        return evidence.start, evidence.start + len(evidence)
    back = np.flatnonzero(np.diff(evidence.places) <= 0)
    if len(back):
        row = int(back[0]) + 1
        raise EvidenceError(
            f"Row {row} has place {evidence.places[row]} in its log, and the row before it {evidence.places[row - 1]}: "
            "decisions are added in order of time."
        )
    return int(evidence.places[0]), int(evidence.places[-1]) + 1


def _check_clusters(evidence: Evidence) -> None:
    codes = evidence.cluster
    if codes is None or bool(np.all(codes[1:] > codes[:-1])):
        return
    order = np.argsort(codes, kind="stable")
    again = np.flatnonzero(codes[order][1:] == codes[order][:-1])
    if len(again):
        first, second = int(order[again[0]]), int(order[again[0] + 1])
        raise EvidenceError(
            f"Rows {first} and {second} share cluster {codes[first]}. What a decision earns then depends on those "
            "before it in its cluster, and its expectation is not the policy's value. Give one row a cluster "
            "(Evidence.of_weights); or, where the mean of these expectations is what is asked, leave the clusters out "
            "with evidence.part(slice(None), clustered=False)."
        )


def _within(name: str, value: Array, low: float, high: float, why: str, first: int) -> None:
    if value.min() >= low and value.max() <= high:
        return
    bad = np.argwhere((value < low) | (value > high))
    row, more = first + int(bad[0][-1]), f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
    raise EvidenceError(f"{name} at row {row} is {value[tuple(bad[0])]:.12g}{more} of {value.size}; it must be {why}.")
