"""Inserting what an import with full information found: actions, contexts with their decisions, outcomes."""

from __future__ import annotations

import duckdb

from counterplay.logs.full.checks import KNOWN, SOUND
from counterplay.logs.full.plan import MEASURES, Plan
from counterplay.logs.sources.source import Source


def add_actions(connection: duckdb.DuckDBPyConnection, log: str, plan: Plan) -> None:
    """Append labels that are new: in the plan's order, or else sorted (whole numbers by size)."""
    if plan.labels is None:
        # A label is a name, mostly of words; what it stands for in other files, nobody has said.
        text = "replace(label, '_', ' ')" if plan.shape == "labels" else "CAST(NULL AS VARCHAR)"
        table = f"""(SELECT label, {text} AS text,
                row_number() OVER (ORDER BY TRY_CAST(label AS HUGEINT) NULLS LAST, label) AS place
            FROM (SELECT DISTINCT label FROM ({plan.entries}) JOIN (SELECT ordinal FROM {SOUND}) USING (ordinal)))"""
        values = {}
    else:
        table = "(SELECT unnest($labels) AS label, unnest($texts) AS text, unnest($places) AS place)"
        values = {
            "labels": [label for label, _ in plan.labels],
            "texts": [text for _, text in plan.labels],
            "places": list(range(len(plan.labels))),
        }
    connection.execute(
        f"""INSERT INTO actions (log, action, label, text)
            SELECT $log, (SELECT coalesce(max(action), -1) FROM actions WHERE log = $log)
                + row_number() OVER (ORDER BY place), label, text
            FROM {table} WHERE label NOT IN (SELECT label FROM actions WHERE log = $log)""",
        {"log": log} | values,
    )


def add_contexts(connection: duckdb.DuckDBPyConnection, log: str, source: Source, plan: Plan) -> None:
    """Append contexts that are new, in the order of their first rows, and one decision for each.

    Texts and features are read from the source a second time: staging them would hold them all in memory.
    """
    connection.execute(
        f"""CREATE TEMP TABLE arriving AS SELECT context_id, min(ordinal) AS first, any_value(cluster) AS cluster,
                coalesce(min(ordinal) FILTER (body IS NOT NULL), min(ordinal)) AS ordinal
            FROM {SOUND} WHERE context_id NOT IN (SELECT context_id FROM contexts WHERE log = $log)
            GROUP BY context_id""",
        {"log": log},
    )
    base = "(SELECT coalesce(max(position), -1) FROM {table} WHERE log = $log) + first"
    bodies = ", ".join(
        f"{value} AS {name}" for name, value in (("text", plan.text), ("features", plan.features)) if value != "NULL"
    )
    scan = f"JOIN (SELECT ordinal, {bodies} FROM {source.scan}) USING (ordinal)" if bodies else ""
    connection.execute(
        f"""INSERT INTO contexts (log, context_id, position, text, features)
            SELECT $log, context_id, {base.format(table="contexts")},
                {"NULL" if plan.text == "NULL" else "text"}, {"NULL" if plan.features == "NULL" else "features"}
            FROM arriving {scan}""",
        {"log": log},
    )
    connection.execute(
        f"""INSERT INTO decisions (log, decision_id, position, context_id, cluster)
            SELECT $log, context_id, {base.format(table="decisions")}, context_id, cluster
            FROM arriving ORDER BY first""",
        {"log": log},
    )


def add_outcomes(connection: duckdb.DuckDBPyConnection, log: str, plan: Plan) -> None:
    """Add what the log does not know: new pairs, and values that were unknown for a pair it has."""
    measures = ", ".join(MEASURES)
    (filled,) = connection.execute("SELECT count(*) FILTER (NOT new AND fills) FROM compared").fetchall()[0]
    if filled:
        merged = ", ".join(f"coalesce(o.{word}, c.{word}) AS {word}" for word in MEASURES)
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE compared AS
                SELECT c.* REPLACE ({merged}) FROM compared c LEFT JOIN
                    (SELECT * FROM outcomes WHERE log = $log) o USING (context_id, action)""",
            {"log": log},
        )
        connection.execute(
            """DELETE FROM outcomes o USING compared c WHERE o.log = $log AND NOT c.new AND c.fills
                AND o.context_id = c.context_id AND o.action = c.action""",
            {"log": log},
        )
        connection.execute(
            f"""INSERT INTO outcomes (log, context_id, action, {measures})
                SELECT $log, context_id, action, {measures} FROM compared WHERE NOT new AND fills""",
            {"log": log},
        )
    stated = "AND NOT EXISTS (SELECT 1 FROM compared c WHERE c.ordinal = e.ordinal AND c.label = e.label AND NOT new)"
    connection.execute(
        f"""INSERT INTO outcomes (log, context_id, action, {measures})
            SELECT $log, s.context_id, a.action, {", ".join(f"e.{word}" for word in MEASURES)}
            FROM ({plan.entries}) e JOIN (SELECT ordinal, context_id FROM {SOUND}) s USING (ordinal)
            JOIN (SELECT label, action FROM actions WHERE log = $log) a USING (label)
            WHERE s.ordinal NOT IN (SELECT ordinal FROM {KNOWN}) {stated if plan.default is None else ""}""",
        {"log": log},
    )
