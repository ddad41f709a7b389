"""`counterplay evaluate` and `counterplay compare`: tables for people, JSON for programs, exit codes for pipelines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.cli import main

N = 4000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a log that is fit, one without propensities, and one with wrong ones."""
    from counterplay.logs import import_choices, import_decisions, open_workspace

    folder = tmp_path_factory.mktemp("stored")
    rng = np.random.default_rng(0)
    action = rng.integers(0, 4, N)
    rows = pl.DataFrame(
        {
            "context_id": np.arange(N),
            "action": np.array(["small", "medium", "large", "huge"])[action],
            "propensity": 0.25,
            "reward": (rng.random(N) < 0.2 + 0.1 * action).astype(int),
        }
    )
    with open_workspace(folder / "desk.duckdb") as workspace:
        import_decisions(rows, workspace, "fit")
        import_decisions(rows.drop("propensity"), workspace, "blind")
        import_decisions(rows.with_columns(propensity=pl.lit(0.1)), workspace, "wrong")
        router = pl.DataFrame({"context_id": np.arange(N), "action": ["huge", "large"] * (N // 2)})
        import_choices(router, workspace, "fit", "router")
    return folder


@pytest.fixture
def run(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give the command line its words beside a fresh `desk.duckdb`; its exit code, and what it said where."""
    (tmp_path / "desk.duckdb").write_bytes((stored / "desk.duckdb").read_bytes())
    monkeypatch.chdir(tmp_path)

    def command(*words: str, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        try:
            main(list(words))
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def flat(said: str) -> str:
    """What was said, without its line ends."""
    return " ".join(said.split())


EVALUATE = ("evaluate", "desk.duckdb", "--log")


def test_a_table_says_what_each_policy_would_have_earned_and_which_estimate_to_look_at(run: Run) -> None:
    code, said, _ = run(
        *EVALUATE, "fit", "--policy", "router", "--policy", "always=small", "--estimators", "ips", "snips"
    )
    assert code == 0
    assert re.search(r"^router\n  IPS +\.4\d\d  \[\.\d+, \.\d+\] +\d[\d,]* +ok$", said, re.MULTILINE)
    assert "“always=small”: look at SNIPS" in said


def test_reasons_are_whole_in_a_terminal_of_80_columns(run: Run) -> None:
    code, said, _ = run(*EVALUATE, "wrong", "--policy", "uniform", columns=80)
    assert max(map(len, said.splitlines())) <= 80
    assert "…" not in said
    assert "the mean weight is 2.5, not 1: wrong propensities, or actions that were never logged" in flat(said)
    assert "Shrinking the weights only hides that" in flat(said)
    assert code == 0  # the reward model asks for caution, no more


def test_the_exit_code_is_3_when_nothing_can_be_said_of_a_policy(run: Run) -> None:
    code, said, _ = run(*EVALUATE, "wrong", "--policy", "uniform", "--estimators", "ips", "snips")
    assert code == 3
    assert "every gate is unreliable (the mean weight is 2.5, not 1" in flat(said)
    code, said, _ = run("compare", "desk.duckdb", "--log", "wrong", "--policy", "uniform", "always=small")
    assert code == 3
    assert "cannot be relied on" in flat(said)


def test_what_a_log_cannot_serve_is_listed_and_refused_when_asked_for_by_name(run: Run) -> None:
    code, said, _ = run(*EVALUATE, "blind", "--policy", "uniform")
    assert code == 0
    assert re.search(r"Left out: IPS, SNIPS, .*each needs propensities", flat(said))
    assert "nothing but the reward model speaks for it" in said
    code, _, error = run(*EVALUATE, "blind", "--policy", "uniform", "--estimators", "dr")
    assert code == 2
    assert "DR needs propensities" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "rooter"), "Did you mean 'router'"),
        (("--policy", "always=smal"), "Did you mean 'small'"),
        (("--policy", "huge"), "say always=huge"),
        (("--policy", "router", "--estimators", "snps"), "Did you mean 'snips'"),
        (("--policy", "router", "--interval", "bernstien"), "Did you mean 'bernstein'"),
        (("--policy", "router", "--reward-model", "logistics"), "Did you mean 'logistic'"),
        (("--policy", "router", "--truth", "fits"), "Did you mean 'fit'"),
        (("--policy", "router", "--truth", "blind"), "has no outcome table"),
        (("--policy", "router", "--largest-weight", "4"), "--reward-range LOW HIGH"),
        (("--policy", "router", "--reward-range", "1", "0"), "the lower first"),
        (("--policy", "router", "--level", "95"), "must lie between 0 and 1"),
    ],
)
def test_a_wrong_name_is_one_message_with_the_nearest_right_one(run: Run, words: tuple[str, ...], message: str) -> None:
    code, _, error = run(*EVALUATE, "fit", *words)
    assert code == 2
    assert message in error


def test_json_is_all_that_a_program_gets(run: Run) -> None:
    words = ("--policy", "router", "uniform", "--estimators", "ips", "dr", "--json", "--out", "pages")
    code, said, _ = run(*EVALUATE, "fit", *words)
    found = json.loads(said)
    assert code == 0
    assert [(row["policy"], row["estimator"]) for row in found["estimates"]] == [
        ("router", "ips"), ("router", "dr"), ("uniform", "ips"), ("uniform", "dr"),
    ]  # fmt: skip
    assert json.loads((Path() / "pages" / "results.json").read_text()) == [found]


def test_the_results_stay_in_the_workspace_once_for_each_question(run: Run) -> None:
    words = ("--policy", "router", "--estimators", "snips", "ips")
    first = run(*EVALUATE, "fit", *words, "--out", "pages")[1]
    assert run(*EVALUATE, "fit", *words)[1] == first.partition("wrote")[0]
    assert run("compare", "desk.duckdb", "--log", "fit", "--policy", "router", "always=small")[0] == 0
    assert run("report", "desk.duckdb", "--out", "again")[0] == 0
    evaluated, compared = json.loads((Path() / "again" / "results.json").read_text())
    assert [evaluated] == json.loads((Path() / "pages" / "results.json").read_text())
    assert (evaluated["name"], compared["name"]) == ("fit: router", "fit: router, always=small against logging")
    for name in ("report.html", "report.md"):
        page = (Path() / "again" / name).read_text()
        assert "look at SNIPS" in page
        assert "earns more than" in page


def test_a_comparison_says_who_is_ahead_and_what_it_would_take_to_know(run: Run) -> None:
    words = ("compare", "desk.duckdb", "--log", "fit", "--policy", "router", "uniform", "--estimator", "ips")
    code, said, _ = run(*words)
    assert code == 0
    assert "Difference from “logging” on the same decisions" in said
    assert "“router” earns more than “logging”: settled." in said
    (row,) = json.loads(run(*words, "--all-pairs", "--json")[1])["comparisons"]
    assert {row["policy"], row["baseline"]} == {"router", "uniform"}
    assert row["decisions_to_settle"] == 0
    code, _, error = run(*words, "--baseline", "loging")
    assert code == 2
    assert "Did you mean 'logging'" in error


def test_help_names_the_exit_codes(run: Run) -> None:
    for command, words in (("evaluate", "3: of some policy none can"), ("compare", "3: some cannot")):
        assert words in flat(run(command, "--help")[1])
