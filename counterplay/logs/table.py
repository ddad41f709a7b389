"""Importing a table of logged decisions: stage, check, insert; one transaction, and no row is lost silently.

rows read = rows kept + rows quarantined + rows known, always; an import that cannot say so fails and leaves no trace.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import duckdb

from counterplay.errors import ColumnError, CounterplayError, FileError, InputError
from counterplay.logs import checks, indices, known, quarantine
from counterplay.logs.action_table import ActionTable, add_actions, read_action_table
from counterplay.logs.columns import Column, Mapped, resolve
from counterplay.logs.indices import labels_of
from counterplay.logs.progress import Progress, watched
from counterplay.logs.reading import Place
from counterplay.logs.relations import STEPS, contexts_of
from counterplay.logs.sources import Source, clear, literal, open_source, reading_errors, rejected
from counterplay.logs.typed import incoming_query, labels_are_integers
from counterplay.logs.workspace import borrowed

_TEMPORARY = ("rejected", "known", "replaced", "met", "allowed", "counterplay_entries")
# What goes from a row to its decision as it is.
_PLAIN = (
    "decision_id",
    "context_id",
    "propensity",
    "reward",
    "cost",
    "cluster",
    "timestamp",
    "candidate_propensities",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did. `rows_read` = `rows_kept` + `rows_quarantined` + `rows_known`.

    `mapping`: our word to the file's column; `ignored`: columns that are none of our words; `reasons`: quarantined rows
    by the first thing that was wrong with them. `rows_replaced`: those of the kept rows that took the place of a known
    one with the same id.
    """

    log: str
    source: str
    sha256: str
    regime: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    rows_known: int
    reasons: dict[str, int]
    mapping: dict[str, str]
    ignored: tuple[str, ...]
    rows_replaced: int = 0


def import_decisions(
    source: Any,
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
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
    Bad rows go to the quarantine, with line and reason.

    Rows that the log has already add nothing. A known id with other values is quarantined, or with `overwrite` takes
    the place of the old row. Rows without ids are known by their place in a file that begins with the same rows;
    `as_new` says that a file of a known name holds new decisions. `progress(done, total, what)` is called now and then.

    Errors: `FileError`, `ColumnError`, `InputError`; after any error the workspace is as it was.
    """
    return import_source(
        lambda connection: open_source(connection, source),
        workspace,
        log,
        columns=columns,
        regime=regime,
        actions=actions,
        description=description,
        overwrite=overwrite,
        as_new=as_new,
        progress=progress,
    )


def import_source(
    opener: Callable[[duckdb.DuckDBPyConnection], Source],
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
    description: str | None = None,
    overwrite: bool = False,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """What `import_decisions` does, for whatever an `opener` makes a `Source` of."""
    if not log:
        raise InputError("A log needs a name.")
    with borrowed(workspace, read_only=False) as opened:
        try:
            with opened.transaction() as connection, watched(connection, progress) as stage:
                stage("reading")
                table = None if actions is None else read_action_table(connection, actions)
                source = opener(connection)
                mapping = resolve(source.types, columns, required=("action", "reward"))
                found = _regime(connection, log, regime, "propensity" in mapping)
                with reading_errors(source.name):
                    rows = _stage(connection, source, mapping)
                    stage("checking")
                    _judge(connection, log, mapping, table)
                    place = known.find_known(
                        connection,
                        log,
                        source,
                        mapping=mapping,
                        integers=labels_are_integers(source, mapping),
                        overwrite=overwrite,
                        as_new=as_new,
                    )
                    stage("writing")
                    _open_log(connection, log, found, description)
                    if table is not None:
                        add_actions(connection, log, table)
                    kept = _insert(connection, log, mapping, labels_are_integers(source, mapping), place)
                    broken, reasons = quarantine.store(connection, log, source)
                report = _report(connection, log, source, found, mapping, (rows + broken, kept), reasons)
                _sign(connection, report, place)
                return report
        finally:
            _tidy(opened.connection)


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
    if rows == 0 and not rejected(connection):
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


def _insert(
    connection: duckdb.DuckDBPyConnection, log: str, mapping: Mapping[str, Column], integers: bool, place: known.Place
) -> int:
    """Add the sound rows that the log does not have yet; their number."""
    fresh = checks.sound(connection)
    if connection.execute("SELECT 1 FROM known LIMIT 1").fetchall():
        fresh = f"(SELECT * FROM {fresh} ANTI JOIN known USING (ordinal))"
    _add_labels(connection, log, fresh, "candidates" in mapping)
    _add_contexts(connection, log, fresh, bool({"text", "features"} & set(mapping)))
    position = place.position("ordinal")
    if connection.execute("SELECT 1 FROM replaced LIMIT 1").fetchall():
        for name in ("decisions", "steps"):
            connection.execute(
                f"DELETE FROM {name} WHERE log = ? AND position IN (SELECT position FROM replaced)", [log]
            )
        fresh = f"(SELECT rows.*, position FROM {fresh} rows LEFT JOIN replaced USING (ordinal))"
        position = f"coalesce(position, {position})"
    labels = labels_of(connection, log, integers)
    values = {word: word for word in _PLAIN if word in mapping or word == "context_id"}
    values |= {"log": literal(log), "position": position, "action": labels.index("action")}
    if "candidates" in mapping:
        values["candidates"] = labels.indices("candidates")
    # Positions give the order only: gaps cost nothing, numbering without them would cost a sort.
    (kept,) = connection.execute(
        f"INSERT INTO decisions ({', '.join(values)}) SELECT {', '.join(values.values())} FROM {fresh}"
    ).fetchall()[0]
    steps = [word for word in STEPS if word in mapping]
    if steps:
        connection.execute(
            f"""INSERT INTO steps (log, position, {", ".join(steps)})
                SELECT {literal(log)}, {position}, {", ".join(steps)} FROM {fresh}"""
        )
    return int(kept)


def _add_contexts(connection: duckdb.DuckDBPyConnection, log: str, fresh: str, content: bool) -> None:
    """Append contexts that are new, in the order of their first rows, if the log's contexts carry anything."""
    ((stored,),) = connection.execute("SELECT stores_contexts FROM logs WHERE log = ?", [log]).fetchall()
    if not stored and not content:
        return
    if not stored:
        # The first content makes contexts of all the ids that stand in the decisions so far.
        connection.execute(f"INSERT INTO contexts SELECT * FROM {contexts_of(connection, log)}")
        connection.execute("UPDATE logs SET stores_contexts = true WHERE log = ?", [log])
    connection.execute(
        f"""INSERT INTO contexts (log, context_id, position, text, features)
            SELECT $log, context_id, (SELECT coalesce(max(position), -1) FROM contexts WHERE log = $log)
                + row_number() OVER (ORDER BY first), text, features
            FROM (SELECT context_id, min(ordinal) AS first, arg_min(text, ordinal) AS text,
                         arg_min(features, ordinal) AS features
                  FROM {fresh} WHERE context_id NOT IN (SELECT context_id FROM contexts WHERE log = $log)
                  GROUP BY context_id)""",
        {"log": log},
    )


def _add_labels(connection: duckdb.DuckDBPyConnection, log: str, fresh: str, candidates: bool) -> None:
    """Append labels that are new, sorted (whole numbers by size). A chosen action stands among its candidates."""
    column = "unnest(candidates)" if candidates else "action"
    connection.execute(
        f"""INSERT INTO actions (log, action, label)
            SELECT $log, (SELECT coalesce(max(action), -1) FROM actions WHERE log = $log)
                + row_number() OVER (ORDER BY TRY_CAST(label AS HUGEINT) NULLS LAST, label), label
            FROM (SELECT CAST(value AS VARCHAR) AS label FROM (SELECT DISTINCT {column} AS value FROM {fresh}))
            WHERE label NOT IN (SELECT label FROM actions WHERE log = $log)""",
        {"log": log},
    )


def _report(
    connection: duckdb.DuckDBPyConnection,
    log: str,
    source: Source,
    regime: str,
    mapping: Mapping[str, Column],
    counts: tuple[int, int],
    reasons: dict[str, int],
) -> ImportReport:
    read, kept = counts
    met, replaced = (
        connection.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in ("known", "replaced")
    )
    report = ImportReport(
        log=log,
        source=source.name,
        sha256=source.sha256,
        regime=regime,
        rows_read=read,
        rows_kept=kept,
        rows_quarantined=sum(reasons.values()),
        rows_known=met,
        rows_replaced=replaced,
        reasons=reasons,
        mapping={word: str(column) for word, column in mapping.items()},
        ignored=tuple(name for name in source.columns if not any(name in column.names for column in mapping.values())),
    )
    if report.rows_read != report.rows_kept + report.rows_quarantined + report.rows_known:
        raise CounterplayError(
            f"The rows of {source.name} do not add up, so nothing was imported; please report this: {report}"
        )
    return report


def _sign(connection: duckdb.DuckDBPyConnection, report: ImportReport, place: known.Place) -> None:
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, now(), ?, ?, ?)",
        [
            report.log,
            report.source,
            report.sha256,
            json.dumps(report.mapping),
            report.rows_read,
            report.rows_kept,
            report.rows_known,
            report.rows_quarantined,
            place.stream,
            place.first_row,
            place.first_position,
        ],
    )


def _tidy(connection: duckdb.DuckDBPyConnection) -> None:
    # In a transaction of the caller's that has failed nothing can be dropped, and its rollback will do it.
    with contextlib.suppress(duckdb.TransactionException):
        for name in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
        (view,) = connection.execute("SELECT count(*) FROM duckdb_views() WHERE view_name = 'incoming'").fetchall()[0]
        connection.execute(f"DROP {'VIEW' if view else 'TABLE'} IF EXISTS temp.incoming")
        indices.clear(connection)
        clear(connection)
