"""A table before it has a form: HTML, Markdown and the terminal show the same cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from counterplay.reports.numbers import DASH

Tone = Literal["", "ok", "caution", "unreliable", "held", "missed", "best"]


@dataclass(frozen=True, kw_only=True)
class Strip:
    """An interval drawn in a cell. Positions in percent of the width; None where there is no such thing."""

    value: float
    low: float
    high: float
    truth: float | None = None
    tone: Tone = ""
    colour: str = "s1"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """`note` explains the cell in a few words; `said` is the part of it that must be seen on paper too."""

    text: str
    note: str = ""
    said: str = ""
    tone: Tone = ""
    strip: Strip | None = None
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Column:
    """`about` says in plain words what the column holds. Columns of rank 1 are shown where space is scarce."""

    name: str
    about: str = ""
    numeric: bool = True
    rank: int = 2
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Columns and rows; the first cell of a row names it. `groups`: rows that begin a new group."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: frozenset[int] = frozenset()


def missing(reason: str) -> Cell:
    """No number, and why."""
    return Cell(text=DASH, note=reason)


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Where a value lies on the strips of one table, in percent of their width."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> float:
        """The position of a value, held inside the strip."""
        return round(min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low))), 2)

    def marks(self) -> tuple[float, ...]:
        """The values at which the strips have a line."""
        first = -(-self.low // self.step)
        count = int((self.high - first * self.step) / self.step + 1e-9) + 1
        return tuple((first + i) * self.step for i in range(count))


def ruler(values: list[float]) -> Ruler:
    """A ruler for these values, with a margin and three to six marks at round numbers."""
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next((m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 5.5), 10 * power)
    return Ruler(low=low, high=high, step=step)
