"""An estimate: one value with its interval, its diagnostics and its gate; or no value, with the reason why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Gate = Literal["ok", "caution", "unreliable"]

GATES: tuple[Gate, ...] = ("ok", "caution", "unreliable")
"""From the best to the worst."""


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How far the weights can be trusted. Fields are None where the estimator uses no weights.

    - `n` decisions in `units` independent units (clusters, or the decisions themselves).
    - `effective_sample_size`: (sum w)^2 / sum w^2 (Kong 1992): so many unweighted decisions know as much about a mean.
    - `largest_weight`, and `largest_weight_share` of the sum of weights.
    - `mean_weight`, `mean_weight_p`: t test of the mean against 1, clusters as units. Where propensities are
      right and every action of the policy could have been logged the mean is 1 in expectation.
    - `share_zero_weight`: decisions that say nothing about the policy. Of itself no lack of support: a policy that
      always takes one of 10 uniformly logged actions has 0.9.
    - `share_without_support`: at least this share of the policy's probability lies on actions that were never
      logged (97.5 % confidence): how far the mean weight is certainly below 1. Wrong propensities look the same.
    - `moved_weight`: how much of the weight (1 on average) shrinking changed: mean |w - g(w)|. Times the largest reward
      it bounds the bias.
    - `effective_terms`: about so many units make the value (`Moments.effective_terms`): with rare rewards the rewarded
      decisions, with rare failures of a ratio those. With a handful no interval can be trusted.
    - `chosen`: the parameters that were chosen for the two halves of the decisions, where a rule chose them.
    - `mean_weight_p` and `share_without_support` are None for estimators whose weights are not meant to average 1.
    - `pareto_k`: shape of the tail of the weights (Vehtari et al. 2024): above 0.5 no variance, above 0.7 no use;
      None with `note` where the tail has no shape (bounded weights, too few).
    """

    n: int
    units: int
    effective_sample_size: float | None = None
    largest_weight: float | None = None
    largest_weight_share: float | None = None
    mean_weight: float | None = None
    mean_weight_p: float | None = None
    share_zero_weight: float | None = None
    share_without_support: float | None = None
    pareto_k: float | None = None
    moved_weight: float | None = None
    effective_terms: float | None = None
    chosen: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a policy is worth.

    `value` with its standard error and the interval [`low`, `high`] of confidence `level` and of the kind `interval`
    (`intervals/table.py`), in units of reward; None where there is no number. `gate` says whether to trust it, `reason`
    why, in one sentence ("" where ok).
    """

    policy: str
    estimator: str
    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    level: float
    interval: str
    n: int
    diagnostics: Diagnostics
    gate: Gate
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`: None stands where there is no number."""
        return {key: plain(value) for key, value in asdict(self).items()}


def plain(value: Any) -> Any:
    """The same value with None where a float is not finite."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float) -> float | None:
    """A finite Python float, or None: no number is never 0 and never NaN."""
    value = float(value)
    return value if math.isfinite(value) else None
