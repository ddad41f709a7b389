"""The most similar actions of many texts, without ever holding a texts x actions array.

Products are taken in single precision, a block of texts with a block of actions at a time, by the BLAS that numpy has.
They only say which actions may be among the most similar: a sum of d products in single precision is off by no more
than d 2^-24 times the lengths of the vectors, in whatever order it was taken. What lies within that of the best so far
is computed again in double precision, where products of single-precision numbers are exact, in one fixed order. So the
result does not depend on blocks, threads or the BLAS; equal vectors tie, and ties go to the lowest action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.compiled import compiled
from counterplay.errors import InputError

Ints = npt.NDArray[np.int32]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MOST = 256
"""At most so many actions for each text: the best are kept in a sorted list, into which a new one is inserted."""

TEXTS, ACTIONS = 512, 2048
"""Rows and columns of a block: 4 MiB of products, small enough to be in the cache when they are looked through."""

_STRETCH = 64
_UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class Similar:
    """The most similar actions of n texts, the most similar first, equal ones by action.

    ``actions (n, k)``: padded with -1; ``similarity (n, k)``: their cosine, -inf where there is no action.
    """

    actions: Ints
    similarity: Doubles


def most_similar(texts: npt.ArrayLike, actions: npt.ArrayLike, count: int = 1) -> Similar:
    """The ``count`` actions of highest cosine for each text.

    ``texts (n, d)`` and ``actions (K, d)``: vectors of any length; one of length 0 has cosine 0 with all. ``count``:
    1 to 256; with fewer than ``count`` actions there is one column for each. Memory: a copy of both in single
    precision, and 4 MiB.

    Errors: `InputError` for numbers that are not finite, dimensions that do not fit, no action, or another ``count``.
    """
    left, right = _both(texts, actions)
    best = _empty(len(left), min(_checked(count), len(right)))
    scratch = np.empty(TEXTS * ACTIONS, dtype=np.float32)
    slack = (left.shape[1] + 8) * _UNIT_ROUNDOFF
    for low in range(0, len(left), TEXTS):
        rows = left[low : low + TEXTS]
        mine = slice(low, low + len(rows))
        for start in range(0, len(right), ACTIONS):
            columns = right[start : start + ACTIONS]
            products = scratch[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.dot(rows, columns.T, out=products)
            keep_best(products, rows, columns, start, slack, best.actions[mine], best.similarity[mine])
    return best


def most_similar_among(
    texts: npt.ArrayLike,
    actions: npt.ArrayLike,
    lists: npt.ArrayLike,
    *,
    text: npt.ArrayLike,
    row: npt.ArrayLike,
    count: int = 1,
) -> Similar:
    """The ``count`` actions of highest cosine among those that a list allows, for pairs of a text and a list.

    ``lists (C, S)`` int: actions, padded with -1. ``text (N,)`` and ``row (N,)`` int: which text and which list make up
    a pair. The result has N rows; a row is padded where its list has fewer than ``count`` actions. Every allowed
    product is taken in double precision, about 0.2 us each at 384 dimensions: lists are for tens to hundreds of
    candidates.

    Errors: as `most_similar`; also for a list that names an action that is not there.
    """
    left, right = _both(texts, actions)
    allowed = np.ascontiguousarray(lists, dtype=np.int32)
    if allowed.ndim != 2 or (allowed.size and not -1 <= allowed.min() <= allowed.max() < len(right)):
        raise InputError(f"The lists of candidates must be rows of actions from 0 to {len(right) - 1}, padded with -1.")
    pairs = [np.ascontiguousarray(part, dtype=np.int64) for part in (text, row)]
    for part, known, what in zip(pairs, (len(left), len(allowed)), ("text", "list"), strict=True):
        if part.ndim != 1 or len(part) != len(pairs[0]) or (part.size and not 0 <= part.min() <= part.max() < known):
            raise InputError(f"A pair names a {what} that is not there; there are {known}.")
    best = _empty(len(pairs[0]), min(_checked(count), max(allowed.shape[1], 1)))
    keep_best_of_lists(left, right, allowed, pairs[0], pairs[1], best.actions, best.similarity)
    return best


@compiled
def keep_best(products: Any, texts: Any, actions: Any, first: int, slack: float, kept: Any, similarity: Any) -> None:
    """Look through a block of products, and put what belongs among the best into their sorted lists.

    ``first``: the action of the first column. Blocks of one text come by ascending action.
    """
    width = products.shape[1]
    last = kept.shape[1] - 1
    for i in range(products.shape[0]):
        bound = np.float32(similarity[i, last] - slack)
        for start in range(0, width, _STRETCH):
            stop = min(start + _STRETCH, width)
            near = 0
            for j in range(start, stop):
                near += products[i, j] >= bound
            if near == 0:
                continue
            for j in range(start, stop):
                if products[i, j] >= bound:
                    insert(cosine(texts[i], actions[j]), first + j, kept[i], similarity[i])
                    bound = np.float32(similarity[i, last] - slack)


@compiled
def keep_best_of_lists(texts: Any, actions: Any, lists: Any, text: Any, row: Any, kept: Any, similarity: Any) -> None:
    """The same for pairs of a text and a list, all products of which are taken exactly."""
    for i in range(len(text)):
        for place in range(lists.shape[1]):
            action = lists[row[i], place]
            if action >= 0:
                insert(cosine(texts[text[i]], actions[action]), action, kept[i], similarity[i])


@compiled
def insert(value: float, action: int, kept: Any, similarity: Any) -> None:
    """Put an action into a list sorted by similarity, ties by action; the last one drops out. Once is enough."""
    place = len(kept)
    while place > 0 and (
        value > similarity[place - 1] or (value == similarity[place - 1] and action < kept[place - 1])
    ):
        place -= 1
    if place == len(kept) or (place > 0 and kept[place - 1] == action):
        return
    for later in range(len(kept) - 1, place, -1):
        kept[later] = kept[later - 1]
        similarity[later] = similarity[later - 1]
    kept[place] = action
    similarity[place] = value


@compiled
def cosine(left: Any, right: Any) -> float:
    """The product of two unit vectors in double precision: four sums, each in order, then their sum."""
    a = b = c = d = 0.0
    size = len(left)
    whole = size - size % 4
    for i in range(0, whole, 4):
        a += np.float64(left[i]) * np.float64(right[i])
        b += np.float64(left[i + 1]) * np.float64(right[i + 1])
        c += np.float64(left[i + 2]) * np.float64(right[i + 2])
        d += np.float64(left[i + 3]) * np.float64(right[i + 3])
    for i in range(whole, size):
        a += np.float64(left[i]) * np.float64(right[i])
    return float((a + b) + (c + d))


@compiled
def unit(vectors: Any, result: Any) -> int:
    """Write the vectors at length 1 (0 stays 0); the first row that is not finite, or -1."""
    for i in range(vectors.shape[0]):
        square = 0.0
        for j in range(vectors.shape[1]):
            square += np.float64(vectors[i, j]) * np.float64(vectors[i, j])
        if not np.isfinite(square):
            return i
        length = np.sqrt(square) if square > 0.0 else 1.0
        for j in range(vectors.shape[1]):
            result[i, j] = np.float32(np.float64(vectors[i, j]) / length)
    return -1


def _both(texts: npt.ArrayLike, actions: npt.ArrayLike) -> tuple[Singles, Singles]:
    left, right = _unit(texts, "texts"), _unit(actions, "actions")
    if left.shape[1] != right.shape[1]:
        raise InputError(
            f"The vectors of texts have {left.shape[1]} dimensions, those of actions {right.shape[1]}. "
            "Embed both with the same embedder."
        )
    if not len(right):
        raise InputError("There is no action to be similar to. Give at least one.")
    return left, right


def _unit(vectors: npt.ArrayLike, what: str) -> Singles:
    given = np.ascontiguousarray(vectors, dtype=np.float32)
    if given.ndim != 2 or not given.shape[1]:
        raise InputError(f"The vectors of {what} must be rows of numbers; their shape is {given.shape}.")
    result = np.empty_like(given)
    bad = unit(given, result)
    if bad >= 0:
        raise InputError(f"The vector of row {bad} of {what} is not finite. Embed it again.")
    return result


def _empty(rows: int, count: int) -> Similar:
    return Similar(actions=np.full((rows, count), -1, np.int32), similarity=np.full((rows, count), -np.inf))


def _checked(count: int) -> int:
    if not 1 <= count <= MOST:
        raise InputError(f"{count} most similar actions cannot be kept. Ask for 1 to {MOST}.")
    return count
