"""Laws that every estimator keeps, public: run them on your own.

    for name, law in estimator_laws(mine):
        law()

or `check_estimator(mine)`, which runs all of them and names the one that broke. A law raises `AssertionError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from counterplay.errors import MissingEvidenceError
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.statistic import evaluate, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator

Law = Callable[[], None]

MERGE = 1e-12
ROUNDING = 1e-9

SPECIAL_CASES: dict[str, tuple[str, bool]] = {
    "dr": ("ips", True),
    "sndr": ("snips", True),
    "clipped_ips(inf)": ("ips", False),
    "clipped_snips(inf)": ("snips", False),
    "subgaussian_ips(0)": ("ips", False),
    "switch_dr(inf)": ("dr", False),
    "dros(inf)": ("dr", False),
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


def estimator_laws(estimator: str | Estimator, seed: int = 0) -> Iterator[tuple[str, Law]]:
    """(name, law) of each law that applies; `seed` chooses the example it is tried on."""
    chosen = resolve(estimator)
    laws = [
        _merges_in_any_order,
        _order_of_decisions_changes_nothing,
        _policies_do_not_meet,
        _more_data_is_tighter,
        _higher_level_is_wider,
        _rewards_in_other_units,
        _own_clusters_are_no_clusters,
        _copies_in_a_cluster_add_nothing,
        _refuses_what_is_missing,
        _one_decision_has_no_interval,
        _json_has_no_nan,
    ]
    if chosen.normalised:
        laws.append(_constant_reward_is_certain)
    if chosen.weight_mean == "one":
        laws.append(_logging_policy_earns_the_mean)
    if "propensity" in chosen.needs:
        laws.append(_no_weight_gives_no_number)
    if chosen.name in SPECIAL_CASES:
        laws.append(_special_case_equals_the_simpler)
    for law in laws:
        yield law.__name__.lstrip("_").replace("_", " "), partial(law, chosen, seed)


def check_estimator(estimator: str | Estimator, seeds: int = 3) -> None:
    """Run every law on `seeds` examples; the error names the estimator, the law and the seed."""
    for seed in range(seeds):
        for name, law in estimator_laws(estimator, seed):
            try:
                law()
            except AssertionError as error:
                raise AssertionError(f"{resolve(estimator).name}: '{name}' broke at seed {seed}: {error}") from error


def _merges_in_any_order(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    rng = np.random.default_rng(seed + 1)
    for clustered in (False, True):
        whole = replace(evidence, cluster=rng.integers(0, 60, len(evidence))) if clustered else evidence
        cuts = [0, *sorted(int(c) for c in rng.integers(1, len(whole), 4)), len(whole)]
        shards = [statistic_of(whole.part(slice(a, b)), estimator) for a, b in pairwise(cuts) if a < b]
        merged = shards.pop(int(rng.integers(len(shards))))
        while shards:
            merged = shards.pop(int(rng.integers(len(shards)))).merge(merged)
        _same(merged.estimate(), evaluate(whole, estimator), MERGE)


def _order_of_decisions_changes_nothing(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    order = np.random.default_rng(seed + 2).permutation(len(evidence))
    _same(evaluate(_rows(evidence, order), estimator), evaluate(evidence, estimator), ROUNDING)


def _policies_do_not_meet(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    alone = [evaluate(evidence.part(slice(None), slice(p, p + 1)), estimator)[0] for p in range(3)]
    _demand(alone == evaluate(evidence, estimator), "a policy's estimate depends on which others are evaluated with it")


def _more_data_is_tighter(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    more = _rows(evidence, np.tile(np.arange(len(evidence)), 4))
    for few, many in zip(evaluate(evidence, estimator), evaluate(more, estimator), strict=True):
        _close(many.value, few.value, ROUNDING, "the value of four copies")
        _close(many.std_error, None if few.std_error is None else few.std_error / 2, 0.01, "the error of four copies")


def _higher_level_is_wider(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    for narrow, wide in zip(evaluate(evidence, estimator, 0.8), evaluate(evidence, estimator, 0.99), strict=True):
        ends = [np.nan if end is None else end for end in (wide.low, narrow.low, narrow.high, wide.high)]
        _demand(ends[0] < ends[1] <= ends[2] < ends[3], f"99 % {wide} is not wider than 80 % {narrow}")


def _rewards_in_other_units(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    assert evidence.q_logged is not None
    assert evidence.q_target is not None
    scaled = replace(
        evidence, reward=evidence.reward * 3, q_logged=evidence.q_logged * 3, q_target=evidence.q_target * 3
    )
    for one, three in zip(evaluate(evidence, estimator), evaluate(scaled, estimator), strict=True):
        _close(three.value, _times(one.value, 3), ROUNDING, "the value of tripled rewards")
        _close(three.std_error, _times(one.std_error, 3), ROUNDING, "the error of tripled rewards")


def _own_clusters_are_no_clusters(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    codes = np.random.default_rng(seed).permutation(len(evidence))
    clustered = statistic_of(replace(evidence, cluster=codes), estimator).estimate()
    _same(clustered, evaluate(evidence, estimator), ROUNDING)


def _copies_in_a_cluster_add_nothing(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    copies = np.repeat(np.arange(len(evidence)), 3)
    clustered = replace(_rows(evidence, copies), cluster=copies)
    for one, three in zip(evaluate(evidence, estimator), evaluate(clustered, estimator), strict=True):
        _close(three.value, one.value, ROUNDING, "the value of three copies in a cluster")
        _close(three.std_error, one.std_error, ROUNDING, "the error of three copies in a cluster")


def _refuses_what_is_missing(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    for need in estimator.needs:
        without: dict[str, Any] = {need: None}
        refusal = ""
        try:
            evaluate(replace(evidence, **without), estimator)
        except MissingEvidenceError as error:
            refusal = str(error)
        _demand(estimator.name.upper() in refusal, f"evidence without {need} was not refused by name: '{refusal}'")


def _one_decision_has_no_interval(estimator: Estimator, seed: int) -> None:
    for estimate in evaluate(example(estimator, seed).part(slice(0, 1)), estimator):
        _demand((estimate.std_error, estimate.low, estimate.high) == (None, None, None), f"{estimate} has an interval")
        _demand(estimate.gate == "unreliable", f"one decision passes as {estimate.gate}")


def _json_has_no_nan(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed, n=30)
    for part in (evidence, evidence.part(slice(0, 1))):
        for estimate in evaluate(part, estimator):
            json.dumps(estimate.to_json(), allow_nan=False)
            _demand(estimate.value is not None or estimate.reason, "there is neither a value nor a reason")


def _constant_reward_is_certain(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    constant = 0.3
    same = np.full(len(evidence), constant)
    certain = replace(evidence, reward=same, q_logged=same, q_target=np.full((3, len(evidence)), constant))
    for estimate in evaluate(certain, estimator):
        _close(estimate.value, constant, ROUNDING, "the value of a constant reward")
        _demand(estimate.std_error == 0, f"a constant reward has the error {estimate.std_error}")


def _logging_policy_earns_the_mean(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    assert evidence.propensity is not None
    assert evidence.q_logged is not None
    three = np.ones((3, 1))
    same = replace(evidence, target=three * evidence.propensity, q_target=three * evidence.q_logged)
    for estimate in evaluate(same, estimator):
        _close(estimate.value, float(evidence.reward.mean()), ROUNDING, "the value of the logging policy")


def _no_weight_gives_no_number(estimator: Estimator, seed: int) -> None:
    evidence = example(estimator, seed)
    for estimate in evaluate(replace(evidence, target=np.zeros((3, len(evidence)))), estimator):
        _demand(estimate.value is None, f"no decision has weight, and yet the value is {estimate.value}")
        _demand(estimate.reason, "there is no number and no reason")


def _special_case_equals_the_simpler(estimator: Estimator, seed: int) -> None:
    simpler, no_model = SPECIAL_CASES[estimator.name]
    evidence = example(estimator, seed)
    if no_model:
        evidence = replace(evidence, q_logged=np.zeros(len(evidence)), q_target=np.zeros((3, len(evidence))))
    for ours, theirs in zip(evaluate(evidence, estimator), evaluate(evidence, simpler), strict=True):
        _close(ours.value, theirs.value, ROUNDING, f"the value of {simpler}")
        _close(ours.std_error, theirs.std_error, ROUNDING, f"the error of {simpler}")


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
