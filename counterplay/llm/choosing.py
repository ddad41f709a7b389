"""From what a model said to what it would do.

Both rules give, for each context, actions with probabilities that add up to one; a context without an output is a miss
(action -1), which is for the miss policy of an experiment to answer, not for us.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

Choice = tuple[list[int], list[float]]
MISS: Choice = ([-1], [0.0])


def choose_by_rank(response: Mapping[str, Any], candidates: Sequence[int], best: int = 1) -> Choice:
    """The ``best`` candidates of highest log-likelihood, weighted by their likelihood; ties: the lowest action."""
    ranked = sorted(zip(response["logprobs"], candidates, strict=True), key=lambda pair: (-pair[0], pair[1]))[:best]
    return [action for _, action in ranked], _shares([logprob for logprob, _ in ranked])


def choose_by_vector(
    response: Mapping[str, Any], vectors: Mapping[str, npt.NDArray[np.float32]], actions: npt.NDArray[np.float32]
) -> Choice:
    """Algorithm 1 of Chen, Zhang and Zhu (EMNLP 2024): each of the k outputs acts as its nearest action.

    Output o_i with likelihood q_i becomes a_i = argmax_a cos(g(o_i), g(a)), played with probability q_i / sum_j q_j;
    the shares of outputs with the same nearest action add up. ``vectors``: g of each text of the response; ``actions``:
    g of each action, ``(K, d)``; both of unit length.
    """
    nearest = [int(np.argmax(actions @ vectors[text])) for text in response["texts"]]
    shares: dict[int, float] = {}
    for action, share in zip(nearest, _shares(response["logprobs"]), strict=True):
        shares[action] = shares.get(action, 0.0) + share
    ranked = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))
    return [action for action, _ in ranked], [share for _, share in ranked]


def as_arrays(choices: Sequence[Choice]) -> tuple[Ints, Floats]:
    """Choices as ``(C, k)`` actions padded with -1 and ``(C, k)`` probabilities padded with 0."""
    width = max((len(actions) for actions, _ in choices), default=1)
    actions = np.full((len(choices), width), -1, dtype=np.int32)
    probabilities = np.zeros((len(choices), width), dtype=np.float64)
    for row, (chosen, shares) in enumerate(choices):
        actions[row, : len(chosen)] = chosen
        probabilities[row, : len(shares)] = shares
    return actions, probabilities


def _shares(logprobs: Sequence[float]) -> list[float]:
    weights = np.exp(np.asarray(logprobs, dtype=np.float64) - max(logprobs))
    return [float(weight) for weight in weights / weights.sum()]
