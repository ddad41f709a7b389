"""Decisions that come again: equal rows, repeated contexts, clusters. Groups are told apart by 64 bits of a hash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay.logs.health.model import Groups, Repeats
from counterplay.logs.health.scan import Scan, drawn, thin
from counterplay.logs.health.thresholds import EXACT_ROWS
from counterplay.logs.relations import contexts_of, decisions_of

# All columns of a decision but its name and place.
_CONTENT = (
    "context_id, action, propensity, reward, cost, cluster, timestamp, candidates, episode, step, parent, depth, kind, "
    "candidate_propensities"
)


def describe_repeats(scan: Scan, totals: Mapping[str, Any]) -> Repeats:
    """What is told of repeats; three or four scans with a hash table each."""
    one_in = thin(totals["n"], EXACT_ROWS)
    occasions = None
    if totals["timed"]:
        occasions = _groups(scan, f"{scan.rows} WHERE us IS NOT NULL", "context_id, action, us", one_in)
    stored, featured = _contexts(scan)
    return Repeats(
        contexts=_groups(scan, scan.rows, "context_id", one_in),
        rows=_rows(scan, totals, occasions, one_in),
        occasions=occasions,
        clusters=_clusters(scan, totals, one_in) if totals["clustered"] else None,
        stored_contexts=stored,
        contexts_with_features=featured,
    )


def _rows(scan: Scan, totals: Mapping[str, Any], occasions: Groups | None, one_in: int) -> Groups:
    # Equal rows have equal occasions: where no occasion comes again, the wide scan is spared.
    if occasions is not None and totals["timed"] == totals["n"] and occasions.largest == 1:
        return occasions
    return _groups(scan, decisions_of(scan.connection, scan.log), _CONTENT, one_in)


def _groups(scan: Scan, rows: str, columns: str, one_in: int) -> Groups:
    row = scan.one(
        f"""SELECT count(*) AS groups, coalesce(max(n), 0) AS largest,
            coalesce(sum(n) FILTER (n > 1), 0) AS repeated
            FROM (SELECT count(*) AS n FROM (SELECT hash({columns}) AS key FROM {rows})
                  WHERE {drawn("key", one_in)} GROUP BY key)"""
    )
    return Groups(
        groups=int(row["groups"]) * one_in,
        largest=int(row["largest"]),
        repeated=int(row["repeated"]) * one_in,
        one_in=one_in,
    )


def _clusters(scan: Scan, totals: Mapping[str, Any], one_in: int) -> Groups:
    mean, spread = totals["reward_mean"] or 0.0, totals["reward_var"]
    row = scan.one(
        f"""SELECT count(*) FILTER (named) AS groups, coalesce(max(n) FILTER (named), 0) AS largest,
            coalesce(sum(n) FILTER (named AND n > 1), 0) AS repeated,
            sum((total - rewarded * ?) ** 2) AS square, sum(rewarded) AS seen
            FROM (SELECT count(*) AS n, count(reward) AS rewarded, coalesce(sum(reward), 0) AS total,
                         any_value(named) AS named
                  FROM (SELECT reward, cluster IS NOT NULL AS named,
                               coalesce(hash(cluster), hash(position, 'alone')) AS key FROM {scan.rows})
                  WHERE {drawn("key", one_in)} GROUP BY key)""",
        [mean],
    )
    effect = row["square"] / row["seen"] / spread if row["seen"] and spread > 0 else None
    return Groups(
        groups=int(row["groups"]) * one_in,
        largest=int(row["largest"]),
        repeated=int(row["repeated"]) * one_in,
        one_in=one_in,
        design_effect=effect,
    )


def _contexts(scan: Scan) -> tuple[int, bool]:
    """How many contexts are stored, and whether they have features."""
    stored = scan.connection.execute("SELECT stores_contexts FROM logs WHERE log = ?", [scan.log]).fetchall()
    if stored and stored[0][0] is False:
        return 0, False
    row = scan.one(f"SELECT count(*) AS n, count(features) AS f FROM {contexts_of(scan.connection, scan.log)}")
    return int(row["n"]), row["f"] > 0
