"""A cache of a million outputs (20,000 with ``--quick``): look-ups, an explained miss, counting, a file and back.

The outputs are made up and small: rankings of five candidates, some 0.9 kB of request each. The number of contexts of
the log is that of the outputs, each with a stored choice. Every command runs in a process of its own, so that its time
holds the start of Python and its peak memory is its own.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, table
from large_log import run

from counterplay.logs import DecisionArrays, Workspace, open_workspace, read_choices, write_choices, write_log
from counterplay.logs.outputs import Output, explain_miss, get_outputs, put_outputs, request_key

CHUNK = 20_000


def request(i: int) -> dict[str, Any]:
    text = f"description {i} of what somebody complained about"
    return {
        "schema_version": 1,
        "operation": "loglikelihood",
        "provider": "local",
        "model": "made-up",
        "revision": "a" * 64,
        "adapter": None,
        "quantisation": "none",
        "dtype": "float32",
        "tokenizer": "b" * 64,
        "chat_template": None,
        "template": "c" * 64,
        "preamble": "",
        "sampling": None,
        "sample_index": 0,
        "prompts": [f"Category: number {(i + k) % 997}\nDiagnosis:" for k in range(5)],
        "continuations": [f" {text}"] * 5,
    }


def outputs(first: int, last: int) -> Iterator[Output]:
    for i in range(first, last):
        response = {"logprobs": [-(1 + (i * k) % 101) / 7 for k in range(5)], "tokens": [9] * 5}
        yield Output(request=request(i), response=response, provenance={"date": "2026-11-21", "engine": "none"})


def fill(place: Path, size: int) -> float:
    """A log, its choices and a full cache, stored as `generate` does it; the seconds for the cache."""
    with open_workspace(place) as workspace:
        write_log(
            workspace,
            log="log",
            regime="propensity",
            context_ids=[f"c{i}" for i in range(size)],
            action_labels=[f"a{i}" for i in range(5)],
            decisions=DecisionArrays(
                context=np.arange(size, dtype=np.int32),
                action=np.arange(size, dtype=np.int32) % 5,
                propensity=np.full(size, 0.2),
                reward=np.ones(size),
            ),
        )
        write_choices(workspace, "log", "llm", np.arange(size) % 5)
    started = time.perf_counter()
    for first in range(0, size, CHUNK):
        with opened(place) as workspace, workspace.transaction() as connection:
            put_outputs(connection, outputs(first, first + CHUNK))
    return time.perf_counter() - started


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    answer = call()
    return time.perf_counter() - started, answer


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Workspace]:
    with open_workspace(place) as workspace:
        # DuckDB takes a process that was spawned for a notebook, and would draw bars.
        workspace.connection.execute("SET enable_progress_bar = false")
        yield workspace


def program(place: Path, size: int) -> tuple[float, dict[str, float], float]:
    """The seconds of filling, those of what a program does with the workspace, and its peak memory in MB."""
    filled = fill(place, size)
    with opened(place) as workspace:
        calls = inside(workspace, size)
    return filled, calls, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def inside(workspace: Workspace, size: int) -> dict[str, float]:
    """Seconds of what a program does with an open workspace."""
    connection = workspace.connection
    wanted = [request_key(request(i)) for i in np.random.default_rng(0).integers(0, size, CHUNK).tolist()]
    bulk, found = seconds_of(lambda: get_outputs(connection, wanted))
    assert len(found) == len(set(wanted))
    chunk, found = seconds_of(lambda: get_outputs(connection, wanted[:1024]))
    assert len(found) == len(set(wanted[:1024]))
    settings, miss = seconds_of(lambda: explain_miss(connection, {**request(size // 2), "dtype": "bfloat16"}))
    assert set(miss.fields) == {"dtype"}
    other = {**request(size // 3), "prompts": ["another text"] * 5}
    text, miss = seconds_of(lambda: explain_miss(connection, other))
    assert set(miss.fields) == {f"prompts[{k}]" for k in range(5)}
    start, choices = seconds_of(lambda: read_choices(workspace, "log", "llm"))
    assert len(choices.actions) == size
    return {
        f"look up {CHUNK:,}": bulk,
        "look up 1,024": chunk,
        "explain another setting": settings,
        "explain another text": text,
        "load the choices": start,
    }


def main() -> None:
    size = 20_000 if arguments(__doc__).quick else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        place, file, other = (str(Path(folder) / name) for name in ("log.duckdb", "cache.parquet", "other.duckdb"))
        # In a process of its own: Linux counts the peak of a parent as that of its children.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            filled, calls, memory = pool.apply(program, (Path(place), size))
        (Path(folder) / "request.json").write_text(json.dumps({**request(0), "dtype": "bfloat16"}))
        commands = {
            "cache stats": ("stats", place),
            "cache explain": ("explain", place, str(Path(folder) / "request.json")),
            "cache export": ("export", place, file),
            "cache import": ("import", file, "--into", other),
            "cache import, again": ("import", file, "--into", other),
            "cache verify": ("verify", place),
        }
        found = {name: run("cache", *words) for name, words in commands.items()}
        megabytes = {"workspace": os.path.getsize(place) / 1e6, "file": os.path.getsize(file) / 1e6}
    rows = [["fill", f"{filled:.2f}", ""], *([name, f"{seconds:.2f}", ""] for name, seconds in calls.items())]
    rows += [["the program in all", "", f"{memory:,.0f}"]]
    rows += [[name, f"{seconds:.2f}", f"{peak:,.0f}"] for name, (seconds, peak) in found.items()]
    table([f"{size:,} outputs", "s", "peak MB"], rows)
    bulk = CHUNK / calls[f"look up {CHUNK:,}"]
    sizes = {
        "outputs": size,
        "look_ups_a_second": round(bulk),
        "explain_seconds": round(calls["explain another setting"], 3),
        "load_choices_seconds": round(calls["load the choices"], 3),
        "peak_megabytes": round(max(memory, *(peak for _, peak in found.values()))),
        "workspace_megabytes": round(megabytes["workspace"]),
        "file_megabytes": round(megabytes["file"]),
    }
    finish("output_cache", {"look_ups_over_twenty_thousand_a_second": bulk / 20_000}, sizes)


if __name__ == "__main__":
    main()
