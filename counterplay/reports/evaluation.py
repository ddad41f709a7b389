"""An evaluation or a comparison in a terminal: the table, what was left out, and which number to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from counterplay.reports.estimates import comparisons_grid, estimates_grid
from counterplay.reports.findings import findings
from counterplay.reports.grid import Grid
from counterplay.reports.lines import print_lines
from counterplay.reports.method import method
from counterplay.reports.results import Result, checked

if TYPE_CHECKING:
    from rich.console import Console


def print_evaluation(results: Mapping[str, Any], console: Console) -> None:
    """Print the estimates of an evaluation, or the differences of a comparison, and then the sentences about them.

    Raises:
        InputError: a part of the results is missing, or a number is not finite.
    """
    from rich.text import Text

    (result,) = checked([results])
    console.print(Text(" ".join(method(result)), style="dim"))
    console.print()
    compared = bool(result["comparisons"])
    grid = _differences(result) if compared else _estimates(result)
    if grid is not None:
        print_lines(grid, console, grouped=not compared)
    for sentence in findings(result):
        console.print(Text(f"• {sentence}"))


def _estimates(result: Result) -> Grid | None:
    known = any(row["truth"] is not None for row in result["estimates"])
    return _narrowed(
        estimates_grid(result), ["value", "largest weight", "mean weight", *([] if known else ["exact", "held"])]
    )


def _differences(result: Result) -> Grid | None:
    one = len({row["estimator"] for row in result["comparisons"]}) == 1
    return _narrowed(comparisons_grid(result), ["difference", *(["estimator"] if one else [])])


def _narrowed(grid: Grid | None, without: Sequence[str]) -> Grid | None:
    """The grid without these columns, the gate last."""
    if grid is None:
        return None
    kept = [i for i, column in enumerate(grid.columns) if column.name not in without]
    kept.sort(key=lambda i: grid.columns[i].name == "gate")
    return replace(
        grid,
        columns=tuple(grid.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in grid.rows),
    )
