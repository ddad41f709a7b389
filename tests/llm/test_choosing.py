"""From outputs to choices: numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from counterplay.llm.choosing import MISS, as_arrays, choose_by_rank, choose_by_vector
from counterplay.llm.embedding import nearest_actions


def test_the_candidate_of_highest_likelihood_is_chosen() -> None:
    assert choose_by_rank({"logprobs": [-3.0, -1.0, -2.0]}, [7, 4, 9]) == ([4], [1.0])


def test_a_tie_goes_to_the_lowest_action() -> None:
    assert choose_by_rank({"logprobs": [-1.0, -1.0, -1.0]}, [7, 4, 9]) == ([4], [1.0])


def test_several_share_by_likelihood_however_small_it_is() -> None:
    actions, shares = choose_by_rank({"logprobs": [-5000.0, -5000.0 + math.log(3.0), -9000.0]}, [0, 1, 2], best=2)
    assert actions == [1, 0]
    assert shares == pytest.approx([0.75, 0.25])


def test_outputs_with_the_same_nearest_action_add_up() -> None:
    actions = np.eye(3, dtype=np.float32)
    vectors = {"x": actions[1], "y": actions[1], "z": actions[2]}
    response = {"texts": ["x", "y", "z"], "logprobs": [math.log(0.2), math.log(0.1), math.log(0.1)]}
    chosen, shares = choose_by_vector(response, vectors, actions)
    assert chosen == [1, 2]
    assert shares == pytest.approx([0.75, 0.25])


def test_the_nearest_actions_come_nearest_first_and_ties_lowest_first() -> None:
    actions = np.array([[0, 1], [2, 0], [1, 0], [1, 1]], dtype=np.float32)
    assert nearest_actions(np.array([[3, 0]], dtype=np.float32), actions, 4).tolist() == [[1, 2, 3, 0]]


def test_choices_of_different_length_are_padded_and_a_miss_stays_one() -> None:
    actions, probabilities = as_arrays([([2, 0], [0.5, 0.5]), MISS, ([1], [1.0])])
    assert actions.tolist() == [[2, 0], [-1, -1], [1, -1]]
    assert probabilities.tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]
