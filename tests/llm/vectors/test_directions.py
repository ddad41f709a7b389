"""Directions that contexts and actions share: laws."""

from __future__ import annotations

import numpy as np
import pytest

from counterplay.errors import InputError
from counterplay.llm.vectors.directions import Directions, Singles, common_directions, second_moments

WIDTH = 24


def unit(count: int, seed: int) -> Singles:
    rows = np.random.default_rng(seed).normal(size=(count, WIDTH)) * np.linspace(1, 0.1, WIDTH)
    return np.asarray(np.round(rows / np.linalg.norm(rows, axis=1, keepdims=True), 5), dtype=np.float32)


CONTEXTS, ACTIONS = unit(300, 1), unit(40, 2)


def shared(contexts: Singles, actions: Singles, dimensions: int) -> Directions:
    return common_directions(second_moments([contexts], WIDTH), second_moments([actions], WIDTH), dimensions)


def test_all_directions_keep_every_inner_product() -> None:
    found = shared(CONTEXTS, ACTIONS, 1000)
    assert found.basis.shape == (WIDTH, WIDTH)
    assert (found.contexts, found.actions) == pytest.approx((1, 1))
    products = found.of_contexts(CONTEXTS) @ found.of_actions(ACTIONS).T
    np.testing.assert_allclose(products, CONTEXTS @ ACTIONS.T, atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 5, WIDTH])
def test_actions_lie_in_their_main_directions_the_largest_first(dimensions: int) -> None:
    actions = shared(CONTEXTS, ACTIONS, dimensions).of_actions(ACTIONS).astype(np.float64)
    products = actions.T @ actions
    sizes = np.diag(products)
    assert (np.diff(sizes) < 0).all()
    assert np.abs(products - np.diag(sizes)).max() < 1e-5


def test_more_directions_keep_more_and_none_are_better_for_both_together() -> None:
    kept = [shared(CONTEXTS, ACTIONS, dimensions) for dimensions in range(1, WIDTH + 1)]
    both = [found.contexts + found.actions for found in kept]
    assert (np.diff(both) > 0).all()
    for seed in range(20):
        other, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(WIDTH, 5)))
        lengths = sum(np.sum((side @ other) ** 2) / np.sum(side**2) for side in (CONTEXTS, ACTIONS))
        assert lengths < both[4]


def test_few_actions_leave_the_other_directions_to_the_contexts() -> None:
    found = shared(CONTEXTS, ACTIONS[:3], 10)
    assert (found.used, found.basis.shape[1]) == (3, 10)
    assert not found.of_actions(ACTIONS[:3])[:, 3:].any()
    contexts = found.of_contexts(CONTEXTS)[:, 3:].astype(np.float64)
    products = contexts.T @ contexts
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-4
    assert (np.diff(np.diag(products)) < 0).all()


def test_there_are_no_more_directions_than_the_vectors_have() -> None:
    assert shared(CONTEXTS[:4], ACTIONS[:3], 50).basis.shape[1] == 7
    assert shared(CONTEXTS[:4], ACTIONS[:0], 50).basis.shape[1] == 4


def test_order_blocks_and_numbers_of_contexts_change_nothing() -> None:
    expected = shared(CONTEXTS, ACTIONS, 6)
    blocks = (CONTEXTS[::-1][start : start + 7] for start in range(0, len(CONTEXTS), 7))
    moments = second_moments(blocks, WIDTH)
    found = common_directions(moments, second_moments([ACTIONS], WIDTH), 6)
    np.testing.assert_allclose(found.basis, expected.basis, atol=1e-9)
    twice = shared(np.concatenate([CONTEXTS, CONTEXTS]), ACTIONS, 6)
    np.testing.assert_allclose(twice.basis, expected.basis, atol=1e-9)


def test_contexts_of_which_nothing_is_known_are_refused() -> None:
    with pytest.raises(InputError, match="knows no word"):
        shared(np.zeros_like(CONTEXTS), ACTIONS, 5)
