"""The workspace file: who may open it, what is refused, and that a file of somebody else's is never touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from counterplay.errors import (
    FileError,
    NewerWorkspaceError,
    NotAWorkspaceError,
    WorkspaceBusyError,
    WorkspaceError,
)
from counterplay.logs import list_logs, open_workspace, schema

HOLD = """
import sys, time
from counterplay.logs import open_workspace
with open_workspace(sys.argv[1], read_only=sys.argv[3] == "read") as workspace:
    print("open", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float, how: str = "write") -> subprocess.Popen[str]:
    """A process that has opened the workspace and keeps it for so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds), how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_new_path_becomes_an_empty_workspace_with_every_table(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w.duckdb") as workspace:
        tables = {name for (name,) in workspace.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        assert set(schema.TABLES) <= tables
        assert list_logs(workspace) == []
    assert os.listdir(tmp_path) == ["w.duckdb"]


@pytest.mark.parametrize(
    "content", [b"", b"hi", b"context,action,reward\n" * 1000, b"SQLite format 3\0" + b"\0" * 5000]
)
@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_workspace_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes, read_only: bool
) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    with pytest.raises(NotAWorkspaceError, match="left as it is"):
        open_workspace(path, read_only=read_only)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_a_database_without_our_tables_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE workspace (name VARCHAR)")
    before = path.read_bytes()
    with pytest.raises(NotAWorkspaceError, match="without Counterplay's tables"):
        open_workspace(path)
    assert path.read_bytes() == before


def test_a_workspace_cut_short_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(NotAWorkspaceError, match="cut short"):
        open_workspace(path)
    assert path.stat().st_size == 20000


def test_a_workspace_of_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_workspace(path) as workspace:
        workspace.connection.execute("UPDATE workspace SET schema_version = 999")
    with pytest.raises(NewerWorkspaceError, match=rf"999.*{schema.SCHEMA_VERSION}.*Upgrade"):
        open_workspace(path)


def test_an_older_workspace_is_brought_forward_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    steps = (
        *schema.MIGRATIONS,
        ("ALTER TABLE logs ADD COLUMN a INTEGER",),
        ("UPDATE logs SET a = 1", "SELECT a FROM logs"),
    )
    version = 1 + len(steps)
    monkeypatch.setattr(schema, "MIGRATIONS", steps)
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version)
    with pytest.raises(WorkspaceError, match="once for writing"):
        open_workspace(path, read_only=True)
    with open_workspace(path) as workspace:
        assert workspace.connection.execute("SELECT schema_version FROM workspace").fetchall() == [(version,)]
        assert workspace.connection.execute("SELECT a FROM logs").fetchall() == []


def test_a_step_forward_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, ("DROP TABLE curves", "SELECT no_such_column")))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)
    with pytest.raises(duckdb.Error):
        open_workspace(path)
    monkeypatch.undo()
    with open_workspace(path) as workspace:
        assert workspace.connection.execute("SELECT count(*) FROM curves").fetchall() == [(0,)]


def test_an_absent_workspace_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no workspace at"):
        open_workspace(tmp_path / "none.duckdb", read_only=True)
    assert os.listdir(tmp_path) == []


def test_a_folder_and_a_path_in_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        open_workspace(tmp_path)
    with pytest.raises(FileError, match="does not exist"):
        open_workspace(tmp_path / "no" / "w.duckdb")


def test_a_second_writer_waits_and_is_then_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    holder = hold(path, 60)
    try:
        start = time.monotonic()
        with pytest.raises(WorkspaceBusyError, match=rf"process {holder.pid}\b"):
            open_workspace(path, wait=0.3)
        assert time.monotonic() - start >= 0.3
        with pytest.raises(WorkspaceBusyError, match=rf"process {holder.pid}\b"):
            open_workspace(path, read_only=True, wait=0)
    finally:
        end(holder)
    open_workspace(path, wait=5).close()


def test_a_second_writer_goes_on_when_the_first_one_finishes_in_time(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    holder = hold(path, 0.5)
    with open_workspace(path, wait=20) as workspace:
        assert list_logs(workspace) == []
    assert holder.wait(10) == 0
    end(holder)


def test_many_readers_share_a_workspace(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    holder = hold(path, 60, "read")
    try:
        assert list_logs(path) == []
    finally:
        end(holder)


def test_a_reader_joins_the_writer_of_its_own_process(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    with open_workspace(path):
        assert list_logs(path) == []
    with open_workspace(path, read_only=True), pytest.raises(WorkspaceBusyError, match="this process"):
        open_workspace(path)


def test_who_reads_beside_a_writer_of_its_own_process_leaves_the_writers_lock_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    other = "import sys; from counterplay.logs import open_workspace; open_workspace(sys.argv[1], wait=0)"
    with open_workspace(path):
        list_logs(path)
        open_workspace(path).close()
        done = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False)
        assert "WorkspaceBusyError" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="this system has no /proc")
def test_who_is_told_to_wait_reads_the_command_that_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    holder = hold(path, 60)
    try:
        with pytest.raises(WorkspaceBusyError, match=rf"process {holder.pid} \(.*python.* -c import sys"):
            open_workspace(path, wait=0)
    finally:
        end(holder)


@pytest.mark.parametrize("name", ["workspace", "logs", "decisions", "Contexts", "quarantine"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_view_in_the_place_of_a_table_is_refused(tmp_path: Path, name: str, read_only: bool) -> None:
    path, secret = tmp_path / "w.duckdb", tmp_path / "secret"
    secret.write_text("1")
    open_workspace(path).close()
    with duckdb.connect(path) as connection:
        connection.execute(f"DROP TABLE {name}")
        connection.execute(f"CREATE VIEW {name} AS SELECT *, content AS log FROM read_text('{secret}')")
    before = path.read_bytes()
    with pytest.raises(NotAWorkspaceError, match=rf"view '{name}'.*do not trust"):
        open_workspace(path, read_only=read_only)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "macro",
    [
        "md5(a) AS 'the same'",
        "current_database() AS 'elsewhere'",
        "duckdb_views() AS TABLE SELECT NULL AS view_name WHERE false",
        "duckdb_functions() AS TABLE SELECT NULL AS function_name WHERE false",
        "read_parquet(a) AS TABLE SELECT * FROM read_text('/etc/hostname')",
    ],
)
def test_a_macro_that_stands_in_for_a_function_is_refused(tmp_path: Path, macro: str) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE MACRO {macro}")
    with pytest.raises(NotAWorkspaceError, match=f"macro '{macro.partition('(')[0]}'"):
        open_workspace(path)


def test_tables_and_views_of_the_users_own_are_welcome(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE notes (note VARCHAR)")
        connection.execute("CREATE VIEW mine AS SELECT log FROM decisions")
    with open_workspace(path) as workspace:
        assert workspace.connection.execute("FROM mine").fetchall() == []


def test_a_transaction_that_fails_leaves_nothing_even_inside_another(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w.duckdb") as workspace:

        def insert(run: str) -> None:
            workspace.connection.execute("INSERT INTO curves VALUES (?, 'reward', 1, 1.0)", [run])

        def fail_after_inner() -> None:
            with workspace.transaction():
                with workspace.transaction():
                    insert("inner")
                raise KeyError

        with pytest.raises(KeyError):
            fail_after_inner()
        with workspace.transaction():
            insert("kept")
        assert workspace.connection.execute("SELECT run FROM curves").fetchall() == [("kept",)]


def test_what_is_opened_read_only_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    open_workspace(path).close()
    with open_workspace(path, read_only=True) as workspace, pytest.raises(duckdb.Error, match="read-only"):
        workspace.connection.execute("INSERT INTO curves VALUES ('a', 'reward', 1, 1.0)")
