"""Checking a cache against itself: every key belongs to its request, every row is in its one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from counterplay.logs.outputs.rows import COLUMNS, fault_of, registered, text_table
from counterplay.logs.outputs.store import count_outputs
from counterplay.logs.progress import Progress

_BATCH = 5_000


@dataclass(frozen=True, kw_only=True)
class DamagedOutput:
    """A stored row that is not what storing its output makes, and what is wrong with it."""

    key: str
    fault: str


def find_damaged_outputs(
    connection: duckdb.DuckDBPyConnection, *, progress: Progress | None = None
) -> Iterator[DamagedOutput]:
    """Hash every stored request again, and compare each row with what `put_outputs` makes of it.

    A row is damaged when its key is not the hash of its request, when a JSON value is not in canonical form, or when
    ``operation`` and ``model`` are others than in the request. What the model said cannot be checked without the model:
    a response that was changed and is canonical JSON passes.
    """
    total, done = count_outputs(connection), 0
    columns = ", ".join(f"CAST({name} AS VARCHAR)" for name in COLUMNS)
    # A cursor of its own: the caller may remove what was found between two batches.
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM outputs")
        while batch := cursor.fetchmany(_BATCH):
            for row in batch:
                fault = fault_of(row)
                if fault is not None:
                    yield DamagedOutput(key=row[0], fault=fault)
            done += len(batch)
            if progress is not None:
                progress(done, total, "hashing requests")


def remove_outputs(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> int:
    """Take outputs out of the cache, whatever their status; how many were there."""
    before = count_outputs(connection)
    with registered(connection, text_table({"key": list(keys)})):
        connection.execute("DELETE FROM outputs WHERE key IN (SELECT key FROM incoming)")
    return before - count_outputs(connection)
