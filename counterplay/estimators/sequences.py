"""Confidence sequences: intervals of a policy's value that may be looked at after every decision of a growing log.

    P(at some time the interval does not hold the value) <= 1 - level

so one may look every night, stop when the answer is clear, or go on because it is not. A t interval promises this
for one look only; looked at often enough, it misses almost surely.

**What is covered**: the mean, over the decisions seen, of the policy's expected reward in each decision given all that
came before it. That is the policy's value where decisions are alike, and a running mean where contexts or rewards
drift. As it may move, bounds of different times are not intersected.

**What it takes**: rewards within a range known before; propensities that are right given all that came before (an
epsilon-greedy logger that learns is welcome); a policy that does not look ahead. It takes no largest weight: for
rewards r scaled to [0, 1] and weights w, w r and w (1 - r) are never negative and have the means v and 1 - v, and bets
on these means (`sequence_kernel.py`) bound v from below and from above, each with half of 1 - level. The idea is that
of Karampatziakis, Mineiro & Ramdas 2021 and of Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro 2024; the bets are
not, and need no predicted mean. Both bounds also hold where the policy takes actions that are never logged (mean
weight below 1).

**What it costs**: 1.5 to 1.9 times the width of a t interval where weights are near 1, 2 to 2.5 times with ten actions
logged uniformly. With rare rewards and large weights the upper bound pays for w (1 - r), which may be ten times the t
interval: the reward may lie in weights not seen yet. Where the largest possible weight is known, say so: then w r
bounds v from both sides, and from some thousand decisions on the width is less than twice that of the t interval again
(`benchmarks/confidence_sequences.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.estimate import Diagnostics, Estimate, Gate, number
from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.sequence_plan import Plan, ends_of

ROWS = 4_096
"""Decisions folded at once: 32 KiB an array and policy. A constant, because it decides the last bits of the sums."""

VERSION = 1
"""Of the stored form: it changes where the bets or the meaning of a sum changes."""

NOTE = "no Pareto k: a confidence sequence keeps no weights, and holds however heavy their tail is"

ARRAYS = ("growth", "totals", "largest")


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfidenceSequence:
    """All that is kept of the decisions seen: `start` one, `add` evidence as it comes, ask for the `interval`.

    - `plan`: what was asked, and known, at the start. `n` decisions were seen; the next stands at `place` in its log.
    - `growth` (F, 2, D, K): sums of log(1 + bet x) for F ways to bet (`Plan.outcomes`), the lower and the upper bound,
      D policies or differences, and K bets. `totals` (4, P): sums of w, w^2, [w = 0] and gain. `largest` (P,) weights.
    - `assumption`: what the evidence takes for granted.
    """

    plan: Plan
    n: int
    place: int
    growth: Array
    totals: Array
    largest: Array
    assumption: str

    @classmethod
    def start(
        cls,
        policies: Sequence[str],
        *,
        level: float = 0.95,
        reward_range: tuple[float, float] = (0.0, 1.0),
        baseline: str | None = None,
        estimator: Literal["ips", "dr"] = "ips",
        largest_weight: float | None = None,
    ) -> ConfidenceSequence:
        """A sequence that has seen nothing. All of this is chosen before the first look at the log.

        - `level`: of each interval over all times together; not of all policies together.
        - `reward_range`: the least and the largest reward that can occur, not those that did.
        - `baseline`: one of the policies; intervals are then those of the other policies' values minus its value.
        - `largest_weight`: the largest weight that can occur for any of the policies (k, where actions are logged
          uniformly from k), known from how actions were logged and not from the weights seen; None where it is not
          known. Intervals are shorter with it, but do not hold where the policy takes actions that are never logged.
        - `estimator`: "ips", or "dr" with a reward model, which needs `largest_weight`. Every prediction must then come
          from earlier decisions or from another log (a model cross-fitted on this very log has seen the future), and
          lie within `reward_range`.

        Raises `ConfigurationError` with the option that is wrong.
        """
        plan = Plan(
            policies=(policies,) if isinstance(policies, str) else tuple(policies),
            level=float(level),
            reward_range=(float(reward_range[0]), float(reward_range[1])),
            baseline=baseline,
            estimator=estimator,
            largest_weight=None if largest_weight is None else float(largest_weight),
        )
        return cls._empty(plan)

    def add(self, evidence: Evidence) -> ConfidenceSequence:
        """This sequence with more decisions, which come after those seen: `evidence.start` says where they stand.

        Decisions may be left out, for reasons that have nothing to do with their rewards. Two batches give what one
        gives, to rounding. Clusters that lie across two batches are not seen, and must not be.

        Raises `EvidenceError` for other policies, decisions seen already, rewards (and predictions) outside
        `reward_range`, weights above `largest_weight`, and clusters of several decisions (whose rewards depend on
        each other, so that the policy's value is not what each is expected to earn); `MissingEvidenceError` without
        propensities or, for "dr", without predictions.
        """
        from counterplay.estimators.sequence_kernel import BETS, log_growth

        self.plan.check(evidence)
        start, end = ends_of(evidence)
        if start < self.place:
            raise EvidenceError(
                f"The evidence starts at decision {start}, and decisions up to {self.place - 1} were added already. "
                f"Decisions are added once, in order of time: the next have Evidence(start={self.place})."
            )
        growth, totals, largest = self.growth.copy(), self.totals.copy(), self.largest
        for first in range(0, len(evidence), ROWS):
            part = evidence.part(slice(first, first + ROWS))
            weight = part.weight
            self.plan.check_weight(weight, first)
            gain, outcomes = self.plan.outcomes(part)
            growth += log_growth(outcomes.reshape(-1, len(part)), BETS).reshape(growth.shape)
            totals += [np.add.reduce(x, axis=1) for x in (weight, weight * weight, weight == 0, gain)]
            largest = np.maximum(largest, weight.max(axis=1))
        return replace(
            self,
            n=self.n + len(evidence),
            place=end,
            growth=growth,
            totals=totals,
            largest=largest,
            assumption=self.assumption or evidence.assumption,
        )

    def interval(self) -> list[Estimate]:
        """One estimate for each policy, or for each other policy's difference from the baseline, now.

        `value` is that of SNIPS (of DR, for "dr"), kept within [`low`, `high`]; `std_error` is None, and the kind of
        the interval is "anytime". Where the lower bound lies above the upper one there is no number: with right
        propensities the probability that this ever happens is at most 1 - level. The gate speaks of propensities: few
        or heavy weights make an interval wide, not wrong.
        """
        low, high = _bounds(self)
        return [_estimate(self, p, float(low[d]), float(high[d])) for d, p in enumerate(self.plan.rows)]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`; floats keep all their bits."""
        found = {"version": VERSION, "plan": asdict(self.plan), "n": self.n, "place": self.place}
        return found | {name: getattr(self, name).tolist() for name in ARRAYS} | {"assumption": self.assumption}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ConfidenceSequence:
        """The sequence that `to_json` gave. Raises `EvidenceError` where it is of another version, or damaged."""
        if stored.get("version") != VERSION:
            raise EvidenceError(
                f"The stored confidence sequence has version {stored.get('version')!r}; this package reads {VERSION}. "
                "Read it with the package that wrote it, or begin again."
            )
        try:
            empty = cls.start(**stored["plan"])
            arrays = {name: np.array(stored[name], dtype=np.float64) for name in ARRAYS}
            n, place, assumption = int(stored["n"]), int(stored["place"]), str(stored["assumption"])
        except (ConfigurationError, KeyError, TypeError, ValueError) as wrong:
            raise EvidenceError(f"The stored confidence sequence is damaged: {wrong!r}.") from None
        if not 0 <= n <= place:
            raise EvidenceError(f"The stored confidence sequence is damaged: {n} decisions up to place {place}.")
        for name, array in arrays.items():
            if array.shape != getattr(empty, name).shape or not np.isfinite(array).all():
                raise EvidenceError(f"The stored confidence sequence is damaged: '{name}' has shape {array.shape}.")
        return cls(plan=empty.plan, n=n, place=place, assumption=assumption, **arrays)

    @classmethod
    def _empty(cls, plan: Plan) -> ConfidenceSequence:
        from counterplay.estimators.sequence_kernel import BETS

        growth = np.zeros((len(plan.offset), 2, len(plan.rows), len(BETS)))
        totals, largest = np.zeros((4, len(plan.policies))), np.zeros(len(plan.policies))
        return cls(plan=plan, n=0, place=0, growth=growth, totals=totals, largest=largest, assumption="")


def path_of(sequence: ConfidenceSequence, evidence: Evidence, at: npt.ArrayLike) -> Array:
    """(T, D, 2) lower and upper bounds as `evidence` is added to `sequence`: after its first `at` (T,) decisions.

    `at`: ascending, from 1 to n. D policies, or differences from the baseline, in the order of `interval`. NaN where
    the lower bound lies above the upper one. Time: about 0.1 ms a point, besides the decisions.
    """
    times = np.asarray(at)
    if times.ndim != 1 or times.dtype.kind not in "iu" or not len(times):
        raise ConfigurationError("at must hold numbers of decisions, integers of shape (T,).")
    steps = np.diff(times.astype(np.int64), prepend=0)
    if steps.min() < 1 or times[-1] > len(evidence):
        raise ConfigurationError(f"at must ascend from 1 or more to at most {len(evidence)}, the number of decisions.")
    # Clusters are seen here; each part alone would hide those that lie across two.
    sequence.plan.check(evidence)
    found = []
    for time, step in zip(times.tolist(), steps.tolist(), strict=True):
        sequence = sequence.add(evidence.part(slice(time - step, time)))
        low, high = _bounds(sequence)
        found.append(np.where(low > high, np.nan, [low, high]).T)
    return np.array(found)


def _bounds(sequence: ConfidenceSequence) -> tuple[Array, Array]:
    """(D,) lower and upper bounds in units of reward; where propensities are wrong the lower may be the higher."""
    from counterplay.estimators.sequence_kernel import least_mean

    plan = sequence.plan
    (low, high), single = plan.reward_range, plan.baseline is None
    needed = math.log(2 / (1 - plan.level))
    growth = sequence.growth.transpose(1, 2, 0, 3)
    least = least_mean(growth, plan.offset, sequence.n, needed, 0.0 if single else -1.0) * (high - low)
    return (low + least[0], high - least[1]) if single else (least[0], -least[1])


def _estimate(sequence: ConfidenceSequence, p: int, low: float, high: float) -> Estimate:
    plan = sequence.plan
    parties = [p] if plan.baseline is None else [p, plan.policies.index(plan.baseline)]
    diagnostics = [_diagnostics(sequence, party) for party in parties]
    gate, reason, usable = _gate(sequence, parties, diagnostics, crossed=low > high)
    value = min(max(_value(sequence, parties), low), high)
    return Estimate(
        policy=" minus ".join(plan.policies[party] for party in parties),
        estimator="confidence_sequence" + ("(dr)" if plan.estimator == "dr" else ""),
        value=value if usable else None,
        std_error=None,
        low=low if usable else None,
        high=high if usable else None,
        level=plan.level,
        interval="anytime",
        n=sequence.n,
        diagnostics=diagnostics[0],
        gate=gate,
        reason=reason,
    )


def _value(sequence: ConfidenceSequence, parties: list[int]) -> float:
    """The gain divided by the weights (by the decisions, for "dr"); minus the baseline's, where there is one."""
    low, high = sequence.plan.reward_range
    size = np.full(len(sequence.largest), sequence.n) if sequence.plan.estimator == "dr" else sequence.totals[0]
    means = [low + (high - low) * sequence.totals[3, p] / max(size[p], np.finfo(float).tiny) for p in parties]
    return float(means[0] - sum(means[1:]))


def _diagnostics(sequence: ConfidenceSequence, p: int) -> Diagnostics:
    n, largest = sequence.n, float(sequence.largest[p])
    total, squares, zeros, _ = sequence.totals[:, p].tolist()
    return Diagnostics(
        n=n,
        units=n,
        effective_sample_size=number(total / squares * total) if squares > 0 else 0.0,
        largest_weight=largest,
        largest_weight_share=largest / total if total > 0 else None,
        mean_weight=total / n if n else None,
        mean_weight_p=_mean_weight_p(n, total, squares),
        share_zero_weight=zeros / n if n else None,
        note=NOTE,
    )


def _mean_weight_p(n: int, total: float, squares: float) -> float | None:
    """Of the t test of the mean weight against 1: for this look alone, as that of every other estimate."""
    if n < 2:
        return None
    from scipy.special import stdtr

    mean = total / n
    variance = (squares - mean * total) / (n - 1)
    if variance <= 1e-13 * squares / n:
        return 1.0 if abs(mean - 1) < 1e-9 else 0.0
    return float(2 * stdtr(n - 1.0, -abs(mean - 1) / math.sqrt(variance / n)))


def _gate(
    sequence: ConfidenceSequence, parties: list[int], diagnostics: list[Diagnostics], *, crossed: bool
) -> tuple[Gate, str, bool]:
    """The gate, its reason, and whether there is a number."""
    if sequence.n == 0:
        return "unreliable", "no decision has been added", False
    if any(d.largest_weight == 0 for d in diagnostics):
        p = next(p for p, d in zip(parties, diagnostics, strict=True) if d.largest_weight == 0)
        return "unreliable", f"no logged decision has an action of policy '{sequence.plan.policies[p]}'", False
    worst = max(diagnostics, key=_off)
    mean = f"the mean weight is {worst.mean_weight:.3g}"
    if crossed:
        return "unreliable", f"the lower bound lies above the upper one, as with wrong propensities; {mean}", False
    p_value = 1.0 if worst.mean_weight_p is None else worst.mean_weight_p
    if _off(worst) > 0.1 and p_value < 1e-4:
        return "unreliable", f"{mean}, not 1: wrong propensities, or actions that were never logged", True
    if sequence.assumption:
        return "caution", sequence.assumption, True
    if _off(worst) > 0.02 and p_value < 1e-3:
        return "caution", f"{mean}, a little off 1: check the propensities", True
    return "ok", "", True


def _off(diagnostics: Diagnostics) -> float:
    return abs((1.0 if diagnostics.mean_weight is None else diagnostics.mean_weight) - 1)
