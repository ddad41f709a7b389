"""What can only be seen across the rows of a table of outcomes: widths, contradictions, duplicates, changed outcomes.

Works on the temporary tables of one import: `incoming` (staged rows), `rejected` (ordinal, reason, other: the ordinal
of the row that a reason points to), and what it makes of them: `compared` (entries for contexts that the log has) and
`KNOWN` (rows of which the log knows everything). A row is judged on the first check that it fails.
"""

from __future__ import annotations

import duckdb

from counterplay.logs.decisions.checks import reject_unsound
from counterplay.logs.full.plan import MEASURES, Plan, body

KNOWN = "counterplay_known"
SOUND = "(SELECT * FROM incoming WHERE ordinal NOT IN (SELECT ordinal FROM rejected))"
_STORED = "(SELECT context_id FROM contexts WHERE log = $log)"


def judge(connection: duckdb.DuckDBPyConnection, log: str, plan: Plan) -> None:
    """Fill `rejected`, `compared` and `KNOWN`."""
    reject_unsound(connection)
    if "features" in plan.mapping:
        _reject_widths(connection, log)
    _reject_contradictions(connection, log)
    _reject_duplicates(connection, plan.key)
    connection.execute(f"CREATE TEMP TABLE {KNOWN} (ordinal BIGINT)")
    if plan.default is None:
        _compare_outcomes(connection, log, plan.entries)
    else:
        _compare_labels(connection, log, plan.entries, plan.default)


def _reject_widths(connection: duckdb.DuckDBPyConnection, log: str) -> None:
    """All contexts of a log have the same number of features: that of the log, or else the commonest of the file."""
    known = connection.execute(
        "SELECT coalesce(len(features), 0) FROM contexts WHERE log = ? ORDER BY position LIMIT 1", [log]
    ).fetchall()
    if not known:
        known = connection.execute(f"SELECT width FROM {SOUND} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1").fetchall()
    if known:
        connection.execute(
            f"""INSERT INTO rejected SELECT ordinal, 'features have another length than the log''s ' || $width || ': '
                || coalesce(width, 0), NULL FROM {SOUND} WHERE coalesce(width, 0) <> $width""",
            {"width": known[0][0] or 0},
        )


def _reject_contradictions(connection: duckdb.DuckDBPyConnection, log: str) -> None:
    """One context, one text, one list of features, one cluster: what the log has, or else what came first."""
    connection.execute(
        f"""INSERT INTO rejected
            SELECT ordinal, 'context has ' || what || ' than before: ' || left(context_id, 80), other FROM (
                SELECT s.ordinal, s.context_id,
                    CASE WHEN s.body <> coalesce(known.body, first.body) THEN 'other text or features'
                         WHEN s.cluster <> coalesce(known.cluster, first.cluster) THEN 'another cluster' END AS what,
                    CASE WHEN s.body <> first.body THEN first.body_at
                         WHEN s.cluster <> first.cluster THEN first.cluster_at END AS other
                FROM {SOUND} s
                LEFT JOIN (
                    SELECT c.context_id, {body("text", "features")} AS body, d.cluster
                    FROM contexts c
                    LEFT JOIN (SELECT decision_id, cluster FROM decisions WHERE log = $log) d
                        ON d.decision_id = c.context_id
                    WHERE c.log = $log AND c.context_id IN (SELECT context_id FROM incoming)) known USING (context_id)
                JOIN (SELECT context_id, arg_min(body, ordinal) AS body, arg_min(cluster, ordinal) AS cluster,
                             min(ordinal) FILTER (body IS NOT NULL) AS body_at,
                             min(ordinal) FILTER (cluster IS NOT NULL) AS cluster_at
                      FROM {SOUND} GROUP BY context_id) first USING (context_id))
            WHERE what IS NOT NULL""",
        {"log": log},
    )


def _reject_duplicates(connection: duckdb.DuckDBPyConnection, key: str) -> None:
    """Of several sound rows for one context (and action), the first is kept."""
    what = "context and action stand" if "," in key else "context stands"
    shown = " || ', ' || ".join(f"left({word.strip()}, 80)" for word in key.split(","))
    connection.execute(
        f"""INSERT INTO rejected
            SELECT s.ordinal, '{what} twice in this file: ' || {shown}, first.ordinal
            FROM {SOUND} s JOIN (SELECT {key}, min(ordinal) AS ordinal FROM {SOUND} GROUP BY {key}
                                 HAVING count(*) > 1) first USING ({key})
            WHERE s.ordinal > first.ordinal"""
    )


def _compare_outcomes(connection: duckdb.DuckDBPyConnection, log: str, entries: str) -> None:
    """Compare entries with what the log has. What differs is rejected; what was unknown may be filled in."""
    changed = ", ".join(f"CASE WHEN e.{word} <> o.{word} THEN '{word}' END" for word in MEASURES)
    fills = " OR ".join(f"(e.{word} IS NOT NULL AND o.{word} IS NULL)" for word in MEASURES)
    connection.execute(
        f"""CREATE TEMP TABLE compared AS
            SELECT e.ordinal, e.label, s.context_id, o.action, o.context_id IS NULL AS new, ({fills}) AS fills,
                concat_ws(', ', {changed}) AS changed, {", ".join(f"e.{word}" for word in MEASURES)}
            FROM ({entries}) e
            JOIN (SELECT ordinal, context_id FROM {SOUND} WHERE context_id IN {_STORED}) s USING (ordinal)
            LEFT JOIN (SELECT o.*, label FROM (SELECT * EXCLUDE (log) FROM outcomes WHERE log = $log
                           AND context_id IN (SELECT context_id FROM incoming)) o
                       JOIN (SELECT action, label FROM actions WHERE log = $log) USING (action)) o
                ON o.context_id = s.context_id AND o.label = e.label""",
        {"log": log},
    )
    connection.execute(
        """INSERT INTO rejected SELECT ordinal, 'outcome is known with other values: '
               || string_agg(left(label, 80) || ' (' || changed || ')', ', ' ORDER BY label), NULL
           FROM compared WHERE changed <> '' GROUP BY ordinal"""
    )
    connection.execute("DELETE FROM compared WHERE ordinal IN (SELECT ordinal FROM rejected)")
    connection.execute(
        f"INSERT INTO {KNOWN} SELECT ordinal FROM compared GROUP BY ordinal HAVING NOT bool_or(new OR fills)"
    )


def _compare_labels(connection: duckdb.DuckDBPyConnection, log: str, entries: str, default: float) -> None:
    """A context that the log has must come with the labels that it has there, no more and no fewer."""
    connection.execute("CREATE TEMP TABLE compared (ordinal BIGINT, label VARCHAR, new BOOLEAN, fills BOOLEAN)")
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE {KNOWN} AS
            SELECT s.ordinal, s.context_id, e.labels IS NOT DISTINCT FROM o.labels AS same, o.labels AS stored
            FROM (SELECT ordinal, context_id FROM {SOUND} WHERE context_id IN {_STORED}) s
            LEFT JOIN (SELECT ordinal, list_sort(list(label)) AS labels FROM ({entries}) GROUP BY ordinal) e
                USING (ordinal)
            LEFT JOIN (SELECT context_id, list_sort(list(label)) AS labels
                       FROM (SELECT context_id, action FROM outcomes WHERE log = $log AND reward <> $default
                             AND context_id IN (SELECT context_id FROM incoming))
                       JOIN (SELECT action, label FROM actions WHERE log = $log) USING (action)
                       GROUP BY context_id) o USING (context_id)""",
        {"log": log, "default": default},
    )
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'context is known with other labels: '
                || left(coalesce(array_to_string(stored, ', '), 'none'), 80), NULL FROM {KNOWN} WHERE NOT same"""
    )
    connection.execute(f"DELETE FROM {KNOWN} WHERE NOT same")
