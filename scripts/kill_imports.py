"""Kill imports with SIGKILL and look at what each leaves behind: every other one at moments spread over the whole
length of an import, the rest at moments spread over its commit and the closing of the file.

After every kill the workspace must be as it was before, or hold the whole import; a reader beside the import must have
seen one of the two as well; and the import, run again, must end in the same log. Prints what was found, and ends with
exit code 1 if anything else was.

    python scripts/kill_imports.py --kills 50 --rows 200000
"""

from __future__ import annotations

import argparse
import collections
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from counterplay.errors import CounterplayError
from counterplay.logs import import_decisions, list_logs, open_workspace, read_log, read_quarantine

# Beside the import a thread reads without pause, and says so when it sees anything but nothing and all.
CHILD = """
import sys, threading
import polars, pyarrow
from counterplay.logs import import_decisions, list_logs, open_workspace
from counterplay.logs.decisions import table
path, source, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = threading.Event()
def watch():
    while not done.wait(0.01):
        seen = {row["log"]: row["decisions"] for row in list_logs(path)}
        if seen not in ({"old": 1}, {"old": 1, "new": rows}):
            print("half", seen, flush=True)
def sign(*words, inner=table._sign):
    inner(*words)
    print("signed", flush=True)
table._sign = sign
print("ready", flush=True)
with open_workspace(path) as workspace:
    reader = threading.Thread(target=watch)
    reader.start()
    try:
        import_decisions(source, workspace, "new")
    finally:
        done.set()
        reader.join()
print("done", flush=True)
"""
SIGNS = ("signed", "done")


@dataclass(frozen=True, kw_only=True)
class World:
    """What every import starts from and should end in."""

    folder: Path
    source: Path
    template: Path
    rows: int
    old: str
    new: str
    seconds: float
    commit: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many imports to kill (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the imported file (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        world = _world(Path(name), options.rows)
        print(
            f"{options.rows:,} rows; an import takes {world.seconds:.2f} s from opening the workspace to closing it, "
            f"{world.commit:.2f} s of them from its last statement on"
        )
        print(f"{'killed after':<21} {'left behind, bytes':<34} {'found':<10} {'run again':<26} verdict")
        found: collections.Counter[str] = collections.Counter()
        for i in range(options.kills):
            # One moment in each of as many equal parts, so that none of them goes untried.
            state, wrong = _kill(world, bool(i % 2), (i + rng.random()) / options.kills)
            found[state] += 1
            found["violations"] += bool(wrong)
    print(", ".join(f"{state}: {count}" for state, count in sorted(found.items())))
    return 1 if found["violations"] else 0


def _world(folder: Path, rows: int) -> World:
    rng = np.random.default_rng(0)
    source = folder / "log.parquet"
    propensity = rng.random(rows)
    propensity[:: rows // 10] = 0.0
    pl.DataFrame(
        {
            "action": rng.integers(0, 99, rows),
            "p": propensity,
            "r": rng.random(rows),
            "text": [f"context {i} of {rows}" for i in rng.integers(0, rows, rows)],
        }
    ).write_parquet(source)
    template = folder / "template.duckdb"
    with open_workspace(template) as workspace:
        import_decisions(pl.DataFrame({"action": ["a"], "reward": [1.0]}), workspace, "old")
    place = folder / "w.duckdb"
    shutil.copy(template, place)
    kept = rows - int((propensity == 0).sum())
    process = _start(place, source, kept)
    times = {"ready": time.monotonic()}
    assert process.stdout is not None
    for line in process.stdout:
        times[line.strip()] = time.monotonic()
    if process.wait() or set(times) != {"ready", *SIGNS}:
        raise SystemExit(f"an import that nobody disturbed failed: {sorted(times)}")
    new, old = (read_log(place, log).fingerprint for log in ("new", "old"))
    return World(
        folder=folder,
        source=source,
        template=template,
        rows=kept,
        old=old,
        new=new,
        seconds=times["done"] - times["ready"],
        commit=times["done"] - times["signed"],
    )


def _start(place: Path, source: Path, kept: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place), str(source), str(kept)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise SystemExit("the import did not start")
    return process


def _kill(world: World, in_commit: bool, share: float) -> tuple[str, list[str]]:
    """Kill one import after that share of it, or of its commit; the state found, and what was wrong with it."""
    place = world.folder / "w.duckdb"
    for left in world.folder.glob("w.duckdb.*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    shutil.copy(world.template, place)
    process = _start(place, world.source, world.rows)
    if in_commit:
        assert process.stdout is not None
        first = process.stdout.readline()
    moment = share * (world.commit if in_commit else world.seconds)
    time.sleep(moment)
    process.kill()
    lines = [*([first] if in_commit else []), *process.communicate()[0].splitlines()]
    left = ", ".join(f"{path.name[8:]} {_size(path):,}" for path in sorted(world.folder.glob("w.duckdb*")))
    wrong = [line.strip() for line in lines if line.strip() not in SIGNS]
    state, again = "unreadable", ""
    try:
        state = _state(world, place, wrong)
        again = _again(world, place, wrong)
    except CounterplayError as error:
        wrong.append(f"{type(error).__name__}: {error}")
    when = f"{moment:.3f} s {share:>4.0%}{' of commit' if in_commit else ''}"
    print(f"{when:<21} {left:<34} {state:<10} {again:<26} {'; '.join(wrong) or 'ok'}", flush=True)
    return state, wrong


def _state(world: World, place: Path, wrong: list[str]) -> str:
    logs = {row["log"]: row for row in list_logs(place)}
    if read_log(place, "old").fingerprint != world.old:
        wrong.append("the old log has changed")
    if "new" not in logs:
        if set(logs) != {"old"}:
            wrong.append(f"logs {', '.join(logs)}")
        return "as before"
    if read_log(place, "new").fingerprint != world.new or len(read_quarantine(place, "new")) != 10:
        wrong.append(f"a part of the import: {logs['new']}")
        return "half"
    return "complete"


def _again(world: World, place: Path, wrong: list[str]) -> str:
    report = import_decisions(world.source, place, "new")
    if report.rows_kept + report.rows_known != world.rows or report.rows_quarantined != 10:
        wrong.append(f"run again: {report}")
    if read_log(place, "new").fingerprint != world.new or read_log(place, "old").fingerprint != world.old:
        wrong.append("run again, the logs are others")
    if len(read_quarantine(place, "new")) != 10:
        wrong.append("run again, the quarantine holds other rows")
    return f"{report.rows_kept:,} new, {report.rows_known:,} known"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


if __name__ == "__main__":
    sys.exit(main())
