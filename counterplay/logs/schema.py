"""The tables of a workspace, their version, and the way from an older version to this one.

Every table carries the column ``log`` where it belongs to one. Actions are numbered 0..K-1 within a log, in the order
of first registration; that index is what all arrays hold. ``outcomes`` is sparse: an action of a context that has no
row there has the reward ``default_reward`` of its log when that is not NULL, and is unknown when it is NULL.

Contexts that carry neither text nor features are not stored a second time: they are the context ids of the decisions;
``logs.stores_contexts`` says so. Where decisions belong to episodes, ``steps`` says how; a column that is empty in most
logs would still cost each of them its share. Decisions of a log with ``attachments`` stay in the Parquet files named
there. Read contexts and decisions through ``relations``, which puts all this together.

A row of a file without decision ids is known by its place: ``sources`` says which rows of a stream (files that begin
with the same rows) stand at which positions.

The tables that grow with the log (contexts, decisions, steps, outcomes, choices, curves) have no primary key: the index
of one is held in memory and would be larger than the data at 100 million rows. What writes to them keeps them unique.
"""

from __future__ import annotations

import importlib.metadata

import duckdb

# One entry for each step from version i + 1 to version i + 2. An entry is never edited once released: workspaces that
# went through it would then differ from those that did not.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "ALTER TABLE logs ADD COLUMN stores_contexts BOOLEAN DEFAULT true",
        "ALTER TABLE sources ADD COLUMN stream INTEGER",
        "ALTER TABLE sources ADD COLUMN first_row BIGINT",
        "ALTER TABLE sources ADD COLUMN first_position BIGINT",
        "ALTER TABLE decisions ALTER COLUMN decision_id DROP NOT NULL",
        "ALTER TABLE decisions ADD COLUMN candidate_propensities DOUBLE[]",
        """CREATE TABLE steps (log VARCHAR NOT NULL, position BIGINT NOT NULL, episode VARCHAR, step INTEGER,
            parent VARCHAR, depth INTEGER, kind VARCHAR)""",
        """INSERT INTO steps SELECT log, position, episode, step, parent, depth, kind FROM decisions
            WHERE coalesce(episode, CAST(step AS VARCHAR), parent, CAST(depth AS VARCHAR), kind) IS NOT NULL""",
        "ALTER TABLE decisions DROP COLUMN episode",
        "ALTER TABLE decisions DROP COLUMN step",
        "ALTER TABLE decisions DROP COLUMN parent",
        "ALTER TABLE decisions DROP COLUMN depth",
        "ALTER TABLE decisions DROP COLUMN kind",
        "ALTER TABLE outcomes ADD COLUMN seconds DOUBLE",
        "ALTER TABLE outcomes ADD COLUMN input_tokens BIGINT",
        "ALTER TABLE outcomes ADD COLUMN output_tokens BIGINT",
        """CREATE TABLE attachments (
            log VARCHAR PRIMARY KEY,
            files JSON NOT NULL,
            mapping JSON NOT NULL)""",
    ),
)

SCHEMA_VERSION = 1 + len(MIGRATIONS)

TABLES: dict[str, str] = {
    "workspace": """(
        schema_version INTEGER NOT NULL,
        created_at TIMESTAMPTZ NOT NULL,
        created_by VARCHAR NOT NULL)""",
    "logs": """(
        log VARCHAR PRIMARY KEY,
        regime VARCHAR NOT NULL CHECK (regime IN ('full', 'partial', 'propensity', 'observed')),
        default_reward DOUBLE,
        description VARCHAR,
        created_at TIMESTAMPTZ NOT NULL,
        stores_contexts BOOLEAN DEFAULT true)""",
    "sources": """(
        log VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        sha256 VARCHAR NOT NULL,
        mapping JSON NOT NULL,
        rows_read BIGINT NOT NULL,
        rows_kept BIGINT NOT NULL,
        rows_known BIGINT NOT NULL,
        rows_quarantined BIGINT NOT NULL,
        imported_at TIMESTAMPTZ NOT NULL,
        stream INTEGER,
        first_row BIGINT,
        first_position BIGINT)""",
    "attachments": """(
        log VARCHAR PRIMARY KEY,
        files JSON NOT NULL,
        mapping JSON NOT NULL)""",
    "contexts": """(
        log VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        position BIGINT NOT NULL,
        text VARCHAR,
        features FLOAT[])""",
    "actions": """(
        log VARCHAR NOT NULL,
        action INTEGER NOT NULL,
        label VARCHAR NOT NULL,
        text VARCHAR,
        features FLOAT[],
        PRIMARY KEY (log, action),
        UNIQUE (log, label))""",
    "decisions": """(
        log VARCHAR NOT NULL,
        decision_id VARCHAR,
        position BIGINT NOT NULL,
        context_id VARCHAR NOT NULL,
        action INTEGER,
        propensity DOUBLE,
        reward DOUBLE,
        cost DOUBLE,
        cluster VARCHAR,
        timestamp TIMESTAMPTZ,
        candidates INTEGER[],
        candidate_propensities DOUBLE[])""",
    "steps": """(
        log VARCHAR NOT NULL,
        position BIGINT NOT NULL,
        episode VARCHAR,
        step INTEGER,
        parent VARCHAR,
        depth INTEGER,
        kind VARCHAR)""",
    "outcomes": """(
        log VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        action INTEGER NOT NULL,
        reward DOUBLE,
        cost DOUBLE,
        seconds DOUBLE,
        input_tokens BIGINT,
        output_tokens BIGINT)""",
    "choices": """(
        log VARCHAR NOT NULL,
        policy VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        rank INTEGER NOT NULL,
        action INTEGER NOT NULL,
        probability DOUBLE NOT NULL)""",
    "quarantine": """(
        log VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        line BIGINT NOT NULL,
        reason VARCHAR NOT NULL,
        row JSON NOT NULL,
        quarantined_at TIMESTAMPTZ NOT NULL)""",
    "outputs": """(
        key VARCHAR PRIMARY KEY,
        operation VARCHAR NOT NULL,
        model VARCHAR NOT NULL,
        request JSON NOT NULL,
        response JSON NOT NULL,
        status VARCHAR NOT NULL,
        provenance JSON NOT NULL)""",
    "vectors": """(
        key VARCHAR PRIMARY KEY,
        embedder VARCHAR NOT NULL,
        vector FLOAT[] NOT NULL)""",
    "runs": """(
        run VARCHAR PRIMARY KEY,
        experiment VARCHAR NOT NULL,
        log VARCHAR NOT NULL,
        method VARCHAR NOT NULL,
        agent VARCHAR NOT NULL,
        seed BIGINT NOT NULL,
        configuration JSON NOT NULL,
        result JSON NOT NULL,
        seconds DOUBLE NOT NULL,
        finished_at TIMESTAMPTZ NOT NULL)""",
    "curves": """(
        run VARCHAR NOT NULL,
        quantity VARCHAR NOT NULL,
        round BIGINT NOT NULL,
        value DOUBLE NOT NULL)""",
    "estimates": """(
        experiment VARCHAR NOT NULL,
        log VARCHAR NOT NULL,
        policy VARCHAR NOT NULL,
        estimator VARCHAR NOT NULL,
        estimate JSON NOT NULL,
        truth DOUBLE,
        PRIMARY KEY (experiment, log, policy, estimator))""",
    "experiments": """(
        experiment VARCHAR PRIMARY KEY,
        name VARCHAR NOT NULL,
        definition VARCHAR NOT NULL,
        log_hash VARCHAR NOT NULL,
        outputs_hash VARCHAR NOT NULL,
        results JSON NOT NULL,
        finished_at TIMESTAMPTZ NOT NULL)""",
}


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Create every table in an empty database and sign it with the schema version."""
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {name} {columns}")
    version = importlib.metadata.version("counterplay")
    connection.execute("INSERT INTO workspace VALUES (?, now(), ?)", [SCHEMA_VERSION, f"counterplay {version}"])


def upgrade(connection: duckdb.DuckDBPyConnection, found: int) -> None:
    """Bring a database from version `found` forward to this one; all steps in one transaction."""
    connection.execute("BEGIN")
    try:
        for step in MIGRATIONS[found - 1 :]:
            for statement in step:
                connection.execute(statement)
        connection.execute("UPDATE workspace SET schema_version = ?", [SCHEMA_VERSION])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
