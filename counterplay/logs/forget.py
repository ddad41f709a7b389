"""Forgetting contexts: what was known of them is erased from the file, what was decided and earned stays.

A database keeps deleted bytes in free blocks, so the workspace is written anew beside its place, without them, checked,
and moved there whole. A process that dies on the way leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb

from counterplay.errors import ColumnError, FileError, InputError, WorkspaceBusyError, WorkspaceError, nearest
from counterplay.logs import traces
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.progress import Progress, watched
from counterplay.logs.reading import require_log
from counterplay.logs.relations import contexts_of
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import literal, quote
from counterplay.logs.troubles import first_line
from counterplay.logs.workspace import Workspace, open_workspace

_NEW = "counterplay_new"
_GONE, _OUTPUTS, _ROWS = "counterplay_gone", "counterplay_gone_outputs", "counterplay_gone_rows"
_TABLES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForgetReport:
    """What was forgotten.

    `contexts`: how many of the ids the log has; `texts` and `features`: how many of them had some, which are erased now
    (features are zeros); `quarantined`: rejected rows that keep line and kind of fault only; `outputs` and `vectors`:
    how many were removed from the caches; `unknown`: ids that the log does not have; `elsewhere`: where the texts are
    quoted still.
    """

    log: str
    contexts: int
    texts: int
    features: int
    quarantined: int
    outputs: int
    vectors: int
    unknown: tuple[str, ...]
    elsewhere: tuple[str, ...]


def forget_contexts(
    workspace: str | os.PathLike[str],
    log: str,
    context_ids: Iterable[str],
    *,
    keep_features: bool = False,
    wait: float = 30.0,
    progress: Progress | None = None,
) -> ForgetReport:
    """Erase what the workspace at a path knows of some contexts of a log; their decisions and rewards stay.

    Texts become NULL. Features become zeros, since an embedding can give its text away; `keep_features` leaves them as
    they are. Rejected rows of these contexts keep their line and the kind of fault. Cached outputs that quote a text
    are removed, and all cached vectors, of which nobody can say what text they are of. Files that are attached are left
    alone, and named. `wait`: seconds to wait for another process that holds the file, which must not be open in this
    one either. `progress(done, total, what)` is called now and then.

    Errors: `InputError` for an unknown log, or no ids; `WorkspaceBusyError`; `FileError` when there is no workspace, or
    no room for a second one beside it. The workspace is then as it was.
    """
    ids = list(dict.fromkeys(context_ids))
    if not ids:
        raise InputError("No contexts to forget were named. Give at least one context id.")
    place = Path(workspace).resolve()
    if not place.is_file():
        raise FileError(f"There is no workspace at {place}. Check the path.")
    with open_workspace(place, wait=wait) as opened:
        _require_alone(opened)
        require_log(opened.connection, log)
        with watched(opened.connection, progress) as stage:
            stage("looking for texts")
            report = _mark(opened.connection, log, ids, keep_features)
            stage("writing the file anew")
            _rewrite(opened, report, keep_features)
    return report


def read_context_ids(path: str | os.PathLike[str]) -> list[str]:
    """The ids in a text file, one a line, or in the column `context_id` of a CSV, Parquet or JSONL file."""
    file = Path(path)
    if not any(suffix.lower() in _TABLES for suffix in file.suffixes):
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{file} cannot be read as a list of ids ({error}). Write one a line, as UTF-8.") from error
        return [line.strip() for line in lines if line.strip()]
    with contextlib.closing(duckdb.connect()) as connection:
        source = open_source(connection, file)
        found = next((name for name in source.columns if name.lower() == "context_id"), None)
        if found is None:
            raise ColumnError(f"{file} has no column 'context_id'. {nearest('context_id', source.columns)} Rename it.")
        value = label_text(*source.columns[found])
        rows = connection.execute(f"SELECT {value} FROM {source.scan} ORDER BY ordinal").fetchall()
    return [name for (name,) in rows if name]


def _require_alone(workspace: Workspace) -> None:
    """Who else has the file open in this process would go on writing into the old one, which is thrown away."""
    (connections,) = workspace.connection.execute("SELECT count FROM duckdb_connection_count()").fetchall()[0]
    if connections > 1:
        raise WorkspaceBusyError(
            f"{workspace.path} is open in this process ({os.getpid()}) already. Close it first: forgetting writes the "
            "file anew."
        )


def _mark(connection: duckdb.DuckDBPyConnection, log: str, ids: Sequence[str], keep_features: bool) -> ForgetReport:
    """Name in temporary tables what is to go."""
    texts = traces.texts_of(connection, log, ids)
    rows, met = traces.rejected_with(connection, log, ids, texts)
    outputs = traces.outputs_with(connection, texts)
    for name, values in ((_GONE, list(ids)), (_OUTPUTS, outputs), (_ROWS, rows)):
        kind = "BIGINT" if name == _ROWS else "VARCHAR"
        connection.execute(f"CREATE TEMP TABLE {name} AS SELECT unnest(CAST(? AS {kind}[])) AS value", [values])
    named = f"context_id IN (SELECT value FROM {_GONE})"
    held = connection.execute(f"SELECT context_id FROM {contexts_of(connection, log)} WHERE {named}").fetchall()
    known = {name for (name,) in held}
    erased = connection.execute(
        f"""SELECT count(text), count(*) FILTER (len(list_filter(features, lambda one: one <> 0)) > 0)
            FROM contexts WHERE log = {literal(log)} AND {named}"""
    ).fetchall()[0]
    (vectors,) = connection.execute("SELECT count(*) FROM vectors").fetchall()[0]
    return ForgetReport(
        log=log,
        contexts=len(known),
        texts=erased[0],
        features=0 if keep_features else erased[1],
        quarantined=len(rows),
        outputs=len(outputs),
        vectors=vectors if texts else 0,
        unknown=tuple(name for name in ids if name not in known | met),
        elsewhere=tuple(traces.elsewhere(connection, log, ids, texts)),
    )


def _rewrite(workspace: Workspace, report: ForgetReport, keep_features: bool) -> None:
    """Write the file anew, without what is marked, and put it into the place of the old one."""
    place, connection = workspace.path, workspace.connection
    # One name for all: who holds the writer's lock may throw away what a process that died has left.
    draft = place.with_name(f".{place.name}.forget")
    _remove(draft)
    try:
        _copy(connection, draft, report, keep_features)
        open_workspace(draft, read_only=True).close()
        shutil.copymode(place, draft)
        _sync(draft)
        if _log_of(place).exists() and _log_of(place).stat().st_size:
            raise WorkspaceError(f"{place} was written to at the same time; nothing was changed. Run it again.")
        # The old file lives on until it is closed, and must not touch what stands in its place by then.
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        draft.replace(place)
        _sync(place.parent)
    except (OSError, duckdb.IOException) as error:
        raise FileError(
            f"{place} could not be written anew beside its place: {first_line(error)}. It is as it was; free "
            "as much space as it takes, and run it again."
        ) from error
    finally:
        _remove(draft)


def _copy(connection: duckdb.DuckDBPyConnection, draft: Path, report: ForgetReport, keep_features: bool) -> None:
    (here,) = connection.execute("SELECT current_database()").fetchall()[0]
    connection.execute("CHECKPOINT")
    connection.execute(f"ATTACH {literal(str(draft))} AS {_NEW}")
    try:
        connection.execute(f"COPY FROM DATABASE {quote(here)} TO {_NEW} (SCHEMA)")
        tables = connection.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND NOT temporary", [here]
        ).fetchall()
        for schema, table in tables:
            name = f"{quote(schema)}.{quote(table)}"
            kept, gone = _selection(f"{quote(here)}.{name}", table if schema == "main" else "", report, keep_features)
            (copied,) = connection.execute(f"INSERT INTO {_NEW}.{name} {kept}").fetchall()[0]
            (held,) = connection.execute(f"SELECT count(*) FROM {quote(here)}.{name}").fetchall()[0]
            if copied != held - gone:
                raise WorkspaceError(
                    f"Of the {held - gone} rows of '{table}' {copied} were copied; nothing was changed. Please report "
                    "this."
                )
    finally:
        connection.execute(f"DETACH {_NEW}")


def _selection(source: str, table: str, report: ForgetReport, keep_features: bool) -> tuple[str, int]:
    """What of a table goes into the new file, and how many of its rows do not."""
    if table == "vectors" and report.vectors:
        return f"SELECT * FROM {source} LIMIT 0", report.vectors
    if table == "outputs":
        return f"SELECT * FROM {source} WHERE key NOT IN (SELECT value FROM {_OUTPUTS})", report.outputs
    if table == "quarantine":
        # What stands before the first colon is the same for all rows with that fault, and quotes nothing.
        kind = "split_part(split_part(reason, '; ', 1), ':', 1)"
        gone = f"rowid IN (SELECT value FROM {_ROWS})"
        return (
            f"""SELECT * REPLACE (CASE WHEN {gone} THEN {kind} ELSE reason END AS reason,
                CASE WHEN {gone} THEN '{{}}' ELSE row END AS row) FROM {source}""",
            0,
        )
    if table == "contexts":
        gone = f"log = {literal(report.log)} AND context_id IN (SELECT value FROM {_GONE})"
        changed = f"CASE WHEN {gone} THEN NULL ELSE text END AS text"
        if not keep_features:
            zeros = "list_transform(features, lambda one: CAST(0 AS FLOAT))"
            changed += f", CASE WHEN {gone} THEN {zeros} ELSE features END AS features"
        return f"SELECT * REPLACE ({changed}) FROM {source}", 0
    return f"SELECT * FROM {source}", 0


def _remove(draft: Path) -> None:
    for path in (draft, _log_of(draft)):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
