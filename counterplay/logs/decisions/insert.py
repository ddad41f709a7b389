"""Putting the sound rows of an import into a log, or remembering in which files they lie."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from counterplay.logs.attachments import AttachedFile, remember
from counterplay.logs.decisions import checks, known
from counterplay.logs.decisions.columns import Column
from counterplay.logs.decisions.indices import NUMBERED, is_numbered, labels_of
from counterplay.logs.relations import STEPS, contexts_of
from counterplay.logs.sources.source import literal

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


def insert_rows(
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


def attach_rows(
    connection: duckdb.DuckDBPyConnection, log: str, mapping: Mapping[str, Column], files: list[AttachedFile]
) -> int:
    """Take the labels of the sound rows, and remember where the rows are; the number of sound rows."""
    rows = checks.sound(connection)
    _add_labels(connection, log, rows, "candidates" in mapping)
    remember(connection, log, files, mapping)
    connection.execute("DELETE FROM quarantine WHERE log = ?", [log])
    return int(connection.execute(f"SELECT count(*) FROM {rows}").fetchall()[0][0])


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
    values = f"(SELECT DISTINCT {column} AS value FROM {fresh})"
    labels = f"SELECT CAST(value AS VARCHAR) AS label FROM {values}"
    if is_numbered(connection):
        labels = f"SELECT label FROM {values} JOIN {NUMBERED} ON number = value"
    connection.execute(
        f"""INSERT INTO actions (log, action, label)
            SELECT $log, (SELECT coalesce(max(action), -1) FROM actions WHERE log = $log)
                + row_number() OVER (ORDER BY TRY_CAST(label AS HUGEINT) NULLS LAST, label), label
            FROM ({labels}) WHERE label NOT IN (SELECT label FROM actions WHERE log = $log)""",
        {"log": log},
    )
