"""The importance family as data: which model, which shrinkage, which denominator.

    value = mean(q_target) + sum(g(w) (r - q_logged)) / (n or sum(g(w))),    w = target / propensity

As data, so that one compiled pass folds any number of members and policies (`kernel.py`); the same members give their
terms to whoever needs them decision by decision (`Weighted.__call__`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.terms import Terms

Kind = Literal["none", "clip", "subgaussian", "switch", "optimistic"]

KINDS: tuple[Kind, ...] = ("none", "clip", "subgaussian", "switch", "optimistic")

RISING = ("clip", "subgaussian")
"""Kinds whose g(w) rises with w and differs from it, so that the largest follows from the largest weight."""

TINY = 1e-300

Baseline = Literal["none", "model", "reward"]

BASELINES: tuple[Baseline, ...] = ("none", "model", "reward")


@dataclass(frozen=True, kw_only=True)
class Shrinkage:
    """g(w): what stands in place of the weight w, `parameter` being c or l below.

    | kind | g(w) | largest |
    |---|---|---|
    | `none` | w | |
    | `clip` | min(w, c) | c |
    | `subgaussian` | w / (1 - l + l w) | 1 / l |
    | `switch` | w where w <= c, else 0 | c |
    | `optimistic` | l w / (w^2 + l) | sqrt(l) / 2 |
    """

    kind: Kind = "none"
    parameter: float = 0.0

    def apply(self, weight: Array) -> Array:
        """g(w), of the same shape."""
        if self.kind == "clip":
            return np.minimum(weight, self.parameter)
        if self.kind == "subgaussian":
            # A share of 1 makes every weight 1, but for those that are 0.
            return np.where(weight > 0, weight / np.maximum(1 - self.parameter + self.parameter * weight, TINY), 0.0)
        if self.kind == "switch":
            return np.where(weight <= self.parameter, weight, 0.0)
        if self.kind == "optimistic":
            # l w / (w^2 + l), written so that neither 1e12 weights nor l = inf overflow.
            return weight / (weight * (weight / self.parameter) + 1.0)
        return weight

    @property
    def limit(self) -> float:
        """Weights up to this are not changed."""
        if self.kind in ("clip", "switch"):
            return self.parameter
        none = {"none": self.parameter, "subgaussian": 0.0, "optimistic": np.inf}[self.kind]
        return np.inf if self.parameter == none else 0.0

    def largest(self, weight: float) -> float:
        """The largest g(w) for w in [0, `weight`]; inf where nothing bounds it."""
        if self.kind in ("clip", "switch"):
            return min(weight, self.parameter)
        if self.kind == "subgaussian":
            limit = np.inf if self.parameter == 0 else 1 / self.parameter
            return float(limit if np.isinf(weight) else self.apply(np.array([weight]))[0])
        if self.kind == "optimistic":
            peak = float(np.sqrt(self.parameter))
            return peak / 2 if weight >= peak else float(self.apply(np.array([weight]))[0])
        return weight


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """One member of the family: a function from evidence to `Terms`.

    - `baseline`: "model": residuals r - q_logged are weighted and q_target is added; "none": rewards are weighted;
      "reward": rewards are weighted and stand beside as they are (for control variates).
    - `normalised`: divided by the sum of g(w) instead of n.
    """

    shrinkage: Shrinkage = Shrinkage()
    baseline: Baseline = "none"
    normalised: bool = False

    def __call__(self, evidence: Evidence) -> Terms:
        """The terms of each decision; `weight` is the very array of the evidence where nothing is shrunk."""
        weight = self.shrinkage.apply(evidence.weight)
        if self.baseline == "none":
            return Terms(weight * evidence.reward, weight if self.normalised else 1.0, 0.0, weight)
        if self.baseline == "reward":
            return Terms(weight * evidence.reward, weight if self.normalised else 1.0, evidence.reward, weight)
        assert evidence.q_logged is not None
        assert evidence.q_target is not None
        correction = weight * (evidence.reward - evidence.q_logged)
        return Terms(correction, weight if self.normalised else 1.0, evidence.q_target, weight)

    def width(self, reward: tuple[float, float], weight: float) -> float:
        """How far apart two decisions' numerator - v denominator (+ baseline) can be, for any value v in the range.

        `reward`: (least, greatest) reward, and prediction; `weight`: the largest weight possible.
        """
        largest, (low, high) = self.shrinkage.largest(weight), reward
        if self.baseline == "model":
            return (high - low) * (1 + 2 * largest)
        if self.normalised:
            # w (r - v) is 0 for some reward in the range.
            return (high - low) * largest
        return (max(high, 0.0) - min(low, 0.0)) * largest
