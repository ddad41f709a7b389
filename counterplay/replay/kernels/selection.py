"""Who acts: the selector's probabilities, its gate, its budget, and its learning.

Base 0 is the bandit; the others are models. A batch begins with ``base_probabilities``. Each of its rounds is
``shares_now``, ``drawn_base``, ``engage`` and, once the reward is known, ``settle``; the batch ends with ``credit`` and
``selector_step``. Schedules count batches from 1, as the released code of Chen, Zhang and Zhu (EMNLP 2024) does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import borrowing, compiled, inlined
from counterplay.replay.kernels.records import (
    CLIP,
    EXP3,
    EXPONENTIAL,
    GUARDED,
    LINEAR,
    LINEAR_DECAY,
    LOG_BARRIER,
    MIX,
    NO_BUDGET,
    POLYNOMIAL,
    PRICED,
    TSALLIS,
    UNSURE,
    SelectorSettings,
    State,
)
from counterplay.replay.kernels.simplex import barrier_normalised, exponential_weights, tsallis_probabilities

NO_LIMIT = 2**63 - 1
"""The budget, in calls, of an agent that has none."""


@borrowing
def needs_uncertainty(kind: int) -> bool:
    """Whether the selector looks at what the bandit predicts: how sure it is (UNSURE), or how much (PRICED)."""
    return kind in (UNSURE, PRICED)


@borrowing
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


@borrowing
def scheduled_share(selector: SelectorSettings, batch: int) -> float:
    """The probability that a model acts in batch ``batch`` (from 1), of the kinds that do not learn."""
    if selector.kind == POLYNOMIAL:
        share = selector.scale / batch**selector.decay
    elif selector.kind == EXPONENTIAL:
        share = selector.scale * math.exp(-selector.decay * batch)
    elif selector.kind == LINEAR_DECAY:
        share = selector.most * (1.0 - (batch - 1) / selector.batches)
    else:
        share = selector.most
    return float(min(selector.most, max(selector.least, share)))


@borrowing
def base_probabilities(selector: SelectorSettings, state: State, batch: int, p: NDArray[np.float64]) -> None:
    """Write the probability of each base in batch ``batch`` (from 1) into ``p`` `(M,)`, before any budget.

    Of a selector with a gate (UNSURE, PRICED, GUARDED): where the gate is open.
    """
    count = p.shape[0]
    if count == 1:
        p[0] = 1.0
        return
    if selector.kind == LOG_BARRIER:
        for i in range(count):
            p[i] = 1.0 / state.inverse[i]
    elif selector.kind == EXP3:
        exponential_weights(state.losses, selector.step, p)
    elif selector.kind == TSALLIS:
        tsallis_probabilities(state.losses, selector.step / math.sqrt(batch), p)
    else:
        share = scheduled_share(selector, batch)
        p[0] = 1.0 - share
        for i in range(1, count):
            p[i] = share / (count - 1)
    smoothed(selector, p)


@inlined
def share_of_budget(rule: int, budget: int, money: float, made: int, spent: float) -> float:
    """The factor in [0, 1] that a linear budget leaves of the models' probability."""
    factor = 1.0
    if rule == LINEAR:
        if budget < NO_LIMIT:
            factor = max(0.0, (budget - made) / max(budget, 1))
        if money < np.inf:
            factor *= max(0.0, money - spent) / money if money > 0.0 else 0.0
    return factor


# In the inlined functions of a round no array or record is touched inside a branch: the compiler then drops the
# counting of references, which would take several times as long as the arithmetic.
@inlined
def shares_now(
    selector: SelectorSettings,
    calls: NDArray[np.bool_],
    counts: NDArray[np.int64],
    ledger: NDArray[np.float64],
    p: NDArray[np.float64],
    kept: NDArray[np.float64],
    row: int,
    unsure: float,
    value: float,
    rounds: int,
) -> None:
    """Write what gate and budget leave of ``p`` into ``kept[row]``; the bandit gets the rest.

    Args:
        unsure: how unsure the bandit is in this decision, in [0, 1] (UNSURE).
        value: the reward that the bandit predicts for its best action (PRICED).
        rounds: how many rounds were played before this one (GUARDED).
    """
    kind, threshold, price, allowance = selector.kind, selector.threshold, selector.price, selector.allowance
    least, most, optimism = selector.least, selector.most, selector.scale
    rule, budget, money, prices = selector.budget_rule, selector.budget, selector.money, selector.prices
    made, spent, seen, earned, shortfall = counts[1], ledger[0], ledger[1], ledger[2], ledger[3]
    factor = share_of_budget(rule, budget, money, made, spent)
    if kind == UNSURE:
        factor *= 1.0 if unsure > threshold else least / most
    elif kind == PRICED:
        factor *= 1.0 if (earned + optimism) / (seen + optimism) - value > price else 0.0
    elif kind == GUARDED:
        factor *= 1.0 if shortfall + 1.0 <= allowance * (rounds + 1.0) else 0.0
    endless, left, taken = rule == NO_BUDGET, made < budget, 0.0
    for i in range(p.shape[0]):
        affordable = endless | (left & (spent + prices[i] <= money))
        kept[row, i] = p[i] * (1.0 if (i == 0) | (not calls[i]) else factor * affordable)
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


@inlined
def engage(
    calls: NDArray[np.bool_],
    prices: NDArray[np.float64],
    counts: NDArray[np.int64],
    ledger: NDArray[np.float64],
    base: int,
) -> None:
    """Enter that ``base`` acts: its call, its price, and, until ``settle`` knows better, a whole reward of shortfall.

    So budgets and guard hold inside a batch too, whose rewards are known only at its end.
    """
    called = 1 if calls[base] else 0
    counts[1] += called
    ledger[0] += called * prices[base]
    ledger[3] += called if base > 0 else 0


@inlined
def settle(calls: NDArray[np.bool_], ledger: NDArray[np.float64], base: int, reward: float) -> None:
    """Enter what a round earned; once for every ``engage``. The highest reward is 1."""
    called = 1 if (base > 0) & calls[base] else 0
    ledger[1] += called
    ledger[2] += called * reward
    ledger[3] -= called * reward


@borrowing
def credit(
    selector: SelectorSettings,
    state: State,
    played: NDArray[np.float64],
    base: NDArray[np.int8],
    rewards: NDArray[np.float64],
    losses: NDArray[np.float64],
) -> None:
    """Add the importance-weighted losses of some decisions to ``losses`` `(M,)`; only of selectors that learn.

    ``played`` `(b, M)`: the probabilities that the bases were drawn with; ``base`` and ``rewards`` `(b,)`.
    """
    if selector.kind in (LOG_BARRIER, EXP3, TSALLIS):
        inverse = state.inverse
        for r in range(base.shape[0]):
            weight = 1.0 / played[r, base[r]] if selector.played_weight else inverse[base[r]]
            losses[base[r]] += (selector.loss_offset - rewards[r]) * weight


@compiled
def selector_step(selector: SelectorSettings, state: State, losses: NDArray[np.float64]) -> None:
    """One update from the ``losses`` `(M,)` of a batch, in place; sets them to 0. Nothing for selectors that do not
    learn.

    The log barrier moves (Chen et al., Algorithm 3): 1/p_i becomes 1/p_i + step (loss_i - lambda), with the lambda
    that makes the p sum to 1. EXP3 and Tsallis follow the leader: they keep the sum of losses.
    """
    if selector.kind == LOG_BARRIER:
        if losses.any():
            barrier_normalised(state.inverse + selector.step * losses, state.inverse)
    elif selector.kind in (EXP3, TSALLIS):
        for i in range(losses.shape[0]):
            state.losses[i] += losses[i]
    losses[:] = 0.0
