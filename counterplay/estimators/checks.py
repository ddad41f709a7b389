"""Laws that every estimator and every interval keeps, public: run them on your own.

    for name, law in estimator_laws(mine):
        law()

or `check_estimator(mine)`, which runs all of them and names the one that broke. A law raises `AssertionError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from counterplay.errors import MissingEvidenceError
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.intervals import Bounds, Interval, Resampling
from counterplay.estimators.intervals.table import RESAMPLED
from counterplay.estimators.statistic import Statistic, evaluate, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator
from counterplay.estimators.tuning import Tuned

Law = Callable[[], None]

MERGE = 1e-12
ROUNDING = 1e-9

LINEARISED = ("t", "normal", "percentile", "bca")
"""Intervals without a width where nothing varies, and none of one decision."""

WIDE = Bounds(reward=(-30.0, 30.0), weight=10.0)
"""What is known of `example`."""

SPECIAL_CASES: dict[str, tuple[str, bool]] = {
    "dr": ("ips", True),
    "sndr": ("snips", True),
    "clipped_ips(inf)": ("ips", False),
    "clipped_snips(inf)": ("snips", False),
    "subgaussian_ips(0)": ("ips", False),
    "switch_dr(inf)": ("dr", False),
    "dros(inf)": ("dr", False),
    "drps(inf)": ("dr", False),
    "subgaussian_dr(0)": ("dr", False),
}
"""name: (the simpler estimator it equals, whether with a model of zeros)."""


def example(estimator: Estimator, seed: int = 0, n: int = 400, policies: int = 3) -> Evidence:
    """Evidence as a log would give it: 5 actions, uneven propensities, real rewards, a reward model that is wrong."""
    rng = np.random.default_rng(seed)
    logging = rng.dirichlet(np.ones(5) * 2, size=n)
    logging = 0.1 + 0.5 * logging
    action = (logging.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    target = rng.dirichlet(np.ones(5), size=(policies, n))
    if estimator.weight_mean == "free":
        # Matching estimators keep or drop a decision: their policies are deterministic.
        target = (target == target.max(axis=2, keepdims=True)).astype(np.float64)
    truth = rng.normal(size=(n, 5)) + np.arange(5)
    model = truth + rng.normal(size=(n, 5))
    rows = np.arange(n)
    return Evidence(
        reward=truth[rows, action] + rng.normal(size=n),
        propensity=logging[rows, action],
        target=target[:, rows, action],
        q_logged=model[rows, action],
        q_target=(target * model).sum(axis=2),
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the laws are tried on: an estimator with an interval, on the example of a seed."""

    estimator: Estimator
    interval: Interval = "t"
    seed: int = 0

    @property
    def resampled(self) -> bool:
        """Whether luck is drawn for each place in the log."""
        return self.interval in RESAMPLED

    @property
    def placed(self) -> bool:
        """Whether the answer depends on where in the log a decision stands."""
        return self.resampled or isinstance(self.estimator, Tuned)

    def evaluate(self, evidence: Evidence, level: float = 0.95, bounds: Bounds = WIDE) -> list[Estimate]:
        """Estimates of the policies of some evidence."""
        return evaluate(evidence, self.estimator, level, self.interval, bounds=bounds, resampling=self.resampling)

    def shard(self, evidence: Evidence) -> Statistic:
        """The statistic of some evidence."""
        return statistic_of(evidence, self.estimator, resampling=self.resampling)

    def estimate(self, statistic: Statistic) -> list[Estimate]:
        """Its estimates."""
        return statistic.estimate(interval=self.interval, bounds=WIDE)

    @property
    def resampling(self) -> Resampling | None:
        """100 replicates where the interval needs any."""
        return Resampling(draws=100) if self.resampled else None

    def example(self, n: int = 400) -> Evidence:
        """The example of the seed."""
        return example(self.estimator, self.seed, n)


def estimator_laws(estimator: str | Estimator, seed: int = 0, interval: Interval = "t") -> Iterator[tuple[str, Law]]:
    """(name, law) of each law that applies; `seed` chooses the example it is tried on."""
    chosen = resolve(estimator)
    subject = Subject(estimator=chosen, interval=interval, seed=seed)
    laws = [
        _merges_in_any_order,
        _policies_do_not_meet,
        _higher_level_is_wider,
        _interval_holds_the_value,
        _rewards_in_other_units,
        _refuses_what_is_missing,
        _one_decision_is_no_evidence,
        _json_has_no_nan,
    ]
    if not subject.placed:
        laws += [
            _order_of_decisions_changes_nothing,
            _more_data_is_tighter,
            _own_clusters_are_no_clusters,
            _copies_in_a_cluster_add_nothing,
        ]
    if chosen.normalised and interval in LINEARISED:
        laws.append(_constant_reward_is_certain)
    if chosen.weight_mean == "one":
        laws.append(_logging_policy_earns_the_mean)
    if "propensity" in chosen.needs:
        laws.append(_no_weight_gives_no_number)
    if chosen.name in SPECIAL_CASES:
        laws.append(_special_case_equals_the_simpler)
    for law in laws:
        yield law.__name__.lstrip("_").replace("_", " "), partial(law, subject)


def check_estimator(estimator: str | Estimator, seeds: int = 3, interval: Interval = "t") -> None:
    """Run every law on `seeds` examples; the error names the estimator, the law and the seed."""
    for seed in range(seeds):
        for name, law in estimator_laws(estimator, seed, interval):
            try:
                law()
            except AssertionError as error:
                raise AssertionError(f"{resolve(estimator).name}: '{name}' broke at seed {seed}: {error}") from error


def _merges_in_any_order(subject: Subject) -> None:
    evidence = subject.example()
    rng = np.random.default_rng(subject.seed + 1)
    for clustered in (False, True):
        whole = replace(evidence, cluster=rng.integers(0, 60, len(evidence))) if clustered else evidence
        cuts = [0, *sorted(int(c) for c in rng.integers(1, len(whole), 4)), len(whole)]
        shards = [subject.shard(whole.part(slice(a, b))) for a, b in pairwise(cuts) if a < b]
        merged = shards.pop(int(rng.integers(len(shards))))
        while shards:
            merged = shards.pop(int(rng.integers(len(shards)))).merge(merged)
        # Of replicates a few may change places by rounding: the quantile between them is interpolated.
        _same(subject.estimate(merged), subject.evaluate(whole), ROUNDING if subject.resampled else MERGE)


def _order_of_decisions_changes_nothing(subject: Subject) -> None:
    evidence = subject.example()
    order = np.random.default_rng(subject.seed + 2).permutation(len(evidence))
    _same(subject.evaluate(_rows(evidence, order)), subject.evaluate(evidence), ROUNDING)


def _policies_do_not_meet(subject: Subject) -> None:
    evidence = subject.example()
    alone = [subject.evaluate(evidence.part(slice(None), slice(p, p + 1)))[0] for p in range(3)]
    together = subject.evaluate(evidence)
    if subject.resampled:
        # Replicates are matrix products, whose last bits depend on their shape.
        _same(alone, together, ROUNDING)
    else:
        _demand(alone == together, "a policy's estimate depends on which others are evaluated with it")


def _more_data_is_tighter(subject: Subject) -> None:
    evidence = subject.example()
    more = _rows(evidence, np.tile(np.arange(len(evidence)), 4))
    for few, many in zip(subject.evaluate(evidence), subject.evaluate(more), strict=True):
        # The control variate's bias of order 1 / n shrinks with n.
        tolerance = ROUNDING if subject.estimator.form == "ratio" else 2 / len(evidence)
        _close(many.value, few.value, tolerance, "the value of four copies")
        _close(many.std_error, None if few.std_error is None else few.std_error / 2, 0.01, "the error of four copies")
        share = 0.6 if subject.interval in LINEARISED else 1.0
        _demand(
            few.low is None or _width(many) <= share * _width(few), f"four copies {many} are not tighter than {few}"
        )


def _higher_level_is_wider(subject: Subject) -> None:
    evidence = subject.example()
    for narrow, wide in zip(subject.evaluate(evidence, 0.8), subject.evaluate(evidence, 0.99), strict=True):
        if narrow.low is None:
            continue
        ends = [np.nan if end is None else end for end in (wide.low, narrow.low, narrow.high, wide.high)]
        # An interval that is the whole range of rewards cannot become wider.
        grown = ends[0] < ends[1] or ends[0] == WIDE.reward[0], ends[2] < ends[3] or ends[3] == WIDE.reward[1]
        _demand(all(grown) and ends[1] <= ends[2], f"99 % {wide} is not wider than 80 % {narrow}")


def _interval_holds_the_value(subject: Subject) -> None:
    for found in subject.evaluate(subject.example()):
        if found.low is None:
            _demand(subject.interval in found.reason or found.value is None, f"no interval, and no reason: {found}")
        else:
            _demand(found.low <= (found.value or 0.0) <= (found.high or 0.0), f"the value is outside: {found}")


def _rewards_in_other_units(subject: Subject) -> None:
    evidence = subject.example()
    assert evidence.q_logged is not None
    assert evidence.q_target is not None
    scaled = replace(
        evidence, reward=evidence.reward * 3, q_logged=evidence.q_logged * 3, q_target=evidence.q_target * 3
    )
    bounds = Bounds(reward=(-90.0, 90.0), weight=WIDE.weight)
    for one, three in zip(subject.evaluate(evidence), subject.evaluate(scaled, bounds=bounds), strict=True):
        for name in ("value", "std_error", "low", "high"):
            _close(getattr(three, name), _times(getattr(one, name), 3), ROUNDING, f"the {name} of tripled rewards")


def _own_clusters_are_no_clusters(subject: Subject) -> None:
    evidence = subject.example()
    codes = np.random.default_rng(subject.seed).permutation(len(evidence))
    clustered = subject.estimate(subject.shard(replace(evidence, cluster=codes)))
    _same(clustered, subject.evaluate(evidence), ROUNDING)


def _copies_in_a_cluster_add_nothing(subject: Subject) -> None:
    evidence = subject.example()
    copies = np.repeat(np.arange(len(evidence)), 3)
    clustered = replace(_rows(evidence, copies), cluster=copies)
    for one, three in zip(subject.evaluate(evidence), subject.evaluate(clustered), strict=True):
        for name in ("value", "std_error", "low", "high"):
            if getattr(three, name) is not None:
                _close(getattr(three, name), getattr(one, name), ROUNDING, f"the {name} of three copies in a cluster")


def _refuses_what_is_missing(subject: Subject) -> None:
    evidence = subject.example()
    for need in subject.estimator.needs:
        without: dict[str, Any] = {need: None}
        refusal = ""
        try:
            subject.evaluate(replace(evidence, **without))
        except MissingEvidenceError as error:
            refusal = str(error)
        _demand(
            subject.estimator.name.upper() in refusal, f"evidence without {need} was not refused by name: '{refusal}'"
        )


def _one_decision_is_no_evidence(subject: Subject) -> None:
    for found in subject.evaluate(subject.example().part(slice(0, 1))):
        _demand(found.std_error is None, f"{found} has an error")
        _demand(subject.interval not in LINEARISED or found.low is found.high is None, f"{found} has an interval")
        _demand(found.gate == "unreliable", f"one decision passes as {found.gate}")


def _json_has_no_nan(subject: Subject) -> None:
    evidence = subject.example(30)
    for part in (evidence, evidence.part(slice(0, 1))):
        for found in subject.evaluate(part):
            json.dumps(found.to_json(), allow_nan=False)
            _demand(found.value is not None or found.reason, "there is neither a value nor a reason")


def _constant_reward_is_certain(subject: Subject) -> None:
    evidence = subject.example()
    constant = 0.3
    same = np.full(len(evidence), constant)
    certain = replace(evidence, reward=same, q_logged=same, q_target=np.full((3, len(evidence)), constant))
    for found in subject.evaluate(certain):
        _close(found.value, constant, ROUNDING, "the value of a constant reward")
        _demand(found.std_error == 0, f"a constant reward has the error {found.std_error}")
        _demand(found.low == found.high, f"a constant reward has the interval {found.low, found.high}")


def _logging_policy_earns_the_mean(subject: Subject) -> None:
    evidence = subject.example()
    assert evidence.propensity is not None
    assert evidence.q_logged is not None
    three = np.ones((3, 1))
    same = replace(evidence, target=three * evidence.propensity, q_target=three * evidence.q_logged)
    for found in subject.evaluate(same):
        _close(found.value, float(evidence.reward.mean()), ROUNDING, "the value of the logging policy")


def _no_weight_gives_no_number(subject: Subject) -> None:
    evidence = subject.example()
    for found in subject.evaluate(replace(evidence, target=np.zeros((3, len(evidence))))):
        _demand(found.value is None, f"no decision has weight, and yet the value is {found.value}")
        _demand(found.reason, "there is no number and no reason")


def _special_case_equals_the_simpler(subject: Subject) -> None:
    simpler, no_model = SPECIAL_CASES[subject.estimator.name]
    evidence = subject.example()
    if no_model:
        evidence = replace(evidence, q_logged=np.zeros(len(evidence)), q_target=np.zeros((3, len(evidence))))
    other = replace(subject, estimator=resolve(simpler))
    for ours, theirs in zip(subject.evaluate(evidence), other.evaluate(evidence), strict=True):
        for name in ("value", "std_error") + (("low", "high") if subject.interval in LINEARISED else ()):
            _close(getattr(ours, name), getattr(theirs, name), ROUNDING, f"the {name} of {simpler}")


def _width(estimate: Estimate) -> float:
    return np.nan if estimate.low is None or estimate.high is None else estimate.high - estimate.low


def _rows(evidence: Evidence, rows: Codes) -> Evidence:
    def pick(array: Array | None) -> Array | None:
        return None if array is None else array[..., rows]

    return replace(
        evidence,
        reward=evidence.reward[rows],
        target=evidence.target[:, rows],
        propensity=pick(evidence.propensity),
        q_logged=pick(evidence.q_logged),
        q_target=pick(evidence.q_target),
    )


def _same(ours: list[Estimate], theirs: list[Estimate], tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        for name in ("value", "std_error", "low", "high"):
            _close(getattr(a, name), getattr(b, name), tolerance, name)
        for name in ("effective_sample_size", "largest_weight", "mean_weight", "share_zero_weight", "pareto_k"):
            _close(getattr(a.diagnostics, name), getattr(b.diagnostics, name), max(tolerance, ROUNDING), name)
        _demand((a.n, a.gate, a.diagnostics.units) == (b.n, b.gate, b.diagnostics.units), f"{a} is not {b}")


def _demand(kept: object, message: str) -> None:
    # Not `assert`: a law must also speak under python -O.
    if not kept:
        raise AssertionError(message)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _close(ours: float | None, theirs: float | None, tolerance: float, what: str) -> None:
    if ours is None or theirs is None:
        _demand(ours is theirs, f"{what}: {ours} is not {theirs}")
        return
    _demand(abs(ours - theirs) <= tolerance * max(1e-3, abs(ours), abs(theirs)), f"{what}: {ours!r} is not {theirs!r}")
