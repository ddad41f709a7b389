"""Importing tables of outcomes: every action's reward in every context, long or wide, full or partial."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterplay.errors import ColumnError, CounterplayError, FileError, InputError, MissingEvidenceError
from counterplay.logs import Workspace, import_decisions, list_logs, open_workspace, read_log, read_quarantine
from counterplay.logs.full.outcomes import import_outcomes
from counterplay.logs.full.run import FullReport
from counterplay.replay.agents import Constant
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

Bring = Callable[..., FullReport]
Csv = Callable[..., Path]

LONG = "model,prompt_id,reward"
ROUTERBENCH = pl.DataFrame(
    {
        "sample_id": ["gsm8k.1", "gsm8k.2", "mmlu.7"],
        "prompt": ["2 + 3?", "17 * 4?", "Capital of Peru?"],
        "eval_name": ["gsm8k", "gsm8k", "mmlu"],
        "gpt-4": [1.0, 1.0, 0.0],
        "mixtral": [0.0, 0.25, 1.0],
        "gpt-4|model_response": ["5", "68", "Cuzco"],
        "mixtral|model_response": ["6", "86", "Lima"],
        "gpt-4|total_cost": [0.01, 0.02, 0.03],
        "mixtral|total_cost": [0.001, 0.002, 0.0],
        "oracle_model_to_route_to": ["gpt-4", "gpt-4", "mixtral"],
    }
)
ROUTELLM = (
    "prompt,mistralai/Mixtral-8x7B-Instruct-v0.1,gpt-4-1106-preview,"
    "mistralai/Mixtral-8x7B-Instruct-v0.1_response,gpt-4-1106-preview_response",
    '"How many eggs, then?",True,False,"12, or so",11',
    "How far?,False,True,3 km,4 km",
)


@pytest.fixture
def bring(workspace: Workspace) -> Bring:
    """Import into the log 'l', and check what must hold of every report."""

    def run(source: Any, log: str = "l", **options: Any) -> FullReport:
        report = import_outcomes(source, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run


def table(workspace: Workspace, log: str = "l") -> dict[tuple[str, str], float]:
    """(context id, label) to reward, as read."""
    read = read_log(workspace, log)
    assert read.outcomes is not None
    rewards = read.outcomes.reward(np.arange(len(read.context_ids))[:, None], np.arange(len(read.action_labels)))
    return {
        (context, label): float(rewards[i, j])
        for i, context in enumerate(read.context_ids)
        for j, label in enumerate(read.action_labels)
    }


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def stored(workspace: Workspace, what: str) -> list[Any]:
    return workspace.connection.execute(f"SELECT {what} FROM outcomes ORDER BY context_id, action").fetchall()


def test_a_long_table_has_a_row_for_each_context_and_model(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    report = bring(csv_file(LONG, "b,1,1", "a,1,0", "b,2,0.5", "a,2,true"))
    assert (report.shape, report.regime, report.contexts, report.actions, report.unknown) == ("long", "full", 2, 2, 0)
    assert (report.rows_read, report.rows_kept) == (4, 4)
    assert report.mapping == {"context_id": "prompt_id", "action": "model", "reward": "reward"}
    assert table(workspace) == {("1", "a"): 0, ("1", "b"): 1, ("2", "a"): 1, ("2", "b"): 0.5}


def test_each_context_is_one_decision_without_an_action(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(
        csv_file(LONG + ",category", "b,x,1,maths", "a,x,0,maths", "b,y,1,law", "a,y,1,"),
        columns={"cluster": "category"},
    )
    log = read_log(workspace, "l")
    assert (log.decision_ids, log.context.tolist(), log.action.tolist()) == (["x", "y"], [0, 1], [-1, -1])
    assert np.isnan(log.propensity).all()
    assert workspace.connection.execute("SELECT cluster FROM decisions ORDER BY position").fetchall() == [
        ("maths",),
        ("law",),
    ]
    assert list_logs(workspace)[0] | {"description": None} == {
        "log": "l",
        "regime": "full",
        "description": None,
        "contexts": 2,
        "actions": 2,
        "decisions": 2,
        "outcomes": 4,
        "quarantine": 0,
    }


def test_texts_are_kept_and_tell_contexts_apart_without_ids(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("model,prompt,score", "a,hello,1", "b,hello,0", "a,bye,0", "b,bye,0"))
    texts = workspace.connection.execute("SELECT text FROM contexts ORDER BY position").fetchall()
    assert texts == [("hello",), ("bye",)]


def test_cost_seconds_and_tokens_are_kept(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    header = LONG + ",cost,latency_s,input_tokens,output_tokens"
    bring(csv_file(header, "a,1,1,0.5,2.5,100,7", "b,1,0,,,,"))
    assert stored(workspace, "cost, seconds, input_tokens, output_tokens") == [(0.5, 2.5, 100, 7), (None,) * 4]


def test_zero_means_unknown_only_where_that_is_said(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    path = csv_file(LONG + ",cost,latency_s,input_tokens", "a,1,0,0,0,0")
    bring(path, zero_means_unknown=("seconds", "input_tokens"))
    assert stored(workspace, "reward, cost, seconds, input_tokens") == [(0, 0, None, None)]
    bring(path, log="as it is")
    assert (0, 0) in stored(workspace, "seconds, input_tokens")


def test_a_reward_of_zero_never_means_unknown(bring: Bring, csv_file: Csv) -> None:
    with pytest.raises(InputError, match=r"reward of 0 is a reward.*empty"):
        bring(csv_file(LONG, "a,1,0"), zero_means_unknown=("reward",))
    with pytest.raises(InputError, match="Did you mean 'seconds'"):
        bring(csv_file(LONG, "a,1,0"), zero_means_unknown=("second",))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,1,nan,", "reward is not a number: nan"),
        ("a,1,good,", "reward is not a number: good"),
        ("a,1,inf,", "reward is infinite: inf"),
        (",1,1,", "action is missing"),
        ("a,,1,", "context id is missing"),
        ("a,1,1,-5", "input tokens are negative: -5"),
        ("a,1,1,1.5", "input tokens are not a whole number: 1.5"),
        ("a,1,1,many", "input tokens are not a number: many"),
    ],
)
def test_an_impossible_row_is_quarantined_with_its_line(
    bring: Bring, csv_file: Csv, workspace: Workspace, row: str, reason: str
) -> None:
    report = bring(csv_file(LONG + ",input_tokens", "b,1,1,1", row))
    assert (report.rows_kept, report.rows_quarantined) == (1, 1)
    assert reasons(workspace) == [(3, reason)]


def test_a_context_and_model_that_stand_twice_keep_the_first(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(LONG, "a,1,1", "a,1,0", "a,2,0"))
    assert reasons(workspace) == [(3, "context and action stand twice in this file: 1, a, first in line 2")]
    assert table(workspace) == {("1", "a"): 1, ("2", "a"): 0}


def test_one_context_id_has_one_text_and_one_cluster(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    header = "model,prompt_id,reward,prompt,cluster"
    bring(csv_file(header, "a,1,1,hello,x", "b,1,0,,", "c,1,0,goodbye,x", "d,1,0,hello,y"))
    assert reasons(workspace) == [
        (4, "context has other text or features than before: 1, first in line 2"),
        (5, "context has another cluster than before: 1, first in line 2"),
    ]
    again = bring(csv_file("model,prompt_id,reward,prompt", "e,1,1,good morning", name="more.csv"))
    assert again.reasons == {"context has other text or features than before": 1}


def test_an_empty_reward_is_unknown_and_makes_the_log_partial(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    report = bring(csv_file(LONG + ",cost", "a,1,1,1", "b,1,,2", "a,2,0,1", "b,2,1,1"))
    assert (report.regime, report.unknown, report.rows_kept) == ("partial", 1, 4)
    assert np.isnan(table(workspace)["1", "b"])
    assert read_log(workspace, "l").regime == "partial"


def test_a_pair_that_is_not_listed_makes_the_log_partial(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    report = bring(csv_file(LONG, "a,1,1", "b,1,0", "a,2,0"))
    assert (report.regime, report.unknown) == ("partial", 1)
    assert np.isnan(table(workspace)["2", "b"])


def test_what_was_unknown_can_come_later(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(LONG + ",cost", "a,1,1,", "b,1,,2"))
    report = bring(csv_file(LONG + ",cost", "a,1,1,", "b,1,0,", name="filled.csv"))
    assert (report.rows_kept, report.rows_known, report.regime) == (1, 1, "full")
    assert stored(workspace, "reward, cost") == [(1, None), (0, 2)]
    assert bring(csv_file(LONG + ",cost", "b,1,,", name="emptier.csv")).rows_known == 1


def test_the_same_file_again_adds_nothing_and_a_longer_one_adds_what_is_new(bring: Bring, csv_file: Csv) -> None:
    rows = ["a,1,1", "b,1,0", "a,2,0", "b,2,1"]
    bring(csv_file(LONG, *rows))
    again = bring(csv_file(LONG, *rows))
    assert (again.rows_kept, again.rows_known, again.contexts) == (0, 4, 2)
    grown = bring(csv_file(LONG, *rows, "a,3,1", "b,3,1"))
    assert (grown.rows_kept, grown.rows_known, grown.contexts, grown.regime) == (2, 4, 3, "full")
    wider = bring(csv_file(LONG, "c,1,1", name="third model.csv"))
    assert (wider.actions, wider.regime, wider.unknown) == (3, "partial", 2)


def test_a_changed_outcome_is_reported_and_not_overwritten(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file(LONG + ",cost", "a,1,1,2", "b,1,0,2"))
    report = bring(csv_file(LONG + ",cost", "a,1,0,3", "b,1,0,2", name="later.csv"))
    assert (report.rows_kept, report.rows_known, report.rows_quarantined) == (0, 1, 1)
    assert reasons(workspace) == [(2, "outcome is known with other values: a (reward, cost)")]
    assert table(workspace) == {("1", "a"): 1, ("1", "b"): 0}


def test_a_loss_becomes_a_reward(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("model,id,loss", "a,1,0.5"), columns={"reward": "-loss"})
    assert table(workspace) == {("1", "a"): -0.5}


def test_features_of_contexts_come_along(bring: Bring, workspace: Workspace) -> None:
    frame = pl.DataFrame(
        {"id": ["1", "2", "3"], "model": "a", "reward": [1, 0, 1], "x": [[1.0, 2.0], [3.0, 4.0], [5.0]]}
    )
    report = bring(frame)
    assert report.reasons == {"features have another length than the log's 2": 1}
    features = read_log(workspace, "l").context_features
    assert features is not None
    assert features.tolist() == [[1, 2], [3, 4]]


def test_routerbench_is_recognised(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    ROUTERBENCH.write_parquet(tmp_path / "routerbench.parquet")
    report = bring(tmp_path / "routerbench.parquet", columns={"cluster": "eval_name"})
    assert (report.shape, report.models) == ("wide", {"gpt-4": "gpt-4", "mixtral": "mixtral"})
    assert report.mapping == {"context_id": "sample_id", "text": "prompt", "cluster": "eval_name"}
    assert report.ignored == ("oracle_model_to_route_to",)
    assert (report.rows_kept, report.contexts, report.actions, report.regime) == (3, 3, 2, "full")
    assert table(workspace)["gsm8k.2", "mixtral"] == 0.25
    assert stored(workspace, "cost")[:2] == [(0.01,), (0.001,)]
    assert read_log(workspace, "l").cluster.tolist() == [0, 0, 1]
    again = bring(ROUTERBENCH.to_pandas())
    assert (again.rows_kept, again.rows_known) == (0, 3)


def test_routellm_is_recognised(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    report = bring(csv_file(*ROUTELLM))
    assert list(report.models) == ["mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"]
    assert (report.shape, report.ignored, report.regime) == ("wide", (), "full")
    assert list(table(workspace).values()) == [1, 0, 0, 1]
    assert read_log(workspace, "l").action_labels == list(report.models)
    bare = csv_file("prompt,mixtral,gpt-4", "a,True,False", "b,False,True", name="bare.csv")
    assert list(bring(bare, log="bare").models) == ["mixtral", "gpt-4"]


def test_equal_prompts_in_a_wide_table_are_all_kept(bring: Bring, csv_file: Csv) -> None:
    path = csv_file("prompt,m,n", "same,1,0", "same,0,1", "same,1,0")
    assert bring(path).contexts == 3
    assert bring(path).rows_known == 3


def test_a_wide_row_with_an_impossible_cell_is_quarantined_whole(
    bring: Bring, csv_file: Csv, workspace: Workspace
) -> None:
    report = bring(csv_file("prompt,m:8b,n", "a,1,0", "b,oops,1", "c,1,inf", "d,,0", "d,1,1"))
    assert reasons(workspace) == [(3, "reward is not a number: oops (m:8b)"), (4, "reward is infinite: inf (n)")]
    assert (report.contexts, report.regime, report.unknown) == (3, "partial", 1)
    assert report.reasons == {"reward is infinite": 1, "reward is not a number": 1}


def test_a_wide_row_with_a_changed_cell_adds_nothing(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("id,m,n", "1,1,0", "2,1,0"))
    report = bring(csv_file("id,m,n,o", "1,0,0,1", "2,1,0,1", name="later.csv"))
    assert (report.rows_kept, report.rows_quarantined) == (1, 1)
    assert reasons(workspace) == [(2, "outcome is known with other values: m (reward)")]
    assert table(workspace)["2", "o"] == 1
    assert np.isnan(table(workspace)["1", "o"])


def test_models_can_be_named(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    path = csv_file("id,length,first,second,paid", "1,10,0.5,1,3")
    report = bring(path, models={"one": "first", "two": "second"}, costs={"one": "paid"})
    assert (report.models, report.ignored) == ({"one": "first", "two": "second"}, ("length",))
    assert stored(workspace, "reward, cost") == [(0.5, 3), (1, None)]
    assert bring(path, log="m", models=["second"]).models == {"second": "second"}
    with pytest.raises(ColumnError, match="no column 'thrid'"):
        bring(path, models=["thrid"])


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("prompt,length,gpt-4,gpt-4|total_cost", "a,3,1,0.1", r"'length' \('gpt-4' clearly is\).*models="),
        ("prompt,mixtral,gpt-4", "a,0.3,0.8", r"'mixtral', 'gpt-4'.*models=\['mixtral', 'gpt-4'\]"),
        ("prompt,correct_answer,m,n", "a,42,1,0", "may or may not be rewards.*models="),
        ("prompt,only", "a,1", "'only'.*models="),
        ("prompt,words", "a,b", "No column holds rewards.*models="),
        ("m,n", "1,0", "which context a row belongs to.*columns="),
        ("model,prompt,score,gpt-4,gpt-4_cost", "a,b,1,1,1", "shape='long' or shape='wide'"),
    ],
)
def test_columns_that_are_not_clear_are_asked_for(
    bring: Bring, csv_file: Csv, workspace: Workspace, header: str, row: str, message: str
) -> None:
    with pytest.raises(ColumnError, match=message):
        bring(csv_file(header, row))
    assert list_logs(workspace) == []


def test_a_wrong_cell_does_not_hide_a_model(bring: Bring, csv_file: Csv) -> None:
    report = bring(csv_file("prompt,m,n", "a,True,False", "b,oops,False", "c,True,True"))
    assert list(report.models) == ["m", "n"]
    assert report.rows_quarantined == 1


def test_row_numbers_of_pandas_are_no_model(bring: Bring, csv_file: Csv) -> None:
    report = bring(csv_file(",prompt,m,n", "0,a,1,0", "1,b,0,1"))
    assert (list(report.models), report.ignored) == (["m", "n"], ("column 1",))


def test_the_shape_can_be_said(bring: Bring, csv_file: Csv) -> None:
    path = csv_file("model,prompt,score,gpt-4,gpt-4_cost", "a,b,1,0.7,1")
    assert bring(path, shape="long").actions == 1
    assert list(bring(path, log="w", shape="wide", models=["gpt-4"]).models) == ["gpt-4"]
    with pytest.raises(InputError, match="no shape"):
        bring(path, shape="tall")
    with pytest.raises(InputError, match="wide table"):
        bring(path, shape="long", models=["gpt-4"])


def test_logged_decisions_and_outcomes_do_not_mix(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    import_decisions(csv_file("action,reward", "a,1"), workspace, "l")
    with pytest.raises(InputError, match="another name"):
        bring(csv_file(LONG, "a,1,1", name="outcomes.csv"))
    assert list_logs(workspace)[0]["decisions"] == 1


def test_a_file_that_cannot_be_read_leaves_the_workspace_as_it_was(
    bring: Bring, tmp_path: Path, csv_file: Csv, workspace: Workspace
) -> None:
    whole = gzip.compress(("\n".join([LONG] + [f"m{i % 7},{i},{i * 37 % 1}" for i in range(5000)])).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="cut short"):
        bring(tmp_path / "cut.csv.gz")
    with pytest.raises(FileError, match="no rows"):
        bring(csv_file(LONG))
    with pytest.raises(InputError, match="needs a name"):
        bring(csv_file(LONG, "a,1,1"), log="")
    assert list_logs(workspace) == []
    assert bring(csv_file(LONG, "a,1,1")).rows_kept == 1


def test_frames_of_all_kinds_give_the_same_log(bring: Bring, workspace: Workspace) -> None:
    data = {"model": ["a", "b"], "prompt_id": [1, 1], "reward": [True, False]}
    for log, frame in {"p": pl.DataFrame(data), "d": pd.DataFrame(data), "a": pl.DataFrame(data).to_arrow()}.items():
        bring(frame, log=log)
        assert table(workspace, log) == {("1", "a"): 1, ("1", "b"): 0}


def test_jsonl_with_broken_lines(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text(
        '{"model": "a", "id": 1, "reward": true}\n\n{"model": "b", "id"\n[1]\n{"model": "b", "id": 1, "reward": null}\n'
    )
    report = bring(path)
    assert (report.rows_read, report.rows_kept, report.unknown) == (4, 2, 1)
    assert reasons(workspace) == [(3, "the line is not a JSON object"), (4, "the line is not a JSON object")]


def test_exact_replay_of_an_imported_log(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("prompt,m,n", "a,1,0", "b,1,1", "c,0,1", "d,1,0"))
    replay = replay_exact(PreparedLog(read_log(workspace, "l")), Constant(action="m"))
    assert replay.reward.mean() == 0.75


def test_exact_replay_refuses_an_unknown_reward(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("prompt,m,n", "a,1,0", "b,,1"))
    prepared = PreparedLog(read_log(workspace, "l"))
    assert replay_exact(prepared, Constant(action="n")).reward.mean() == 0.5
    with pytest.raises(MissingEvidenceError, match="does not know"):
        replay_exact(prepared, Constant(action="m"))


def test_bfcl_is_a_full_table_of_71_models_and_1700_prompts(workspace: Workspace) -> None:
    path = DATA / "bfcl_20240811_full_information.csv.gz"
    if not path.exists():
        pytest.skip(f"the Berkeley function calling results are not at {path}; set COUNTERPLAY_DATA")
    report = import_outcomes(
        path,
        workspace,
        "bfcl",
        columns={"cluster": "category"},
        zero_means_unknown=("seconds", "input_tokens", "output_tokens"),
    )
    assert (report.shape, report.regime, report.contexts, report.actions) == ("long", "full", 1700, 71)
    assert (report.rows_read, report.rows_kept, report.rows_quarantined) == (120_700, 120_700, 0)
    log = read_log(workspace, "bfcl")
    assert log.outcomes is not None
    rewards = log.outcomes.reward(np.arange(1700)[:, None], np.arange(71))
    means = rewards.mean(axis=0)
    assert (log.action_labels[means.argmax()], round(means.max(), 4)) == ("claude-3-5-sonnet-20240620", 0.9053)
    assert round(rewards.max(axis=1).mean(), 4) == 0.9788
    assert len(set(log.cluster.tolist())) == 12
    (fewest,) = workspace.connection.execute(
        "SELECT least(min(seconds), min(input_tokens), min(output_tokens)) FROM outcomes"
    ).fetchall()[0]
    assert fewest > 0


NUMBERS = st.sampled_from(["0.5", "1", "0", "-1", "nan", "inf", "", "x", " 1", "1,5", "True", "false", "NULL", "1e400"])
WORDS = st.one_of(st.sampled_from(["a", "b", "1", "2", "", '"', "é\n", "\x00", "'); --"]), st.text(max_size=4))
LONG_CELLS = {
    "model": WORDS,
    "prompt_id": WORDS,
    "reward": NUMBERS,
    "prompt": WORDS,
    "cost": NUMBERS,
    "output_tokens": NUMBERS,
    "cluster": WORDS,
    "features": st.sampled_from(["[1, 2]", "[1, 2]", "[1]", "[x]", "", "[nan, 1]"]),
}
WIDE_CELLS = {"prompt": WORDS, "sample_id": WORDS, "m": NUMBERS, "n": NUMBERS, "m|total_cost": NUMBERS, "note": WORDS}
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def rows_of(cells: dict[str, st.SearchStrategy[str]], always: list[str]) -> st.SearchStrategy[list[dict[str, str]]]:
    optional = [name for name in cells if name not in always]
    return st.lists(st.sampled_from(optional), unique=True).flatmap(
        lambda more: st.lists(
            st.fixed_dictionaries({name: cells[name] for name in (*always, *more)}), min_size=1, max_size=7
        )
    )


class UndoneError(Exception):
    """Rolls an example back, which is faster than removing what it wrote."""


def look(workspace: Workspace, path: Path, options: dict[str, Any]) -> None:
    first = import_outcomes(path, workspace, "l", **options)
    second = import_outcomes(path, workspace, "l", **options)
    assert first.rows_read == second.rows_read == first.rows_kept + first.rows_quarantined
    assert (second.rows_kept, second.rows_known) == (0, first.rows_kept)
    assert (second.contexts, second.actions, second.unknown) == (first.contexts, first.actions, first.unknown)
    assert len(read_quarantine(workspace, "l")) == first.rows_quarantined
    log = read_log(workspace, "l")
    assert len(log.decision_ids) == len(set(log.context_ids)) == first.contexts
    if log.outcomes is not None:
        rewards = log.outcomes.reward(np.arange(first.contexts)[:, None], np.arange(first.actions)[None])
        assert np.isnan(rewards).sum() == first.unknown
        assert not np.isinf(rewards).any()
    assert log.regime == ("partial" if first.unknown else "full")


@FEW
@given(data=st.data(), wide=st.booleans())
def test_rows_of_any_table_are_kept_or_quarantined(
    tmp_path_factory: Any, empty_workspace: Path, data: Any, wide: bool
) -> None:
    cells, always = (WIDE_CELLS, ["prompt", "m", "n"]) if wide else (LONG_CELLS, ["model", "prompt_id", "reward"])
    rows = data.draw(rows_of(cells, always))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    broken = "" if data.draw(st.booleans()) else "just,one,two,many,more,cells,than,there,are,columns\n"
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((text.getvalue() + broken).encode("utf-8", "surrogatepass"))
    options: dict[str, Any] = {"shape": "wide", "models": ["m", "n"]} if wide else {"shape": "long"}
    with open_workspace(empty_workspace) as workspace:

        def look_and_undo() -> None:
            with workspace.transaction():
                look(workspace, path, options)
                raise UndoneError

        with pytest.raises(UndoneError):
            look_and_undo()


def test_counts_that_do_not_add_up_import_nothing(
    bring: Bring, csv_file: Csv, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterplay.logs.decisions.quarantine.store", lambda *_: (3, {}))
    with pytest.raises(CounterplayError, match="do not add up"):
        bring(csv_file(LONG, "a,1,1"))
    assert list_logs(workspace) == []
