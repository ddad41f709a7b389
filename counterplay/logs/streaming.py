"""Reading decisions a batch at a time, in their order, so that memory stays flat however long the log is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import duckdb

from counterplay.errors import ColumnError, nearest
from counterplay.logs.reading import Place, require_log
from counterplay.logs.relations import decisions_of
from counterplay.logs.sources.source import quote
from counterplay.logs.workspace import borrowed

if TYPE_CHECKING:
    import polars as pl

NARROW = ("position", "action", "propensity", "reward")


def stream_decisions(
    workspace: Place, log: str, columns: Sequence[str] = NARROW, *, batch: int = 262_144
) -> Iterator[pl.DataFrame]:
    """The decisions of a log in their order, as frames of at most `batch` rows each.

    `columns`: of the table `decisions` (and of `steps`), in the order wanted; `action` and `candidates` are indices.
    Memory: a few batches, whatever the length of the log, unless rows were replaced after they were imported: such a
    log is sorted by `position` first, on disk where memory is short. Errors: `InputError` for an unknown log,
    `ColumnError` for an unknown column.
    """
    import polars as pl

    # A cursor of its own: whoever reads a batch may ask the workspace something else before the next.
    with borrowed(workspace) as opened, opened.connection.cursor() as connection:
        require_log(connection, log)
        rows = decisions_of(connection, log)
        known = [name for name, *_ in connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()]
        for name in columns:
            if name not in known:
                raise ColumnError(f"Decisions have no column '{name}'. {nearest(name, known)}")
        order = "" if in_order(connection, rows) else "ORDER BY position"
        query = f"SELECT {', '.join(map(quote, columns))} FROM {rows} {order}"
        for part in connection.sql(query).to_arrow_reader(batch):
            frame = pl.from_arrow(part)
            assert isinstance(frame, pl.DataFrame)
            yield frame


def in_order(connection: duckdb.DuckDBPyConnection, rows: str) -> bool:
    """Whether rows lie in the file as they follow each other: a scan then needs no sort."""
    back = f"SELECT position <= lag(position) OVER () AS back FROM {rows}"
    return connection.execute(f"SELECT 1 FROM ({back}) WHERE back LIMIT 1").fetchall() == []
