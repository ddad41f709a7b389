"""What an import did, row by row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import duckdb

from counterplay.errors import CounterplayError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did. `rows_read` = `rows_kept` + `rows_quarantined` + `rows_known`.

    `mapping`: our word to the file's column; `ignored`: columns that are none of our words; `reasons`: quarantined rows
    by the first thing that was wrong with them. `rows_replaced`: those of the kept rows that took the place of a known
    one with the same id.
    """

    log: str
    source: str
    sha256: str
    regime: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    rows_known: int
    reasons: dict[str, int]
    mapping: dict[str, str]
    ignored: tuple[str, ...]
    rows_replaced: int = 0


def require_balance(report: ImportReport) -> None:
    """Refuse a report whose rows do not add up: something was lost or counted twice. Errors: `CounterplayError`."""
    if report.rows_read != report.rows_kept + report.rows_quarantined + report.rows_known:
        raise CounterplayError(
            f"The rows of {report.source} do not add up, so nothing was imported; please report this: {report}"
        )


def enter_source(
    connection: duckdb.DuckDBPyConnection,
    report: ImportReport,
    mapping: Mapping[str, Any],
    stream: int | None = None,
    first_row: int | None = None,
    first_position: int | None = None,
) -> None:
    """Enter an import into the table `sources`. The last three say where rows without ids stand, see `known`."""
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, now(), ?, ?, ?)",
        [
            report.log,
            report.source,
            report.sha256,
            json.dumps(mapping),
            report.rows_read,
            report.rows_kept,
            report.rows_known,
            report.rows_quarantined,
            stream,
            first_row,
            first_position,
        ],
    )
