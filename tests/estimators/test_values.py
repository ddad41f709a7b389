"""Numbers known elsewhere: exact enumeration, other packages, the defects of peers, coverage."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from counterplay.estimators import CrossFittedRidge, Evidence, assign_folds, evaluate

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def _expected(estimator: str, model: np.ndarray, logging: np.ndarray | None = None) -> tuple[float, float]:
    """(mean of the estimate over every possible log, true value) of 3 decisions with 3 actions."""
    rng = np.random.default_rng(5)
    mu, pi = rng.dirichlet(np.ones(3), size=3), rng.dirichlet(np.ones(3), size=3)
    outcome = rng.normal(size=(3, 3))
    believed = mu if logging is None else logging
    rows, mean = np.arange(3), 0.0
    for actions in product(range(3), repeat=3):
        a = np.array(actions)
        q = outcome if model is None else model
        evidence = Evidence(
            reward=outcome[rows, a],
            propensity=believed[rows, a],
            target=pi[rows, a],
            q_logged=q[rows, a],
            q_target=(pi * q).sum(axis=1),
        )
        value = evaluate(evidence, estimator)[0].value
        assert value is not None
        mean += mu[rows, a].prod() * value
    return mean, float((pi * outcome).sum(axis=1).mean())


WRONG_MODEL = np.arange(9.0).reshape(3, 3)


@pytest.mark.parametrize("estimator", ["ips", "dr"])
def test_mean_over_all_logs_is_the_truth(estimator: str) -> None:
    mean, truth = _expected(estimator, WRONG_MODEL)
    assert mean == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("estimator", ["dr", "sndr", "dm", "switch_dr(2)", "dros(2)", "subgaussian_dr(0.3)"])
def test_wrong_propensities_and_exact_model_give_the_truth(estimator: str) -> None:
    # pybandits subtracts the policy's value instead of the logged action's, and misses by a tenth here.
    mean, truth = _expected(estimator, None, np.full((3, 3), 1 / 3))
    assert mean == pytest.approx(truth, rel=1e-12)


def test_wrong_propensities_and_wrong_model_do_not() -> None:
    mean, truth = _expected("dr", WRONG_MODEL, np.full((3, 3), 1 / 3))
    assert abs(mean - truth) > 0.1


def _golden(campaign: str) -> tuple[Evidence, dict]:
    polars = pytest.importorskip("polars")
    path = DATA / "obd" / "golden_obd.json"
    if not path.is_file():
        pytest.skip(f"the Open Bandit golden numbers are not at {path}; set COUNTERPLAY_DATA")
    golden = json.loads(path.read_text())[f"bts/{campaign}"]
    log = polars.read_parquet(DATA / "obd" / f"obd_{campaign}_bts.parquet")
    propensity = log["propensity_score"].to_numpy()
    target = np.full(len(log), 1 / golden["n_actions"])
    return Evidence(reward=log["click"].to_numpy(), propensity=propensity, target=target), golden


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
def test_open_bandit_pipeline(campaign: str) -> None:
    evidence, golden = _golden(campaign)
    names = {"ips": "ipw", "snips": "snipw", "clipped_ips(5)": "ipw_clip5", "subgaussian_ips(0.1)": "sgipw_0.1"}
    for estimate in evaluate(evidence, names):
        assert estimate.value == pytest.approx(golden["estimates"][names[estimate.estimator]], rel=1e-12)
    diagnostics = evaluate(evidence, "ips")[0].diagnostics
    assert diagnostics.effective_sample_size == pytest.approx(golden["ess"], rel=1e-12)
    assert diagnostics.largest_weight == pytest.approx(golden["iw_max"], rel=1e-12)
    assert diagnostics.mean_weight == pytest.approx(golden["iw_mean"], rel=1e-12)


def test_effective_sample_of_two_is_unreliable() -> None:
    evidence, _ = _golden("women")
    for estimate in evaluate(evidence, ("ips", "snips")):
        assert estimate.gate == "unreliable"
        assert "effective sample size is 2.08 of 10000" in estimate.reason


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(100, 0.16060324, 0.23939676), (1000, 0.18759790, 0.21240210), (10000, 0.19607988, 0.20392012)],
)
def test_vw_estimators_sequence(n: int, low: float, high: float) -> None:
    even = np.arange(n) % 2 == 0
    evidence = Evidence(reward=even, propensity=np.full(n, 0.5), target=np.where(even, 0.2, 0.8))
    ips, snips = evaluate(evidence, ("ips", "snips"), interval="normal")
    assert ips.value == pytest.approx(0.2, rel=1e-12)
    assert snips.value == pytest.approx(0.2, rel=1e-12)
    assert (ips.low, ips.high) == (pytest.approx(low, abs=5e-9), pytest.approx(high, abs=5e-9))


def test_vw_estimators_single_example() -> None:
    evidence = Evidence(reward=[1.0], propensity=[0.3], target=[0.6])
    ips, snips = evaluate(evidence, ("ips", "snips"))
    assert (ips.value, snips.value) == (pytest.approx(2.0), pytest.approx(1.0))
    assert (ips.low, ips.high) == (None, None)


@pytest.mark.parametrize("reward", [1.0, 0.3, -7.0, 0.0])
@pytest.mark.parametrize("estimator", ["snips", "sndr", "replay", "on_policy", "clipped_snips(3)"])
def test_constant_reward_has_no_width(reward: float, estimator: str) -> None:
    # obp reports [0.960, 1.046] for SNIPW and [0.944, 1.061] for replay on a constant reward of 1.
    rng = np.random.default_rng(0)
    n = 50_000
    evidence = Evidence(
        reward=np.full(n, reward),
        propensity=rng.uniform(0.05, 1, n),
        target=(rng.random(n) < 0.4).astype(float),
        q_logged=np.full(n, reward),
        q_target=np.full((1, n), reward),
    )
    estimate = evaluate(evidence, estimator)[0]
    assert estimate.value == pytest.approx(reward, rel=1e-12)
    assert estimate.low == estimate.high == estimate.value
    assert estimate.gate != "ok"


def test_second_policy_does_not_inherit_from_the_first() -> None:
    rng = np.random.default_rng(1)
    n = 5000
    target = rng.random((2, n)) ** np.array([[8.0], [1.0]])
    evidence = Evidence(reward=rng.random(n), propensity=rng.uniform(0.1, 1, n), target=target)
    both = evaluate(evidence, ("ips", "clipped_ips(2)"))
    assert both[2:] == evaluate(evidence.part(slice(None), slice(1, 2)), ("ips", "clipped_ips(2)"))


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_mean_weight_far_from_one_is_flagged(factor: float) -> None:
    # vw-estimators returns an inverted interval here.
    rng = np.random.default_rng(2)
    n = 20_000
    match = rng.random(n) < 0.25
    evidence = Evidence(reward=rng.random(n) < 0.5, propensity=np.full(n, 0.25 * factor), target=match.astype(float))
    estimate = evaluate(evidence, "ips")[0]
    assert estimate.gate == "unreliable"
    assert "mean weight" in estimate.reason
    assert estimate.low is not None
    assert estimate.low < estimate.high
    support = estimate.diagnostics.share_without_support
    assert support == (pytest.approx(0.5, abs=0.03) if factor == 2.0 else 0.0)


def test_direct_method_is_never_ok() -> None:
    # obp's interval of DM on random/all excludes the truth: it holds the spread of predictions only.
    n = 5000
    q = np.random.default_rng(0).random(n)
    estimate = evaluate(Evidence(reward=q, target=np.ones(n), q_target=q), "dm")[0]
    assert (estimate.gate, "model's error" in estimate.reason) == ("caution", True)


def test_intervals_cover() -> None:
    """95 % intervals on binary rewards, uniform propensity 0.1, a deterministic policy: 600 draws."""
    rng = np.random.default_rng(11)
    n, draws = 4000, 600
    names = ("ips", "snips", "dr", "sndr", "replay")
    covered = dict.fromkeys(names, 0)
    gates = 0
    for _ in range(draws):
        chance = rng.uniform(0.1, 0.5, n)
        agrees = (rng.random(n) < 0.1).astype(float)
        reward = (rng.random(n) < chance).astype(float)
        model = np.clip(chance + rng.normal(0, 0.1, n), 0, 1)
        evidence = Evidence(
            reward=reward, propensity=np.full(n, 0.1), target=agrees, q_logged=model, q_target=model[None]
        )
        for estimate in evaluate(evidence, names):
            assert estimate.low is not None
            covered[estimate.estimator] += estimate.low <= 0.3 <= estimate.high
            gates += estimate.gate == "unreliable"
    # Four standard errors of a binomial share of 0.95.
    limit = 4 * np.sqrt(0.95 * 0.05 / draws)
    assert all(abs(hits / draws - 0.95) < limit for hits in covered.values()), covered
    assert gates == 0


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    rng = np.random.default_rng(12)
    groups, size, draws = 80, 20, 300
    cluster = np.repeat(np.arange(groups), size)
    hits = {True: 0, False: 0}
    for _ in range(draws):
        reward = rng.normal(size=groups)[cluster] + rng.normal(size=len(cluster))
        for clustered in hits:
            estimate = evaluate(Evidence.of_rewards(reward, cluster=cluster if clustered else None), "mean")[0]
            assert estimate.low is not None
            hits[clustered] += estimate.low <= 0 <= estimate.high
    assert abs(hits[True] / draws - 0.95) < 4 * np.sqrt(0.95 * 0.05 / draws)
    assert hits[False] / draws < 0.7


def test_dr_with_a_cross_fitted_model_is_tighter_and_covers() -> None:
    rng = np.random.default_rng(13)
    n, draws, hits, tighter = 1500, 150, 0, 0
    for _ in range(draws):
        x = rng.normal(size=(n, 3))
        action = rng.integers(0, 2, n)
        sign = 2.0 * action - 1
        reward = sign * x[:, 0] + rng.normal(0, 0.3, n) + 1
        chosen = (x[:, 0] > 0).astype(int)
        fold = assign_folds(n, 5)
        model = CrossFittedRidge(np.hstack([x, sign[:, None] * x]), reward, fold)
        wanted = (2.0 * chosen - 1)[:, None]
        evidence = Evidence(
            reward=reward,
            propensity=np.full(n, 0.5),
            target=(action == chosen).astype(float),
            q_logged=model.predict(np.hstack([x, sign[:, None] * x]), fold),
            q_target=model.predict(np.hstack([x, wanted * x]), fold),
        )
        ips, dr = evaluate(evidence, ("ips", "dr"))
        assert dr.low is not None
        hits += dr.low <= 1 + np.sqrt(2 / np.pi) <= dr.high
        tighter += dr.std_error < ips.std_error / 2
    assert tighter == draws
    assert abs(hits / draws - 0.95) < 4 * np.sqrt(0.95 * 0.05 / draws)


@pytest.mark.parametrize("estimator", ["clipped_ips(100)", "clipped_ips(slope)", "drps(20)", "subgaussian_ips(0.01)"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_shrinking_does_not_hide_wrong_propensities(estimator: str, factor: float) -> None:
    rng = np.random.default_rng(2)
    n = 20_000
    match = rng.random(n) < 0.25
    evidence = Evidence(
        reward=rng.random(n) < 0.5,
        propensity=np.full(n, 0.25 * factor),
        target=match.astype(float),
        q_logged=np.full(n, 0.5),
        q_target=np.full(n, 0.5),
    )
    estimate = evaluate(evidence, estimator)[0]
    assert estimate.gate == "unreliable"
    assert "mean weight" in estimate.reason


@pytest.mark.parametrize("estimator", ["snips", "cressie_read", "clipped_snips(5)", "replay", "on_policy"])
@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_a_handful_of_rare_rewards_or_failures_is_flagged_alike(estimator: str, rare: float) -> None:
    n = 2000
    match = np.arange(n) % 2 == 0
    reward = np.full(n, 1 - rare)
    reward[[10, 20]] = rare
    evidence = Evidence(reward=reward, propensity=np.full(n, 0.5), target=match.astype(float))
    estimate = evaluate(evidence, estimator)[0]
    assert estimate.diagnostics.effective_terms == pytest.approx(2, rel=1e-6)
    assert (estimate.gate, "about 2.0 of 2000" in estimate.reason) == ("unreliable", True)


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_an_offset_of_rewards_changes_no_gate(offset: float) -> None:
    rng = np.random.default_rng(3)
    n = 3000
    propensity = rng.uniform(0.3, 0.7, n)
    target = np.where(rng.random(n) < propensity, 0.5, 0.0)
    evidence = Evidence(reward=offset + rng.normal(size=n), propensity=propensity, target=target)
    for estimate in evaluate(evidence, ("ips", "snips", "on_policy")):
        assert "independent units" not in estimate.reason, estimate
