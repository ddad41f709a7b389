"""What can only be seen across rows: widths, unknown actions, contexts that contradict each other, ids that come again.

Works on the temporary relations of one import: `incoming` (the rows as our words), `rejected` (ordinal, reason, other:
the ordinal of the row that a reason points to). A row is judged on the first check that it fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import duckdb

# A forgotten context has no text and features of zeros; nothing contradicts that.
_REMEMBERED = "CASE WHEN text IS NULL AND list_max(features) = 0 AND list_min(features) = 0 THEN NULL ELSE {word} END"


def sound(connection: duckdb.DuckDBPyConnection) -> str:
    """SQL: the incoming rows that nothing was said against so far."""
    if connection.execute("SELECT 1 FROM rejected LIMIT 1").fetchall():
        return "(SELECT * FROM incoming ANTI JOIN rejected USING (ordinal))"
    return "incoming"


def reject_unsound(connection: duckdb.DuckDBPyConnection) -> None:
    """Open the list of rejected rows with those that are wrong by themselves."""
    connection.execute(
        "CREATE TEMP TABLE rejected AS SELECT ordinal, reason, CAST(NULL AS BIGINT) AS other FROM incoming "
        "WHERE reason IS NOT NULL"
    )


def reject_widths(connection: duckdb.DuckDBPyConnection, log: str, mapped: bool) -> None:
    """All contexts of a log have the same number of features: that of the log, or else the commonest of the file."""
    known = connection.execute(
        """SELECT coalesce(len(features), 0) FROM contexts WHERE log = $log ORDER BY position LIMIT 1""", {"log": log}
    ).fetchall()
    if not known and mapped:
        known = connection.execute(
            f"SELECT len(features) FROM {sound(connection)} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
        ).fetchall()
    if not known or (not mapped and known[0][0] == 0):
        return
    (width,) = known[0]
    # A known context may come again by its id alone.
    again = "" if mapped else "AND context_id NOT IN (SELECT context_id FROM contexts WHERE log = $log)"
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'features have another length than the log''s ' || $width || ': '
            || coalesce(len(features), 0), NULL FROM {sound(connection)}
            WHERE coalesce(len(features), 0) <> $width {again}""",
        {"width": width} | ({} if mapped else {"log": log}),
    )


def reject_unknown_actions(
    connection: duckdb.DuckDBPyConnection, log: str, labels: Iterable[str], mapped: Collection[str]
) -> None:
    """With an action table, every action and candidate must be in it or in the log already."""
    connection.execute("CREATE TEMP TABLE allowed AS SELECT label FROM actions WHERE log = ?", [log])
    connection.execute("INSERT INTO allowed SELECT unnest(?)", [list(labels)])
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'action is unknown: ' || left(CAST(action AS VARCHAR), 80), NULL
            FROM {sound(connection)} WHERE CAST(action AS VARCHAR) NOT IN (SELECT label FROM allowed)"""
    )
    if "candidates" in mapped:
        connection.execute(
            f"""INSERT INTO rejected
                SELECT ordinal, 'candidates hold an unknown action: ' || left(min(label), 80), NULL
                FROM (SELECT ordinal, CAST(unnest(candidates) AS VARCHAR) AS label FROM {sound(connection)})
                WHERE label NOT IN (SELECT label FROM allowed) GROUP BY ordinal"""
        )
    connection.execute("DROP TABLE allowed")


def reject_contradictions(connection: duckdb.DuckDBPyConnection, log: str, words: Iterable[str]) -> None:
    """One context id, one text and one list of features: what the log has, or else what came first."""
    for word in words:
        rows = sound(connection)
        connection.execute(
            f"""INSERT INTO rejected
                SELECT s.ordinal, 'context has other {word} than before: ' || left(s.context_id, 80), first.ordinal
                FROM {rows} s
                LEFT JOIN (SELECT context_id, {_REMEMBERED.format(word=word)} AS {word} FROM contexts
                           WHERE log = $log) known USING (context_id)
                JOIN (SELECT context_id, arg_min({word}, ordinal) AS {word},
                             min(ordinal) FILTER ({word} IS NOT NULL) AS ordinal
                      FROM {rows} GROUP BY context_id) first USING (context_id)
                WHERE s.{word} <> coalesce(known.{word}, first.{word})""",
            {"log": log},
        )


def reject_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Of several sound rows with one decision id, the first is kept."""
    rows = sound(connection)
    connection.execute(
        f"""INSERT INTO rejected
            SELECT s.ordinal, 'decision id stands twice in this file: ' || left(decision_id, 80), first.ordinal
            FROM {rows} s JOIN (SELECT decision_id, min(ordinal) AS ordinal FROM {rows} GROUP BY decision_id
                                 HAVING count(*) > 1) first USING (decision_id)
            WHERE s.ordinal > first.ordinal"""
    )
