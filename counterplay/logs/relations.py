"""Where the decisions and the contexts of a log are read from, whichever way it was brought in.

Each function gives SQL for a FROM clause with the rows of one log only and all columns of the table of that name.
"""

from __future__ import annotations

import duckdb

from counterplay.logs.sources import literal


def decisions_of(_: duckdb.DuckDBPyConnection, log: str) -> str:
    """The decisions of a log, in no particular order; `position` gives it."""
    return f"(SELECT * FROM decisions WHERE log = {literal(log)})"


def contexts_of(connection: duckdb.DuckDBPyConnection, log: str) -> str:
    """The contexts of a log: stored ones, or else the context ids of its decisions, by first appearance."""
    stored = connection.execute("SELECT stores_contexts FROM logs WHERE log = ?", [log]).fetchall()
    if not stored or stored[0][0]:
        return f"(SELECT * FROM contexts WHERE log = {literal(log)})"
    return f"""(SELECT {literal(log)} AS log, context_id, min(position) AS position, CAST(NULL AS VARCHAR) AS text,
        CAST(NULL AS FLOAT[]) AS features FROM {decisions_of(connection, log)} GROUP BY context_id)"""
