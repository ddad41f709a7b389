"""A log that is larger than memory: the time and the peak memory of importing and checking 100 million decisions.

The decisions are those of `parquet_import`, with ten candidates each (three million with ``--quick``). Each command
runs in a process of its own, as a person would run it, so that its peak memory is its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from common import arguments, finish, table
from parquet_import import write


def run(*words: str) -> tuple[float, float]:
    """The seconds and the peak resident memory in MB of a command."""
    started = time.perf_counter()
    silence = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    command = [sys.executable, "-m", "counterplay.cli", *words]
    child = os.posix_spawn(sys.executable, command, os.environ, file_actions=silence)
    _, status, usage = os.wait4(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1), words
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    decisions = 3_000_000 if arguments(__doc__).quick else 100_000_000
    with tempfile.TemporaryDirectory() as folder:
        source, workspace = Path(folder) / "log.parquet", str(Path(folder) / "log.duckdb")
        write(source, decisions)
        commands = {
            "import table": ("import", "table", str(source), "--into", workspace, "--log", "log"),
            "check": ("check", workspace, "--log", "log"),
            "import table, again": ("import", "table", str(source), "--into", workspace, "--log", "log"),
        }
        found = {name: run(*words) for name, words in commands.items()}
        size = os.path.getsize(workspace)
    rows = [
        [name, f"{seconds:.1f}", f"{memory:,.0f}", f"{decisions / seconds / 1e6:.2f}"]
        for name, (seconds, memory) in found.items()
    ]
    table([f"{decisions:,} decisions", "s", "peak MB", "million/s"], rows)
    sizes = {"decisions": decisions, "workspace_megabytes": round(size / 1e6)}
    sizes |= {f"peak_megabytes_{name.split(',')[0].replace(' ', '_')}": round(memory)
              for name, (_, memory) in list(found.items())[:2]}  # fmt: skip
    finish("large_log", {"check_over_import": found["check"][0] / found["import table"][0]}, sizes)


if __name__ == "__main__":
    main()
