"""Decision-service JSON: what Vowpal Wabbit logs is what the log holds; what is no evidence is kept apart."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import FileError, InputError
from counterplay.logs import ImportReport, Workspace, list_logs, read_log, read_quarantine, read_texts
from counterplay.logs.formats import dsjson_events as module
from counterplay.logs.formats.dsjson import import_dsjson

Event = dict[str, Any]
ACTIONS = [{"id": "news", "F": {"topic": "news"}}, {"id": "food", "F": {"topic": "food"}}]


def event(number: int, **changes: Any) -> Event:
    """An event that chose its second action with probability 0.25 and cost -1; None removes a key."""
    whole = {
        "_label_cost": -1,
        "_label_probability": 0.25,
        "_label_Action": 2,
        "_labelIndex": 1,
        "Timestamp": "2024-03-01T10:00:00.1234567Z",
        "EventId": f"e{number}",
        "a": [2, 1],
        "c": {"User": {"age": 7}, "_multi": ACTIONS},
        "p": [0.25, 0.75],
    }
    return {key: value for key, value in (whole | changes).items() if value is not None}


Bring = Callable[..., ImportReport]


@pytest.fixture
def bring(tmp_path: Path, workspace: Workspace) -> Bring:
    """Write events (or lines of text) to a file and import it into the log 'l'."""

    def run(*events: Event | str, name: str = "log.dsjson", log: str = "l", **options: Any) -> ImportReport:
        path = tmp_path / name
        text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in events)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        report = import_dsjson(path, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def label(number: int) -> str:
    return json.dumps(ACTIONS[number], separators=(",", ":"))


def test_an_event_becomes_a_decision(bring: Bring, workspace: Workspace) -> None:
    report = bring(event(1), event(2, _label_cost=0.5, c={"User": {"age": 8}, "_multi": ACTIONS}))
    assert (report.rows_kept, report.regime) == (2, "propensity")
    log = read_log(workspace, "l")
    assert log.decision_ids == ["e1", "e2"]
    assert log.reward.tolist() == [1, -0.5]
    assert log.propensity.tolist() == [0.25, 0.25]
    assert [log.action_labels[a] for a in log.action] == [label(1), label(1)]
    assert log.candidates is not None
    assert [[log.action_labels[a] for a in row] for row in log.candidates] == [[label(1), label(0)]] * 2
    contexts, actions = read_texts(workspace, "l")
    assert contexts == ['{"User":{"age":7}}', '{"User":{"age":8}}']
    assert actions == log.action_labels
    rows = workspace.connection.execute(
        "SELECT candidate_propensities, CAST(timestamp AS VARCHAR) FROM decisions"
    ).fetchall()
    assert rows == [([0.25, 0.75], "2024-03-01 10:00:00.123456+00")] * 2


def test_a_cost_of_minus_zero_is_a_reward_of_zero(bring: Bring, workspace: Workspace) -> None:
    bring(event(1, _label_cost=-0.0), event(2, _label_cost=0))
    assert not np.signbit(read_log(workspace, "l").reward).any()


def test_the_context_is_the_same_wherever_its_actions_stand(bring: Bring, workspace: Workspace) -> None:
    bring(
        event(1),
        event(2, c={"_multi": ACTIONS, "User": {"age": 7}}),
        json.dumps(event(3), indent=None, separators=(" ,", " : ")),
        event(4, c={"User": {"age": 7, "s": ',"_multi":[1]}'}, "_multi": ACTIONS}),
        event(5, c={"_multi": ACTIONS}),
        event(6, c={"User": {"x": 1, "_multi": [1]}, "_multi": ACTIONS}),
    )
    assert read_log(workspace, "l").context.tolist() == [0, 0, 0, 1, 2, 3]
    assert read_texts(workspace, "l")[0][1:] == [
        r'{"User":{"age":7,"s":",\"_multi\":[1]}"}}',
        "{}",
        '{"User":{"x":1,"_multi":[1]}}',
    ]
    assert len(read_log(workspace, "l").action_labels) == 2


@pytest.mark.parametrize(
    ("identify", "labels", "texts"),
    [
        ("features", [label(1), label(0)], [label(1), label(0)]),
        ("position", ["1", "2"], [None, None]),
        ("/id", ["food", "news"], [label(1), label(0)]),
        ("/F/topic", ["food", "news"], [label(1), label(0)]),
    ],
)
def test_an_action_is_its_features_its_number_or_what_a_pointer_finds(
    bring: Bring, workspace: Workspace, identify: str, labels: list[str], texts: list[str | None]
) -> None:
    bring(event(1), identify=identify)
    log = read_log(workspace, "l")
    assert log.action_labels == labels
    assert read_texts(workspace, "l")[1] == texts
    assert log.action_labels[log.action[0]] == labels[1 if identify == "position" else 0]


def test_actions_that_move_about_are_told_apart_by_their_features(bring: Bring, workspace: Workspace) -> None:
    turned = {"User": {"age": 7}, "_multi": ACTIONS[::-1]}
    bring(event(1), event(2, c=turned), event(3, c=turned, _label_Action=1, _labelIndex=0, _label_probability=0.75))
    log = read_log(workspace, "l")
    assert [log.action_labels[a] for a in log.action] == [label(1), label(0), label(1)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_skipLearn": True}, "the event is marked _skipLearn"),
        ({"_label_cost": None, "_label_probability": None}, "the event has no label"),
        ({"_label_cost": "much"}, "_label_cost is not a number: much"),
        ({"_label_cost": None}, "reward is missing"),
        ({"_labelIndex": 3}, "_label_Action and _labelIndex disagree: 2 and 3"),
        ({"_label_Action": 2.5}, "_label_Action is not the number of an action: 2.5"),
        ({"_label_Action": 0, "_labelIndex": -1}, "_label_Action is not the number of an action: 0"),
        ({"_label_Action": 3, "_labelIndex": 2}, "the label is not among the actions: 3"),
        ({"_label_probability": 0.5}, "candidate propensities give the action another propensity: 0.25"),
        ({"_label_probability": 0}, "propensity is zero"),
        ({"p": [0.25, 0.25]}, "candidate propensities do not sum to 1: 0.5"),
        ({"p": None}, "the event has no actions with probabilities (a and p)"),
        ({"a": [2, 3]}, "a holds something that is not the number of an action: [2, 3]"),
        ({"a": [2, "x"]}, "a holds something that is not the number of an action: [2, NULL]"),
        ({"c": {"User": {}}}, "the context has no list of actions (_multi)"),
        ({"c": {"_multi": {"id": 1}}}, "the context has no list of actions (_multi)"),
        ({"pdrop": 1}, "pdrop is not a probability below 1: 1"),
        ({"pdrop": "often"}, "pdrop is not a probability below 1: often"),
        ({"_outcomes": [{"_label_cost": 0}]}, "the event has several slots (_outcomes)"),
    ],
)
def test_what_cannot_be_evidence_is_quarantined_with_its_line(
    bring: Bring, workspace: Workspace, changes: Event, reason: str
) -> None:
    report = bring(event(1), event(2, **changes), event(3))
    assert report.rows_kept == 2
    assert [(line, found.split("; ")[0]) for line, found in reasons(workspace)] == [(2, reason)]
    assert json.loads(read_quarantine(workspace, "l")["row"][0])["EventId"] == "e2"


def test_lists_of_actions_may_differ_from_event_to_event(bring: Bring, workspace: Workspace) -> None:
    def one(number: int, *ids: str) -> Event:
        return event(number, c={"_multi": [{"id": name} for name in ids]}, a=[2, 1, 3], p=[0.25, 0.5, 0.25])

    lists = [("x", "2", "10"), ("10", "x", "y"), ("2", "10", "x")]
    for identify in ("/id", "features"):
        bring(*(one(i, *ids) for i, ids in enumerate(lists)), log=identify, identify=identify)
    log = read_log(workspace, "/id")
    assert log.action_labels == ["2", "10", "x", "y"]
    assert log.candidates is not None
    named = [[log.action_labels[a] for a in row] for row in log.candidates]
    assert named == [[ids[1], ids[0], ids[2]] for ids in lists]
    assert [log.action_labels[a] for a in log.action] == [ids[1] for ids in lists]
    assert read_log(workspace, "features").action_labels == [f'{{"id":"{name}"}}' for name in ("10", "2", "x", "y")]


def test_a_later_file_appends_its_new_actions(bring: Bring, workspace: Workspace) -> None:
    bring(event(1), identify="/id")
    bring(event(2, c={"_multi": [{"id": "art"}, {"id": "news"}]}), name="later.json", identify="/id")
    log = read_log(workspace, "l")
    assert log.action_labels == ["food", "news", "art"]
    assert [log.action_labels[a] for a in log.action] == ["food", "news"]
    assert read_texts(workspace, "l")[1][2] == '{"id":"art"}'


def test_two_candidates_with_equal_features_are_quarantined_and_have_positions(bring: Bring) -> None:
    equal = event(1, c={"_multi": [ACTIONS[0], ACTIONS[0]]})
    assert list(bring(equal, event(2)).reasons) == ["candidates name an action twice"]
    assert bring(equal, event(2), log="by position", identify="position").rows_kept == 2


def test_a_late_reward_without_its_event_is_quarantined(bring: Bring, workspace: Workspace) -> None:
    bring(event(1), {"EventId": "e1", "RewardValue": 1.0})
    assert reasons(workspace) == [(2, "the line is no decision: it has neither a nor _multi")]


def test_torn_and_broken_lines_are_quarantined_with_their_text(bring: Bring, workspace: Workspace) -> None:
    whole = json.dumps(event(9))
    report = bring(event(1), "", whole[:-20], "[1]", "7", event(2), whole[:40])
    assert (report.rows_read, report.rows_kept) == (6, 2)
    assert reasons(workspace) == [(line, "the line is not a JSON object") for line in (3, 4, 5, 7)]
    assert json.loads(read_quarantine(workspace, "l")["row"][0]) == {"line": whole[:-20]}


def test_an_event_that_comes_twice_is_kept_once(bring: Bring, workspace: Workspace) -> None:
    bring(event(1), event(1, _label_cost=0))
    assert reasons(workspace) == [(2, "decision id stands twice in this file: e1, first in line 1")]


@pytest.mark.parametrize("identify", ["features", "position", "/id"])
def test_the_same_file_twice_adds_nothing(bring: Bring, workspace: Workspace, identify: str) -> None:
    events = [event(1), event(2, _skipLearn=True), event(3)]
    assert bring(*events, identify=identify).rows_kept == 2
    fingerprint = read_log(workspace, "l").fingerprint
    again = bring(*events, identify=identify)
    assert (again.rows_kept, again.rows_known, again.rows_quarantined) == (0, 2, 1)
    assert read_log(workspace, "l").fingerprint == fingerprint
    assert len(reasons(workspace)) == 1
    temporary = workspace.connection.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall()
    assert temporary == []


def test_events_without_ids_are_told_apart_by_their_content(bring: Bring) -> None:
    events = [event(1, EventId=None, Timestamp=None), event(2, EventId=None, Timestamp=None)]
    assert bring(*events).rows_kept == 2
    assert bring(*events).rows_known == 2


def test_a_gzip_file_is_read_like_a_plain_one(bring: Bring, workspace: Workspace) -> None:
    bring(event(1), "{", event(2), name="log.json.gz")
    bring(event(1), "{", event(2), log="plain")
    assert read_log(workspace, "l").reward.tolist() == read_log(workspace, "plain").reward.tolist()
    assert reasons(workspace) == [(2, "the line is not a JSON object")]


def test_events_that_stand_for_dropped_ones_are_refused_unless_all_weigh_the_same(
    bring: Bring, workspace: Workspace
) -> None:
    with pytest.raises(InputError, match=r"1 events .* event 2\) have pdrop 0.5, not 0: .* no weights"):
        bring(event(1), event(2, pdrop=0.5))
    with pytest.raises(InputError, match=r"event 1\) have pdrop 0, not 0\.5"):
        bring(event(1), event(2, pdrop=0.5), pdrop=0.5)
    assert list_logs(workspace) == []
    assert bring(event(1, pdrop=0.5), event(2, pdrop=0.5), event(3, _skipLearn=True), pdrop=0.5).rows_kept == 2
    with pytest.raises(InputError, match="below 1"):
        bring(event(1), pdrop=1.0)


def test_too_many_actions_are_refused_with_the_other_ways(
    bring: Bring, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ACTIONS", 1)
    with pytest.raises(InputError, match=r"2 distinct actions .* identify='position', or a JSON pointer"):
        bring(event(1))
    assert list_logs(workspace) == []
    assert bring(event(1), identify="/id").rows_kept == 1


def test_a_pointer_that_finds_nothing_is_refused(bring: Bring, workspace: Workspace) -> None:
    with pytest.raises(InputError, match=r"No action of .* has anything at '/name'"):
        bring(event(1), identify="/name")
    with pytest.raises(InputError, match="cannot be identified by 'name'"):
        bring(event(1), identify="name")
    nameless = {"_multi": [ACTIONS[0], {"F": {}}]}
    assert bring(event(1), event(2, c=nameless), identify="/id").reasons == {"an action has nothing at /id": 1}
    assert read_log(workspace, "l").action_labels == ["food", "news"]


def test_what_is_no_dsjson_file_is_refused_and_leaves_no_trace(
    bring: Bring, tmp_path: Path, workspace: Workspace
) -> None:
    with pytest.raises(FileError, match="no file"):
        import_dsjson(tmp_path / "none.json", workspace, "l")
    with pytest.raises(FileError, match="is a folder"):
        import_dsjson(tmp_path, workspace, "l")
    with pytest.raises(FileError, match="is empty"):
        bring("")
    with pytest.raises(FileError, match=r"No line of .* is an event"):
        bring('{"action": "a", "reward": 1}')
    with pytest.raises(FileError, match=r"No line of .* is an event"):
        bring("not json", "at all")
    with pytest.raises(FileError, match="begins with a byte order mark"):
        bring("\ufeff" + json.dumps(event(1)))
    path = tmp_path / "cut.json.gz"
    path.write_bytes(gzip.compress(json.dumps(event(1)).encode() * 2000)[:-30])
    with pytest.raises(FileError, match="cut short"):
        import_dsjson(path, workspace, "l")
    path.write_bytes(b"no gzip")
    with pytest.raises(FileError, match="cannot be read"):
        import_dsjson(path, workspace, "l")
    assert list_logs(workspace) == []
    assert workspace.connection.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall() == [(0,)]


NASTY = """x'"; DROP TABLE decisions; --"""


def test_sql_in_values_names_and_pointers_is_only_text(bring: Bring, workspace: Workspace) -> None:
    actions = [{NASTY: NASTY}, {NASTY: "b"}]
    report = bring(
        event(NASTY, c={NASTY: NASTY, "_multi": actions}), name="o'log; --[1]*.json", log="l", identify=f"/{NASTY}"
    )  # fmt: skip
    assert report.rows_kept == 1
    assert read_log(workspace, "l").action_labels == ["b", NASTY]
