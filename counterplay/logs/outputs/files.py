"""Outputs in files: one Parquet file that takes a cache, or a part of it, from one workspace to another.

The file has the columns of the table ``outputs`` as text, sorted by key, and says its version in its metadata. Files of
version 1 said none; they are read too. Both ways stream, so memory does not grow with the cache.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from counterplay.errors import FileError, InputError, nearest
from counterplay.logs.outputs.rows import COLUMNS, OK, fault_of, registered
from counterplay.logs.outputs.store import insert_from
from counterplay.logs.parquet import check_target, write_parquet
from counterplay.logs.progress import Progress, watched
from counterplay.logs.sources.source import literal
from counterplay.logs.troubles import first_line, full

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 2
_VERSION = "counterplay_outputs"
_BATCH = 10_000
_STAGED = "counterplay_incoming_outputs"


@dataclass(frozen=True, kw_only=True)
class OutputsReport:
    """What became of the outputs of a file.

    ``outputs`` = ``new`` + ``known`` + ``replaced`` + ``conflicting``. Known: the same response is stored already, or
    an output of the file that is not ``ok`` meets one that is. Replaced: the stored one was not ``ok``, and the file
    had another. Conflicting: both are ``ok`` and say different things; the stored one was kept. ``conflicts``: the keys
    of the first hundred.
    """

    outputs: int
    new: int
    known: int
    replaced: int
    conflicting: int
    conflicts: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.outputs:,} outputs: {self.new:,} new, {self.known:,} known already, {self.replaced:,} replaced "
            f"what was not {OK}, {self.conflicting:,} conflicting (another answer is stored, and was kept)"
        )


def export_outputs(
    connection: duckdb.DuckDBPyConnection,
    path: str | os.PathLike[str],
    *,
    model: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the cache to one Parquet file (zstd), provenance and outputs that are not ``ok`` included; how many.

    ``model``: the outputs of that model only; by default those of all. ``overwrite``: replace a file that is there; by
    default it is an error. The file is written beside its place and moved there whole. ``progress(done, total, what)``
    is called now and then.

    Errors: `InputError` for a model that has no outputs; `FileError` for a file that is there, or cannot be written.
    """
    target = Path(path)
    check_target(connection, target, _database(connection), overwrite)
    chosen = "" if model is None else f"WHERE model = {literal(_known_model(connection, model))}"
    columns = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in COLUMNS)
    with watched(connection, progress) as stage:
        stage("writing")
        query = f"SELECT {columns} FROM outputs {chosen} ORDER BY key"
        return write_parquet(connection, query, target, overwrite=overwrite, metadata={_VERSION: str(FORMAT_VERSION)})


def import_outputs(
    connection: duckdb.DuckDBPyConnection, path: str | os.PathLike[str], *, progress: Progress | None = None
) -> OutputsReport:
    """Add the outputs of a file that `export_outputs` wrote, all of them or, on an error, none.

    Every key is computed again from its request. An output that is stored and ``ok`` is never replaced. What is stored
    is stored in one statement; a transaction around it is not needed, and would hold the whole file in memory.

    Errors: `FileError` for a file of another kind or a version that is not known, for a row that is not what an export
    writes, by its key, and for a disk that is full.
    """
    try:
        _stage(connection, Path(path), progress)
        found = _classify(connection)
        with watched(connection, progress) as stage:
            stage("storing")
            insert_from(connection, _STAGED)
    except duckdb.Error as error:
        if full(error) is None:
            raise
        raise FileError(
            f"There is no room left for the outputs of {path} ({first_line(error)}). Nothing was stored: free space."
        ) from error
    finally:
        with contextlib.suppress(duckdb.Error):
            connection.execute(f"DROP TABLE IF EXISTS temp.{_STAGED}")
    return found


def _known_model(connection: duckdb.DuckDBPyConnection, model: str) -> str:
    names = [name for (name,) in connection.execute("SELECT DISTINCT model FROM outputs").fetchall()]
    if model not in names:
        raise InputError(f"The cache has no outputs of a model '{model}'. {nearest(model, names)}")
    return model


def _database(connection: duckdb.DuckDBPyConnection) -> Path:
    (path,) = connection.execute(
        "SELECT path FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchall()[0]
    return Path(path or os.devnull)


def _stage(connection: duckdb.DuckDBPyConnection, path: Path, progress: Progress | None) -> None:
    """The rows of a file, each checked, in a temporary table."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {_STAGED} ({', '.join(f'{name} VARCHAR' for name in COLUMNS)})")
    done, last = 0, ""
    for batch, total in _batches(path):
        last = _check(path, batch, last)
        with registered(connection, batch):
            connection.execute(f"INSERT INTO temp.{_STAGED} SELECT * FROM incoming")
        done += batch.num_rows
        if progress is not None:
            progress(done, total, "checking keys")


def _batches(path: Path) -> Iterator[tuple[pa.Table, int]]:
    """Pieces of a file of outputs, each with the number of rows of the whole file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _check_kind(path, file)
            for batch in file.iter_batches(batch_size=_BATCH):
                yield pa.Table.from_batches([batch]), file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path} is no Parquet file of outputs ({first_line(error)}). Export it again.") from error


def _check_kind(path: Path, file: Any) -> None:
    import pyarrow as pa

    if tuple(file.schema_arrow.names) != COLUMNS:
        raise FileError(f"{path} has the columns {', '.join(file.schema_arrow.names)}, not {', '.join(COLUMNS)}.")
    other = [field.name for field in file.schema_arrow if field.type not in (pa.string(), pa.large_string())]
    if other:
        raise FileError(f"In {path} the column {other[0]} is no text. Export the file again.")
    said = (file.metadata.metadata or {}).get(_VERSION.encode(), b"1").decode(errors="replace")
    if said not in [str(version) for version in range(1, FORMAT_VERSION + 1)]:
        raise FileError(
            f"{path} is a file of outputs of version {said}; this Counterplay reads versions up to {FORMAT_VERSION}. "
            "Upgrade Counterplay, or export the file again with this one."
        )


def _check(path: Path, batch: pa.Table, last: str) -> str:
    """Refuse rows that no export writes; the last key."""
    for row in zip(*(batch[name].to_pylist() for name in COLUMNS), strict=True):
        fault = fault_of(row)
        if fault is not None:
            raise FileError(
                f"In {path}, at the key {row[0]}, {fault}. Nothing was stored: mend the workspace that it came "
                "from (counterplay cache verify --remove), and export it again."
            )
        if row[0] <= last:
            raise FileError(
                f"In {path} the key {row[0]} stands behind {last}: keys are not sorted, or one is there twice. "
                "Files are not joined by hand: import one after the other."
            )
        last = row[0]
    return last


def _classify(connection: duckdb.DuckDBPyConnection) -> OutputsReport:
    """What will become of the staged rows."""
    conflicting = f"o.status = '{OK}' AND i.status = '{OK}' AND o.response <> i.response"
    replaced = f"o.status <> '{OK}' AND (o.status <> i.status OR o.response <> i.response)"
    pairs = f"""temp.{_STAGED} i LEFT JOIN
        (SELECT key, status, CAST(response AS VARCHAR) AS response FROM outputs) o USING (key)"""
    counts = connection.execute(
        f"""SELECT count(*), count(*) FILTER (o.status IS NULL), count(*) FILTER ({replaced}),
            count(*) FILTER ({conflicting}) FROM {pairs}"""
    ).fetchall()[0]
    outputs, new, other, conflicts = (int(count) for count in counts)
    names = connection.execute(f"SELECT key FROM {pairs} WHERE {conflicting} ORDER BY key LIMIT 100").fetchall()
    return OutputsReport(
        outputs=outputs,
        new=new,
        known=outputs - new - other - conflicts,
        replaced=other,
        conflicting=conflicts,
        conflicts=tuple(key for (key,) in names),
    )
