"""The compiled pass: moments of the whole importance family, for many policies, in one reading of the evidence.

Rows are taken in blocks that stay in the processor's first cache: the block's weights are made once, then each member
adds its sums. Sums of a block are turned into means and centred products and merged as in `moments.py`, so nothing
cancels over a long log. Policies do not meet: their bits do not depend on who else is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from counterplay.estimators.weighted import TINY
from counterplay.estimators.weights import TAIL

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ROWS = 2048
"""Rows of a block: 16 KiB an array."""

ROUNDING = 1e-14
"""The relative error of a block's sums, with room: a standard deviation of 1e-7 of the mean within a block is 0."""

# Sums may be reordered to use vector instructions, and there are no NaN: evidence was checked.
_FAST = {"reassoc", "contract", "nsz", "nnan"}

Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(function: Function) -> Function:
    return cast(Function, njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")(function))


@_compiled
def shrink_block(kind: int, parameter: float, w: Floats, g: Floats, rows: int) -> None:
    """g[:rows] = the shrunken w[:rows]; `kind` is a place in `weighted.KINDS`."""
    if kind == 0:
        for i in range(rows):
            g[i] = w[i]
    elif kind == 1:
        for i in range(rows):
            g[i] = min(w[i], parameter)
    elif kind == 2:
        for i in range(rows):
            g[i] = w[i] / max(1.0 - parameter + parameter * w[i], TINY)
    elif kind == 3:
        for i in range(rows):
            g[i] = w[i] if w[i] <= parameter else 0.0
    else:
        for i in range(rows):
            g[i] = w[i] / (w[i] * (w[i] / parameter) + 1.0)


@_compiled
def add_weighted(g: Floats, x: Floats, rows: int, sums: Floats) -> None:
    """Sums of a = g x and of g: a, g, aa, ag, gg, aaa, aaaa."""
    a1 = g1 = aa = ag = gg = a3 = a4 = 0.0
    for i in range(rows):
        a = g[i] * x[i]
        square = a * a
        a1 += a
        g1 += g[i]
        aa += square
        ag += a * g[i]
        gg += g[i] * g[i]
        a3 += square * a
        a4 += square * square
    sums[0], sums[1], sums[2], sums[3], sums[4], sums[5], sums[6] = a1, g1, aa, ag, gg, a3, a4


@_compiled
def add_baseline(b: Floats, rows: int, sums: Floats) -> None:
    """Sums of b and of bb."""
    b1 = bb = 0.0
    for i in range(rows):
        b1 += b[i]
        bb += b[i] * b[i]
    sums[0], sums[1] = b1, bb


@_compiled
def add_joint(g: Floats, x: Floats, b: Floats, rows: int, sums: Floats) -> None:
    """Sums of ab and of gb."""
    ab = gb = 0.0
    for i in range(rows):
        product = g[i] * b[i]
        ab += product * x[i]
        gb += product
    sums[8], sums[9] = ab, gb


@_compiled
def largest_of(values: Floats, rows: int, scratch: Floats) -> float:
    """The largest of values[:rows]. By halves, since a running maximum is not turned into vector instructions."""
    half = rows // 2
    for i in range(half):
        scratch[i] = max(values[i], values[half + i])
    if rows % 2:
        scratch[half] = values[rows - 1]
        half += 1
    while half > 1:
        odd = half % 2
        half //= 2
        for i in range(half):
            scratch[i] = max(scratch[i], scratch[half + odd + i])
        half += odd
    return float(scratch[0])


@_compiled
def moved_weight(w: Floats, g: Floats, rows: int) -> float:
    """The sum of |w - g|."""
    moved = 0.0
    for i in range(rows):
        moved += abs(w[i] - g[i])
    return moved


@_compiled
def count_zeros(values: Floats, rows: int) -> float:
    """How many of values[:rows] are 0."""
    found = 0.0
    for i in range(rows):
        found += 1.0 if values[i] == 0.0 else 0.0
    return found


@_compiled
def _square(raw: float, mean: float) -> float:
    """raw - mean, or 0 where that is no more than the rounding error of both: what does not vary has no spread."""
    left = raw - mean
    return left if left > ROUNDING * raw or raw == np.inf else 0.0


@_compiled
def merge_block(
    count: float, rows: int, sums: Floats, own: Floats, product: Floats, mean: Floats, spread: Floats
) -> None:
    """Merge the sums of a block of `rows` into the mean (3,) and the spread (3, 3) of the `count` rows before it.

    `own` (3,) and `product` (3, 3) are scratch.
    """
    own[0], own[1], own[2] = sums[0] / rows, sums[1] / rows, sums[7] / rows
    product[0, 0] = _square(sums[2], rows * own[0] * own[0])
    product[1, 1] = _square(sums[4], rows * own[1] * own[1])
    product[2, 2] = _square(sums[10], rows * own[2] * own[2])
    product[0, 1] = sums[3] - rows * own[0] * own[1] if product[0, 0] > 0 and product[1, 1] > 0 else 0.0
    product[0, 2] = sums[8] - rows * own[0] * own[2] if product[0, 0] > 0 and product[2, 2] > 0 else 0.0
    product[1, 2] = sums[9] - rows * own[1] * own[2] if product[1, 1] > 0 and product[2, 2] > 0 else 0.0
    total = count + rows
    for i in range(3):
        for j in range(i, 3):
            joint = product[i, j] + (own[i] - mean[i]) * (own[j] - mean[j]) * (count * rows / total)
            spread[i, j] += joint
            if i != j:
                spread[j, i] += joint
    for i in range(3):
        mean[i] += (own[i] - mean[i]) * (rows / total)


CHUNK = 64


@_compiled
def keep_largest(w: Floats, rows: int, tail: Floats, kept: int, floor: float) -> tuple[int, float]:
    """Put the weights above `floor` into `tail` (2 TAIL,); (how many stand there, the new floor)."""
    for start in range(0, rows, CHUNK):
        stop = min(start + CHUNK, rows)
        above = 0.0
        for i in range(start, stop):
            above += 1.0 if w[i] > floor else 0.0
        if above == 0.0:
            continue
        if kept + CHUNK > len(tail):
            tail[:TAIL] = np.partition(tail[:kept], kept - TAIL)[kept - TAIL :]
            kept, floor = TAIL, max(floor, tail[:TAIL].min())
        for i in range(start, stop):
            # Written always and counted sometimes: a branch here would be guessed wrong too often.
            tail[kept] = w[i]
            kept += w[i] > floor
    return kept, floor


@_compiled
def fold_policies(
    target: Floats,
    inverse: Floats,
    reward: Floats,
    q_logged: Floats,
    q_target: Floats,
    kinds: Codes,
    parameters: Floats,
    baselines: Codes,
    mean: Floats,
    spread: Floats,
    powers: Floats,
    zeros: Floats,
    largest: Floats,
    moved: Floats,
    heaviest: Floats,
    floors: Floats,
    tail: Floats,
    kept: Codes,
) -> None:
    """Fold n decisions of P policies into M members.

    In: target (P, n); inverse (n,) of the propensities, or (0,) where target holds weights; reward (n,); q_logged
    (1 or P, n) and q_target (P, n), or (0, 0); kinds, parameters, baselines (M,): places in the lists of `weighted.py`.
    Out: mean (P, M, 3) of g x, g and baseline; spread (P, M, 3, 3); powers (P, M, 2): sums of (g x)^3 and (g x)^4;
    zeros (P, M) of g; largest (P, M) of g for kinds that do not rise with the weight; moved (P, M): sums of |w - g|;
    heaviest (P,) weight; tail (P, 2 TAIL) with kept (P,) of the largest weights above floors (P,), in no order;
    (0, 0) where none are wanted.
    """
    policies, n = target.shape
    w, g, residual, scratch = np.empty(ROWS), np.empty(ROWS), np.empty(ROWS), np.empty(ROWS)
    sums, own, product = np.zeros(11), np.empty(3), np.empty((3, 3))
    own_sums, done = np.zeros((3, 2)), np.zeros(3, np.bool_)
    models = len(q_logged)
    for start in range(0, n, ROWS):
        rows = min(ROWS, n - start)
        stop = start + rows
        r = reward[start:stop]
        for p in range(policies):
            t = target[p, start:stop]
            if len(inverse):
                inverted = inverse[start:stop]
                for i in range(rows):
                    w[i] = t[i] * inverted[i]
            else:
                for i in range(rows):
                    w[i] = t[i]
            if models:
                q = q_logged[p if models > 1 else 0, start:stop]
                for i in range(rows):
                    residual[i] = r[i] - q[i]
            if len(tail):
                kept[p], floors[p] = keep_largest(w, rows, tail[p], kept[p], floors[p])
            none = count_zeros(w, rows)
            heaviest[p] = max(heaviest[p], largest_of(w, rows, scratch))
            done[:] = False
            for m in range(len(kinds)):
                shrink_block(kinds[m], parameters[m], w, g, rows)
                x = residual if baselines[m] == 1 else r
                add_weighted(g, x, rows, sums)
                if baselines[m] == 0:
                    sums[7:] = 0.0
                else:
                    b = q_target[p, start:stop] if baselines[m] == 1 else r
                    if not done[baselines[m]]:
                        add_baseline(b, rows, own_sums[baselines[m]])
                        done[baselines[m]] = True
                    sums[7], sums[10] = own_sums[baselines[m], 0], own_sums[baselines[m], 1]
                    add_joint(g, x, b, rows, sums)
                merge_block(float(start), rows, sums, own, product, mean[p, m], spread[p, m])
                powers[p, m, 0] += sums[5]
                powers[p, m, 1] += sums[6]
                zeros[p, m] += count_zeros(g, rows) if kinds[m] == 3 else none
                if kinds[m] > 0:
                    moved[p, m] += moved_weight(w, g, rows)
                if kinds[m] >= 3:
                    largest[p, m] = max(largest[p, m], largest_of(g, rows, scratch))
