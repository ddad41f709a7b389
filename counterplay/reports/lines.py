"""A table in a terminal of any width: what does not fit beside the numbers stands on a line of its own, never cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from counterplay.reports.grid import Grid
from counterplay.reports.terminal import STYLES

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GAP = "  "
SHORT = 11
"""A heading of more letters takes two lines."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """The widths of the columns, and whether each stands to the right; ``named``: the first one fits beside them."""

    widths: tuple[int, ...]
    right: tuple[bool, ...]
    named: bool


def print_lines(grid: Grid, console: Console, *, grouped: bool) -> None:
    """Print a grid: a line a row, and below it what is to be said of its last cell, in as many lines as it takes.

    ``grouped``: the first column names groups of rows, and stands above each.
    """
    from rich.text import Text

    console.print(Text(grid.caption, style="bold"))
    for line in _lines(grid, console.width, grouped):
        console.print(line)
    console.print()


def _lines(grid: Grid, width: int, grouped: bool) -> Iterator[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    first = 1 if grouped else 0
    heads = [_folded(column.name) for column in grid.columns[first:]]
    form = _form(grid, heads, first, width)
    for line in zip_longest(*heads, fillvalue=""):
        yield Text(_row(line, form), style="dim")
    for i, row in enumerate(grid.rows):
        if grouped and i in grid.groups:
            yield Text(f"\n{row[0].text}" if i else row[0].text, style="bold")
        cells = [cell.text for cell in row[first:]]
        if not form.named:
            yield Text(f"{GAP}{cells[0]}")
        last = row[-1]
        yield Text.assemble(_row(cells[:-1], form), GAP, (last.text, STYLES.get(last.tone, "")))
        if last.said:
            yield Padding(Text(last.said, style="dim"), (0, 0, 0, 6), expand=False)


def _form(grid: Grid, heads: Sequence[Sequence[str]], first: int, width: int) -> _Form:
    texts = [[*head, *(row[i].text for row in grid.rows)] for i, head in enumerate(heads, start=first)]
    widths = [max(map(len, column)) for column in texts]
    named = sum(widths) + len(GAP) * len(widths) <= width
    if not named:
        widths[0] = 0
    return _Form(widths=tuple(widths), right=tuple(column.numeric for column in grid.columns[first:]), named=named)


def _row(cells: Sequence[str], form: _Form) -> str:
    shown = cells if form.named else ["", *cells[1:]]
    return GAP + GAP.join(
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(shown, form.widths, form.right, strict=False)
    )


def _folded(name: str) -> list[str]:
    """A long heading in two lines."""
    first, _, rest = name.partition(" ")
    return [first, rest] if rest and len(name) > SHORT else ["", name]
