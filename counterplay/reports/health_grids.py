"""The tables of a health page: actions, support, smallest propensities, quarantine, outcomes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from counterplay.logs.health.model import ActionRow, Health, Support
from counterplay.reports.grid import Cell, Column, Grid, Ruler, Strip, missing, ruler
from counterplay.reports.numbers import MINUS, decimal, percent, scale_of, significant, whole


def short(value: float) -> str:
    """Three significant digits, without noughts at the end."""
    text = significant(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def grids(health: Health) -> dict[str, Grid]:
    """The tables of a page by name; those with nothing to show are left out."""
    made = {
        "support": _support(health),
        "actions": _actions(health.actions.shown, _actions_caption(health), bool(health.propensities.known)),
        "worst": _actions(
            () if {*health.actions.worst} <= {*health.actions.shown} else health.actions.worst,
            "Actions not taken as often as their propensities say, the clearest first",
            True,
        ),
        "smallest": _smallest(health),
        "outcomes": _outcomes(health),
        "quarantine": _quarantine(health),
    }
    return {name: grid for name, grid in made.items() if grid is not None}


def _actions_caption(health: Health) -> str:
    shown, seen = len(health.actions.shown), health.actions.seen
    return "The actions" if shown == seen else f"The {shown} most frequent of {whole(seen)} actions"


def _actions(rows: Sequence[ActionRow], caption: str, weighed: bool) -> Grid | None:
    if not rows:
        return None
    scale = scale_of([value for row in rows for value in (row.reward, row.reward_high)])
    ends = [value for row in rows for value in (row.reward_low, row.reward_high, row.reward) if value is not None]
    rule = ruler(ends) if ends else None
    columns = _action_columns(rule, weighed)
    cells = []
    for row in rows:
        known = row.reward is not None
        line = [
            Cell(text=row.label),
            Cell(text=whole(row.decisions)),
            Cell(text=percent(row.share)),
            Cell(text=scale.value(row.reward)) if row.reward is not None else missing("no reward is known"),
            Cell(text=scale.interval(row.reward_low, row.reward_high))
            if row.reward_low is not None and row.reward_high is not None
            else missing("one reward has no spread"),
        ]
        if rule is not None:
            line.append(_strip(row, rule) if known else missing("no reward is known"))
        if weighed:
            line += _calibration(row)
        cells.append(tuple(line))
    return Grid(caption=caption, columns=tuple(columns), rows=tuple(cells))


def _action_columns(rule: Ruler | None, weighed: bool) -> list[Column]:
    columns = [
        Column(name="action", about="The label of the action.", numeric=False, rank=1),
        Column(name="decisions", about="How often it was taken.", rank=1),
        Column(name="share", about="Part of all decisions.", rank=1),
        Column(name="reward", about="Mean reward of these decisions: what was seen, corrected for nothing.", rank=1),
        Column(name="95 %", about="Its interval: Wilson's for rewards of 0 and 1, else normal.", rank=2),
    ]
    if rule is not None:
        columns.append(
            Column(name="", numeric=False, ticks=tuple((rule.at(m), significant(m, 2)) for m in rule.marks()))
        )
    if weighed:
        columns += [
            Column(name="propensity", about="Mean propensity of these decisions."),
            Column(
                name="taken / expected",
                about="Sum of 1 / propensity over its decisions, by the decisions in which it was a candidate: 1 when "
                "propensities are right.",
                rank=1,
            ),
            Column(name="z", about="How many standard errors that is away from 1.", rank=1),
        ]
    return columns


def _strip(row: ActionRow, rule: Ruler) -> Cell:
    value = row.reward or 0.0
    low, high = (value if end is None else end for end in (row.reward_low, row.reward_high))
    return Cell(text="", strip=Strip(value=rule.at(value), low=rule.at(low), high=rule.at(high)))


def _calibration(row: ActionRow) -> list[Cell]:
    none = missing("no propensity is known")
    few = missing("too few decisions, or too uneven weights, for a test")
    return [
        none if row.propensity is None else Cell(text=significant(row.propensity)),
        none if row.calibration is None else Cell(text=decimal(row.calibration, 2)),
        few if row.z is None else Cell(text=_z(row.z)),
    ]


def _z(z: float) -> str:
    if not math.isfinite(z):
        return "–"
    return decimal(z, 1) if abs(z) < 100 else ("> 100" if z > 0 else f"< {MINUS}100")


def _support(health: Health) -> Grid | None:
    rows = [one for one in (health.uniform, health.policy) if one is not None]
    if not rows:
        return None
    columns = (
        Column(name="policy", about="Uniform choice among the candidates, or the policy named.", numeric=False, rank=1),
        Column(name="mean weight", about="1 when propensities are right and the policy is covered.", rank=1),
        Column(name="standard error", about="Of the mean weight; clusters are units.", rank=1),
        Column(name="z", about="How many standard errors the mean is away from 1.", rank=1),
        Column(
            name="effective sample",
            about="(sum of weights)² / sum of squares: so many unweighted decisions know as much.",
            rank=1,
        ),
        Column(name="largest weight", about="The largest weight of one decision.", rank=1),
        Column(name="its share", about="Its part of all weight.", rank=1),
        Column(name="covered", about="Decisions whose action the policy may take."),
        Column(name="c", about="The largest acceptance constant of rejection replay that cuts nothing."),
        Column(name="rounds of replay", about="What rejection replay with it is expected to accept.", rank=1),
        Column(name="misses", about="Decisions in whose context the policy has no choice."),
    )
    return Grid(
        caption="How well the log speaks for a policy", columns=columns, rows=tuple(_support_row(one) for one in rows)
    )


def _support_row(s: Support) -> tuple[Cell, ...]:
    none = missing("no weight is known")

    def cell(value: float | None, digits: int = 3) -> Cell:
        return none if value is None or not math.isfinite(value) else Cell(text=significant(value, digits))

    return (
        Cell(text=s.policy),
        cell(s.mean),
        cell(s.std_error, 2),
        none if s.z is None else Cell(text=_z(s.z)),
        Cell(text=whole(s.effective_sample_size) if s.effective_sample_size >= 100 else
             significant(s.effective_sample_size)),
        cell(s.largest) if s.largest is None or s.largest < 1000 else Cell(text=whole(s.largest)),
        none if s.largest_share is None else Cell(text=percent(s.largest_share)),
        Cell(text=percent(s.covered)),
        cell(s.constant),
        none if s.accepted is None else Cell(text=whole(s.accepted)),
        Cell(text=whole(s.misses)),
    )  # fmt: skip


def _smallest(health: Health) -> Grid | None:
    rows = health.propensities.smallest
    if not rows or health.propensities.quantiles[0][1] == health.propensities.quantiles[-1][1]:
        return None
    columns = (
        Column(name="decision", about="Its id, or its position in the log.", numeric=False, rank=1),
        Column(name="action", about="The action taken.", numeric=False, rank=1),
        Column(name="propensity", about="Logged probability of that action.", rank=1),
    )
    cells = tuple(
        (
            Cell(text=row.decision if row.decision is not None else f"position {whole(row.position)}"),
            Cell(text=row.action),
            Cell(text=short(row.propensity)),
        )
        for row in rows
    )
    return Grid(caption="The smallest propensities", columns=columns, rows=cells)


def _outcomes(health: Health) -> Grid | None:
    o = health.outcomes
    if o is None or not o.means:
        return None
    scale = scale_of([mean for _, mean in o.means])
    columns = (
        Column(name="action", about="Taken in every context.", numeric=False, rank=1),
        Column(name="mean reward", about="Mean outcome over contexts, each counted once.", rank=1),
    )
    rows = tuple((Cell(text=label), Cell(text=scale.value(mean))) for label, mean in o.means)
    return Grid(caption="What single actions earn in every context, the best first", columns=columns, rows=rows)


def _quarantine(health: Health) -> Grid | None:
    if not health.rows.reasons:
        return None
    columns = (
        Column(name="reason", about="What was wrong with these rows.", numeric=False, rank=1),
        Column(name="rows", about="How many.", rank=1),
        Column(name="share", about="Part of all rows that were read.", rank=1),
    )
    rows = tuple(
        (Cell(text=why), Cell(text=whole(n)), Cell(text=percent(min(1.0, n / max(1, health.rows.read)))))
        for why, n in health.rows.reasons
    )
    return Grid(caption="Rows in quarantine", columns=columns, rows=rows)
