"""One table as Markdown, and how numbers are written in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paper.runs import Line, error, mean


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table: its number in the paper (0: not in the paper), its title, its cells, and remarks below it."""

    number: int = 0
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title above and its note below."""
        name = f"Table {self.number}: " if self.number else ""
        title = name + self.title
        lines = [
            f"**{title[0].upper()}{title[1:]}**",
            "",
            f"| {' | '.join(self.head)} |",
            f"|---|{'---:|' * (len(self.head) - 1)}",
        ]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])

    def _repr_markdown_(self) -> str:
        return self.markdown()


def decimals(value: float | None) -> str:
    """A published number, as published; nothing for None."""
    return "" if value is None else f"{value:.5f}".replace("0.", ".", 1)


def with_error(values: Line) -> str:
    """Mean ± standard error over seeds; for one seed the mean alone."""
    text, margin = f"{mean(values):.4f}", error(values)
    if not math.isnan(margin):
        text += f" ± {margin:.4f}"
    return text.replace("0.", ".")


def signed(gap: Line) -> str:
    """A difference, with its sign."""
    return ("+" if mean(gap) >= 0 else "-") + with_error(gap if mean(gap) >= 0 else -gap)
