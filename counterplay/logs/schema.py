"""The tables of a workspace, and their version.

Every table carries the column ``log`` where it belongs to one. Actions are numbered 0..K-1 within a log, in the order of
first registration; that index is what all arrays hold. ``outcomes`` is sparse: an action of a context that has no row there
has the reward ``default_reward`` of its log when that is not NULL, and is unknown when it is NULL.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

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
        created_at TIMESTAMPTZ NOT NULL)""",
    "sources": """(
        log VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        sha256 VARCHAR NOT NULL,
        mapping JSON NOT NULL,
        rows_read BIGINT NOT NULL,
        rows_kept BIGINT NOT NULL,
        rows_known BIGINT NOT NULL,
        rows_quarantined BIGINT NOT NULL,
        imported_at TIMESTAMPTZ NOT NULL)""",
    "contexts": """(
        log VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        text VARCHAR,
        features FLOAT[],
        PRIMARY KEY (log, context_id))""",
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
        decision_id VARCHAR NOT NULL,
        position BIGINT NOT NULL,
        context_id VARCHAR NOT NULL,
        action INTEGER,
        propensity DOUBLE,
        reward DOUBLE,
        cost DOUBLE,
        cluster VARCHAR,
        timestamp TIMESTAMPTZ,
        candidates INTEGER[],
        episode VARCHAR,
        step INTEGER,
        parent VARCHAR,
        depth INTEGER,
        kind VARCHAR,
        PRIMARY KEY (log, decision_id))""",
    "outcomes": """(
        log VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        action INTEGER NOT NULL,
        reward DOUBLE,
        cost DOUBLE,
        PRIMARY KEY (log, context_id, action))""",
    "choices": """(
        log VARCHAR NOT NULL,
        policy VARCHAR NOT NULL,
        context_id VARCHAR NOT NULL,
        action INTEGER NOT NULL,
        probability DOUBLE NOT NULL,
        PRIMARY KEY (log, policy, context_id, action))""",
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
        value DOUBLE NOT NULL,
        PRIMARY KEY (run, quantity, round))""",
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
        finished_at TIMESTAMPTZ NOT NULL)""",
}
