"""CSV and JSONL files as sources of rows: read as text, every record counted, broken ones put aside."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import IO, Any

import duckdb

from counterplay.errors import ColumnError, FileError
from counterplay.logs.sources import lines
from counterplay.logs.sources.extent import csv_extent, lines_extent
from counterplay.logs.sources.files import one_file, open_binary
from counterplay.logs.sources.source import FRAME, Source, json_pointer, literal

REJECTS = "counterplay_rejects"
_REJECT_SCANS = "counterplay_reject_scans"
# What DuckDB's readers take by default, in bytes.
_LONG_RECORD = 2_097_152
_LONG_OBJECT = 16_777_216


def jsonl_source(connection: duckdb.DuckDBPyConnection, path: Path, sha256: str) -> Source:
    extent = lines_extent(str(path), lambda: open_binary(path))
    size = max(_LONG_OBJECT, 2 * extent.longest)
    file = f"read_ndjson_objects({one_file(path)}, ignore_errors = true, maximum_object_size = {size})"
    # Every line is asked for its keys: a key that first appears in the last line is a column as well.
    keys = connection.execute(
        f"""SELECT key, min(place) FROM (
                SELECT unnest(json_keys(json)) AS key, generate_subscripts(json_keys(json), 1) AS place
            FROM {file} WHERE json_type(json) = 'OBJECT') GROUP BY key ORDER BY 2, 1"""
    ).fetchall()
    if not keys:
        raise FileError(
            f"No line of {path} is a JSON object. Export one object a line, or rename the file to its kind."
        )
    pointers = [literal(json_pointer(key)) for key, _ in keys]
    return Source(
        name=path.name,
        sha256=sha256,
        # All values at once: each call that extracts parses the whole line again.
        scan=f"""(SELECT json, json_extract_string(json, [{", ".join(pointers)}]) AS held,
            row_number() OVER () AS ordinal FROM {file})""",
        columns={key: (f"held[{place}]", "VARCHAR") for place, (key, _) in enumerate(keys, 1)},
        broken="json IS NULL OR json_type(json) <> 'OBJECT'",
        check_count=extent.check,
        locate=lambda _: lines.json_places(lambda: open_binary(path)),
    )


def csv_source(_: duckdb.DuckDBPyConnection, path: Path, sha256: str) -> Source:
    with open_binary(path) as binary, io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()
        delimiter = max("\t,;|" if ".tsv" in path.suffixes else ",\t;|", key=first.count)
        names = next(csv.reader(_rest(first, file), delimiter=delimiter), [])
    if not any(name.strip() for name in names):
        raise FileError(f"The first line of {path} holds no column names. Add a line with them.")
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if twice:
        raise ColumnError(f"Column '{twice[0]}' stands twice in {path}. Rename one of them.")
    extent = csv_extent(str(path), lambda: open_binary(path), delimiter)
    # Columns are read under names of our own; those of the file never become part of an SQL text.
    fields = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(names)))
    file_sql = (
        f"read_csv({one_file(path)}, auto_detect = false, header = true, delim = {literal(delimiter)}, "
        f"quote = '\"', escape = '\"', max_line_size = {max(_LONG_RECORD, 2 * extent.longest)}, "
        f"columns = {{{fields}}}, store_rejects = true, rejects_table = '{REJECTS}', "
        f"rejects_scan = '{_REJECT_SCANS}')"
    )
    return Source(
        name=path.name,
        sha256=sha256,
        scan=f"(SELECT *, row_number() OVER () AS ordinal FROM {file_sql})",
        columns={name or f"column {i + 1}": (f"c{i}", "VARCHAR") for i, name in enumerate(names)},
        # The header is a record as well.
        check_count=lambda found: extent.check(found + 1),
        locate=lambda connection: lines.csv_places(lambda: open_binary(path), delimiter, rejected(connection)),
    )


def rejected(connection: duckdb.DuckDBPyConnection) -> list[tuple[int, str, str]]:
    """The records that the CSV reader refused so far: DuckDB's line, its raw text, a plain reason."""
    if not connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [REJECTS]).fetchall():
        return []
    rows = connection.execute(
        f"""SELECT line, coalesce(any_value(csv_line), ''), min(CAST(error_type AS VARCHAR)) FROM {REJECTS}
            GROUP BY line ORDER BY line"""
    ).fetchall()
    return [(line, raw.strip("\r\n"), f"the line is broken: {kind.lower()}") for line, raw, kind in rows]


def clear(connection: duckdb.DuckDBPyConnection) -> None:
    """Remove what opening a source left in the connection."""
    connection.execute(f"DROP TABLE IF EXISTS {REJECTS}")
    connection.execute(f"DROP TABLE IF EXISTS {_REJECT_SCANS}")
    connection.unregister(FRAME)


def _rest(first: str, file: IO[str]) -> Any:
    yield first
    yield from file
