"""Writing one Parquet file out of a workspace: whole or not at all, and never over what is still needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import duckdb

from counterplay.errors import FileError
from counterplay.logs.attachments import attached_files
from counterplay.logs.sources.source import literal
from counterplay.logs.troubles import first_line


def check_target(connection: duckdb.DuckDBPyConnection, target: Path, workspace: Path, overwrite: bool) -> None:
    """Refuse with `FileError` what cannot become a Parquet file, or must not be replaced."""
    if target.suffix.lower() not in (".parquet", ".pq"):
        raise FileError(f"An export is a Parquet file; {target.name} says something else. Name it *.parquet.")
    if target.is_dir() or not target.parent.is_dir():
        what = f"{target} is a folder" if target.is_dir() else f"The folder {target.parent} does not exist"
        raise FileError(f"{what}. Name a file in a folder that exists.")
    if not target.exists():
        return
    if not overwrite:
        raise FileError(f"{target} exists. Choose another name, or overwrite it (overwrite=True, --overwrite).")
    logs = connection.execute("SELECT log FROM attachments").fetchall()
    attached = [Path(file.path) for (log,) in logs for file in attached_files(connection, log)]
    for place in (workspace, *attached):
        if place.exists() and place.samefile(target):
            raise FileError(f"{target} is part of the workspace, so it cannot be overwritten. Choose another name.")


def write_parquet(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    target: Path,
    *,
    overwrite: bool,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """The rows of a query in a file, written beside its place and moved there whole; how many.

    ``metadata``: words for the file's own metadata. Errors: `FileError` when it cannot be written; nothing is left
    behind then.
    """
    options = "FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false"
    if metadata:
        options += f", KV_METADATA {{{', '.join(f'{name}: {literal(word)}' for name, word in metadata.items())}}}"
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        (rows,) = connection.execute(f"COPY ({query}) TO {literal(str(draft))} ({options})").fetchall()[0]
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        _move(draft, target, overwrite)
    except (OSError, duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise FileError(
            f"{target} was not written: {first_line(error)}. Nothing is left of it; free space, or choose another "
            "folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return int(rows)


def _move(draft: Path, target: Path, overwrite: bool) -> None:
    """Give the finished file its name; a file that came there meanwhile is kept unless it may be replaced."""
    if overwrite:
        draft.replace(target)
        return
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise
        draft.rename(target)
