"""Luck as a pure function of (seed, decision, purpose).

Every draw that a replay can need is the value of a counter-based generator (Philox; Salmon et al., SC 2011) at the
decision's position in the log, under a key made of the seed and of what the draw is for. So the same experiment gives
the same bytes whatever the number of workers or chunks, and two agents that meet the same decision under the same
seed meet the same luck: their differences are paired.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError

_DRAWS_PER_COUNTER = 4


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of the results: never reuse or change one."""

    ORDER = 0
    BASE = 1
    EXPLORE = 2
    ACTION = 3
    ACCEPT = 4
    LOGGING = 5
    PRETRAINING = 6


def uniforms(seed: int, purpose: Purpose, count: int, *, start: int = 0) -> NDArray[np.float64]:
    """The draws in [0, 1) of decisions ``start`` to ``start + count``: shape ``(count,)``.

    Args:
        seed: not negative.
        purpose: what the draws are for.
        count: how many decisions.
        start: the position of the first one in its log.
    """
    if seed < 0:
        raise ConfigurationError(f"seed is {seed}; a seed is a whole number from 0 upwards.")
    skipped = start % _DRAWS_PER_COUNTER
    bits = np.random.Philox(key=np.array([seed, int(purpose)], dtype=np.uint64))
    bits.advance(start // _DRAWS_PER_COUNTER)
    return np.random.Generator(bits).random(count + skipped)[skipped:]


def shuffled(seed: int, count: int) -> NDArray[np.int64]:
    """The order in which seed ``seed`` meets ``count`` decisions: shape ``(count,)``, a permutation."""
    return np.argsort(uniforms(seed, Purpose.ORDER, count), kind="stable")
