"""Logs and choices written from arrays come back as they were, once."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from counterplay.errors import InputError
from counterplay.logs import (
    DecisionArrays,
    Log,
    Outcomes,
    Workspace,
    list_logs,
    open_workspace,
    read_choices,
    read_log,
    read_texts,
    write_choices,
    write_log,
)

C, K = 4, 3


def outcomes(default: float = 0.0) -> Outcomes:
    """Context 0 rewards action 2, context 1 actions 0 and 1, context 3 action 1 with a half."""
    return Outcomes(
        offsets=np.array([0, 1, 3, 3, 4]),
        actions=np.array([2, 0, 1, 1]),
        rewards=np.array([1, 1, 1, 0.5]),
        default=default,
    )


def material(**changes: Any) -> dict[str, Any]:
    return {
        "log": "l",
        "regime": "full",
        "context_ids": ["c", "a", "d", "b"],
        "context_texts": ["hot", "cold", "", 'it\'s "warm"'],
        "context_features": np.arange(8, dtype=np.float32).reshape(C, 2) / 3,
        "action_labels": ["z", "y", "x"],
        "action_texts": ["zed", "why", "ex"],
        "action_features": np.eye(K, 5),
        "outcomes": outcomes(),
    } | changes


def decisions(**changes: Any) -> DecisionArrays:
    values: dict[str, Any] = {
        "context": np.array([3, 0, 3]),
        "candidates": np.array([[2, 0, -1], [1, 0, 2], [1, -1, -1]]),
        "action": np.array([0, 2, -1]),
        "propensity": np.array([0.5, 1 / 3, np.nan]),
        "reward": np.array([1.0, -2.0, np.nan]),
        "cluster": ["u", None, "u"],
    }
    return DecisionArrays(**(values | changes))


def test_a_log_of_full_information_comes_back_as_it_was(workspace: Workspace) -> None:
    assert write_log(workspace, **material())
    log = read_log(workspace, "l")
    assert (log.regime, log.context_ids, log.action_labels) == ("full", ["c", "a", "d", "b"], ["z", "y", "x"])
    assert log.decision_ids == log.context_ids
    assert log.context.tolist() == [0, 1, 2, 3]
    assert log.action.tolist() == [-1] * C
    assert np.isnan(log.reward).all()
    assert log.candidates is None
    assert log.context_features is not None
    assert log.action_features is not None
    np.testing.assert_array_equal(log.context_features, material()["context_features"])
    np.testing.assert_array_equal(log.action_features, np.eye(K, 5))
    assert log.outcomes is not None
    for name in ("offsets", "actions", "rewards", "default"):
        np.testing.assert_array_equal(getattr(log.outcomes, name), getattr(outcomes(), name))
    assert read_texts(workspace, "l") == (material()["context_texts"], material()["action_texts"])


def test_decisions_come_back_in_order_and_padded(workspace: Workspace) -> None:
    write_log(workspace, **material(regime="propensity", outcomes=None, decisions=decisions()))
    log = read_log(workspace, "l")
    assert log.candidates is not None
    for name in ("context", "candidates", "action", "propensity", "reward"):
        np.testing.assert_array_equal(getattr(log, name), getattr(decisions(), name))
    assert log.decision_ids == ["0", "1", "2"]
    assert log.cluster[0] == log.cluster[2] != log.cluster[1]
    assert (log.outcomes, log.context_features is None) == (None, False)
    kinds = {name: getattr(log, name).dtype for name in ("context", "candidates", "action", "propensity", "cluster")}
    assert kinds == {"context": "i4", "candidates": "i4", "action": "i4", "propensity": "f8", "cluster": "i8"}


def test_writing_the_same_log_again_adds_nothing_and_another_is_refused(workspace: Workspace) -> None:
    assert write_log(workspace, **material())
    before = read_log(workspace, "l").fingerprint
    assert not write_log(workspace, **material())
    assert list_logs(workspace)[0]["decisions"] == C
    with pytest.raises(InputError, match="replace=True"):
        write_log(workspace, **material(outcomes=outcomes(default=0.25)))
    assert read_log(workspace, "l").fingerprint == before
    write_choices(workspace, "l", "p", [0] * C)
    assert write_log(workspace, **material(outcomes=outcomes(default=0.25)), replace=True)
    assert read_log(workspace, "l").fingerprint != before
    with pytest.raises(InputError, match="no choices"):
        read_choices(workspace, "l", "p")


def test_only_outcomes_that_differ_from_the_default_are_stored(workspace: Workspace) -> None:
    dense = outcomes().reward(np.arange(C)[:, None], np.arange(K))
    full = Outcomes(offsets=np.arange(C + 1) * K, actions=np.tile(np.arange(K), C), rewards=dense.ravel(), default=0.0)
    write_log(workspace, **material(outcomes=full))
    assert workspace.connection.execute("SELECT count(*) FROM outcomes").fetchall() == [(4,)]
    assert read_log(workspace, "l").outcomes is not None


@pytest.mark.parametrize("default", [0.0, float("nan")])
def test_a_reward_is_looked_up_or_is_the_default(default: float) -> None:
    table = np.full((C, K), default)
    table[0, 2] = table[1, 0] = table[1, 1] = 1
    table[3, 1] = 0.5
    found = outcomes(default).reward(np.arange(C)[:, None], np.arange(K))
    np.testing.assert_array_equal(found, table)
    assert outcomes(default).reward(3, 1) == 0.5


def test_a_lookup_agrees_with_a_dense_table() -> None:
    rng = np.random.default_rng(3)
    present = rng.random((50, 70)) < rng.random((50, 1))
    table = np.where(present, rng.random((50, 70)), np.nan)
    sparse = Outcomes(
        offsets=np.concatenate(([0], np.cumsum(present.sum(axis=1)))),
        actions=np.nonzero(present)[1],
        rewards=table[present],
    )
    context, action = rng.integers(0, 50, 2000), rng.integers(0, 70, 2000)
    np.testing.assert_array_equal(sparse.reward(context, action), table[context, action])


def test_outcomes_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="must rise"):
        Outcomes(offsets=np.array([0, 2]), actions=np.array([1, 1]), rewards=np.zeros(2))
    with pytest.raises(InputError, match="offsets"):
        Outcomes(offsets=np.array([0, 3]), actions=np.array([1, 2]), rewards=np.zeros(2))
    with pytest.raises(InputError, match="one for each"):
        Outcomes(offsets=np.array([0, 2]), actions=np.array([1, 2]), rewards=np.zeros(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regime": "fulll"}, "Did you mean 'full'"),
        ({"context_ids": ["c", "c", "d", "b"]}, "value twice"),
        ({"context_texts": ["a"]}, "context_texts has 1 rows"),
        ({"context_features": np.full((C, 2), np.nan)}, "finite"),
        ({"decisions": decisions(action=np.array([1, 2, -1]))}, "not among its candidates"),
        ({"decisions": decisions(propensity=np.array([0.5, 0.0, 1.0]))}, "propensity of decision 1 is 0"),
        ({"decisions": decisions(reward=np.array([0.5, 0.0, np.inf]))}, "reward of decision 2 is infinite"),
        ({"decisions": decisions(context=np.array([0, 1, 4]))}, "context 4 at row 2 is outside 0 to 3"),
        ({"decisions": decisions(candidates=np.array([[0, -1], [2, -1], [-1, 1]]))}, "end of a row"),
        ({"decisions": decisions(candidates=np.array([[0, 0], [2, -1], [1, -1]]))}, "twice in a row"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_and_leave_no_trace(
    workspace: Workspace, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_log(workspace, **material(**changes))
    assert list_logs(workspace) == []


def test_choices_come_back_as_they_were_with_misses(workspace: Workspace) -> None:
    write_log(workspace, **material())
    actions = np.array([[2, 0], [-1, -1], [1, -1], [0, 1]])
    probabilities = np.array([[0.25, 0.75], [0, 0], [1, 0], [0.5, 0.5]])
    for _ in range(2):
        write_choices(workspace, "l", "llm", actions, probabilities)
    found = read_choices(workspace, "l", "llm")
    np.testing.assert_array_equal(found.actions, actions)
    np.testing.assert_array_equal(found.probabilities, probabilities)
    write_choices(workspace, "l", "constant", [1, 1, -1, 1])
    found = read_choices(workspace, "l", "constant")
    assert found.actions.tolist() == [[1], [1], [-1], [1]]
    assert found.probabilities.tolist() == [[1], [1], [0], [1]]


@pytest.mark.parametrize(
    ("actions", "probabilities", "message"),
    [
        ([[0, 1]] * 3, [[0.5, 0.5]] * 3, "one row for each"),
        ([[0, 3]] * C, [[0.5, 0.5]] * C, "outside -1 to 2"),
        ([[0, 1]] * C, [[0.5, 0.4]] * C, "sum to 0.9"),
        ([[0, 1]] * C, [[1.5, -0.5]] * C, "not negative"),
        ([[0, 0]] * C, [[0.5, 0.5]] * C, "twice"),
    ],
)
def test_choices_that_are_no_probabilities_are_refused(
    workspace: Workspace, actions: Any, probabilities: Any, message: str
) -> None:
    write_log(workspace, **material())
    with pytest.raises(InputError, match=message):
        write_choices(workspace, "l", "p", actions, probabilities)


def test_unknown_names_are_refused_with_the_nearest(workspace: Workspace) -> None:
    write_log(workspace, **material(log="triage"))
    write_choices(workspace, "triage", "smollm", [0] * C)
    with pytest.raises(InputError, match="Did you mean 'triage'"):
        read_log(workspace, "triag")
    with pytest.raises(InputError, match="Did you mean 'smollm'"):
        read_choices(workspace, "triage", "smolm")
    with pytest.raises(InputError, match="Did you mean 'triage'"):
        write_choices(workspace, "triagee", "p", [0])


def test_a_subset_keeps_the_contexts_and_takes_the_decisions(workspace: Workspace) -> None:
    write_log(workspace, **material(regime="propensity", decisions=decisions()))
    log = read_log(workspace, "l")
    part = log.subset([2, 0])
    assert part.decision_ids == ["2", "0"]
    assert part.action.tolist() == [-1, 0]
    assert part.candidates is not None
    assert part.candidates.tolist() == [[1, -1, -1], [2, 0, -1]]
    assert part.context_ids == log.context_ids
    assert part.cluster[0] == part.cluster[1]
    assert len({log.fingerprint, part.fingerprint, log.subset([0, 2]).fingerprint}) == 3
    assert log.subset([0, 2]).fingerprint == log.subset(np.array([0, 2])).fingerprint
    with pytest.raises(InputError, match="flatnonzero"):
        log.subset(log.action >= 0)


def test_a_fingerprint_changes_with_anything_in_the_log(workspace: Workspace) -> None:
    write_log(workspace, **material(regime="propensity", decisions=decisions()))
    log = read_log(workspace, "l")
    assert log.outcomes is not None
    changes: dict[str, Any] = {
        "name": "m",
        "regime": "partial",
        "decision_ids": ["0", "1", "3"],
        "context": [3, 0, 2],
        "context_ids": ["ca", "", "d", "b"],
        "context_features": None,
        "action_labels": ["x", "y", "z"],
        "action_features": None,
        "candidates": None,
        "action": [0, 1, -1],
        "propensity": [0.5, 1 / 3, 1],
        "reward": [1, -2, 0],
        "cost": [1, np.nan, np.nan],
        "cluster": [0, 1, 2],
        "outcomes": dataclasses.replace(log.outcomes, default=float("nan")),
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Log)} - {"fingerprint"}
    prints = {dataclasses.replace(log, fingerprint="", **{name: value}).fingerprint for name, value in changes.items()}
    assert len(prints | {log.fingerprint}) == len(changes) + 1
    assert dataclasses.replace(log, fingerprint="").fingerprint == log.fingerprint


def test_a_log_reads_the_same_from_a_path(workspace: Workspace) -> None:
    write_log(workspace, **material())
    before = read_log(workspace, "l").fingerprint
    workspace.close()
    assert read_log(workspace.path, "l").fingerprint == before


def test_a_log_of_the_size_of_the_demo_is_written_and_read_at_once(tmp_path: Any) -> None:
    contexts, actions = 36_343, 285
    rng = np.random.default_rng(0)
    shortlists = np.argsort(rng.random((contexts, actions)), axis=1)[:, :10].astype(np.int32)
    with open_workspace(tmp_path / "w.duckdb") as workspace:
        start = time.perf_counter()
        write_log(
            workspace,
            log="l",
            regime="propensity",
            context_ids=[f"c{i}" for i in range(contexts)],
            context_features=rng.standard_normal((contexts, 64), dtype=np.float32),
            action_labels=[f"a{i}" for i in range(actions)],
            outcomes=Outcomes(
                offsets=np.arange(contexts + 1), actions=shortlists[:, 0], rewards=np.ones(contexts), default=0.0
            ),
            decisions=DecisionArrays(context=np.arange(contexts, dtype=np.int32), candidates=shortlists),
        )
        written = time.perf_counter()
        log = read_log(workspace, "l")
        read = time.perf_counter()
    np.testing.assert_array_equal(log.candidates, shortlists)
    # Several times what it takes, for machines that are busy with something else.
    assert written - start < 10
    assert read - written < 3
