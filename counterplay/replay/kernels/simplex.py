"""From losses to probabilities: where online mirror descent lands for each regulariser.

Both solve sum_i f(u + e_i) = 1 for the number u, with f convex and falling and e_i >= 0 the distances above the
smallest loss. Newton's method from a u that is too small rises to the root and never passes it, so it needs no bracket.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled

LARGEST = 1e15
"""Of 1/p: a base that falls lower is kept there, or a diverging rule would leave the numbers."""

_STEPS = 100


@compiled
def barrier_root(excess: NDArray[np.float64]) -> float:
    """The u with sum_i 1 / (u + excess_i) = 1; ``excess`` `(M,)` is not negative, its least is 0, so 1 <= u <= M."""
    root = 1.0
    for _ in range(_STEPS):
        total, slope = -1.0, 0.0
        for i in range(excess.shape[0]):
            p = 1.0 / (root + excess[i])
            total += p
            slope += p * p
        moved = root + total / slope
        if moved <= root:
            break
        root = moved
    return root


@compiled
def barrier_normalised(moved: NDArray[np.float64], inverse: NDArray[np.float64]) -> None:
    """Write into ``inverse`` the 1/p of the log barrier: ``moved`` `(M,)` minus the number that makes p sum to 1.

    For two bases in closed form: with d the distance between them, the smaller 1/p is 1 + 2 / (d + sqrt(d^2 + 4)).
    """
    lowest = moved.min()
    if moved.shape[0] == 2:
        distance = abs(moved[0] - moved[1])
        root = 1.0 + 2.0 / (distance + math.sqrt(distance * distance + 4.0))
    else:
        root = barrier_root(moved - lowest)
    for i in range(moved.shape[0]):
        inverse[i] = min(root + (moved[i] - lowest), LARGEST)


@compiled
def tsallis_probabilities(losses: NDArray[np.float64], rate: float, p: NDArray[np.float64]) -> None:
    """Write into ``p`` the 4 / (rate (loss_i - x))^2 that sum to 1 (Zimmert and Seldin, JMLR 2021: alpha = 1/2)."""
    lowest = losses.min()
    root = 2.0
    for _ in range(_STEPS):
        total, slope = -1.0, 0.0
        for i in range(p.shape[0]):
            half = 2.0 / (root + rate * (losses[i] - lowest))
            total += half * half
            slope += half * half * half
        moved = root + total / slope
        if moved <= root:
            break
        root = moved
    for i in range(p.shape[0]):
        half = 2.0 / (root + rate * (losses[i] - lowest))
        p[i] = half * half


@compiled
def exponential_weights(losses: NDArray[np.float64], rate: float, p: NDArray[np.float64]) -> None:
    """Write into ``p`` the probabilities in proportion to exp(-rate loss_i)."""
    lowest, total = losses.min(), 0.0
    for i in range(p.shape[0]):
        p[i] = math.exp(-rate * (losses[i] - lowest))
        total += p[i]
    for i in range(p.shape[0]):
        p[i] /= total
