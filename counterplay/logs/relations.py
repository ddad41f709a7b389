"""Where the decisions and the contexts of a log are read from, whichever way it was brought in.

Each function gives SQL for a FROM clause with the rows of one log only and all columns of the table of that name.
"""

from __future__ import annotations

import duckdb

from counterplay.logs.attachments import attached_files, incoming_rows
from counterplay.logs.sources.source import literal

STEPS = {"episode": "VARCHAR", "step": "INTEGER", "parent": "VARCHAR", "depth": "INTEGER", "kind": "VARCHAR"}


def decisions_of(connection: duckdb.DuckDBPyConnection, log: str) -> str:
    """The decisions of a log, with what `steps` says of them, in no particular order; `position` gives it."""
    name = literal(log)
    files = attached_files(connection, log)
    if files:
        return f"(SELECT * EXCLUDE (text, features) FROM {incoming_rows(connection, log, files)})"
    if connection.execute("SELECT 1 FROM steps WHERE log = ? LIMIT 1", [log]).fetchall():
        return f"""(SELECT * FROM (SELECT * FROM decisions WHERE log = {name})
            LEFT JOIN (SELECT * EXCLUDE (log) FROM steps WHERE log = {name}) USING (position))"""
    none = ", ".join(f"CAST(NULL AS {kind}) AS {word}" for word, kind in STEPS.items())
    return f"(SELECT *, {none} FROM decisions WHERE log = {name})"


def numbered_contexts(connection: duckdb.DuckDBPyConnection, log: str) -> str:
    """A query of a log's contexts with their `row`, 0 to C - 1 in their order; `position` itself may have gaps."""
    return f"""SELECT context_id, text, features, CAST(row_number() OVER (ORDER BY position) - 1 AS INTEGER) AS row
        FROM {contexts_of(connection, log)}"""


def contexts_of(connection: duckdb.DuckDBPyConnection, log: str) -> str:
    """The contexts of a log: stored ones, or else the context ids of its decisions, by first appearance."""
    stored = connection.execute("SELECT stores_contexts FROM logs WHERE log = ?", [log]).fetchall()
    if not stored or stored[0][0]:
        return f"(SELECT * FROM contexts WHERE log = {literal(log)})"
    files = attached_files(connection, log)
    if files:
        return f"""(SELECT {literal(log)} AS log, context_id, min(position) AS position,
            arg_min(text, position) AS text, arg_min(features, position) AS features
            FROM {incoming_rows(connection, log, files)} GROUP BY context_id)"""
    return f"""(SELECT {literal(log)} AS log, context_id, min(position) AS position, CAST(NULL AS VARCHAR) AS text,
        CAST(NULL AS FLOAT[]) AS features FROM {decisions_of(connection, log)} GROUP BY context_id)"""
