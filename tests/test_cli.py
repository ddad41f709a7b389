"""The command line, as a person would use it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.command import counterplay

CSV = """question,model,pscore,solved
q1,large,0.5,1
q2,small,0.5,0
q3,small,0.5,1
q4,large,0.0,1
"""
EXPERIMENT = """
workspace = "desk.duckdb"
log = "march"
method = "none"
[estimate]
estimators = ["ips", "snips"]
[[agents]]
kind = "uniform"
[[agents]]
kind = "constant"
name = "always large"
action = "large"
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "decisions.csv").write_text(CSV)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    return tmp_path


def _import(folder: Path) -> subprocess.CompletedProcess[str]:
    words = ("import", "table", "decisions.csv", "--into", "desk.duckdb", "--log", "march")
    return counterplay(
        folder, *words, "--map", "context_id=question", "--map", "action=model", "--map", "reward=solved"
    )


def test_an_import_tells_what_became_of_every_row_and_ends_with_1_if_some_were_quarantined(desk: Path) -> None:
    done = _import(desk)
    assert done.returncode == 1
    assert "4 rows read: 3 kept, 0 known already, 1 in quarantine" in done.stdout
    assert "propensity = pscore" in done.stdout
    assert "1 in quarantine: propensity is zero" in done.stdout


def test_from_a_file_to_a_report(desk: Path) -> None:
    _import(desk)
    ran = counterplay(desk, "run", "experiment.toml", "--out", "results")
    assert ran.returncode == 0, ran.stderr
    assert "always large" in ran.stdout
    written = {path.name: path.read_text() for path in (desk / "results").iterdir()}
    assert set(written) == {"report.html", "report.md", "results.json"}
    assert counterplay(desk, "report", "desk.duckdb", "--out", "again").returncode == 0
    assert (desk / "again" / "results.json").read_text() == written["results.json"]
    (result,) = json.loads(written["results.json"])
    assert [row["policy"] for row in result["estimates"]] == ["uniform", "uniform", "always large", "always large"]


def test_a_policy_of_ones_own_is_imported_and_used(desk: Path) -> None:
    _import(desk)
    (desk / "router.csv").write_text("context_id,action\nq1,large\nq2,large\nq3,small\n")
    words = ("import", "choices", "router.csv", "--into", "desk.duckdb", "--log", "march", "--policy", "router")
    done = counterplay(desk, *words)
    assert done.returncode == 0, done.stderr
    assert "choices in 3 contexts" in done.stdout
    (desk / "experiment.toml").write_text(EXPERIMENT + '[[agents]]\nkind = "policy"\npolicy = "router"\n')
    assert "router" in counterplay(desk, "run", "experiment.toml").stdout


def test_with_a_table_of_action_features_a_bandit_is_replayed(desk: Path) -> None:
    rows = "".join(f"{i},{i % 7 / 7},1,{'ab'[i % 3 == 0]},0.5,{int(i % 3 == 0)}\n" for i in range(400))
    (desk / "shown.csv").write_text("context_id,x_0,x_1,action,propensity,reward\n" + rows)
    (desk / "actions.jsonl").write_text('{"label": "a", "features": [1, 0]}\n{"label": "b", "features": [0, 1]}\n')
    words = ("import", "table", "shown.csv", "--into", "desk.duckdb", "--log", "april", "--actions", "actions.jsonl")
    done = counterplay(desk, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    bandit = '[[agents]]\nkind = "bandit"\nexploration = "epsilon-greedy"\n'
    (desk / "bandit.toml").write_text(f'workspace = "desk.duckdb"\nlog = "april"\nmethod = "rejection"\n{bandit}')
    ran = counterplay(desk, "run", "bandit.toml")
    assert ran.returncode == 0, ran.stderr
    assert "bandit" in ran.stdout


def test_the_logs_of_a_workspace_are_listed_for_people_and_for_programs(desk: Path) -> None:
    _import(desk)
    assert "march" in counterplay(desk, "logs", "desk.duckdb").stdout
    (row,) = json.loads(counterplay(desk, "logs", "desk.duckdb", "--json").stdout)
    assert row["log"] == "march"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "absent.toml"), "cannot read absent.toml"),
        (("demo", "decisions.csv"), "cannot make the folder decisions.csv"),
        (("run", "misspelt.toml"), "Did you mean 'method'"),
        (("report", "absent.duckdb"), "absent.duckdb"),
        (("report", "decisions.csv"), "it is no workspace"),
        (("import", "table", "absent.csv", "--into", "new.duckdb", "--log", "l"), "absent.csv"),
        (("import", "table", "decisions.csv", "--into", "new.duckdb", "--log", "l", "--map", "rewrd"), "word=column"),
        (("generate", "desk.duckdb", "--log", "march", "--model", "nowhere"), "nowhere"),
    ],
)
def test_an_error_is_one_message_with_its_mend_and_exit_code_2(
    desk: Path, words: tuple[str, ...], message: str
) -> None:
    _import(desk)
    (desk / "misspelt.toml").write_text(EXPERIMENT.replace("method", "metod"))
    done = counterplay(desk, *words)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not (desk / "new.duckdb").exists() or not list(
        json.loads(counterplay(desk, "logs", "new.duckdb", "--json").stdout)
    )


def test_a_workspace_without_results_has_no_report(desk: Path) -> None:
    _import(desk)
    done = counterplay(desk, "report", "desk.duckdb")
    assert done.returncode == 2
    assert "no results" in done.stderr


def test_help_is_there_for_every_command(desk: Path) -> None:
    page = counterplay(desk, "--help").stdout
    for command in ("demo", "run", "import", "generate", "report", "logs"):
        assert command in page
        assert counterplay(desk, command, "--help").returncode == 0
