"""Intervals: how often they hold the truth, the numbers of others, and when they refuse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators import Evidence, evaluate, statistic_of
from counterplay.estimators.intervals import INTERVALS, Bounds, Resampling
from counterplay.estimators.intervals.binomial import clopper_pearson
from counterplay.estimators.intervals.counts import poisson_counts
from counterplay.estimators.table import ALL, FIXED, WITH_PARAMETER

UNIT = Bounds(reward=(0.0, 1.0), weight=4.0)
TRUTH = 0.3


def _log(rng: np.random.Generator, n: int = 1000, groups: int = 0) -> Evidence:
    """Rewards of 0 and 1, propensities of two actions from 0.25 to 0.75; the policy takes the first with chance 0.75.

    It is worth 0.3. With `groups`, decisions of a group share their chance of reward.
    """
    cluster = rng.integers(0, groups, n) if groups else None
    luck = rng.uniform(-0.25, 0.25, groups)[cluster] if groups else 0.0
    propensity = rng.choice([0.25, 0.5, 0.75], n)
    first = rng.random(n) < propensity
    chance = np.where(first, 0.25, 0.45) + luck
    model = np.where(first, 0.3, 0.4)
    return Evidence(
        reward=(rng.random(n) < chance).astype(float),
        propensity=np.where(first, propensity, 1 - propensity),
        target=np.where(first, 0.75, 0.25),
        q_logged=model,
        q_target=np.full(n, 0.75 * 0.3 + 0.25 * 0.4),
        cluster=cluster,
    )


def _coverage(interval: str, estimators: tuple[str, ...], draws: int, **fields: Any) -> dict[str, float]:
    rng = np.random.default_rng(21)
    hits = dict.fromkeys(estimators, 0)
    for _ in range(draws):
        evidence = _log(rng, **fields)
        for found in evaluate(evidence, estimators, interval=interval, bounds=UNIT):  # type: ignore[arg-type]
            assert found.low is not None, found.reason
            assert found.high is not None
            hits[found.estimator] += found.low <= TRUTH <= found.high
    return {name: found / draws for name, found in hits.items()}


LARGE_SAMPLE = {
    "t": ("ips", "snips", "cressie_read", "dr", "sndr"),
    "normal": ("ips", "snips", "cressie_read", "dr", "sndr"),
    "empirical_likelihood": ("cressie_read",),
}


@pytest.mark.parametrize("interval", LARGE_SAMPLE)
def test_large_sample_intervals_cover_as_often_as_they_say(interval: str) -> None:
    for name, share in _coverage(interval, LARGE_SAMPLE[interval], 2000).items():
        least, most = (0.935, 0.975) if interval == "empirical_likelihood" else (0.935, 0.965)
        assert least <= share <= most, (name, share)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [0, 80])
def test_bootstrap_intervals_cover_as_often_as_they_say(groups: int) -> None:
    rng = np.random.default_rng(21)
    draws, hits = 2000, dict.fromkeys(product(("percentile", "bca"), ("ips", "snips", "sndr")), 0)
    for draw in range(draws):
        evidence = _log(rng, n=400, groups=groups)
        statistic = statistic_of(evidence, ("ips", "snips", "sndr"), resampling=Resampling(draws=400, seed=draw))
        for interval, name in hits:
            found = next(e for e in statistic.estimate(interval=interval) if e.estimator == name)  # type: ignore[arg-type]
            assert found.low is not None
            assert found.high is not None
            hits[interval, name] += found.low <= TRUTH <= found.high
    for name, found in hits.items():
        assert 0.93 <= found / draws <= 0.965, (name, found / draws)


@pytest.mark.parametrize("interval", ["hoeffding", "bernstein", "clopper_pearson"])
@pytest.mark.parametrize("groups", [0, 60])
def test_intervals_without_assumptions_cover_more_often_than_they_say(interval: str, groups: int) -> None:
    estimators = ("ips",) if interval == "clopper_pearson" else ("ips", "snips", "dr", "clipped_snips(9)")
    for name, share in _coverage(interval, estimators, 2000, n=300, groups=groups).items():
        assert share >= 0.95, (name, share)


@pytest.mark.parametrize("interval", ["t", "bernstein"])
def test_clustered_intervals_cover(interval: str) -> None:
    for name, share in _coverage(
        interval, ("ips", "snips", "cressie_read")[: 3 if interval == "t" else 2], 1000, groups=80
    ).items():
        assert share >= 0.932, (name, share)


def test_clopper_pearson_equals_other_packages() -> None:
    # coba: 3 successes of 6; vw-estimators on its deterministic sequence, which counts n / W trials.
    assert clopper_pearson(3, 6) == (pytest.approx(0.118117, abs=1e-6), pytest.approx(0.881883, abs=1e-6))
    for n, low, high in [
        (100, 0.10947067220888482, 0.3204030205689051),
        (10000, 0.19014503295375118, 0.21013571752098698),
    ]:
        assert clopper_pearson(0.2 * n / 1.6, n / 1.6) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    assert clopper_pearson([0, 10], [10, 10])[0][0] == 0
    assert clopper_pearson([0, 10], [10, 10])[1][1] == 1
    assert np.isnan(clopper_pearson(0, 0)).all()


def test_clopper_pearson_holds_where_the_scaling_of_vw_estimators_does_not() -> None:
    """A policy worth 0.5 under a uniform choice of ten: n / W trials leave out the luck of how many decisions match."""
    rng = np.random.default_rng(3)
    n, draws, theirs, ours = 500, 2000, 0, 0
    matched = rng.binomial(n, 0.1, draws)
    hits = rng.binomial(matched, 0.5)
    for k in hits:
        low, high = clopper_pearson(k, n / 10)
        theirs += low <= 0.5 <= high
        low, high = clopper_pearson(k, n)
        ours += 10 * low <= 0.5 <= 10 * high
    assert theirs / draws < 0.9
    assert ours / draws >= 0.95


@pytest.mark.parametrize(
    ("n", "value", "low", "high"),
    [
        (100, 0.19486081370449682, 0.16597067153776793, 0.3361173138489283),
        (1000, 0.19946867389860531, 0.18932882721416738, 0.24268469114333047),
        (10000, 0.1999466868072062, 0.1966283546014087, 0.2134865815943652),
    ],
)
def test_cressie_read_equals_vw_estimators(n: int, value: float, low: float, high: float) -> None:
    even = np.arange(n) % 2 == 0
    evidence = Evidence(reward=even, propensity=np.full(n, 0.5), target=np.where(even, 0.2, 0.8))
    found = evaluate(evidence, "cressie_read", interval="empirical_likelihood", bounds=Bounds(reward=(0, 1)))[0]
    assert found.value == pytest.approx(value, rel=1e-12)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-9), pytest.approx(high, rel=1e-9))
    single = Evidence(reward=[1.0], propensity=[0.3], target=[0.6])
    assert evaluate(single, "cressie_read")[0].value == pytest.approx(1.0, rel=1e-12)


def test_cressie_read_has_less_variance_than_ips_where_weights_are_uneven() -> None:
    rng = np.random.default_rng(5)
    found = []
    for _ in range(400):
        evidence = _log(rng)
        found.append(evaluate(replace(evidence, reward=1 - evidence.reward), ("ips", "cressie_read")))
    spread = np.std([[e.value for e in pair] for pair in found], axis=0)
    assert spread[1] < 0.8 * spread[0]
    error = np.mean([[e.std_error for e in pair] for pair in found], axis=0)
    np.testing.assert_allclose(error, spread, rtol=0.1)


@pytest.mark.parametrize("interval", ["t", "normal", "percentile", "bca"])
@pytest.mark.parametrize("estimator", ["snips", "sndr", "on_policy", "clipped_snips(3)"])
def test_constant_reward_has_no_width(interval: str, estimator: str) -> None:
    evidence = replace(_log(np.random.default_rng(0)), reward=np.full(1000, 0.3), q_logged=np.full(1000, 0.3))
    evidence = replace(evidence, q_target=np.full(1000, 0.3))
    found = evaluate(evidence, estimator, interval=interval)[0]  # type: ignore[arg-type]
    assert found.low == found.value == found.high == pytest.approx(0.3, rel=1e-12)


def test_bca_leans_where_terms_are_skewed() -> None:
    rng = np.random.default_rng(8)
    n = 400
    reward = (rng.random(n) < 0.05).astype(float)
    evidence = Evidence.of_rewards(reward)
    plain, leaning = (
        evaluate(evidence, "mean", interval=i, resampling=Resampling(draws=4000))[0] for i in ("t", "bca")
    )
    assert leaning.low > plain.low
    assert leaning.high > plain.high


def test_bca_equals_scipy() -> None:
    from scipy.stats import bootstrap

    reward = np.random.default_rng(9).exponential(size=150)
    ours = evaluate(Evidence.of_rewards(reward), "mean", interval="bca", resampling=Resampling(draws=20_000))[0]
    theirs = bootstrap((reward,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize("groups", [0, 40])
def test_shards_in_any_order_have_the_interval_of_the_whole(interval: str, groups: int) -> None:
    evidence = _log(np.random.default_rng(1), 3000, groups)
    resampling = Resampling(draws=200)
    whole = statistic_of(evidence, ALL, resampling=resampling).estimate(0.9, interval, UNIT)
    shards = [
        statistic_of(evidence.part(slice(a, b)), ALL, resampling=resampling)
        for a, b in pairwise((0, 1, 700, 1500, 3000))
    ]
    merged = shards[2].merge(shards[0]).merge(shards[3]).merge(shards[1]).estimate(0.9, interval, UNIT)
    for ours, theirs in zip(merged, whole, strict=True):
        assert (ours.low is None) == (theirs.low is None), ours.estimator
        assert ours.diagnostics.chosen == theirs.diagnostics.chosen
        if theirs.low is not None:
            assert (ours.low, ours.high) == (
                pytest.approx(theirs.low, rel=1e-10),
                pytest.approx(theirs.high, rel=1e-10),
            )


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_estimator_has_an_interval_or_says_why_not(interval: str) -> None:
    names = [*ALL, *(e.name for e in FIXED if e.name != "replay"), *(f"{name}(0.5)" for name in WITH_PARAMETER)]
    for found in evaluate(_log(np.random.default_rng(2)), names, interval=interval, bounds=UNIT):  # type: ignore[arg-type]
        assert found.interval == interval
        if found.low is None or found.high is None:
            assert f"no {interval} interval: " in found.reason, found
            assert found.gate != "ok"
        else:
            assert found.value is not None
            assert found.low <= found.high
            if interval not in ("empirical_likelihood",):
                assert found.low - 1e-12 <= found.value <= found.high + 1e-12


@pytest.mark.parametrize("interval", ["hoeffding", "bernstein", "empirical_likelihood"])
def test_intervals_that_need_bounds_say_so(interval: str) -> None:
    found = evaluate(
        _log(np.random.default_rng(2)), "cressie_read" if interval[0] == "e" else "ips", interval=interval
    )[0]  # type: ignore[arg-type]
    assert found.low is None
    assert "it needs bounds" in found.reason


def test_bounds_that_the_log_contradicts_are_refused() -> None:
    evidence = _log(np.random.default_rng(2))
    with pytest.raises(EvidenceError, match=r"A reward is 1, outside the range from 0 to 0\.5"):
        evaluate(evidence, "ips", interval="hoeffding", bounds=Bounds(reward=(0, 0.5), weight=4))
    with pytest.raises(EvidenceError, match="A weight is 3, above the largest weight of 2"):
        evaluate(evidence, "ips", interval="hoeffding", bounds=Bounds(reward=(0, 1), weight=2))
    wild = replace(evidence, q_logged=np.full(1000, 1.5))
    found = evaluate(wild, "dr", interval="bernstein", bounds=UNIT)[0]
    assert "predicts rewards outside the range" in found.reason


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward": (1, 0)}, "the lower first"),
        ({"reward": (0, np.inf)}, "two finite numbers"),
        ({"reward": (0, np.nan)}, "two finite numbers"),
        ({"reward": (0, 1), "weight": 0.5}, "at least 1"),
        ({"reward": (0, 1), "weight": np.nan}, "at least 1"),
    ],
)
def test_impossible_bounds_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Bounds(**fields)


def test_clopper_pearson_refuses_what_is_not_binary() -> None:
    evidence = _log(np.random.default_rng(2))
    halved = replace(evidence, reward=evidence.reward / 2)
    assert "0 or 1" in evaluate(halved, "ips", interval="clopper_pearson", bounds=UNIT)[0].reason
    assert "one and the same number" in evaluate(evidence, "snips", interval="clopper_pearson")[0].reason
    assert "without a model" in evaluate(evidence, "dr", interval="clopper_pearson", bounds=UNIT)[0].reason


def test_counts_are_poisson_and_depend_on_the_unit_alone() -> None:
    counts = poisson_counts(np.arange(20_000), 3, 50)
    assert counts.mean() == pytest.approx(1, abs=0.004)
    assert counts.var() == pytest.approx(1, abs=0.01)
    correlation = np.corrcoef(counts[:, :10].T)
    assert np.abs(correlation - np.eye(10)).max() < 0.03
    np.testing.assert_array_equal(poisson_counts(np.arange(500, 600), 3, 50), counts[500:600])
    assert not np.array_equal(poisson_counts(np.arange(100), 4, 50), counts[:100])
    assert (np.bincount(counts.astype(int).ravel())[:3] / counts.size).tolist() == pytest.approx(
        [np.exp(-1), np.exp(-1), np.exp(-1) / 2], abs=0.003
    )


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least 100"):
        Resampling(draws=10)


def test_shards_of_other_seeds_do_not_merge() -> None:
    evidence = _log(np.random.default_rng(2))
    with pytest.raises(EvidenceError, match="other seeds"):
        statistic_of(evidence, "ips", resampling=Resampling(seed=1)).merge(
            statistic_of(evidence, "ips", resampling=Resampling(seed=2))
        )


@pytest.mark.parametrize(("low", "high"), [(5, 6), (100, 101), (-6, -5), (-1, 1)])
@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "clipped_ips(10)"])
def test_bounds_hold_wherever_zero_is(low: int, high: int, estimator: str) -> None:
    rng = np.random.default_rng(2)
    n, bounds = 500, Bounds(reward=(low, high), weight=10)
    for _ in range(60):
        evidence = Evidence(
            reward=np.where(rng.random(n) < 0.5, low, high),
            propensity=np.full(n, 0.1),
            target=(rng.random(n) < 0.1).astype(float),
            q_logged=np.full(n, low),
            q_target=np.full(n, low),
        )
        for interval in ("hoeffding", "bernstein"):
            found = evaluate(evidence, estimator, interval=interval, bounds=bounds)[0]  # type: ignore[arg-type]
            assert found.low is not None
            assert found.high is not None
            assert found.low <= (low + high) / 2 <= found.high
