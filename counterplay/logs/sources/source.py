"""What a source of rows is, whatever it was opened from: a scan with numbered rows.

A scan is SQL that yields `ordinal` (rows from 1, in their order) and the raw values. CSV and JSONL values stay text and
are cast by us, so that a value that is no number is seen and named, and never becomes NULL or drops its row by itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import zlib
from collections.abc import Callable, Iterator

import duckdb

from counterplay.errors import FileError
from counterplay.logs.sources import lines

FRAME = "counterplay_frame"


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


def unreadable(path: object, error: Exception) -> FileError:
    """The error for a file whose bytes cannot be read as what its name says."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return FileError(
        f"{path} cannot be read: {first}. It is cut short or not of the kind its name says; export it again."
    )


def json_pointer(key: str) -> str:
    """The JSON pointer to a key of an object (RFC 6901)."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


@contextlib.contextmanager
def reading_errors(name: str) -> Iterator[None]:
    """What DuckDB or gzip says about a broken file becomes a `FileError`."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException, *BROKEN_GZIP) as error:
        raise unreadable(name, error) from error
