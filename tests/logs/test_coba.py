"""coba's logged interactions: whatever contexts and actions are, each interaction is a decision or in quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import InputError
from counterplay.logs import ImportReport, Workspace, list_logs, read_log, read_quarantine, read_texts
from counterplay.logs.formats import coba as module
from counterplay.logs.formats.coba import import_coba

Row = dict[str, Any]


def interaction(context: Any = None, **changes: Any) -> Row:
    whole = {"context": context, "action": "b", "reward": 0.5, "probability": 0.25, "actions": ["a", "b"]}
    return {
        key: value for key, value in (whole | changes).items() if not (isinstance(value, str) and value == "absent")
    }


class Dense:
    """What coba gives for a row of a data set: no list, but it can be gone through."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


class Sparse:
    def __init__(self, **values: Any) -> None:
        self._values = values

    def items(self) -> Any:
        return self._values.items()


class Categorical(str):
    """A text that knows its levels."""


Bring = Callable[..., ImportReport]


@pytest.fixture
def bring(workspace: Workspace) -> Bring:
    def run(*rows: Any, log: str = "l", **options: Any) -> ImportReport:
        report = import_coba(rows, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known == len(rows)
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def test_an_interaction_becomes_a_decision(bring: Bring, workspace: Workspace) -> None:
    assert bring(interaction(rewards=[1, 2]), interaction(action="a", reward=2)).regime == "propensity"
    log = read_log(workspace, "l")
    assert log.action_labels == ["a", "b"]
    assert log.action.tolist() == [1, 0]
    assert log.reward.tolist() == [0.5, 2]
    assert log.propensity.tolist() == [0.25, 0.25]
    assert log.candidates is not None
    assert log.candidates.tolist() == [[0, 1], [0, 1]]
    assert log.context.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("contexts", "features"),
    [
        ([1, 2.5], [[1], [2.5]]),
        ([(1, 0), [0, True]], [[1, 0], [0, 1]]),
        ([None, np.float32(2)], None),
        ([Dense(1, 2), np.array([3.0, 4.0])], [[1, 2], [3, 4]]),
    ],
)
def test_numbers_are_features(bring: Bring, workspace: Workspace, contexts: list[Any], features: Any) -> None:
    report = bring(*map(interaction, contexts))
    log = read_log(workspace, "l")
    assert log.context_features is not None
    if features is None:
        assert report.reasons == {"features are missing": 1}
        assert log.context_features.tolist() == [[2]]
    else:
        assert log.context_features[log.context].tolist() == features


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ("hot", "hot"),
        (Categorical("hot"), "hot"),
        ({"b": 1.0, "a": "x"}, '{"a":"x","b":1}'),
        (("x", 1, (0, 1)), '["x",1,[0,1]]'),
        (Sparse(b=2, a=Dense("é")), '{"a":["é"],"b":2}'),
    ],
)
def test_everything_else_is_text(bring: Bring, workspace: Workspace, context: Any, text: str) -> None:
    bring(interaction(context), interaction(None), interaction(7))
    assert read_texts(workspace, "l")[0] == [text, None, "7"]


@pytest.mark.parametrize(
    ("actions", "labels", "features"),
    [
        ([(1, 0), (0, 1)], ["[1,0]", "[0,1]"], [[1, 0], [0, 1]]),
        ([Dense(0.5, 2), Dense(1, 1)], ["[0.5,2]", "[1,1]"], [[0.5, 2], [1, 1]]),
        ([1, 10.0], ["1", "10"], None),
        ([{"x": 1}, "z"], ["z", '{"x":1}'], None),
        ([Categorical("u"), Categorical("v")], ["u", "v"], None),
    ],
)
def test_an_action_is_its_text_and_a_vector_its_features(
    bring: Bring, workspace: Workspace, actions: list[Any], labels: list[str], features: Any
) -> None:
    bring(interaction(actions=actions, action=actions[0]), interaction(actions=actions, action=actions[1]))
    log = read_log(workspace, "l")
    assert log.action_labels == labels
    assert (log.action_features is None) == (features is None)
    if log.action_features is not None:
        assert log.action_features.tolist() == features


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reward": None}, "reward is missing"),
        ({"reward": "absent"}, "reward is missing"),
        ({"reward": [1]}, "reward is not a number: [1]"),
        ({"reward": float("nan")}, "reward is not a number: nan"),
        ({"probability": 0}, "propensity is zero"),
        ({"probability": None}, "propensity is missing"),
        ({"probability": "p"}, "probability is not a number: p"),
        ({"action": None}, "action is missing"),
        ({"action": "c"}, "action is not among the candidates: c"),
        ({"actions": []}, "candidates are missing"),
        ({"actions": ["b", None]}, "actions hold an empty entry"),
        ({"actions": ["b", "b"]}, 'candidates name an action twice: [b, b]'),
        ({"context": "hot"}, "context is not a list of numbers as the first is: hot"),
        ({"context": [1]}, "features have another length than the log's 2: 1"),
        ({"context": [1, float("inf")]}, "features hold something that is no finite number: [1.0, inf]"),
        ({"action": float("nan")}, "action is nothing that JSON can say: nan"),
        ({"action": "half \ud800"}, "action is nothing that JSON can say: half ?"),
        ({"action": object}, "action is nothing that JSON can say: <class 'object'>"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_quarantined_with_its_place(
    bring: Bring, workspace: Workspace, changes: Row, reason: str
) -> None:
    assert bring(interaction([1, 2]), interaction(**{"context": [1, 2], **changes}), interaction([3, 4])).rows_kept == 2
    assert reasons(workspace) == [(2, reason)]


def test_what_is_no_mapping_is_quarantined(bring: Bring, workspace: Workspace) -> None:
    bring(interaction(), [1, 2], interaction())
    assert reasons(workspace) == [(2, "the interaction is no mapping: list")]


def test_without_probabilities_the_log_is_observed(bring: Bring, workspace: Workspace) -> None:
    report = bring(*(interaction(probability="absent", actions="absent") for _ in range(2)))
    assert (report.regime, report.rows_kept) == ("observed", 2)
    assert read_log(workspace, "l").candidates is None


def test_an_iterator_is_taken_in_chunks_and_an_environment_is_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)

    class Environment:
        def read(self) -> Iterator[Row]:
            return (interaction(i) for i in range(5))

    assert import_coba(Environment(), workspace, "environment").rows_kept == 5
    assert import_coba(Environment().read(), workspace, "iterator").rows_kept == 5
    log = read_log(workspace, "iterator")
    assert log.context_features is not None
    assert log.context_features.tolist() == [[0], [1], [2], [3], [4]]


def test_the_same_interactions_twice_add_nothing(bring: Bring, workspace: Workspace) -> None:
    rows = [interaction([1, 2], action=(1, 0), actions=[(1, 0), (0, 1)]), interaction([1, 2], reward="x")]
    assert bring(*rows).rows_kept == 1
    fingerprint = read_log(workspace, "l").fingerprint
    again = bring(*rows)
    assert (again.rows_known, again.rows_quarantined) == (1, 1)
    assert read_log(workspace, "l").fingerprint == fingerprint
    assert len(reasons(workspace)) == 1


def test_what_are_no_interactions_is_refused_and_leaves_no_trace(tmp_path: Path, workspace: Workspace) -> None:
    class Environment:
        def read(self) -> list[Row]:
            return [interaction()]

    for given, message in (
        ([], "no interactions"),
        (str(tmp_path), "an iterable of mappings, not a str"),
        (7, "an iterable of mappings, not a int"),
        (interaction(), "an iterable of mappings, not a dict"),
        ([Environment(), Environment()], r"several environments\. Pass one"),
    ):
        with pytest.raises(InputError, match=message):
            import_coba(given, workspace, "l")  # type: ignore[arg-type]
    assert list_logs(workspace) == []
