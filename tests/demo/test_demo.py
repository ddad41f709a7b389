"""The demo's data are what they are said to be, and the demo runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("simple_icd_10_cm", reason="the demo's descriptions come with the extra 'demo'")

import counterplay.demo
from counterplay.demo import EXPERIMENTS, run_demo
from counterplay.demo.build import build_demo, logged_places
from counterplay.demo.data import DemoData, llm_choice, load_demo
from counterplay.logs import open_workspace, read_choices, read_log
from counterplay.replay import load_experiment


@pytest.fixture(scope="module")
def demo() -> DemoData:
    return load_demo()


def test_the_logged_places_are_uniform_and_no_seed_changes_them() -> None:
    places = logged_places(36_343, 10)
    assert (places == logged_places(36_343, 10)).all()
    expected = 3634.3
    assert ((np.bincount(places) - expected) ** 2 / expected).sum() < 27.9  # chi-square, 9 degrees of freedom, 0.001


def test_the_workspace_holds_both_logs_with_the_same_contexts(demo: DemoData, tmp_path: Path) -> None:
    with open_workspace(tmp_path / "triage.duckdb") as workspace:
        build_demo(workspace)
        build_demo(workspace)
        full, logged = read_log(workspace, "triage"), read_log(workspace, "triage-logged")
        model = read_choices(workspace, "triage-logged", "llm")
        (outputs,) = workspace.connection.execute("SELECT count(*) FROM outputs").fetchall()[0]
    assert full.context_ids == logged.context_ids == list(demo.context_ids)
    assert full.regime == "full"
    assert logged.regime == "propensity"
    assert full.outcomes is not None
    assert logged.outcomes is None
    assert (logged.propensity == 0.1).all()
    assert (logged.reward == (logged.action == demo.labels)).all()
    assert (model.actions[:, 0] == llm_choice(demo)).all()
    assert outputs == 36_343


@pytest.mark.slow
def test_the_demo_runs_an_experiment_on_its_workspace_and_writes_the_report(tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text(
        'log = "triage"\nseeds = 2\nhorizon = 2000\n[[agents]]\nkind = "uniform"\n'
        '[[agents]]\nkind = "hybrid"\nselector = {kind = "log-barrier"}\n'
    )
    outcome = run_demo(tmp_path / "out", experiment=small)
    assert [path.name for path in outcome.files] == ["triage.duckdb", "report.html", "report.md", "results.json"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == outcome.results
    assert [agent["agent"] for agent in outcome.results[0]["agents"]] == ["uniform", "hybrid"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_demos_experiments_have_twenty_agents_and_five_seeds(name: str) -> None:
    experiment = load_experiment(Path(counterplay.demo.__file__).parent / name)
    assert len(experiment.agents) == 20
    assert experiment.seeds == 5
