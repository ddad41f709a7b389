"""Numbers for people: few digits, a real minus, and a dash where there is no number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

DASH = "–"
MINUS = "\u2212"
SPACE = "\u00a0"


def decimal(value: float, places: int) -> str:
    """The value with so many decimals, without the nought before the point: .371, 12.40, −.012."""
    text = f"{abs(value):,.{places}f}"
    sign = MINUS if value < 0 and any(digit in text for digit in "123456789") else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def whole(value: float) -> str:
    """A count, with commas: 36,343. A mean of counts is rounded."""
    return f"{round(value):,}"


def percent(share: float) -> str:
    """A share as a percentage: 14 %, 1.5 %, .03 %; what is not quite nothing or everything is not rounded to it."""
    hundredth = 100 * share
    if share == 0:
        return "0"
    if abs(hundredth) < 0.01:
        return f"<{SPACE}.01{SPACE}%"
    if 99.5 <= hundredth < 100:
        return f"{math.floor(hundredth * 10) / 10:.1f}{SPACE}%"
    places = 0 if hundredth >= 9.95 else 1 if hundredth >= 0.95 else 2
    return f"{decimal(hundredth, places)}{SPACE}%"


def probability(p: float) -> str:
    """A p-value: < .001, .032."""
    return f"<{SPACE}.001" if p < 0.001 else decimal(p, 3)


def significant(value: float, digits: int = 3) -> str:
    """A number whose size is not known beforehand, with about so many significant digits."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -6 or size > 9:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return decimal(value, max(0, digits - 1 - size))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One number of decimals for all rewards of an experiment, so that a column can be read downwards."""

    places: int

    def value(self, value: float) -> str:
        """A reward or a difference of rewards."""
        return decimal(value, self.places)

    def error(self, value: float) -> str:
        """A standard error: one decimal more; what is not quite 0 is not rounded to it."""
        least = 10.0 ** -(self.places + 1)
        if 0 < value < least / 2:
            return f"<{SPACE}{decimal(least, self.places + 1)}"
        return decimal(value, self.places + 1) if value else "0"

    def interval(self, low: float, high: float) -> str:
        """[low, high]."""
        return f"[{self.value(low)}, {self.value(high)}]"


def scale_of(values: Iterable[float | None]) -> Scale:
    """The scale for these rewards: three significant digits of the largest."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    if largest == 0:
        return Scale(places=3)
    return Scale(places=min(12, max(0, 2 - math.floor(math.log10(largest) + 1e-9))))


def listed(items: Iterable[str], most: int = 3) -> str:
    """A list in a sentence: a, b and c; the tail of a long one is counted."""
    names = list(items)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} others"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""
