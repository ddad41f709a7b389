"""The results in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from counterplay.reports.agents import agents_grid
from counterplay.reports.estimates import coverage_grid, estimates_grid
from counterplay.reports.findings import findings
from counterplay.reports.grid import Cell, Grid
from counterplay.reports.method import method
from counterplay.reports.results import checked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

STYLES = {"best": "bold", "ok": "green", "held": "green", "caution": "yellow", "unreliable": "red", "missed": "red"}
WIDE = 150


def print_table(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print what came out, and the tables of agents and estimates; a wide console gets all columns.

    Raises:
        UnsupportedError: there are no results.
        InputError: a part of the results is missing, or a number is not finite.
    """
    from rich.text import Text

    for result in checked(results):
        console.print()
        console.print(Text(result["name"], style="bold"))
        console.print(Text(" ".join(method(result)), style="dim"))
        agents = agents_grid(result) if result["agents"] else None
        for grid in (agents, coverage_grid(result), estimates_grid(result)):
            if grid is not None:
                console.print()
                console.print(table(grid, console.width))
        console.print()
        for sentence in findings(result):
            console.print(Text(f"• {sentence}"))


def table(grid: Grid, width: int) -> Table:
    """A grid as a table for a terminal so many characters wide; a narrow one gets the columns of rank 1."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [i for i, column in enumerate(grid.columns) if not column.ticks and (column.rank == 1 or width >= WIDE)]
    drawn = Table(
        box=box.SIMPLE_HEAD, title=Text(grid.caption), title_justify="left", title_style="bold", padding=(0, 1)
    )
    for i in shown:
        column = grid.columns[i]
        # A name may wrap; half a number is worse than none.
        drawn.add_column(Text(column.name), justify="right" if column.numeric else "left", no_wrap=column.numeric)
    for i, row in enumerate(grid.rows):
        repeated = bool(grid.groups) and i not in grid.groups
        cells = [Text("") if repeated and j == 0 else _text(row[j]) for j in shown]
        drawn.add_row(*cells, end_section=bool(grid.groups) and i + 1 in grid.groups)
    return drawn


def _text(cell: Cell) -> Text:
    from rich.text import Text

    said = f" ({cell.said})" if cell.said and cell.tone else ""
    return Text(cell.text + said, style=STYLES.get(cell.tone, ""))
