"""A full disk, Ctrl-C, readers beside a writer: an import is there whole or not at all, and says what happened."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from counterplay.errors import FileError, WorkspaceBusyError
from counterplay.logs import import_decisions, list_logs, open_workspace, read_log
from counterplay.logs.troubles import interrupted
from counterplay.logs.workspace import Workspace

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_imports.py"
LIMITED = """
import resource, sys
from counterplay.errors import FileError
from counterplay.logs import import_decisions, list_logs, open_workspace
with open_workspace(sys.argv[1]) as workspace:
    workspace.connection.execute(f"SET memory_limit = '{sys.argv[4]}'")
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    try:
        import_decisions(sys.argv[2], workspace, "new")
    except FileError as error:
        print(error)
        print(list_logs(workspace))
        sys.exit(3)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of decisions that fills some megabytes of a workspace."""
    rng = np.random.default_rng(0)
    size = 200_000
    path = tmp_path / "log.parquet"
    columns = {"action": rng.integers(0, 9, size), "p": rng.random(size), "r": rng.random(size)}
    texts = pl.Series("text", rng.random(size)).cast(pl.String)
    pl.DataFrame(columns).with_columns(texts).write_parquet(path)
    return path


@pytest.fixture
def started(workspace: Workspace) -> Path:
    """A closed workspace with one log."""
    import_decisions(pl.DataFrame({"action": ["a"], "reward": [1.0]}), workspace, "old")
    workspace.close()
    return workspace.path


def as_it_was(path: Path) -> bool:
    with open_workspace(path) as opened:
        return {row["log"]: row["decisions"] for row in list_logs(opened)} == {"old": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 12 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="this system has no mount")
def test_a_disk_that_is_full_leaves_the_workspace_as_it_was(started: Path, source: Path, small_disk: Path) -> None:
    path = small_disk / "w.duckdb"
    shutil.copy(started, path)
    before = read_log(path, "old").fingerprint
    with pytest.raises(FileError, match=r"No space left.*Nothing was stored: free space"):
        import_decisions(source, path, "new")
    assert as_it_was(path)
    assert read_log(path, "old").fingerprint == before
    assert os.listdir(small_disk) == ["w.duckdb"]
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert import_decisions(source, path, "new").rows_kept == 200_000


@pytest.mark.parametrize(("room", "memory"), [(3 << 20, "4GB"), (6 << 20, "4GB"), (3 << 20, "100MB")])
def test_a_file_that_may_not_grow_leaves_the_workspace_as_it_was(
    started: Path, source: Path, room: int, memory: str
) -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(started), str(source), str(room), memory],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "no room left" in done.stdout
    assert "free space" in done.stdout
    assert "'old'" in done.stdout
    assert "'new'" not in done.stdout
    assert as_it_was(started)
    assert not [name for name in os.listdir(started.parent) if name.endswith((".wal", ".tmp"))]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.7])
def test_ctrl_c_in_the_middle_of_an_import_ends_it_soon_with_130(started: Path, source: Path, share: float) -> None:
    code = "import polars, pyarrow; from counterplay.cli import main; print('ready', flush=True); main()"
    words = ["import", "table", str(source), "--into", str(started), "--log", "new"]

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    copy = started.read_bytes()
    whole = start()
    begun = time.monotonic()
    assert whole.communicate()[0]
    length = time.monotonic() - begun
    started.write_bytes(copy)
    process = start()
    time.sleep(share * length)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    found = {row["log"]: row["decisions"] for row in list_logs(started)}
    assert found in ({"old": 1}, {"old": 1, "new": 200_000})
    assert found == {"old": 1} or share > 0.3  # what was committed before Ctrl-C came stays
    if process.returncode != 0 or share < 0.3:
        assert process.returncode == 130, errors
        assert errors == "counterplay: stopped; what was stored before is as it was.\n"


def test_ctrl_c_is_known_whatever_it_is_wrapped_in() -> None:
    wrapped = RuntimeError("Error calling __set_name__ on 'Field' instance")  # before Python 3.12
    assert not interrupted(wrapped)
    wrapped.__cause__ = KeyboardInterrupt()
    assert interrupted(wrapped)
    assert interrupted(KeyboardInterrupt())
    assert interrupted(duckdb.InterruptException("INTERRUPT Error: Interrupted!"))
    assert not interrupted(RuntimeError("something else"))


def test_a_reader_of_the_same_process_sees_nothing_of_an_import_or_all_of_it(started: Path, source: Path) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            with open_workspace(started, read_only=True) as reader:
                logs = {row["log"]: row["decisions"] for row in list_logs(reader)}
            seen.add(logs.get("new", 0))

    with open_workspace(started) as workspace:
        reader = threading.Thread(target=watch)
        reader.start()
        try:
            import_decisions(source, workspace, "new")
            time.sleep(0.2)
        finally:
            done.set()
            reader.join()
    assert seen <= {0, 200_000}
    assert 0 in seen


def test_a_reader_of_another_process_is_told_to_wait_while_an_import_writes(started: Path) -> None:
    code = """
import sys
from counterplay.errors import WorkspaceBusyError
from counterplay.logs import list_logs, open_workspace
try:
    print(list_logs(open_workspace(sys.argv[1], read_only=True, wait=0)))
except WorkspaceBusyError as error:
    print(error)
"""
    with open_workspace(started) as workspace, workspace.transaction() as connection:
        connection.execute("INSERT INTO logs VALUES ('half', 'observed', NULL, NULL, now(), true)")
        done = subprocess.run([sys.executable, "-c", code, str(started)], capture_output=True, text=True, check=True)
        assert re.search(rf"held by process {os.getpid()}\b", done.stdout)
    reader = subprocess.run([sys.executable, "-c", code, str(started)], capture_output=True, text=True, check=True)
    assert "'half'" in reader.stdout


def test_a_writer_that_meets_a_reader_waits_and_is_told_its_name(started: Path) -> None:
    code = (
        "import sys, time; from counterplay.logs import open_workspace; w = open_workspace(sys.argv[1], read_only=True)"
    )
    code += "; print('open', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(started)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(WorkspaceBusyError, match=rf"process {holder.pid}\b"):
            open_workspace(started, wait=0.2)
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
def test_imports_killed_all_along_their_way_leave_nothing_or_everything() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "6", "--rows", "30000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("violations: 0")
