"""What uniform choice would have earned, from ten million decisions, against one SQL aggregate written by hand.

The decisions are those of `parquet_import` in a workspace, with ten candidates each (one million with ``--quick``;
``--rows`` says how many). Ours: `evaluate_log` by IPS and SNIPS, with intervals, diagnostics and gate, and the results
stored. Theirs: one aggregate in DuckDB that gives IPS and its variance and nothing else. Then 20 values of a parameter
against one, 100 policies that always take one action against one, and the peak memory of `counterplay evaluate` in a
process of its own.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
from common import finish, table
from large_log import run
from parquet_import import write

from counterplay.logs import import_decisions, open_workspace
from counterplay.logs.chunks import stream_chunks
from counterplay.logs.survey import survey_log
from counterplay.replay.evaluation import evaluate_log

BY_HAND = """SELECT count(*), avg(w * reward), sqrt(var_samp(w * reward) / count(*))
    FROM (SELECT 1.0 / len(candidates) / propensity AS w, reward FROM decisions WHERE log = 'log')"""
ROUNDS = 3

GRIDS = {"clipped_ips": np.geomspace(1, 100, 20), "subgaussian_ips": np.geomspace(1e-3, 1, 20)}


def ours(place: Path) -> tuple[float, float]:
    row = evaluate_log(place, "log", "uniform", ("ips", "snips")).estimates[0]
    return row["value"], row["std_error"]


def theirs(place: Path) -> tuple[float, float]:
    with duckdb.connect(place, read_only=True) as connection:
        ((_, value, error),) = connection.execute(BY_HAND).fetchall()
    return value, error


def grown(place: Path) -> dict[str, Callable[[], object]]:
    """One value of a parameter and 20; one policy and 100."""
    works: dict[str, Callable[[], object]] = {}
    for name, values in GRIDS.items():
        grid = [f"{name}({value:.4g})" for value in values]
        works[f"{name}, 1 value"] = partial(evaluate_log, place, "log", "uniform", grid[10])
        works[f"{name}, 20 values"] = partial(evaluate_log, place, "log", "uniform", grid)
    with open_workspace(place, read_only=True) as workspace:
        policies = [f"always={label}" for label in survey_log(workspace, "log").action_labels[:100]]
    works["1 policy"] = partial(evaluate_log, place, "log", policies[:1], ("ips", "snips"))
    works["100 policies"] = partial(evaluate_log, place, "log", policies, ("ips", "snips"))
    return works


def read(place: Path) -> None:
    """Only the scans: the survey, and the chunks that are folded."""
    with open_workspace(place, read_only=True) as workspace:
        survey = survey_log(workspace, "log")
        assert sum(map(len, stream_chunks(workspace, survey, candidates=False))) == survey.decisions


def timed(task: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    found = task()
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a million decisions; within 45 seconds on 2 cores")
    parser.add_argument("--rows", type=int, help="so many decisions; default: ten million")
    options = parser.parse_args()
    decisions = options.rows or (1_000_000 if options.quick else 10_000_000)
    with tempfile.TemporaryDirectory() as folder:
        source, place = Path(folder) / "log.parquet", Path(folder) / "log.duckdb"
        write(source, decisions)
        import_decisions(source, place, "log")
        source.unlink()
        tasks: dict[str, Callable[[], object]] = {
            "evaluate_log": lambda: ours(place),
            "survey and chunks, read only": lambda: read(place),
            "SQL by hand": lambda: theirs(place),
        }
        tasks["evaluate_log"]()  # the first time some of it is compiled
        rounds = [{name: timed(task) for name, task in tasks.items()} for _ in range(ROUNDS)]
        answers = [rounds[0][name][1] for name in ("evaluate_log", "SQL by hand")]
        for one, other in zip(*answers, strict=True):  # type: ignore[call-overload]
            assert math.isclose(one, other, rel_tol=1e-9), answers
        growth = grown(place)
        repeats = [{name: timed(task)[0] for name, task in growth.items()} for _ in range(ROUNDS - 1)]
        seconds, memory = run(
            "evaluate", str(place), "--log", "log", "--policy", "uniform", "--estimators", "ips", "snips"
        )
    found = {name: min(one[name][0] for one in rounds) for name in tasks}
    rows = [[name, f"{took:.2f}", f"{decisions / took / 1e6:.1f}", ""] for name, took in found.items()]
    grew = {name: min(one[name] for one in repeats) for name in growth}
    rows += [[name, f"{took:.2f}", f"{decisions / took / 1e6:.1f}", ""] for name, took in grew.items()]
    rows.append(["counterplay evaluate", f"{seconds:.2f}", f"{decisions / seconds / 1e6:.1f}", f"{memory:,.0f}"])
    table([f"{decisions:,} decisions", "s", "million/s", "peak MB"], rows)
    finish(
        "evaluate_log",
        {
            "evaluate_log_over_sql_by_hand": found["evaluate_log"] / found["SQL by hand"],
            **{f"{name}_20_over_1": grew[f"{name}, 20 values"] / grew[f"{name}, 1 value"] for name in GRIDS},
            "policies_100_over_1": grew["100 policies"] / grew["1 policy"],
        },
        {"decisions": decisions, "peak_megabytes": round(memory)},
    )


if __name__ == "__main__":
    main()
