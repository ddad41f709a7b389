"""Results are stored whole, replaced whole, and read in one fixed order."""

from __future__ import annotations

from typing import Any

import pytest

from counterplay.errors import InputError
from counterplay.logs import Workspace
from counterplay.logs.results import read_curves, read_experiments, read_runs, store_results


def results(name: str = "e", **changes: Any) -> dict[str, Any]:
    estimate = {"policy": "llm", "estimator": "ips", "value": None, "reason": "none", "truth": 0.5}
    return {
        "experiment": name,
        "name": "demo",
        "definition": {"seeds": 2, "name": "ä"},
        "log": {"name": "l", "hash": "h"},
        "outputs_hash": "o",
        "agents": [],
        "estimates": [estimate],
        "comparisons": [],
    } | changes


def run(name: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "run": name,
        "log": "l",
        "method": "exact",
        "agent": "hybrid",
        "seed": seed,
        "configuration": {"step": 0.5},
        "result": {"average_reward": 0.25, "model_calls": None},
        "seconds": 0.5,
        "curves": {"average_reward": [(1, 0.5), (2, 0.25)], "model_calls": [(1, 0.0)]},
    } | changes


def test_results_come_back_as_they_were(workspace: Workspace) -> None:
    store_results(workspace, results(), [run("b", 2), run("a", 10), run("c", 0, agent="bandit", curves={})])
    assert read_experiments(workspace) == [results()]
    assert [row["run"] for row in read_runs(workspace, "e")] == ["c", "b", "a"]
    assert read_runs(workspace, "e")[0]["configuration"] == {"step": 0.5}
    assert read_curves(workspace, "b") == {"average_reward": [(1, 0.5), (2, 0.25)], "model_calls": [(1, 0.0)]}


def test_an_experiment_replaces_its_own_results_and_no_others(workspace: Workspace) -> None:
    store_results(workspace, results("e"), [run("e/1", 1)])
    store_results(workspace, results("f"), [run("f/1", 1)])
    store_results(workspace, results("e") | {"name": "again"}, [])
    assert sorted(row["name"] for row in read_experiments(workspace)) == ["again", "demo"]
    assert read_runs(workspace, "e") == []
    assert read_curves(workspace, "e/1") == {}
    assert len(read_runs(workspace, "f")) == 1


@pytest.mark.parametrize("bad", [results(name="e") | {"agents": [float("nan")]}, results() | {"agents": [object()]}])
def test_what_is_no_json_is_refused_and_the_old_results_stay(workspace: Workspace, bad: dict[str, Any]) -> None:
    store_results(workspace, results(), [run("a", 1)])
    with pytest.raises(InputError, match="None for no number"):
        store_results(workspace, bad, [])
    assert read_experiments(workspace) == [results()]
    assert len(read_runs(workspace, "e")) == 1


def test_two_runs_of_one_name_are_refused_and_the_old_results_stay(workspace: Workspace) -> None:
    store_results(workspace, results(), [run("a", 1)])
    with pytest.raises(InputError, match="same name"):
        store_results(workspace, results(), [run("b", 1), run("b", 2)])
    assert [row["run"] for row in read_runs(workspace, "e")] == ["a"]
