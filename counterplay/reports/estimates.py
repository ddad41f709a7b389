"""The tables about estimates: each beside its exact value, coverage, paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from counterplay.reports.agents import held, ticks
from counterplay.reports.coverage import coverage, points
from counterplay.reports.grid import Cell, Column, Grid, Ruler, Strip, missing, ruler
from counterplay.reports.numbers import Scale, decimal, percent, probability, whole
from counterplay.reports.results import (
    Result,
    Row,
    estimator_about,
    estimator_name,
    estimators_of,
    replay_name,
    scale,
)

NO_WEIGHTS = "this estimator uses no weights"


def colours(result: Result) -> dict[str, str]:
    """The colour of each estimator, the same in every figure and table."""
    names = dict.fromkeys([replay_name(result), *estimators_of(result)])
    return {name: f"s{1 + i % 8}" for i, name in enumerate(names)}


def estimates_grid(result: Result) -> Grid | None:
    """Every estimate, those of one policy together, with its exact value and its gate; None without estimates."""
    rows, unit = result["estimates"], scale(result)
    if not rows:
        return None
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    ordered = [row for policy in policies for row in rows if row["policy"] == policy]
    starts = [i for i, row in enumerate(ordered) if i == 0 or ordered[i - 1]["policy"] != row["policy"]]
    measure = _ruler(ordered, ("value", "low", "high", "truth"))
    colour = colours(result)
    return Grid(
        caption="Every estimate, policy by policy",
        columns=_estimate_columns(measure, unit, rows[0]["level"]),
        rows=tuple(_estimate_row(row, unit, measure, colour) for row in ordered),
        groups=frozenset(starts),
    )


def _ruler(rows: Sequence[Row], names: tuple[str, ...]) -> Ruler:
    return ruler([row[name] for row in rows for name in names if row[name] is not None] or [0.0, 1.0])


def _estimate_columns(measure: Ruler, unit: Scale, level: float) -> tuple[Column, ...]:
    return (
        Column(name="policy", about="Frozen agents have stopped learning.", numeric=False, rank=1),
        Column(name="estimator", numeric=False, rank=1),
        Column(
            name="value",
            about="The estimate with its interval; the upright line is the exact value where it is known.",
            ticks=ticks(measure, unit),
        ),
        Column(name="estimate", about="Reward a decision, had this policy acted.", rank=1),
        Column(name=f"{percent(level)} interval", about="For this estimate alone.", rank=1),
        Column(name="exact", about="From the log in which every outcome is known, on the same decisions.", rank=1),
        Column(name="held", about="Whether the interval holds the exact value.", numeric=False, rank=1),
        Column(
            name="gate",
            about="ok: nothing alarming was seen. caution, unreliable: the reason stands beside it.",
            numeric=False,
            rank=1,
        ),
        Column(name="effective n", about="So many unweighted decisions would know as much about a mean."),
        Column(name="largest weight", about="The share of all weight that one single decision carries."),
        Column(
            name="mean weight",
            about="1 in expectation where propensities are right and every action of the policy could be logged.",
        ),
    )


def _estimate_row(row: Row, unit: Scale, measure: Ruler, colour: dict[str, str]) -> tuple[Cell, ...]:
    return (
        Cell(text=row["policy"]),
        Cell(text=estimator_name(row["estimator"]), note=estimator_about(row["estimator"])),
        _strip(row, measure, colour[row["estimator"]]),
        *value_cells(row, unit, "value", "low", "high"),
        missing("the exact value is not known") if row["truth"] is None else Cell(text=unit.value(row["truth"])),
        held(row["covered"]),
        gate_cell(row),
        *_weight_cells(row),
    )


def _strip(row: Row, measure: Ruler, colour: str) -> Cell:
    value, low, high, truth = (row[name] for name in ("value", "low", "high", "truth"))
    if value is None:
        return missing(row["reason"])
    return Cell(
        text="",
        strip=Strip(
            value=measure.at(value),
            low=measure.at(value if low is None else low),
            high=measure.at(value if high is None else high),
            truth=None if truth is None else measure.at(truth),
            tone="missed" if row["covered"] is False else "",
            colour=colour,
        ),
    )


def value_cells(row: Row, unit: Scale, value: str, low: str, high: str) -> list[Cell]:
    """A number and its interval, or dashes with the reason."""
    reason = row["reason"] or "there is no interval"
    number = missing(reason) if row[value] is None else Cell(text=unit.value(row[value]))
    if row[low] is None or row[high] is None:
        return [number, missing(reason)]
    error = row["std_error"]
    about = "" if error is None else f"standard error {unit.error(error)}"
    return [number, Cell(text=unit.interval(row[low], row[high]), note=about)]


def gate_cell(row: Row) -> Cell:
    """The gate, and its reason in words."""
    return Cell(text=row["gate"], said=row["reason"], tone=row["gate"])


def _weight_cells(row: Row) -> list[Cell]:
    diagnostics: dict[str, Any] = row["diagnostics"]
    size, share, mean = (diagnostics[name] for name in ("effective_sample_size", "largest_weight_share", "mean_weight"))
    p, note = diagnostics["mean_weight_p"], diagnostics.get("note", "")
    tested = note if p is None else f"test against 1: p = {probability(p)}"
    return [
        missing(NO_WEIGHTS) if size is None else Cell(text=whole(size), note=f"of {whole(row['n'])}"),
        missing(NO_WEIGHTS) if share is None else Cell(text=percent(share)),
        missing(NO_WEIGHTS) if mean is None else Cell(text=decimal(mean, 3) if mean else "0", note=tested),
    ]


def coverage_grid(result: Result) -> Grid | None:
    """How well each estimator found the exact values; None where no exact value is known."""
    found = coverage(points(result))
    if not found:
        return None
    places = Scale(places=scale(result).places + 1)
    rows = tuple(
        (
            Cell(
                text=estimator_name(one.estimator),
                said=estimator_about(one.estimator),
            ),
            Cell(text=str(one.count)),
            Cell(text=str(one.held)),
            Cell(text=str(one.excusable)),
            Cell(text=places.value(one.mean_error)),
            Cell(text=places.value(one.root_mean_square)),
        )
        for one in found
    )
    columns = (
        Column(name="estimator", numeric=False, rank=1),
        Column(name="estimates", about="Those that have an interval and an exact value.", rank=1),
        Column(name="intervals that held", about="The interval holds the exact value.", rank=1),
        Column(
            name="near misses",
            about="Misses within the error of the exact value itself, where that is a mean over runs on line.",
        ),
        Column(name="mean error", about="Estimate minus exact value: bias, and the luck that all share.", rank=1),
        Column(name="typical error", about="Root of the mean squared error.", rank=1),
    )
    return Grid(caption="How well the logged data found the exact values", columns=columns, rows=rows)


def comparisons_grid(result: Result) -> Grid | None:
    """Every policy against the baseline by every estimator; None without comparisons."""
    rows, unit = result["comparisons"], scale(result)
    if not rows:
        return None
    single = len({row["baseline"] for row in rows}) == 1
    names = [row["policy"] if single else f"{row['policy']} minus {row['baseline']}" for row in rows]
    ordered = [
        (name, row) for pair in dict.fromkeys(names) for name, row in zip(names, rows, strict=True) if name == pair
    ]
    starts = [i for i, (name, _) in enumerate(ordered) if i == 0 or ordered[i - 1][0] != name]
    measure = _ruler([*rows, {"value": 0.0, "low_all": 0.0, "high_all": 0.0, "truth": 0.0}], _DRAWN)
    colour = colours(result)
    known = any(row["truth"] is not None for row in rows)
    whose = f"Difference from “{rows[0]['baseline']}”" if single else "Differences of all pairs"
    return Grid(
        caption=f"{whose} on the same decisions",
        columns=_comparison_columns(measure, unit, rows[0]["level"], known),
        rows=tuple(_comparison_row(name, row, unit, measure, colour, known) for name, row in ordered),
        groups=frozenset(starts),
    )


_DRAWN = ("value", "low_all", "high_all", "truth")


def _comparison_columns(measure: Ruler, unit: Scale, level: float, known: bool) -> tuple[Column, ...]:
    columns = [
        Column(name="policy", numeric=False, rank=1),
        Column(name="estimator", numeric=False, rank=1),
        Column(
            name="difference",
            about="Policy minus baseline with its simultaneous interval; the upright line is the exact difference.",
            ticks=ticks(measure, unit),
        ),
        Column(name="estimate", about="Policy minus baseline: above 0 the policy is better.", rank=1),
        Column(
            name=f"simultaneous {percent(level)} interval",
            about="The intervals of all policies hold together, by this estimator.",
            rank=1,
        ),
        Column(name="p corrected", about="Corrected for the number of policies compared (max-t).", rank=1),
    ]
    if known:
        columns += [
            Column(name="exact", about="The difference of the exact values.", rank=1),
            Column(name="held", about="Whether the interval of this difference alone holds it.", numeric=False, rank=1),
        ]
    return (
        *columns,
        Column(
            name="more to settle",
            about="So many more decisions like these would settle it if the difference is as it looks now: optimistic.",
        ),
        Column(name="gate", about="The worse gate of the two.", numeric=False, rank=1),
    )


def _comparison_row(
    name: str, row: Row, unit: Scale, measure: Ruler, colour: dict[str, str], known: bool
) -> tuple[Cell, ...]:
    drawn = {**row, "low": row["low_all"], "high": row["high_all"]}
    p, truth, more = row["p_max_t"], row["truth"], row.get("decisions_to_settle")
    exact = missing("the exact value is not known") if truth is None else Cell(text=unit.value(truth))
    return (
        Cell(text=name),
        Cell(text=estimator_name(row["estimator"]), note=estimator_about(row["estimator"])),
        _strip(drawn, measure, colour[row["estimator"]]),
        *value_cells(row, unit, "value", "low_all", "high_all"),
        missing(row["reason"] or "there is no test") if p is None else Cell(text=probability(p)),
        *((exact, held(row["covered"])) if known else ()),
        missing("it is not known") if more is None else Cell(text=whole(more) if more else "settled"),
        gate_cell(row),
    )


def traces(result: Result) -> list[tuple[str, str]]:
    """What makes the results traceable: the hashes."""
    return [
        ("experiment", result["experiment"]),
        (f"log “{result['log']['name']}”", result["log"]["hash"]),
        ("model outputs", result["outputs_hash"]),
    ]
