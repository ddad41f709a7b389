"""Blocks, shards, clusters, diagnostics, reward models."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators import (
    CrossFittedRidge,
    Diagnostics,
    Evidence,
    NormalEquations,
    assign_folds,
    evaluate,
    family,
    fold_shards,
    resolve,
)
from counterplay.estimators.diagnostics import gate
from counterplay.estimators.evidence import distinct
from counterplay.estimators.kernel import SEGMENT
from counterplay.estimators.pareto import pareto_k
from counterplay.estimators.statistic import BLOCK, statistic_of
from counterplay.estimators.weights import TAIL

NAMES = ("ips", "snips", "dr", "sndr", "clipped_ips(2)", "on_policy")


def _log(n: int, policies: int = 3, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    target = rng.random((policies, n)) ** 2
    return Evidence(
        reward=rng.random(n),
        propensity=rng.uniform(0.05, 1, n),
        target=target,
        q_logged=rng.random(n),
        q_target=rng.random((policies, n)),
    )


def test_many_blocks_equal_the_formulas() -> None:
    evidence = _log(3 * BLOCK + 17)
    weight, reward, n = evidence.weight, evidence.reward, len(evidence)
    assert evidence.q_target is not None
    correction = weight * (reward - evidence.q_logged)
    found = {(e.policy, e.estimator): e for e in evaluate(evidence, NAMES)}
    for p, policy in enumerate(evidence.policies):
        terms = weight[p] * reward
        ips, snips = found[policy, "ips"], found[policy, "snips"]
        assert ips.value == pytest.approx(terms.mean(), rel=1e-12)
        assert ips.std_error == pytest.approx(terms.std(ddof=1) / np.sqrt(n), rel=1e-12)
        ratio = terms.sum() / weight[p].sum()
        assert snips.value == pytest.approx(ratio, rel=1e-12)
        residual = (terms - ratio * weight[p]) / weight[p].mean()
        assert snips.std_error == pytest.approx(residual.std(ddof=1) / np.sqrt(n), rel=1e-9)
        dr = evidence.q_target[p] + correction[p]
        assert found[policy, "dr"].std_error == pytest.approx(dr.std(ddof=1) / np.sqrt(n), rel=1e-12)
        sndr = evidence.q_target[p].mean() + correction[p].sum() / weight[p].sum()
        assert found[policy, "sndr"].value == pytest.approx(sndr, rel=1e-12)


def test_a_stream_of_uneven_batches_in_any_order() -> None:
    evidence = _log(50_000)
    whole = evaluate(evidence, NAMES)
    cuts = [0, 1, 100, 20_000, 20_001, 50_000]
    parts = [evidence.part(slice(a, b)) for a, b in pairwise(cuts)]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1]):
        statistic = statistic_of(parts[order[0]], NAMES)
        for i in order[1:]:
            statistic = statistic.add(parts[i])
        for ours, theirs in zip(statistic.estimate(), whole, strict=True):
            assert ours.value == pytest.approx(theirs.value, rel=1e-12)
            assert ours.std_error == pytest.approx(theirs.std_error, rel=1e-12)
            assert ours.diagnostics.pareto_k == theirs.diagnostics.pareto_k
            assert ours.n == theirs.n


def test_clusters_that_straddle_shards() -> None:
    evidence = replace(_log(1000), cluster=np.random.default_rng(1).integers(-5, 90, 1000))
    left, right = evidence.part(slice(0, 333)), evidence.part(slice(333, 1000))
    merged = statistic_of(right, NAMES).merge(statistic_of(left, NAMES)).estimate()
    for ours, theirs in zip(merged, evaluate(evidence, NAMES), strict=True):
        assert ours.std_error == pytest.approx(theirs.std_error, rel=1e-11)
        assert ours.diagnostics.units == 95


def test_clustered_error_equals_the_formula() -> None:
    cluster = np.random.default_rng(1).integers(0, 50, 1000)
    evidence = replace(_log(1000, 1), cluster=cluster)
    estimate = evaluate(evidence, "ips")[0]
    terms = (evidence.weight[0] * evidence.reward) - estimate.value
    sums = np.bincount(cluster, weights=terms)
    assert estimate.std_error == pytest.approx(np.sqrt(50 / 49 * (sums**2).sum()) / 1000, rel=1e-10)


def test_t_is_wider_than_normal_and_they_meet() -> None:
    few, many = _log(40), _log(40_000)
    ratio = [
        (evaluate(e, "snips")[0].high - evaluate(e, "snips")[0].value)
        / (evaluate(e, "snips", interval="normal")[0].high - evaluate(e, "snips")[0].value)
        for e in (few, many)
    ]
    assert ratio[0] == pytest.approx(2.022691 / 1.959964, rel=1e-5)
    assert ratio[1] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_pareto_k_finds_the_shape(shape: float) -> None:
    n = 100_000
    weight = np.random.default_rng(3).random(n) ** -shape
    k, note = pareto_k(np.sort(weight)[-TAIL:], n)
    assert note == ""
    assert k == pytest.approx(shape, abs=0.1)


@pytest.mark.parametrize("values", [(0.0, 10.0), (0.0, 2.0, 5.0), (1.0,)])
def test_weights_of_few_values_have_no_tail(values: tuple[float, ...]) -> None:
    weight = np.random.default_rng(4).choice(values, 36_343, p=[0.9, 0.1] if len(values) == 2 else None)
    k, note = pareto_k(np.sort(weight[weight > 0])[-TAIL:], len(weight))
    assert k is None
    assert "few values" in note


def test_heavy_tail_is_unreliable() -> None:
    n = 50_000
    weight = 0.2 * np.random.default_rng(5).random(n) ** -0.8
    propensity = np.full(n, 1e-5)
    estimate = evaluate(Evidence(reward=np.ones(n), propensity=propensity, target=weight * propensity), "snips")[0]
    assert estimate.gate == "unreliable"
    assert estimate.diagnostics.pareto_k == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(
    ("seen", "estimator", "error", "gate_", "reason"),
    [
        ({}, "ips", 0.1, "ok", ""),
        ({"units": 1}, "ips", None, "unreliable", "1 independent unit"),
        ({"effective_sample_size": 99.0}, "ips", 0.1, "unreliable", "effective sample size is 99"),
        ({"largest_weight_share": 0.11}, "ips", 0.1, "unreliable", "11% of the weight"),
        ({"pareto_k": 0.71}, "ips", 0.1, "unreliable", "too heavy a tail"),
        ({"mean_weight": 0.89, "mean_weight_p": 1e-5}, "ips", 0.1, "unreliable", "mean weight is 0.89, not 1"),
        ({"mean_weight": 0.89, "mean_weight_p": 0.1}, "ips", 0.1, "ok", ""),
        ({"mean_weight": 1.001, "mean_weight_p": 1e-9}, "ips", 0.1, "ok", ""),
        ({"mean_weight": 0.49, "moved_weight": 0.51}, "clipped_ips(2)", 0.1, "unreliable", "moved 51%"),
        ({"mean_weight": 0.49, "moved_weight": 0.51}, "drps(2)", 0.1, "caution", "biased towards the model"),
        ({"mean_weight": 0.2, "mean_weight_p": None}, "replay", 0.1, "ok", ""),
        ({"effective_sample_size": 399.0}, "ips", 0.1, "caution", "effective sample size is 399"),
        ({"pareto_k": 0.51}, "ips", 0.1, "caution", "heavy tail"),
        ({"mean_weight": 1.03, "mean_weight_p": 1e-4}, "ips", 0.1, "caution", "a little off 1"),
        ({"mean_weight": 0.94, "moved_weight": 0.06}, "clipped_ips(2)", 0.1, "caution", "moved 6%"),
        ({"mean_weight": 1.0, "moved_weight": 0.04}, "subgaussian_ips(1)", 0.03, "caution", "may exceed the standard"),
        ({"mean_weight": 1.0, "moved_weight": 0.04}, "subgaussian_ips(1)", 0.05, "ok", ""),
        ({"units": 29}, "ips", 0.1, "caution", "29 independent units"),
        ({}, "ips", 0.0, "caution", "no variation"),
        ({}, "dm", 0.1, "caution", "model's error"),
    ],
)
def test_gate(seen: dict, estimator: str, error: float | None, gate_: str, reason: str) -> None:
    good = {"n": 1000, "units": 1000, "effective_sample_size": 500.0, "largest_weight_share": 0.01, "mean_weight": 1.0}
    found = gate(Diagnostics(**(good | {"mean_weight_p": 0.5} | seen)), resolve(estimator), error, 1.0)
    assert found[0] == gate_
    assert reason in found[1]
    assert bool(found[1]) == (gate_ != "ok")


def test_statistics_travel_between_processes() -> None:
    every = (*NAMES, "dm", "dros(10)", "switch_dr(2)", "subgaussian_ips(0.1)")
    statistic = statistic_of(_log(500), every)
    assert pickle.loads(pickle.dumps(statistic)).estimate() == statistic.estimate()  # noqa: S301


def test_uniform_log_of_deterministic_policy_is_ok() -> None:
    rng = np.random.default_rng(6)
    n = 36_343
    evidence = Evidence(
        reward=rng.random(n) < 0.3, propensity=np.full(n, 0.1), target=(rng.random(n) < 0.1).astype(float)
    )
    for estimate in evaluate(evidence, ("ips", "snips")):
        assert (estimate.gate, estimate.reason) == ("ok", "")
        assert estimate.diagnostics.share_zero_weight == pytest.approx(0.9, abs=0.01)
        assert estimate.diagnostics.share_without_support == 0


def test_the_order_of_estimates() -> None:
    found = evaluate(_log(50, 2), ("snips", "ips", "snipw"))
    assert [(e.policy, e.estimator) for e in found] == [
        ("policy 0", "snips"),
        ("policy 0", "ips"),
        ("policy 1", "snips"),
        ("policy 1", "ips"),
    ]


def test_folds_are_pure_and_keep_clusters_together() -> None:
    folds = assign_folds(10_000, 5, seed=1)
    assert np.bincount(folds).min() > 1800
    assert np.array_equal(folds[4000:], assign_folds(6000, 5, seed=1, start=4000))
    assert not np.array_equal(folds, assign_folds(10_000, 5, seed=2))
    cluster = np.random.default_rng(0).integers(0, 300, 5000)
    by_cluster = assign_folds(5000, 4, cluster)
    assert all(len(set(by_cluster[cluster == c])) == 1 for c in range(300))


def test_ridge_never_sees_its_own_fold_and_equals_the_formula() -> None:
    rng = np.random.default_rng(0)
    x, fold = rng.normal(size=(300, 4)), np.arange(300) % 3
    reward = x @ [1, 2, 0, -1] + 5 + rng.normal(size=300)
    model = CrossFittedRidge(x, reward, fold, alpha=2.0)
    for k in range(3):
        others = fold != k
        centred = x[others] - x[others].mean(axis=0)
        w = np.linalg.solve(centred.T @ centred + 2.0 * np.eye(4), centred.T @ reward[others])
        b = reward[others].mean() - x[others].mean(axis=0) @ w
        assert model.predict(x[fold == k], fold[fold == k]) == pytest.approx(x[fold == k] @ w + b, rel=1e-9)


def test_ridge_sums_merge() -> None:
    rng = np.random.default_rng(0)
    x, reward, fold = rng.normal(size=(9000, 3)), rng.normal(size=9000), np.arange(9000) % 2
    whole = CrossFittedRidge(x, reward, fold)
    left = NormalEquations.empty(2, 3).add(x[:10], reward[:10], fold[:10])
    right = NormalEquations.empty(2, 3).add(x[10:], reward[10:], fold[10:])
    merged = CrossFittedRidge.from_sums(right.merge(left))
    assert merged.coefficients == pytest.approx(whole.coefficients, rel=1e-10)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"alpha": 0.0}, ConfigurationError, "above 0"),
        ({"fold": np.zeros(10, int)}, EvidenceError, "All decisions are in fold 0"),
        ({"fold": np.linspace(0, 1, 10)}, EvidenceError, "integers from 0"),
        ({"fold": np.arange(10) - 1}, EvidenceError, "integers from 0"),
        ({"reward": np.zeros(9)}, EvidenceError, "do not fit"),
        ({"features": np.full((10, 2), np.nan)}, EvidenceError, "NaN"),
        ({"features": np.zeros((0, 2))}, EvidenceError, "at least one decision"),
    ],
)
def test_ridge_refuses(changes: dict, error: type[Exception], message: str) -> None:
    good = {"features": np.ones((10, 2)), "reward": np.ones(10), "fold": np.arange(10) % 2, "alpha": 1.0}
    with pytest.raises(error, match=message):
        CrossFittedRidge(**(good | changes))


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 2"):
        assign_folds(10, 1)


def test_weights_shrunk_to_one_do_not_pass_for_an_estimate() -> None:
    """Every weight near 1 looks like a log of 2,000 effective decisions, and its value is that of the log."""
    rng = np.random.default_rng(6)
    n = 2000
    propensity = rng.uniform(0.01, 0.5, n)
    target = propensity * np.where(rng.random(n) < 0.5, 1.99, 0.01)
    evidence = Evidence(reward=rng.random(n), propensity=propensity, target=target)
    found = evaluate(evidence, "subgaussian_ips(1)")[0]
    assert found.diagnostics.effective_sample_size == pytest.approx(n)
    assert found.gate == "unreliable"
    assert "shrinking moved" in found.reason


def test_clustered_logs_know_what_shrinking_moved_too() -> None:
    evidence = _log(500)
    clustered = replace(evidence, cluster=np.arange(500) // 2)
    for one, other in zip(evaluate(evidence, "dros(2)"), evaluate(clustered, "dros(2)"), strict=True):
        expected = np.abs(evidence.weight - resolve("dros(2)").terms(evidence).weight).mean(axis=1)
        place = evidence.policies.index(one.policy)
        assert one.diagnostics.moved_weight == pytest.approx(expected[place], rel=1e-12)
        assert other.diagnostics.moved_weight == pytest.approx(expected[place], rel=1e-12)


@pytest.mark.parametrize("rows", [3001, 2 * SEGMENT + 777], ids=["policies are shared out", "rows are shared out"])
def test_threads_change_no_bit(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = _log(rows)
    names = (*NAMES[:-1], "clipped_ips(3)", "subgaussian_ips(0.1)", "switch_dr(2)", "dros(5)", "cressie_read")
    monkeypatch.setattr(family, "PARALLEL", 0)
    found = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert len(family._shares(-(-rows // SEGMENT), 3, 1)) == cores
        statistic = statistic_of(evidence, names)
        found.append((statistic.estimate(), [sums.tail[0].tolist() for sums in statistic.weights.values()]))
    assert found[0] == found[1] == found[2]
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    alone = statistic_of(evidence.part(slice(None), slice(1, 2)), names).estimate()
    assert alone == [one for one in found[0][0] if one.policy == evidence.policies[1]]


def test_segments_equal_the_formulas() -> None:
    evidence = _log(2 * SEGMENT + 777, policies=1)
    terms = evidence.weight[0] * evidence.reward
    (ips,) = evaluate(evidence, "ips")
    assert ips.value == pytest.approx(terms.mean(), rel=1e-12)
    assert ips.std_error == pytest.approx(terms.std(ddof=1) / np.sqrt(len(terms)), rel=1e-12)
    (tail,) = statistic_of(evidence, "ips").weights["importance"].tail
    assert tail.tolist() == pytest.approx(np.sort(evidence.weight[0])[-TAIL:].tolist(), rel=1e-15)
    assert ips.diagnostics.largest_weight == tail[-1]


@given(codes=st.lists(st.integers(-5, 5)), kind=st.sampled_from([np.int64, np.uint64, np.float64]))
def test_the_different_ones_of_some_codes_are_those_that_numpy_finds(codes: list[int], kind: type) -> None:
    values = np.abs(np.array(codes)).astype(kind)
    np.testing.assert_array_equal(distinct(values), np.unique(values))


@pytest.mark.parametrize("order", ["none", "as they appear", "straddling", "scattered"])
@pytest.mark.parametrize("count", [1, 2, 7, 13])
def test_shards_folded_one_after_the_other_are_the_whole(order: str, count: int) -> None:
    n = 1300
    codes = {
        "none": None,
        "as they appear": np.arange(n) // 3,
        # Every shard has decisions of clusters that began long before.
        "straddling": np.minimum(np.arange(n) // 2, np.random.default_rng(1).integers(0, n, n)),
        "scattered": np.random.default_rng(2).integers(0, 400, n),
    }[order]
    whole = replace(_log(n), cluster=codes)
    shards = (whole.part(slice(rows[0], rows[-1] + 1)) for rows in np.array_split(np.arange(n), count))
    found = fold_shards(shards, NAMES).estimate()
    for one, other in zip(found, evaluate(whole, NAMES), strict=True):
        assert (one.value, one.std_error) == pytest.approx((other.value, other.std_error), rel=1e-12)
        assert one.diagnostics.units == other.diagnostics.units


def test_of_no_shards_there_is_no_statistic() -> None:
    with pytest.raises(EvidenceError, match="no shard"):
        fold_shards([], "ips")


SEVERAL = """
import numpy as np
from counterplay.estimators import Evidence, evaluate
rng, n = np.random.default_rng(0), 18_172
chance, target = np.full(n, 0.1), (rng.random((12, n)) < 0.3).astype(float)
reward, q_logged, q_target = (rng.random(n) < 0.2) * 1.0, 0.3 * rng.random(n), 0.3 * rng.random((12, n))
evidence = Evidence(reward=reward, propensity=chance, target=target, q_logged=q_logged, q_target=q_target)
names = ("ips", "snips", "cressie_read", "dr", "sndr", "clipped_ips(2)", "switch_dr(5)", "dros(10)", "drps(3)")
print(evaluate(evidence, names))
"""


@pytest.mark.slow
def test_the_run_that_compiles_gives_the_bits_of_later_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SEVERAL]
    first, second = (subprocess.run(command, env=environment, capture_output=True, check=True) for _ in range(2))
    assert list(tmp_path.rglob("*.nbc"))
    assert first.stdout == second.stdout
