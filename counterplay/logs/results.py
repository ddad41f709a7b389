"""Results of experiments: stored whole in one transaction, replacing what the same experiment left before."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from counterplay.errors import InputError
from counterplay.logs.reading import Place
from counterplay.logs.workspace import Workspace, borrowed

Row = dict[str, Any]

_RUN = ("run", "log", "method", "agent", "seed", "configuration", "result", "seconds")
_AT_ONCE = 200


def store_results(workspace: Workspace, results: Mapping[str, Any], runs: Iterable[Mapping[str, Any]] = ()) -> None:
    """Store the results of an experiment (`docs/contracts.md`), and its runs.

    A run: `run` (its id), `log`, `method`, `agent`, `seed`, `configuration` and `result` (for JSON), `seconds`, and
    `curves`: quantity to (round, value) pairs. Runs are taken a few at a time, so that they may come from a generator.
    Beside the whole, runs, curves and estimates stand in tables of their own, for SQL. Errors: `InputError` for what
    cannot be stored as JSON, and for two runs of one id; nothing is stored then.
    """
    name = results["experiment"]
    header = [name, results["name"], _json(results["definition"]), results["log"]["hash"], results["outputs_hash"]]
    with workspace.transaction() as connection:
        connection.execute("DELETE FROM curves WHERE run IN (SELECT run FROM runs WHERE experiment = ?)", [name])
        for table in ("runs", "estimates", "experiments"):
            connection.execute(f"DELETE FROM {table} WHERE experiment = ?", [name])
        connection.execute("INSERT INTO experiments VALUES (?, ?, ?, ?, ?, ?, now())", [*header, _json(results)])
        try:
            _insert_estimates(connection, name, results)
            rest = iter(runs)
            while some := list(itertools.islice(rest, _AT_ONCE)):
                _insert_runs(connection, name, some)
                _insert_curves(connection, some)
        except duckdb.ConstraintException as error:
            raise InputError("Two runs or two estimates have the same name: give every agent its own.") from error


def read_experiments(workspace: Place) -> list[Row]:
    """The results of all experiments as they were stored, the first finished first."""
    with borrowed(workspace) as opened:
        rows = opened.connection.execute("SELECT results FROM experiments ORDER BY finished_at, experiment").fetchall()
    return [json.loads(results) for (results,) in rows]


def read_runs(workspace: Place, experiment: str) -> list[Row]:
    """The runs of an experiment by log, method, agent and seed; `configuration` and `result` as they were given."""
    with borrowed(workspace) as opened:
        rows = opened.connection.execute(
            f"SELECT {', '.join(_RUN)} FROM runs WHERE experiment = ? ORDER BY log, method, agent, seed", [experiment]
        ).fetchall()
    named = [dict(zip(_RUN, row, strict=True)) for row in rows]
    return [row | {key: json.loads(row[key]) for key in ("configuration", "result")} for row in named]


def read_curves(workspace: Place, run: str) -> dict[str, list[tuple[int, float]]]:
    """The curves of one run: quantity to (round, value) pairs, rounds rising."""
    with borrowed(workspace) as opened:
        rows = opened.connection.execute(
            "SELECT quantity, round, value FROM curves WHERE run = ? ORDER BY quantity, round", [run]
        ).fetchall()
    curves: dict[str, list[tuple[int, float]]] = {}
    for quantity, at, value in rows:
        curves.setdefault(quantity, []).append((at, value))
    return curves


def _flat(run: Mapping[str, Any], experiment: str) -> list[Any]:
    plain = [run[key] for key in ("log", "method", "agent", "seed")]
    return [run["run"], experiment, *plain, _json(run["configuration"]), _json(run["result"]), run["seconds"]]


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"A result cannot be stored as JSON: {error}. Use plain numbers, and None for no number."
        ) from error


def _insert(connection: duckdb.DuckDBPyConnection, statement: str, columns: Mapping[str, Any]) -> None:
    """Run an INSERT that selects from ``incoming``, a table of these columns."""
    import pyarrow as pa

    connection.register("incoming", pa.table(dict(columns)))
    connection.execute(statement)
    # After an error nothing can be done in this transaction, and its end takes the name away too.
    connection.unregister("incoming")


def _insert_estimates(connection: duckdb.DuckDBPyConnection, name: str, results: Mapping[str, Any]) -> None:
    rows = [
        [name, results["log"]["name"], row["policy"], row["estimator"], _json(row), row["truth"]]
        for row in results["estimates"]
    ]
    if rows:
        connection.executemany("INSERT INTO estimates VALUES (?, ?, ?, ?, ?, ?)", rows)


def _insert_runs(connection: duckdb.DuckDBPyConnection, experiment: str, runs: Sequence[Mapping[str, Any]]) -> None:
    names = ("run", "experiment", "log", "method", "agent", "seed", "configuration", "result", "seconds")
    flat = [_flat(run, experiment) for run in runs]
    columns = dict(zip(names, zip(*flat, strict=True), strict=True))
    _insert(connection, f"INSERT INTO runs SELECT {', '.join(names)}, now() FROM incoming", columns)


def _insert_curves(connection: duckdb.DuckDBPyConnection, runs: Sequence[Mapping[str, Any]]) -> None:
    import numpy as np

    curves = [(run["run"], quantity, curve) for run in runs for quantity, curve in run["curves"].items() if curve]
    if not curves:
        return
    lengths = [len(curve) for _, _, curve in curves]
    points = np.array([point for _, _, curve in curves for point in curve], np.float64)
    columns = {
        "run": _repeated([run for run, _, _ in curves], lengths),
        "quantity": _repeated([quantity for _, quantity, _ in curves], lengths),
        "round": points[:, 0].astype(np.int64),
        "value": points[:, 1],
    }
    _insert(connection, "INSERT INTO curves SELECT run, quantity, round, value FROM incoming", columns)


def _repeated(values: Sequence[str], times: Sequence[int]) -> Any:
    import numpy as np
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(np.repeat(np.arange(len(values)), times), pa.array(values))
