"""Ridge models: recursive least squares is least squares, and exploring follows its textbook definition."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from counterplay.replay.kernels.draws import key_of
from counterplay.replay.kernels.linear import optimistic_plays
from counterplay.replay.kernels.ridge import (
    best_optimistic,
    best_optimistic_shared,
    best_sampled,
    best_scored,
    draw_shared,
    is_sampled,
    joint,
    learn_ridge,
    scores_ridge,
    scores_shared,
    width,
)

Floats = NDArray[np.float64]


class Models(NamedTuple):
    covariance: Floats
    response: Floats
    theta: Floats


def _fresh(count: int, size: int, ridge: float = 1.0) -> Models:
    return Models(np.tile(np.eye(size) / ridge, (count, 1, 1)), np.zeros((count, size)), np.zeros((count, size)))


def _learn(models: Models, arm: int, x: NDArray[Any], reward: float) -> None:
    learn_ridge(x, reward, models.covariance[arm], models.response[arm], models.theta[arm])


def _learned(rng: np.random.Generator, count: int, size: int, updates: int) -> Models:
    models = _fresh(count, size, 0.7)
    for _ in range(updates):
        _learn(models, int(rng.integers(count)), rng.standard_normal(size), float(rng.random()))
    return models


def _is_optimistic(
    x: NDArray[Any], arms: NDArray[np.int32], logged: int, theta: Floats, covariance: Floats, amount: float
) -> bool:
    """Whether ``logged`` is what an optimistic model plays in the only decision of a log."""
    first, chance = np.zeros(1, np.int64), np.zeros(1)
    optimistic_plays(
        x[None], first.astype(np.int32), arms[None], first, np.array([logged], np.int32), theta, covariance, amount,
        np.empty(len(x)), np.empty(len(arms)), chance,
    )  # fmt: skip
    return bool(chance[0] == 1.0)


def _arms(*actions: int, padding: int = 0) -> NDArray[np.int32]:
    return np.array([*actions, *(-1,) * padding], np.int32)


def _problems(updates: int = 60) -> Iterator[tuple[Models, Floats, NDArray[np.int32], float]]:
    """Models, a context, allowed arms (unsorted, padded) and an amount; many arms are exact copies of each other."""
    rng = np.random.default_rng(5)
    for size in (1, 2, 3, 4, 7, 8, 20, 33):
        for count in (1, 2, 5, 12):
            models = _learned(rng, count, size, updates if size > 1 else 3)
            for copy in range(0, count - 1, 2):
                models.theta[copy + 1], models.covariance[copy + 1] = models.theta[copy], models.covariance[copy]
            for amount in (0.0, 0.1, 2.0):
                for _ in range(6):
                    allowed = rng.permutation(count)[: rng.integers(1, count + 1)]
                    yield models, rng.standard_normal(size), _arms(*allowed, padding=int(rng.integers(3))), amount


@pytest.mark.parametrize("size", [1, 3, 4, 20, 33])
@pytest.mark.parametrize("ridge", [1e-3, 1.0, 10.0])
def test_updates_one_at_a_time_are_least_squares_on_everything_seen(size: int, ridge: float) -> None:
    rng = np.random.default_rng(size)
    x, rewards = rng.standard_normal((400, size)), rng.random(400)
    models = _fresh(1, size, ridge)
    for row, reward in zip(x, rewards, strict=True):
        _learn(models, 0, row, reward)
    inverse = np.linalg.inv(ridge * np.eye(size) + x.T @ x)
    np.testing.assert_allclose(models.covariance[0], inverse, rtol=0, atol=1e-9 * np.abs(inverse).max())
    np.testing.assert_allclose(models.theta[0], inverse @ x.T @ rewards, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(models.response[0], x.T @ rewards, rtol=1e-12, atol=1e-12)


def test_the_covariance_stays_exactly_symmetric_and_positive_even_of_long_and_repeated_features() -> None:
    rng = np.random.default_rng(1)
    for size, length in ((6, 1.0), (21, 1e3), (40, 1e5)):
        models, same = _fresh(1, size), length * rng.standard_normal(size)
        for i in range(600):
            _learn(models, 0, same if i % 3 else length * rng.standard_normal(size), 1.0)
        covariance = models.covariance[0]
        np.testing.assert_array_equal(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0.0


def test_a_width_is_the_quadratic_form_of_any_size_and_kind_of_number() -> None:
    rng = np.random.default_rng(2)
    for size in range(1, 41):
        x, root = rng.standard_normal(size), rng.standard_normal((size, size))
        covariance = root @ root.T
        assert width(x, covariance) == pytest.approx(x @ covariance @ x, rel=1e-12)
        short = x.astype(np.float32)
        assert width(short, covariance) == pytest.approx(short @ covariance @ short, rel=1e-6)


def test_a_width_is_never_negative_when_rounding_says_so() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        u = rng.standard_normal(7)
        flat = np.outer(u, u)
        x = rng.standard_normal(7)
        x -= u * (u @ x) / (u @ u)
        assert 0.0 <= width(x, flat) < 1e-12


def test_the_first_bonus_of_a_strong_ridge_is_small() -> None:
    # mabwiser starts A^-1 at ridge I, not at I / ridge, and reports 3.16 |x| here (mabwiser/linear.py, 2.7).
    x = np.array([0.6, -0.8, 0.0])
    models = _fresh(2, 3, ridge=10.0)
    assert np.sqrt(width(x, models.covariance[0])) == pytest.approx(np.sqrt(0.1))
    # So a known reward of 0.5 beats an unknown action: 0.316 < 0.5 < 3.16.
    models.theta[1], models.covariance[1] = 0.5 * x, 0.0
    assert best_optimistic(x, _arms(0, 1), models.theta, models.covariance, 1.0) == 1


def test_the_optimistic_action_is_the_textbook_one() -> None:
    rng = np.random.default_rng(4)
    for size in (2, 5, 20):
        models = _learned(rng, 8, size, 100)
        for _ in range(50):
            x, allowed, amount = rng.standard_normal(size), rng.permutation(8)[:5], float(rng.random() * 2)
            bonus = np.sqrt(np.einsum("i,aij,j->a", x, models.covariance, x))
            scores = (models.theta @ x + amount * bonus)[allowed]
            found = best_optimistic(x, _arms(*allowed, padding=2), models.theta, models.covariance, amount)
            assert found == allowed[scores.argmax()]


def test_the_question_whether_an_action_is_best_has_the_answer_of_finding_the_best() -> None:
    asked = 0
    for number, (models, x, arms, amount) in enumerate(_problems()):
        theta, covariance, key = models.theta, models.covariance, key_of(number / 1000.0)
        optimistic = best_optimistic(x, arms, theta, covariance, amount)
        sampled = best_sampled(x, arms, theta, covariance, amount, key)
        for logged in arms[arms >= 0]:
            assert _is_optimistic(x, arms, logged, theta, covariance, amount) == (optimistic == logged)
            assert is_sampled(x, arms, logged, theta, covariance, amount, key) == (sampled == logged)
            asked += 1
    assert asked > 1500


def test_of_equal_scores_the_lowest_action_wins_in_whatever_order_they_are_allowed() -> None:
    for size in (1, 5, 20):
        models, x = _fresh(9, size), np.full(size, 0.3)
        for arms, lowest in ((_arms(7, 3, 5, padding=2), 3), (_arms(3, 5, 7), 3), (_arms(8), 8)):
            assert best_optimistic(x, arms, models.theta, models.covariance, 1.5) == lowest
            assert best_sampled(x, arms, models.theta, models.covariance, 0.0, key_of(0.1)) == lowest
            scores = np.empty(len(arms))
            scores_ridge(x, arms, models.theta, scores)
            assert best_scored(arms, scores) == lowest


def test_without_an_allowed_action_there_is_no_best_one() -> None:
    models, x, none, actions = _fresh(2, 3), np.ones(3), _arms(padding=2), np.ones((2, 1))
    assert best_optimistic(x, none, models.theta, models.covariance, 1.0) == -1
    assert best_sampled(x, none, models.theta, models.covariance, 1.0, key_of(0.1)) == -1
    assert best_scored(none, np.zeros(2)) == -1
    assert best_optimistic_shared(x, actions, none, models.theta[0], models.covariance[0], 1.0) == -1
    assert scores_ridge(x, none, models.theta, np.empty(2)) == 0


def test_scores_come_in_the_order_of_the_allowed_actions_and_stop_where_they_end() -> None:
    models, x = _learned(np.random.default_rng(6), 5, 4, 40), np.array([1.0, -2.0, 0.5, 3.0])
    scores = np.full(4, 99.0)
    assert scores_ridge(x, _arms(4, 0, 2, padding=1), models.theta, scores) == 3
    np.testing.assert_allclose(scores[:3], (models.theta @ x)[[4, 0, 2]])
    assert scores[3] == 99.0


def test_one_normal_an_action_plays_actions_as_often_as_drawing_every_model() -> None:
    rng = np.random.default_rng(7)
    models, x, amount, draws = _learned(rng, 4, 3, 12), np.array([0.4, -0.3, 0.5]), 0.8, 20_000
    arms = _arms(3, 0, 2, 1)
    ours = [best_sampled(x, arms, models.theta, models.covariance, amount, key_of(u)) for u in rng.random(draws)]
    thetas = [
        rng.multivariate_normal(theta, amount**2 * covariance, draws)
        for theta, covariance in zip(models.theta, models.covariance, strict=True)
    ]
    theirs = (np.stack(thetas) @ x).argmax(axis=0)
    counts = np.array([np.bincount(ours, minlength=4), np.bincount(theirs, minlength=4)])
    assert counts.min() > 500
    assert stats.chi2_contingency(counts).pvalue > 1e-3


def test_an_action_keeps_its_luck_whatever_else_is_allowed() -> None:
    models, x = _learned(np.random.default_rng(8), 6, 4, 60), np.array([0.4, -0.3, 0.5, 1.0])
    for u in np.random.default_rng(9).random(200):
        key = key_of(u)
        best = best_sampled(x, _arms(*range(6)), models.theta, models.covariance, 1.0, key)
        fewer = _arms(*(a for a in (5, 2, 4, 0, 1, 3) if a == best or a % 2), padding=1)
        assert best_sampled(x, fewer, models.theta, models.covariance, 1.0, key) == best


def test_the_shared_model_is_least_squares_on_the_products_of_the_features() -> None:
    rng = np.random.default_rng(10)
    d, m, n = 4, 3, 300
    x, actions = rng.standard_normal((n, d)), rng.standard_normal((6, m))
    played, rewards = rng.integers(0, 6, n), rng.random(n)
    models, features = _fresh(1, d * m, 2.0), np.empty((n, d * m))
    for i in range(n):
        joint(x[i], actions[played[i]], features[i])
        _learn(models, 0, features[i], rewards[i])
    np.testing.assert_array_equal(features, np.stack([np.kron(x[i], actions[played[i]]) for i in range(n)]))
    inverse = np.linalg.inv(2.0 * np.eye(d * m) + features.T @ features)
    np.testing.assert_allclose(models.theta[0], inverse @ features.T @ rewards, rtol=1e-9, atol=1e-11)
    for _ in range(60):
        context, arms, amount = rng.standard_normal(d), rng.permutation(6)[:4], float(rng.random())
        products = np.stack([np.kron(context, actions[a]) for a in arms])
        scores = products @ models.theta[0] + amount * np.sqrt(np.einsum("ai,ij,aj->a", products, inverse, products))
        padded = _arms(*arms, padding=1)
        found = best_optimistic_shared(context, actions, padded, models.theta[0], models.covariance[0], amount)
        assert found == arms[scores.argmax()]
        means = np.empty(5)
        assert scores_shared(context, actions, padded, models.theta[0], means) == 4
        np.testing.assert_allclose(means[:4], products @ models.theta[0], rtol=1e-9, atol=1e-12)


def test_a_shared_model_of_actions_with_nothing_in_common_is_a_model_an_action() -> None:
    rng = np.random.default_rng(11)
    d, count = 5, 4
    alone, together, names = _fresh(count, d), _fresh(1, d * count), np.eye(count, dtype=np.float32)
    arms, features = _arms(*range(count)), np.empty(d * count)
    for _ in range(150):
        x = rng.standard_normal(d)
        played = best_optimistic(x, arms, alone.theta, alone.covariance, 0.7)
        assert best_optimistic_shared(x, names, arms, together.theta[0], together.covariance[0], 0.7) == played
        reward = float(rng.random() < 1.0 / (1.0 + np.exp(-x[played])))
        _learn(alone, played, x, reward)
        joint(x, names[played], features)
        _learn(together, 0, features, reward)


def test_draws_of_the_shared_model_have_its_mean_and_covariance() -> None:
    rng = np.random.default_rng(12)
    models, amount, draws = _learned(rng, 1, 6, 9), 1.5, np.empty((40_000, 6))
    for draw, luck in zip(draws, rng.random(len(draws)), strict=True):
        draw_shared(models.theta[0], models.covariance[0], amount, key_of(luck), draw)
    law = amount**2 * models.covariance[0]
    spread = np.sqrt(np.diag(law))
    assert (np.abs(draws.mean(axis=0) - models.theta[0]) < 4.5 * spread / np.sqrt(len(draws))).all()
    error = np.sqrt((law**2 + np.outer(spread, spread) ** 2) / len(draws))
    assert (np.abs(np.cov(draws.T) - law) < 4.5 * error).all()
    assert stats.kstest((draws[:, 2] - models.theta[0, 2]) / spread[2], "norm").pvalue > 1e-3


def test_a_direction_without_variance_is_not_drawn() -> None:
    u, drawn = np.array([1.0, -2.0, 0.5]), np.empty(3)
    for luck in (0.1, 0.2, 0.3):
        draw_shared(np.zeros(3), np.outer(u, u), 1.0, key_of(luck), drawn)
        np.testing.assert_allclose(np.cross(drawn, u), 0.0, atol=1e-7)
        assert np.abs(drawn).max() > 1e-3
    draw_shared(u, np.zeros((3, 3)), 1.0, key_of(0.1), drawn)
    np.testing.assert_array_equal(drawn, u)


def _told() -> dict[str, list[Any]]:
    """What every function does on some problems."""
    actions: list[int] = []
    numbers: list[float] = []
    for number, (models, x, arms, amount) in enumerate(_problems(updates=8)):
        theta, covariance, key = models.theta, models.covariance, key_of(number / 1000.0)
        actions.append(int(best_optimistic(x, arms, theta, covariance, amount)))
        actions.append(int(best_sampled(x, arms, theta, covariance, amount, key)))
        actions.append(int(_is_optimistic(x, arms, arms[0], theta, covariance, amount)))
        actions.append(int(is_sampled(x, arms, arms[0], theta, covariance, amount, key)))
        numbers.extend((width(x, covariance[0]), float(theta.sum())))
        d = min(3, len(x))
        features, draw = np.empty(d * 2), np.empty(d * 2)
        joint(x[:d], x[-1:].repeat(2), features)
        shared = _fresh(1, d * 2)
        _learn(shared, 0, features, 1.0)
        draw_shared(shared.theta[0], shared.covariance[0], 1.0, key, draw)
        vectors, scores = np.sin(np.arange(24.0)).reshape(12, 2), np.empty(len(arms))
        actions.append(int(best_optimistic_shared(x[:d], vectors, arms, shared.theta[0], shared.covariance[0], 0.5)))
        scores_shared(x[:d], vectors, arms, draw, scores)
        actions.append(int(best_scored(arms, scores)))
        numbers.extend(draw.tolist())
    return {"actions": actions, "numbers": numbers}


def test_the_same_actions_compiled_and_interpreted() -> None:
    command = [sys.executable, "-W", "error", __file__]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    interpreted, compiled = json.loads(done.stdout), _told()
    assert interpreted["actions"] == compiled["actions"]
    np.testing.assert_allclose(interpreted["numbers"], compiled["numbers"], rtol=1e-10, atol=1e-12)


if __name__ == "__main__":
    json.dump(_told(), sys.stdout)
