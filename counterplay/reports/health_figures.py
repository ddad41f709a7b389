"""The figures of a health page: propensities, rewards over time, actions against their propensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from counterplay.logs.health.model import ActionRow, Health
from counterplay.reports.figures import Entry, Picture
from counterplay.reports.health_grids import short
from counterplay.reports.numbers import decimal, percent, scale_of, significant, whole
from counterplay.reports.svg import colour, inline, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (4.6, 3.2)
_FEWEST_POINTS = 2


def pictures(health: Health) -> list[Picture]:
    """The figures that this log has something to show in."""
    made = (_histogram(health), _over_time(health), _calibration(health))
    return [picture for picture in made if picture is not None]


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _histogram(health: Health) -> Picture | None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    bars = health.propensities.histogram
    if len(bars) < _FEWEST_POINTS:
        return None
    size = health.actions.candidates[1] if health.actions.candidates else float(health.actions.known)
    with styled("health-propensity"):
        figure, axes = _figure()
        axes.set_xscale("log")
        for i, (low, high, n) in enumerate(bars):
            axes.bar(low, n, width=high - low, align="edge", color=colour("s1"), alpha=0.85, linewidth=0, gid=f"bar{i}")
        axes.axvline(1 / size, color=colour("s2"), linewidth=1.6, dashes=(5, 3))
        wide = bars[-1][1] > 50 * bars[0][0]
        axes.xaxis.set_major_locator(LogLocator(numticks=7) if wide else LogLocator(subs=(1, 2, 5), numticks=7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 1)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: whole(value)))
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("propensity of the action taken")
        axes.set_ylabel("decisions")
    tips = {f"bar{i}": f"{significant(a)} to {significant(b)}: {whole(n)}" for i, (a, b, n) in enumerate(bars)}
    ends = dict(health.propensities.quantiles)
    about = f"Half lie below {short(ends[0.5])}; the smallest is {short(ends[0.0])}."
    return Picture(
        svg=inline(figure, "health-propensity", f"Histogram of propensities. {about}", tips),
        title="Propensities",
        about=f"{about} What lies far left becomes a large weight.",
        legend=(
            Entry(key="u", name="uniform choice", value=significant(1 / size), colour="s2", dash=(5, 3)),
        ),
    )  # fmt: skip


def _over_time(health: Health) -> Picture | None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    points, mean = health.rewards.over_time, health.rewards.mean
    if len(points) < _FEWEST_POINTS or mean is None or health.rewards.kind == "equal":
        return None
    scale = scale_of([point.high for point in points])
    with styled("health-time"):
        figure, axes = _figure()
        at = range(1, len(points) + 1)
        axes.axhline(mean, color=colour("s2"), linewidth=1.4, dashes=(5, 3), zorder=2)
        for i, point in zip(at, points, strict=True):
            axes.plot([i, i], [point.low, point.high], color=colour("s1"), linewidth=2.2, alpha=0.45, zorder=3)
            axes.plot([i], [point.reward], "o", color=colour("s1"), markersize=5, zorder=4, gid=f"point{i}")
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scale.value(value) if value else "0"))
        axes.set_xticks([1, len(points)], [_start(points[0].first), _start(points[-1].last)])
        first, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.grid(visible=False, axis="x")
    tips = {
        f"point{i}": f"{point.first} to {point.last}: {scale.value(point.reward)}, {whole(point.decisions)} decisions"
        for i, point in zip(at, points, strict=True)
    }
    unit = "time" if health.rewards.by == "time" else "position in the log"
    return Picture(
        svg=inline(figure, "health-time", f"Mean reward in {len(points)} parts of the log, by {unit}.", tips),
        title="Reward over time" if health.rewards.by == "time" else "Reward along the log",
        about=f"Mean reward and its 95 % interval in {len(points)} parts of about equal size, by {unit}.",
        legend=(Entry(key="m", name="the whole log", value=scale.value(mean), colour="s2", dash=(5, 3)),),
    )


def _start(text: str) -> str:
    """A time without its seconds; a position with its commas."""
    return whole(int(text)) if text.lstrip("-").isdigit() else text[:16]


def _calibration(health: Health) -> Picture | None:
    shown = {row.action: row for row in (*health.actions.worst, *health.actions.shown) if row.z is not None}
    rows = sorted(shown.values(), key=lambda row: (-row.decisions, row.action))
    if len(rows) < _FEWEST_POINTS:
        return None
    off = {row.action for row in health.actions.worst}
    with styled("health-calibration"):
        figure, axes = _figure()
        tips = _ratios(axes, rows, off)
    tested, wrong = health.actions.tested, health.actions.off
    about = "1 where an action was taken as often as its propensities say, the most frequent action first."
    fit = f"{whole(tested - wrong)} of {whole(tested)} tested actions fit."
    legend = [Entry(key="o", name="fits", value=whole(tested - wrong), colour="s1", marker="●")]
    if wrong:
        legend.append(Entry(key="x", name="does not fit", value=whole(wrong), colour="miss", marker="●"))
    return Picture(
        svg=inline(figure, "health-calibration", f"Actions taken against their propensities. {fit}", tips),
        title="Taken / expected",
        about=f"{about} {fit}",
        legend=tuple(legend),
    )


def _ratios(axes: Axes, rows: Sequence[ActionRow], off: set[int]) -> dict[str, str]:
    """A point an action; returns what each says on hover, by gid."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    tips = {}
    axes.axhline(1, color=colour("muted"), linewidth=1.2, zorder=1.5)
    for i, row in enumerate(rows, start=1):
        ratio = row.calibration or 0.0
        tone = "miss" if row.action in off else "s1"
        axes.plot([i, i], [1, ratio], color=colour(tone), linewidth=1.8, alpha=0.5, zorder=2)
        axes.plot([i], [ratio], "o", color=colour(tone), markersize=5.5, zorder=3, gid=f"action{i}")
        tips[f"action{i}"] = f"{row.label}: {decimal(ratio, 2)}, taken in {percent(row.share)} of the decisions"
    top = max(max(row.calibration or 0.0 for row in rows) * 1.08, 1.25)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: significant(value, 2)))
    axes.set_xticks([])
    axes.set_xlabel("actions")
    axes.grid(visible=False, axis="x")
    return tips
