"""Figures over time: rewards of all agents; model calls, and the bandit's share, of hybrids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from markupsafe import Markup

from counterplay.reports.highlights import Highlight, highlights
from counterplay.reports.numbers import decimal, whole
from counterplay.reports.results import Result, Row, hybrids, method_of, scale
from counterplay.reports.svg import colour, inline, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.9, 3.7)
COLOURED_HYBRIDS = 5
FIRST_ROUNDS = 0.02
STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a legend."""

    key: str
    name: str
    value: str
    colour: str
    dash: tuple[float, ...] = ()
    marker: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure with its words."""

    svg: Markup
    title: str
    about: str
    legend: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    curve: str
    title: str
    about: str
    form: Callable[[float], str]
    limits: tuple[float, float] | None = None


def pictures_over_time(result: Result, prefix: str) -> list[Picture]:
    """The figures of one experiment; none without replayed agents."""
    if not result["agents"]:
        return []
    reward = _Quantity(
        curve="average_reward",
        title="Average reward so far",
        about="Everything earned up to a round, divided by the rounds; mean over seeds." + _beside_value(result),
        form=scale(result).value,
    )
    found = [_picture(result["agents"], highlights(result), reward, f"{prefix}-reward")]
    mixed = hybrids(result)
    if mixed:
        chosen = _coloured(result)
        if all("alone" in agent["curves"] for agent in mixed):
            alone = replace(reward, curve="alone", title=_ALONE, about=_ABOUT_ALONE)
            found.append(_picture(mixed, chosen, alone, f"{prefix}-alone"))
        found.append(_picture(mixed, chosen, _CALLS, f"{prefix}-calls"))
        found.append(_picture(mixed, chosen, _P_BANDIT, f"{prefix}-bandit"))
    return found


def _beside_value(result: Result) -> str:
    if method_of(result) != "doubly-robust":
        return ""
    return " Of the accepted rounds alone: the table has the estimates from all decisions."


_ALONE = "What the bandit's choices would have earned so far, in hybrids"
_ABOUT_ALONE = (
    "The average over all rounds of what the bandit of a hybrid would have earned, whoever acted; mean over seeds."
)
_CALLS = _Quantity(
    curve="model_calls",
    title="Model calls so far, of hybrids",
    about="Rounds in which a hybrid asked a language model; mean over seeds.",
    form=whole,
)
_P_BANDIT = _Quantity(
    curve="p_bandit",
    title="Probability that the bandit acts, in hybrids",
    about="What the selector plays; mean over seeds. At 1 the models are not asked any more.",
    form=lambda value: decimal(value, 2),
    limits=(-0.03, 1.04),
)


def _coloured(result: Result) -> list[Highlight]:
    """The hybrids that have a colour already, and the best others that differ from them, until there are five."""
    mixed, known = hybrids(result), highlights(result)
    names = {agent["agent"] for agent in mixed}
    chosen = [one for one in known if one.agent in names]
    taken = {one.colour for one in chosen}
    free = (f"s{i}" for i in range(1, 9) if f"s{i}" not in taken)
    letters = (chr(65 + i) for i in range(len(known), 26))
    seen = {_ending(agent) for agent in mixed if agent["agent"] in {one.agent for one in chosen}}
    others = []
    for agent in mixed:
        # Where a budget is never reached its hybrid is the same as without: one line would hide the other.
        if _ending(agent) not in seen:
            seen.add(_ending(agent))
            others.append(agent["agent"])
    for name in others[: max(0, COLOURED_HYBRIDS - len(chosen))]:
        chosen.append(Highlight(agent=name, key=next(letters), colour=next(free), dash=()))
    return chosen


def _ending(agent: Row) -> tuple[float, float]:
    return agent["model_calls"], agent["final_p_bandit"]


def _picture(agents: Sequence[Row], chosen: Sequence[Highlight], what: _Quantity, prefix: str) -> Picture:
    from matplotlib.figure import Figure

    with styled(prefix):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        tips = _lines(axes, agents, chosen, what)
    last = {agent["agent"]: agent["curves"][what.curve][-1][1] for agent in agents}
    legend = tuple(
        Entry(key=one.key, name=one.agent, value=what.form(last[one.agent]), colour=one.colour, dash=one.dash)
        for one in sorted(chosen, key=lambda one: -last[one.agent])
    )
    rest = len(agents) - len(chosen)
    ends = ", ".join(f"{entry.name} {entry.value}" for entry in legend)
    return Picture(
        svg=inline(figure, prefix, f"{what.title}. At the end: {ends}.", tips),
        title=what.title,
        about=what.about + (f" Grey: the other {rest}." if rest else ""),
        legend=legend,
    )


def _lines(axes: Axes, agents: Sequence[Row], chosen: Sequence[Highlight], what: _Quantity) -> dict[str, str]:
    """Draw the lines; return what each says on hover, by gid."""
    named = {one.agent: one for one in chosen}
    tips = {}
    for i, agent in enumerate(agents):
        line = agent["curves"][what.curve]
        rounds, values = [point[0] for point in line], [point[1] for point in line]
        one = named.get(agent["agent"])
        if one is None:
            axes.plot(rounds, values, color=colour("muted"), linewidth=0.7, alpha=0.4, zorder=1.5, gid=f"line{i}")
        else:
            (drawn,) = axes.plot(rounds, values, color=colour(one.colour), linewidth=1.9, zorder=3, gid=f"line{i}")
            if one.dash:
                drawn.set_dashes(one.dash)
        tips[f"line{i}"] = f"{agent['agent']}: {what.form(values[-1])}"
    axes.set_ylim(*(what.limits or _limits(agents, what.curve)))
    _letters(axes, chosen, {agent["agent"]: agent["curves"][what.curve][-1] for agent in agents})
    _finish(axes, agents, what)
    return tips


def _limits(agents: Sequence[Row], curve: str) -> tuple[float, float]:
    """The range after the first rounds, whose averages are of a handful of rewards and would flatten all the rest."""
    lines = [agent["curves"][curve] for agent in agents]
    late = [value for line in lines for t, value in line if t >= FIRST_ROUNDS * line[-1][0]]
    low, high = min(late), max(late)
    margin = 0.05 * (high - low) or 0.05 * (abs(high) or 1.0)
    return (0.0 if 0 <= low < 0.4 * high else low - margin), high + margin


def _letters(axes: Axes, chosen: Sequence[Highlight], last: dict[str, list[float]]) -> None:
    """A letter at the end of every coloured line, moved apart where lines end close to each other."""
    low, high = axes.get_ylim()
    ends = sorted(((min(max(last[one.agent][1], low), high), one) for one in chosen), key=lambda end: end[0])
    heights = _spread([height for height, _ in ends], 0.064 * (high - low), high)
    for place, (height, one) in zip(heights, ends, strict=True):
        axes.annotate(
            one.key,
            xy=(last[one.agent][0], height),
            xytext=(1.03, place),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            ha="left",
            color=colour(one.colour),
            fontweight="bold",
            arrowprops={"arrowstyle": "-", "color": colour(one.colour), "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1},
            annotation_clip=False,
        )


def _spread(heights: Sequence[float], gap: float, ceiling: float) -> list[float]:
    """Ascending heights, at least a gap apart and none above the ceiling: first pushed up, then down."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], ceiling)
        ceiling = placed[i] - gap
    return placed


def _finish(axes: Axes, agents: Sequence[Row], what: _Quantity) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(0, max(agent["curves"][what.curve][-1][0] for agent in agents))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: whole(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if abs(value) < 1e-12 else what.form(value)))
    axes.set_xlabel("round")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
