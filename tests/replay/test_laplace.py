"""Logistic Thompson sampling: each batch ends at the minimiser of its loss, and drawing explores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from counterplay.replay.kernels.draws import key_of
from counterplay.replay.kernels.laplace import draw_weights, learn_laplace

Floats = NDArray[np.float64]


class Posterior(NamedTuple):
    weights: NDArray[np.float32]
    precision: NDArray[np.float32]
    bias: NDArray[np.float32]


class Batch(NamedTuple):
    rows: NDArray[np.float32]
    vectors: NDArray[np.float32]
    rewards: Floats


def _prior(d: int, m: int, precision: float = 1.0) -> Posterior:
    spread = np.full((d, m), precision, np.float32)
    return Posterior(np.zeros((d, m), np.float32), spread, np.array([0.0, 0.0, precision], np.float32))


def _sigmoid(values: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-values))


def _batches(seed: int, count: int, *, size: int = 32, d: int = 5, m: int = 3, length: float = 1.0) -> list[Batch]:
    """Contexts that share a direction, few rewards, and one true model: what overshooting steps find hard."""
    rng = np.random.default_rng(seed)
    true, batches = rng.standard_normal((d, m)), []
    for _ in range(count):
        rows, vectors = rng.standard_normal((size, d)) + 1.0, rng.standard_normal((size, m))
        chance = _sigmoid(np.einsum("rj,jk,rk->r", rows, true, vectors) - 2.0)
        rewards = (rng.random(size) < chance).astype(float)
        batches.append(Batch((length * rows).astype(np.float32), vectors.astype(np.float32), rewards))
    return batches


def _learn(posterior: Posterior, batch: Batch, *, logistic: bool = True, intercept: bool = True) -> None:
    learn_laplace(batch.rows, batch.vectors, batch.rewards, *posterior, logistic, intercept)


def _features(batch: Batch) -> Floats:
    products = np.einsum("rj,rk->rjk", batch.rows.astype(float), batch.vectors.astype(float))
    return np.hstack([products.reshape(len(batch.rows), -1), np.ones((len(batch.rows), 1))])


def _flat(posterior: Posterior) -> tuple[Floats, Floats]:
    weights = np.append(posterior.weights.ravel(), posterior.bias[0]).astype(float)
    return weights, np.append(posterior.precision.ravel(), posterior.bias[2]).astype(float)


def _loss(weights: Floats, mean: Floats, precision: Floats, features: Floats, rewards: Floats) -> float:
    """The regularised loss of Chapelle and Li, Algorithm 3, as printed."""
    logits = features @ weights
    fit = np.logaddexp(0.0, logits) - rewards * logits
    return float(0.5 * (precision * (weights - mean) ** 2).sum() + fit.sum())


def _gradient(weights: Floats, mean: Floats, precision: Floats, features: Floats, rewards: Floats) -> Floats:
    return precision * (weights - mean) + features.T @ (_sigmoid(features @ weights) - rewards)


def test_the_gradient_that_must_vanish_is_that_of_the_loss() -> None:
    batch, rng = _batches(0, 1)[0], np.random.default_rng(0)
    features, at, mean, precision = _features(batch), *rng.standard_normal((2, 16)), rng.random(16) + 0.5
    gradient = _gradient(at, mean, precision, features, batch.rewards)
    for i, nudge in enumerate(1e-5 * np.eye(16)):
        up, down = (_loss(at + sign * nudge, mean, precision, features, batch.rewards) for sign in (1.0, -1.0))
        assert (up - down) / 2e-5 == pytest.approx(gradient[i], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("length", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("precision", [0.01, 1.0, 100.0])
def test_every_batch_ends_at_the_minimiser_of_its_regularised_loss(length: float, precision: float) -> None:
    posterior = _prior(5, 3, precision)
    for batch in _batches(1, 8, length=length):
        mean, before = _flat(posterior)
        features = _features(batch)
        _learn(posterior, batch)
        weights, after = _flat(posterior)

        state = (mean, before, features, batch.rewards)
        predicted = _sigmoid(features @ weights)
        # In units in which the loss bends alike in every direction.
        scale = 1.0 / np.sqrt(before + (predicted * (1.0 - predicted)) @ features**2)
        assert (np.abs(_gradient(weights, *state)) * scale < 1e-3).all()
        best = optimize.minimize(_loss, mean, state, method="L-BFGS-B", jac=_gradient)
        assert _loss(weights, *state) <= best.fun + 1e-5 * (1.0 + abs(best.fun))
        # Long features multiply the rounding of single precision.
        rounding = 1e-4 if length <= 1.0 else 1e-2
        np.testing.assert_allclose(after, before + (predicted * (1.0 - predicted)) @ features**2, rtol=rounding)


def test_the_gradient_step_that_it_replaces_would_end_far_from_the_minimiser() -> None:
    # One step along the gradient over the new precision, of features that share a direction.
    batch = _batches(2, 1)[0]
    features, mean, precision = _features(batch), np.zeros(16), np.ones(16)
    step = -(features.T @ (0.5 - batch.rewards)) / (precision + 0.25 * (features**2).sum(axis=0))
    posterior = _prior(5, 3)
    _learn(posterior, batch)
    ours, _ = _flat(posterior)
    start, stepped, ended = (_loss(at, mean, precision, features, batch.rewards) for at in (mean, step, ours))
    assert ended < 0.7 * start
    assert ended < 0.8 * stepped


def test_the_squared_loss_gives_the_mean_of_bayesian_regression() -> None:
    batch = _batches(3, 1)[0]
    batch = batch._replace(rewards=np.linspace(-3.0, 40.0, 32))
    posterior, features = _prior(5, 3, 2.0), _features(batch)
    _learn(posterior, batch, logistic=False)
    weights, precision = _flat(posterior)
    exact = np.linalg.solve(2.0 * np.eye(16) + features.T @ features, features.T @ batch.rewards)
    np.testing.assert_allclose(weights, exact, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(precision, 2.0 + (features**2).sum(axis=0), rtol=1e-5)


def test_many_blocks_of_weights_give_what_one_block_gives() -> None:
    # 100 x 50 weights are three blocks; the same features spread over more rows of zeros stay the same model.
    batch = _batches(4, 1, d=100, m=50)[0]
    wide = batch._replace(rows=np.hstack([np.zeros((32, 37), np.float32), batch.rows]))
    narrow, padded = _prior(100, 50), _prior(137, 50)
    _learn(narrow, batch)
    _learn(padded, wide)
    np.testing.assert_allclose(padded.weights[37:], narrow.weights, rtol=1e-3, atol=1e-6)
    assert not padded.weights[:37].any()
    np.testing.assert_array_equal(padded.precision[:37], 1.0)


def test_without_an_intercept_none_is_learned() -> None:
    posterior, batch = _prior(5, 3), _batches(5, 1)[0]
    posterior.bias[:] = (0.5, 0.0, 0.0)
    _learn(posterior, batch, intercept=False)
    np.testing.assert_array_equal(posterior.bias, np.array([0.5, 0.0, 0.0], np.float32))
    assert posterior.weights.any()


def test_the_posterior_concentrates_on_the_truth() -> None:
    rng, truth = np.random.default_rng(6), np.array([[1.0, -1.0], [0.5, 0.0]])
    posterior, errors, spreads = _prior(2, 2), [], []
    for number in range(1, 1025):
        rows, vectors = rng.standard_normal((32, 2)).astype(np.float32), rng.standard_normal((32, 2)).astype(np.float32)
        chance = _sigmoid(np.einsum("rj,jk,rk->r", rows, truth, vectors) + 0.3)
        before = posterior.precision.copy()
        _learn(posterior, Batch(rows, vectors, (rng.random(32) < chance).astype(float)))
        assert (posterior.precision >= before).all()
        if number in (16, 64, 256, 1024):
            errors.append(float(np.abs(posterior.weights - truth).max()))
            spreads.append(float(posterior.precision.min()) ** -0.5)
    # Four times the decisions, half the spread; the truth stays within a few of it.
    np.testing.assert_allclose(np.array(spreads[1:]) / spreads[:-1], 0.5, atol=0.06)
    assert (np.array(errors) < 4.0 * np.array(spreads)).all()
    assert posterior.bias[0] == pytest.approx(0.3, abs=0.08)


def test_draws_have_the_mean_and_the_spread_of_the_posterior() -> None:
    rng = np.random.default_rng(7)
    weights = rng.standard_normal((30, 40)).astype(np.float32)
    precision = (rng.random((30, 40)) * 50.0 + 0.1).astype(np.float32)
    drawn, units = np.empty((30, 40), np.float32), []
    for luck in rng.random(50):
        draw_weights(weights, precision, 0.5, key_of(luck), drawn)
        units.append((drawn - weights) * np.sqrt(precision) / 0.5)
    assert stats.kstest(np.stack(units).ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(units[0].ravel(), units[1].ravel())[0, 1]) < 4.5 / np.sqrt(1200)
    draw_weights(weights, precision, 0.0, key_of(0.5), drawn)
    np.testing.assert_array_equal(drawn, weights)


def _earned(seed: int, scale: float) -> float:
    """The mean reward of 150 batches of 8: which of 6 actions pays depends on the sign of the context."""
    rng = np.random.default_rng(seed)
    actions, posterior, drawn, total = np.eye(6, dtype=np.float32), _prior(2, 6), np.empty((2, 6), np.float32), 0.0
    chance = np.full((2, 6), 0.6)
    chance[[0, 1], rng.permutation(6)[:2]] = 0.9
    for luck in rng.random(150):
        draw_weights(posterior.weights, posterior.precision, scale, key_of(luck), drawn)
        side = rng.integers(0, 2, 8)
        rows = np.stack([np.ones(8), 2.0 * side - 1.0], axis=1).astype(np.float32)
        played = (rows @ drawn @ actions.T).argmax(axis=1)
        rewards = (rng.random(8) < chance[side, played]).astype(float)
        _learn(posterior, Batch(rows, actions[played], rewards), intercept=False)
        total += float(chance[side, played].mean())
    return total / 150


def test_drawing_the_weights_earns_more_than_trusting_their_mean() -> None:
    thompson = np.array([_earned(seed, 1.0) for seed in range(20)])
    greedy = np.array([_earned(seed, 0.0) for seed in range(20)])
    assert thompson.mean() > greedy.mean() + 0.05
    assert thompson.min() > 0.75
    assert (thompson > greedy).sum() >= 15


def _told() -> dict[str, list[float]]:
    told: dict[str, list[float]] = {}
    for logistic in (True, False):
        for intercept in (True, False):
            posterior = _prior(5, 3)
            for batch in _batches(8, 4, size=6):
                _learn(posterior, batch, logistic=logistic, intercept=intercept)
            drawn = np.empty((5, 3), np.float32)
            draw_weights(posterior.weights, posterior.precision, 1.0, key_of(0.4), drawn)
            parts: tuple[NDArray[Any], ...] = (*posterior, drawn)
            told[f"{logistic} {intercept}"] = np.concatenate([part.ravel() for part in parts]).tolist()
    return told


def test_the_same_posterior_compiled_and_interpreted() -> None:
    command = [sys.executable, "-W", "error", __file__]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    interpreted, compiled = json.loads(done.stdout), _told()
    assert interpreted.keys() == compiled.keys()
    for name, numbers in compiled.items():
        np.testing.assert_allclose(interpreted[name], numbers, rtol=2e-4, atol=2e-5)


if __name__ == "__main__":
    json.dump(_told(), sys.stdout)
