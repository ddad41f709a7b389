"""The commands that take something out of a workspace, or erase it there, as a person would use them."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from counterplay.logs import import_decisions, read_log, read_texts
from tests.command import counterplay


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    rows = {
        "context_id": ["c1", "c2", "c3"],
        "action": ["a", "b", "a"],
        "reward": [1, 0, 1],
        "text": ["x1", "y2", "z3"],
    }
    import_decisions(pl.DataFrame(rows), tmp_path / "desk.duckdb", "march")
    return tmp_path


def test_what_export_writes_import_takes(desk: Path) -> None:
    done = counterplay(desk, "export", "desk.duckdb", "decisions", "--out", "d.parquet", "--log", "march")
    assert (done.returncode, done.stdout) == (0, "wrote 3 rows of decisions to d.parquet\n"), done.stderr
    again = counterplay(desk, "import", "table", "d.parquet", "--into", "new.duckdb", "--log", "march")
    assert again.returncode == 0, again.stderr
    assert read_log(desk / "new.duckdb", "march").fingerprint == read_log(desk / "desk.duckdb", "march").fingerprint


def test_an_export_that_cannot_be_done_says_why(desk: Path) -> None:
    (desk / "d.parquet").write_text("mine")
    for words, says in [
        (("decisions", "--out", "d.parquet"), "--overwrite"),
        (("decision", "--out", "e.parquet"), "Did you mean 'decisions'?"),
        (("decisions", "--out", "e.parquet", "--log", "marsh"), "Did you mean 'march'?"),
    ]:
        done = counterplay(desk, "export", "desk.duckdb", *words)
        assert done.returncode == 2
        assert says in done.stderr
    assert (desk / "d.parquet").read_text() == "mine"
    assert counterplay(desk, "export", "desk.duckdb", "decisions", "--out", "d.parquet", "--overwrite").returncode == 0


def test_contexts_are_forgotten_by_id_and_by_file(desk: Path) -> None:
    (desk / "ids.txt").write_text("c3\nc9\n")
    done = counterplay(desk, "forget", "desk.duckdb", "--log", "march", "--contexts", "c1", "ids.txt")
    assert done.returncode == 1, done.stderr
    assert "2 contexts of log 'march': 2 texts" in done.stdout
    assert "unknown: c9" in done.stdout
    assert read_texts(desk / "desk.duckdb", "march")[0] == [None, "y2", None]
    done = counterplay(desk, "forget", "desk.duckdb", "--log", "march", "--contexts", "c2")
    assert done.returncode == 0, done.stderr
