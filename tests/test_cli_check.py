"""`counterplay check`: an exit code for pipelines, words for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.command import counterplay


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Logs that are fit, usable and not fit, in one workspace."""
    from counterplay.logs import import_decisions, open_workspace

    rng = np.random.default_rng(0)
    n = 4000
    rows = pl.DataFrame(
        {"context_id": np.arange(n), "action": rng.integers(0, 4, n), "propensity": 0.25, "reward": rng.random(n) < 0.3}
    )
    with open_workspace(tmp_path / "desk.duckdb") as workspace:
        import_decisions(rows, workspace, "fit")
        import_decisions(rows[:200], workspace, "usable")
        import_decisions(rows.drop("propensity"), workspace, "blind")
        import_decisions(rows.with_columns(propensity=pl.lit(0.1)), workspace, "wrong")
    return tmp_path


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        ("fit", 0, "fit for counterfactual questions"),
        ("usable", 1, "usable with care"),
        ("blind", 3, "There are no propensities"),
        ("wrong", 3, "All propensities are too small by the same factor"),
        ("absent", 2, "no log 'absent'"),
    ],
)
def test_the_exit_code_says_whether_a_pipeline_may_go_on(desk: Path, log: str, code: int, words: str) -> None:
    done = counterplay(desk, "check", "desk.duckdb", "--log", log)
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_all_that_a_program_gets(desk: Path) -> None:
    done = counterplay(desk, "check", "desk.duckdb", "--log", "blind", "--json", "--out", "pages")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert (found["verdict"], found["exit_code"]) == ("unreliable", 3)
    assert json.loads((desk / "pages" / "health.json").read_text()) == found
    assert (desk / "pages" / "health.html").read_text().startswith("<!doctype html>")


def test_a_policy_is_looked_at_by_its_stored_choices(desk: Path) -> None:
    (desk / "router.csv").write_text("context_id,action\n" + "".join(f"{i},2\n" for i in range(4000)))
    words = ("import", "choices", "router.csv", "--into", "desk.duckdb", "--log", "fit", "--policy", "router")
    assert counterplay(desk, *words).returncode == 0
    done = counterplay(desk, "check", "desk.duckdb", "--log", "fit", "--policy", "router")
    assert done.returncode == 0, done.stdout
    assert "Policy 'router' can be evaluated" in done.stdout
    missing = counterplay(desk, "check", "desk.duckdb", "--log", "fit", "--policy", "rooter")
    assert missing.returncode == 2
    assert "Did you mean 'router'" in missing.stderr


def test_help_names_the_exit_codes(desk: Path) -> None:
    assert "Exit code 0: fit" in " ".join(counterplay(desk, "check", "--help").stdout.split())
