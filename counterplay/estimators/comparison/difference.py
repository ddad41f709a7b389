"""Differences between policies on the same decisions, not overlapping intervals.

Two policies evaluated on one log share its luck, so the interval of their difference is far shorter than their own
intervals suggest. With many comparisons some difference looks large by luck alone: the simultaneous intervals cover
all differences at once, and the adjusted p-values bound the chance of any false discovery.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from counterplay.errors import ConfigurationError, nearest
from counterplay.estimators.comparison.joint import Joint, check_draws, joint_of, one_thread
from counterplay.estimators.comparison.planning import decisions_to_settle
from counterplay.estimators.comparison.simultaneous import largest_t, tests_of
from counterplay.estimators.estimate import GATES, Estimate, Gate, number, plain
from counterplay.estimators.evidence import Evidence
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator

FRAGILE = 0.1
"""A difference of which one unit carries more than this share is fragile."""

Found = dict[str, Any]
"""The fields of a difference that only a pair with a value and an error has."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """value = policy minus baseline, in units of reward; None where either has no number.

    - [`low`, `high`] covers this difference alone; [`low_all`, `high_all`] covers the differences of the whole set
      together, each at confidence `level`.
    - `p_value` is for this difference alone, `p_holm` (Holm 1979) and `p_max_t` (Romano & Wolf 2005, single step) are
      corrected for the number of comparisons in the set.
    - `largest_influence_share`: the part of the variance of the difference that one unit (decision or cluster) carries,
      the largest influence squared over the sum of squares. Above 0.1 the difference is fragile, and the gate says so.
      None where nothing varies.
    - `decisions_to_settle`: how many more decisions like these would settle it: the simultaneous interval excludes 0
      with probability 0.8, if the observed difference is the true one. 0 where it is settled, None where the
      difference is 0, has no number, or would take 10^15 decisions. **Optimistic**: a difference that was picked
      because it looks large is larger than the truth (the winner's curse), and the need grows with 1 / difference^2.
      To plan for a difference that matters use `decisions_needed`.
    - `gate`: the worse of the two estimates' gates; `reason` names whose.
    """

    policy: str
    baseline: str
    estimator: str
    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    low_all: float | None
    high_all: float | None
    level: float
    n: int
    p_value: float | None
    p_holm: float | None
    p_max_t: float | None
    largest_influence_share: float | None
    decisions_to_settle: int | None
    gate: Gate
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`."""
        return {key: plain(value) for key, value in asdict(self).items()}


def compare(
    evidence: Evidence,
    baseline: str,
    estimator: str | Estimator = "snips",
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> list[Difference]:
    """Every other policy of the evidence against `baseline`, in the evidence's order.

    To compare with the logging policy itself, give the evidence a policy whose target is the propensity.

    Simultaneous over the P - 1 differences by max-t, from `draws` of their joint distribution that `seed` alone
    decides (see `simultaneous.py`); units are clusters where the evidence has clusters. Holds where
    `Statistic.estimate` says that t intervals hold. Memory: blocks of the evidence, P numbers a cluster, and P^2.
    Raises `ConfigurationError` for an unknown baseline, a level outside (0, 1) or fewer than 100 draws, and
    `MissingEvidenceError` where the estimator needs what the evidence lacks.
    """
    if baseline not in evidence.policies:
        raise ConfigurationError(f"There is no policy '{baseline}'. {nearest(baseline, evidence.policies)}")
    base = evidence.policies.index(baseline)
    asked = [(p, base) for p in range(len(evidence.policies)) if p != base]
    return _differences(evidence, resolve(estimator), asked, base, level, seed, draws)


def compare_all(
    evidence: Evidence,
    estimator: str | Estimator = "snips",
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> list[Difference]:
    """All P (P - 1) / 2 pairs: each policy minus each earlier one, by the earlier one's place and then its own.

    As `compare`, but the intervals and p-values are simultaneous over all pairs (Tukey's problem), which is wider: ask
    for what you want to know. For which policies may be the best, `rank_policies` is sharper. Time: P^2 n.
    """
    count = len(evidence.policies)
    asked = [(p, base) for base in range(count) for p in range(base + 1, count)]
    return _differences(evidence, resolve(estimator), asked, None, level, seed, draws)


def _differences(
    evidence: Evidence,
    estimator: Estimator,
    asked: list[tuple[int, int]],
    base: int | None,
    level: float,
    seed: int,
    draws: int,
) -> list[Difference]:
    check_draws(seed, draws)
    with one_thread():
        estimates, joint = joint_of(evidence, estimator, level, base)
        found = _found(joint, len(evidence), level, seed, draws)
    unit = "decision" if joint.units == len(evidence) else "cluster"
    return [_difference(estimates[p], estimates[b], found.get((p, b), {}), level, unit) for p, b in asked]


def _found(joint: Joint, n: int, level: float, seed: int, draws: int) -> dict[tuple[int, int], Found]:
    """What is known of each pair (place of the policy, place of the baseline)."""
    left, right = joint.pairs()
    if not len(left):
        return {}
    value, error, share = joint.gaps(left, right), joint.error[left, right], joint.share[left, right]
    *columns, critical = tests_of(value, error, largest_t(joint, draws, seed), joint.units, level)
    names = ("value", "std_error", "low", "high", "low_all", "high_all", "p_value", "p_holm", "p_max_t")
    rows = zip(*(column.tolist() for column in (value, error, *columns)), strict=True)
    found: dict[tuple[int, int], Found] = {}
    for k, row in enumerate(rows):
        fields = dict(zip(names, row, strict=True))
        fields["largest_influence_share"] = number(share[k]) if fields["std_error"] > 0 else None
        fields["decisions_to_settle"] = decisions_to_settle(fields["value"], fields["std_error"], n, critical)
        found[int(joint.place[left[k]]), int(joint.place[right[k]])] = fields
    return found


def _difference(ours: Estimate, base: Estimate, found: Found, level: float, unit: str) -> Difference:
    worst = max((ours, base), key=lambda e: GATES.index(e.gate))
    gate, reason = worst.gate, f"{worst.policy}: {worst.reason}" if worst.reason else ""
    share = found.get("largest_influence_share")
    if gate == "ok" and share is not None and share > FRAGILE:
        gate = "caution"
        reason = f"one {unit} carries {share:.0%} of the variance of the difference"
    value = None if ours.value is None or base.value is None else number(ours.value - base.value)
    names = ("std_error", "low", "high", "low_all", "high_all", "p_value", "p_holm", "p_max_t")
    return Difference(
        policy=ours.policy,
        baseline=base.policy,
        estimator=ours.estimator,
        value=found.get("value", value),
        level=level,
        n=ours.n,
        largest_influence_share=share,
        decisions_to_settle=found.get("decisions_to_settle"),
        gate=gate,
        reason=reason,
        **{name: found.get(name) for name in names},
    )
