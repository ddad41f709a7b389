"""Propensities as a distribution, and the weights with which the log would speak for a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from counterplay.errors import InputError, nearest
from counterplay.logs.health.actions import ActionTable, labels_of
from counterplay.logs.health.model import Propensities, Smallest, Support
from counterplay.logs.health.scan import Scan, drawn, thin
from counterplay.logs.health.thresholds import EXACT_ROWS, NEARLY_ALL, QUANTILE_ROWS, SUM_OFF
from counterplay.logs.sources.source import literal

LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS, NAMED = 40, 5
UNIFORM = "uniform"
# A decision without a cluster is a unit of its own.
_UNIT = "coalesce(hash(cluster), hash(position, 'alone'))"
_WEIGHED = "counterplay_weighed"


def describe_propensities(scan: Scan, totals: Mapping[str, Any], table: ActionTable) -> Propensities:
    """What is told of the propensities; three scans of their column."""
    known = totals["known"]
    one_in = thin(totals["n"], QUANTILE_ROWS)
    single = float((table.one_value * table.known)[table.known > 1].sum())
    repeated = float(table.known[table.known > 1].sum())
    return Propensities(
        known=known,
        missing=totals["n"] - known - totals["invalid"],
        invalid=totals["invalid"],
        share_one=totals["certain"] / known if known else 0.0,
        share_smallest=totals["smallest"] / known if known else 0.0,
        distinct=totals["distinct"],
        one_per_action=repeated > 0 and single >= NEARLY_ALL * repeated,
        quantiles=_quantiles(scan, totals, one_in) if known else (),
        smallest=_smallest(scan) if known else (),
        histogram=_histogram(scan, totals["lowest"], totals["highest"]) if known else (),
        sums=_sums(scan) if totals["distributed"] else None,
        one_in=one_in,
    )


def _quantiles(scan: Scan, totals: Mapping[str, Any], one_in: int) -> tuple[tuple[float, float], ...]:
    values = scan.one(
        f"SELECT quantile_cont(mu, {list(LEVELS)}) AS q FROM {scan.rows} WHERE {drawn('position', one_in)}"
    )["q"] or [math.nan] * len(LEVELS)
    # The ends are known exactly even where the rest comes from a sample.
    values = [totals["lowest"], *values[1:-1], totals["highest"]]
    return tuple(zip(LEVELS, values, strict=True))


def _smallest(scan: Scan) -> tuple[Smallest, ...]:
    rows = scan.connection.execute(
        f"""SELECT position, decision_id, action, mu FROM {scan.rows} WHERE mu IS NOT NULL
            ORDER BY mu, position LIMIT {NAMED}"""
    ).fetchall()
    labels = labels_of(scan, [action for _, _, action, _ in rows])
    return tuple(
        Smallest(position=position, decision=decision, action=labels[action], propensity=mu)
        for position, decision, action, mu in rows
    )


def _histogram(scan: Scan, low: float, high: float) -> tuple[tuple[float, float, int], ...]:
    start, width = math.log10(low), (math.log10(high) - math.log10(low)) / BINS
    if width < 1e-9:
        return ((low, high, scan.one(f"SELECT count(mu) AS n FROM {scan.rows}")["n"]),)
    rows = scan.connection.execute(
        f"""SELECT greatest(0, least({BINS - 1}, CAST(floor((log10(mu) - ?) / ?) AS INTEGER))) AS bin, count(*)
            FROM {scan.rows} WHERE mu IS NOT NULL GROUP BY bin""",
        [start, width],
    ).fetchall()
    counts = dict(rows)
    return tuple((10 ** (start + i * width), 10 ** (start + (i + 1) * width), counts.get(i, 0)) for i in range(BINS))


def _sums(scan: Scan) -> tuple[int, float, float, int, int]:
    row = scan.one(
        f"""SELECT count(total) AS n, min(total) AS low, max(total) AS high,
            count(*) FILTER (abs(total - 1) > {SUM_OFF}) AS off, count(*) FILTER (abs(entry - mu) > {SUM_OFF}) AS other
            FROM (SELECT mu, list_sum(candidate_propensities) AS total, candidate_propensities[
                CASE WHEN candidates IS NULL THEN action + 1 ELSE list_position(candidates, action) END] AS entry
                FROM {scan.rows} WHERE candidate_propensities IS NOT NULL)"""
    )
    return row["n"], row["low"], row["high"], row["off"], row["other"]


def uniform_support(scan: Scan, totals: Mapping[str, Any]) -> Support:
    """Of the policy that takes each candidate with the same probability."""
    weighed = f"(SELECT {_UNIT} AS unit, 1 / (size * mu) AS w FROM {scan.rows} WHERE mu IS NOT NULL)"
    return _support(scan, totals, UNIFORM, weighed, 0)


def policy_support(scan: Scan, totals: Mapping[str, Any], policy: str) -> Support:
    """Of a policy whose choices are stored. Errors: `InputError` when there is none of that name."""
    known = scan.connection.execute("SELECT DISTINCT policy FROM choices WHERE log = ?", [scan.log]).fetchall()
    if (policy,) not in known:
        names = [name for (name,) in known]
        raise InputError(f"Log '{scan.log}' has no choices of a policy '{policy}'. {nearest(policy, names)}")
    own = f"(SELECT * FROM choices WHERE log = {literal(scan.log)} AND policy = {literal(policy)})"
    try:
        # One join at a time, over hashes, with its result put away: two joins at once over ids do not fit into memory.
        scan.connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE {_WEIGHED} AS SELECT unit, context, coalesce(probability, 0) / mu AS w
                FROM (SELECT {_UNIT} AS unit, hash(context_id) AS context, hash(context_id, action) AS pair, mu
                      FROM {scan.rows})
                LEFT JOIN (SELECT hash(context_id, action) AS pair, probability FROM {own}) USING (pair)"""
        )
        # A context without any choice is a miss: what the policy would do there is unknown, not nothing.
        gone = scan.connection.execute(
            f"""DELETE FROM {_WEIGHED} WHERE (w = 0 OR w IS NULL)
                AND context NOT IN (SELECT DISTINCT hash(context_id) FROM {own})"""
        ).fetchall()
        return _support(scan, totals, policy, f"(SELECT * FROM {_WEIGHED} WHERE w IS NOT NULL)", int(gone[0][0]))
    finally:
        scan.connection.execute(f"DROP TABLE IF EXISTS temp.{_WEIGHED}")


def _support(scan: Scan, totals: Mapping[str, Any], policy: str, weighed: str, misses: int) -> Support:
    row = scan.one(
        f"""SELECT count(*) AS n, coalesce(sum(w), 0) AS total, coalesce(sum(w * w), 0) AS square, max(w) AS largest,
            var_samp(w) AS variance, count(*) FILTER (w > 0) AS covered FROM {weighed}"""
    )
    n, total = row["n"], row["total"]
    mean = total / n if n else None
    error = _error(scan, totals, weighed, n, mean, row["variance"])
    z = p = None
    if mean is not None and error is not None:
        z = (mean - 1) / error if error > 0 else 0.0 if abs(mean - 1) < 1e-9 else math.copysign(math.inf, mean - 1)
        p = math.erfc(abs(z) / math.sqrt(2))
    constant = min(1.0, 1 / row["largest"]) if row["largest"] else None
    return Support(
        policy=policy,
        decisions=n,
        mean=mean,
        std_error=error,
        z=z,
        p_value=p,
        effective_sample_size=total / row["square"] * total if row["square"] > 0 else 0.0,
        largest=row["largest"],
        largest_share=row["largest"] / total if total > 0 else None,
        covered=row["covered"] / n if n else 0.0,
        constant=constant,
        accepted=None if constant is None else constant * total,
        misses=misses,
    )


def _error(
    scan: Scan, totals: Mapping[str, Any], weighed: str, n: int, mean: float | None, variance: float | None
) -> float | None:
    """The standard error of the mean weight; clusters are units where the log has them."""
    if mean is None or n < 2 or variance is None:
        return None
    if not totals["clustered"]:
        return math.sqrt(max(0.0, variance) / n)
    one_in = thin(totals["n"], EXACT_ROWS)
    row = scan.one(
        f"""SELECT sum((total - size * ?) ** 2) AS square, sum(size) AS seen, count(*) AS units FROM
            (SELECT sum(w) AS total, count(*) AS size FROM {weighed} WHERE {drawn("unit", one_in)} GROUP BY unit)""",
        [mean],
    )
    if not row["seen"] or row["units"] < 2:
        return None
    units = row["units"] * one_in
    return math.sqrt(row["square"] / row["seen"] * units / (units - 1) / n)
