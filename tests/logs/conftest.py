"""A fresh workspace, and small files of logged decisions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from counterplay.logs import ImportReport, Workspace, import_decisions, open_workspace


@pytest.fixture(scope="session")
def empty_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty workspace to copy: copying is faster than creating."""
    path = tmp_path_factory.mktemp("empty") / "workspace.duckdb"
    open_workspace(path).close()
    return path


@pytest.fixture
def workspace(tmp_path: Path, empty_workspace: Path) -> Iterator[Workspace]:
    shutil.copy(empty_workspace, tmp_path / "workspace.duckdb")
    with open_workspace(tmp_path / "workspace.duckdb") as opened:
        yield opened


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of text below a header; `csv_file("id,action,...", "1,a,...", ...)`."""

    def write(*lines: str, name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def bring(workspace: Workspace) -> Callable[..., ImportReport]:
    """Import into the log 'l', and check what must hold of every report."""

    def run(source: Any, log: str = "l", **options: Any) -> ImportReport:
        report = import_decisions(source, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run
