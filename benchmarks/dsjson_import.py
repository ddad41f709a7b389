"""Importing a decision-service log (dsjson), against Vowpal Wabbit reading and learning the same file.

A million made-up events (300,000 with ``--quick``) of 10 actions, about 490 bytes each. Ours: parse, check every row,
tell actions apart, and store the log in a fresh workspace, by the features and by the position of actions. Theirs:
``vw --cb_explore_adf --dsjson``, which parses the file and learns from it, and keeps nothing of it. Also: the file
parsed by DuckDB and put nowhere, as the floor.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
from common import arguments, finish, table

from counterplay.logs.formats.dsjson import import_dsjson

TOPICS = ("politics", "sport", "music", "food", "travel", "law", "health", "film", "tech", "news")


def write(path: Path, events: int) -> None:
    """A log of an epsilon-greedy policy whose first ranked action was taken."""
    rng = np.random.default_rng(0)
    users, hours = rng.integers(0, 1000, events), rng.integers(0, 24, events)
    chosen, greedy = rng.integers(0, 10, events), rng.integers(0, 10, events)
    clicked = rng.random(events) < 0.1
    multi = ",".join(f'{{"A":{{"t":"{topic}"}}}}' for topic in TOPICS)
    with path.open("w") as file:
        for i in range(events):
            order = [chosen[i], *(action for action in range(10) if action != chosen[i])]
            p = ",".join("0.82" if action == greedy[i] else "0.02" for action in order)
            file.write(
                f'{{"_label_cost":{-1 if clicked[i] else 0},"_label_probability":{p[:4]},'
                f'"_label_Action":{chosen[i] + 1},"_labelIndex":{chosen[i]},'
                f'"Timestamp":"2024-03-01T{i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}.0Z",'
                f'"EventId":"{i:032x}","a":[{",".join(str(action + 1) for action in order)}],'
                f'"c":{{"U":{{"u":"u{users[i]}","h":{hours[i]}}},"_multi":[{multi}]}},"p":[{p}]}}\n'
            )


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """The wall seconds of a task, and its processor seconds, those of its child processes included."""
    before, started = os.times(), time.perf_counter()
    task()
    wall, after = time.perf_counter() - started, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def ours(path: Path, identify: str, events: int) -> None:
    workspace = path.with_suffix(".duckdb")
    workspace.unlink(missing_ok=True)
    report = import_dsjson(path, workspace, "log", identify=identify)
    assert report.rows_kept == events, report


def theirs(path: Path) -> None:
    """In a process of its own: the library can be used as `vw` is on the command line, which its wheel lacks."""
    code = "import sys, vowpalwabbit as v; v.Workspace(f'--cb_explore_adf --dsjson -d {sys.argv[1]} --quiet').finish()"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def floor(path: Path) -> None:
    fields = "_label_cost: 'DOUBLE', EventId: 'VARCHAR', a: 'INTEGER[]', p: 'DOUBLE[]', c: 'JSON'"
    duckdb.execute(
        f"SELECT max(_label_cost), max(EventId), max(len(a)), max(len(p)), max(len(CAST(c AS VARCHAR))) "
        f"FROM read_json(?, format = 'newline_delimited', columns = {{{fields}}})",
        [str(path)],
    ).fetchall()


def main() -> None:
    quick = arguments(__doc__).quick
    events, times = (300_000, 3) if quick else (1_000_000, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.json"
        write(path, events)
        size = path.stat().st_size
        tasks: dict[str, Callable[[], object]] = {
            "import, actions by features": lambda: ours(path, "features", events),
            "import, actions by position": lambda: ours(path, "position", events),
            "floor: DuckDB parses": lambda: floor(path),
        }
        if importlib.util.find_spec("vowpalwabbit"):
            tasks["vw reads and learns"] = lambda: theirs(path)
        else:
            print("vowpalwabbit is not installed, so only our side runs: pip install vowpalwabbit")
        # Side by side, so that both sides meet the same load of the machine; the best of each counts.
        rounds = [{name: timed(task) for name, task in tasks.items()} for _ in range(times)]
    found = {name: min(one[name] for one in rounds) for name in tasks}
    features, position, parsing, *vw = (wall for wall, _ in found.values())
    ratios = {"features_over_floor": features / parsing}
    if vw:
        ratios |= {"vw_over_features": vw[0] / features, "vw_over_position": vw[0] / position}
    rows = [
        [name, f"{wall:.2f}", f"{spent:.2f}", f"{events / wall:,.0f}", f"{size / wall / 1e6:,.0f}"]
        for name, (wall, spent) in found.items()
    ]
    table([f"{events:,} events", "s", "processor s", "events/s", "MB/s"], rows)
    finish("dsjson_import", ratios, {"events": events, "megabytes": round(size / 1e6), "vw": bool(vw)})


if __name__ == "__main__":
    main()
