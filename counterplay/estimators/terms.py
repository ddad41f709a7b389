"""An estimator is a function from evidence to per-decision terms; everything else follows from the terms.

    value = mean(baseline) + sum(numerator) / sum(denominator)

The value, its interval (by linearisation, `statistic.py`), merging, diagnostics, comparison and the laws are the same
for every estimator, so a new one is its terms and a name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from counterplay.errors import MissingEvidenceError
from counterplay.estimators.evidence import Array, Evidence

WeightMean = Literal["one", "shrunk", "free"]

Form = Literal["ratio", "control"]

MISSING = {
    "propensity": (
        "propensities; this log has none. Log them, evaluate with 'dm' (a reward model) or 'replay' (matching), "
        "or clone propensities from the log and label the result an assumption"
    ),
    "q_logged": (
        "a reward model's prediction for the logged action (q_logged); this evidence has none. "
        "Fit one with CrossFittedRidge, or use 'ips' or 'snips'"
    ),
    "q_target": (
        "a reward model's value of each policy (q_target); this evidence has none. "
        "Fit one with CrossFittedRidge, or use 'ips' or 'snips'"
    ),
}


class Terms(NamedTuple):
    """What each decision adds. Arrays are (P, n), or (n,) where all policies share them; floats stand for constants.

    `weight` (P, n) is what the diagnostics look at: the weight the estimator multiplies rewards or residuals with,
    or None where the estimator uses none.
    """

    numerator: Array | float
    denominator: Array | float = 1.0
    baseline: Array | float = 0.0
    weight: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A named way from evidence to an estimate.

    - `name`, `aliases`: how it is asked for. `paper`: where it comes from, and when it does not hold.
    - `terms`: evidence with P policies and n decisions to `Terms`. Must treat decisions one by one: the terms of a
      decision depend on that decision only, or shards would not merge.
    - `needs`: fields of `Evidence` that must be there.
    - `weight_mean`: what the mean weight should be. "one": 1 where propensities are right and support is full, and
      a deviation is alarming; "shrunk": at most 1, on purpose, what is missing is bias; "free": says nothing.
    - `normalised`: a constant reward c gives exactly c, with an interval of width zero.
    - `form`: "ratio" is the formula above; "control" corrects the numerator by the chance deviation of the denominator
      from 1 (`moments.control_variate`).
    - `width`: from the (least, greatest) reward and the largest weight possible to how far apart numerator +
      baseline - v denominator of two decisions can be, v being any value in the range; None where nobody knows.
    - `caution`: a reason why this estimator never earns the gate `ok`.
    """

    name: str
    terms: Callable[[Evidence], Terms]
    needs: tuple[str, ...] = ("propensity",)
    aliases: tuple[str, ...] = ()
    paper: str = ""
    weight_mean: WeightMean = "one"
    normalised: bool = False
    form: Form = "ratio"
    width: Callable[[tuple[float, float], float], float] | None = None
    caution: str = ""

    def require(self, evidence: Evidence) -> None:
        """Refuse by name what the evidence lacks."""
        for need in self.needs:
            if not evidence.has(need):
                wanted = MISSING.get(need, f"{need}; this evidence has none")
                raise MissingEvidenceError(f"{self.name.upper()} needs {wanted}.")
