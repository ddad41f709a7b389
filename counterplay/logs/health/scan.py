"""The decisions of a log as SQL with the few columns that a check needs, and the totals over all of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.logs.relations import decisions_of

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """A log to look at. `rows`: SQL for a FROM clause with one row a decision: position, decision_id, context_id,
    cluster, action, mu (NULL unless between 0 and 1), invalid, reward (NULL unless finite), us (microseconds since
    1970), size (number of candidates), candidates, candidate_propensities. `actions`: K.
    """

    connection: duckdb.DuckDBPyConnection
    log: str
    actions: int
    rows: str

    def one(self, query: str, parameters: list[Any] | None = None) -> dict[str, Any]:
        """The only row of a query, by column."""
        cursor = self.connection.execute(query, parameters or [])
        names = [column[0] for column in cursor.description or ()]
        return dict(zip(names, cursor.fetchall()[0], strict=True))

    def columns(self, query: str, parameters: list[Any] | None = None) -> dict[str, Array]:
        """All rows of a query of numbers; NULL becomes NaN."""
        found = self.connection.execute(query, parameters or []).fetchnumpy()
        return {name: np.ma.filled(np.ma.asarray(found[name], np.float64), np.nan) for name in found}


def open_scan(connection: duckdb.DuckDBPyConnection, log: str) -> Scan:
    """The scan of a log that exists."""
    (actions,) = connection.execute("SELECT count(*) FROM actions WHERE log = ?", [log]).fetchall()[0]
    # NaN compares as larger than every number, so that it is neither a propensity nor a finite reward.
    rows = f"""(SELECT position, decision_id, context_id, cluster, action,
        CASE WHEN action IS NOT NULL AND propensity > 0 AND propensity <= 1 THEN propensity END AS mu,
        propensity IS NOT NULL AND NOT (propensity > 0 AND propensity <= 1) AS invalid,
        CASE WHEN isfinite(reward) THEN reward END AS reward,
        CASE WHEN isfinite(timestamp) THEN epoch_us(timestamp) END AS us,
        coalesce(len(candidates), {int(actions)}) AS size, candidates, candidate_propensities
        FROM {decisions_of(connection, log)})"""
    return Scan(connection=connection, log=log, actions=int(actions), rows=rows)


def totals_of(scan: Scan) -> dict[str, Any]:
    """Counts, sums and extremes over all decisions: one scan."""
    totals = scan.one(
        f"""SELECT count(*) AS n, count(action) AS acted, count(mu) AS known, count(*) FILTER (invalid) AS invalid,
            count(*) FILTER (mu = 1) AS certain, min(mu) AS lowest, max(mu) AS highest,
            approx_count_distinct(mu) AS distinct,
            count(reward) AS rewarded, avg(reward) AS reward_mean, coalesce(var_samp(reward), 0) AS reward_var,
            min(reward) AS reward_low, max(reward) AS reward_high,
            count(*) FILTER (reward = 0 OR reward = 1) AS binary, count(*) FILTER (reward = 1) AS ones,
            count(us) AS timed, min(us) AS first_us, max(us) AS last_us,
            min(position) AS first_position, max(position) AS last_position,
            count(cluster) AS clustered, count(candidates) AS listed, min(size) AS size_low, avg(size) AS size_mean,
            max(size) AS size_high, count(candidate_propensities) AS distributed
            FROM {scan.rows}"""
    )
    totals["smallest"] = scan.one(f"SELECT count(*) AS found FROM {scan.rows} WHERE mu = ?", [totals["lowest"]])[
        "found"
    ]
    return totals


def thin(n: int, most: int) -> int:
    """One of how many to take so that about `most` remain of n."""
    return max(1, -(-n // most))


def drawn(column: str, one_in: int) -> str:
    """SQL: true for one of `one_in` values of a column, always the same ones."""
    return "true" if one_in == 1 else f"hash({column}, 'drawn') % {one_in} = 0"
