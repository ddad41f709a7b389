"""What can only be seen across rows: widths, unknown actions, contexts that contradict each other, ids that come again.

Works on the temporary tables of one import: `incoming` (staged rows), `rejected` (ordinal, reason, other: the ordinal
of the row that a reason points to). A row is judged on the first check that it fails.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from counterplay.logs.sources import literal

LABELS = "counterplay_label"
SOUND = "(SELECT * FROM incoming WHERE reason IS NULL AND ordinal NOT IN (SELECT ordinal FROM rejected))"
# What must be equal for a row to count as known; the text and features of contexts have a check of their own.
_COMPARED = (
    "context_id",
    "propensity",
    "candidate_propensities",
    "reward",
    "cost",
    "cluster",
    "timestamp",
    "episode",
    "step",
    "parent",
    "depth",
    "kind",
)


def reject_unsound(connection: duckdb.DuckDBPyConnection) -> None:
    """Open the list of rejected rows with those that are wrong by themselves."""
    connection.execute(
        "CREATE TEMP TABLE rejected AS SELECT ordinal, reason, CAST(NULL AS BIGINT) AS other FROM incoming "
        "WHERE reason IS NOT NULL"
    )


def reject_widths(connection: duckdb.DuckDBPyConnection, log: str, mapped: bool) -> None:
    """All contexts of a log have the same number of features: that of the log, or else the commonest of the file."""
    known = connection.execute(
        "SELECT coalesce(len(features), 0) FROM contexts WHERE log = ? ORDER BY position LIMIT 1", [log]
    ).fetchall()
    if not known and mapped:
        known = connection.execute(
            f"SELECT len(features) FROM {SOUND} GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1"
        ).fetchall()
    if not known:
        return
    (width,) = known[0]
    # A known context may come again by its id alone.
    again = "" if mapped else "AND context_id NOT IN (SELECT context_id FROM contexts WHERE log = $log)"
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'features have another length than the log''s ' || $width || ': '
            || coalesce(len(features), 0), NULL FROM {SOUND} WHERE coalesce(len(features), 0) <> $width {again}""",
        {"width": width} | ({} if mapped else {"log": log}),
    )


def reject_unknown_actions(connection: duckdb.DuckDBPyConnection, log: str, labels: Iterable[str]) -> None:
    """With an action table, every action and candidate must be in it or in the log already."""
    connection.execute("CREATE TEMP TABLE allowed AS SELECT label FROM actions WHERE log = ?", [log])
    connection.execute("INSERT INTO allowed SELECT unnest(?)", [list(labels)])
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'action is unknown: ' || left(action, 80), NULL FROM {SOUND}
            WHERE action NOT IN (SELECT label FROM allowed)"""
    )
    connection.execute(
        f"""INSERT INTO rejected SELECT ordinal, 'candidates hold an unknown action: ' || left(min(label), 80), NULL
            FROM (SELECT ordinal, unnest(candidates) AS label FROM {SOUND})
            WHERE label NOT IN (SELECT label FROM allowed) GROUP BY ordinal"""
    )
    connection.execute("DROP TABLE allowed")


def reject_contradictions(connection: duckdb.DuckDBPyConnection, log: str) -> None:
    """One context id, one text and one list of features: what the log has, or else what came first."""
    for word in ("text", "features"):
        connection.execute(
            f"""INSERT INTO rejected
                SELECT s.ordinal, 'context has other {word} than before: ' || left(s.context_id, 80), first.ordinal
                FROM {SOUND} s
                LEFT JOIN (SELECT context_id, {word} FROM contexts WHERE log = $log) known USING (context_id)
                JOIN (SELECT context_id, arg_min({word}, ordinal) AS {word},
                             min(ordinal) FILTER ({word} IS NOT NULL) AS ordinal
                      FROM {SOUND} GROUP BY context_id) first USING (context_id)
                WHERE s.{word} <> coalesce(known.{word}, first.{word})""",
            {"log": log},
        )


def reject_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Of several sound rows with one decision id, the first is kept."""
    connection.execute(
        f"""INSERT INTO rejected
            SELECT s.ordinal, 'decision id stands twice in this file: ' || left(decision_id, 80), first.ordinal
            FROM {SOUND} s JOIN (SELECT decision_id, min(ordinal) AS ordinal FROM {SOUND} GROUP BY decision_id
                                 HAVING count(*) > 1) first USING (decision_id)
            WHERE s.ordinal > first.ordinal"""
    )


def find_known(connection: duckdb.DuckDBPyConnection, log: str) -> int:
    """Put rows that the log has already into the table `known`; the number of them.

    Those that it has with other values are rejected.
    """
    connection.execute("CREATE TEMP TABLE known (ordinal BIGINT, decision_id VARCHAR, changed VARCHAR)")
    labels = connection.execute("SELECT count(*) FROM actions WHERE log = ?", [log]).fetchall()[0][0]
    if not labels:
        return 0
    make_label_type(connection, f"SELECT label FROM actions WHERE log = {literal(log)} ORDER BY action")
    connection.execute(
        f"""INSERT INTO known SELECT s.ordinal, s.decision_id, {_differences()}
            FROM {SOUND} s JOIN (SELECT * FROM decisions WHERE log = $log) d USING (decision_id)""",
        {"log": log},
    )
    connection.execute(f"DROP TYPE {LABELS}")
    connection.execute(
        """INSERT INTO rejected SELECT ordinal,
           'decision id is known with other values: ' || left(decision_id, 80) || ' (' || changed || ')', NULL
           FROM known WHERE changed <> ''"""
    )
    connection.execute("DELETE FROM known WHERE changed <> ''")
    (count,) = connection.execute("SELECT count(*) FROM known").fetchall()[0]
    return int(count)


def make_label_type(connection: duckdb.DuckDBPyConnection, labels: str) -> None:
    """Make an enumeration of labels (SQL, in order): casting to it is the fastest way from labels to indices."""
    connection.execute(f"CREATE TEMP TYPE {LABELS} AS ENUM ({labels})")


def action_index(value: str) -> str:
    """SQL: the index of a label; NULL when it is unknown."""
    return f"CAST(enum_code(TRY_CAST({value} AS {LABELS})) AS INTEGER)"


def candidate_indices(value: str) -> str:
    """SQL: the indices of a list of labels."""
    return f"list_transform(TRY_CAST({value} AS {LABELS}[]), lambda one: CAST(enum_code(one) AS INTEGER))"


def _differences() -> str:
    """The names of the values that differ, as one text; empty when none does."""
    pairs = {word: f"s.{word}" for word in _COMPARED}
    pairs |= {"action": action_index("s.action"), "candidates": candidate_indices("s.candidates")}
    parts = [f"CASE WHEN {value} IS DISTINCT FROM d.{word} THEN '{word}' END" for word, value in pairs.items()]
    return f"concat_ws(', ', {', '.join(parts)})"
