"""An experiment from its TOML file to stored results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import (
    ConfigurationError,
    CounterplayError,
    FileError,
    HorizonError,
    InputError,
    MissingEvidenceError,
)
from counterplay.logs import DecisionArrays, open_workspace, write_choices, write_log
from counterplay.logs.results import read_curves, read_experiments, read_runs
from counterplay.replay import load_experiment, run_experiment
from counterplay.replay.agents import Hybrid
from counterplay.replay.grid import agents_from, settings_of
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import LogBarrier
from tests.replay.worlds import world

AGENTS: list[dict[str, Any]] = [
    {"kind": "uniform"},
    {"kind": "policy", "name": "model", "policy": "llm"},
    {"kind": "bandit", "dimensions": 6},
    {"kind": "hybrid", "name": "hybrid", "selector": {"kind": "log-barrier"}, "budget": ["none", 30]},
]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A workspace with the same 1,500 contexts as full information, as logged, and as logged without propensities."""
    place = tmp_path / "desk.duckdb"
    prepared = world(decisions=1500, shortlist=4, uneven=True)
    log = prepared.log
    known = {
        "context_ids": log.context_ids,
        "action_labels": log.action_labels,
        "context_features": log.context_features,
        "action_features": log.action_features,
    }
    logged = DecisionArrays(
        context=log.context, candidates=log.candidates, action=log.action, propensity=log.propensity, reward=log.reward
    )
    with open_workspace(place) as workspace:
        write_log(workspace, log="full", regime="full", outcomes=log.outcomes, **known)
        write_log(workspace, log="logged", regime="propensity", decisions=logged, **known)
        observed = replace(logged, propensity=None)
        write_log(workspace, log="observed", regime="observed", decisions=observed, **known)
        for name in ("full", "logged", "observed"):
            write_choices(workspace, name, "llm", _stored(prepared))
    return place


def _stored(prepared: PreparedLog) -> np.ndarray[Any, Any]:
    return prepared._choices["llm"].actions


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "log": "logged",
        "method": "rejection",
        "truth": "full",
        "truth_seeds": 5,
        "seeds": 3,
        "estimate": {"frozen": ["bandit"], "baseline": "uniform"},
        "agents": AGENTS,
        **changes,
    }


def test_the_results_are_the_same_bytes_with_one_worker_with_two_and_again(desk: Path) -> None:
    texts = {
        json.dumps(run_experiment(settings(), workspace=desk, workers=workers), allow_nan=False)
        for workers in (1, 2, 2)
    }
    assert len(texts) == 1


def test_every_agent_has_its_value_its_truth_and_its_curves(desk: Path) -> None:
    results = run_experiment(settings(), workspace=desk)
    assert [agent["agent"] for agent in results["agents"]] == [
        "uniform", "model", "bandit", "hybrid, budget none", "hybrid, budget 30",
    ]  # fmt: skip
    rounds = {agent["rounds"] for agent in results["agents"]}
    assert len(rounds) == 1
    for agent in results["agents"]:
        assert agent["low"] <= agent["average_reward"] <= agent["high"]
        assert abs(agent["average_reward"] - agent["truth"]["value"]) < 5 * (
            agent["std_error"] + agent["truth"]["std_error"]
        )
        assert agent["acceptance"]["violations"] == 0
        assert agent["curves"]["average_reward"][-1] == [*rounds, pytest.approx(agent["average_reward"])]
    assert results["agents"][4]["model_calls"] <= 30


def test_policies_and_frozen_agents_are_estimated_on_the_second_half_beside_their_exact_values(desk: Path) -> None:
    results = run_experiment(settings(), workspace=desk)
    policies = [row["policy"] for row in results["estimates"]]
    assert policies == [name for name in ("uniform", "model", "bandit, frozen") for _ in range(3)]
    for row in results["estimates"]:
        assert row["n"] == 750
        assert abs(row["value"] - row["truth"]) < 5 * row["std_error"]
        assert row["covered"] == (row["low"] <= row["truth"] <= row["high"])
    assert {row["baseline"] for row in results["comparisons"]} == {"uniform"}
    assert len(results["comparisons"]) == 6


def test_results_are_stored_with_their_runs_and_replaced_when_run_again(desk: Path) -> None:
    results = run_experiment(settings(), workspace=desk)
    run_experiment(settings(), workspace=desk)
    run_experiment(settings(name="other", method="exact", log="full", estimate=None, truth=None), workspace=desk)
    stored = read_experiments(desk)
    assert [one["name"] for one in stored] == ["small", "other"]
    assert stored[0] == results
    runs = read_runs(desk, results["experiment"])
    assert len(runs) == 5 * 3
    assert all(run["seconds"] > 0 for run in runs)
    assert set(read_curves(desk, runs[0]["run"])) == {"average_reward", "model_calls", "p_bandit"}


def test_a_failed_run_stores_nothing(desk: Path) -> None:
    with pytest.raises(HorizonError):
        run_experiment(settings(horizon=1400), workspace=desk)
    assert read_experiments(desk) == []


def test_a_log_without_propensities_asked_for_ips_is_refused_by_name(desk: Path) -> None:
    with pytest.raises(MissingEvidenceError, match="IPS needs propensities"):
        run_experiment(settings(log="observed", method="none", estimate={"estimators": ["ips"]}), workspace=desk)


def test_a_log_without_propensities_can_still_be_answered_by_a_reward_model_with_caution(desk: Path) -> None:
    wanted = settings(log="observed", method="none", truth=None, estimate={"estimators": ["dm"]})
    rows = run_experiment(wanted, workspace=desk)["estimates"]
    assert all(row["value"] is not None and row["gate"] != "ok" for row in rows)


def test_an_interval_over_one_seed_covers_the_log_only(desk: Path) -> None:
    results = run_experiment(settings(seeds=1, estimate=None), workspace=desk)
    for agent in results["agents"]:
        assert agent["std_error_seeds"] is None
        assert agent["std_error"] > 0


def test_no_workers_are_refused(desk: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        run_experiment(settings(), workspace=desk, workers=0)


def test_progress_ends_at_its_total(desk: Path) -> None:
    seen: list[tuple[int, int]] = []
    run_experiment(settings(), workspace=desk, progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == list(range(len(seen)))


def test_an_experiment_is_read_from_toml_with_its_workspace_beside_it(desk: Path) -> None:
    file = desk.parent / "small.toml"
    file.write_text(
        'log = "full"\nworkspace = "desk.duckdb"\nseeds = 2\n[[agents]]\nkind = "bandit"\nlearning_rate = [0.1, 0.3]\n'
    )
    experiment = load_experiment(file)
    assert experiment.workspace == str(desk)
    assert [agent.name for agent in experiment.agents] == ["bandit, learning_rate 0.1", "bandit, learning_rate 0.3"]
    assert len(run_experiment(file)["agents"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": 3}, "no key 'sedes'. Did you mean 'seeds'"),
        ({"method": "reject"}, "Did you mean 'rejection'"),
        ({"estimate": {"estimators": ["ipss"]}}, "Did you mean 'ips'"),
        ({"estimate": {"levle": 0.9}}, "no key 'estimate.levle'. Did you mean 'level'"),
        ({"estimate": {"frozen": ["bandti"]}}, "Did you mean 'bandit'"),
        ({"agents": []}, r"add an \[\[agents\]\] table"),
        ({"agents": [{"kind": "hybird"}]}, "Did you mean 'hybrid'"),
        ({"agents": [{"kind": "bandit", "learning_rte": 1}]}, "no key 'learning_rte'. Did you mean 'learning_rate'"),
        ({"agents": [{"kind": "hybrid"}]}, "'selector' is missing"),
        ({"agents": [{"kind": "hybrid", "selector": {"kind": "fixed", "share": 1.2}}]}, "choose it in"),
        ({"agents": [{"kind": "hybrid", "selector": {"kind": "log-barrier"}, "budget": -1}]}, "cannot be negative"),
        ({"agents": [{"kind": "hybrid", "selector": {"kind": "log-barrier", "step": 0}}]}, "must be above 0"),
        ({"agents": [{"kind": "uniform"}, {"kind": "uniform"}]}, "two agents have the name 'uniform'"),
        ({"seeds": 0}, "at least 1"),
        ({"seeds": "three"}, "'three' is not a whole number"),
        ({"method": "none", "estimate": None}, "nothing to do"),
    ],
)
def test_a_wrong_experiment_is_refused_with_the_nearest_mend(desk: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_experiment(settings(**change), workspace=desk)


@pytest.mark.parametrize("text", ["log = ", "log = 'x'\nlog = 'y'\n", "\x00"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    with pytest.raises(FileError, match="no TOML"):
        load_experiment(file)


def test_an_absent_file_and_an_absent_log_are_refused(desk: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        load_experiment(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="Did you mean 'logged'"):
        run_experiment(settings(log="loged"), workspace=desk)


def test_an_absent_workspace_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(CounterplayError):
        run_experiment(settings(), workspace=tmp_path / "absent.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_an_agent_make_the_same_agent_again() -> None:
    for agent in agents_from(AGENTS):
        assert agents_from([settings_of(agent)]) == (agent,)


def test_lists_in_several_fields_are_every_combination() -> None:
    table = {"kind": "hybrid", "selector": {"kind": "log-barrier", "clip": [0.1, 0.2]}, "budget": ["none", 10]}
    found = []
    for agent in agents_from([table]):
        assert isinstance(agent, Hybrid)
        assert isinstance(agent.selector, LogBarrier)
        found.append((agent.selector.clip, agent.budget))
    assert found == [(0.1, None), (0.1, 10), (0.2, None), (0.2, 10)]
