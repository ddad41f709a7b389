"""Importing logged decisions from Parquet, against DuckDB's own CREATE TABLE AS of the same file.

Ten million made-up decisions (one million with ``--quick``): context id, action, propensity, reward, time and ten
candidates. Ours: hash the file, check every row (propensity, reward, candidates, whether the action is one of them),
number the actions, and store the log in a fresh workspace, in one transaction. Theirs: copy the columns into a table.
Also: reading the log back for replay, in its order, as frames.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from common import arguments, finish, table

from counterplay.logs import import_decisions, stream_decisions

WIDE = ("position", "action", "propensity", "reward", "candidates")


def write(path: Path, decisions: int) -> None:
    """Ten of a thousand actions are candidates; an epsilon-greedy policy, whose epsilon varies, chose among them."""
    explored = "(hash(i + 77) % 1000000) / 1e6 >= 1 - epsilon"
    duckdb.execute(
        f"""COPY (
            SELECT 'context-' || i AS context_id, CAST((first + 97 * chosen) % 1000 AS INTEGER) AS action,
                CASE chosen WHEN 0 THEN 1 - 0.9 * epsilon ELSE 0.1 * epsilon END AS propensity,
                CAST(hash(i + 9) % 10 = 0 AS DOUBLE) AS reward,
                TIMESTAMPTZ '2026-01-01 00:00:00Z' + INTERVAL (i) MILLISECOND AS timestamp,
                list_transform(range(10), lambda k: CAST((first + 97 * k) % 1000 AS INTEGER)) AS candidates
            FROM (SELECT i, first, epsilon, CASE WHEN {explored} THEN hash(i + 3) % 10 ELSE 0 END AS chosen
                FROM (SELECT i, hash(i) % 1000 AS first, 0.2 + 0.8 * (hash(i + 5) % 100000) / 1e5 AS epsilon
                    FROM range({decisions}) numbers(i)))) TO '{path}' (FORMAT parquet)"""
    )


def ours(source: Path, place: Path, decisions: int) -> None:
    report = import_decisions(source, place, "log")
    assert report.rows_kept == decisions, report


def theirs(source: Path, place: Path) -> None:
    with duckdb.connect(place) as connection:
        connection.execute(f"CREATE TABLE decisions AS SELECT * FROM '{source}'")


def read(place: Path, columns: tuple[str, ...], decisions: int) -> None:
    assert sum(map(len, stream_decisions(place, "log", columns))) == decisions


def timed(task: Callable[[], None]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def main() -> None:
    decisions = 1_000_000 if arguments(__doc__).quick else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        source, workspace, copy = (Path(folder) / name for name in ("log.parquet", "log.duckdb", "copy.duckdb"))
        write(source, decisions)
        tasks: dict[str, Callable[[], None]] = {
            "import": lambda: ours(source, workspace, decisions),
            "CREATE TABLE AS": lambda: theirs(source, copy),
            "read, four narrow columns": lambda: read(workspace, WIDE[:4], decisions),
            "read, with candidates": lambda: read(workspace, WIDE, decisions),
        }
        rounds = []
        for _ in range(3):
            for place in (workspace, copy):
                place.unlink(missing_ok=True)
            rounds.append({name: timed(task) for name, task in tasks.items()})
        size = source.stat().st_size
    found = {name: min(one[name] for one in rounds) for name in tasks}
    rows = [[name, f"{seconds:.2f}", f"{decisions / seconds / 1e6:.1f}"] for name, seconds in found.items()]
    table([f"{decisions:,} decisions", "s", "million/s"], rows)
    finish(
        "parquet_import",
        {
            "import_over_create_table_as": found["import"] / found["CREATE TABLE AS"],
            "read_million_a_second": decisions / found["read, four narrow columns"] / 1e6,
        },
        {"decisions": decisions, "megabytes": round(size / 1e6)},
    )


if __name__ == "__main__":
    main()
