"""Markdown, JSON, the terminal, and files."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from counterplay.errors import ConfigurationError, FileError, InputError, UnsupportedError
from counterplay.logs.results import store_results
from counterplay.logs.workspace import open_workspace
from counterplay.reports import Timing, print_table, render_markdown, results_json, write_report, writing
from counterplay.reports.timing import timings

Results = list[dict[str, Any]]


@pytest.fixture
def stored(results: Results, monkeypatch: pytest.MonkeyPatch) -> Results:
    """A store that holds the results: what it reads is tested with the store."""

    def read(_: object, experiments: list[str] | None = None) -> tuple[Results, dict[str, tuple[Timing, ...]]]:
        return [r for r in results if experiments is None or r["experiment"] in experiments], {}

    monkeypatch.setattr(writing, "read_stored", read)
    return results


def test_markdown_tables_parse(results: Results) -> None:
    for result in results:
        result["agents"][0]["agent"] = "a|b `c` <i>d</i> *e*\nf"
    text = render_markdown(results)
    assert text == render_markdown(results)
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 7
    for table in tables:
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
        assert len({len(line) for line in lines}) == 1
        assert all(re.fullmatch(r" (:---|---:) ", cell) for cell in lines[1])
    assert "<i>" not in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_results_json_is_sorted_and_without_nan(results: Results) -> None:
    text = results_json(results)
    assert json.loads(text) == results
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    results[0]["agents"][0]["low"] = float("inf")
    with pytest.raises(InputError, match=r"agents\[0\]\.low"):
        results_json(results)


@pytest.mark.parametrize("width", [60, 100, 200])
def test_terminal_shows_the_numbers(results: Results, width: int) -> None:
    results[0]["agents"][0]["agent"] = "[red]uniform[/red]"
    file = io.StringIO()
    print_table(results, Console(file=file, width=width))
    shown = file.getvalue()
    assert ".410" in shown
    assert "“prior bandit” earned the most" in shown.replace("\n", " ")
    assert max(len(line) for line in shown.splitlines()) <= width
    assert not re.search(r"\b(nan|None)\b", shown)


def test_the_report_is_written(stored: Results, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    files = write_report("desk.duckdb", out)
    assert [file.name for file in files] == ["report.html", "report.md", "results.json"]
    assert (out / "results.json").read_text(encoding="utf-8") == results_json(stored)
    assert sorted(os.listdir(out)) == sorted(file.name for file in files)


def test_a_real_workspace_is_reported(results: Results, tmp_path: Path) -> None:
    place = tmp_path / "desk.duckdb"
    with open_workspace(place) as workspace:
        for result in results:
            store_results(workspace, result)
    files = write_report(place, tmp_path / "out")
    assert files[2].read_text(encoding="utf-8") == results_json(results)
    assert "One action logged" in files[0].read_text(encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no experiment 'x'"):
        write_report(place, tmp_path / "out", experiments=["x"])


def test_an_empty_workspace_has_no_report(tmp_path: Path) -> None:
    open_workspace(tmp_path / "desk.duckdb").close()
    with pytest.raises(UnsupportedError, match="no results to report"):
        write_report(tmp_path / "desk.duckdb", tmp_path / "out")


def test_one_file_is_of_the_format_of_its_name(stored: Results, tmp_path: Path) -> None:
    (file,) = write_report("desk.duckdb", tmp_path / "march.json", experiments=["2" * 64])
    assert json.loads(file.read_text(encoding="utf-8")) == stored[1:]


@pytest.mark.usefixtures("stored")
def test_a_failed_write_keeps_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = write_report("desk.duckdb", tmp_path, formats=["json"])
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError, match=r"results\.json cannot be written \(No space left"):
        write_report("desk.duckdb", tmp_path, formats=["json"])
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["results.json"]


def test_results_that_cannot_be_shown_write_nothing(stored: Results, tmp_path: Path) -> None:
    stored[1]["agents"][0]["average_reward"] = float("nan")
    with pytest.raises(InputError):
        write_report("desk.duckdb", tmp_path)
    assert os.listdir(tmp_path) == []


def test_wrong_requests_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'html'"):
        write_report("desk.duckdb", tmp_path, formats=["htm"])  # type: ignore[list-item]
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(FileError, match="cannot be written"):
        writing.write_whole(tmp_path / "file" / "report.html", "text")


def test_timings_add_up() -> None:
    runs = [
        {"agent": "a", "seconds": 0.5, "result": {"rounds": 100, "acceptance": None}},
        {"agent": "b", "seconds": 0.1, "result": {"rounds": 100, "acceptance": {"read": 1000}}},
        {"agent": "a", "seconds": 0.25, "result": {"rounds": 100}},
    ]
    assert timings(runs) == (
        Timing(agent="a", runs=2, seconds=0.75, decisions=200),
        Timing(agent="b", runs=1, seconds=0.1, decisions=1000),
    )
