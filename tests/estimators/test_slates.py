"""Slates: every method is unbiased where what it takes for granted is so, and biased by formula where it is not."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import compare, evaluate, statistic_of
from counterplay.estimators.problems.pseudo_inverse import pseudo_inverse_weights
from counterplay.estimators.problems.slates import (
    METHODS,
    Slates,
    cascade_doubly_robust,
    evaluate_slates,
    independent_ips,
    pseudo_inverse,
    reward_interaction_ips,
    standard_ips,
)

Array = np.ndarray

ITEMS, K = 4, 3
RANKINGS = np.array(list(permutations(range(ITEMS), K)))
"""All 24 rankings of 4 items in 3 positions, without replacement."""


def _given_above(scores: Array, slates: Array = RANKINGS) -> Array:
    """(S, K) probability of each item given those above, where scores are drawn without replacement."""
    left = scores[None, :].repeat(len(slates), axis=0)
    found = np.empty(slates.shape)
    rows = np.arange(len(slates))
    for k, item in enumerate(slates.T):
        found[:, k] = left[rows, item] / left.sum(axis=1)
        left[rows, item] = 0
    return found


def _marginals(slates: Array, probability: Array) -> Array:
    """(S, K) probability that the item stands at its position, whatever stands elsewhere."""
    same = slates[:, None, :] == slates[None, :, :]
    return (same * probability[None, :, None]).sum(axis=1)


RNG = np.random.default_rng(3)
MU_ABOVE, PI_ABOVE = _given_above(RNG.uniform(1, 3, ITEMS)), _given_above(RNG.uniform(1, 5, ITEMS))
MU, PI = MU_ABOVE.prod(axis=1), PI_ABOVE.prod(axis=1)
OWN = RNG.normal(size=(K, ITEMS))[np.arange(K), RANKINGS]
"""Rewards (24, 3) that depend on the position's own item."""
EVERYTHING = RNG.normal(size=RANKINGS.shape)
"""Rewards that depend on the whole slate: each slate has its own."""


def _of_prefix(values: Array) -> Array:
    """(24, 3) values that depend on the items down to each position: those of the first slate with the same prefix."""
    found = np.empty(values.shape)
    for k in range(K):
        _, first, back = np.unique(RANKINGS[:, : k + 1], axis=0, return_index=True, return_inverse=True)
        found[:, k] = values[first, k][back]
    return found


CASCADE = _of_prefix(RNG.normal(size=RANKINGS.shape))
ADDITIVE_IN_SUM = EVERYTHING + (OWN - EVERYTHING).sum(axis=1, keepdims=True) / K
"""Rewards that depend on everything, and yet add up to a sum over positions."""


def _value_above(q: Array) -> Array:
    """(24, 3) mean of q (a function of prefixes) over the policy's items at each position, given the items above."""
    found = np.empty(q.shape)
    for k in range(K):
        _, back = np.unique(RANKINGS[:, :k], axis=0, return_inverse=True) if k else (None, np.zeros(len(PI), int))
        found[:, k] = (np.bincount(back, PI * q[:, k]) / np.bincount(back, PI))[back]
    return found


def _slates(rewards: Array, rows: Any = slice(None), **changes: Any) -> Slates:
    q = _of_prefix(np.random.default_rng(9).normal(size=RANKINGS.shape))
    fields: dict[str, Any] = {
        "reward": rewards[rows],
        "propensity": MU_ABOVE[rows],
        "target": PI_ABOVE[rows],
        "marginal_propensity": _marginals(RANKINGS, MU)[rows],
        "marginal_target": _marginals(RANKINGS, PI)[rows],
        "pi_weights": pseudo_inverse_weights(RANKINGS, MU, PI)[:, rows],
        "q": q[rows],
        "value": _value_above(q)[rows],
    }
    return Slates(**(fields | changes))


def _over_all_logs(method: str, rewards: Array) -> float:
    """The mean of the estimate over every possible log of one slate; estimates of longer logs are means of these."""
    values = [evaluate_slates(_slates(rewards, slice(s, s + 1)), method)[0].value for s in range(len(RANKINGS))]
    assert None not in values
    return float(MU @ np.array(values, dtype=float))


@pytest.mark.parametrize(
    ("rewards", "unbiased"),
    [
        (OWN, {"sips", "rips", "cascade_dr", "iips", "pi"}),
        (CASCADE, {"sips", "rips", "cascade_dr"}),
        (ADDITIVE_IN_SUM, {"sips", "pi"}),
        (EVERYTHING, {"sips"}),
    ],
    ids=["own item", "cascade", "additive in sum", "everything"],
)
def test_unbiased_where_what_is_taken_for_granted_holds_and_only_there(rewards: Array, unbiased: set[str]) -> None:
    truth = float(PI @ rewards.sum(axis=1))
    right = {method for method in METHODS if abs(_over_all_logs(method, rewards) - truth) < 1e-10}
    assert right == unbiased


def test_bias_is_what_the_formulas_say() -> None:
    def mean_given(codes: Array, k: int) -> Array:
        # Of what the logging policy sees at position k when the code is the same.
        return (np.bincount(codes, MU * EVERYTHING[:, k]) / np.bincount(codes, MU))[codes]

    own = sum(PI @ mean_given(RANKINGS[:, k], k) for k in range(K))
    assert _over_all_logs("iips", EVERYTHING) == pytest.approx(own, rel=1e-10)
    down_to = [np.unique(RANKINGS[:, : k + 1], axis=0, return_inverse=True)[1] for k in range(K)]
    cascade = sum(PI @ mean_given(down_to[k], k) for k in range(K))
    assert _over_all_logs("rips", EVERYTHING) == pytest.approx(cascade, rel=1e-10)
    # The pseudo-inverse estimates the best additive fit to what was logged.
    shown = np.concatenate([RANKINGS[:, [k]] == np.arange(ITEMS) for k in range(K)], axis=1) * 1.0
    fit = np.linalg.lstsq(np.sqrt(MU)[:, None] * shown, np.sqrt(MU) * EVERYTHING.sum(axis=1), rcond=None)[0]
    assert _over_all_logs("pi", EVERYTHING) == pytest.approx(PI @ shown @ fit, rel=1e-9)


def test_exact_model_leaves_no_variance() -> None:
    """With Q = what is still to be earned, every single slate gives the truth."""
    q, still = np.empty(CASCADE.shape), np.zeros(len(RANKINGS))
    for k in reversed(range(K)):
        q[:, k] = CASCADE[:, k] + still
        still = _value_above(q)[:, k]
    slates = _slates(CASCADE, q=q, value=_value_above(q))
    estimate = evaluate_slates(slates, "cascade_dr")[0]
    assert estimate.value == pytest.approx(PI @ CASCADE.sum(axis=1), rel=1e-12)
    assert estimate.std_error == pytest.approx(0, abs=1e-12)


def test_model_of_zeros_is_rips() -> None:
    slates = _slates(EVERYTHING, q=np.zeros(RANKINGS.shape), value=np.zeros((1, *RANKINGS.shape)))
    doubly, plain = evaluate_slates(slates, ("cascade_dr", "rips"))
    assert (doubly.value, doubly.low, doubly.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-12)


def _independent(n: int, positions: int, seed: int, items: int = 3) -> tuple[Slates, Array, Array]:
    """n slates whose positions are filled independently, with the logging and target probabilities (n, K, items)."""
    rng = np.random.default_rng(seed)
    mu, pi = rng.dirichlet(np.full(items, 3.0), (2, n, positions))
    item = (mu.cumsum(axis=2) < rng.random((n, positions, 1))).sum(axis=2)
    at = (np.arange(n)[:, None], np.arange(positions), item)
    fields = {"propensity": mu[at], "target": pi[at], "marginal_propensity": mu[at], "marginal_target": pi[at]}
    zeros = np.zeros((n, positions))
    return Slates(reward=rng.random((n, positions)), q=zeros, value=zeros, **fields), mu, pi


def test_one_position_is_plain_ips_for_every_method() -> None:
    slates, _, _ = _independent(500, 1, 0)
    plain = evaluate(standard_ips(slates), "ips")[0]
    for estimate in evaluate_slates(slates, METHODS):
        for name in ("value", "std_error", "low", "high"):
            assert getattr(estimate, name) == pytest.approx(getattr(plain, name), rel=1e-9)
        assert (estimate.gate, estimate.reason) == (plain.gate, plain.reason)


def test_vw_estimators_one_slot() -> None:
    # The rows of vw-estimators' own test, in which its pseudo-inverse equals its IPS.
    probability = {"propensity": [[0.8], [0.25], [0.5], [0.2]], "target": [[0.6], [0.4], [0.3], [0.9]]}
    marginal = {f"marginal_{name}": value for name, value in probability.items()}
    slates = Slates(reward=[0.1, 0.2, 0, 1.0], **probability, **marginal)
    pi, ips = evaluate_slates(slates, ("pi", "sips"))
    assert pi.value == pytest.approx((0.1 * 0.75 + 0.2 * 1.6 + 4.5) / 4, rel=1e-12)
    assert ips.value == pytest.approx(pi.value, rel=1e-12)


def test_formulas_of_other_packages() -> None:
    """vw-estimators: r (1 - K + sum w_k). obp: sums over positions, divided by the number of slates."""
    slates, _, _ = _independent(40, 3, 1)
    rng = np.random.default_rng(2)
    q, value = rng.random((2, 40, 3))
    slates = replace(slates, q=q, value=value)
    ratio = slates.target[0] / slates.propensity
    down, reward = ratio.cumprod(axis=1), slates.reward
    above = np.concatenate([np.ones((40, 1)), down[:, :-1]], axis=1)
    expected = {
        "pi": (reward.sum(axis=1) * (ratio.sum(axis=1) + 1 - 3)).mean(),
        "sips": (down[:, -1:] * reward).sum() / 40,
        "iips": (ratio * reward).sum() / 40,
        "rips": (down * reward).sum() / 40,
        "cascade_dr": (down * (reward - q) + above * value).sum() / 40,
    }
    for estimate in evaluate_slates(slates, METHODS):
        assert estimate.value == pytest.approx(expected[estimate.estimator], rel=1e-12)


def test_slates_are_the_units() -> None:
    slates, _, _ = _independent(300, 4, 3)
    down = (slates.target[0] / slates.propensity).cumprod(axis=1)
    sums = (down * slates.reward).sum(axis=1)
    estimate = evaluate_slates(slates, "rips")[0]
    assert (estimate.n, estimate.diagnostics.units) == (1200, 300)
    assert estimate.std_error == pytest.approx(sums.std(ddof=1) / np.sqrt(300), rel=1e-9)
    twice = replace(slates, cluster=np.arange(300) // 2)
    for estimate in evaluate_slates(twice, METHODS):
        assert estimate.diagnostics.units == 150


def test_pseudo_inverse_of_independent_positions_is_the_sum_of_ratios() -> None:
    rng = np.random.default_rng(4)
    mu, pi = rng.dirichlet(np.ones(3), (2, 2))
    slates = np.array(list(product(range(3), repeat=2)))
    mu_slate, pi_slate = (p[0, slates[:, 0]] * p[1, slates[:, 1]] for p in (mu, pi))
    ratio = sum(pi[k, slates[:, k]] / mu[k, slates[:, k]] for k in range(2))
    assert pseudo_inverse_weights(slates, mu_slate, pi_slate)[0] == pytest.approx(ratio - 1, rel=1e-9)


def test_pseudo_inverse_weights_given_or_made_are_the_same() -> None:
    slates, _, _ = _independent(200, 3, 5)
    ratio = (slates.target[0] / slates.propensity).sum(axis=1)
    given = replace(slates, pi_weights=ratio - 2, marginal_propensity=None)
    ours, theirs = evaluate_slates(given, "pi")[0], evaluate_slates(slates, "pi")[0]
    assert (ours.value, ours.std_error) == pytest.approx((theirs.value, theirs.std_error), rel=1e-9)


def test_pseudo_inverse_weights_average_to_one_and_may_be_negative() -> None:
    weights = pseudo_inverse_weights(RANKINGS, MU, np.eye(len(RANKINGS)))
    assert weights @ MU == pytest.approx(np.ones(len(RANKINGS)), rel=1e-9)
    assert weights.min() < -1
    target = np.repeat(PI_ABOVE[None], 24, axis=0)
    evidence = pseudo_inverse(_slates(OWN, pi_weights=weights, target=target, marginal_target=None, value=None))
    assert evidence.weights is not None
    assert evidence.weights.min() >= 0
    assert evidence.weights @ MU == pytest.approx(np.ones(24), rel=1e-9)


def test_plain_ips_on_pseudo_inverse_evidence_finds_nothing() -> None:
    # Half of the weight sits in the model's fields: a number that ignored it would be quietly wrong.
    slates, _, _ = _independent(300, 3, 6)
    for estimate in evaluate(pseudo_inverse(slates), ("ips", "snips", "clipped_ips(2)")):
        assert (estimate.value, estimate.std_error) == (0.0, 0.0)
        assert estimate.gate != "ok"


def test_self_normalised_pseudo_inverse_knows_a_constant() -> None:
    slates, _, _ = _independent(300, 3, 7)
    constant = replace(slates, reward=np.full(300, 0.3))
    estimate = evaluate(pseudo_inverse(constant), "sndr")[0]
    assert (estimate.value, estimate.std_error) == (pytest.approx(0.3, rel=1e-12), 0.0)


def test_short_slates_and_importance() -> None:
    slates, _, _ = _independent(50, 3, 8)
    present = np.arange(3) < np.random.default_rng(8).integers(1, 4, (50, 1))
    factors = np.array([1.0, 0.5, 0.25])

    def hidden(array: Array) -> Array:
        return np.where(present, array, np.nan)

    names = ("reward", "propensity", "target", "marginal_propensity", "marginal_target", "q", "value")
    cut = replace(
        slates, present=present, importance=factors, **{name: hidden(getattr(slates, name)) for name in names}
    )
    ratio = np.where(present, slates.target[0] / slates.propensity, 1.0)
    reward = np.where(present, slates.reward * factors, 0.0)
    expected = {
        "sips": (ratio.prod(axis=1) * reward.sum(axis=1)).mean(),
        "iips": (ratio * reward).sum() / 50,
        "rips": (ratio.cumprod(axis=1) * reward).sum() / 50,
        "cascade_dr": (ratio.cumprod(axis=1) * reward).sum() / 50,
        "pi": (reward.sum(axis=1) * (1 + (ratio - 1).sum(axis=1))).mean(),
    }
    for estimate in evaluate_slates(cut, METHODS):
        assert estimate.value == pytest.approx(expected[estimate.estimator], rel=1e-12), estimate.estimator


def test_shards_merge() -> None:
    slates, _, _ = _independent(100, 3, 9)

    def shard(rows: slice) -> Slates:
        names = ("propensity", "marginal_propensity", "reward")
        cut = {name: getattr(slates, name)[rows] for name in names}
        wide = {name: getattr(slates, name)[:, rows] for name in ("target", "marginal_target", "q", "value")}
        return Slates(**cut, **wide, start=rows.start)

    for build, estimator in METHODS.values():
        first, second = (statistic_of(build(shard(rows)), estimator) for rows in (slice(0, 37), slice(37, 100)))
        merged, whole = second.merge(first).estimate()[0], evaluate(build(slates), estimator)[0]
        assert (merged.value, merged.std_error) == pytest.approx((whole.value, whole.std_error), rel=1e-10)


def test_policies_are_compared_on_the_same_slates() -> None:
    slates, _, _ = _independent(400, 3, 10)
    two = {name: np.concatenate([getattr(slates, name)] * 2) for name in ("target", "marginal_target")}
    both = replace(slates, **two, q=None, value=None, policies=("new", "same"))
    for build, estimator in (METHODS["pi"], METHODS["rips"]):
        difference = compare(build(both), "new", estimator)[0]
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    names = [(e.policy, e.estimator) for e in evaluate_slates(both, ("pi", "sips"))]
    assert names == [("new", "pi"), ("new", "sips"), ("same", "pi"), ("same", "sips")]


def test_what_is_taken_for_granted_is_said() -> None:
    slates, _, _ = _independent(50, 3, 11)
    said = {build: build(slates).assumption for build, _ in METHODS.values()}
    assert said[standard_ips] == ""
    assert "its own item only" in said[independent_ips]
    assert "those above" in said[reward_interaction_ips]
    assert "those above" in said[cascade_doubly_robust]
    assert "sum over its positions" in said[pseudo_inverse]


def test_weights_of_a_long_slate_do_not_underflow() -> None:
    n, k = 3, 400
    slates = Slates(reward=np.ones(n), propensity=np.full((n, k), 1e-3), target=np.full((n, k), 1e-3))
    assert evaluate_slates(slates, "sips")[0].value == pytest.approx(1.0, rel=1e-9)
    wild = Slates(reward=np.ones(n), propensity=np.full((n, k), 1e-3), target=np.ones((n, k)))
    with pytest.raises(EvidenceError, match="weights at row 0 is inf"):
        evaluate_slates(wild, "sips")


def _simulated(n: int, rng: np.random.Generator) -> tuple[Slates, float]:
    mu, pi = np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.3], [0.3, 0.3, 0.4]]), np.array([0.5, 0.25, 0.25])
    chance = np.array([[0.6, 0.2, 0.1], [0.5, 0.3, 0.1], [0.4, 0.3, 0.3]])
    item = (mu.cumsum(axis=1)[None] < rng.random((n, 3, 1))).sum(axis=2)
    positions = np.arange(3)
    propensity, target = mu[positions, item], pi[item]
    q = chance[positions, item] + 0.1
    fields = {"propensity": propensity, "target": target}
    marginal = {f"marginal_{name}": value for name, value in fields.items()}
    value = np.broadcast_to((pi * (chance + 0.1)).sum(axis=1), (n, 3))
    reward = (rng.random((n, 3)) < chance[positions, item]).astype(float)
    return Slates(reward=reward, q=q, value=value, **fields, **marginal), float((pi * chance).sum())


def test_intervals_cover_and_the_stronger_the_assumption_the_shorter() -> None:
    """95 % intervals of 400 slates whose rewards depend on their own items only: 300 logs."""
    rng, draws = np.random.default_rng(12), 300
    covered, width = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0)
    for _ in range(draws):
        slates, truth = _simulated(400, rng)
        for estimate in evaluate_slates(slates, METHODS):
            assert estimate.low is not None
            assert estimate.high is not None
            covered[estimate.estimator] += estimate.low <= truth <= estimate.high
            width[estimate.estimator] += estimate.high - estimate.low
    # Four standard errors of a binomial share of 0.95.
    limit = 4 * np.sqrt(0.95 * 0.05 / draws)
    assert all(abs(hits / draws - 0.95) < limit for hits in covered.values()), covered
    assert width["iips"] < width["rips"] < width["sips"]
    assert width["pi"] < width["sips"]
    assert width["cascade_dr"] < width["rips"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": np.zeros((0, 3))}, "propensity has shape .*nothing is in it"),
        ({"propensity": np.full(24, 0.5)}, r"propensity has shape \(24,\)"),
        (
            {"propensity": np.where(np.arange(3) == 1, 0.0, MU_ABOVE)},
            r"propensity at place \(0, 1\) is 0, and so .* 23",
        ),
        ({"propensity": MU_ABOVE.astype(str)}, "numbers are needed"),
        ({"target": PI_ABOVE[:, :2]}, r"target has shape \(1, 24, 2\)"),
        ({"target": PI_ABOVE * np.nan}, "target at place .* is nan"),
        ({"target": PI_ABOVE * 9}, r"target at place .*in \[0, 1\]"),
        ({"reward": np.ones((24, 2))}, "reward has shape"),
        ({"reward": np.ones(23)}, "reward has shape"),
        ({"reward": np.full(24, np.inf)}, "reward at row 0 is inf, and so are 23 more"),
        ({"marginal_target": np.ones((2, 24, 3))}, "marginal_target has shape"),
        ({"q": np.full((24, 3), np.nan)}, "q at place .* is nan"),
        ({"value": np.ones((3, 24, 3))}, "value has shape"),
        ({"pi_weights": np.full(24, np.inf)}, "pi_weights at place .* is inf"),
        ({"importance": np.ones(2)}, "importance has shape"),
        ({"reward": np.ones(24), "importance": np.ones(3)}, "importance weighs the rewards of positions"),
        ({"present": np.ones((24, 3))}, "present is float64"),
        ({"present": np.arange(24)[:, None] + np.zeros((1, 3)) > 1}, "slate at row 0 has no position, and 1 more"),
        ({"cluster": np.ones(24)}, "cluster is float64"),
        ({"cluster": np.ones(23, int)}, "24 integer codes"),
    ],
)
def test_bad_slates_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        _slates(OWN, **changes)


def test_what_a_method_lacks_is_named() -> None:
    whole = {"reward": OWN.sum(axis=1)}
    for method in ("iips", "rips", "cascade_dr"):
        with pytest.raises(MissingEvidenceError, match=f"{method.upper()} needs rewards of positions"):
            evaluate_slates(_slates(OWN, **whole), method)
    with pytest.raises(MissingEvidenceError, match="CASCADE_DR needs a reward model"):
        evaluate_slates(_slates(OWN, value=None), "cascade_dr")
    with pytest.raises(MissingEvidenceError, match="IIPS needs marginal_propensity"):
        evaluate_slates(_slates(OWN, marginal_target=None), "iips")
    with pytest.raises(MissingEvidenceError, match="PI needs marginal_propensity"):
        evaluate_slates(_slates(OWN, pi_weights=None, marginal_target=None), "pi")
    with pytest.raises(EvidenceError, match="filled independently"):
        evaluate_slates(_slates(OWN, pi_weights=None), "pi")
    with pytest.raises(ConfigurationError, match="Did you mean 'sips'"):
        evaluate_slates(_slates(OWN), "snips")
    with pytest.raises(ConfigurationError, match="No method was asked for"):
        evaluate_slates(_slates(OWN), ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slates": [[0.5, 1.0]]}, "integers are needed"),
        ({"slates": [0, 1]}, "integers are needed"),
        ({"logging": [0.5, 0.5]}, "logging has shape"),
        ({"logging": [0.5, 0.2, 0.2]}, "logging does not add up to 1"),
        ({"logging": [0.5, 0.7, -0.2]}, "logging at row 2 is -0.2"),
        ({"target": [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]}, "target does not add up to 1"),
        ({"target": [0.0, 0.0, 1.0], "logging": [0.5, 0.5, 0.0]}, "Policy 0 shows items .* do not span"),
    ],
)
def test_bad_enumerations_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"slates": [[0, 1], [1, 0], [2, 1]], "logging": [0.5, 0.25, 0.25], "target": [0, 0.5, 0.5]}
    with pytest.raises(EvidenceError, match=message):
        pseudo_inverse_weights(**(fields | changes))
