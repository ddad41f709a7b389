"""Contexts that are forgotten: no byte of their text stays in the file, every decision and reward does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest

from counterplay.errors import ColumnError, FileError, InputError, WorkspaceBusyError
from counterplay.logs import (
    import_decisions,
    list_logs,
    open_workspace,
    read_log,
    read_quarantine,
    read_texts,
)
from counterplay.logs.decisions.table import attach_decisions
from counterplay.logs.forget import forget_contexts, read_context_ids
from counterplay.logs.outputs import Output, put_outputs

SECRET = 'Ana "Pat" O\'Neil,\nborn 1971 in Löwen, has <gout>'
OTHER = "Somebody else asks about the weather in Ghent"
FILE = pl.DataFrame(
    {
        "id": ["d1", "d2", "d3", "d4", "d5", "d6"],
        "context_id": ["c1", "c2", "c1", "c1", "c2", "c3"],
        "action": ["a", "b", "b", "a", "a", "a"],
        "p": [0.5, 0.5, 0.5, 7.5, 8.5, 0.25],
        "reward": [1.0, 0.0, 0.5, 1.0, 1.0, 0.0],
        "text": [SECRET, OTHER, SECRET, SECRET, OTHER, "third"],
        "features": [[0.25, 0.5], [1.0, 2.0], [0.25, 0.5], [0.25, 0.5], [1.0, 2.0], [3.0, 4.0]],
    }
)


def holds(folder: Path, text: str) -> bool:
    """Whether any file in the folder holds the text, plainly or escaped."""
    forms = {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    content = b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return any(form.encode() in content for form in forms)


@pytest.fixture
def desk(tmp_path: Path, empty_workspace: Path) -> Path:
    """A closed workspace, whose texts stand plainly in the file."""
    folder = tmp_path / "desk"
    folder.mkdir()
    path = folder / "w.duckdb"
    path.write_bytes(empty_workspace.read_bytes())
    with open_workspace(path) as workspace:
        workspace.connection.execute("PRAGMA force_compression = 'uncompressed'")
        import_decisions(FILE, workspace, "l")
        outputs = [
            Output(request={"operation": "o", "model": "m", "prompt": prompt}, response=response, provenance={})
            for prompt, response in [
                (f"Classify: {SECRET}!", {"x": 1}),
                (f"Classify: {OTHER}", {"x": 1}),
                (f"Classify as JSON: {json.dumps({'t': SECRET})}", {}),
                (f"Classify: {SECRET.upper()}", {}),
                ("Who?", {"texts": [f"It is {SECRET}"]}),
                ("Nobody", {"texts": []}),
            ]
        ]
        put_outputs(workspace.connection, outputs)
        workspace.connection.execute("INSERT INTO vectors VALUES ('k', 'e', [0.25, 0.5])")
        workspace.connection.execute("CREATE TABLE mine (note VARCHAR)")
        workspace.connection.execute("INSERT INTO mine VALUES ('keep this')")
        workspace.connection.execute("CREATE VIEW notes AS SELECT note FROM mine")
    return path


def test_the_bytes_of_a_forgotten_text_are_in_the_file_before_and_nowhere_after(desk: Path) -> None:
    assert holds(desk.parent, SECRET)
    assert holds(desk.parent, "O'Neil")
    report = forget_contexts(desk, "l", ["c1"])
    assert not holds(desk.parent, SECRET)
    for part in ("O'Neil", "O'NEIL", "Löwen", "1971", "gout"):
        assert not holds(desk.parent, part)
    assert holds(desk.parent, "third")
    assert os.listdir(desk.parent) == ["w.duckdb"]
    assert (report.contexts, report.texts, report.features, report.quarantined) == (1, 1, 1, 1)
    assert (report.outputs, report.vectors, report.unknown, report.elsewhere) == (4, 1, (), ())


def test_decisions_rewards_and_all_other_contexts_stay_as_they_were(desk: Path) -> None:
    before, texts = read_log(desk, "l"), read_texts(desk, "l")
    forget_contexts(desk, "l", ["c1"])
    after = read_log(desk, "l")
    for name in ("context", "action", "propensity", "reward", "context_ids", "decision_ids", "action_labels"):
        assert np.array_equal(getattr(before, name), getattr(after, name)), name
    assert before.context_features is not None
    assert after.context_features is not None
    assert after.context_features.tolist() == [[0.0, 0.0], *before.context_features[1:].tolist()]
    assert read_texts(desk, "l") == ([None, *texts[0][1:]], texts[1])
    with open_workspace(desk) as workspace:
        assert workspace.connection.execute("FROM notes").fetchall() == [("keep this",)]
        prompts = "SELECT request ->> '$.prompt' FROM outputs ORDER BY 1"
        assert workspace.connection.execute(prompts).fetchall() == [(f"Classify: {OTHER}",), ("Nobody",)]
        keys = "SELECT count(*) FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'"
        assert workspace.connection.execute(keys).fetchall()[0][0] >= 7


def test_features_stay_when_asked_for(desk: Path) -> None:
    before = read_log(desk, "l").context_features
    assert forget_contexts(desk, "l", ["c1"], keep_features=True).features == 0
    assert np.array_equal(before, read_log(desk, "l").context_features)


def test_a_rejected_row_keeps_its_line_and_the_kind_of_its_fault(desk: Path) -> None:
    forget_contexts(desk, "l", ["c1"])
    rows = read_quarantine(desk, "l")
    assert rows["line"].to_list() == [4, 5]
    assert rows["reason"].to_list() == ["propensity is above 1", "propensity is above 1: 8.5"]
    assert rows["row"][0] == "{}"
    assert json.loads(rows["row"][1])["text"] == OTHER


def test_a_broken_line_that_names_the_context_is_emptied(tmp_path: Path) -> None:
    lines = tmp_path / "l.jsonl"
    sound = json.dumps({"context_id": "c-9", "action": "a", "reward": 1, "text": "x" * 30})
    lines.write_text(f'{sound}\n{{"context_id": "c-9", "text": "My nam\n{{"context_id": "c-91", "text": "Mine\n')
    import_decisions(lines, tmp_path / "w.duckdb", "l")
    assert forget_contexts(tmp_path / "w.duckdb", "l", ["c-9"]).quarantined == 1
    assert ["Mine" in row for row in read_quarantine(tmp_path / "w.duckdb", "l")["row"]] == [False, True]


def test_a_context_of_which_only_rejected_rows_are_known_is_found_by_the_files_own_column(tmp_path: Path) -> None:
    rows = pl.DataFrame({"case": [7.0, 8.0, None], "action": ["a"] * 3, "p": [2.0, 0.5, 0.5], "reward": [1.0] * 3})
    path = tmp_path / "w.duckdb"
    import_decisions(rows, path, "l", columns={"context_id": "case", "propensity": "p"})
    report = forget_contexts(path, "l", ["7", "no such"])
    assert (report.contexts, report.quarantined, report.unknown) == (0, 1, ("no such",))


def test_the_same_text_elsewhere_is_named_and_left(desk: Path) -> None:
    import_decisions(FILE.filter(pl.col("id") == "d1"), desk, "copy")
    with open_workspace(desk) as workspace:
        workspace.connection.execute(
            "INSERT INTO experiments VALUES ('e', 'n', 'd', 'h', 'o', ?, now())", [json.dumps({"worst": SECRET})]
        )
    report = forget_contexts(desk, "l", ["c1"])
    assert report.elsewhere == (
        "1 other contexts of log 'copy' with the same text",
        "1 rows of the table 'experiments'",
    )
    assert read_texts(desk, "copy")[0] == [SECRET]


def test_forgetting_twice_finds_nothing_more(desk: Path) -> None:
    forget_contexts(desk, "l", ["c1"])
    again = forget_contexts(desk, "l", ["c1", "c1"])
    assert (again.contexts, again.texts, again.features, again.outputs, again.vectors) == (1, 0, 0, 0, 0)


def test_importing_the_sound_rows_again_does_not_bring_the_text_back(desk: Path) -> None:
    forget_contexts(desk, "l", ["c1"], keep_features=True)
    more = FILE.filter(pl.col("p") <= 1).with_columns(id=pl.col("id") + "-new")
    again = import_decisions(pl.concat([FILE.filter(pl.col("p") <= 1), more]), desk, "l")
    assert (again.rows_known, again.rows_kept, again.rows_quarantined) == (4, 4, 0)
    assert read_texts(desk, "l")[0] == [None, OTHER, "third"]
    assert not holds(desk.parent, SECRET)


def test_an_attached_file_is_left_alone_and_named(desk: Path, tmp_path: Path) -> None:
    file = tmp_path / "attached.parquet"
    FILE.write_parquet(file)
    attach_decisions(file, desk, "a")
    before = read_log(desk, "a").fingerprint
    report = forget_contexts(desk, "a", ["c1"])
    assert (report.contexts, report.texts, report.outputs, report.vectors, report.quarantined) == (1, 0, 4, 1, 2)
    assert any(str(file) in place for place in report.elsewhere)
    assert read_log(desk, "a").fingerprint == before


def test_a_workspace_that_is_open_is_not_rewritten(desk: Path) -> None:
    with open_workspace(desk), pytest.raises(WorkspaceBusyError, match="this process"):
        forget_contexts(desk, "l", ["c1"])
    with open_workspace(desk, read_only=True), pytest.raises(WorkspaceBusyError, match="this process"):
        forget_contexts(desk, "l", ["c1"])
    assert list_logs(desk)[0]["decisions"] == 4


def test_what_cannot_be_done_is_said_and_changes_nothing(desk: Path, tmp_path: Path) -> None:
    before = desk.read_bytes()
    with pytest.raises(InputError, match="'l'"):
        forget_contexts(desk, "ll", ["c1"])
    with pytest.raises(InputError, match="at least one"):
        forget_contexts(desk, "l", [])
    with pytest.raises(FileError, match="no workspace"):
        forget_contexts(tmp_path / "none.duckdb", "l", ["c1"])
    assert desk.read_bytes() == before
    assert not (tmp_path / "none.duckdb").exists()


def test_no_room_for_the_new_file_leaves_the_old_one(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = read_log(desk, "l").fingerprint
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="as it was; free"):
        forget_contexts(desk, "l", ["c1"])
    assert os.listdir(desk.parent) == ["w.duckdb"]
    assert read_log(desk, "l").fingerprint == before
    assert read_texts(desk, "l")[0][0] == SECRET


def test_a_link_to_a_workspace_stays_a_link(desk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.duckdb"
    link.symlink_to(desk)
    forget_contexts(link, "l", ["c1"])
    assert link.is_symlink()
    assert not holds(desk.parent, SECRET)


@pytest.mark.slow
def test_killed_at_any_moment_the_file_is_the_old_one_or_the_new_one(desk: Path) -> None:
    code = """
import sys
import polars, duckdb
from counterplay.logs.forget import forget_contexts
print("ready", flush=True)
forget_contexts(sys.argv[1], "l", ["c1"])
"""
    original = desk.read_bytes()
    expected = read_log(desk, "l").reward.tolist()
    start, whole, seen = time.monotonic(), 0.0, set()
    for round_ in range(10):
        desk.write_bytes(original)
        process = subprocess.Popen([sys.executable, "-c", code, str(desk)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        if round_ == 0:
            assert process.wait() == 0
            whole = time.monotonic() - start
        else:
            time.sleep(whole * round_ / 10)
            process.kill()
        process.communicate()
        text = read_texts(desk, "l")[0][0]
        assert text in (None, SECRET)
        seen.add(text)
        assert read_log(desk, "l").reward.tolist() == expected
        assert (text is None) is not holds(desk.parent, SECRET)
    assert None in seen
    forget_contexts(desk, "l", ["c1"])
    assert os.listdir(desk.parent) == ["w.duckdb"]


def test_ids_are_read_from_lines_and_from_columns(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("c1\n\n  c 2 \nc3", encoding="utf-8")
    assert read_context_ids(tmp_path / "ids.txt") == ["c1", "c 2", "c3"]
    (tmp_path / "ids.csv").write_text("name,Context_ID\nx,c1\ny,2\n", encoding="utf-8")
    assert read_context_ids(tmp_path / "ids.csv") == ["c1", "2"]
    pl.DataFrame({"context_id": [3, 4]}).write_parquet(tmp_path / "ids.parquet")
    assert read_context_ids(tmp_path / "ids.parquet") == ["3", "4"]
    (tmp_path / "bad.csv").write_text("context\nc1\n")
    with pytest.raises(ColumnError, match="context_id"):
        read_context_ids(tmp_path / "bad.csv")
    with pytest.raises(FileError, match="one a line"):
        read_context_ids(tmp_path / "none.txt")


def test_the_new_file_is_a_database_like_the_old_one(desk: Path) -> None:
    def shape() -> list[tuple[object, ...]]:
        with duckdb.connect(desk, read_only=True) as connection:
            columns = "SELECT table_name, column_name, data_type, is_nullable, column_default FROM duckdb_columns()"
            return connection.execute(f"{columns} WHERE NOT internal ORDER BY ALL").fetchall()

    before = shape()
    forget_contexts(desk, "l", ["c1"])
    assert shape() == before
