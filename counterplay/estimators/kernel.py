"""The compiled pass: moments of the whole importance family, for many policies, in one reading of the evidence.

Rows are taken in blocks that stay in the processor's first two caches: the block's weights are made once, then each
member adds its sums. Sums of a block are turned into means and centred products and merged as in `moments.py`, so
nothing cancels over a long log. Blocks are merged into segments, and segments in the order of the rows: bits do not
depend on how threads share them. Neither policies nor members meet: their bits do not depend on who else is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from counterplay.compiled import in_any_order
from counterplay.estimators.weighted import TINY
from counterplay.estimators.weights import TAIL

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

ROWS = 4096
"""Rows of a block: 32 KiB an array."""

RUN = 4 * ROWS
"""Rows of one policy that are read one after another, before the next policy's."""

SEGMENT = 16 * RUN
"""Rows with sums of their own, which one thread makes. A constant: it decides last bits."""

GROUPS = 256
"""A block's rows j, j + 256, j + 512, ... are group j: most groups hold no weight of the tail."""

SUMS = 11
"""Sums of a member: a = g x, g, aa, ag, gg, aaa, aaaa, |w - g|, ab, gb, b being the baseline; and how many g are 0."""

FIELDS = 14
"""What is folded of a member: means of a, g and b, their centred products aa, ag, ab, gg, gb, bb, the sums of aaa, aaaa
and |w - g|, how many g are 0, and the largest g."""

ROUNDING = 1e-14
"""The relative error of a block's sums, with room: a standard deviation of 1e-7 of the mean within a block is 0."""

# Places in the lists of `weighted.py`. The kind `none` is `clip` at infinity.
CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC = 1, 2, 3, 4
MODEL = 1


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
    """What is written: of S segments folded (S, P, M, FIELDS), the heaviest (S, P) weight and predicted (S, P, 2), the
    least and the greatest prediction; of T threads tail (T, P, 2 TAIL) with kept (T, P) of the largest weights above
    floors (T, P), in no order, or (T, 0, 0) where none are wanted."""

    folded: Floats
    heaviest: Floats
    predicted: Floats
    tail: Floats
    kept: Codes
    floors: Floats


class Share(NamedTuple):
    """What one thread folds: segments and policies from the first to before the last, into its own tails."""

    thread: int
    first_segment: int
    last_segment: int
    first_policy: int
    last_policy: int


def _adder(kind: int, joint: bool) -> Callable[..., None]:
    # `kind` and `joint` are constants of the compiled function: loops without branches.
    def add(c: float, weight: Floats, shrunken: Floats, x: Floats, b: Floats, m: int, sums: Floats) -> None:
        a1 = g1 = aa = ag = gg = a3 = a4 = moved = ab = gb = zeros = 0.0
        for i in range(len(x)):
            w = g = weight[i]
            if kind == CLIP:
                g = min(w, c)
            elif kind == SUBGAUSSIAN:
                g = w / max(1.0 - c + c * w, TINY)
            elif kind == SWITCH:
                g = w if w <= c else 0.0
            else:
                g = w / (w * (w * c) + 1.0)
            if kind >= SWITCH:
                shrunken[i] = g
                zeros += 1.0 if g == 0.0 else 0.0
            a = g * x[i]
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
                ab += a * b[i]
                gb += g * b[i]
        sums[m, 0], sums[m, 1], sums[m, 2], sums[m, 3], sums[m, 4] = a1, g1, aa, ag, gg
        sums[m, 5], sums[m, 6], sums[m, 7], sums[m, 8], sums[m, 9], sums[m, 10] = a3, a4, moved, ab, gb, zeros

    return in_any_order(add)


_clip, _subgaussian, _switch, _optimistic = (_adder(kind, False) for kind in (CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC))
_clip_joint, _subgaussian_joint, _switch_joint, _optimistic_joint = (
    _adder(kind, True) for kind in (CLIP, SUBGAUSSIAN, SWITCH, OPTIMISTIC)
)


@in_any_order
def invert(values: Floats, inverse: Floats) -> None:
    """The first of `inverse` = 1 / values."""
    for i in range(len(values)):
        inverse[i] = 1.0 / values[i]


@in_any_order
def subtract(reward: Floats, q_logged: Floats, residual: Floats) -> None:
    """The first of `residual` = reward - q_logged."""
    for i in range(len(reward)):
        residual[i] = reward[i] - q_logged[i]


@in_any_order
def weigh(target: Floats, inverse: Floats, weight: Floats, shrunken: Floats) -> float:
    """The weights of a block, 0 like `shrunken` beyond the rows there are; how many are 0."""
    rows, zeros = len(target), 0.0
    for i in range(rows):
        w = target[i] * inverse[i]
        weight[i] = w
        zeros += 1.0 if w == 0.0 else 0.0
    weight[rows:] = shrunken[rows:] = 0.0
    return zeros


@in_any_order
def add_peaks(weight: Floats, peaks: Floats) -> None:
    """The largest weight of each group."""
    peaks[:] = 0.0
    for start in range(0, ROWS, 2 * GROUPS):
        first, second = weight[start : start + GROUPS], weight[start + GROUPS : start + 2 * GROUPS]
        for j in range(GROUPS):
            peaks[j] = max(peaks[j], max(first[j], second[j]))


@in_any_order
def largest_of(peaks: Floats, bits: Codes) -> float:
    """The largest of `peaks`, none negative; `bits` are their bits, with one place more.

    Floats that are not negative are in the order of their bits, and the largest of whole numbers is found by vector
    instructions.
    """
    largest = 0
    for j in range(GROUPS):
        largest = max(largest, bits[j])
    bits[GROUPS] = largest
    return float(peaks[GROUPS])


@in_any_order
def add_baselines(used: Codes, predicted: Floats, reward: Floats, beside: Floats) -> None:
    """beside (3, 2): by baseline, where it is `used`, the sums of b and bb; members that share one share these."""
    for baseline in range(1, 3):
        if used[baseline]:
            b = predicted if baseline == MODEL else reward
            total = square = 0.0
            for i in range(len(b)):
                total += b[i]
                square += b[i] * b[i]
            beside[baseline, 0], beside[baseline, 1] = total, square


@in_any_order
def add_range(values: Floats, low: Floats, high: Floats) -> None:
    """Widen `low` and `high` to the values of each group: a running extreme of floats is not vectorised."""
    full = len(values) // (2 * GROUPS) * (2 * GROUPS)
    for start in range(0, full, 2 * GROUPS):
        first, second = values[start : start + GROUPS], values[start + GROUPS : start + 2 * GROUPS]
        for j in range(GROUPS):
            low[j] = min(low[j], min(first[j], second[j]))
            high[j] = max(high[j], max(first[j], second[j]))
    for i in range(full, len(values)):
        low[i % GROUPS], high[i % GROUPS] = min(low[i % GROUPS], values[i]), max(high[i % GROUPS], values[i])


@in_any_order
def widen(low: Floats, high: Floats, p: int, found: Floats) -> None:
    """Widen the range found[p] to `low` and `high`, which then are empty ranges again."""
    half = GROUPS // 2
    while half:
        for j in range(half):
            low[j], high[j] = min(low[j], low[half + j]), max(high[j], high[half + j])
        half //= 2
    found[p, 0], found[p, 1] = min(found[p, 0], low[0]), max(found[p, 1], high[0])
    low[:], high[:] = np.inf, -np.inf


@in_any_order
def add_terms(
    kind: int, c: float, joint: bool, weight: Floats, shrunken: Floats, x: Floats, b: Floats, m: int, sums: Floats
) -> None:
    """The sums of member m, and its g(w) in `shrunken` where it does not rise with w."""
    if joint:
        if kind == SUBGAUSSIAN:
            _subgaussian_joint(c, weight, shrunken, x, b, m, sums)
        elif kind == SWITCH:
            _switch_joint(c, weight, shrunken, x, b, m, sums)
        elif kind == OPTIMISTIC:
            _optimistic_joint(c, weight, shrunken, x, b, m, sums)
        else:
            _clip_joint(c, weight, shrunken, x, b, m, sums)
    elif kind == SUBGAUSSIAN:
        _subgaussian(c, weight, shrunken, x, b, m, sums)
    elif kind == SWITCH:
        _switch(c, weight, shrunken, x, b, m, sums)
    elif kind == OPTIMISTIC:
        _optimistic(c, weight, shrunken, x, b, m, sums)
    else:
        _clip(c, weight, shrunken, x, b, m, sums)


@in_any_order
def add_members(
    heavy: float, zeros: float, kinds: Codes, parameters: Floats, limits: Floats, baselines: Codes, weight: Floats,
    shrunken: Floats, reward: Floats, residual: Floats, predicted: Floats, peaks: Floats, bits: Codes, whole: Codes,
    sums: Floats, part: Floats,
) -> None:  # fmt: skip
    """The sums (M, SUMS) of each member over a block whose largest weight is `heavy`; zeros and largest g in `part`.

    `whole` (3,) is scratch: by baseline, the first member whose limit no weight exceeds. All such have the same sums.
    """
    whole[:] = -1
    for m in range(len(kinds)):
        baseline, same = baselines[m], heavy <= limits[m]
        part[m, 12], part[m, 13] = zeros, heavy
        if same and whole[baseline] >= 0:
            for i in range(SUMS):
                sums[m, i] = sums[whole[baseline], i]
            continue
        # What no weight exceeds is clipped, and joint, whatever it is: bits do not depend on which of them was first.
        kind, c = (CLIP, limits[m]) if same else (kinds[m], parameters[m])
        joint = same or baseline != 0
        if baseline == MODEL:
            add_terms(kind, c, joint, weight, shrunken, residual, predicted, m, sums)
        else:
            add_terms(kind, c, joint, weight, shrunken, reward, reward, m, sums)
        if same:
            whole[baseline] = m
        elif kind >= SWITCH:
            # Where g does not rise with the weight, it may be 0 for others, and be largest for others.
            add_peaks(shrunken, peaks)
            part[m, 12], part[m, 13] = sums[m, 10], largest_of(peaks, bits)


@in_any_order
def _square(raw: float, mean: float) -> float:
    """raw - mean, or 0 where that is no more than the rounding error of both: what does not vary has no spread."""
    left = raw - mean
    return left if left > ROUNDING * raw or raw == np.inf else 0.0


@in_any_order
def centre(rows: int, baselines: Codes, sums: Floats, beside: Floats, part: Floats) -> None:
    """From the sums of a block, and those (3, 2) of b and bb by baseline, to its means and centred products."""
    for m in range(len(sums)):
        a, g, b = sums[m, 0] / rows, sums[m, 1] / rows, beside[baselines[m], 0] / rows
        aa, gg = _square(sums[m, 2], rows * a * a), _square(sums[m, 4], rows * g * g)
        bb = _square(beside[baselines[m], 1], rows * b * b)
        part[m, 0], part[m, 1], part[m, 2] = a, g, b
        part[m, 3] = aa
        part[m, 4] = sums[m, 3] - rows * a * g if aa > 0 and gg > 0 else 0.0
        part[m, 5] = sums[m, 8] - rows * a * b if aa > 0 and bb > 0 else 0.0
        part[m, 6] = gg
        part[m, 7] = sums[m, 9] - rows * g * b if gg > 0 and bb > 0 else 0.0
        part[m, 8] = bb
        part[m, 9], part[m, 10], part[m, 11] = sums[m, 5], sums[m, 6], sums[m, 7]


@in_any_order
def merge(count: float, rows: int, own: Floats, part: Floats) -> None:
    """Merge what is folded (M, FIELDS) of `rows` into that of the `count` rows before them."""
    total = count + rows
    both, share = count * rows / total, rows / total
    for m in range(len(own)):
        da, dg, db = part[m, 0] - own[m, 0], part[m, 1] - own[m, 1], part[m, 2] - own[m, 2]
        own[m, 0] += da * share
        own[m, 1] += dg * share
        own[m, 2] += db * share
        own[m, 3] += part[m, 3] + da * da * both
        own[m, 4] += part[m, 4] + da * dg * both
        own[m, 5] += part[m, 5] + da * db * both
        own[m, 6] += part[m, 6] + dg * dg * both
        own[m, 7] += part[m, 7] + dg * db * both
        own[m, 8] += part[m, 8] + db * db * both
        for i in range(9, 13):
            own[m, i] += part[m, i]
        own[m, 13] = max(own[m, 13], part[m, 13])


@in_any_order
def merge_segments(n: int, found: Found) -> None:
    """Merge all segments into the first, in the order of the rows."""
    folded, heaviest, predicted, _, _, _ = found
    segments, policies = heaviest.shape
    for s in range(1, segments):
        rows = min(SEGMENT, n - s * SEGMENT)
        for p in range(policies):
            merge(float(s * SEGMENT), rows, folded[0, p], folded[s, p])
            heaviest[0, p] = max(heaviest[0, p], heaviest[s, p])
            predicted[0, p, 0] = min(predicted[0, p, 0], predicted[s, p, 0])
            predicted[0, p, 1] = max(predicted[0, p, 1], predicted[s, p, 1])


@in_any_order
def keep_largest(p: int, weight: Floats, peaks: Floats, tail: Floats, kept: Codes, floors: Floats) -> None:
    """Put the weights above floors[p] into tail[p], and raise the floor where it is full."""
    own, count, floor = tail[p], kept[p], floors[p]
    for j in range(GROUPS):
        if peaks[j] <= floor:
            continue
        if count + ROWS // GROUPS > len(own):
            own[:TAIL] = np.partition(own[:count], count - TAIL)[count - TAIL :]
            count, floor = TAIL, max(floor, own[:TAIL].min())
        for i in range(j, ROWS, GROUPS):
            # Written always and counted sometimes: a branch here would be guessed wrong too often.
            own[count] = weight[i]
            count += weight[i] > floor
    kept[p], floors[p] = count, floor


@in_any_order
def fold_share(logged: Logged, members: Members, found: Found, share: Share) -> None:
    """Fold a share of n decisions of P policies into M members."""
    # Taken apart once: a field of a named tuple is counted as a reference wherever it is named.
    target, propensity, reward, q_logged, q_target = logged
    kinds, parameters, limits, baselines = members
    folded, heaviest, predicted, tails, all_kept, all_floors = found
    thread, first_segment, last_segment, first_policy, last_policy = share
    tail, kept, floors = tails[thread], all_kept[thread], all_floors[thread]
    n, models = target.shape[1], len(q_logged)
    inverse, residual = np.ones(RUN), np.empty(RUN)
    weight, shrunken, bits = np.empty(ROWS), np.zeros(ROWS), np.zeros(GROUPS + 1, np.int64)
    peaks, low, high = bits.view(np.float64), np.full(GROUPS, np.inf), np.full(GROUPS, -np.inf)
    whole, beside, used = np.empty(3, np.int64), np.zeros((3, 2)), np.bincount(baselines, minlength=3)
    sums, part = np.empty((len(kinds), SUMS)), np.empty((len(kinds), FIELDS))
    for run in range(first_segment * SEGMENT, min(last_segment * SEGMENT, n), RUN):
        end, s = min(run + RUN, n), run // SEGMENT
        if len(propensity):
            invert(propensity[run:end], inverse)
        for p in range(first_policy, last_policy):
            if models > 1 or (models and p == first_policy):
                subtract(reward[run:end], q_logged[p % models, run:end], residual)
                add_range(q_logged[p % models, run:end], low, high)
            if models:
                add_range(q_target[p, run:end], low, high)
                widen(low, high, p, predicted[s])
            for start in range(run, end, ROWS):
                stop = min(start + ROWS, end)
                rows, r, e = stop - start, reward[start:stop], residual[start - run : stop - run]
                q = q_target[p, start:stop]
                zeros = weigh(target[p, start:stop], inverse[start - run :], weight, shrunken)
                add_peaks(weight, peaks)
                heavy = largest_of(peaks, bits)
                heaviest[s, p] = max(heaviest[s, p], heavy)
                if len(tail) and heavy > floors[p]:
                    keep_largest(p, weight, peaks, tail, kept, floors)
                add_baselines(used, q, r, beside)
                add_members(
                    heavy, zeros, kinds, parameters, limits, baselines, weight, shrunken, r, e, q, peaks, bits, whole,
                    sums, part,
                )  # fmt: skip
                centre(rows, baselines, sums, beside, part)
                merge(float(start - s * SEGMENT), rows, folded[s, p], part)
