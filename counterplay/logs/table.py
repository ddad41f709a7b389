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
from counterplay.logs import checks, quarantine
from counterplay.logs.action_table import ActionTable, read_action_table
from counterplay.logs.columns import Column, Mapped, resolve
from counterplay.logs.reading import Place
from counterplay.logs.sources import Source, clear, literal, open_source, rejected, unreadable
from counterplay.logs.typed import staging_query
from counterplay.logs.workspace import borrowed

_TEMPORARY = ("incoming", "rejected", "known", "allowed", "counterplay_entries")
# What goes from a row to its decision as it is.
_PLAIN = """decision_id, context_id, propensity, reward, cost, cluster, timestamp, episode, step, parent, depth, kind,
    candidate_propensities"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did. `rows_read` = `rows_kept` + `rows_quarantined` + `rows_known`.

    `mapping`: our word to the file's column; `ignored`: columns that are none of our words; `reasons`: quarantined rows
    by the first thing that was wrong with them.
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


def import_decisions(
    source: Any,
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    regime: str | None = None,
    actions: Any = None,
    description: str | None = None,
) -> ImportReport:
    """Bring logged decisions into a log, which is made when there is none of that name.

    `workspace`: an open one, or a path. `source`: a path (.parquet, .csv, .tsv, .jsonl, or .gz of the last three) or a
    polars, pandas or Arrow frame. `columns`: our word to the file's column, see `columns.resolve`. `regime`:
    'propensity' or 'observed'; by default the first when there is a column of propensities. `actions`: the action table
    (list of labels, path or frame); with it, other actions are quarantined. Bad rows go to the quarantine, with line
    and reason. Errors: `FileError`, `ColumnError`, `InputError`; after any error the workspace is as it was.
    """
    return import_source(
        lambda connection: open_source(connection, source),
        workspace,
        log,
        columns=columns,
        regime=regime,
        actions=actions,
        description=description,
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
) -> ImportReport:
    """What `import_decisions` does, for whatever an `opener` makes a `Source` of."""
    if not log:
        raise InputError("A log needs a name.")
    with borrowed(workspace, read_only=False) as opened:
        try:
            with opened.transaction() as connection:
                table = None if actions is None else read_action_table(connection, actions)
                return _import(connection, opener(connection), log, columns, regime, table, description)
        finally:
            _tidy(opened.connection)


def _import(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    log: str,
    columns: Mapped | None,
    regime: str | None,
    table: ActionTable | None,
    description: str | None,
) -> ImportReport:
    mapping = resolve(source.types, columns, required=("action", "reward"))
    regime = _regime(connection, log, regime, "propensity" in mapping)
    _stage(connection, source, mapping)
    known = _judge(connection, log, mapping, table)
    kept = _insert(connection, log, regime, description, table)
    broken, reasons = quarantine.store(connection, log, source)
    report = _report(connection, log, source, regime, mapping, (kept, known, broken), reasons)
    _sign(connection, report)
    return report


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


def _stage(connection: duckdb.DuckDBPyConnection, source: Source, mapping: Mapping[str, Column]) -> None:
    """Read the source once into the temporary table `incoming`."""
    try:
        connection.execute(f"CREATE TEMP TABLE incoming AS {staging_query(source, mapping)}")
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise unreadable(source.name, error) from error
    (rows,) = connection.execute("SELECT count(*) FROM incoming").fetchall()[0]
    if rows == 0 and not rejected(connection):
        raise FileError(f"{source.name} has no rows. Export it again, or leave it out.")


def _judge(
    connection: duckdb.DuckDBPyConnection, log: str, mapping: Mapping[str, Column], table: ActionTable | None
) -> int:
    """Fill `rejected` and `known`; the number of known rows."""
    checks.reject_unsound(connection)
    checks.reject_widths(connection, log, "features" in mapping)
    if table is not None:
        checks.reject_unknown_actions(connection, log, table.labels)
    if "context_id" in mapping and {"text", "features"} & set(mapping):
        checks.reject_contradictions(connection, log)
    checks.reject_duplicates(connection)
    return checks.find_known(connection, log)


def _insert(
    connection: duckdb.DuckDBPyConnection, log: str, regime: str, description: str | None, table: ActionTable | None
) -> int:
    """Add the sound rows that the log does not have yet; their number."""
    if not connection.execute("SELECT 1 FROM logs WHERE log = ?", [log]).fetchall():
        connection.execute("INSERT INTO logs VALUES (?, ?, NULL, ?, now(), true)", [log, regime, description])
    fresh = f"(SELECT * FROM {checks.SOUND} WHERE ordinal NOT IN (SELECT ordinal FROM known))"
    if table is not None:
        _add_actions(connection, log, table)
    _add_labels(connection, log, fresh)
    _add_contexts(connection, log, fresh)
    # Positions give the order only: gaps cost nothing, numbering without them would cost a sort.
    (kept,) = connection.execute(
        f"""INSERT INTO decisions (log, position, action, candidates, {_PLAIN})
            SELECT $log, (SELECT coalesce(max(position), -1) FROM decisions WHERE log = $log) + ordinal,
                {checks.action_index("action")}, {checks.candidate_indices("candidates")}, {_PLAIN}
            FROM {fresh}""",
        {"log": log},
    ).fetchall()[0]
    return int(kept)


def _add_contexts(connection: duckdb.DuckDBPyConnection, log: str, fresh: str) -> None:
    """Append contexts that are new, in the order of their first rows."""
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


def _add_actions(connection: duckdb.DuckDBPyConnection, log: str, table: ActionTable) -> None:
    """Append the actions of a given table in its order; those that the log has keep their index, text and features."""
    (size,) = connection.execute("SELECT count(*) FROM actions WHERE log = ?", [log]).fetchall()[0]
    known = {name for (name,) in connection.execute("SELECT label FROM actions WHERE log = ?", [log]).fetchall()}
    new = [i for i, label in enumerate(table.labels) if label not in known]
    if new:
        vectors = None if table.features is None else [table.features[i].tolist() for i in new]
        connection.execute(
            "INSERT INTO actions SELECT $log, unnest($index), unnest($label), unnest($text), unnest($features)",
            {
                "log": log,
                "index": list(range(size, size + len(new))),
                "label": [table.labels[i] for i in new],
                "text": [table.texts[i] for i in new],
                "features": vectors or [None] * len(new),
            },
        )


def _add_labels(connection: duckdb.DuckDBPyConnection, log: str, fresh: str) -> None:
    """Append labels that are new, sorted (whole numbers by size), and make the enumeration of all labels."""
    connection.execute(
        f"""INSERT INTO actions (log, action, label)
            SELECT $log, (SELECT coalesce(max(action), -1) FROM actions WHERE log = $log)
                + row_number() OVER (ORDER BY TRY_CAST(label AS HUGEINT) NULLS LAST, label), label
            FROM (SELECT action AS label FROM {fresh} UNION SELECT unnest(candidates) FROM {fresh})
            WHERE label NOT IN (SELECT label FROM actions WHERE log = $log)""",
        {"log": log},
    )
    checks.make_label_type(connection, f"SELECT label FROM actions WHERE log = {literal(log)} ORDER BY action")


def _report(
    connection: duckdb.DuckDBPyConnection,
    log: str,
    source: Source,
    regime: str,
    mapping: Mapping[str, Column],
    counts: tuple[int, int, int],
    reasons: dict[str, int],
) -> ImportReport:
    kept, known, broken = counts
    (staged,) = connection.execute("SELECT count(*) FROM incoming").fetchall()[0]
    report = ImportReport(
        log=log,
        source=source.name,
        sha256=source.sha256,
        regime=regime,
        rows_read=staged + broken,
        rows_kept=kept,
        rows_quarantined=sum(reasons.values()),
        rows_known=known,
        reasons=reasons,
        mapping={word: str(column) for word, column in mapping.items()},
        ignored=tuple(name for name in source.columns if not any(name in column.names for column in mapping.values())),
    )
    if report.rows_read != report.rows_kept + report.rows_quarantined + report.rows_known:
        raise CounterplayError(
            f"The rows of {source.name} do not add up, so nothing was imported; please report this: {report}"
        )
    return report


def _sign(connection: duckdb.DuckDBPyConnection, report: ImportReport) -> None:
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?, now(), NULL, NULL, NULL)",
        [
            report.log,
            report.source,
            report.sha256,
            json.dumps(report.mapping),
            report.rows_read,
            report.rows_kept,
            report.rows_known,
            report.rows_quarantined,
        ],
    )


def _tidy(connection: duckdb.DuckDBPyConnection) -> None:
    # In a transaction of the caller's that has failed nothing can be dropped, and its rollback will do it.
    with contextlib.suppress(duckdb.TransactionException):
        for name in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute(f"DROP TYPE IF EXISTS {checks.LABELS}")
        clear(connection)
