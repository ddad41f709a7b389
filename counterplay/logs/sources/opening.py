"""From whatever a caller names to a source of rows."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import duckdb

from counterplay.errors import FileError
from counterplay.logs.sources.files import existing, file_hash, refuse_marked, refuse_utf16
from counterplay.logs.sources.frames import arrow_source, frame_source
from counterplay.logs.sources.parquet import parquet_files, parquet_paths
from counterplay.logs.sources.source import BROKEN_GZIP, Source, unreadable
from counterplay.logs.sources.text import csv_source, jsonl_source

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


def open_source(connection: duckdb.DuckDBPyConnection, source: Any) -> Source:
    """Open a path, a folder or pattern of Parquet files, or a frame (polars, pandas, Arrow).

    Errors: `FileError`, `ColumnError`, `InputError`.
    """
    if not isinstance(source, (str, os.PathLike)):
        return frame_source(connection, source)
    path = Path(source)
    if path.is_dir() or (not path.exists() and glob.has_magic(str(path))):
        return parquet_files(connection, path.name, parquet_paths(path))
    existing(path)
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
    opener = {"csv": csv_source, "jsonl": jsonl_source, "arrow": arrow_source}[kind]
    try:
        if kind != "arrow":
            refuse_utf16(path)
        if kind == "jsonl":
            refuse_marked(path)
        return opener(connection, path, sha256)
    except (duckdb.Error, *BROKEN_GZIP) as error:
        raise unreadable(path, error) from error
