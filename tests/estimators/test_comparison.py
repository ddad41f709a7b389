"""Comparison: differences, simultaneous intervals, who may be best, and plans."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, MissingEvidenceError
from counterplay.estimators import (
    Difference,
    Evidence,
    compare,
    compare_all,
    decisions_needed,
    evaluate,
    minimal_detectable_effect,
    rank_policies,
    two_sample_error,
)
from counterplay.estimators.checks import example
from counterplay.estimators.comparison.simultaneous import holm
from counterplay.estimators.influence import BLOCK, influences
from counterplay.estimators.table import resolve

ESTIMATORS = ("ips", "snips", "dr", "sndr", "dm", "on_policy", "clipped_snips(2)", "switch_dr(2)", "dros(10)")


def _race(n: int = 4000, policies: int = 6, lift: float = 0.0, seed: int = 0) -> Evidence:
    rng = np.random.default_rng(seed)
    reward = (rng.random(n) < 0.3).astype(float)
    propensity = np.full(n, 0.5)
    target = np.clip(0.5 + 0.2 * rng.standard_normal((policies, n)), 0, 1)
    target[1] = np.clip(target[1] + lift * (reward - 0.3), 0, 1)
    return Evidence(reward=reward, propensity=propensity, target=target)


def _modelled(q_target: np.ndarray, **more: object) -> Evidence:
    """Evidence whose 'dm' values are the means of the rows of q_target, on the same decisions."""
    return Evidence(reward=np.zeros(q_target.shape[1]), target=np.zeros(q_target.shape), q_target=q_target, **more)


def _normal(n: int, means: np.ndarray, rng: np.random.Generator) -> Evidence:
    """Normal values of P policies that share a part of their luck, and have unequal spreads."""
    spread = np.linspace(0.2, 2, len(means))[:, None]
    return _modelled(means[:, None] + rng.normal(size=n) + spread * rng.normal(size=(len(means), n)))


def _numbers(difference: Difference) -> dict:
    return {key: value for key, value in difference.to_json().items() if key not in ("policy", "baseline", "reason")}


# Influences


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("name", [*ESTIMATORS, "replay", "cressie_read", "clipped_ips(slope)"])
def test_influences_add_up_to_nothing_and_their_squares_to_the_error(name: str, clustered: bool) -> None:
    evidence = example(resolve(name), seed=3, n=2 * BLOCK + 5)
    if clustered:
        evidence = replace(evidence, cluster=np.random.default_rng(0).integers(-7, 600, len(evidence)))
    blocks = list(influences(evidence, name))
    assert max(block.shape[1] for block in blocks) <= BLOCK
    influence = np.concatenate(blocks, axis=1)
    units = influence.shape[1]
    assert units == (607 if clustered else len(evidence))
    for row, estimate in zip(influence, evaluate(evidence, name), strict=True):
        assert abs(row.mean()) < 1e-9 * np.abs(row).max()
        error = np.sqrt((row**2).sum() / (units * (units - 1)))
        if estimate.diagnostics.chosen:
            # The bias of what a rule chose is hidden from influences, so the error is no less than without shrinkage.
            assert error <= estimate.std_error * (1 + 1e-9)
        else:
            assert error == pytest.approx(estimate.std_error, rel=1e-9)


def test_an_influence_is_what_leaving_a_decision_out_shows() -> None:
    evidence = _race(300, 2)
    values = np.array([e.value for e in evaluate(evidence, "snips")])
    (influence,) = influences(evidence, "snips")
    for i in (0, 17, 299):
        rows = np.delete(np.arange(300), i)
        rest = replace(
            evidence, reward=evidence.reward[rows], propensity=np.full(299, 0.5), target=evidence.target[:, rows]
        )
        left = np.array([e.value for e in evaluate(rest, "snips")])
        assert (values - left) * 299 == pytest.approx(influence[:, i], rel=0.02)


def test_clusters_of_one_decision_are_no_clusters() -> None:
    evidence = _race(500)
    alone = replace(evidence, cluster=np.random.default_rng(0).permutation(500))
    assert compare(alone, "policy 0") == compare(evidence, "policy 0")
    assert rank_policies(alone) == rank_policies(evidence)


# Against a baseline


def test_differences_are_paired() -> None:
    evidence = _race(lift=0.3)
    found = compare(evidence, "policy 0", "ips")
    terms = evidence.weight * evidence.reward
    for p, difference in enumerate(found, start=1):
        d = terms[p] - terms[0]
        assert difference.policy == f"policy {p}"
        assert difference.value == pytest.approx(d.mean(), rel=1e-9)
        assert difference.std_error == pytest.approx(d.std(ddof=1) / np.sqrt(len(d)), rel=1e-9)
        assert difference.low_all < difference.low < difference.high < difference.high_all
        assert difference.p_value <= difference.p_max_t <= 1
        assert difference.p_value <= difference.p_holm <= 1
        json.dumps(difference.to_json(), allow_nan=False)
    assert found[0].p_holm < 1e-6
    own = {e.policy: e for e in evaluate(evidence, "ips")}
    for difference in found[1:]:
        unpaired = np.hypot(own["policy 0"].std_error, own[difference.policy].std_error)
        assert difference.std_error < 0.6 * unpaired


def test_the_same_seed_gives_the_same_bytes() -> None:
    evidence = _race()
    assert compare(evidence, "policy 0", seed=3) == compare(evidence, "policy 0", seed=3)
    assert compare(evidence, "policy 0", seed=3) != compare(evidence, "policy 0", seed=4)


@pytest.mark.slow
def test_simultaneous_intervals_bound_the_chance_of_any_error() -> None:
    draws = 300
    wrong = {"each": 0, "all": 0, "holm": 0}
    for seed in range(draws):
        found = compare(_race(1000, 8, seed=seed), "policy 0", "snips", seed=seed, draws=2000)
        wrong["each"] += any(d.low > 0 or d.high < 0 for d in found)
        wrong["all"] += any(d.low_all > 0 or d.high_all < 0 for d in found)
        wrong["holm"] += any(d.p_holm < 0.05 for d in found)
    limit = 0.05 + 4 * np.sqrt(0.05 * 0.95 / draws)
    assert wrong["all"] / draws < limit
    assert wrong["holm"] / draws < limit
    assert wrong["each"] / draws > limit


@pytest.mark.slow
def test_simultaneous_coverage_is_the_level() -> None:
    rng, means, runs = np.random.default_rng(0), np.array([0.0, 0.1, 0.1, -0.3, 0.2]), 1500
    held = {"baseline": 0, "pairs": 0, "values": 0, "ranks": 0, "best": 0}
    rank = {f"policy {p}": 1 + int((means > means[p]).sum()) for p in range(5)}
    for run in range(runs):
        evidence = _normal(50, means, rng)
        true = dict(zip(evidence.policies, means, strict=True))
        for name, found in (
            ("baseline", compare(evidence, "policy 0", "dm", seed=run, draws=1000)),
            ("pairs", compare_all(evidence, "dm", seed=run, draws=1000)),
        ):
            held[name] += all(d.low_all <= true[d.policy] - true[d.baseline] <= d.high_all for d in found)
        standings = rank_policies(evidence, "dm", seed=run, draws=1000)
        held["values"] += all(s.low_all <= true[s.policy] <= s.high_all for s in standings)
        held["ranks"] += all(s.best_rank <= rank[s.policy] <= s.worst_rank for s in standings)
        held["best"] += next(s.may_be_best for s in standings if s.policy == "policy 4")
    for exact in ("baseline", "pairs", "values"):
        assert 0.935 <= held[exact] / runs <= 0.965
    assert held["ranks"] / runs >= 0.95
    assert held["best"] / runs >= 0.95


@pytest.mark.slow
def test_the_best_of_equals_is_kept_as_often_as_promised() -> None:
    rng, runs = np.random.default_rng(1), 1500
    kept = np.zeros(4)
    for run in range(runs):
        for standing in rank_policies(_normal(40, np.zeros(4), rng), "dm", seed=run, draws=1000):
            kept[int(standing.policy[-1])] += standing.may_be_best
    # All four are best, so each must be kept with 95 %, and no more is needed.
    assert np.all((kept / runs >= 0.935) & (kept / runs <= 0.965))


def test_critical_values_are_those_of_the_tables() -> None:
    from scipy.stats import studentized_range

    evidence = _modelled(np.random.default_rng(0).normal(size=(6, 40_000)))
    one, *_ = compare(evidence, "policy 0", "dm", draws=100_000)
    # Dunnett 1964, two-sided, 5 comparisons, infinite degrees of freedom.
    assert (one.high_all - one.value) / one.std_error == pytest.approx(2.51, rel=0.01)
    one, *_ = compare_all(evidence, "dm", draws=100_000)
    tukey = studentized_range.ppf(0.95, 6, np.inf) / np.sqrt(2)
    assert (one.high_all - one.value) / one.std_error == pytest.approx(tukey, rel=0.01)


def test_few_units_make_wider_intervals() -> None:
    from scipy.stats import studentized_range, t

    columns = np.column_stack([np.ones(13), np.random.default_rng(0).normal(size=(13, 4))])
    uncorrelated = np.linalg.qr(columns)[0][:, 1:].T
    one, *_ = compare_all(_modelled(uncorrelated), "dm", draws=100_000)
    # With an error of its own for each of the six pairs: more than Tukey's pooled one, less than Bonferroni.
    tukey, bonferroni = studentized_range.ppf(0.95, 4, 12) / np.sqrt(2), t.ppf(1 - 0.025 / 6, 12)
    assert tukey < (one.high_all - one.value) / one.std_error < bonferroni


@pytest.mark.slow
@pytest.mark.parametrize(("units", "policies", "shared"), [(12, 8, 0.0), (30, 8, 3.0), (30, 20, 0.0)])
def test_few_units_keep_the_coverage(units: int, policies: int, shared: float) -> None:
    rng, runs = np.random.default_rng(5), 600
    held = {"pairs": 0, "baseline": 0}
    direction = np.linspace(-shared, shared, policies)[:, None]
    for run in range(runs):
        evidence = _modelled(rng.normal(size=(policies, units)) + direction * rng.normal(size=units))
        for name, found in (
            ("pairs", compare_all(evidence, "dm", seed=run, draws=1000)),
            ("baseline", compare(evidence, "policy 0", "dm", seed=run, draws=1000)),
        ):
            held[name] += all(d.low_all <= 0 <= d.high_all for d in found)
    noise = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert all(0.95 - noise <= count / runs <= 0.985 + noise / 2 for count in held.values())


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.0, 0.5])) == pytest.approx([1.0, 0.0, 1.0])
    found = compare_all(_race(lift=0.1))
    order = sorted(range(len(found)), key=lambda k: found[k].p_value)
    largest = 0.0
    for step, k in enumerate(order):
        largest = max(largest, min(1.0, found[k].p_value * (len(found) - step)))
        assert found[k].p_holm == pytest.approx(largest, rel=1e-12)


@pytest.mark.parametrize("estimator", ["snips", "dm"])
def test_clustered_comparison_equals_duplicated_rows(estimator: str) -> None:
    evidence = replace(_race(500), q_target=np.random.default_rng(1).random((6, 500)))
    rows = np.repeat(np.arange(500), 3)
    thrice = Evidence(
        reward=evidence.reward[rows],
        propensity=np.full(1500, 0.5),
        target=evidence.target[:, rows],
        q_target=evidence.q_target[:, rows],
        cluster=rows,
    )
    for function in (compare_all, lambda e, name: compare(e, "policy 0", name)):
        for one, three in zip(function(evidence, estimator), function(thrice, estimator), strict=True):
            assert three.std_error == pytest.approx(one.std_error, rel=1e-9)
            assert three.p_value == pytest.approx(one.p_value, rel=1e-8)
            assert three.p_max_t == pytest.approx(one.p_max_t, abs=2e-4)
            assert three.largest_influence_share == pytest.approx(one.largest_influence_share, rel=1e-9)
            assert three.decisions_to_settle == pytest.approx(3 * one.decisions_to_settle, rel=1e-3, abs=3)
    for one, three in zip(rank_policies(evidence, estimator), rank_policies(thrice, estimator), strict=True):
        assert (one.policy, one.best_rank, one.worst_rank) == (three.policy, three.best_rank, three.worst_rank)
        assert three.probability_best == pytest.approx(one.probability_best, abs=2e-4)


def test_clusters_that_share_luck_are_wider() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 100, 5000)
    together = _modelled(rng.normal(size=(2, 100))[:, cluster] + rng.normal(size=(2, 5000)))
    (alone,), (clustered,) = (compare_all(e, "dm") for e in (together, replace(together, cluster=cluster)))
    assert clustered.std_error > 3 * alone.std_error
    sums = np.bincount(cluster, weights=together.q_target[1] - together.q_target[0] - alone.value)
    assert clustered.std_error == pytest.approx(np.sqrt(100 / 99 * (sums**2).sum()) / 5000, rel=1e-9)


# Equal policies, constants, rounding


def test_a_policy_equal_to_the_baseline() -> None:
    evidence = _race(policies=2)
    same = replace(evidence, target=np.stack([evidence.target[0]] * 2))
    for (difference,) in (compare(same, "policy 0"), compare_all(same)):
        assert (difference.value, difference.std_error, difference.low_all, difference.high_all) == (0, 0, 0, 0)
        assert (difference.p_value, difference.p_holm, difference.p_max_t) == (1, 1, 1)
        assert (difference.decisions_to_settle, difference.largest_influence_share) == (None, None)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_policy_twice_among_others(estimator: str) -> None:
    evidence = example(resolve(estimator), seed=1, n=3 * BLOCK + 11, policies=5)
    again = np.array([3, 0, 1, 2, 3, 4, 1, 3])
    doubled = replace(
        evidence, target=evidence.target[again], q_target=evidence.q_target[again], policies=tuple("abcdefgh")
    )
    twins = {("e", "a"), ("h", "a"), ("h", "e"), ("g", "c")}
    found = {(d.policy, d.baseline): d for d in compare_all(doubled, estimator, draws=500)}
    for pair in twins:
        assert (found[pair].value, found[pair].low_all, found[pair].high_all) == (0, 0, 0)
        assert (found[pair].p_value, found[pair].p_max_t) == (1, 1)
    if estimator != "on_policy":
        assert all(d.std_error > 0 for pair, d in found.items() if pair not in twins)
    standing = {s.policy: s for s in rank_policies(doubled, estimator, draws=500)}
    assert standing["a"].probability_best == standing["e"].probability_best == standing["h"].probability_best
    assert standing["c"].probability_best == standing["g"].probability_best


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_a_constant_difference_has_no_width(offset: float) -> None:
    q = np.random.default_rng(0).normal(size=20_000) + offset
    evidence = _modelled(np.stack([q, q + 0.5, q - 0.25]))
    for found in (compare(evidence, "policy 0", "dm"), compare_all(evidence, "dm")):
        for difference in found:
            assert difference.std_error == 0
            assert difference.low_all == difference.value == difference.high_all
            assert (difference.p_value, difference.decisions_to_settle) == (0, 0)
    best, middle, worst = rank_policies(evidence, "dm")
    assert [s.policy for s in (best, middle, worst)] == ["policy 1", "policy 0", "policy 2"]
    assert (best.probability_best, middle.probability_best, worst.probability_best) == (1, 0, 0)
    assert (best.expected_regret, middle.expected_regret) == (0, pytest.approx(0.5))
    assert (best.may_be_best, middle.may_be_best) == (True, False)
    assert [(s.best_rank, s.worst_rank) for s in (best, middle, worst)] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("estimator", ["snips", "sndr", "replay"])
@pytest.mark.parametrize("reward", [0.3, -7.0, 1e6])
def test_a_constant_reward_makes_all_policies_equal(estimator: str, reward: float) -> None:
    evidence = example(resolve(estimator), seed=2, n=5000)
    same = np.full(5000, reward)
    evidence = replace(evidence, reward=same, q_logged=same, q_target=np.full((3, 5000), reward))
    for difference in (*compare(evidence, "policy 0", estimator), *compare_all(evidence, estimator)):
        assert (difference.value, difference.std_error, difference.p_value) == (0, 0, 1)
    for standing in rank_policies(evidence, estimator):
        assert standing.probability_best == pytest.approx(1 / 3)
        assert (standing.expected_regret, standing.may_be_best) == (0, True)


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9])
def test_policies_that_are_nearly_the_same_keep_their_digits(small: float) -> None:
    rng = np.random.default_rng(0)
    q, noise = rng.normal(size=30_000), rng.normal(size=30_000)
    evidence = _modelled(np.stack([q, q + small * noise, rng.normal(size=30_000)]))
    near, *far = compare_all(evidence, "dm")
    d = evidence.q_target[1] - evidence.q_target[0]
    assert near.std_error == pytest.approx(d.std(ddof=1) / np.sqrt(len(d)), rel=1e-6)
    assert compare(evidence, "policy 0", "dm")[0].std_error == pytest.approx(near.std_error, rel=1e-6)
    # Near twins must not swell the simultaneous intervals: they stay below those of three unrelated pairs.
    assert 1.95 < (far[0].high_all - far[0].value) / far[0].std_error < 2.4


@pytest.mark.parametrize("estimator", ["ips", "snips"])
def test_many_blocks_and_policies_equal_the_formula(estimator: str) -> None:
    rng = np.random.default_rng(3)
    n, policies = 3 * BLOCK + 17, 40
    reward, target = rng.normal(size=n), rng.random((policies, n))
    evidence = Evidence(reward=reward, propensity=np.full(n, 0.5), target=target)
    weight = evidence.weight
    value = (weight * reward).sum(axis=1) / (weight.sum(axis=1) if estimator == "snips" else n)
    influence = weight * reward - value[:, None]
    if estimator == "snips":
        influence = weight * (reward - value[:, None]) / weight.mean(axis=1)[:, None]
    found = compare_all(evidence, estimator, draws=200)
    assert len(found) == policies * (policies - 1) // 2
    for one, (i, j) in zip(found, combinations(range(policies), 2), strict=True):
        d = influence[j] - influence[i]
        assert (one.policy, one.baseline) == (f"policy {j}", f"policy {i}")
        assert one.std_error == pytest.approx(d.std(ddof=1) / np.sqrt(n), rel=1e-9)
        assert one.largest_influence_share == pytest.approx((d**2).max() / (d**2).sum(), rel=1e-9)


# Relabelling, adding


@pytest.mark.parametrize("estimator", ["snips", "dr"])
def test_relabelling_permutes_the_results_exactly(estimator: str) -> None:
    evidence = example(resolve(estimator), seed=5, n=900, policies=6)
    order = np.array([4, 2, 0, 5, 1, 3])
    names = tuple("fbdaec")
    other = replace(evidence, target=evidence.target[order], q_target=evidence.q_target[order], policies=names)
    new = {f"policy {old}": name for old, name in zip(order, names, strict=True)}
    ours = {new[d.policy]: _numbers(d) for d in compare(evidence, "policy 2", estimator)}
    assert ours == {d.policy: _numbers(d) for d in compare(other, new["policy 2"], estimator)}
    pairs = {(d.policy, d.baseline): d for d in compare_all(other, estimator)}
    for one in compare_all(evidence, estimator):
        same = pairs.get((new[one.policy], new[one.baseline]))
        if same is not None:
            assert _numbers(same) == _numbers(one)
            continue
        turned = pairs[new[one.baseline], new[one.policy]]
        assert (turned.value, turned.low_all, turned.high) == (-one.value, -one.high_all, -one.low)
        assert (turned.p_max_t, turned.p_holm, turned.std_error) == (one.p_max_t, one.p_holm, one.std_error)
    standings = [(new[s.policy], {**s.to_json(), "policy": ""}) for s in rank_policies(evidence, estimator)]
    assert standings == [(s.policy, {**s.to_json(), "policy": ""}) for s in rank_policies(other, estimator)]


def test_more_policies_never_narrow() -> None:
    evidence = _race(2000, 33, seed=2)
    widths = {"baseline": [], "pairs": [], "values": []}
    for count in (2, 3, 5, 9, 17, 33):
        part = evidence.part(slice(None), slice(0, count))
        for name, one in (("baseline", compare(part, "policy 0")[0]), ("pairs", compare_all(part)[0])):
            widths[name].append((one.high_all - one.low_all) / one.std_error)
        one = next(s for s in rank_policies(part) if s.policy == "policy 0")
        widths["values"].append((one.high_all - one.low_all) / one.std_error)
    for found in widths.values():
        assert found == sorted(found)
        assert found[-1] > 1.1 * found[0]
    alone, *_ = compare(evidence.part(slice(None), slice(0, 2)), "policy 0")
    assert (alone.low, alone.high, alone.p_value) == (alone.low_all, alone.high_all, alone.p_holm)


def test_pairs_are_wider_than_a_baseline() -> None:
    evidence = _race(2000, 10)
    against, every = compare(evidence, "policy 0"), compare_all(evidence)
    for one, pair in zip(against, every, strict=False):
        assert (one.policy, one.baseline) == (pair.policy, pair.baseline)
        assert pair.std_error == pytest.approx(one.std_error, rel=1e-9)
        assert pair.high_all > one.high_all
        assert pair.p_holm >= one.p_holm


def test_many_pairs_need_little_memory() -> None:
    evidence = _race(300, 100)
    compare_all(evidence, draws=100)
    tracemalloc.start()
    found = compare_all(evidence)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 4950
    assert peak < 60e6  # 20,000 draws of 4,950 pairs would be 792e6


# Who is best


def test_probabilities_and_ranks_of_two_follow_the_formulas() -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    evidence = _normal(4000, np.array([0.0, 0.03]), rng)
    (difference,) = compare_all(evidence, "dm")
    z = difference.value / difference.std_error
    standing = {s.policy: s for s in rank_policies(evidence, "dm", draws=40_000)}
    assert 0.5 < abs(z) < 3
    assert standing["policy 1"].probability_best == pytest.approx(norm.cdf(z), abs=0.01)
    assert sum(s.probability_best for s in standing.values()) == pytest.approx(1)
    regret = difference.std_error * (norm.pdf(z) - z * norm.cdf(-z))
    assert standing["policy 1"].expected_regret == pytest.approx(regret, rel=0.05)
    assert standing["policy 0"].expected_regret == pytest.approx(regret + difference.value, rel=0.02)
    own = evaluate(evidence, "dm")[1]
    assert standing["policy 1"].low_all < own.low < own.high < standing["policy 1"].high_all


def test_identical_policies_share_the_first_place() -> None:
    evidence = _race(policies=2, n=500)
    five = replace(evidence, target=evidence.target[[0] * 5], policies=tuple("abcde"))
    for standing in rank_policies(five):
        assert standing.probability_best == pytest.approx(0.2, rel=1e-12)
        assert (standing.expected_regret, standing.may_be_best) == (0, True)
        assert (standing.best_rank, standing.worst_rank) == (1, 5)
    assert [s.policy for s in rank_policies(five)] == list("abcde")


def test_the_clear_winner_and_the_clear_loser() -> None:
    evidence = _normal(4000, np.array([0.0, -3.0, 0.01, 3.0]), np.random.default_rng(0))
    found = rank_policies(evidence, "dm")
    assert [s.policy for s in found][0::3] == ["policy 3", "policy 1"]
    assert [(s.best_rank, s.worst_rank) for s in found] == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert [s.may_be_best for s in found] == [True, False, False, False]
    assert [s.probability_best for s in found] == [1, 0, 0, 0]
    assert found[0].expected_regret == 0
    assert all(s.expected_regret == pytest.approx(3, abs=0.7) for s in found[1:3])
    for standing in found:
        json.dumps(standing.to_json(), allow_nan=False)


def test_the_policies_that_may_be_best_are_fewer_than_pairs_leave() -> None:
    evidence = _normal(300, np.linspace(0, 0.6, 12), np.random.default_rng(4))
    found = rank_policies(evidence, "dm")
    kept = [s for s in found if s.may_be_best]
    assert 1 <= len(kept) < len(found)
    assert found[0].may_be_best
    assert sum(s.best_rank == 1 for s in found) >= len(kept)


@pytest.mark.slow
def test_the_probability_of_being_best_is_calibrated() -> None:
    # Truths as good as flat: spread over many standard errors.
    rng, said, was = np.random.default_rng(7), [], []
    for run in range(2000):
        means = rng.uniform(-0.5, 0.5, 3)
        for standing in rank_policies(_normal(200, means, rng), "dm", seed=run, draws=1000):
            said.append(standing.probability_best)
            was.append(means[int(standing.policy[-1])] == means.max())
    bins = np.clip((np.array(said) * 5).astype(int), 0, 4)
    for place in range(5):
        inside = bins == place
        assert inside.sum() > 100
        error = np.sqrt(0.25 / inside.sum())
        assert np.mean(np.array(was)[inside]) == pytest.approx(np.mean(np.array(said)[inside]), abs=3.5 * error)


# Gates, fragile differences, what has no number


def test_a_policy_without_weight_has_no_difference() -> None:
    evidence = _race(policies=3)
    target = evidence.target.copy()
    target[2] = 0
    missing = replace(evidence, target=target)
    first, second = compare(missing, "policy 0")
    assert first.value is not None
    assert (second.value, second.low, second.p_holm, second.gate) == (None, None, None, "unreliable")
    assert (second.decisions_to_settle, second.largest_influence_share) == (None, None)
    assert second.reason.startswith("policy 2: no logged decision")
    assert [d.value is None for d in compare_all(missing)] == [False, True, True]
    assert first.std_error == compare(missing.part(slice(None), slice(0, 2)), "policy 0")[0].std_error
    assert all(d.value is None for d in compare(missing, "policy 2"))
    *two, none = rank_policies(missing)
    assert (none.policy, none.may_be_best, none.best_rank, none.probability_best) == ("policy 2", None, None, None)
    assert {s.worst_rank for s in two} == {2}
    assert sum(s.probability_best for s in two) == pytest.approx(1)


def test_one_decision_or_one_policy() -> None:
    evidence = _race(policies=3)
    one = evidence.part(slice(0, 1))
    for difference in (*compare(one, "policy 0"), *compare_all(one)):
        assert difference.value is not None
        assert (difference.std_error, difference.low_all, difference.p_value, difference.gate) == (
            None, None, None, "unreliable",
        )  # fmt: skip
    assert all(s.may_be_best is None and s.value is not None for s in rank_policies(one))
    alone = evidence.part(slice(None), slice(0, 1))
    assert compare(alone, "policy 0") == compare_all(alone) == []
    (standing,) = rank_policies(alone)
    (estimate,) = evaluate(alone, "snips")
    assert (standing.probability_best, standing.expected_regret, standing.may_be_best) == (1, 0, True)
    assert (standing.best_rank, standing.worst_rank) == (1, 1)
    assert (standing.low_all, standing.high_all) == pytest.approx((estimate.low, estimate.high), rel=1e-12)


def test_a_difference_that_hangs_on_one_unit_is_fragile() -> None:
    rng = np.random.default_rng(0)
    evidence = _race(3000, 2, seed=1)
    assert compare(evidence, "policy 0", "ips")[0].gate == "ok"
    target = evidence.target.copy()
    target[1] = target[0] + 1e-4 * rng.normal(size=3000)
    target[1, 5], reward = 1.0, evidence.reward.copy()
    target[0, 5], reward[5] = 0.2, 1.0
    evidence = replace(evidence, target=np.clip(target, 0, 1), reward=reward)
    assert all(e.gate == "ok" for e in evaluate(evidence, "ips"))
    for (difference,) in (compare(evidence, "policy 0", "ips"), compare_all(evidence, "ips")):
        assert difference.largest_influence_share > 0.9
        assert difference.gate == "caution"
        assert difference.reason.startswith("one decision carries")
    clustered = replace(evidence, cluster=np.arange(3000) // 2)
    assert compare(clustered, "policy 0", "ips")[0].reason.startswith("one cluster carries")


def test_the_worse_gate_stands() -> None:
    evidence = _race(policies=2)
    (difference,) = compare(replace(evidence, assumption="propensities were cloned"), "policy 0")
    assert (difference.gate, difference.reason.split(": ")[1]) == ("caution", "propensities were cloned")
    (difference,) = compare(evidence.part(slice(0, 50)), "policy 0")
    assert difference.gate == "unreliable"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: compare(e, "polcy 0"), "Did you mean 'policy"),
        (lambda e: compare(e, "policy 0", level=1.0), "between 0 and 1"),
        (lambda e: compare_all(e, draws=0), "at least 100"),
        (lambda e: rank_policies(e, seed=-1), "seed is -1"),
        (lambda e: rank_policies(e, "snipz"), "Did you mean 'snip"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call(_race())


@pytest.mark.parametrize("function", [compare_all, rank_policies, lambda e, name: compare(e, "policy 0", name)])
def test_what_an_estimator_needs_is_asked_for(function: object) -> None:
    with pytest.raises(MissingEvidenceError, match="DR needs"):
        function(_race(), "dr")


# Plans


def test_plans_are_each_others_inverse() -> None:
    for comparisons in (1, 10):
        needed = decisions_needed(0.02, 500, 0.03, level=0.9, power=0.7, comparisons=comparisons)
        found = minimal_detectable_effect(0.02, 500, needed, level=0.9, power=0.7, comparisons=comparisons)
        assert found == pytest.approx(0.03, rel=1e-3)
    assert decisions_needed(0.02, 500, -0.03) == decisions_needed(0.02, 500, 0.03)
    assert decisions_needed(0.02, 500, 0.03, comparisons=10) > decisions_needed(0.02, 500, 0.03)
    assert decisions_needed(0.02, 500, 0.03) == decisions_needed(0.01, 2000, 0.03)


def test_the_textbook_plan() -> None:
    # Cohen 1988: two groups, standardised difference 0.5, 5 % two-sided, power 0.8; 63 each by the normal formula.
    assert decisions_needed(two_sample_error(100, (1.0, 1.0)), 100, 0.5) == 126
    assert two_sample_error(100, (3.0, 4.0), share=0.25) == pytest.approx(np.sqrt(9 / 25 + 16 / 75))


def test_a_planned_experiment_has_its_power() -> None:
    rng, runs = np.random.default_rng(0), 4000
    needed = decisions_needed(two_sample_error(1, (1.0, 2.0), share=0.3), 1, 0.35, power=0.9)
    first = round(0.3 * needed)
    ours, theirs = rng.normal(0.35, 1, (runs, first)), rng.normal(0, 2, (runs, needed - first))
    error = np.sqrt(ours.var(axis=1, ddof=1) / first + theirs.var(axis=1, ddof=1) / (needed - first))
    found = np.abs(ours.mean(axis=1) - theirs.mean(axis=1)) > 1.959964 * error
    assert found.mean() == pytest.approx(0.9, abs=4 * np.sqrt(0.09 / runs) + 0.003)


def _ads(n: int, rng: np.random.Generator) -> Evidence:
    """Four ads shown at random; the second earns 0.05 more than the first."""
    action = rng.integers(0, 4, n)
    reward = (rng.random(n) < np.array([0.3, 0.35, 0.1, 0.1])[action]).astype(float)
    target = np.stack([action == 0, action == 1]).astype(float)
    return Evidence(reward=reward, propensity=np.full(n, 0.25), target=target, policies=("first", "second"))


@pytest.mark.slow
def test_a_planned_log_has_its_power() -> None:
    rng, runs = np.random.default_rng(0), 600
    (pilot,) = compare(_ads(50_000, rng), "first")
    needed = decisions_needed(pilot.std_error, pilot.n, 0.05)
    assert 5000 < needed < 20_000
    found = [compare(_ads(needed, rng), "first")[0].p_value < 0.05 for _ in range(runs)]
    assert np.mean(found) == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / runs))


def test_decisions_to_settle() -> None:
    open_, settled = compare(_race(3000, 3, lift=0.0), "policy 0"), compare(_race(3000, 3, lift=0.3), "policy 0")[0]
    assert settled.low_all > 0 or settled.high_all < 0
    assert settled.decisions_to_settle == 0
    for one in open_:
        assert one.low_all <= 0 <= one.high_all
        critical = (one.high_all - one.value) / one.std_error
        grown = (critical + 0.841621) * one.std_error / abs(one.value)
        assert one.decisions_to_settle + 3000 == pytest.approx(3000 * grown**2, rel=1e-4)
    (alone,) = compare(_race(3000, 2), "policy 0")
    whole = decisions_needed(alone.std_error, alone.n, alone.value)
    assert alone.decisions_to_settle + 3000 == pytest.approx(whole, rel=2e-3)


@pytest.mark.slow
def test_what_would_settle_it_does_if_the_difference_is_true() -> None:
    rng = np.random.default_rng(3)
    (seen,) = compare(_ads(1000, rng), "first")
    while seen.decisions_to_settle == 0 or abs(seen.value - 0.05) > 0.003:
        (seen,) = compare(_ads(1000, rng), "first")
    more = 1000 + seen.decisions_to_settle
    runs = [compare(_ads(more, rng), "first")[0] for _ in range(500)]
    assert np.mean([d.decisions_to_settle == 0 for d in runs]) == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decisions_needed(0.1, 100, 0.0), "effect is 0"),
        (lambda: decisions_needed(0.1, 100, float("nan")), "effect is nan"),
        (lambda: decisions_needed(0.1, 100, 1e-200), "no log is that long"),
        (lambda: decisions_needed(0.0, 100, 0.1), "std_error is 0"),
        (lambda: decisions_needed(None, 100, 0.1), "std_error is None"),
        (lambda: decisions_needed(0.1, 0, 0.1), "n is 0"),
        (lambda: decisions_needed(0.1, 100, 0.1, level=95), "level is 95"),
        (lambda: decisions_needed(0.1, 100, 0.1, power=0.3), "power is 0.3"),
        (lambda: decisions_needed(0.1, 100, 0.1, comparisons=0), "comparisons is 0"),
        (lambda: minimal_detectable_effect(0.1, 100, 0), "planned is 0"),
        (lambda: two_sample_error(0, (1.0, 1.0)), "n is 0"),
        (lambda: two_sample_error(10, (1.0, 1.0), share=1.0), "share is 1"),
        (lambda: two_sample_error(10, (1.0, -1.0)), "not negative"),
    ],
)
def test_what_is_no_plan(call: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        call()
