"""Where rows come from: a Parquet, CSV or JSONL file, or a frame; each becomes a scan with numbered rows.

A scan is SQL that yields `ordinal` (rows from 1, in their order) and the raw values. CSV and JSONL values stay text and
are cast by us, so that a value that is no number is seen and named, and never becomes NULL or drops its row by itself.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import glob
import gzip
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import duckdb

from counterplay.errors import ColumnError, FileError
from counterplay.logs import lines
from counterplay.logs.extent import csv_extent, lines_extent

if TYPE_CHECKING:
    pass

FRAME = "counterplay_frame"
REJECTS = "counterplay_rejects"
_REJECT_SCANS = "counterplay_reject_scans"
# What DuckDB's readers take by default, in bytes.
_LONG_RECORD = 2_097_152
_LONG_OBJECT = 16_777_216
_KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source. `columns`: its columns in order, each with (SQL expression, SQL type).

    `broken`: SQL that is true for a row that could not be read. `fault`: SQL for what only the reader of this format
    can see is wrong with a row (a reason, or NULL); it then stands alone. `locate`: where in the file rows and broken
    pieces stand, asked after the scan. `twice`: scanning again costs less than keeping what the first scan read.
    `check_count` refuses a number of rows and broken pieces that is too small.
    """

    name: str
    sha256: str
    scan: str
    columns: dict[str, tuple[str, str]]
    broken: str = "false"
    fault: str = "NULL"
    locate: Callable[[duckdb.DuckDBPyConnection], lines.Places] = lines.rows_as_they_are
    twice: bool = False
    check_count: Callable[[int], None] = lambda _: None

    @property
    def types(self) -> dict[str, str]:
        """The columns and their SQL types."""
        return {name: kind for name, (_, kind) in self.columns.items()}


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, for the places where DuckDB takes no parameter."""
    return "'" + text.replace("'", "''") + "'"


def open_source(connection: duckdb.DuckDBPyConnection, source: Any) -> Source:
    """Open a path, a folder or pattern of Parquet files, or a frame (polars, pandas, Arrow).

    Errors: `FileError`, `ColumnError`, `InputError`.
    """
    from counterplay.logs.frames import arrow_source, frame_source
    from counterplay.logs.parquet import parquet_files, parquet_paths

    if not isinstance(source, (str, os.PathLike)):
        return frame_source(connection, source)
    path = Path(source)
    if path.is_dir() or (not path.exists() and glob.has_magic(str(path))):
        return parquet_files(connection, path.name, parquet_paths(path))
    if not path.exists():
        raise FileError(f"There is no file {path}. Check the path.")
    suffix = next((found for found in reversed(path.suffixes) if found.lower() != ".gz"), "").lower()
    kind = _KINDS.get(suffix)
    if kind is None:
        raise FileError(
            f"{path.name} is of no kind that can be imported. Known: .parquet, .csv, .tsv, .jsonl, and .gz of the "
            "last three; .arrow; a folder or pattern of .parquet."
        )
    if kind == "parquet":
        return parquet_files(connection, path.name, [path])
    sha256 = file_hash(path)
    if kind != "arrow":
        _refuse_utf16(path)
    opener = {"csv": _csv, "jsonl": _jsonl, "arrow": arrow_source}[kind]
    try:
        return opener(connection, path, sha256)
    except (duckdb.Error, EOFError, gzip.BadGzipFile) as error:
        raise unreadable(path, error) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Errors: `FileError` when it is empty."""
    if path.stat().st_size == 0:
        raise FileError(f"{path} is empty. Export it again, or leave it out.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unreadable(path: object, error: Exception) -> FileError:
    """The error for a file whose bytes cannot be read as what its name says."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FileError(
        f"{path} cannot be read: {first}. It is cut short or not of the kind its name says; export it again."
    )


@contextlib.contextmanager
def reading_errors(name: str) -> Iterator[None]:
    """What DuckDB says about a broken file becomes a `FileError`."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise unreadable(name, error) from error


def one_file(path: Path) -> str:
    """A path as an SQL literal that means this one file, whatever brackets and stars its name holds."""
    return literal(glob.escape(str(path)))


def _jsonl(connection: duckdb.DuckDBPyConnection, path: Path, sha256: str) -> Source:
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
    pointers = [literal("/" + key.replace("~", "~0").replace("/", "~1")) for key, _ in keys]
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


def _csv(_: duckdb.DuckDBPyConnection, path: Path, sha256: str) -> Source:
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


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed."""
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _refuse_utf16(path: Path) -> None:
    with open_binary(path) as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise FileError(f"{path} is in UTF-16. Save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8.")


def _rest(first: str, file: IO[str]) -> Any:
    yield first
    yield from file
