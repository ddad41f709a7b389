"""Coefficients in a spanner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import ConfigurationError
from counterplay.replay.spanner import barycentric_spanner, reduced, spanner_coefficients


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 30))
@settings(deadline=None, max_examples=50)
def test_every_action_is_its_combination_of_the_spanner(seed: int, width: int, count: int) -> None:
    vectors = reduced(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32), width)
    spanner = barycentric_spanner(vectors)
    coefficients = spanner_coefficients(vectors, spanner)
    assert coefficients.shape == (vectors.shape[1], count)
    assert coefficients.dtype == np.float32
    assert coefficients.flags.c_contiguous
    assert np.allclose(coefficients.T @ vectors[spanner], vectors, atol=1e-5)
    assert np.abs(coefficients).max() <= 2 + 1e-5
    assert np.array_equal(coefficients[:, spanner], np.eye(len(spanner)))


def test_the_order_of_the_spanner_is_the_order_of_the_rows() -> None:
    vectors = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    spanner = barycentric_spanner(vectors)
    turned = spanner_coefficients(vectors, spanner[::-1])
    assert np.allclose(turned[::-1], spanner_coefficients(vectors, spanner), atol=1e-6)


@pytest.mark.parametrize("spanner", [[0, 1], [0, 1, 2, 3], [0, 1, 1], [0, 1, 3]])
def test_actions_that_are_no_basis_are_refused(spanner: list[int]) -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    with pytest.raises(ConfigurationError, match=f"{len(spanner)} actions are no basis of 3 dimensions"):
        spanner_coefficients(vectors, np.array(spanner, np.int32))
