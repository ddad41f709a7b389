"""MRDR: the linear model of least variance, exact in the population and in the sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from counterplay.errors import EvidenceError
from counterplay.estimators import (
    CrossFittedRidge,
    Evidence,
    assign_folds,
    evaluate,
    fit_mrdr,
    hash_features,
    mrdr_weights,
)
from counterplay.estimators.models import MRDRSums


def _world(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A log of five actions whose rewards a bilinear model cannot say, and a policy that goes the other way."""
    x, k = rng.normal(size=(n, 2)), np.arange(5)
    score = 0.7 * x[:, :1] * (k - 2) + x[:, 1:] * np.sin(k)
    mu = np.exp(0.8 * score)
    mu = 0.02 + 0.9 * mu / mu.sum(axis=1, keepdims=True)
    pi = np.exp(-score) / np.exp(-score).sum(axis=1, keepdims=True)
    action, rows = (mu.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 4), np.arange(n)
    outcome = 1 + np.abs(x[:, :1] - 0.5 * (k - 2)) + x[:, 1:] * (k == 1) + 2 * (k == 3) * (x[:, :1] > 0)
    parts = [np.broadcast_to(x[:, None, :], (n, 5, 2)), np.broadcast_to((k - 2.0)[None, :, None], (n, 5, 1))]
    features = np.concatenate([*parts, x[:, None, :] * (k - 2.0)[None, :, None]], axis=2)
    return {
        "features": features[rows, action],
        "mean": (pi[:, :, None] * features).sum(axis=1),
        "reward": outcome[rows, action] + 0.5 * rng.normal(size=n),
        "propensity": mu[rows, action],
        "target": pi[rows, action],
        "truth": (pi * outcome).sum(axis=1),
    }


def _dr(log: dict[str, np.ndarray], model: Any, fold: np.ndarray) -> Any:
    evidence = Evidence(
        reward=log["reward"],
        propensity=log["propensity"],
        target=log["target"],
        q_logged=model.predict(log["features"], fold)[None, :],
        q_target=model.predict(log["mean"], fold),
    )
    return evaluate(evidence, "dr")[0]


def test_mrdr_narrows_dr_where_the_model_is_wrong_and_the_intervals_cover() -> None:
    rng = np.random.default_rng(0)
    truth = float(_world(400_000, rng)["truth"].mean())
    draws, n = 60, 3000
    fold = assign_folds(n, 5)
    errors: dict[str, list[float]] = {"plain": [], "weights": [], "mrdr": []}
    hits = 0
    for _ in range(draws):
        log = _world(n, rng)
        weight = log["target"] / log["propensity"]
        models = {
            "plain": CrossFittedRidge(log["features"], log["reward"], fold),
            "weights": CrossFittedRidge(
                log["features"], log["reward"], fold, weight=mrdr_weights(log["target"], log["propensity"])[0]
            ),
            "mrdr": fit_mrdr(log["features"], [log["mean"]], log["reward"], weight[None, :], fold)[0],
        }
        for name, model in models.items():
            estimate = _dr(log, model, fold)
            errors[name].append(estimate.value - truth)
        hits += estimate.low <= truth <= estimate.high
    spread = {name: np.std(error) for name, error in errors.items()}
    assert spread["mrdr"] < 0.75 * spread["plain"]
    assert spread["weights"] < 0.75 * spread["plain"]
    assert abs(np.mean(errors["mrdr"])) < 4 * spread["mrdr"] / np.sqrt(draws)
    assert hits / draws > 0.85


@pytest.mark.parametrize("deterministic", [False, True])
def test_mrdr_reaches_the_least_variance_a_linear_model_can_have(deterministic: bool) -> None:
    # Every context and action stands in the log exactly as often as the logging policy would take it.
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(1)
    times = rng.integers(1, 6, (6, 3))
    times[:, 0] += 12 - times.sum(axis=1)
    times = np.maximum(times, 1)
    mu = times / times.sum(axis=1, keepdims=True)
    pi = np.eye(3)[rng.integers(0, 3, 6)] if deterministic else rng.dirichlet(np.ones(3), size=6)
    outcome, features = rng.normal(size=(6, 3)), rng.normal(size=(6, 3, 2))
    mean = np.einsum("ca,cap->cp", pi, features)

    def variance(b: np.ndarray) -> float:
        error = (pi / mu) * (outcome - features @ b[:2] - b[2])
        inner = (mu * error**2).sum(axis=1) - (mu * error).sum(axis=1) ** 2
        return float((times.sum(axis=1) * inner).sum() / times.sum())

    context, action = (np.repeat(index.ravel(), times.ravel()) for index in np.indices((6, 3)))
    rows = np.tile(np.arange(len(context)), 2)
    context, action, fold = context[rows], action[rows], np.repeat([0, 1], len(context))
    (model,) = fit_mrdr(
        features[context, action],
        [mean[context]],
        outcome[context, action],
        (pi / mu)[context, action][None, :],
        fold,
        alpha=1e-9,
    )
    best = optimize.minimize(variance, np.zeros(3), method="BFGS", tol=1e-12).fun
    plain = CrossFittedRidge(features[context, action], outcome[context, action], fold, alpha=1e-9)
    assert variance(model.coefficients[0]) == pytest.approx(best, rel=1e-6)
    assert best < 0.9 * variance(plain.coefficients[0])
    weight = mrdr_weights(pi[context, action], mu[context, action])[0]
    weighted = CrossFittedRidge(features[context, action], outcome[context, action], fold, weight=weight, alpha=1e-9)
    # Weights alone say all of the variance where the policy is deterministic, and only then.
    assert (variance(weighted.coefficients[0]) < best * (1 + 1e-6)) == deterministic


def test_mrdr_leaves_the_least_sample_variance_around_what_the_plain_model_says() -> None:
    rng = np.random.default_rng(2)
    log, fold = _world(400, rng), np.arange(400) % 2
    weight = log["target"] / log["propensity"]
    (model,) = fit_mrdr(log["features"], [log["mean"]], log["reward"], weight[None, :], fold, alpha=1e-9)
    plain = CrossFittedRidge(log["features"], log["reward"], fold, alpha=1e-9)
    for k in range(2):
        others, own = fold != k, np.full(200, k)
        x, mean = log["features"][others], log["mean"][others]

        def terms(b: Any, x: Any = x, mean: Any = mean, others: Any = others, own: Any = own) -> np.ndarray:
            return (
                b.predict(mean, own)
                - plain.predict(mean, own)
                + weight[others] * (log["reward"][others] - b.predict(x, own))
            )

        z = np.column_stack([weight[others, None] * x - mean, weight[others] - 1, np.ones(200)])
        left = np.linalg.lstsq(z, terms(plain), rcond=None)[1][0] / 200
        assert terms(model).var() == pytest.approx(left, rel=1e-8)


def test_mrdr_sums_stream_and_merge_and_policies_do_not_meet() -> None:
    rng = np.random.default_rng(0)
    log, fold = _world(9000, rng), assign_folds(9000, 3)
    weights = np.stack([log["target"] / log["propensity"], np.ones(9000)])
    means = np.stack([log["mean"], log["features"]])
    whole = fit_mrdr(log["features"], means, log["reward"], weights, fold)
    shards = [
        MRDRSums.empty(3, 5, 2).add(log["features"][s], means[:, s], log["reward"][s], weights[:, s], fold[s])
        for s in (slice(0, 100), slice(100, 8900), slice(8900, 9000))
    ]
    merged = shards[2].merge(shards[0]).merge(shards[1]).solve()
    alone = fit_mrdr(log["features"], means[1:], log["reward"], weights[1:], fold)
    for ours, theirs in ((merged[0], whole[0]), (merged[1], whole[1]), (alone[0], whole[1])):
        assert ours.coefficients == pytest.approx(theirs.coefficients, rel=1e-8, abs=1e-10)


def test_mrdr_of_a_policy_that_was_never_logged_is_steered_by_the_plain_ridge() -> None:
    rng = np.random.default_rng(0)
    x, click, fold = rng.normal(size=(200, 4)), rng.integers(0, 2, 200), assign_folds(200, 4)
    plain = CrossFittedRidge(x, click, fold, alpha=1.0)
    (same,) = fit_mrdr(x, [x], click, np.ones((1, 200)), fold)
    assert same.coefficients == pytest.approx(plain.coefficients, rel=1e-9)


def test_mrdr_in_other_units_is_the_same() -> None:
    rng = np.random.default_rng(0)
    log, fold = _world(500, rng), assign_folds(500, 3)
    weights = (log["target"] / log["propensity"])[None, :]
    (one,) = fit_mrdr(log["features"], [log["mean"]], log["reward"], weights, fold)
    (other,) = fit_mrdr(log["features"], [log["mean"]], 3 * log["reward"] + 100, weights, fold)
    expected = 3 * one.predict(log["features"], fold) + 100
    assert other.predict(log["features"], fold) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_features": [np.ones((10, 3))]}, "do not fit 1 policies"),
        ({"target_features": [np.ones((10, 2))] * 2}, "do not fit 1 policies"),
        ({"weights": np.ones(10)}, "do not fit"),
        ({"weights": np.full((1, 10), np.nan)}, "weights of policy 0 at row 0 is nan"),
        ({"features": hash_features(numbers={"a": np.ones(10)})}, "needs dense features"),
        ({"features": np.full((10, 2), np.inf)}, "NaN or infinite"),
        ({"fold": np.zeros(10, int)}, "All decisions are in fold 0"),
        ({"fold": np.zeros(0, int)}, "at least one decision"),
    ],
)
def test_mrdr_refuses(changes: dict[str, Any], message: str) -> None:
    good = {
        "features": np.ones((10, 2)), "target_features": [np.ones((10, 2))], "reward": np.ones(10),
        "weights": np.ones((1, 10)), "fold": np.arange(10) % 2,
    }  # fmt: skip
    with pytest.raises(EvidenceError, match=message):
        fit_mrdr(**(good | changes))


def test_mrdr_weights_refuse_impossible_propensities() -> None:
    assert np.array_equal(mrdr_weights([[1.0, 0.0, 1.0]], [0.5, 0.5, 1.0]), [[2.0, 0.0, 0.0]])
    with pytest.raises(EvidenceError, match="propensity at row 1 is 0"):
        mrdr_weights([1.0, 1.0], [0.5, 0.0])
    with pytest.raises(EvidenceError, match="do not fit"):
        mrdr_weights([1.0, 1.0], [0.5])
