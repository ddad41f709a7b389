"""Taking a table out of a workspace: one Parquet file that can be read, and brought in again, without the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb

from counterplay.errors import InputError, nearest
from counterplay.logs import schema
from counterplay.logs.parquet import check_target, write_parquet
from counterplay.logs.progress import Progress, watched
from counterplay.logs.reading import Place, require_log
from counterplay.logs.relations import contexts_of, decisions_of
from counterplay.logs.sources.source import literal
from counterplay.logs.workspace import borrowed

# An import refuses a row that has nothing in one of these columns, so a column of nothing is left out of the file.
_EMPTY_IS_ABSENT = {
    "decisions": ("decision_id", "propensity", "candidates", "text", "features"),
    "actions": ("text", "features"),
}
_ORDER = {
    "logs": "log",
    "sources": "log, imported_at",
    "attachments": "log",
    "contexts": "log, position",
    "actions": "log, action",
    "decisions": "log, position",
    "steps": "log, position",
    "outcomes": "log, place, action_index",
    "choices": "log, policy, place, rank",
    "quarantine": "log, source, line, reason",
    "outputs": "key",
    "vectors": "key",
    "runs": "run",
    "curves": "run, quantity, round",
    "estimates": "experiment, log, policy, estimator",
    "experiments": "finished_at, experiment",
}
_PLACE = "place"  # where a context stands in its log: outcomes and choices are put into that order


def export_table(
    workspace: Place,
    table: str,
    path: str | os.PathLike[str],
    *,
    log: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write a table of a workspace to one Parquet file; the number of its rows.

    `workspace`: an open one, or a path. `log`: the rows of one log only; by default those of all. `overwrite`: replace
    a file that is there; by default it is an error. Rows come in the order of their positions. In `decisions`,
    `outcomes` and `choices` the column `action` is the label and `action_index` the index, `candidates` are labels, and
    a decision has the text and features of its context: the words of an import. The file is written beside its place
    and moved there whole. `progress(done, total, what)` is called now and then.

    Errors: `InputError` for an unknown table or log, or a log asked of a table that belongs to none; `FileError` when
    the file is there, or cannot be written; nothing is left behind then.
    """
    target = Path(path)
    if table not in schema.TABLES:
        raise InputError(f"A workspace has no table '{table}'. {nearest(table, schema.TABLES)}")
    with borrowed(workspace) as opened:
        connection = opened.connection
        check_target(connection, target, opened.path, overwrite)
        query = _query(connection, table, _logs(connection, table, log))
        with watched(connection, progress) as stage:
            stage("writing")
            return write_parquet(connection, query, target, overwrite=overwrite)


def _logs(connection: duckdb.DuckDBPyConnection, table: str, log: str | None) -> list[str] | None:
    """The logs whose rows are asked for; None for a table that belongs to no log."""
    belongs = "log VARCHAR" in schema.TABLES[table]
    if log is None:
        rows = connection.execute("SELECT log FROM logs ORDER BY log").fetchall()
        return [name for (name,) in rows] if belongs else None
    require_log(connection, log)
    if not belongs:
        raise InputError(f"The table '{table}' belongs to no log. Leave the log out to export all of it.")
    return [log]


def _query(connection: duckdb.DuckDBPyConnection, table: str, logs: list[str] | None) -> str:
    named: dict[str, Callable[[duckdb.DuckDBPyConnection, str], str]] = {
        "decisions": _decisions,
        "contexts": lambda here, log: f"SELECT * FROM {contexts_of(here, log)}",
        "outcomes": lambda here, log: _labelled(here, "outcomes", log),
        "choices": lambda here, log: _labelled(here, "choices", log),
    }
    if table in named:
        # A workspace without logs still has the columns: those of a log that is not there.
        rows = " UNION ALL BY NAME ".join(named[table](connection, log) for log in logs or [""])
    else:
        chosen = f" WHERE log IN ({', '.join(literal(log) for log in logs)})" if logs else ""
        rows = f"SELECT * FROM {table}{chosen}"
    dropped = _empty(connection, rows, _EMPTY_IS_ABSENT.get(table, ()))
    dropped += [_PLACE] if table in ("outcomes", "choices") else []
    kept = f"* EXCLUDE ({', '.join(dropped)})" if dropped else "*"
    order = f" ORDER BY {_ORDER[table]}" if table in _ORDER else ""
    return f"SELECT {kept} FROM ({rows}){order}"


def _empty(connection: duckdb.DuckDBPyConnection, rows: str, columns: Sequence[str]) -> list[str]:
    """Those of the columns that hold nothing in any row."""
    if not columns:
        return []
    counts = connection.execute(f"SELECT {', '.join(f'count({name})' for name in columns)} FROM ({rows})").fetchall()[0]
    return [name for name, count in zip(columns, counts, strict=True) if count == 0]


def _decisions(connection: duckdb.DuckDBPyConnection, log: str) -> str:
    """The decisions of a log in the words of an import: labels, and what was known of the context."""
    contexts = contexts_of(connection, log)
    known = connection.execute(f"SELECT count(text) + count(features) FROM {contexts}").fetchall()[0][0]
    source = f"{decisions_of(connection, log)} d LEFT JOIN {_actions(log)} a ON a.number = d.action"
    held = "CAST(NULL AS VARCHAR) AS text, CAST(NULL AS FLOAT[]) AS features"
    if known:
        source += f" LEFT JOIN {contexts} c ON c.context_id = d.context_id"
        held = "c.text, c.features"
    labels = f"(SELECT list(label ORDER BY action) FROM actions WHERE log = {literal(log)})"
    candidates = f"list_select({labels}, list_transform(d.candidates, lambda one: one + 1))"
    return f"""SELECT d.* REPLACE (a.label AS action, {candidates} AS candidates), d.action AS action_index, {held}
        FROM {source}"""


def _labelled(connection: duckdb.DuckDBPyConnection, table: str, log: str) -> str:
    """The outcomes or choices of a log with labels, and the place of their contexts."""
    return f"""SELECT t.* REPLACE (a.label AS action), t.action AS action_index, c.position AS {_PLACE}
        FROM (SELECT * FROM {table} WHERE log = {literal(log)}) t
        LEFT JOIN {_actions(log)} a ON a.number = t.action
        LEFT JOIN {contexts_of(connection, log)} c ON c.context_id = t.context_id"""


def _actions(log: str) -> str:
    return f"(SELECT action AS number, label FROM actions WHERE log = {literal(log)})"
