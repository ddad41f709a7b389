"""What one scan says of a log before it is read: how many decisions it has, and what all of them have."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import duckdb

from counterplay.errors import InputError
from counterplay.logs.attachments import attached_files
from counterplay.logs.reading import Place, require_log
from counterplay.logs.relations import contexts_of, decisions_of
from counterplay.logs.sources.source import literal
from counterplay.logs.workspace import borrowed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """A log, counted.

    `action_labels`: K of them, in the order of their indices. `stored`: the policies whose choices are stored.
    `acted`, `rewarded`, `propensities`, `clustered`: how many of the `decisions` have a logged action, a finite reward,
    a finite propensity, a cluster; `clusters`: how many clusters there are. `widest`: the most actions that a decision
    allows. `candidates`, `distributions`: whether decisions list the actions allowed, and the probability of each.
    `features`: whether contexts have any. `outcomes`: whether there is an outcome table.

    `hash` changes with every decision, reward, propensity and cluster, and with every import. Numbers are hashed by
    DuckDB, so another version of it may give another hash.
    """

    log: str
    regime: str
    decisions: int
    action_labels: tuple[str, ...]
    stored: tuple[str, ...]
    acted: int
    rewarded: int
    propensities: int
    clustered: int
    clusters: int
    widest: int
    candidates: bool
    distributions: bool
    features: bool
    outcomes: bool
    hash: str

    @property
    def grouped(self) -> bool:
        """Whether some cluster has two decisions."""
        return self.clusters < self.clustered


def survey_log(workspace: Place, log: str) -> Survey:
    """Count what a log has: one scan of its decisions, two where they have clusters.

    Errors: `InputError` for an unknown log, and for one in which only some decisions have candidates.
    """
    with borrowed(workspace) as opened, opened.connection.cursor() as connection:
        regime, default = require_log(connection, log)
        labels = _column(connection, "SELECT label FROM actions WHERE log = ? ORDER BY action", log)
        rows = decisions_of(connection, log)
        counts = _counts(connection, rows)
        n = counts["decisions"]
        if counts["listed"] not in (0, n):
            raise InputError(
                "Some decisions have candidates and some have none. Import the log again with all or none."
            )
        return Survey(
            log=log,
            regime=regime,
            decisions=n,
            action_labels=labels,
            stored=_column(connection, "SELECT DISTINCT policy FROM choices WHERE log = ? ORDER BY policy", log),
            clusters=_clusters(connection, rows) if counts["clustered"] else 0,
            widest=len(labels) if counts["widest"] is None else counts["widest"],
            candidates=bool(counts["listed"]),
            distributions=n > 0 and counts["distributed"] == n,
            features=_has_features(connection, log),
            outcomes=default == default or _any(connection, f"SELECT 1 FROM outcomes WHERE log = {literal(log)}"),
            hash=_hash(connection, log, [regime, labels, n, str(counts["mixed"]), str(counts["summed"])]),
            **{name: counts[name] for name in ("acted", "rewarded", "propensities", "clustered")},
        )


def choices_hash(workspace: Place, log: str, policy: str) -> str:
    """A hash of what a stored policy would do in every context of a log, in whatever order the rows lie."""
    with borrowed(workspace) as opened:
        found = opened.connection.execute(
            """SELECT count(*), bit_xor(h), sum(h) FROM
               (SELECT hash(context_id, rank, action, probability) AS h FROM choices WHERE log = ? AND policy = ?)""",
            [log, policy],
        ).fetchall()
    return hashlib.sha256(json.dumps([str(value) for value in found[0]]).encode()).hexdigest()


def count_not_allowed(workspace: Place, log: str, action: int) -> int:
    """In how many decisions of a log that lists candidates an action is none of them."""
    with borrowed(workspace) as opened, opened.connection.cursor() as connection:
        rows = decisions_of(connection, log)
        query = f"SELECT count(*) FROM {rows} WHERE NOT list_contains(candidates, ?)"
        return int(connection.execute(query, [action]).fetchall()[0][0])


def _counts(connection: duckdb.DuckDBPyConnection, rows: str) -> dict[str, Any]:
    # Two sums over hashes, so that neither swapped nor repeated rows go unnoticed; `position` is part of each.
    cursor = connection.execute(
        f"""SELECT count(*) AS decisions, count(action) AS acted, count(*) FILTER (isfinite(reward)) AS rewarded,
            count(*) FILTER (isfinite(propensity)) AS propensities, count(cluster) AS clustered,
            count(candidates) AS listed, max(len(candidates)) AS widest, count(candidate_propensities) AS distributed,
            bit_xor(h) AS mixed, sum(h) AS summed
            FROM (SELECT *, hash(position, action, propensity, reward, cluster) AS h FROM {rows})"""
    )
    names = [column[0] for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchall()[0], strict=True))


def _clusters(connection: duckdb.DuckDBPyConnection, rows: str) -> int:
    return int(connection.execute(f"SELECT count(DISTINCT cluster) FROM {rows}").fetchall()[0][0])


def _has_features(connection: duckdb.DuckDBPyConnection, log: str) -> bool:
    return _any(connection, f"SELECT 1 FROM {contexts_of(connection, log)} WHERE features IS NOT NULL")


def _hash(connection: duckdb.DuckDBPyConnection, log: str, parts: list[Any]) -> str:
    """With the sources: what an import brings besides these numbers (candidates, features) changes them."""
    sources = connection.execute(
        """SELECT sha256, CAST(mapping AS VARCHAR), rows_kept FROM sources WHERE log = ? AND rows_kept > 0
           ORDER BY ALL""",
        [log],
    ).fetchall()
    files = [file.sha256 for file in attached_files(connection, log)]
    return hashlib.sha256(json.dumps([*parts, sources, files]).encode()).hexdigest()


def _column(connection: duckdb.DuckDBPyConnection, query: str, log: str) -> tuple[str, ...]:
    return tuple(value for (value,) in connection.execute(query, [log]).fetchall())


def _any(connection: duckdb.DuckDBPyConnection, query: str) -> bool:
    return connection.execute(f"{query} LIMIT 1").fetchall() != []
