"""From what remains of n decisions to estimates: value, interval, diagnostics and gate, or the reason for none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from counterplay.errors import EvidenceError
from counterplay.estimators.diagnostics import gate, weight_facts
from counterplay.estimators.estimate import Diagnostics, Estimate, Gate, number
from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.intervals.basis import Basis
from counterplay.estimators.intervals.bootstrap import Replicates
from counterplay.estimators.intervals.bounds import Bounds
from counterplay.estimators.intervals.table import INTERVALS, Interval
from counterplay.estimators.moments import Fold, Linear, Moments, linearise, together
from counterplay.estimators.terms import Estimator, Form
from counterplay.estimators.weights import WeightSums

SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Rewards:
    """What was seen of rewards: their range, whether all are 0 or 1, and the range of a reward model's predictions."""

    low: float
    high: float
    binary: bool
    predicted: tuple[float, float]

    @classmethod
    def of(cls, evidence: Evidence, model: bool, predicted: tuple[float, float] | None = None) -> Rewards:
        """The rewards of a shard; with `model` also the range of the predictions, `predicted` where it is known."""
        reward = evidence.reward
        models = [q for q in (evidence.q_logged, evidence.q_target) if q is not None and model]
        return cls(
            low=float(reward.min()),
            high=float(reward.max()),
            binary=bool(((reward == 0) | (reward == 1)).all()),
            predicted=predicted or (min((float(q.min()) for q in models), default=np.inf),
                                    max((float(q.max()) for q in models), default=-np.inf)),
        )  # fmt: skip

    def span(self, estimator: Estimator) -> tuple[float, float] | tuple[None, None]:
        """The least and the greatest reward where terms are weighted rewards; None where they are something else."""
        return (None, None) if "q_target" in estimator.needs else (self.low, self.high)

    def reach(self, compared: bool) -> float:
        """The largest reward in size, or the range of rewards where they are `compared`."""
        return self.high - self.low if compared else max(abs(self.low), abs(self.high))

    def merge(self, other: Rewards) -> Rewards:
        """Both shards together."""
        (a, b), (c, d) = self.predicted, other.predicted
        return Rewards(
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            binary=self.binary and other.binary,
            predicted=(min(a, c), max(b, d)),
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a statistic, and what holds for all of its estimators."""

    n: int
    rewards: Rewards
    assumption: str
    level: float
    interval: Interval
    bounds: Bounds | None

    def check(self, weights: WeightSums | None) -> None:
        """Raise `EvidenceError` where the log shows that the bounds are wrong."""
        if self.bounds is None:
            return
        low, high = self.bounds.reward
        slack = SLACK * (high - low)
        if self.rewards.low < low - slack or self.rewards.high > high + slack:
            seen = self.rewards.low if self.rewards.low < low - slack else self.rewards.high
            raise EvidenceError(f"A reward is {seen:g}, outside the range from {low:g} to {high:g} that was given.")
        heaviest = 0.0 if weights is None else float(weights.heaviest.max())
        if heaviest > self.bounds.weight * (1 + SLACK):
            raise EvidenceError(f"A weight is {heaviest:g}, above the largest weight of {self.bounds.weight:g} given.")

    def predictions_fit(self) -> bool:
        """Whether every prediction of a reward model lies in the range that was given."""
        if self.bounds is None:
            return True
        (least, most), (low, high) = self.rewards.predicted, self.bounds.reward
        return least >= low - SLACK * (high - low) and most <= high + SLACK * (high - low)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What remains of one estimator: its `fold`, the `moments` of that, their `linear`isation and (P,) effective
    `terms`; its `weights` with `facts`, those of `Diagnostics` for each policy or once for all, or none without
    weights; its `replicates`.
    """

    estimator: Estimator
    fold: Fold
    moments: Moments
    linear: Linear
    terms: Array
    weights: WeightSums | None
    facts: list[dict[str, Any]]
    replicates: Replicates | None


def seen_of(
    estimators: Sequence[Estimator],
    folds: Mapping[str, Fold],
    weights: Mapping[str, WeightSums],
    weight_of: Mapping[str, str],
    replicates: Mapping[str, Replicates],
    rewards: Rewards,
) -> list[Seen]:
    """What remains of some estimators: worked out once where they share it, and together where they are alike."""
    facts = weight_facts(weights)
    alike: dict[tuple[Form, bool, float | None, float | None], list[Estimator]] = {}
    for estimator in estimators:
        alike.setdefault((estimator.form, estimator.normalised, *rewards.span(estimator)), []).append(estimator)
    found = []
    for (form, normalised, least, most), chosen in alike.items():
        moments = [folds[estimator.name].moments() for estimator in chosen]
        whole, places = together(moments)
        linear = linearise(whole, form)
        terms = whole.effective_terms(least, most, normalised)
        for estimator, own, policies in zip(chosen, moments, places, strict=True):
            key = weight_of.get(estimator.name, "")
            one = Seen(
                estimator=estimator, fold=folds[estimator.name], moments=own, linear=linear.of(policies),
                terms=terms[policies], weights=weights.get(key), facts=facts.get(key, []),
                replicates=replicates.get(estimator.name),
            )  # fmt: skip
            found.append(one)
    return found


def answers(
    policies: Sequence[str], seen: Seen, asked: Asked, chosen: str = "", least_error: float = 0.0
) -> list[Estimate]:
    """One estimate for each policy. `least_error`: what its standard error is at least."""
    estimator, weights, moments = seen.estimator, seen.weights, seen.moments
    asked.check(weights)
    linear = seen.linear
    if least_error > 0:
        linear = linear._replace(std_error=np.maximum(linear.std_error, least_error))
    shape = len(policies)
    facts = seen.facts or [{"n": asked.n, "units": moments.count}]
    largest = heaviest = [np.nan] * shape
    if weights is not None:
        heaviest = np.broadcast_to(weights.heaviest, shape).tolist()
        largest = [facts[p if len(facts) > 1 else 0]["largest_weight"] for p in range(shape)]
    basis = Basis(
        estimator=estimator, fold=seen.fold, moments=moments, linear=linear, largest_weight=np.array(largest, float),
        binary=asked.rewards.binary, level=asked.level, bounds=asked.bounds, replicates=seen.replicates,
    )  # fmt: skip
    ends = INTERVALS[asked.interval](basis)
    if asked.interval in ("hoeffding", "bernstein") and "q_target" in estimator.needs and not asked.predictions_fit():
        ends = "the reward model predicts rewards outside the range that was given"
    missing = ends if isinstance(ends, str) else ""
    low, high = (np.full(shape, np.nan),) * 2 if isinstance(ends, str) else ends
    # The mean of matching weights is not meant to be 1: a test would accuse an innocent log.
    shrunk = weights is not None and weights.before is not None
    tested = estimator.weight_mean == "one" or (estimator.weight_mean == "shrunk" and shrunk)
    untested = {} if tested else {"mean_weight_p": None, "share_without_support": None}
    columns = (linear.value, linear.std_error, low, high, seen.terms)
    found = []
    for p, (policy, *numbers) in enumerate(zip(policies, *(column.tolist() for column in columns), strict=True)):
        value, std_error, least, most, terms = map(number, numbers)
        told = facts[p if len(facts) > 1 else 0] | untested
        diagnosis = Diagnostics(**told, effective_terms=terms, chosen=chosen)
        reason = _why_no_value(diagnosis, estimator, heaviest[p], value, std_error)
        if reason:
            verdict: Gate = "unreliable"
            value = std_error = least = most = None
        else:
            verdict, reason = _judged(diagnosis, estimator, asked, std_error, least, missing)
        one = Estimate(
            policy=policy, estimator=estimator.name, value=value, std_error=std_error, low=least, high=most,
            level=asked.level, interval=asked.interval, n=asked.n, diagnostics=diagnosis, gate=verdict, reason=reason,
        )  # fmt: skip
        found.append(one)
    return found


def _why_no_value(
    diagnosis: Diagnostics, estimator: Estimator, heaviest: float, value: float | None, std_error: float | None
) -> str:
    """The reason why there is no value, or ""."""
    if heaviest == 0:
        return "no logged decision has an action of this policy"
    if diagnosis.largest_weight == 0 and "q_target" not in estimator.needs:
        return "every weight is cut off"
    if value is None or (std_error is None and diagnosis.units > 1):
        return "the sums leave the range of floating-point numbers"
    return ""


def _judged(
    diagnosis: Diagnostics, estimator: Estimator, asked: Asked, std_error: float | None, low: float | None, missing: str
) -> tuple[Gate, str]:
    """The gate with its reason; `missing`: why there is no interval of the kind that was asked for."""
    compared = estimator.normalised or "q_target" in estimator.needs
    verdict, reason = gate(diagnosis, estimator, std_error, asked.rewards.reach(compared))
    if verdict == "ok" and asked.assumption:
        verdict, reason = "caution", asked.assumption
    if low is None and diagnosis.units > 1:
        why = missing or "it cannot be had from the weights of this policy"
        verdict = "caution" if verdict == "ok" else verdict
        reason = f"{reason}; no {asked.interval} interval: {why}" if reason else f"no {asked.interval} interval: {why}"
    return verdict, reason
