"""Importing a table of logged decisions: stage, check, insert; one transaction, and no row is lost silently.

rows read = rows kept + rows quarantined + rows known, always; an import that cannot say so fails and leaves no trace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.logs.attachments import AttachedFile, attached_files, describe
from counterplay.logs.decisions import checks, indices, known, quarantine
from counterplay.logs.decisions.action_table import ActionTable, add_actions, read_action_table
from counterplay.logs.decisions.candidate_table import CANDIDATES, read_candidate_table, with_candidates
from counterplay.logs.decisions.columns import Column, Mapped, resolve
from counterplay.logs.decisions.insert import attach_rows, insert_rows
from counterplay.logs.decisions.report import ImportReport, enter_source, require_balance
from counterplay.logs.decisions.typed import incoming_query, labels_are_integers
from counterplay.logs.progress import Progress, watched
from counterplay.logs.reading import Place
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.parquet import parquet_files, parquet_paths
from counterplay.logs.sources.source import Source, reading_errors
from counterplay.logs.sources.text import clear, rejected
from counterplay.logs.workspace import borrowed

_TEMPORARY = (CANDIDATES, "rejected", "known", "replaced", "met", "allowed", "counterplay_entries")


def import_decisions(
    source: Any,
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
    candidates: Any = None,
    description: str | None = None,
    overwrite: bool = False,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring logged decisions into a log, which is made when there is none of that name.

    `workspace`: an open one, or a path. `source`: a path (.parquet, .csv, .tsv, .jsonl, .arrow, or .gz of the texts), a
    folder or pattern of Parquet files, or a polars, pandas or Arrow frame. `columns`: our word to the file's column,
    see `columns.resolve`. `regime`: 'propensity' or 'observed'; by default the first when there is a column of
    propensities. `actions`: the action table (list of labels, path or frame); with it, other actions are quarantined.
    `candidates`: a table (path or frame) with a row for each allowed action of a decision, if they are not lists in the
    rows, see `read_candidate_table`. Bad rows go to the quarantine, with line and reason.

    Rows that the log has already add nothing. A known id with other values is quarantined, or with `overwrite` takes
    the place of the old row. Rows without ids are known by their place in a file that begins with the same rows;
    `as_new` says that such a file holds new decisions only, whatever was imported before.
    `progress(done, total, what)` is called now and then.

    Errors: `FileError`, `ColumnError`, `InputError`; after any error the workspace is as it was.
    """
    return import_source(
        lambda connection: open_source(connection, source),
        workspace,
        log,
        columns=columns,
        regime=regime,
        actions=actions,
        candidates=candidates,
        description=description,
        overwrite=overwrite,
        as_new=as_new,
        progress=progress,
    )


def attach_decisions(
    source: str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
    description: str | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Make a log of Parquet files that stay where they are: they are checked now, and read whenever the log is.

    `source`: a Parquet file, a folder or a pattern of them. Everything else is as in `import_decisions`. Unsound rows
    go to the quarantine and are left out. Attaching a log again checks its files again, which is needed when one has
    changed; labels keep their indices. A copy in the workspace is faster to read, and does not break when files move.
    Errors: `FileError`, `ColumnError`, `InputError` (also when the log has decisions of its own).
    """
    paths = parquet_paths(Path(source))
    return import_source(
        lambda connection: parquet_files(connection, Path(source).name, paths),
        workspace,
        log,
        columns=columns,
        regime=regime,
        actions=actions,
        description=description,
        progress=progress,
        files=describe(paths),
    )


def import_source(
    opener: Callable[[duckdb.DuckDBPyConnection], Source],
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
    candidates: Any = None,
    description: str | None = None,
    overwrite: bool = False,
    as_new: bool = False,
    progress: Progress | None = None,
    files: list[AttachedFile] | None = None,
) -> ImportReport:
    """What `import_decisions` does, for whatever an `opener` makes a `Source` of.

    `files`: where the source lies; its rows then stay there, and the log is made anew from them.
    """
    if not log:
        raise InputError("A log needs a name.")
    with borrowed(workspace, read_only=False) as opened:
        try:
            with opened.transaction() as connection, watched(connection, progress) as stage:
                stage("reading")
                table = None if actions is None else read_action_table(connection, actions)
                listed = None if candidates is None else read_candidate_table(connection, candidates)
                source = opener(connection)
                if listed is not None:
                    source, columns = with_candidates(source, columns, *listed)
                mapping = resolve(source.types, columns, required=("action", "reward"))
                found = _regime(connection, log, regime, "propensity" in mapping)
                _refuse_mixture(connection, log, files is not None)
                task = _Task(
                    log=log,
                    source=source,
                    mapping=mapping,
                    regime=found,
                    table=table,
                    description=description,
                    overwrite=overwrite,
                    as_new=as_new,
                    files=files,
                )
                with reading_errors(source.name):
                    return _same_again(connection, task) or _import(connection, task, stage)
        finally:
            _tidy(opened.connection)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    """What is to be brought into which log, and how."""

    log: str
    source: Source
    mapping: Mapping[str, Column]
    regime: str
    table: ActionTable | None
    description: str | None
    overwrite: bool
    as_new: bool
    files: list[AttachedFile] | None


def _same_again(connection: duckdb.DuckDBPyConnection, task: _Task) -> ImportReport | None:
    """The report on a file without ids that was imported as it is and whole: nothing of it needs to be read again."""
    # Other actions or candidates may have been given then.
    beside = task.table is not None or "candidates" in task.mapping
    if beside or task.as_new or task.files is not None or "decision_id" in task.mapping:
        return None
    found = known.same_file(connection, task.log, task.source.sha256, _described(task.mapping))
    if found is None:
        return None
    rows, stream = found
    report = _report(task, {"rows_read": rows, "rows_kept": 0, "rows_known": rows, "rows_replaced": 0}, {})
    _sign(connection, report, known.Place(stream=stream, segments=(), first_row=rows + 1, first_position=0))
    return report


def _import(connection: duckdb.DuckDBPyConnection, task: _Task, stage: Callable[[str], None]) -> ImportReport:
    log, mapping, integers = task.log, task.mapping, labels_are_integers(task.source, task.mapping)
    rows = _stage(connection, task.source, mapping)
    stage("checking")
    _judge(connection, log, mapping, task.table)
    place = known.find_known(
        connection,
        log,
        task.source,
        mapping=mapping,
        integers=integers,
        overwrite=task.overwrite,
        as_new=task.as_new,
    )
    stage("writing")
    _open_log(connection, log, task.regime, task.description)
    if task.table is not None:
        add_actions(connection, log, task.table)
    if task.files is None:
        kept = insert_rows(connection, log, mapping, integers, place)
    else:
        kept = attach_rows(connection, log, mapping, task.files)
    broken, reasons = quarantine.store(connection, log, task.source)
    counts = {"rows_read": rows + broken, "rows_kept": kept}
    for name in ("known", "replaced"):
        counts[f"rows_{name}"] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0]
    report = _report(task, counts, reasons)
    _sign(connection, report, place)
    return report


def _open_log(connection: duckdb.DuckDBPyConnection, log: str, regime: str, description: str | None) -> None:
    if not connection.execute("SELECT 1 FROM logs WHERE log = ?", [log]).fetchall():
        connection.execute("INSERT INTO logs VALUES (?, ?, NULL, ?, now(), false)", [log, regime, description])


def _regime(connection: duckdb.DuckDBPyConnection, log: str, regime: str | None, has_propensity: bool) -> str:
    if regime not in (None, "propensity", "observed"):
        raise InputError(
            f"A table of decisions cannot have the regime '{regime}'. Pass 'propensity' or 'observed', or leave it out."
        )
    found = connection.execute("SELECT regime FROM logs WHERE log = ?", [log]).fetchall()
    has = regime or (found[0][0] if found and not has_propensity else "propensity" if has_propensity else "observed")
    if has == "propensity" and not has_propensity:
        raise ColumnError(
            "No column is the propensity, which the regime 'propensity' needs. Say which with "
            "columns={'propensity': '...'}, or import under another name as regime='observed'."
        )
    if found and found[0][0] != has:
        raise InputError(
            f"Log '{log}' has the regime '{found[0][0]}', this table would be '{has}'. Import it under another name, "
            f"or pass regime='{found[0][0]}'."
        )
    return has


def _stage(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping[str, Column]) -> int:
    """Make the relation `incoming` of the source's rows as our words; their number.

    What can be scanned again at no cost is a view: its rows are then written once, into their own table.
    """
    kind = "VIEW" if source.twice else "TABLE"
    connection.execute(f"CREATE TEMP {kind} incoming AS {incoming_query(source, mapping)}")
    (rows,) = connection.execute("SELECT count(*) FROM incoming").fetchall()[0]
    broken = len(rejected(connection))
    source.check_count(rows + broken)
    if rows == 0 and not broken:
        raise FileError(f"{source.name} has no rows. Export it again, or leave it out.")
    return int(rows)


def _judge(
    connection: duckdb.DuckDBPyConnection, log: str, mapping: Mapping[str, Column], table: ActionTable | None
) -> None:
    """Fill `rejected`."""
    checks.reject_unsound(connection)
    checks.reject_widths(connection, log, "features" in mapping)
    if table is not None:
        checks.reject_unknown_actions(connection, log, table.labels, mapping)
    if "context_id" in mapping:
        checks.reject_contradictions(connection, log, [word for word in ("text", "features") if word in mapping])
    if "decision_id" in mapping:
        checks.reject_duplicates(connection)


def _refuse_mixture(connection: duckdb.DuckDBPyConnection, log: str, attaching: bool) -> None:
    """The decisions of a log are in the workspace or in files, not in both."""
    exists = bool(connection.execute("SELECT 1 FROM logs WHERE log = ?", [log]).fetchall())
    if exists and bool(attached_files(connection, log)) != attaching:
        raise InputError(
            f"Log '{log}' {'has its decisions in the workspace' if attaching else 'is attached to files'}. "
            f"{'Attach' if attaching else 'Import'} under another name."
        )


def _report(task: _Task, counts: Mapping[str, int], reasons: dict[str, int]) -> ImportReport:
    used = {name for column in task.mapping.values() for name in column.names}
    report = ImportReport(
        log=task.log,
        source=task.source.name,
        sha256=task.source.sha256,
        regime=task.regime,
        rows_quarantined=sum(reasons.values()),
        reasons=reasons,
        mapping=_described(task.mapping),
        ignored=tuple(name for name in task.source.columns if name not in used),
        **counts,
    )
    require_balance(report)
    return report


def _described(mapping: Mapping[str, Column]) -> dict[str, str]:
    return {word: str(column) for word, column in mapping.items()}


def _sign(connection: duckdb.DuckDBPyConnection, report: ImportReport, place: known.Place) -> None:
    enter_source(connection, report, report.mapping, place.stream, place.first_row, place.first_position)


def _tidy(connection: duckdb.DuckDBPyConnection) -> None:
    # In a transaction of the caller's that has failed nothing can be dropped, and its rollback will do it.
    with contextlib.suppress(duckdb.TransactionException):
        for name in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
        (view,) = connection.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'incoming'").fetchall()[0]
        connection.execute(f"DROP {'VIEW' if view else 'TABLE'} IF EXISTS temp.incoming")
        indices.clear(connection)
        clear(connection)
