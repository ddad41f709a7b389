"""A workspace of any earlier version, opened for writing, has the same tables as a new one and all that it held."""

from __future__ import annotations

from pathlib import Path

import duckdb

from counterplay.logs import open_workspace, read_log, schema

# The tables of version 1 that later versions changed, as they were then.
VERSION_1 = {
    "logs": """(log VARCHAR PRIMARY KEY, regime VARCHAR NOT NULL CHECK (regime IN ('full', 'partial', 'propensity',
        'observed')), default_reward DOUBLE, description VARCHAR, created_at TIMESTAMPTZ NOT NULL)""",
    "sources": """(log VARCHAR NOT NULL, source VARCHAR NOT NULL, sha256 VARCHAR NOT NULL, mapping JSON NOT NULL,
        rows_read BIGINT NOT NULL, rows_kept BIGINT NOT NULL, rows_known BIGINT NOT NULL,
        rows_quarantined BIGINT NOT NULL, imported_at TIMESTAMPTZ NOT NULL)""",
    "decisions": """(log VARCHAR NOT NULL, decision_id VARCHAR NOT NULL, position BIGINT NOT NULL,
        context_id VARCHAR NOT NULL, action INTEGER, propensity DOUBLE, reward DOUBLE, cost DOUBLE, cluster VARCHAR,
        timestamp TIMESTAMPTZ, candidates INTEGER[], episode VARCHAR, step INTEGER, parent VARCHAR, depth INTEGER,
        kind VARCHAR)""",
    "outcomes": """(log VARCHAR NOT NULL, context_id VARCHAR NOT NULL, action INTEGER NOT NULL, reward DOUBLE,
        cost DOUBLE)""",
}
ADDED_LATER = {"attachments", "steps"}


def columns(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, str, str, bool]]:
    return set(
        connection.execute(
            "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() WHERE NOT internal"
        ).fetchall()
    )


def test_a_workspace_of_version_1_is_brought_to_the_tables_of_today_and_keeps_its_rows(tmp_path: Path) -> None:
    old, new = tmp_path / "old.duckdb", tmp_path / "new.duckdb"
    with duckdb.connect(old) as connection:
        for name, definition in (schema.TABLES | VERSION_1).items():
            if name not in ADDED_LATER:
                connection.execute(f"CREATE TABLE {name} {definition}")
        connection.execute("INSERT INTO workspace VALUES (1, now(), 'counterplay 0.0')")
        connection.execute("INSERT INTO logs VALUES ('l', 'propensity', NULL, NULL, now())")
        connection.execute("INSERT INTO contexts VALUES ('l', 'c', 0, 'hot', NULL)")
        connection.execute("INSERT INTO actions VALUES ('l', 0, 'a', NULL, NULL)")
        for i, step in enumerate((7, None)):
            connection.execute(
                f"INSERT INTO decisions (log, decision_id, position, context_id, action, propensity, reward, step) "
                f"VALUES ('l', 'd{i}', {i}, 'c', 0, 0.5, 1, ?)",
                [step],
            )
    open_workspace(new).close()
    with open_workspace(old) as was, open_workspace(new) as fresh:
        assert columns(was.connection) == columns(fresh.connection)
        log = read_log(was, "l")
        assert (log.decision_ids, log.context_ids, log.reward.tolist()) == (["d0", "d1"], ["c"], [1, 1])
        assert was.connection.execute("SELECT position, step FROM steps").fetchall() == [(0, 7)]
