"""The tables about replayed agents: what each earned, hybrids against simpler agents, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterplay.reports.contrast import ROLES, rivals
from counterplay.reports.findings import quoted
from counterplay.reports.grid import Cell, Column, Grid, Ruler, Strip, missing, ruler
from counterplay.reports.highlights import highlights
from counterplay.reports.numbers import Scale, decimal, percent, significant, whole
from counterplay.reports.replays import extras
from counterplay.reports.results import Result, Row, agents_of, hybrids, kind_of, scale
from counterplay.reports.timing import Timing

ONE_SEED = "one seed says nothing about other seeds"


def settings_words(settings: Row) -> str:
    """An agent's settings in one line."""
    parts = []
    for key, value in settings.items():
        if key == "name" or value is None:
            continue
        inner = f"({settings_words(value)})" if isinstance(value, dict) else _plain(value)
        parts.append(f"{key} {inner}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def agents_grid(result: Result) -> Grid:
    """Every agent, the best first."""
    ranked, unit = agents_of(result), scale(result)
    measure = _agents_ruler(ranked)
    further = extras(result, unit)
    known = any(agent["truth"] is not None for agent in ranked)
    keys = {one.agent: one for one in highlights(result)}
    rows = []
    for i, agent in enumerate(ranked):
        one = keys.get(agent["agent"])
        cells = [
            Cell(
                text=agent["agent"],
                note=settings_words(agent["settings"]),
                tone="best" if i == 0 else "",
                key=one.key if one else " ",
            ),
            _strip(agent, measure, one.colour if one else "muted"),
            *_reward_cells(agent, unit),
            *_call_cells(agent),
            *(_truth_cells(agent, unit) if known else ()),
            *(extra.cell(agent) for extra in further),
        ]
        rows.append(tuple(cells))
    columns = (*_agent_columns(measure, unit, known), *(extra.column for extra in further))
    return Grid(caption="What each agent earned, the best first", columns=columns, rows=tuple(rows))


def _agents_ruler(ranked: Sequence[Row]) -> Ruler:
    values = [agent[name] for agent in ranked for name in ("average_reward", "low", "high") if agent[name] is not None]
    return ruler(values + [agent["truth"]["value"] for agent in ranked if agent["truth"] is not None])


def ticks(measure: Ruler, unit: Scale) -> tuple[tuple[float, str], ...]:
    """The marks of a ruler with their labels."""
    places = max(0, min(unit.places, next(p for p in range(13) if round(measure.step, p) > 0 or p == 12)))
    return tuple((measure.at(mark), decimal(mark, places) if mark else "0") for mark in measure.marks())


def _common_columns(measure: Ruler, unit: Scale) -> list[Column]:
    return [
        Column(name="agent", about="Hold the pointer over a name for its settings.", numeric=False, rank=1),
        Column(
            name="reward",
            about="The average reward with its interval; an upright line is the exact value where it is known.",
            ticks=ticks(measure, unit),
        ),
        Column(name="average reward", about="Reward a decision, mean over rounds and seeds.", rank=1),
        Column(
            name="95 % interval",
            about="From both standard errors together. It is for one agent alone; the best of many agents looks a "
            "little better than it is.",
            rank=1,
        ),
        Column(name="s.e. seeds", about="Standard error over seeds: what another order and other draws would change."),
        Column(name="s.e. log", about="Standard error over decisions: what another log of this size would change."),
        Column(name="model calls", about="Rounds in which a language model was asked, mean over seeds."),
        Column(name="share", about="Model calls as a share of the rounds.", rank=1),
        Column(
            name="p bandit",
            about="The probability with which a hybrid lets its bandit act, in the last round.",
            rank=1,
        ),
    ]


def _agent_columns(measure: Ruler, unit: Scale, known: bool) -> tuple[Column, ...]:
    columns = _common_columns(measure, unit)
    if known:
        columns += [
            Column(
                name="exact",
                about="What the same agent earns on line, where every outcome is known; with the standard error of "
                "that mean.",
                rank=1,
            ),
            Column(name="held", about="Whether the interval holds the exact value.", numeric=False, rank=1),
        ]
    return tuple(columns)


def _strip(agent: Row, measure: Ruler, colour: str) -> Cell:
    truth, value = agent["truth"], agent["average_reward"]
    low, high = (value if agent[name] is None else agent[name] for name in ("low", "high"))
    return Cell(
        text="",
        strip=Strip(
            value=measure.at(value),
            low=measure.at(low),
            high=measure.at(high),
            truth=None if truth is None else measure.at(truth["value"]),
            tone="missed" if truth is not None and not truth["covered"] else "",
            colour=colour,
        ),
    )


def _reward_cells(agent: Row, unit: Scale) -> list[Cell]:
    value = Cell(text=unit.value(agent["average_reward"]))
    if agent["low"] is None:
        return [value, *(missing("no standard error") for _ in range(3))]
    seeds, log = agent["std_error_seeds"], agent["std_error_log"]
    return [
        value,
        Cell(text=unit.interval(agent["low"], agent["high"]), note=f"standard error {unit.error(agent['std_error'])}"),
        missing(ONE_SEED) if seeds is None else Cell(text=unit.error(seeds)),
        missing("no standard error") if log is None else Cell(text=unit.error(log)),
    ]


def _call_cells(agent: Row) -> list[Cell]:
    bandit = (
        Cell(text=decimal(agent["final_p_bandit"], 3))
        if kind_of(agent) == "hybrid"
        else missing("only a hybrid chooses between a bandit and models")
    )
    return [Cell(text=whole(agent["model_calls"])), Cell(text=percent(agent["model_share"])), bandit]


def _truth_cells(agent: Row, unit: Scale) -> list[Cell]:
    truth = agent["truth"]
    if truth is None:
        return [missing("the exact value is not known"), missing("the exact value is not known")]
    error = truth["std_error"]
    about = f"mean of {truth['seeds']} runs on line" + (
        "" if error is None else f", standard error {unit.error(error)}"
    )
    return [Cell(text=unit.value(truth["value"]), note=about), held(truth["covered"])]


def held(covered: bool | None) -> Cell:
    """Whether an interval holds the exact value."""
    if covered is None:
        return missing("there is no interval, or no exact value")
    return Cell(text="yes" if covered else "no", tone="held" if covered else "missed")


def rivals_grid(result: Result) -> Grid | None:
    """Hybrids against simpler agents; None without hybrids."""
    against, unit = rivals(result), scale(result)
    if not against:
        return None
    best = hybrids(result)[0]["agent"]
    rows = tuple(
        (
            Cell(text=rival.agent["agent"], said=ROLES[rival.role]),
            Cell(text=unit.value(rival.agent["average_reward"])),
            Cell(text=str(len(rival.more)), note=", ".join(rival.more)),
            Cell(text=str(len(rival.open)), note=", ".join(rival.open)),
            Cell(text=str(len(rival.less)), note=", ".join(rival.less)),
            Cell(
                text=unit.value(rival.against_best.value),
                said=unit.interval(rival.against_best.low, rival.against_best.high),
            ),
        )
        for rival in against
    )
    together = "All intervals of this table hold together at 95 % (Bonferroni), paired by seeds and decisions."
    columns = (
        Column(name="simpler agent", about="The best of its kind.", numeric=False, rank=1),
        Column(name="its reward", about="Average reward a decision.", rank=1),
        Column(name="hybrids clearly better", about=f"The interval of the difference lies above 0. {together}", rank=1),
        Column(name="cannot tell", about="The interval of the difference holds 0.", rank=1),
        Column(name="clearly worse", about="The interval of the difference lies below 0.", rank=1),
        Column(name="best hybrid minus it", about=f"{quoted(best)} minus the simpler agent.", rank=1),
    )
    return Grid(caption="Do the hybrids pay? Against the best simpler agents", columns=columns, rows=rows)


def timing_grid(timings: Sequence[Timing]) -> Grid:
    """Seconds of replay."""
    rows = tuple(
        (
            Cell(text=one.agent),
            Cell(text=whole(one.runs)),
            Cell(text=whole(one.decisions)),
            Cell(text=significant(one.seconds)),
            Cell(text=significant(1e6 * one.seconds / one.decisions))
            if one.decisions
            else missing("no decision was read"),
        )
        for one in timings
    )
    columns = (
        Column(name="agent", numeric=False, rank=1),
        Column(name="runs", about="One for each seed."),
        Column(name="decisions read", about="In all runs together."),
        Column(name="seconds", about="In all runs together, measured while other runs shared the machine."),
        Column(name="µs a decision", about="Replay only: the models' outputs were computed before.", rank=1),
    )
    return Grid(caption="Time of replay", columns=columns, rows=rows)
