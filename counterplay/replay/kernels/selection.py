"""Who acts: the selector's probabilities, its smoothing, its budget, and its learning.

Base 0 is the bandit; the others are models. Schedules count batches from 1 (as the released code of Chen, Zhang and
Zhu, EMNLP 2024, does); budgets count the decisions in which a model acted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled, inlined
from counterplay.replay.kernels.records import (
    CLIP,
    EXPONENTIAL,
    HARD_STOP,
    LINEAR,
    LOG_BARRIER,
    MIX,
    POLYNOMIAL,
    SelectorSettings,
    State,
)


@compiled
def smoothed(selector: SelectorSettings, p: NDArray[np.float64]) -> None:
    """Keep the bandit from starving (clip) or every base (mix), in place."""
    if selector.smoothing == CLIP and p[0] < selector.smoothing_amount:
        models = 1.0 - p[0]
        p[0] = selector.smoothing_amount
        for i in range(1, p.shape[0]):
            p[i] *= (1.0 - selector.smoothing_amount) / models
    elif selector.smoothing == MIX:
        for i in range(p.shape[0]):
            p[i] = (1.0 - selector.smoothing_amount) * p[i] + selector.smoothing_amount / p.shape[0]


@compiled
def base_probabilities(selector: SelectorSettings, state: State, batch: int, p: NDArray[np.float64]) -> None:
    """Write the probability of each base for the batch number ``batch`` (from 1) into ``p``, before any budget."""
    count = p.shape[0]
    if count == 1:
        p[0] = 1.0
        return
    if selector.kind == LOG_BARRIER:
        for i in range(count):
            p[i] = 1.0 / state.inverse[i]
    else:
        share = selector.scale
        if selector.kind == POLYNOMIAL:
            share = selector.scale / batch**selector.decay
        elif selector.kind == EXPONENTIAL:
            share = selector.scale * math.exp(-selector.decay * batch)
        share = min(selector.most, max(selector.least, share))
        p[0] = 1.0 - share
        for i in range(1, count):
            p[i] = share / (count - 1)
    smoothed(selector, p)


@inlined
def within_budget(
    rule: int,
    budget: int,
    calls: NDArray[np.bool_],
    made: int,
    p: NDArray[np.float64],
    kept: NDArray[np.float64],
    row: int,
) -> None:
    """Write what the budget leaves of ``p`` after ``made`` calls into ``kept[row]``; the bandit gets the rest."""
    factor = 1.0
    if rule == HARD_STOP:
        factor = 1.0 if made < budget else 0.0
    elif rule == LINEAR:
        factor = max(0.0, (budget - made) / budget) if budget > 0 else 0.0
    taken = 0.0
    for i in range(p.shape[0]):
        kept[row, i] = p[i]
        if calls[i]:
            kept[row, i] = p[i] * factor
            taken += p[i] - kept[row, i]
    kept[row, 0] += taken


@inlined
def drawn_base(p: NDArray[np.float64], row: int, total: float, luck: float) -> int:
    """The base at the place ``luck`` in [0, 1) of the weights ``p[row]``, which sum to ``total``."""
    left = luck * total
    last = 0
    for i in range(p.shape[1]):
        if p[row, i] > 0.0:
            last = i
            if left < p[row, i]:
                break
            left -= p[row, i]
    return last


@compiled
def credit(
    selector: SelectorSettings,
    state: State,
    played: NDArray[np.float64],
    base: NDArray[np.int8],
    rewards: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> None:
    """Add the importance-weighted losses of some decisions to ``losses`` `(M,)` (log-barrier selector only).

    ``played`` `(b, M)`: the probabilities that the bases were drawn with; ``base`` and ``rewards`` `(b,)`.
    """
    if selector.kind == LOG_BARRIER:
        inverse = state.inverse
        for r in range(base.shape[0]):
            weight = 1.0 / played[r, base[r]] if selector.played_weight else inverse[base[r]]
            losses[base[r]] += (selector.loss_offset - rewards[r]) * weight


@compiled
def barrier_step(selector: SelectorSettings, state: State, losses: NDArray[np.float64]) -> None:
    """One step of online mirror descent with the log barrier (Chen et al., Algorithm 3), in place.

    Finds the lambda with sum_i 1 / (1/p_i + step (loss_i - lambda)) = 1 by bisection: the sum rises with lambda.
    """
    if selector.kind != LOG_BARRIER or not losses.any():
        return
    moved = state.inverse + selector.step * losses
    lowest = moved.min()
    # With shift s = step * lambda every moved_i - s must stay above 1, and at s = lowest - M the sum is at most 1.
    low, high = lowest - moved.shape[0], lowest - 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle <= low or middle >= high:
            break
        total = 0.0
        for i in range(moved.shape[0]):
            total += 1.0 / (moved[i] - middle)
        if total > 1.0:
            high = middle
        else:
            low = middle
    for i in range(moved.shape[0]):
        state.inverse[i] = moved[i] - low
    losses[:] = 0.0
