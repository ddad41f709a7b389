"""The figure of estimates against exact values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from counterplay.reports.coverage import Point, points
from counterplay.reports.estimates import colours
from counterplay.reports.figures import STEPS, Entry, Picture
from counterplay.reports.numbers import Scale
from counterplay.reports.results import Result, estimator_name, scale
from counterplay.reports.svg import colour, inline, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "h", "X")
SIGNS = ("●", "■", "▲", "◆", "▼", "✚", "⬢", "✖")
SIZE = (5.9, 7.2)
STEP = 0.011
Z95 = 1.96


def picture_of_truth(result: Result, prefix: str) -> Picture | None:
    """Estimated against exact, and below it the errors; None where no exact value is known."""
    found = points(result)
    if not found:
        return None
    from matplotlib.figure import Figure

    unit, colour_of = scale(result), colours(result)
    names = list(dict.fromkeys(point.estimator for point in found))
    with styled(prefix):
        figure = Figure(figsize=SIZE, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1))
        tips = {}
        span = max(p.truth for p in found) - min(p.truth for p in found) or abs(found[0].truth) or 1.0
        for i, point in enumerate(found):
            which = names.index(point.estimator)
            # Estimators of one policy share its exact value: a small step to the side keeps them apart.
            x = point.truth + (which - (len(names) - 1) / 2) * STEP * span
            look = (colour(colour_of[point.estimator]), MARKERS[which % 8])
            _draw(upper, point, x, 0.0, look, f"upper{i}")
            _draw(lower, point, x, point.truth, look, f"lower{i}")
            tips[f"upper{i}"] = tips[f"lower{i}"] = _tip(point, unit)
        _finish(upper, lower, found, unit)
    held = sum(point.covered for point in found)
    label = f"Estimated against exact: {held} of {len(found)} intervals hold the exact value."
    return Picture(
        svg=inline(figure, prefix, label, tips),
        title="Estimated against exact",
        about="Above: on the diagonal an estimate is exactly right. Below: the same estimates minus the exact value; "
        "an interval that crosses the line holds it. A ring marks a miss. Pale bars sideways: the error of an exact "
        "value that is a mean over runs on line.",
        legend=tuple(_entry(name, found, i, colour_of[name]) for i, name in enumerate(names)),
    )


def _draw(axes: Axes, point: Point, x: float, shift: float, look: tuple[str, str], gid: str) -> None:
    tone, marker = look
    y = point.value - shift
    axes.plot([x, x], [point.low - shift, point.high - shift], color=tone, linewidth=1.2, alpha=0.85, zorder=3)
    if point.truth_error:
        half = Z95 * point.truth_error
        axes.plot([x - half, x + half], [y, y], color=tone, linewidth=1.0, alpha=0.3, zorder=2.5)
    edge = {"markeredgecolor": colour("card"), "markeredgewidth": 0.6}
    axes.plot([x], [y], marker, color=tone, markersize=5, zorder=4, gid=gid, **edge)  # type: ignore[arg-type]
    if not point.covered:
        ring = {"markerfacecolor": "none", "markeredgecolor": colour("miss"), "markeredgewidth": 1.4}
        axes.plot([x], [y], "o", markersize=11, zorder=5, **ring)  # type: ignore[arg-type]


def _entry(name: str, found: Sequence[Point], i: int, tone: str) -> Entry:
    group = [point for point in found if point.estimator == name]
    return Entry(
        key="",
        name=estimator_name(name),
        value=f"{sum(point.covered for point in group)} of {len(group)} held",
        colour=tone,
        marker=SIGNS[i % 8],
    )


def _tip(point: Point, unit: Scale) -> str:
    name = estimator_name(point.estimator)
    interval = unit.interval(point.low, point.high)
    return f"{point.policy}, {name}: {unit.value(point.value)} {interval}, exact {unit.value(point.truth)}"


def _finish(upper: Axes, lower: Axes, found: Sequence[Point], unit: Scale) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    low = min(min(p.truth, p.low) for p in found)
    high = max(max(p.truth, p.high) for p in found)
    margin = 0.04 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - margin, high + margin
    upper.plot([low, high], [low, high], color=colour("ink"), linewidth=0.9, zorder=2)
    lower.axhline(0.0, color=colour("ink"), linewidth=0.9, zorder=2)
    upper.set_xlim(low, high)
    upper.set_ylim(low, high)
    upper.set_ylabel("estimated reward")
    lower.set_ylabel("estimate minus exact")
    lower.set_xlabel("exact reward")
    form = FuncFormatter(lambda value, _: "0" if abs(value) < 1e-12 else unit.value(value))
    for axes in (upper, lower):
        axes.tick_params(length=0)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=STEPS))
            axis.set_major_formatter(form)
