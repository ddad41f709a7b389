"""A process that is killed in the middle of an import leaves the workspace as it was; the next one finishes the job."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.logs import Workspace, import_decisions, list_logs, open_workspace, read_log

IMPORT = """
import sys
from counterplay.logs import import_decisions, open_workspace
from counterplay.logs.decisions import table
from counterplay.logs.decisions import quarantine
if sys.argv[3] == "before-commit":
    # Everything is written, nothing committed: the last moment at which it can go wrong.
    def sign(*values, inner=table._sign):
        inner(*values)
        print("ready", flush=True)
        sys.stdin.read()
    table._sign = sign
with open_workspace(sys.argv[1]) as workspace:
    if sys.argv[3] != "before-commit":
        print("ready", flush=True)
    import_decisions(sys.argv[2], workspace, "new")
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    size = 50_000
    path = tmp_path / "log.parquet"
    pl.DataFrame({"action": rng.integers(0, 9, size), "p": rng.random(size), "r": rng.random(size)}).write_parquet(path)
    return path


@pytest.mark.parametrize("moment", ["0.02", "0.2", "before-commit"])
def test_an_import_that_is_killed_leaves_the_old_state_and_can_be_run_again(
    workspace: Workspace, source: Path, moment: str
) -> None:
    import_decisions(pl.DataFrame({"action": ["a"], "reward": [1.0]}), workspace, "old")
    before = read_log(workspace, "old").fingerprint
    workspace.close()
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORT, str(workspace.path), str(source), moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if moment != "before-commit":
        time.sleep(float(moment))
    process.kill()
    process.communicate()
    with open_workspace(workspace.path) as opened:
        decisions = {row["log"]: row["decisions"] for row in list_logs(opened)}
        # On a fast machine the import may have been complete: all or nothing, never a part.
        assert decisions in ({"old": 1}, {"old": 1, "new": 50_000})
        assert moment != "before-commit" or "new" not in decisions
        assert read_log(opened, "old").fingerprint == before
        report = import_decisions(source, opened, "new")
        assert report.rows_kept + report.rows_known == 50_000
        assert len(read_log(opened, "new").action) == 50_000
