"""Importing logged decisions: every row is kept, known already, or in quarantine with its line and reason."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from counterplay.errors import ColumnError, CounterplayError, FileError, InputError
from counterplay.logs import ImportReport, Workspace, import_decisions, list_logs, read_log, read_quarantine

Bring = Callable[..., ImportReport]
Csv = Callable[..., Path]

HEADER = "decision_id,action,propensity,reward"
GOOD = "good,a,0.5,1"


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("0", "propensity is zero"),
        ("-0.25", "propensity is negative: -0.25"),
        ("1.5", "propensity is above 1: 1.5"),
        ("nan", "propensity is not a number: nan"),
        ("inf", "propensity is infinite"),
        ("", "propensity is missing"),
        ("often", "propensity is not a number: often"),
    ],
)
def test_an_impossible_propensity_is_quarantined_with_its_line(
    bring: Bring, csv_file: Csv, workspace: Workspace, cell: str, reason: str
) -> None:
    report = bring(csv_file(HEADER, GOOD, f"bad,a,{cell},1", "fine,b,1,0"))
    assert (report.rows_read, report.rows_kept, report.rows_quarantined) == (3, 2, 1)
    assert reasons(workspace) == [(3, reason)]
    assert report.reasons == {reason.split(":")[0]: 1}


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("nan", "reward is not a number: nan"),
        ("inf", "reward is infinite"),
        ("-inf", "reward is infinite"),
        ("good", "reward is not a number: good"),
        ("", "reward is missing"),
    ],
)
def test_an_impossible_reward_is_quarantined_with_its_line(
    bring: Bring, csv_file: Csv, workspace: Workspace, cell: str, reason: str
) -> None:
    report = bring(csv_file(HEADER, GOOD, f"bad,a,0.5,{cell}"))
    assert (report.rows_kept, report.rows_quarantined) == (1, 1)
    assert reasons(workspace) == [(3, reason)]


def test_a_reward_of_true_or_false_is_one_or_zero(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(HEADER, "1,a,0.5,True", "2,a,0.5,false"))
    assert read_log(workspace, "l").reward.tolist() == [1, 0]


def test_a_missing_action_is_quarantined(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(HEADER, "1,,0.5,1", GOOD))
    assert reasons(workspace) == [(2, "action is missing")]


def test_an_action_that_is_not_among_its_candidates_is_quarantined(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(f"{HEADER},candidates", "1,a,0.5,1,a|b", "2,c,0.5,1,a|b", '3,c,0.5,1,"[""c"", ""d, e""]"'))
    assert reasons(workspace) == [(3, "action is not among the candidates: c")]
    log = read_log(workspace, "l")
    assert log.action_labels == ["a", "b", "c", "d, e"]
    assert log.candidates is not None
    assert log.candidates.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "candidates are missing"),
        ("[]", "candidates are empty"),
        ("[a", "candidates are not a list: [a"),
        ("a|a", "candidates name an action twice: a|a"),
        ("a||b", "candidates hold an empty entry: a||b"),
    ],
)
def test_candidates_that_are_no_set_of_actions_are_quarantined(
    bring: Bring, csv_file: Csv, workspace: Workspace, cell: str, reason: str
) -> None:
    bring(csv_file(f"{HEADER},candidates", f"1,a,0.5,1,{cell}", "2,a,0.5,1,a|b"))
    assert reasons(workspace) == [(2, reason)]


def test_with_an_action_table_other_actions_are_unknown(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    source = csv_file(f"{HEADER},candidates", "1,b,0.5,1,a|b", "2,x,0.5,1,x|b", "3,b,0.5,1,b|y")
    report = bring(source, actions=["b", "unused", "a"])
    assert report.rows_kept == 1
    assert reasons(workspace) == [(3, "action is unknown: x"), (4, "candidates hold an unknown action: y")]
    assert read_log(workspace, "l").action_labels == ["b", "unused", "a"]


@pytest.mark.parametrize("key", ["decision_id", "context_id"])
def test_candidates_may_stand_in_a_table_of_their_own(
    bring: Bring, csv_file: Csv, workspace: Workspace, key: str
) -> None:
    rows = csv_file(f"{HEADER},context_id", "1,b,0.5,1,u", "2,a,0.9,0,v", "3,a,0.5,0,w", "4,c,0.5,0,x")
    name = {"decision_id": "1 2 4", "context_id": "u v x"}[key].split()
    allowed = csv_file(f"{key},item_id,pscore", f"{name[0]},a,0.5", f"{name[0]},b,0.5", f"{name[1]},c,0.1",
                       f"{name[1]},a,0.9", f"{name[2]},a,1", name="allowed.csv")  # fmt: skip
    assert bring(rows, candidates=allowed).rows_kept == 2
    assert reasons(workspace) == [
        (4, "candidates are missing"),
        (5, "action is not among the candidates: c"),
    ]
    log = read_log(workspace, "l")
    assert log.candidates is not None
    assert [[log.action_labels[i] for i in row] for row in log.candidates] == [["a", "b"], ["c", "a"]]
    held = workspace.connection.execute("SELECT candidate_propensities FROM decisions ORDER BY position").fetchall()
    assert held == [([0.5, 0.5],), ([0.1, 0.9],)]
    assert bring(rows, candidates=allowed).rows_known == 2


def test_a_table_of_candidates_that_does_not_fit_is_refused(bring: Bring, csv_file: Csv) -> None:
    rows = csv_file("action,propensity,reward", "a,0.5,1")
    with pytest.raises(ColumnError, match="neither decision nor context"):
        bring(rows, candidates=pl.DataFrame({"action": ["a"]}))
    with pytest.raises(ColumnError, match=r"goes by decision_id, which no column of log\.csv is"):
        bring(rows, candidates=pl.DataFrame({"decision_id": ["1"], "action": ["a"]}))
    with pytest.raises(InputError, match="an empty action for decision_id '1'"):
        bring(csv_file(HEADER, GOOD), candidates=pl.DataFrame({"decision_id": ["1"], "action": [None]}))


def test_an_action_table_brings_texts_and_features(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    table = pl.DataFrame({"label": ["b", "a"], "text": ["bee", "ay"], "features": [[1.0, 2.0], [3.0, 4.0]]})
    bring(csv_file(HEADER, GOOD), actions=table)
    log = read_log(workspace, "l")
    assert log.action_features is not None
    assert (log.action_labels, log.action_features.tolist()) == (["b", "a"], [[1, 2], [3, 4]])
    with pytest.raises(InputError, match="'b' stands twice"):
        bring(csv_file(HEADER, GOOD), actions=["b", "b"])


def test_a_decision_id_that_stands_twice_is_kept_once(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    source = csv_file(HEADER, "1,a,0,1", "1,a,0.5,1", "2,b,0.5,1", "1,b,0.5,0")
    assert bring(source).rows_kept == 2
    # A row that is wrong by itself does not use up its id.
    assert reasons(workspace)[1] == (5, "decision id stands twice in this file: 1, first in line 3")


def test_the_same_file_twice_adds_nothing(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    source = csv_file(f"{HEADER},candidates,x_0", "1,a,0.5,1,a|b,3", "2,a,0,1,a|b,3", "2,b,0.5,1,b,4", "oops")
    first = bring(source)
    before = read_log(workspace, "l").fingerprint
    second = bring(source)
    assert (first.rows_kept, first.rows_quarantined, first.rows_known) == (2, 2, 0)
    assert (second.rows_kept, second.rows_quarantined, second.rows_known) == (0, 2, 2)
    assert read_log(workspace, "l").fingerprint == before
    assert len(read_quarantine(workspace, "l")) == 2


def test_a_file_that_grew_adds_its_new_rows(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(HEADER, "1,a,0.5,1"))
    report = bring(csv_file(HEADER, "1,a,0.5,1", "2,z,0.5,1", "3,b,0.5,1"))
    assert (report.rows_kept, report.rows_known) == (2, 1)
    log = read_log(workspace, "l")
    assert log.decision_ids == ["1", "2", "3"]
    assert log.action_labels == ["a", "b", "z"]


def test_a_changed_row_under_a_known_id_is_reported_and_not_overwritten(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(HEADER, "1,a,0.5,1", "2,a,0.5,1"))
    report = bring(csv_file(HEADER, "1,a,0.5,0", "2,b,0.25,1"))
    assert (report.rows_kept, report.rows_known, report.rows_quarantined) == (0, 0, 2)
    assert reasons(workspace) == [
        (2, "decision id is known with other values: 1 (reward)"),
        (3, "decision id is known with other values: 2 (propensity, action)"),
    ]
    assert read_log(workspace, "l").reward.tolist() == [1, 1]


BARE = "action,propensity,reward"
ROWS = [f"{'ab'[i % 2]},0.5,{i % 3}" for i in range(30)]


def test_rows_without_ids_are_all_kept_even_when_equal_and_added_once(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    source = csv_file(BARE, "a,0.5,1", "a,0.5,1", "b,0.5,0")
    assert bring(source).rows_kept == 3
    assert bring(source).rows_known == 3
    assert read_log(workspace, "l").decision_ids == ["#0", "#1", "#2"]


def test_rows_without_ids_in_another_file_are_other_decisions_however_equal(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(BARE, "a,0.5,1", "a,0.5,1", "b,0.5,0", name="monday.csv"))
    report = bring(csv_file(BARE, "a,0.5,1", "b,0.5,0", "a,0.5,1", name="tuesday.csv"))
    assert (report.rows_kept, report.rows_known) == (3, 0)
    assert len(read_log(workspace, "l").action) == 6


@pytest.mark.parametrize("later", ["log.csv", "log-until-may.csv"])
def test_a_file_without_ids_that_grew_adds_its_new_rows_again_and_again(
    bring: Bring, csv_file: Csv, workspace: Workspace, later: str
) -> None:
    bring(csv_file(BARE, *ROWS[:20]))
    bring(csv_file(BARE, "b,0.25,0", "b,0.25,0", name="other.csv"))
    report = bring(csv_file(BARE, *ROWS[:25], name=later))
    assert (report.rows_kept, report.rows_known) == (5, 20)
    report = bring(csv_file(BARE, *ROWS, name=later))
    assert (report.rows_kept, report.rows_known) == (5, 25)
    assert bring(csv_file(BARE, *ROWS[:12])).rows_known == 12
    assert read_log(workspace, "l").reward.tolist() == [
        *(i % 3 for i in range(20)), 0, 0, *(i % 3 for i in range(20, 30))
    ]  # fmt: skip


def test_a_row_without_id_that_is_mended_comes_in_when_the_file_comes_again(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(BARE, *ROWS[:10], "x,0.5,oops", *ROWS[10:]))
    report = bring(csv_file(BARE, *ROWS[:10], "x,0.5,7", *ROWS[10:], "y,0.5,8"))
    assert (report.rows_kept, report.rows_known, report.rows_quarantined) == (2, 30, 0)
    assert read_log(workspace, "l").reward.tolist()[9:12] == [0, 7, 1]


def test_a_file_without_ids_that_changed_is_refused_unless_it_holds_new_decisions(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(BARE, *ROWS))
    changed = csv_file(BARE, *ROWS[:7], "a,0.5,9", *ROWS[8:])
    with pytest.raises(InputError, match=r"log\.csv was imported before .* row 8 had another reward, action.*--as-new"):
        bring(changed)
    assert len(read_log(workspace, "l").action) == 30
    assert bring(changed, as_new=True).rows_kept == 30
    assert bring(changed).rows_known == 30
    assert bring(changed, as_new=True).rows_kept == 30


def test_a_changed_row_takes_the_place_of_the_old_one_when_asked(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(f"{HEADER},step", "1,a,0.5,1,1", "2,a,0.5,1,1", "3,b,0.5,1,1"))
    report = bring(csv_file(f"{HEADER},step", "4,a,0.5,1,2", "2,z,0.25,0,2", "3,b,0.5,1,1"), overwrite=True)
    assert (report.rows_kept, report.rows_replaced, report.rows_known, report.rows_quarantined) == (2, 1, 1, 0)
    log = read_log(workspace, "l")
    assert (log.decision_ids, log.reward.tolist()) == (["1", "2", "3", "4"], [1, 0, 1, 1])
    assert [log.action_labels[action] for action in log.action] == ["a", "z", "b", "a"]
    steps = workspace.connection.execute("SELECT position, step FROM steps ORDER BY position").fetchall()
    assert [step for _, step in steps] == [1, 2, 1, 2]


def test_contexts_that_carry_nothing_are_those_of_the_decisions_until_one_carries_something(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(f"{HEADER},context_id", "1,a,0.5,1,v", "2,a,0.5,1,u", "3,a,0.5,1,v"))
    assert list_logs(workspace)[0]["contexts"] is None
    assert read_log(workspace, "l").context_ids == ["v", "u"]
    bring(csv_file(f"{HEADER},context_id,text", "4,a,0.5,1,w,new", "5,a,0.5,1,u,", name="more.csv"))
    assert list_logs(workspace)[0]["contexts"] == 3
    log = read_log(workspace, "l")
    assert (log.context_ids, log.context.tolist()) == (["v", "u", "w"], [0, 1, 0, 2, 1])


def test_a_folder_or_pattern_of_parquet_files_is_one_table_in_natural_order(
    bring: Bring, tmp_path: Path, workspace: Workspace
) -> None:
    for i in (1, 2, 10):
        pl.DataFrame({"action": ["a", f"a{i}"], "reward": [i, -i]}).write_parquet(tmp_path / f"part-{i}.parquet")
    assert bring(tmp_path).rows_kept == 6
    assert read_log(workspace, "l").reward.tolist() == [1, -1, 2, -2, 10, -10]
    assert bring(str(tmp_path / "part-*.parquet"), log="pattern").rows_kept == 6
    pl.DataFrame({"action": ["a", None], "reward": [11.5, 0], "id": [None, 4]}).write_parquet(
        tmp_path / "part-11.parquet"
    )
    report = bring(tmp_path, columns={"decision_id": ""})
    assert (report.rows_kept, report.rows_known, report.rows_quarantined) == (1, 6, 1)
    assert reasons(workspace) == [(8, "action is missing")]


def test_labels_that_are_whole_numbers_keep_their_order_whatever_their_size(bring: Bring, workspace: Workspace) -> None:
    far = [-5, 2**62, 7, 7, 10_000_000_000]
    bring(pl.DataFrame({"action": far, "reward": [0] * 5, "candidates": [[one, 1] for one in far]}))
    log = read_log(workspace, "l")
    assert log.action_labels == ["-5", "1", "7", "10000000000", str(2**62)]
    assert log.action.tolist() == [0, 4, 2, 2, 3]
    near = [12, 7, 3]
    bring(pl.DataFrame({"action": near, "reward": [0] * 3}), log="near")
    assert read_log(workspace, "near").action.tolist() == [2, 1, 0]
    bring(pl.DataFrame({"action": [3, 5, 99], "reward": [0] * 3}), log="near")
    assert read_log(workspace, "near").action.tolist() == [2, 1, 0, 0, 3, 4]
    assert read_log(workspace, "near").action_labels == ["3", "7", "12", "5", "99"]


def test_a_distribution_over_the_candidates_must_be_one(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    cells = ["[0.5, 0.5]", "[0.5, 0.6]", "[0.9, 0.1]", "[1.5, -0.5]", "[1]", "half"]
    bring(csv_file(f"{HEADER},candidates,pmf", *(f'{i},a,0.5,1,a|b,"{cell}"' for i, cell in enumerate(cells))))
    assert [reason.split(":")[0] for _, reason in reasons(workspace)] == [
        "candidate propensities do not sum to 1",
        "candidate propensities give the action another propensity",
        "candidate propensities hold something outside 0 to 1",
        "candidate propensities are not one for each candidate",
        "candidate propensities are not a list of numbers",
    ]


def test_indices_of_actions_do_not_depend_on_the_order_of_rows(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    rows = [f"{i},{label},0.5,1" for i, label in enumerate(("10", "9", "x", "2", "a"))]
    bring(csv_file(HEADER, *rows))
    bring(csv_file(HEADER, *reversed(rows)), log="reversed")
    assert read_log(workspace, "l").action_labels == ["2", "9", "10", "a", "x"]
    assert read_log(workspace, "reversed").action_labels == ["2", "9", "10", "a", "x"]


def test_a_log_without_propensities_is_observed(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    source = csv_file("id,arm,click", "1,a,1")
    assert bring(source).regime == "observed"
    assert np.isnan(read_log(workspace, "l").propensity).all()
    with pytest.raises(ColumnError, match="No column is the propensity"):
        bring(source, log="other", regime="propensity")
    with pytest.raises(InputError, match="under another name"):
        bring(csv_file(HEADER, GOOD))
    with pytest.raises(InputError, match="cannot have the regime 'full'"):
        bring(source, regime="full")


def test_features_that_do_not_fit_are_quarantined(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(f"{HEADER},features", '1,a,0.5,1,"[1, 2]"', '2,a,0.5,1,"[1, 2, 3]"', '3,a,0.5,1,"[0.5, 2]"',
                   '4,a,0.5,1,"[1, nan]"', "5,a,0.5,1,", "6,a,0.5,1,warm"))  # fmt: skip
    assert [reason.split(":")[0] for _, reason in reasons(workspace)] == [
        "features have another length than the log's 2",
        "features hold something that is no finite number",
        "features are missing",
        "features are not a list of numbers",
    ]
    log = read_log(workspace, "l")
    assert log.context_features is not None
    assert log.context_features.tolist() == [[1, 2], [0.5, 2]]
    report = bring(csv_file(HEADER, "9,a,0.5,1"))
    assert report.reasons == {"features have another length than the log's 2": 1}


def test_one_context_id_has_one_text(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(
        csv_file(f"{HEADER},context_id,text", "1,a,0.5,1,c,hot", "2,a,0.5,1,c,cold", "3,a,0.5,1,c,hot", "4,a,0.5,1,d,")
    )
    assert reasons(workspace) == [(3, "context has other text than before: c, first in line 2")]
    assert read_log(workspace, "l").context_ids == ["c", "d"]


def test_contexts_without_ids_are_told_apart_by_their_content(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    bring(csv_file(f"{HEADER},text", "1,a,0.5,1,hot", "2,a,0.5,1,cold", "3,a,0.5,1,hot"))
    assert read_log(workspace, "l").context.tolist() == [0, 1, 0]


def test_times_in_several_forms_are_one_time(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    times = ["2023-11-14T22:13:20Z", "2023-11-14 23:13:20+01", "1700000000", "1700000000000", "yesterday"]
    bring(csv_file(f"{HEADER},timestamp", *(f"{i},a,0.5,1,{time}" for i, time in enumerate(times))))
    found = workspace.connection.execute("SELECT DISTINCT CAST(timestamp AS VARCHAR) FROM decisions").fetchall()
    assert found == [("2023-11-14 22:13:20+00",)]
    assert reasons(workspace) == [(6, "timestamp is not a time: yesterday")]


def test_a_loss_is_turned_into_a_reward(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("action,prob,loss", "a,0.5,0.25"), columns={"reward": "-loss"})
    assert read_log(workspace, "l").reward.tolist() == [-0.25]


def test_broken_lines_of_a_csv_file_keep_their_physical_line(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    source = csv_file(HEADER, '1,"a', 'b",0.5,1', "", "2,a,0.5", "3,a,0.5,1,extra", "4,a,0,1", '5,"a')
    report = bring(source)
    assert (report.rows_read, report.rows_kept) == (5, 1)
    assert reasons(workspace) == [
        (5, "the line is broken: missing columns"),
        (6, "the line is broken: too many columns"),
        (7, "propensity is zero"),
        (8, "the line is broken: unquoted value"),
    ]
    assert json.loads(read_quarantine(workspace, "l")["row"][0]) == {"line": "2,a,0.5"}
    assert read_log(workspace, "l").action_labels == ["a\nb"]


def test_a_jsonl_file_cut_in_a_line_loses_that_line_only(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "log.jsonl"
    row = {"event_id": "1", "actions": [1, 2], "action": 1, "p": 0.5, "r": 1, "context": [0.5, 1]}
    text = "\n\n".join(json.dumps(row | {"event_id": str(i)}) for i in range(3))
    path.write_text(text[:-9] + "\n[1]\n7\n")
    options = {"columns": {"features": "context", "text": ""}}
    report = bring(path, **options)
    assert (report.rows_read, report.rows_kept, report.rows_quarantined) == (5, 2, 3)
    assert reasons(workspace) == [(line, "the line is not a JSON object") for line in (5, 6, 7)]
    assert json.loads(read_quarantine(workspace, "l")["row"][1]) == {"line": "[1]"}
    assert read_log(workspace, "l").context_features.tolist() == [[0.5, 1]]  # type: ignore[union-attr]
    assert bring(path, **options).rows_known == 2


def test_a_key_that_only_the_last_line_has_is_a_column(bring: Bring, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"action": "a", "reward": 1}\n' * 5000 + '{"action": "a", "reward": 1, "propensity": 0.5}\n')
    report = bring(path)
    assert (report.regime, report.rows_kept, report.reasons) == ("propensity", 1, {"propensity is missing": 5000})


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_an_empty_file_is_refused(bring: Bring, tmp_path: Path, workspace: Workspace, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.touch()
    with pytest.raises(FileError, match=r"log\.\w+ is empty"):
        bring(path)
    assert list_logs(workspace) == []


def test_a_file_with_column_names_only_is_refused(bring: Bring, csv_file: Csv) -> None:
    with pytest.raises(FileError, match="no rows"):
        bring(csv_file(HEADER))
    with pytest.raises(FileError, match="no rows"):
        bring(pl.DataFrame({"action": [], "reward": []}))


@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz", ".jsonl.gz"])
def test_a_file_cut_short_is_refused_and_leaves_no_trace(
    bring: Bring, tmp_path: Path, workspace: Workspace, suffix: str
) -> None:
    path = tmp_path / f"log{suffix}"
    frame = pl.DataFrame({"action": ["a"] * 20000, "reward": np.random.default_rng(0).random(20000)})
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv() if ".csv" in suffix else frame.write_ndjson()
        path.write_bytes(gzip.compress(text.encode()))
    assert bring(path, log="whole").rows_kept == 20000
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(FileError, match="cut short"):
            bring(path)
    assert [row["log"] for row in list_logs(workspace)] == ["whole"]


def test_what_is_no_file_of_a_known_kind_is_refused(bring: Bring, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file"):
        bring(tmp_path / "none.csv")
    with pytest.raises(FileError, match="no Parquet files at"):
        bring(tmp_path)
    (tmp_path / "log.xls").write_bytes(b"x")
    with pytest.raises(FileError, match=r"Known: \.parquet"):
        bring(tmp_path / "log.xls")
    (tmp_path / "log.jsonl").write_text("not json\n")
    with pytest.raises(FileError, match="JSON object"):
        bring(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="polars, pandas or Arrow"):
        bring([1, 2])


def test_a_wrong_column_name_is_refused_with_the_nearest_and_leaves_no_trace(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    with pytest.raises(ColumnError, match=r"No column is the reward\. Did you mean 'rewrad'\?"):
        bring(csv_file("action,propensity,rewrad", "a,0.5,1"))
    with pytest.raises(ColumnError, match=r"Did you mean 'pscore'\?"):
        bring(csv_file("action,pscore,reward", "a,0.5,1"), columns={"propensity": "pscroe"})
    with pytest.raises(ColumnError, match="twice"):
        bring(csv_file("action,reward,reward", "a,0.5,1"))
    assert list_logs(workspace) == []


NASTY = """x'"; DROP TABLE decisions; --"""


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "polars"])
def test_column_names_and_values_with_sql_in_them_are_only_text(
    bring: Bring, tmp_path: Path, workspace: Workspace, kind: str
) -> None:
    frame = pl.DataFrame({NASTY: [NASTY, "b"], 'a "b" /~c': [1.0, 0.0], "') --": [0.5, 7.0], "ordinal": ["x", "y"]})
    path = tmp_path / f"o'log; --.{kind}"
    writers: dict[str, Any] = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
    if kind in writers:
        writers[kind](path)
    columns = {"action": NASTY, "reward": 'a "b" /~c', "propensity": "') --"}
    report = bring(path if kind in writers else frame, log=NASTY, columns=columns, actions=[NASTY, "b"])
    assert (report.rows_kept, report.rows_quarantined, report.ignored) == (1, 1, ("ordinal",))
    assert read_log(workspace, NASTY).action_labels == [NASTY, "b"]
    held = json.loads(read_quarantine(workspace, NASTY)["row"][0])
    assert (held[NASTY], held["ordinal"]) == ("b", "y")


FRAME = {
    "decision_id": [1, 2, 3, 4],
    "action": [3, 5, 3, 5],
    "pscore": [0.5, 0.5, None, 0.25],
    "click": [1, 0, 1, 0],
    "candidates": [[3, 5], [5, 7], [3, 5], [3, 5]],
    "context": [[0.5, 1.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]],
}


def as_pandas() -> pd.DataFrame:
    return pd.DataFrame(FRAME)


@pytest.mark.parametrize("make", [pl.DataFrame, as_pandas, pa.table, lambda frame: pl.LazyFrame(frame)])
def test_polars_pandas_and_arrow_frames_bring_the_same_log(
    bring: Bring, workspace: Workspace, make: Callable[..., Any]
) -> None:
    report = bring(make() if make is as_pandas else make(FRAME))
    assert (report.rows_kept, report.reasons) == (3, {"propensity is missing": 1})
    log = read_log(workspace, "l")
    assert log.decision_ids == ["1", "2", "4"]
    assert log.action_labels == ["3", "5", "7"]
    assert log.action.tolist() == [0, 1, 1]
    assert log.candidates is not None
    assert log.candidates.tolist() == [[0, 1], [1, 2], [0, 1]]
    assert log.context.tolist() == [0, 1, 1]


def test_a_pandas_column_with_mixed_types_is_judged_cell_by_cell(bring: Bring, workspace: Workspace) -> None:
    bring(pd.DataFrame({"action": ["a", "b", "c"], "reward": [1.0, "high", None]}))
    assert reasons(workspace) == [(2, "reward is not a number: high"), (3, "reward is missing")]


def test_whole_numbers_that_became_decimals_are_the_same_labels(bring: Bring, workspace: Workspace) -> None:
    bring(pl.DataFrame({"action": [3.0, None], "reward": [1, 1]}))
    assert read_log(workspace, "l").action_labels == ["3"]


def test_an_import_that_fails_in_the_middle_leaves_the_workspace_as_it_was(
    csv_file: Csv, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("counterplay.logs.decisions.table._sign", fail)
    with pytest.raises(KeyboardInterrupt):
        import_decisions(csv_file(HEADER, GOOD, "2,a,0,1"), workspace, "l")
    monkeypatch.undo()
    counts = [
        workspace.connection.execute(f"SELECT count(*) FROM {name}").fetchall() for name in ("logs", "quarantine")
    ]
    assert counts == [[(0,)], [(0,)]]
    assert import_decisions(csv_file(HEADER, GOOD), workspace, "l").rows_kept == 1


def test_counts_that_do_not_add_up_stop_the_import(
    csv_file: Csv, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterplay.logs.decisions.table.insert_rows", lambda *_: 0)
    with pytest.raises(CounterplayError, match="do not add up"):
        import_decisions(csv_file(HEADER, GOOD), workspace, "l")
    assert list_logs(workspace) == []


def test_an_import_leaves_nothing_behind_in_the_connection(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(HEADER, GOOD, "2,a,0,1", "3"))
    connection: duckdb.DuckDBPyConnection = workspace.connection
    assert connection.execute("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall() == []


def test_stars_and_brackets_in_a_file_name_mean_themselves(bring: Bring, csv_file: Csv) -> None:
    csv_file(HEADER, GOOD, "other,a,0.5,1", name="log1.csv")
    assert bring(csv_file(HEADER, GOOD, name="log[1].csv")).rows_read == 1
    assert bring(csv_file(HEADER, GOOD, name="log*.csv")).rows_read == 1


def test_an_import_into_a_path_makes_the_workspace(csv_file: Csv, tmp_path: Path) -> None:
    assert import_decisions(csv_file(HEADER, GOOD), tmp_path / "new.duckdb", "l").rows_kept == 1
    assert read_log(tmp_path / "new.duckdb", "l").decision_ids == ["good"]


def test_an_import_joins_the_transaction_of_its_caller(csv_file: Csv, workspace: Workspace) -> None:
    def two_imports(second: Path) -> None:
        with workspace.transaction():
            import_decisions(csv_file(HEADER, GOOD), workspace, "l")
            import_decisions(second, workspace, "m")

    torn = csv_file("x", name="torn.parquet")
    with pytest.raises(FileError, match="cut short"):
        two_imports(torn)
    assert list_logs(workspace) == []
    two_imports(csv_file(HEADER, GOOD, name="second.csv"))
    assert [row["log"] for row in list_logs(workspace)] == ["l", "m"]
