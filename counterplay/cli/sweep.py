"""`counterplay best`: which configuration of a sweep is best, corrected for having looked at many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterplay.cli.screen import console
from counterplay.errors import ConfigurationError, FileError, UnsupportedError, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from counterplay.replay.best import Best

_SHOWN = 20


def best(
    results: Path,
    experiment: str | None = None,
    *,
    level: float = 0.95,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Say which configuration of a sweep is best, which cannot be told from it, and what it earns without the luck of
    having been chosen.

    Args:
        results: a workspace, or a `results.json`.
        experiment: its name, or the beginning of its identity; needed where there are several with agents.
        level: confidence of the intervals, and of the set of those that may be best.
        as_json: print JSON for a program instead of a table.
    """
    from counterplay.replay.best import best_of

    found = best_of(_chosen(_stored(results), experiment, results), level=level)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False))
        return
    terminal = console()
    terminal.print(_table(found))
    for sentence in found.sentences:
        terminal.print(f"• {sentence}", markup=False, highlight=False)


def _stored(place: Path) -> list[dict[str, Any]]:
    if place.suffix.lower() != ".json":
        from counterplay.logs.results import read_experiments

        return read_experiments(place)
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {place}: {error.strerror}.") from error
    except ValueError as error:
        raise FileError(f"{place} is no JSON file: {error}.") from error
    found = found if isinstance(found, list) else [found]
    if not all(isinstance(one, dict) and {"experiment", "name", "agents"} <= one.keys() for one in found):
        raise FileError(f"{place} holds no results of experiments: name the results.json that a report wrote.")
    return found


def _chosen(stored: list[dict[str, Any]], wanted: str | None, place: Path) -> dict[str, Any]:
    stored = [one for one in stored if one["agents"]]
    if not stored:
        raise UnsupportedError(f"{place} holds no results with agents: run an experiment that replays some.")
    if wanted is None:
        found = stored
    else:
        found = [one for one in stored if one["name"] == wanted or one["experiment"].startswith(wanted)]
    if len(found) == 1:
        return found[0]
    known = [one["name"] for one in stored]
    if len(set(known)) < len(known):
        known = [one["experiment"][:16] for one in stored]
    if wanted is None or found:
        raise ConfigurationError(
            f"{place} holds {len(found or stored)} such experiments: name one. {nearest('', known)}"
        )
    raise ConfigurationError(f"{place} holds no experiment '{wanted}' with agents. {nearest(wanted, known)}")


def _table(found: Best) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("configuration")
    for name in ("average reward", "behind the best", "std. error"):
        table.add_column(name, justify="right")
    table.add_column("may be best")
    for one in found.candidates[:_SHOWN]:
        gap = ["", ""] if one.behind is None else [f"{one.behind:.4f}", f"{one.std_error:.4f}"]
        table.add_row(_escaped(one.agent), f"{one.average_reward:.4f}", *gap, "yes" if one.may_be_best else "")
    if len(found.candidates) > _SHOWN:
        table.caption = f"and {len(found.candidates) - _SHOWN:,} more, lower ones"
    return table


def _escaped(name: str) -> str:
    from rich.markup import escape

    return escape(name)
