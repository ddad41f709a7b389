"""Logs whose decisions stay where they are: Parquet files that are read, checked once, and never copied."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import duckdb

from counterplay.errors import FileError
from counterplay.logs.decisions.columns import Column
from counterplay.logs.decisions.indices import labels_of
from counterplay.logs.decisions.typed import incoming_query, labels_are_integers
from counterplay.logs.sources.files import file_hash
from counterplay.logs.sources.parquet import parquet_scan
from counterplay.logs.sources.source import Source, literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttachedFile:
    """A file as it was when it was attached: its size in bytes, its time of change in nanoseconds, its SHA-256."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str


def describe(paths: list[Path]) -> list[AttachedFile]:
    """What is remembered of files, so that a change is noticed before it is read as if nothing had happened."""
    return [
        AttachedFile(
            path=str(path.resolve()),
            bytes=path.stat().st_size,
            modified_ns=path.stat().st_mtime_ns,
            sha256=file_hash(path),
        )
        for path in paths
    ]


def remember(
    connection: duckdb.DuckDBPyConnection, log: str, files: list[AttachedFile], mapping: Mapping[str, Column]
) -> None:
    """Attach files to a log, instead of those that it had."""
    connection.execute("DELETE FROM attachments WHERE log = ?", [log])
    connection.execute(
        "INSERT INTO attachments VALUES (?, ?, ?)",
        [
            log,
            json.dumps([dataclasses.asdict(file) for file in files]),
            json.dumps({word: dataclasses.asdict(column) for word, column in mapping.items()}),
        ],
    )


def attached_files(connection: duckdb.DuckDBPyConnection, log: str) -> list[AttachedFile]:
    """The files of a log; none when its decisions are in the workspace."""
    rows = connection.execute("SELECT files FROM attachments WHERE log = ?", [log]).fetchall()
    return [AttachedFile(**file) for (files,) in rows for file in json.loads(files)]


def incoming_rows(connection: duckdb.DuckDBPyConnection, log: str, files: list[AttachedFile]) -> str:
    """The sound rows of a log's files as our words, with `position`, and with indices for labels.

    Errors: `FileError` for a file that is gone or has changed since it was attached.
    """
    for file in files:
        _check(log, file)
    source = parquet_scan(connection, log, "", [Path(file.path) for file in files])
    ((stored,),) = connection.execute("SELECT mapping FROM attachments WHERE log = ?", [log]).fetchall()
    mapping = {
        word: Column(names=tuple(column["names"]), negate=column["negate"])
        for word, column in json.loads(stored).items()
    }
    return f"({_indexed(connection, log, source, mapping)})"


def _indexed(connection: duckdb.DuckDBPyConnection, log: str, source: Source, mapping: Mapping[str, Column]) -> str:
    # Several logs may be read at a time; each has its own labels.
    name = hashlib.sha256(log.encode()).hexdigest()[:16]
    labels = labels_of(connection, log, labels_are_integers(source, mapping), name=name)
    candidates = labels.indices("candidates") if "candidates" in mapping else "CAST(NULL AS INTEGER[])"
    rows = f"""SELECT * EXCLUDE (ordinal, reason) REPLACE ({labels.index("action")} AS action,
        {candidates} AS candidates), {literal(log)} AS log, ordinal - 1 AS position
        FROM ({incoming_query(source, mapping)})"""
    broken = f"(SELECT line AS ordinal FROM quarantine WHERE log = {literal(log)})"
    if connection.execute(f"SELECT 1 FROM {broken} LIMIT 1").fetchall():
        rows += f" ANTI JOIN {broken} USING (ordinal)"
    return rows


def _check(log: str, file: AttachedFile) -> None:
    try:
        found = Path(file.path).stat()
    except OSError as error:
        raise FileError(
            f"{file.path}, which holds decisions of log '{log}', cannot be read ({error.strerror}). Put it back, or "
            "attach the log again from where the file is now."
        ) from error
    if (found.st_size, found.st_mtime_ns) != (file.bytes, file.modified_ns):
        raise FileError(
            f"{file.path} has changed since it was attached to log '{log}'. Attach the log again, so that its rows "
            "are checked again."
        )
