"""From the ordinal of a row to its line in the file, read again only when something stands in quarantine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import numpy as np

from counterplay.logs.log import Longs
from counterplay.logs.sources.extent import csv_records

if TYPE_CHECKING:
    import duckdb

_NONE: Longs = np.empty(0, dtype=np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Broken:
    """A piece of the file that is no row: its line, its raw text and why."""

    line: int
    raw: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """`lines`: the line of each ordinal, from ordinal 1; beyond its end, the line is the ordinal plus `header`.

    `broken`: what is no row. `raw`: gives the text of lines that were read as rows but could not be understood.
    """

    lines: Longs = dataclasses.field(default_factory=lambda: _NONE)
    header: int = 0
    broken: tuple[Broken, ...] = ()
    raw: Callable[[set[int]], dict[int, str]] = lambda _: {}

    def line(self, ordinal: int) -> int:
        """The line of a row, from 1."""
        return int(self.lines[ordinal - 1]) if ordinal <= len(self.lines) else ordinal + self.header


def rows_as_they_are(_: duckdb.DuckDBPyConnection) -> Places:
    """Frames and Parquet have no lines: rows are counted from 1."""
    return Places()


def json_places(opened: Callable[[], IO[bytes]]) -> Places:
    """Lines of a JSONL file: the rows are its lines that are not blank."""
    with opened() as file:
        numbers = [number for number, line in enumerate(file, 1) if line.strip()]

    def raw(wanted: set[int]) -> dict[int, str]:
        with opened() as file:
            return {
                number: line.decode("utf-8", "replace").rstrip("\r\n")
                for number, line in enumerate(file, 1)
                if number in wanted
            }

    return Places(lines=np.array(numbers, dtype=np.int64), raw=raw)


def csv_places(opened: Callable[[], IO[bytes]], delimiter: str, rejected: list[tuple[int, str, str]]) -> Places:
    """Lines of a CSV file, where a record may span several and blank lines are no records.

    `rejected`: (place among all records, blank ones and the header included; raw text; reason) of the broken records.
    """
    starts, blank = _records(opened, delimiter)
    refused = {place for place, _, _ in rejected}
    kept = [
        start
        for place, (start, empty) in enumerate(zip(starts, blank, strict=True), 1)
        if place > 1 and not empty and place not in refused
    ]
    # Where Python and DuckDB cut a broken file differently, the record's own number is the best that can be said.
    return Places(
        lines=np.array(kept, dtype=np.int64),
        header=1,
        broken=tuple(
            Broken(line=starts[place - 1] if place <= len(starts) else place, raw=raw, reason=_long(reason, raw))
            for place, raw, reason in rejected
        ),
    )


def _long(reason: str, raw: str) -> str:
    """A quote that is never closed takes all that follows into one record: say how much that is."""
    lines = raw.count("\n") + 1
    return reason if lines == 1 else f"{reason}, over {lines:,} lines"


def _records(opened: Callable[[], IO[bytes]], delimiter: str) -> tuple[list[int], list[bool]]:
    """The first line of each record, and whether the record is blank; up to what Python's reader refuses."""
    starts, blank = [], []
    with csv_records(opened, delimiter) as reader:
        start = 1
        for record in reader:
            starts.append(start)
            blank.append(not record)
            start = reader.line_num + 1
    return starts, blank
