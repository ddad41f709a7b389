"""Who acts: the selector's probabilities, its smoothing, its budget, and its learning.

Base 0 is the bandit; the others are models. Schedules count batches from 1 (as the released code of Chen, Zhang and
Zhu, EMNLP 2024, does); budgets count the decisions in which a model acted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.records import (
    CLIP,
    EXPONENTIAL,
    HARD_STOP,
    LINEAR,
    LOG_BARRIER,
    MIX,
    POLYNOMIAL,
    Bases,
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


@compiled
def within_budget(
    selector: SelectorSettings, bases: Bases, calls: int, p: NDArray[np.float64], kept: NDArray[np.float64]
) -> None:
    """Write what the budget leaves of ``p`` into ``kept``; what is taken from the models goes to the bandit."""
    factor = 1.0
    if selector.budget_rule == HARD_STOP:
        factor = 1.0 if calls < selector.budget else 0.0
    elif selector.budget_rule == LINEAR:
        factor = max(0.0, (selector.budget - calls) / selector.budget) if selector.budget > 0 else 0.0
    taken = 0.0
    for i in range(p.shape[0]):
        kept[i] = p[i]
        if bases.calls[i]:
            kept[i] = p[i] * factor
            taken += p[i] - kept[i]
    kept[0] += taken


@compiled
def drawn_base(p: NDArray[np.float64], total: float, luck: float) -> int:
    """The base at the place ``luck`` in [0, 1) of the weights ``p``, which sum to ``total``."""
    left = luck * total
    last = 0
    for i in range(p.shape[0]):
        if p[i] > 0.0:
            last = i
            if left < p[i]:
                return i
            left -= p[i]
    return last


@compiled
def credit(
    selector: SelectorSettings,
    state: State,
    played: NDArray[np.float64],
    base: int,
    reward: float,
    losses: NDArray[np.float64],
) -> None:
    """Add one decision's importance-weighted loss to ``losses`` `(M,)` (log-barrier selector only)."""
    if selector.kind == LOG_BARRIER:
        weight = 1.0 / played[base] if selector.played_weight else state.inverse[base]
        losses[base] += (selector.loss_offset - reward) * weight


@compiled
def barrier_step(selector: SelectorSettings, state: State, losses: NDArray[np.float64]) -> None:
    """One step of online mirror descent with the log barrier (Chen et al., Algorithm 3), in place.

    Finds the lambda with sum_i 1 / (1/p_i + step (loss_i - lambda)) = 1 by bisection: the sum rises with lambda.
    """
    if selector.kind != LOG_BARRIER:
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
