"""Reading a workspace: from tables to arrays, through Arrow, with no Python loop over rows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import numpy as np

from counterplay.errors import FileError, InputError, nearest
from counterplay.logs.attachments import attached_files
from counterplay.logs.log import Choices, Floats, Ints, Log, Longs, Outcomes, Singles
from counterplay.logs.relations import decisions_of, numbered_contexts
from counterplay.logs.workspace import Workspace, borrowed

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Place: TypeAlias = Workspace | str | os.PathLike[str]


def read_log(workspace: Place, name: str) -> Log:
    """Read a whole log. `workspace`: an open one, or a path. Errors: `InputError` when there is no log of that name."""
    with borrowed(workspace) as opened:
        connection = opened.connection
        regime, default = require_log(connection, name)
        numbered = numbered_contexts(connection, name)
        contexts = _table(connection, f"SELECT context_id, features FROM ({numbered}) ORDER BY row")
        actions = _table(connection, "SELECT label, features FROM actions WHERE log = $log ORDER BY action", log=name)
        decisions = _table(
            connection,
            f"""SELECT coalesce(decision_id, '#' || position) AS decision_id, c.row AS context,
                coalesce(action, -1) AS action, propensity, reward, cost, cluster, candidates
                FROM {decisions_of(connection, name)} d JOIN ({numbered}) c USING (context_id) ORDER BY position""",
        )
        return Log(
            name=name,
            regime=regime,
            decision_ids=decisions["decision_id"].to_pylist(),
            context=_numbers(decisions["context"]),
            context_ids=contexts["context_id"].to_pylist(),
            context_features=features_of(contexts["features"], "contexts"),
            action_labels=actions["label"].to_pylist(),
            action_features=features_of(actions["features"], "actions"),
            candidates=_padded(decisions["candidates"], "candidates"),
            action=_numbers(decisions["action"]),
            propensity=_floats(decisions["propensity"]),
            reward=_floats(decisions["reward"]),
            cost=_floats(decisions["cost"]),
            cluster=_codes(decisions["cluster"]),
            outcomes=_outcomes(connection, name, default, len(contexts)),
        )


def read_choices(workspace: Place, log: str, policy: str) -> Choices:
    """Read what a fixed policy would do in each context. Errors: `InputError` for an unknown log or policy."""
    with borrowed(workspace) as opened:
        connection = opened.connection
        require_log(connection, log)
        known = connection.execute("SELECT DISTINCT policy FROM choices WHERE log = ?", [log]).fetchall()
        if (policy,) not in known:
            names = [name for (name,) in known]
            raise InputError(f"Log '{log}' has no choices of a policy '{policy}'. {nearest(policy, names)}")
        # In the order in which the policy gave them, not by probability: ties would fall differently.
        table = _table(
            connection,
            f"""SELECT list(action ORDER BY rank) AS actions, list(probability ORDER BY rank) AS probabilities
                FROM ({numbered_contexts(connection, log)}) c LEFT JOIN
                    (SELECT context_id, action, probability, rank FROM choices WHERE log = $log AND policy = $policy)
                    USING (context_id) GROUP BY c.row ORDER BY c.row""",
            log=log,
            policy=policy,
        )
        return Choices(
            log=log,
            policy=policy,
            actions=rectangle(table["actions"], -1, np.int32),
            probabilities=rectangle(table["probabilities"], 0.0, np.float64),
        )


def list_logs(workspace: Place) -> list[dict[str, Any]]:
    """One row a log, by name: log, regime, description, and how many rows each of its tables has.

    `contexts` is None for a log whose contexts carry nothing: they are as many as its decisions have context ids.
    `decisions` is None for an attached log whose files are not what they were.
    """
    with borrowed(workspace) as opened:
        counts = ", ".join(
            f"(SELECT count(*) FROM {table} t WHERE t.log = logs.log) AS {table}"
            for table in ("contexts", "actions", "decisions", "outcomes", "quarantine")
        )
        table = _table(
            opened.connection, f"SELECT log, regime, description, stores_contexts, {counts} FROM logs ORDER BY log"
        )
        rows = list(table.to_pylist())
        for row in rows:
            if not row.pop("stores_contexts"):
                row["contexts"] = None
            if attached_files(opened.connection, row["log"]):
                row["decisions"] = _count_attached(opened.connection, row["log"])
        return rows


def _count_attached(connection: duckdb.DuckDBPyConnection, log: str) -> int | None:
    try:
        return int(connection.execute(f"SELECT count(*) FROM {decisions_of(connection, log)}").fetchall()[0][0])
    except FileError:
        return None


def read_texts(workspace: Place, name: str) -> tuple[list[str | None], list[str | None]]:
    """The texts of a log's contexts (C) and of its actions (K), in the order of the arrays of `read_log`."""
    with borrowed(workspace) as opened:
        require_log(opened.connection, name)
        numbered = numbered_contexts(opened.connection, name)
        contexts = _table(opened.connection, f"SELECT text FROM ({numbered}) ORDER BY row")
        actions = _table(opened.connection, "SELECT text FROM actions WHERE log = $log ORDER BY action", log=name)
        return contexts["text"].to_pylist(), actions["text"].to_pylist()


def read_quarantine(workspace: Place, log: str) -> pl.DataFrame:
    """The rejected rows of a log: source, line (from 1), reason, row (JSON text), by source and line."""
    import polars as pl

    with borrowed(workspace) as opened:
        require_log(opened.connection, log)
        table = _table(
            opened.connection,
            """SELECT source, line, reason, CAST(row AS VARCHAR) AS row FROM quarantine WHERE log = $log
               ORDER BY source, line, reason, row""",
            log=log,
        )
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame


def require_log(connection: duckdb.DuckDBPyConnection, name: str) -> tuple[str, float]:
    """The regime and the default reward (NaN: none) of a log; `InputError` with the nearest name when there is none."""
    rows = connection.execute("SELECT regime, default_reward FROM logs WHERE log = ?", [name]).fetchall()
    if not rows:
        known = [found for (found,) in connection.execute("SELECT log FROM logs").fetchall()]
        raise InputError(f"The workspace has no log '{name}'. {nearest(name, known)}")
    regime, default = rows[0]
    return regime, float("nan") if default is None else float(default)


def _table(connection: duckdb.DuckDBPyConnection, query: str, **values: str) -> pa.Table:
    return connection.sql(query, params=values or None).to_arrow_table().combine_chunks()


def _outcomes(connection: duckdb.DuckDBPyConnection, name: str, default: float, contexts: int) -> Outcomes | None:
    table = _table(
        connection,
        f"""SELECT c.row AS context, action, reward
            FROM outcomes o JOIN ({numbered_contexts(connection, name)}) c USING (context_id)
            WHERE o.log = $log ORDER BY c.row, action""",
        log=name,
    )
    if len(table) == 0 and np.isnan(default):
        return None
    counts = np.bincount(_numbers(table["context"]), minlength=contexts)
    return Outcomes(
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        actions=_numbers(table["action"]),
        rewards=_floats(table["reward"]),
        default=default,
    )


def _numbers(column: pa.ChunkedArray) -> Ints:
    numbers: Ints = column.to_numpy()
    return numbers.astype(np.int32, copy=False)


def _floats(column: pa.ChunkedArray) -> Floats:
    floats: Floats = column.to_numpy()  # NULL becomes NaN
    return floats.astype(np.float64, copy=False)


def _codes(column: pa.ChunkedArray) -> Longs:
    """Codes in the order of first appearance; each NULL gets a code of its own after those."""
    encoded = column.combine_chunks().dictionary_encode()
    missing = encoded.is_null().to_numpy(zero_copy_only=False)
    codes: Longs = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    codes[missing] = len(encoded.dictionary) + np.arange(np.count_nonzero(missing))
    return codes


def features_of(column: pa.ChunkedArray, what: str) -> Singles | None:
    """A column of lists of one length as a matrix; None when no row has any."""
    if column.null_count == len(column):
        return None
    lists = column.combine_chunks()
    flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    width, rest = divmod(len(flat), len(lists))
    if column.null_count or rest or not (np.diff(lists.offsets.to_numpy()) == width).all():
        raise InputError(
            f"The {what} do not all have the same number of features. Import them again with equal lengths."
        )
    return flat.reshape(len(lists), width)


def _padded(column: pa.ChunkedArray, what: str) -> Ints | None:
    if column.null_count == len(column):
        return None
    if column.null_count:
        raise InputError(f"Some decisions have {what} and some have none. Import the log again with all or none.")
    matrix: Ints = rectangle(column, -1, np.int32)
    return matrix


def rectangle(column: pa.ChunkedArray, fill: float, kind: Any) -> Any:
    """A column of lists as a matrix as wide as the longest (at least 1), the rest filled."""
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    sizes = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    matrix = np.full((len(lists), max(1, int(sizes.max(initial=0)))), fill, dtype=kind)
    values = lists.flatten().fill_null(fill).to_numpy(zero_copy_only=False)
    matrix[np.arange(matrix.shape[1]) < sizes[:, None]] = values
    return matrix
