"""The compiled pass: moments of the whole importance family, for many policies, in one reading of the evidence.

Rows are taken in blocks that stay in the processor's first cache: the block's weights are made once, then each member
adds its sums. Sums of a block are turned into means and centred products and merged as in `moments.py`, so nothing
cancels over a long log. Neither policies nor members meet: their bits do not depend on who else is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

from counterplay.estimators.weighted import TINY
from counterplay.estimators.weights import TAIL

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ROWS = 2048
"""Rows of a block: 16 KiB an array."""

RUN = 8 * ROWS
"""Rows of one policy that are read one after another, before the next policy's."""

GROUPS = 64
"""A block's rows j, j + 64, j + 128, ... are group j: most groups hold no weight of the tail."""

SUMS = 10
"""Sums of a member: a = g x, g, aa, ag, gg, aaa, aaaa, |w - g|, ab, gb, b being the baseline."""

ROUNDING = 1e-14
"""The relative error of a block's sums, with room: a standard deviation of 1e-7 of the mean within a block is 0."""

# Places in the lists of `weighted.py`. The kind `none` is `clip` at infinity.
CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC = 1, 2, 3, 4
MODEL = 1

# Parts of a block of decisions, each (ROWS,).
WEIGHT, SHRUNKEN, REWARD, RESIDUAL, PREDICTED, NOTHING = range(6)

# Sums may be reordered to use vector instructions, and there are no NaN: evidence was checked.
_FAST = {"reassoc", "contract", "nsz", "nnan"}

Function = TypeVar("Function", bound=Callable[..., Any])


class Logged(NamedTuple):
    """What is read: target (P, n); propensity (n,), or (0,) where target holds weights; reward (n,); q_logged
    (1 or P, n) and q_target (P, n), or (0, 0) and (P, 0) where no member wants them."""

    target: Floats
    propensity: Floats
    reward: Floats
    q_logged: Floats
    q_target: Floats


class Members(NamedTuple):
    """(M,) places in the lists of `weighted.py`, parameters (of `optimistic` the inverse), and limits: weights up to
    the limit stay as they are."""

    kinds: Codes
    parameters: Floats
    limits: Floats
    baselines: Codes


class Found(NamedTuple):
    """What is written: mean (P, M, 3) of g x, g and baseline; spread (P, M, 3, 3); powers (P, M, 2): sums of (g x)^3
    and (g x)^4; zeros, largest, moved (P, M): how many g are 0, the largest g, sums of |w - g|; heaviest (P,) weight;
    predicted (P, 2): the least and the greatest prediction; tail (P, 2 TAIL) with kept (P,) of the largest weights
    above floors (P,), in no order, or (0, 0) where none are wanted."""

    mean: Floats
    spread: Floats
    powers: Floats
    zeros: Floats
    largest: Floats
    moved: Floats
    heaviest: Floats
    predicted: Floats
    tail: Floats
    kept: Codes
    floors: Floats


def _compiled(function: Function) -> Function:
    return cast(Function, njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")(function))


def _adder(kind: int, joint: bool) -> Callable[..., None]:
    # `kind` and `joint` are constants of the compiled function: loops without branches.
    def add(c: float, x: int, b: int, rows: int, m: int, block: Floats, sums: Floats) -> None:
        a1 = g1 = aa = ag = gg = a3 = a4 = moved = ab = gb = 0.0
        for i in range(rows):
            w = g = block[WEIGHT, i]
            if kind == CLIP:
                g = min(w, c)
            elif kind == SUBGAUSSIAN:
                g = w / max(1.0 - c + c * w, TINY)
            elif kind == SWITCH:
                g = w if w <= c else 0.0
            else:
                g = w / (w * (w * c) + 1.0)
            if kind >= SWITCH:
                block[SHRUNKEN, i] = g
            a = g * block[x, i]
            square = a * a
            a1 += a
            g1 += g
            aa += square
            ag += a * g
            gg += g * g
            a3 += square * a
            a4 += square * square
            moved += abs(w - g)
            if joint:
                ab += a * block[b, i]
                gb += g * block[b, i]
        sums[m, 0], sums[m, 1], sums[m, 2], sums[m, 3], sums[m, 4] = a1, g1, aa, ag, gg
        sums[m, 5], sums[m, 6], sums[m, 7], sums[m, 8], sums[m, 9] = a3, a4, moved, ab, gb

    return _compiled(add)


_clip, _subgaussian, _switch, _optimistic = (_adder(kind, False) for kind in (CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC))
_clip_joint, _subgaussian_joint, _switch_joint, _optimistic_joint = (
    _adder(kind, True) for kind in (CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC)
)


@_compiled
def parts_of(baseline: int) -> tuple[int, int]:
    """What is weighted, and what stands beside it."""
    if baseline == MODEL:
        return RESIDUAL, PREDICTED
    return REWARD, REWARD if baseline else NOTHING


@_compiled
def add_terms(kind: int, c: float, baseline: int, rows: int, m: int, block: Floats, sums: Floats) -> None:
    """The sums of member m, and its g(w) in the block where it does not rise with w."""
    x, b = parts_of(baseline)
    if baseline:
        if kind == SUBGAUSSIAN:
            _subgaussian_joint(c, x, b, rows, m, block, sums)
        elif kind == SWITCH:
            _switch_joint(c, x, b, rows, m, block, sums)
        elif kind == OPTIMISTIC:
            _optimistic_joint(c, x, b, rows, m, block, sums)
        else:
            _clip_joint(c, x, b, rows, m, block, sums)
    elif kind == SUBGAUSSIAN:
        _subgaussian(c, x, b, rows, m, block, sums)
    elif kind == SWITCH:
        _switch(c, x, b, rows, m, block, sums)
    elif kind == OPTIMISTIC:
        _optimistic(c, x, b, rows, m, block, sums)
    else:
        _clip(c, x, b, rows, m, block, sums)


@_compiled
def invert(values: Floats, inverse: Floats) -> None:
    """The first of `inverse` = 1 / values."""
    for i in range(len(values)):
        inverse[i] = 1.0 / values[i]


@_compiled
def fill_block(
    target: Floats, inverse: Floats, reward: Floats, q_logged: Floats, q_target: Floats, block: Floats
) -> None:
    """Weights, 0 beyond the rows there are, rewards, and with a model residuals and predictions of the policy."""
    rows = len(reward)
    for i in range(rows):
        block[WEIGHT, i] = target[i] * inverse[i]
        block[REWARD, i] = reward[i]
    block[WEIGHT, rows:] = 0.0
    block[SHRUNKEN, rows:] = 0.0
    for i in range(len(q_logged)):
        block[RESIDUAL, i] = reward[i] - q_logged[i]
        block[PREDICTED, i] = q_target[i]


@_compiled
def largest_weights(part: int, block: Floats, groups: Codes) -> float:
    """The largest of a part of the block, none negative; `groups` then begins with the bits of that of each group.

    Floats that are not negative are in the order of their bits, and the largest of whole numbers is found by vector
    instructions.
    """
    bits = block.view(np.int64)
    width = len(groups)
    for j in range(width):
        groups[j] = 0
    for start in range(0, ROWS, 2 * width):
        first, second = bits[part, start : start + width], bits[part, start + width : start + 2 * width]
        for j in range(width):
            groups[j] = max(groups[j], max(first[j], second[j]))
    while width > GROUPS:
        width //= 2
        second = groups[width : 2 * width]
        for j in range(width):
            groups[j] = max(groups[j], second[j])
    largest = 0
    for j in range(GROUPS):
        largest = max(largest, groups[j])
    groups[GROUPS] = largest
    return float(groups.view(np.float64)[GROUPS])


@_compiled
def widen(values: Floats, low: Floats, high: Floats, p: int, found: Floats) -> None:
    """Widen the range found[p] to the values. By halves: a running extreme is not turned into vector instructions.

    `low` and `high` are scratch.
    """
    rows, half = len(values), len(values) // 2
    second = values[half:]
    for i in range(half):
        low[i], high[i] = min(values[i], second[i]), max(values[i], second[i])
    if rows % 2:
        low[half] = high[half] = values[rows - 1]
        half += 1
    while half > 1:
        odd = half % 2
        half //= 2
        lows, highs = low[half + odd :], high[half + odd :]
        for i in range(half):
            low[i], high[i] = min(low[i], lows[i]), max(high[i], highs[i])
        half += odd
    found[p, 0], found[p, 1] = min(found[p, 0], low[0]), max(found[p, 1], high[0])


@_compiled
def count_zeros(part: int, rows: int, block: Floats) -> float:
    """How many of the first rows of a part of the block are 0."""
    found = 0.0
    for i in range(rows):
        found += 1.0 if block[part, i] == 0.0 else 0.0
    return found


@_compiled
def add_baselines(rows: int, used: Codes, block: Floats, beside: Floats) -> None:
    """beside (3, 2): by baseline, the sums of b and bb; members that share a baseline share these."""
    for baseline in range(1, 3):
        if used[baseline]:
            b = parts_of(baseline)[1]
            total = square = 0.0
            for i in range(rows):
                total += block[b, i]
                square += block[b, i] * block[b, i]
            beside[baseline, 0], beside[baseline, 1] = total, square


@_compiled
def add_members(
    p: int, rows: int, heavy: float, kinds: Codes, parameters: Floats, limits: Floats, baselines: Codes, block: Floats,
    groups: Codes, whole: Codes, sums: Floats, zeros: Floats, largest: Floats,
) -> None:  # fmt: skip
    """The sums (M, SUMS) of each member over a block whose largest weight is `heavy`.

    `whole` (3,) is scratch: by baseline, the first member whose limit no weight exceeds. All such have the same sums.
    """
    whole[:] = -1
    none = count_zeros(WEIGHT, rows, block)
    for m in range(len(kinds)):
        same = heavy <= limits[m]
        if same and whole[baselines[m]] >= 0:
            for i in range(SUMS):
                sums[m, i] = sums[whole[baselines[m]], i]
        elif same:
            # By one loop whatever the kind and the baseline: their bits depend neither on the first nor on each other.
            _clip_joint(limits[m], *parts_of(baselines[m]), rows, m, block, sums)
        else:
            add_terms(kinds[m], parameters[m], baselines[m], rows, m, block, sums)
        if same:
            whole[baselines[m]] = m
        # Where g does not rise with the weight, it may be 0 for others, and be largest for others.
        falls = kinds[m] >= SWITCH and not same
        zeros[p, m] += count_zeros(SHRUNKEN, rows, block) if falls else none
        largest[p, m] = max(largest[p, m], largest_weights(SHRUNKEN, block, groups) if falls else heavy)


@_compiled
def _square(raw: float, mean: float) -> float:
    """raw - mean, or 0 where that is no more than the rounding error of both: what does not vary has no spread."""
    left = raw - mean
    return left if left > ROUNDING * raw or raw == np.inf else 0.0


@_compiled
def merge_block(
    p: int, count: float, rows: int, baselines: Codes, sums: Floats, beside: Floats, mean: Floats, spread: Floats,
    powers: Floats, moved: Floats,
) -> None:  # fmt: skip
    """Merge the sums (M, SUMS) of a block of `rows` into what policy p has of the `count` rows before it."""
    total = count + rows
    both, share = count * rows / total, rows / total
    for m in range(len(sums)):
        a, g, b = sums[m, 0] / rows, sums[m, 1] / rows, beside[baselines[m], 0] / rows
        aa, gg = _square(sums[m, 2], rows * a * a), _square(sums[m, 4], rows * g * g)
        bb = _square(beside[baselines[m], 1], rows * b * b)
        ag = sums[m, 3] - rows * a * g if aa > 0 and gg > 0 else 0.0
        ab = sums[m, 8] - rows * a * b if aa > 0 and bb > 0 else 0.0
        gb = sums[m, 9] - rows * g * b if gg > 0 and bb > 0 else 0.0
        da, dg, db = a - mean[p, m, 0], g - mean[p, m, 1], b - mean[p, m, 2]
        spread[p, m, 0, 0] += aa + da * da * both
        spread[p, m, 0, 1] += ag + da * dg * both
        spread[p, m, 0, 2] += ab + da * db * both
        spread[p, m, 1, 1] += gg + dg * dg * both
        spread[p, m, 1, 2] += gb + dg * db * both
        spread[p, m, 2, 2] += bb + db * db * both
        mean[p, m, 0] += da * share
        mean[p, m, 1] += dg * share
        mean[p, m, 2] += db * share
        powers[p, m, 0] += sums[m, 5]
        powers[p, m, 1] += sums[m, 6]
        moved[p, m] += sums[m, 7]


@_compiled
def keep_largest(p: int, block: Floats, groups: Codes, tail: Floats, kept: Codes, floors: Floats) -> None:
    """Put the weights above floors[p] into tail[p], and raise the floor where it is full."""
    largest = groups.view(np.float64)
    own, count, floor = tail[p], kept[p], floors[p]
    for j in range(GROUPS):
        if largest[j] <= floor:
            continue
        if count + ROWS // GROUPS > len(own):
            own[:TAIL] = np.partition(own[:count], count - TAIL)[count - TAIL :]
            count, floor = TAIL, max(floor, own[:TAIL].min())
        for i in range(j, ROWS, GROUPS):
            # Written always and counted sometimes: a branch here would be guessed wrong too often.
            own[count] = block[WEIGHT, i]
            count += block[WEIGHT, i] > floor
    kept[p], floors[p] = count, floor


@_compiled
def fold_policies(logged: Logged, members: Members, found: Found) -> None:
    """Fold n decisions of P policies into M members."""
    # Taken apart once: a field of a named tuple is counted as a reference wherever it is named.
    target, propensity, reward, q_logged, q_target = logged
    kinds, parameters, limits, baselines = members
    mean, spread, powers, zeros, largest, moved, heaviest, predicted, tail, kept, floors = found
    (policies, n), models = target.shape, len(q_logged)
    inverse, block, groups = np.ones(RUN), np.zeros((6, ROWS)), np.empty(4 * GROUPS, np.int64)
    low, high, sums, whole = np.empty(ROWS), np.empty(ROWS), np.empty((len(kinds), SUMS)), np.empty(3, np.int64)
    used, beside = np.zeros(3, np.int64), np.zeros((3, 2))
    for m in range(len(kinds)):
        used[baselines[m]] = 1
    for run in range(0, n, RUN):
        end = min(run + RUN, n)
        if len(propensity):
            invert(propensity[run:end], inverse)
        for p in range(policies):
            for start in range(run, end, ROWS):
                stop = min(start + ROWS, end)
                q, own_q = reward[:0], q_target[p, start:stop]
                if models:
                    q = q_logged[p % models, start:stop]
                    widen(own_q, low, high, p, predicted)
                    if p < models:
                        widen(q, low, high, p, predicted)
                fill_block(target[p, start:stop], inverse[start - run :], reward[start:stop], q, own_q, block)
                heavy = largest_weights(WEIGHT, block, groups)
                heaviest[p] = max(heaviest[p], heavy)
                if len(tail) and heavy > floors[p]:
                    keep_largest(p, block, groups, tail, kept, floors)
                add_baselines(stop - start, used, block, beside)
                add_members(
                    p, stop - start, heavy, kinds, parameters, limits, baselines, block, groups, whole, sums, zeros,
                    largest,
                )  # fmt: skip
                merge_block(
                    p, float(start), stop - start, baselines, sums, beside, mean, spread, powers, moved
                )  # fmt: skip
