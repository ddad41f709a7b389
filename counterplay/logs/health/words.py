"""Numbers in sentences."""

from __future__ import annotations

import math


def amount(value: float | None) -> str:
    """A number with three significant digits, counts with commas: 21,739, 2.08, 0.000046."""
    if value is None or not math.isfinite(value):
        return "unknown"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    size = math.floor(math.log10(abs(value)))
    if size < -5:
        return f"{value:.2g}"
    text = f"{value:.{max(0, 2 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def share(value: float) -> str:
    """A share as a percentage; what is not quite nothing or everything is not rounded to it."""
    percent = 100 * value
    if 99 < percent < 100:
        return f"{min(percent, 99.9):.1f} %"
    if 0 < percent < 0.01:
        return "less than 0.01 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def count(number: float, one: str, many: str = "") -> str:
    """A count with its noun."""
    return f"{number:,.0f} {one if round(number) == 1 else many or one + 's'}"
