"""The report as Markdown: sentences and tables, for a pull request or a wiki."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from counterplay.reports.agents import agents_grid, rivals_grid
from counterplay.reports.estimates import comparisons_grid, coverage_grid, estimates_grid, traces
from counterplay.reports.findings import findings
from counterplay.reports.grid import Cell, Grid
from counterplay.reports.method import method
from counterplay.reports.results import checked

_SPECIAL = re.compile(r"([\\`*_<>|#~])")


def render_markdown(results: Sequence[Mapping[str, Any]], *, title: str = "What other agents would have earned") -> str:
    """The report of these experiments as Markdown with GitHub's tables, without figures.

    Raises:
        UnsupportedError: there are no results.
        InputError: a part of the results is missing, or a number is not finite.
    """
    blocks = [f"# {escaped(title)}"]
    for result in checked(results):
        blocks.append(f"## {escaped(result['name'])}")
        blocks.append("\n".join(f"- {escaped(sentence)}" for sentence in findings(result)))
        blocks.append(escaped(" ".join(method(result))))
        agents = agents_grid(result) if result["agents"] else None
        grids = (agents, rivals_grid(result), coverage_grid(result), estimates_grid(result), comparisons_grid(result))
        for grid in grids:
            if grid is not None:
                blocks += [f"### {escaped(grid.caption)}", table(grid)]
        blocks.append("\n".join(f"- {escaped(name)}: `{value}`" for name, value in traces(result)))
    return "\n\n".join(block for block in blocks if block) + "\n"


def table(grid: Grid) -> str:
    """A grid as a table; what is only drawn is left out."""
    shown = [i for i, column in enumerate(grid.columns) if not column.ticks]
    columns = [grid.columns[i] for i in shown]
    lines = [[escaped(column.name) for column in columns], ["---:" if column.numeric else ":---" for column in columns]]
    lines += [[_text(row[i]) for i in shown] for row in grid.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(cell: Cell) -> str:
    text = escaped(cell.text)
    if cell.tone == "best":
        text = f"**{text}**"
    if not cell.said:
        return text
    said = escaped(cell.said)
    return f"{text} {said}" if said.startswith("[") else f"{text} ({said})"


def escaped(text: str) -> str:
    """Text whose characters mean themselves in Markdown and in the HTML that it may become, on one line."""
    return _SPECIAL.sub(r"\\\1", text.replace("\r", " ").replace("\n", " ")).replace("&", "&amp;")
