"""Every kind of log comes in with one command, which says what became of every row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.cli import main
from counterplay.logs import list_logs, read_log

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in a folder of its own; gives its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        try:
            main(list(words))
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return command


def write_table() -> list[str]:
    Path("log.csv").write_text("action,pscore,reward\na,0.5,1\nb,0.5,0\na,0,1\n")
    return ["log.csv"]


def write_arrow() -> list[str]:
    pl.DataFrame({"action": ["a", "b"], "reward": [1, 0]}).write_ipc("log.arrow")
    return ["log.arrow"]


def write_obd() -> list[str]:
    head = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0,user-item_affinity_1"
    rows = [f"{i},2019-11-24 00:0{i}:00+00:00,{i % 2},{1 + i % 3},0,0.5,u{i % 2},0,1" for i in range(6)]
    Path("all.csv").write_text("\n".join([head, *rows]))
    return ["all.csv"]


def write_dsjson() -> list[str]:
    event = {
        "_label_cost": -1, "_label_probability": 0.5, "_label_Action": 1, "_labelIndex": 0,
        "Timestamp": "2024-01-01T00:00:00Z", "EventId": "e1", "a": [1, 2], "p": [0.5, 0.5],
        "c": {"u": 1, "_multi": [{"id": "x"}, {"id": "y"}]},
    }  # fmt: skip
    lines = [json.dumps(event | {"EventId": f"e{i}"}) for i in range(3)]
    Path("log.dsjson").write_text("\n".join([*lines, "torn {"]))
    return ["log.dsjson", "--identify", "/id"]


def write_obp() -> list[str]:
    rng = np.random.default_rng(0)
    np.savez(
        "feedback.npz", n_rounds=5, n_actions=3, context=rng.normal(size=(5, 2)), action=rng.integers(0, 3, 5),
        reward=rng.integers(0, 2, 5), pscore=np.full(5, 1 / 3),
    )  # fmt: skip
    return ["feedback.npz"]


def write_coba() -> list[str]:
    rows = [{"context": [1, 2], "action": "a", "reward": 1, "probability": 0.5, "actions": ["a", "b"]}] * 3
    Path("log.jsonl").write_text("\n".join([*map(json.dumps, rows), "torn {"]))
    return ["log.jsonl"]


def write_outcomes() -> list[str]:
    Path("scores.csv").write_text("prompt,small,large,small_usd\np1,1,1,0.1\np2,0,1,0.2\n")
    return ["scores.csv", "--models", "small", "large", "--costs", "small=small_usd"]


def write_labels() -> list[str]:
    Path("texts.csv").write_text("text,intent,split\nhi,greet,train\nbye,leave,train\nhm,oos,train\nyo,greet,test\n")
    return ["texts.csv", "--map", "label=intent", "--splits", "train", "--leave-out", "oos"]


def write_oneshotwiki() -> list[str]:
    Path("shuffled_dedup_entities.tsv").write_text("".join(f"E{i % 2}\tbefore {i}\tit\tafter\n" for i in range(8)))
    return ["shuffled_dedup_entities.tsv", "--at-least", "2"]


def write_amazoncat() -> list[str]:
    rows = [{"uid": f"u{i}", "title": f"title {i}", "content": "text", "target_ind": [i % 2]} for i in range(4)]
    Path("trn.json.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    Path("Yf.txt").write_bytes("caf\xe9\nbook\n".encode("latin-1"))
    return ["trn.json.gz", "--names", "Yf.txt"]


KINDS = [
    ("table", write_table, 2, 1),
    ("table", write_arrow, 2, 0),
    ("obd", write_obd, 6, 0),
    ("dsjson", write_dsjson, 3, 1),
    ("obp", write_obp, 5, 0),
    ("coba", write_coba, 3, 1),
    ("outcomes", write_outcomes, 2, 0),
    ("labels", write_labels, 2, 0),
    ("oneshotwiki", write_oneshotwiki, 4, 0),
    ("amazoncat", write_amazoncat, 4, 0),
]


@pytest.mark.parametrize(("kind", "write", "kept", "bad"), KINDS)
def test_each_kind_comes_in_and_the_same_again_adds_nothing(
    run: Run, kind: str, write: Callable[[], list[str]], kept: int, bad: int
) -> None:
    words = ["import", kind, *write(), "--into", "desk.duckdb", "--log", "l"]
    code, said = run(*words)
    assert f"{kept + bad} rows read: {kept} kept, 0 known already, {bad} in quarantine" in said
    assert code == (1 if bad else 0)
    code, said = run(*words)
    assert f"{kept + bad} rows read: 0 kept, {kept} known already, {bad} in quarantine" in said
    assert len(read_log("desk.duckdb", "l").context) == kept


def test_what_a_wide_table_was_taken_for_is_said(run: Run) -> None:
    _, said = run("import", "outcomes", *write_outcomes(), "--into", "desk.duckdb", "--log", "l")
    assert "2 contexts, 2 actions, 0 pairs without a reward." in said
    assert "model large = large" in said


def test_a_changed_row_is_replaced_only_when_asked(run: Run) -> None:
    words = ["import", "table", "log.csv", "--into", "desk.duckdb", "--log", "l"]
    Path("log.csv").write_text("id,action,reward\n1,a,1\n2,b,0\n")
    run(*words)
    Path("log.csv").write_text("id,action,reward\n1,a,0\n2,b,0\n")
    assert "1 in quarantine: decision id is known with other values" in run(*words)[1]
    assert "1 kept (1 in place of older ones), 1 known already" in run(*words, "--overwrite")[1]


def test_a_file_without_ids_and_a_known_name_is_refused_until_it_is_said_to_be_new(run: Run) -> None:
    words = ["import", "table", "log.csv", "--into", "desk.duckdb", "--log", "l"]
    Path("log.csv").write_text("action,reward\na,1\nb,0\n")
    run(*words)
    Path("log.csv").write_text("action,reward\na,0\nb,0\n")
    code, said = run(*words)
    assert code == 2
    assert "row 1 had another reward" in said
    assert run(*words, "--as-new")[0] == 0


def test_parquet_is_attached_where_it_lies(run: Run) -> None:
    pl.DataFrame({"arm": ["a", "b"], "won": [1, 0]}).write_parquet("log.parquet")
    code, said = run("attach", "log.parquet", "--into", "desk.duckdb", "--log", "l", "--map", "reward=won")
    assert code == 0
    assert "2 rows read: 2 kept" in said
    assert list_logs("desk.duckdb")[0]["decisions"] == 2


def test_a_pair_without_a_column_is_refused(run: Run) -> None:
    code, said = run("import", "table", *write_table(), "--into", "desk.duckdb", "--log", "l", "--map", "reward")
    assert (code, "A pair is word=column" in said) == (2, True)


def test_a_word_can_be_left_out_but_not_mapped_twice(run: Run) -> None:
    words = ["import", "table", *write_table(), "--into", "desk.duckdb", "--log", "l", "--map"]
    assert "Regime of log 'l': observed" in run(*words, "propensity=")[1]
    code, said = run(*words, "reward=reward", "reward=pscore")
    assert (code, "mapped twice" in said) == (2, True)


def test_messages_name_the_options_of_the_command_line(run: Run) -> None:
    Path("odd.csv").write_text("choice,won\na,1\n")
    _, said = run("import", "table", "odd.csv", "--into", "desk.duckdb", "--log", "l")
    assert "Say which with --map action=..." in said
    assert not Path("desk.duckdb").exists()
