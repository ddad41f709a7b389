"""The health of a log as a page, as JSON, and in a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterplay.logs.health.model import Finding, Health
from counterplay.reports.grid import Grid
from counterplay.reports.health_figures import pictures
from counterplay.reports.health_grids import grids, short
from counterplay.reports.numbers import DASH, percent, significant, whole
from counterplay.reports.svg import SERIES, SERIES_DARK
from counterplay.reports.writing import write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

VERDICTS = {
    "ok": "fit for counterfactual questions",
    "caution": "usable with care",
    "unreliable": "not fit for counterfactual questions",
}
NAMES = ("health.html", "health.json")
_STYLES = {"ok": "green", "caution": "yellow", "unreliable": "bold red"}
_WIDE = 130


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number with its name, and a few words on it."""

    name: str
    value: str
    said: str = ""


def health_json(health: Health) -> str:
    """The health as JSON: no NaN, the same bytes for the same log."""
    return json.dumps(health.to_json(), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def render_health(health: Health) -> str:
    """The health as one HTML page: no scripts, nothing fetched, light and dark; the same bytes for the same log."""
    tables = grids(health)
    text: str = _template().render(
        health=health,
        title=f"Log health: {health.log}",
        verdict=VERDICTS[health.verdict],
        lede=_lede(health),
        tiles=tiles(health),
        details=details(health),
        tables=tables,
        pictures=pictures(health),
        series=SERIES,
        series_dark=SERIES_DARK,
    )
    return text


def _lede(health: Health) -> str:
    """The headline without the words that stand in the verdict beside it."""
    if health.verdict == "ok":
        return "Nothing alarming was seen: propensities, support and rewards are as they should be."
    return health.headline.partition(": ")[2]


def write_health(health: Health, out: str | Path) -> list[Path]:
    """Write `health.html` and `health.json` into a folder, made if it is not there; each is whole, old or new.

    Raises:
        FileError: a file cannot be written.
    """
    texts = zip(NAMES, (render_health(health), health_json(health)), strict=True)
    made = [(Path(out) / name, text) for name, text in texts]
    for path, text in made:
        write_whole(path, text)
    return [path for path, _ in made]


def print_health(health: Health, console: Console) -> None:
    """Print the verdict, the findings, and the tables of support and actions."""
    from rich.text import Text

    console.print()
    console.print(Text.assemble((f"{health.log}: ", "bold"), (VERDICTS[health.verdict], _STYLES[health.verdict])))
    console.print(Text("  ".join(f"{tile.name} {tile.value}" for tile in tiles(health)), style="dim"))
    console.print()
    for finding in health.findings:
        console.print(_line(finding))
    for name, sentences in (("Can answer", health.can), ("Cannot answer", health.cannot)):
        if sentences:
            console.print()
            console.print(Text(name, style="bold"))
            for sentence in sentences:
                console.print(_indented(sentence))
    shown = grids(health)
    for key in ("support", "worst" if "worst" in shown else "actions", "outcomes", "quarantine"):
        if key in shown:
            console.print()
            console.print(_turned(shown[key]) if key == "support" else _table(shown[key], console.width))


def _line(finding: Finding) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(width=10, no_wrap=True)
    table.add_column()
    table.add_row(Text(finding.level, style=_STYLES[finding.level]), Text(finding.sentence))
    return table


def _indented(sentence: str) -> Any:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text(f"• {sentence}"), (0, 0, 0, 1))


def _table(grid: Grid, width: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = [i for i, column in enumerate(grid.columns) if not column.ticks and (column.rank == 1 or width >= _WIDE)]
    table = Table(box=box.SIMPLE_HEAD, title=Text(grid.caption), title_justify="left", title_style="bold")
    for i in shown:
        column = grid.columns[i]
        table.add_column(Text(column.name), justify="right" if column.numeric else "left", no_wrap=column.numeric)
    for row in grid.rows:
        table.add_row(*(Text(row[i].text) for i in shown))
    return table


def _turned(grid: Grid) -> Table:
    """One column a row of the grid: many columns of two policies do not fit into a terminal."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(grid.caption), title_justify="left", title_style="bold")
    table.add_column("")
    for row in grid.rows:
        table.add_column(Text(row[0].text), justify="right")
    for i, column in enumerate(grid.columns[1:], start=1):
        table.add_row(Text(column.name), *(Text(row[i].text) for row in grid.rows))
    return table


def tiles(health: Health) -> Sequence[Tile]:
    """The numbers that stand on top."""
    a, p, r = health.actions, health.propensities, health.rewards
    never = f"of {whole(a.known)} known" if a.known > a.seen else "every known one"
    found = [
        Tile(name="decisions", value=whole(health.decisions), said=f"regime {health.regime}"),
        Tile(name="contexts", value=whole(health.repeats.contexts.groups), said=_largest(health)),
        Tile(name="actions taken", value=whole(a.seen), said=never if a.seen else f"{whole(a.known)} known"),
        Tile(
            name="mean reward",
            value=DASH if r.mean is None else short(r.mean),
            said=f"{whole(r.missing)} unknown" if r.missing else "",
        ),
    ]
    if p.known:
        found.append(
            Tile(
                name="smallest propensity",
                value=short(p.quantiles[0][1]),
                said=f"{percent(p.share_one) if p.share_one else 'none'} at 1",
            )
        )
    if health.uniform is not None:
        size = health.uniform.effective_sample_size
        value = whole(size) if size >= 100 else short(size)
        found.append(Tile(name="effective sample", value=value, said="for uniform choice"))
    part = health.rows.quarantined / max(1, health.rows.read)
    found.append(
        Tile(
            name="in quarantine",
            value=whole(health.rows.quarantined),
            said=f"{percent(part)} of the rows" if part else "all rows are sound",
        )
    )
    return found


def _level(level: float) -> str:
    return "least" if level == 0 else "largest" if level == 1 else f"{level:.0%}".replace("%", " %")


def _largest(health: Health) -> str:
    groups = health.repeats.contexts
    if groups.groups == 1 and groups.largest > 1:
        return "shared by all decisions"
    about = "about, " if groups.one_in > 1 else ""
    return f"{about}up to {whole(groups.largest)} decisions each" if groups.largest > 1 else "one decision each"


def details(health: Health) -> list[tuple[str, str]]:
    """The rest of what was looked at, as names and words."""
    a, p, r, t = health.actions, health.propensities, health.repeats, health.times
    found = [
        ("rows", f"{whole(health.rows.read)} read, {whole(health.rows.known)} of them known already"),
        ("rarest action", f"{a.rarest}, {percent(a.rarest_share or 0)} of the decisions" if a.rarest else DASH),
        ("never taken", ", ".join(a.unseen) + (" ..." if a.known - a.seen > len(a.unseen) else "") or "none"),
    ]
    if a.candidates:
        low, mean, high = a.candidates
        found.append(("candidates", f"{whole(low)} to {whole(high)} a decision, {significant(mean)} on average"))
    else:
        found.append(("candidates", "not logged: every action counts as one"))
    if p.known:
        about = f", from about one decision in {p.one_in}" if p.one_in > 1 else ""
        said = ", ".join(f"{_level(level)} {short(value)}" for level, value in p.quantiles)
        found.append(("quantiles of the propensity", said + about))
        sums = "unknown: only the probability of the action taken was logged"
        if p.sums is not None:
            sums = f"{significant(p.sums[1], 6)} to {significant(p.sums[2], 6)} in {whole(p.sums[0])} decisions"
        found.append(("sum over candidates", sums))
    if r.clusters is not None:
        effect = "" if r.clusters.design_effect is None else f", design effect {significant(r.clusters.design_effect)}"
        found.append(("clusters", f"{whole(r.clusters.groups)}, the largest of {whole(r.clusters.largest)}{effect}"))
    found.append(("decisions in repeated contexts", whole(r.contexts.repeated)))
    found.append(("decisions equal to another one", whole(r.rows.repeated)))
    if r.occasions is not None:
        found.append(("same context, action and time", whole(r.occasions.repeated)))
    found.append(("times", f"{t.first} to {t.last}, UTC" if t.known else "not logged"))
    return found


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("counterplay.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("health.html")
