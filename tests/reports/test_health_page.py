"""The page of a log's health: safe, whole, the same bytes every time, and JSON without NaN."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from counterplay.errors import FileError
from counterplay.logs import DecisionArrays, Outcomes, open_workspace, write_choices, write_log
from counterplay.logs.health import Health, check_log
from counterplay.reports.health import health_json, print_health, render_health, write_health
from tests.reports.test_html import Page

BAD = '<script>alert(1)</script>"><img src=x onerror=alert(1)>{{ 7*7 }} $x$ & [red]_y_'


def health_of(folder: Path, *, n: int = 3000, factor: float = 1.0, name: str = "desk", **log: Any) -> Health:
    rng = np.random.default_rng(0)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    action = rng.choice(4, n, p=p)
    with open_workspace(folder / "workspace.duckdb") as workspace:
        write_log(
            workspace,
            log=name,
            regime="propensity",
            description=name,
            context_ids=[str(i % 50) for i in range(50)],
            action_labels=[name, "b", "c", "d"],
            decisions=DecisionArrays(
                context=(np.arange(n) % 50).astype(np.int32),
                action=action.astype(np.int32),
                propensity=p[action] * factor * rng.uniform(0.999, 1.0, n),
                reward=(rng.random(n) < 0.3).astype(np.float64),
                **log,
            ),
        )
        write_choices(workspace, name, BAD, np.zeros(50, np.int32))
        return check_log(workspace, name, policy=BAD)


def printed(health: Health, width: int = 100) -> str:
    target = io.StringIO()
    print_health(health, Console(file=target, width=width))
    return target.getvalue()


def test_the_page_is_the_same_byte_for_byte_well_formed_and_small(tmp_path: Path) -> None:
    health = health_of(tmp_path)
    text = render_health(health)
    assert text == render_health(health)
    assert len(text.encode()) < 1_000_000
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= set(ids)
    assert not re.search(r"url\((?!#)", text)


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    health = health_of(tmp_path, name=BAD)
    page = Page(render_health(health))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert sum(BAD in part for part in page.text) > 5
    assert "[red]_y_" in printed(health, 400)


@pytest.mark.parametrize(("factor", "chip"), [(1.0, "ok"), (0.4, "unreliable")])
def test_the_verdict_and_every_finding_are_on_the_page_and_in_the_terminal(
    tmp_path: Path, factor: float, chip: str
) -> None:
    health = health_of(tmp_path, factor=factor)
    assert health.verdict == chip
    shown = " ".join(" ".join(Page(render_health(health)).text).split())
    for finding in health.findings:
        assert finding.sentence in shown
        assert finding.code in shown
    words = printed(health, 2000)
    assert all(finding.sentence in words for finding in health.findings)
    assert all(sentence in shown and sentence in words for sentence in (*health.can, *health.cannot))


def test_no_python_or_float_words_reach_the_reader(tmp_path: Path) -> None:
    page = Page(render_health(health_of(tmp_path)))
    shown = " ".join([*page.text, *(value or "" for _, attributes in page.tags for value in attributes.values())])
    assert not re.search(r"\b(nan|None|inf|undefined|NaN)\b", shown)
    assert not re.search(r"\b(nan|None|inf|NaN)\b", printed(health_of(tmp_path)))


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_small_logs_have_a_page_too(tmp_path: Path, n: int) -> None:
    health = health_of(tmp_path, n=n)
    assert "Findings" in " ".join(Page(render_health(health)).text)
    assert printed(health, 60)
    assert json.loads(health_json(health))["decisions"] == n


def test_outcome_tables_have_their_own_table_instead_of_weights(tmp_path: Path) -> None:
    outcomes = Outcomes(
        offsets=np.arange(31) * 2, actions=np.tile(np.array([0, 1], np.int32), 30), rewards=np.arange(60) / 60
    )
    with open_workspace(tmp_path / "workspace.duckdb") as workspace:
        ids = [str(i) for i in range(30)]
        write_log(workspace, log="l", regime="full", context_ids=ids, action_labels=["a", "b"], outcomes=outcomes)
        health = check_log(workspace, "l")
    text = render_health(health)
    assert 'id="health-outcomes"' in text
    assert 'id="health-support"' not in text
    assert "What single actions earn" in printed(health)


def test_json_holds_the_whole_check_without_nan(tmp_path: Path) -> None:
    health = health_of(tmp_path)
    found = json.loads(health_json(health), parse_constant=lambda word: pytest.fail(word))
    assert found["exit_code"] == 0
    assert found["uniform"]["mean"] == health.uniform.mean  # type: ignore[union-attr]
    assert [one["code"] for one in found["findings"]] == [one.code for one in health.findings]


def test_both_files_are_written_into_a_folder_that_is_made(tmp_path: Path) -> None:
    health = health_of(tmp_path)
    files = write_health(health, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["health.html", "health.json"]
    assert files[0].read_text(encoding="utf-8") == render_health(health)
    (tmp_path / "taken").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        write_health(health, tmp_path / "taken")
