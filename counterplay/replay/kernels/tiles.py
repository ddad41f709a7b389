"""The best action of each row of projections, over all actions: scores and argmax in one, a tile of actions at a time.

The action vectors are packed once a run into transposed tiles. For each tile and each five rows, 5 x 5 numbers stay in
a processor's registers while the loop over the tile's actions runs on vector instructions; the scores stay in its
nearest cache, where the highest is taken, and no array of rows x actions is ever written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import borrowing, compiled, compiled_sums, inlined

STEP = 5
"""Rows, and dimensions, that are taken together."""
_LANES, _LARGEST = 16, 512


@inlined
def padded(count: int) -> int:
    """The next multiple of `STEP`."""
    return -(-count // STEP) * STEP


@compiled
def packed(actions: NDArray[np.float32], wanted: bool) -> NDArray[np.float32]:
    """The tiles `(T, m, size)` of action vectors `(K, m)`, with m rounded up to a multiple of `STEP` and zeros where
    there is no action; `(0, 0, 0)` where they are not wanted."""
    count, width = actions.shape
    if not wanted:
        return np.zeros((0, 0, 0), np.float32)
    size = min(_LARGEST, -(-count // _LANES) * _LANES)
    tiles = np.zeros((-(-count // size), padded(width), size), np.float32)
    for t in range(tiles.shape[0]):
        first = t * size
        for start in range(0, min(size, count - first), _LANES):
            for j in range(width):
                for i in range(start, min(start + _LANES, count - first)):
                    tiles[t, j, i] = actions[first + i, j]
    return tiles


@compiled_sums
def _add_products(
    tiles: NDArray[np.float32], t: int, p: NDArray[np.float32], r: int, k: int, scores: NDArray[np.float32]
) -> None:
    """Add the products of dimensions ``k`` to k + 4 to the scores of rows ``r`` to r + 4; for k = 0 write them."""
    a0, a1, a2, a3, a4 = p[r, k], p[r, k + 1], p[r, k + 2], p[r, k + 3], p[r, k + 4]
    b0, b1, b2, b3, b4 = p[r + 1, k], p[r + 1, k + 1], p[r + 1, k + 2], p[r + 1, k + 3], p[r + 1, k + 4]
    c0, c1, c2, c3, c4 = p[r + 2, k], p[r + 2, k + 1], p[r + 2, k + 2], p[r + 2, k + 3], p[r + 2, k + 4]
    d0, d1, d2, d3, d4 = p[r + 3, k], p[r + 3, k + 1], p[r + 3, k + 2], p[r + 3, k + 3], p[r + 3, k + 4]
    e0, e1, e2, e3, e4 = p[r + 4, k], p[r + 4, k + 1], p[r + 4, k + 2], p[r + 4, k + 3], p[r + 4, k + 4]
    if k == 0:
        for j in range(tiles.shape[2]):
            x0, x1, x2 = tiles[t, k, j], tiles[t, k + 1, j], tiles[t, k + 2, j]
            x3, x4 = tiles[t, k + 3, j], tiles[t, k + 4, j]
            scores[0, j] = a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4
            scores[1, j] = b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4
            scores[2, j] = c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3 + c4 * x4
            scores[3, j] = d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3 + d4 * x4
            scores[4, j] = e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3 + e4 * x4
    else:
        for j in range(tiles.shape[2]):
            x0, x1, x2 = tiles[t, k, j], tiles[t, k + 1, j], tiles[t, k + 2, j]
            x3, x4 = tiles[t, k + 3, j], tiles[t, k + 4, j]
            scores[0, j] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4
            scores[1, j] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4
            scores[2, j] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3 + c4 * x4
            scores[3, j] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3 + d4 * x4
            scores[4, j] += e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3 + e4 * x4


@inlined
def _rank(bits: np.int32) -> np.int32:
    """An integer that orders as the float32 with these bits does; -0.0 is 0.0."""
    ordered = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    return np.int32(0) if ordered == np.int32(-1) else ordered


@borrowing
def _take_best(
    scores: NDArray[np.float32], count: int, first: int, top: NDArray[np.int32], best: NDArray[np.int64], r: int
) -> None:
    """Let the ``count`` scores of a tile that begins with action ``first`` compete with the highest so far of five rows
    from ``r``; the lowest action wins a tie.

    As integers, since comparing floats keeps a compiler from using vector instructions.
    """
    bits = scores.view(np.int32)
    for i in range(STEP):
        highest = _rank(bits[i, 0])
        for j in range(count):
            highest = max(highest, _rank(bits[i, j]))
        if first == 0 or highest > top[r + i]:
            place = count
            for j in range(count):
                place = min(place, j if _rank(bits[i, j]) == highest else count)
            top[r + i], best[r + i] = highest, first + place


@borrowing
def best_actions(
    tiles: NDArray[np.float32],
    actions: int,
    projected: NDArray[np.float32],
    count: int,
    scores: NDArray[np.float32],
    top: NDArray[np.int32],
    best: NDArray[np.int64],
) -> None:
    """Write the action with the highest score of each of the first ``count`` rows into ``best``.

    Args:
        tiles: of `packed`. actions: how many there are.
        projected: `(R, m)`, R and m multiples of `STEP`, zeros where m was rounded up.
        scores `(STEP, size)`, top `(R,)`, best `(R,)`: written; of ``best`` also places after ``count``.
    """
    size = tiles.shape[2]
    for t in range(tiles.shape[0]):
        for r in range(0, count, STEP):
            for k in range(0, tiles.shape[1], STEP):
                _add_products(tiles, t, projected, r, k, scores)
            _take_best(scores, min(size, actions - t * size), t * size, top, best, r)
