"""How a bandit explores: from the scores of one decision to the probabilities of its actions, and to a draw.

Each function serves one decision. ``values`` are what the actions promise, in units of reward; the first ``count``
places of an array are the allowed actions, what follows is padding and gets probability 0. Probabilities sum to 1. The
best action is the first of those with the highest value, so candidates in the order of their index keep the rule that
the lowest action wins a tie. Values must be finite; where one is NaN, there is NaN among the probabilities.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled, compiled_sums, inlined

_FARTHEST = 64.0


@inlined
def _exponential(x: float) -> float:
    """exp(x), with x held within 64 of 0, to a relative error of 1e-8: the series of exp(x / 256), squared 8 times.

    Only sums and products, so that a loop over it uses vector instructions, which ``math.exp`` keeps it from.
    """
    y = max(min(x, _FARTHEST), -_FARTHEST) * (1.0 / 256.0)
    e = 1.0 / 120.0 + y * (1.0 / 720.0 + y * (1.0 / 5040.0 + y * (1.0 / 40320.0)))
    e = 1.0 + y * (1.0 + y * (1.0 / 2.0 + y * (1.0 / 6.0 + y * (1.0 / 24.0 + y * e))))
    e *= e
    e *= e
    e *= e
    e *= e
    e *= e
    e *= e
    e *= e
    return e * e


@compiled_sums
def values_of(scores: NDArray[np.float32], bias: float, logistic: bool, out: NDArray[np.float32]) -> None:
    """Write the values of `(K,)` scores x W z_a: sigmoid(score + bias) of a logistic model, else score + bias.

    A sigmoid is right to float32 rounding down to scores of -64, below which it stays at 1.6e-28; as any float32
    sigmoid, it is 1 for all scores above about 17.
    """
    shift = np.float32(bias)
    if logistic:
        for a in range(scores.shape[0]):
            out[a] = 1.0 / (1.0 + _exponential(-np.float64(scores[a] + shift)))
    else:
        for a in range(scores.shape[0]):
            out[a] = scores[a] + shift


@inlined
def _ordered(bits: np.int32) -> np.int32:
    """An integer that orders as the float32 with these bits does; -0.0 is 0.0."""
    ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return np.int32(0) if ordered == np.int32(-1) else ordered


@compiled
def best_place(values: NDArray[np.float32], count: int) -> int:
    """The first of the highest of ``count`` values.

    As integers, since comparing floats keeps a compiler from using vector instructions.
    """
    bits = values.view(np.int32)
    highest = _ordered(bits[0])
    for a in range(count):
        highest = max(highest, _ordered(bits[a]))
    first = count
    for a in range(count):
        first = min(first, a if _ordered(bits[a]) == highest else count)
    return int(first)


@compiled_sums
def softmax_probabilities(
    values: NDArray[np.float32], count: int, temperature: float, out: NDArray[np.float64]
) -> None:
    """Write probabilities in proportion to exp(value / temperature), for a temperature above 0 in units of reward.

    A probability is at least exp(-64) of the largest. One action's probability alone is no cheaper: it needs the sum.
    """
    best = np.float64(values[best_place(values, count)])
    total = 0.0
    for a in range(count):
        weight = _exponential((np.float64(values[a]) - best) / temperature)
        out[a] = weight
        total += weight
    for a in range(count):
        out[a] /= total
    out[count:] = 0.0


@compiled_sums
def inverse_gap_probabilities(
    values: NDArray[np.float32], count: int, offset: float, gamma: float, out: NDArray[np.float64]
) -> None:
    """Write 1 / (offset + gamma (f* - f_a)) for every action but the best, which has the rest: inverse gap weighting.

    With ``offset = count``, Abe and Long (ICML 1999) and SquareCB (Foster and Rakhlin, ICML 2020): draw an action
    uniformly and play it with probability count / (count + gamma gap), else the best. With ``offset = 1 + count``,
    :func:`spanner_inverse_gap` where so few actions are allowed that all of them are the spanner.

    Args:
        offset: at least ``count``.
        gamma: 0 or above and finite, per unit of reward: 0 explores most.
    """
    place = best_place(values, count)
    best = np.float64(values[place])
    others = 0.0
    for a in range(count):
        p = 1.0 / (offset + gamma * (best - np.float64(values[a])))
        out[a] = p
        others += p
    out[place] = 1.0 - (others - out[place])
    out[count:] = 0.0


@compiled_sums
def inverse_gap_probability(values: NDArray[np.float32], count: int, offset: float, gamma: float, action: int) -> float:
    """The entry ``action`` of :func:`inverse_gap_probabilities`, for less: only the best action needs a sum."""
    place = best_place(values, count)
    best = np.float64(values[place])
    if action != place:
        return 1.0 / (offset + gamma * (best - np.float64(values[action])))
    others = -1.0 / offset
    for a in range(count):
        others += 1.0 / (offset + gamma * (best - np.float64(values[a])))
    return 1.0 - others


@compiled
def drawn_place(p: NDArray[np.float64], count: int, luck: float) -> int:
    """The place in [0, count) at ``luck`` in [0, 1) of probabilities ``p``; never one of probability 0."""
    left, last = luck, 0
    for a in range(count):
        if p[a] > 0.0:
            last = a
            if left < p[a]:
                break
            left -= p[a]
    return last


class SpannerScratch(NamedTuple):
    """Room for the spanner of one context, D actions out of K; made by :func:`spanner_scratch`, one for each thread.

    members: `(D,)` int32, the spanner that was found last.
    table: `(D, K)` float32, every action as a combination of ``members``, once there was a swap.
    shrink: `(K,)` float32, what an action's vector is multiplied by: 1 / sqrt(1 + D + iota gap).
    products: `(K,)` float32, the sizes of a row of the table, shrunk. highest: `(D,)` float32, the largest of each row.
    """

    members: NDArray[np.int32]
    table: NDArray[np.float32]
    shrink: NDArray[np.float32]
    products: NDArray[np.float32]
    highest: NDArray[np.float32]


@compiled
def spanner_scratch(dimensions: int, actions: int) -> SpannerScratch:
    """Room for spanners of ``dimensions`` out of ``actions``."""
    return SpannerScratch(
        np.zeros(dimensions, np.int32),
        np.zeros((dimensions, actions), np.float32),
        np.zeros(actions, np.float32),
        np.zeros(actions, np.float32),
        np.zeros(dimensions, np.float32),
    )


@compiled_sums
def _shrink(values: NDArray[np.float32], best: int, offset: float, iota: float, shrink: NDArray[np.float32]) -> None:
    one, base, slope, top = np.float32(1.0), np.float32(offset), np.float32(iota), values[best]
    for a in range(values.shape[0]):
        shrink[a] = one / np.sqrt(base + slope * (top - values[a]))


@compiled
def _largest(row: NDArray[np.float32], shrink: NDArray[np.float32], products: NDArray[np.float32]) -> np.int32:
    """The bits of the largest |row| shrink, and all of them in ``products``: bits order as positive floats do."""
    for a in range(row.shape[0]):
        products[a] = abs(row[a] * shrink[a])
    bits = products.view(np.int32)
    largest = bits[0]
    for a in range(row.shape[0]):
        largest = max(largest, bits[a])
    return np.int32(largest)


@compiled_sums
def _subtract(row: NDArray[np.float32], pivot: NDArray[np.float32], size: np.float32) -> None:
    for a in range(row.shape[0]):
        row[a] -= size * pivot[a]


@compiled
def _eliminate(table: NDArray[np.float32], row: int, action: int) -> None:
    """One step of Gauss and Jordan: ``action`` takes the place of the member that ``row`` stands for."""
    pivot = table[row]
    pivot /= pivot[action]
    for i in range(table.shape[0]):
        size = table[i, action]
        if i != row and size != np.float32(0.0):
            _subtract(table[i], pivot, size)
            table[i, action] = np.float32(0.0)


@compiled
def _reweighted_spanner(
    factor: float, spanner: NDArray[np.int32], coefficients: NDArray[np.float32], scratch: SpannerScratch
) -> int:
    """Write a C-approximate spanner of the shrunk vectors into ``scratch.members``; give how many swaps it took.

    Gives -1 where a value is NaN: otherwise every member has coefficient 1 in its own row, so none is smaller.
    """
    members, table, shrink, products, highest = scratch
    bits, dimensions, swaps, limit = highest.view(np.int32), spanner.shape[0], 0, 1
    members[:] = spanner
    current = coefficients
    while True:
        row, most = 0, np.float32(0.0)
        for i in range(dimensions):
            bits[i] = _largest(current[i], shrink, products)
            size = highest[i] / shrink[members[i]]
            if size > most:
                row, most = i, size
        if most < factor or swaps >= limit:
            return swaps if most > np.float32(0.0) else -1
        if swaps == 0:
            # A swap multiplies the determinant by C or more, and Hadamard bounds it: only rounding can reach the limit.
            limit = 1 + int(dimensions * math.log(most * math.sqrt(dimensions)) / math.log(factor))
            for i in range(dimensions):
                for a in range(table.shape[1]):
                    table[i, a] = coefficients[i, a]
            current = table
        _largest(current[row], shrink, products)
        action = 0
        while products[action] < highest[row]:
            action += 1
        _eliminate(table, row, action)
        members[row] = action
        swaps += 1


@compiled
def spanner_inverse_gap(
    values: NDArray[np.float32],
    iota: float,
    factor: float,
    spanner: NDArray[np.int32],
    coefficients: NDArray[np.float32],
    scratch: SpannerScratch,
    out: NDArray[np.float64],
) -> int:
    """Write the probabilities of SpannerIGW (Zhu, Foster, Langford and Mineiro, ICML 2022); give the swaps it took.

    Each action's vector is divided by sqrt(1 + D + iota (f* - f_a)), and D actions are found that are a C-approximate
    barycentric spanner of what results (Awerbuch and Kleinberg, STOC 2004). One of them, drawn uniformly, is played
    with probability D / (1 + D + iota gap), else the best action: so an action of the spanner that is not the best has
    1 / (1 + D + iota gap), and the best has the rest. The law of one action needs the spanner, hence all this work.

    The search starts from the spanner of the undivided vectors, whatever the last context was, so that no result
    depends on the order of contexts. Each swap takes the largest coefficient of all as its pivot, which keeps errors
    small: with iota times the largest gap up to 1e10, float32 coefficients stay within 1e-5 of a fresh solution.

    Args:
        values: `(K,)`, all of them allowed.
        iota: 0 or above and finite, per unit of reward: 0 explores most.
        factor: C, above 1.
        spanner: `(D,)`, the actions of a spanner of the undivided vectors.
        coefficients: `(D, K)`, of ``spanner_coefficients``.
        out: `(K,)`.
    """
    best = best_place(values, values.shape[0])
    dimensions = spanner.shape[0]
    offset = 1.0 + dimensions
    _shrink(values, best, offset, iota, scratch.shrink)
    swaps = _reweighted_spanner(factor, spanner, coefficients, scratch)
    members, left = scratch.members, 1.0
    out[:] = 0.0
    for i in range(dimensions):
        a = members[i]
        if a != best:
            out[a] = 1.0 / (offset + iota * (np.float64(values[best]) - np.float64(values[a])))
            left -= out[a]
    out[best] = left if swaps >= 0 else np.nan
    return swaps
