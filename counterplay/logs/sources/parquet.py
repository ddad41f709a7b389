"""Parquet files as a source of rows: one, or many as one table; only their descriptions are read here."""

from __future__ import annotations

import glob
import hashlib
import re
from pathlib import Path

import duckdb

from counterplay.errors import FileError
from counterplay.logs.sources.files import file_hash, one_file
from counterplay.logs.sources.source import Source, literal, quote, reading_errors


def parquet_paths(place: Path) -> list[Path]:
    """The Parquet files of a folder, of a pattern, or the one file, in the natural order of their names.

    Errors: `FileError` when there is none.
    """
    if place.is_file():
        return [place]
    found = place.rglob("*.parquet") if place.is_dir() else map(Path, glob.glob(str(place), recursive=True))
    paths = sorted(found, key=_natural)
    if not paths:
        raise FileError(f"There are no Parquet files at {place}. Check the path; other kinds are imported one by one.")
    return paths


def parquet_files(connection: duckdb.DuckDBPyConnection, name: str, paths: list[Path]) -> Source:
    """Parquet files one after the other as one table. Errors: `FileError` for one that cannot be read."""
    hashes = [file_hash(path) for path in paths]
    whole = hashes[0] if len(paths) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    with reading_errors(name):
        return parquet_scan(connection, name, whole, paths)


def parquet_scan(connection: duckdb.DuckDBPyConnection, name: str, sha256: str, paths: list[Path]) -> Source:
    """A source over Parquet files, of which only the descriptions are read here."""
    starts, rows = [], 0
    for path in paths:
        starts.append(f"WHEN {literal(str(path))} THEN {rows}")
        counted = connection.execute("SELECT num_rows FROM parquet_file_metadata(?)", [glob.escape(str(path))])
        rows += counted.fetchall()[0][0]
    options = "file_row_number = true, union_by_name = true, filename = 'counterplay_file'"
    scan = f"read_parquet([{', '.join(map(one_file, paths))}], {options})"
    start = f"CASE counterplay_file {' '.join(starts)} END" if len(paths) > 1 else "0"
    described = connection.execute(f"DESCRIBE SELECT * EXCLUDE (file_row_number, counterplay_file) FROM {scan}")
    columns = described.fetchall()
    # Columns get names of our own, so that ours (`ordinal`) cannot meet one of the user's.
    renamed = [f"{quote(row[0])} AS c{i}" for i, row in enumerate(columns)]
    return Source(
        name=name,
        sha256=sha256,
        scan=f"(SELECT {', '.join(renamed)}, file_row_number + 1 + {start} AS ordinal FROM {scan})",
        columns={row[0]: (f"c{i}", row[1]) for i, row in enumerate(columns)},
        twice=True,
    )


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """part-2 before part-10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
