"""Checks of the arrays that a problem is described with, before they become evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import ROUNDING, SMALLEST_PROPENSITY, Array, Codes

LargeSample = Literal["t", "normal"]
"""Intervals that need nothing but the terms: bounds of rewards or weights do not carry over to what is built here."""


class Rule(NamedTuple):
    """What every value of an array must keep, and the same in words."""

    good: Callable[[Any], Any]
    words: str


FINITE = Rule(np.isfinite, "a finite number")
PROBABILITY = Rule(lambda a: (a >= 0) & (a <= 1 + ROUNDING), "in [0, 1]")
PROPENSITY = Rule(
    lambda a: (a >= SMALLEST_PROPENSITY) & (a <= 1 + ROUNDING),
    f"in (0, 1], at least {SMALLEST_PROPENSITY:g}: what was logged has a positive probability",
)
DENSITY = Rule(
    lambda a: (a >= SMALLEST_PROPENSITY) & np.isfinite(a),
    f"a finite number of at least {SMALLEST_PROPENSITY:g}: what was logged has a positive density",
)


def numbers(name: str, value: npt.ArrayLike, shape: Sequence[int | None], what: str) -> Array:
    """`value` as C-ordered float64 of `shape`; None in the shape stands for any length above 0.

    Raises `EvidenceError` that says `what` is needed.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise EvidenceError(f"{name} holds {array.dtype} values; numbers are needed.")
    if 0 in array.shape:
        raise EvidenceError(f"{name} has shape {array.shape}, so nothing is in it; {what} is needed.")
    if array.ndim != len(shape) or any(
        wanted not in (None, found) for found, wanted in zip(array.shape, shape, strict=True)
    ):
        raise EvidenceError(f"{name} has shape {array.shape}; {what} is needed.")
    return np.ascontiguousarray(array, dtype=np.float64)


def by_policy(name: str, value: npt.ArrayLike, policies: int | None, rows: tuple[int, ...]) -> Array:
    """`value` as (P, *rows); without the first dimension it stands for one policy."""
    array = np.asarray(value)
    if array.ndim == len(rows):
        array = array[None]
    wanted = ", ".join(("P" if policies is None else str(policies), *map(str, rows)))
    return numbers(name, array, (policies, *rows), f"({wanted}), policies first,")


def within(name: str, array: Array, rule: Rule) -> None:
    """Refuse the first value that breaks the rule, with its place and the number of others. NaN keeps no rule."""
    # The extremes decide (NaN propagates through both); only bad arrays pay for the search.
    if np.all(rule.good(np.array([array.min(), array.max()]))):
        return
    bad = np.argwhere(~rule.good(array))
    if not len(bad):
        return
    first = tuple(int(i) for i in bad[0])
    place = f"row {first[0]}" if len(first) == 1 else f"place {first}"
    more = f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
    raise EvidenceError(f"{name} at {place} is {array[first]:g}{more} of {array.size}; it must be {rule.words}.")


def codes(name: str, value: npt.ArrayLike, n: int) -> Codes:
    """`value` as n integer codes."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape != (n,):
        raise EvidenceError(f"{name} is {array.dtype} of shape {array.shape}; {n} integer codes are needed.")
    return np.ascontiguousarray(array, dtype=np.int64)


def check_interval(interval: str) -> None:
    """Refuse any interval but those of `LargeSample`."""
    if interval not in ("t", "normal"):
        raise ConfigurationError(f"There is no interval '{interval}' here. Known: normal, t.")
