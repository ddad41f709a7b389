"""Importing labelled texts: the labels are the actions, the right ones earn 1 and all others 0."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.logs import (
    Workspace,
    import_decisions,
    list_logs,
    open_workspace,
    read_log,
    read_quarantine,
    read_texts,
)
from counterplay.logs.full.labels import import_labels
from counterplay.logs.full.public_labels import import_amazoncat, import_oneshotwiki
from counterplay.logs.full.run import FullReport
from counterplay.replay.agents import Constant
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

Bring = Callable[..., FullReport]
Csv = Callable[..., Path]


@pytest.fixture
def bring(workspace: Workspace) -> Bring:
    """Import into the log 'l', and check what must hold of every report."""

    def run(source: Any, log: str = "l", **options: Any) -> FullReport:
        report = import_labels(source, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run


def right(workspace: Workspace, log: str = "l") -> list[tuple[str | None, set[str]]]:
    """The text of each context and the labels that earn 1 there; all others earn 0."""
    read = read_log(workspace, log)
    texts, _ = read_texts(workspace, log)
    assert read.outcomes is not None
    assert read.outcomes.default == 0
    rewards = read.outcomes.reward(np.arange(len(texts))[:, None], np.arange(len(read.action_labels))[None])
    assert np.isin(rewards, (0, 1)).all()
    return [
        (text, {read.action_labels[j] for j in np.flatnonzero(row)}) for text, row in zip(texts, rewards, strict=True)
    ]


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def test_the_right_label_earns_one_and_the_others_nothing(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    report = bring(csv_file("text,intent", "send money,transfer", "what do I have,balance", "pay Ann,transfer"))
    assert (report.shape, report.regime, report.contexts, report.actions, report.unknown) == ("labels", "full", 3, 2, 0)
    assert right(workspace) == [
        ("send money", {"transfer"}),
        ("what do I have", {"balance"}),
        ("pay Ann", {"transfer"}),
    ]
    assert read_log(workspace, "l").action_labels == ["balance", "transfer"]
    assert list_logs(workspace)[0]["outcomes"] == 3


def test_several_labels_can_be_right(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    frame = pl.DataFrame({"text": ["x", "y"], "labels": [["a", "b", "a"], ["c"]]})
    bring(frame)
    assert right(workspace) == [("x", {"a", "b"}), ("y", {"c"})]
    path = tmp_path / "l.jsonl"
    path.write_text('{"text": "x", "labels": ["a", "b"]}\n{"text": "y", "labels": ["c"]}\n')
    again = bring(path)
    assert (again.rows_kept, again.rows_known) == (0, 2)
    frame.with_columns(pl.col("labels").list.join("|")).write_csv(tmp_path / "l.csv")
    assert bring(tmp_path / "l.csv").rows_known == 2


def test_a_bar_in_a_single_label_is_part_of_it(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("text,label", "x,a|b", "y,[c]"))
    assert right(workspace) == [("x", {"a|b"}), ("y", {"[c]"})]


@pytest.mark.parametrize(
    ("header", "row", "reason"),
    [
        ("text,label", "x,", "label is missing"),
        ("text,label", ",a", "text is missing"),
        ("text,labels", "x,[]", "labels are empty"),
        ("text,labels", "x,a||b", "labels hold an empty entry: a||b"),
        ("text,labels", "x,[a", "labels are not a list: [a"),
    ],
)
def test_an_impossible_row_is_quarantined_with_its_line(
    bring: Bring, csv_file: Csv, workspace: Workspace, header: str, row: str, reason: str
) -> None:
    report = bring(csv_file(header, "good,a", row))
    assert (report.rows_kept, report.rows_quarantined) == (1, 1)
    assert reasons(workspace) == [(3, reason)]


def test_equal_texts_are_all_kept_whatever_their_labels(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    rows = ["same,a", "same,b", "same,a"]
    assert bring(csv_file("text,label", *rows)).contexts == 3
    assert bring(csv_file("text,label", *rows)).rows_known == 3
    grown = bring(csv_file("text,label", *rows, "same,c", "new,a"))
    assert (grown.rows_kept, grown.rows_known, grown.actions) == (2, 3, 3)
    assert right(workspace) == [("same", {"a"}), ("same", {"b"}), ("same", {"a"}), ("same", {"c"}), ("new", {"a"})]


def test_a_changed_label_is_reported_and_not_overwritten(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("text,label", "x,a", "y,b"))
    report = bring(csv_file("text,label", "x,b", "y,b", name="later.csv"))
    assert (report.rows_kept, report.rows_known) == (0, 1)
    assert reasons(workspace) == [(2, "context is known with other labels: a")]
    assert right(workspace) == [("x", {"a"}), ("y", {"b"})]


def test_an_id_tells_contexts_apart(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("id,text,label", "1,x,a", "2,x,a", "1,x,b", "2,z,a"))
    assert reasons(workspace) == [
        (4, "context stands twice in this file: 1, first in line 2"),
        (5, "context has other text or features than before: 2, first in line 3"),
    ]
    assert read_log(workspace, "l").context_ids == ["1", "2"]


def test_labels_can_be_left_out_and_splits_chosen(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    path = csv_file("text,label,split", "x,a,train", "x,oos,train", "x,b,test", "y,b,test", ",a,val")
    report = bring(path, leave_out=("oos",), splits=("train", "test"))
    assert (report.rows_read, report.rows_kept, report.rows_left_out, report.actions) == (3, 3, 2, 2)
    everything = bring(path)
    assert (everything.rows_known, everything.rows_kept, everything.rows_quarantined) == (3, 1, 1)
    sets = pl.DataFrame({"text": ["x", "y"], "labels": [["a", "oos"], ["oos"]]})
    report = bring(sets, log="sets", leave_out="oos")
    assert (report.rows_left_out, right(workspace, "sets")) == (1, [("x", {"a"})])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"splits": ["trian"]}, InputError, "split 'trian'. Did you mean 'train'"),
        ({"leave_out": ["OOS"]}, InputError, "label 'OOS'"),
        ({"columns": {"split": ""}, "splits": ["train"]}, ColumnError, "No column is the split"),
        ({"columns": {"label": ""}}, ColumnError, "No column is the label.*columns="),
        ({"columns": {"text": ""}}, ColumnError, "No column is the text.*columns="),
        ({"columns": {"labels": "split"}}, ColumnError, "Choose one"),
        ({"columns": {"reward": "label"}}, ColumnError, "'reward' is no word"),
    ],
)
def test_what_is_misspelt_is_refused(
    bring: Bring, csv_file: Csv, workspace: Workspace, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bring(csv_file("text,label,split", "x,a,train", "y,oos,test"), **options)
    assert list_logs(workspace) == []


def test_a_text_has_the_same_context_id_in_logged_decisions(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("text,label", "x,a", "y,b"), log="truth")
    import_decisions(csv_file("text,action,propensity,reward", "y,a,0.5,0", "x,a,0.5,1", name="d.csv"), workspace, "d")
    assert sorted(read_log(workspace, "d").context_ids) == sorted(read_log(workspace, "truth").context_ids)


def test_labels_do_not_mix_with_other_logs(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    import_decisions(csv_file("action,reward", "a,1", name="d.csv"), workspace, "d")
    with pytest.raises(InputError, match="another name"):
        bring(csv_file("text,label", "x,a"), log="d")


def test_exact_replay_of_an_imported_log(bring: Bring, csv_file: Csv, workspace: Workspace) -> None:
    bring(csv_file("text,label", "x,a", "y,b", "z,a", "u,a"))
    prepared = PreparedLog(read_log(workspace, "l"))
    assert replay_exact(prepared, Constant(action="a")).reward.mean() == 0.75
    assert prepared.action_means.tolist() == [0.75, 0.25]


def test_clinc150_has_150_intents_and_22500_texts_in_scope(workspace: Workspace) -> None:
    path = DATA / "clinc150.parquet"
    if not path.exists():
        pytest.skip(f"CLINC150 is not at {path}; set COUNTERPLAY_DATA")
    report = import_labels(path, workspace, "clinc", leave_out=("oos",))
    assert (report.contexts, report.actions, report.regime) == (22_500, 150, "full")
    assert (report.rows_read, report.rows_kept, report.rows_left_out) == (22_500, 22_500, 1_200)
    means = PreparedLog(read_log(workspace, "clinc")).action_means
    np.testing.assert_allclose(means, 1 / 150)
    train = import_labels(path, workspace, "train", splits=("train",))
    assert (train.contexts, train.rows_left_out) == (15_000, 8_700)


ENTITIES = [
    'Zürich\tshe lives in\t"the city\tand likes it',
    "Lima\t\tLima\tis far",
    "Lima\tfrom\tLima\tto Cuzco",
    "Rare_place\tnever\tthere\tbefore",
    "Lima\ttoo\tfew",
    "Lima\tnothing after\tit\t",
    "",
    "Zürich\tin\tZurich\tagain",
    "Lima\tonce more\tthe capital\tof Peru",
    "Zürich\ttoo\tmany\tfields\there",
    "Zürich\tthe third\tone\tof Zürich",
]


def oneshot(workspace: Workspace, path: Path, **options: Any) -> FullReport:
    report = import_oneshotwiki(path, workspace, "l", **options)
    assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
    return report


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    path = tmp_path / "shuffled_dedup_entities.tsv"
    path.write_text("\n".join(ENTITIES) + "\n", encoding="utf-8")
    return path


def test_oneshotwiki_keeps_frequent_entities_and_the_same_number_of_each(workspace: Workspace, entities: Path) -> None:
    report = oneshot(workspace, entities, at_least=4, rows_each=2)
    assert (report.actions, report.contexts, report.regime) == (2, 4, "full")
    assert (report.rows_kept, report.rows_left_out) == (4, 3)
    assert right(workspace) == [
        ("she lives in ___ and likes it", {"Zürich"}),
        ("___ is far", {"Lima"}),
        ("from ___ to Cuzco", {"Lima"}),
        ("in ___ again", {"Zürich"}),
    ]
    assert reasons(workspace) == [
        (5, "the line does not have 4 fields: 3"),
        (6, "the text after the mention is missing"),
        (10, "the line does not have 4 fields: 5"),
    ]
    again = oneshot(workspace, entities, at_least=4, rows_each=2)
    assert (again.rows_kept, again.rows_known, again.rows_quarantined) == (0, 4, 3)


def test_oneshotwiki_shows_the_mention_on_request(workspace: Workspace, entities: Path, tmp_path: Path) -> None:
    packed = tmp_path / "entities.tsv.gz"
    packed.write_bytes(gzip.compress(entities.read_bytes()))
    report = oneshot(workspace, packed, at_least=1, rows_each=0, mention=True)
    assert (report.actions, report.contexts, report.rows_left_out) == (3, 7, 0)
    assert right(workspace)[0] == ('she lives in "the city and likes it', {"Zürich"})
    _, names = read_texts(workspace, "l")
    assert names == ["Lima", "Rare place", "Zürich"]


def test_oneshotwiki_takes_as_many_lines_as_it_asks_for_by_default(workspace: Workspace, entities: Path) -> None:
    assert oneshot(workspace, entities, at_least=4).contexts == 6
    with pytest.raises(InputError, match=r"2,000 lines.*the commonest stands in 5. Lower"):
        import_oneshotwiki(entities, workspace, "m")
    with pytest.raises(FileError, match="no file"):
        import_oneshotwiki("nowhere.tsv", workspace, "m")
    assert [row["log"] for row in list_logs(workspace)] == ["l"]


def test_oneshotwiki_that_grew_adds_its_new_lines(workspace: Workspace, entities: Path) -> None:
    oneshot(workspace, entities, at_least=4, rows_each=0)
    with entities.open("a", encoding="utf-8") as file:
        file.write("Lima\tand\tone\tmore\nRare_place\ta\tb\tc\nRare_place\td\te\tf\nRare_place\tg\th\ti\n")
    grown = oneshot(workspace, entities, at_least=4, rows_each=0)
    assert (grown.rows_kept, grown.rows_known, grown.actions) == (5, 6, 3)


def test_oneshotwiki_names_lines_that_are_not_text(workspace: Workspace, entities: Path) -> None:
    entities.write_bytes(entities.read_bytes() + b"Lima\tnot \xff\tutf\t8\nLima\tthe\tlast\tline\n")
    report = oneshot(workspace, entities, at_least=4, rows_each=0)
    assert (12, "the line is broken: invalid encoding") in reasons(workspace)
    assert right(workspace)[-1] == ("the ___ line", {"Lima"})
    assert report.rows_quarantined == 4


@pytest.fixture
def amazon(tmp_path: Path) -> tuple[Path, Path]:
    products = [
        {
            "uid": "B1",
            "title": "Café press",
            "content": "Makes coffee.",
            "target_ind": [0, 2],
            "target_rel": [1.0, 1.0],
        },
        {"uid": "B2", "title": "Lamp", "content": "", "target_ind": [3], "target_rel": [1.0]},
        {"uid": "B3", "title": "Mug", "content": "Holds tea.", "target_ind": [2, 9], "target_rel": [1.0, 1.0]},
        {"uid": "B4", "title": "", "content": "", "target_ind": [1], "target_rel": [1.0]},
        {"uid": "B5", "title": "Pen", "content": "", "target_ind": [], "target_rel": []},
    ]
    lines = [json.dumps(product) for product in products] + ['{"uid": "B6", "tit']
    with gzip.open(tmp_path / "trn.json.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    # 0x85 ends a line for Python, and is no more than a character here.
    (tmp_path / "Yf.txt").write_bytes("café\nphoto\nkitchen \x85 home\nlamps\nphoto\n".encode("iso-8859-1"))
    return tmp_path / "trn.json.gz", tmp_path / "Yf.txt"


def test_amazoncat_gives_products_their_sets_of_labels(workspace: Workspace, amazon: tuple[Path, Path]) -> None:
    report = import_amazoncat(*amazon, workspace, "l")
    assert (report.contexts, report.actions, report.regime) == (2, 5, "full")
    assert right(workspace) == [
        ("Café press\nMakes coffee.", {"café", "kitchen \x85 home"}),
        ("Lamp", {"lamps"}),
    ]
    assert read_log(workspace, "l").action_labels == ["café", "photo", "kitchen \x85 home", "lamps", "photo (line 5)"]
    assert reasons(workspace) == [
        (3, "label is unknown: 9"),
        (4, "text is missing"),
        (5, "labels are empty"),
        (6, "the line is not a JSON object"),
    ]
    assert read_log(workspace, "l").context_ids == ["B1", "B2"]
    again = import_amazoncat(*amazon, workspace, "l")
    assert (again.rows_kept, again.rows_known, again.rows_quarantined) == (0, 2, 4)


def test_amazoncat_needs_the_files_of_the_repository(
    workspace: Workspace, amazon: tuple[Path, Path], csv_file: Csv, tmp_path: Path
) -> None:
    with pytest.raises(ColumnError, match="no 'uid'"):
        import_amazoncat(csv_file("text,label", "x,a"), amazon[1], workspace, "l")
    (tmp_path / "blank.txt").write_text("\n")
    with pytest.raises(FileError, match="no names"):
        import_amazoncat(amazon[0], tmp_path / "blank.txt", workspace, "l")
    with pytest.raises(FileError, match="no file"):
        import_amazoncat(amazon[0], tmp_path / "absent.txt", workspace, "l")
    packed = amazon[0].read_bytes()
    amazon[0].write_bytes(packed[: len(packed) // 2])
    with pytest.raises(FileError, match="cannot be read"):
        import_amazoncat(*amazon, workspace, "l")
    assert list_logs(workspace) == []


WORDS = st.one_of(
    st.sampled_from(["a", "b", "x", "", '"', "é\n", "\x00", "'); --", "[a]", "[a", "[]", "a|b", '["a", null]']),
    st.text(max_size=4),
)
CELLS = {
    "text": WORDS,
    "label": WORDS,
    "labels": WORDS,
    "id": WORDS,
    "cluster": WORDS,
    "split": st.sampled_from(["train", "test", ""]),
    "features": st.sampled_from(["[1, 2]", "[1, 2]", "[1]", "x", ""]),
}
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    names = ["text", draw(st.sampled_from(["label", "labels"]))]
    names += draw(st.lists(st.sampled_from(["id", "cluster", "split", "features"]), unique=True))
    return draw(st.lists(st.fixed_dictionaries({name: CELLS[name] for name in names}), min_size=1, max_size=7))


class UndoneError(Exception):
    """Rolls an example back, which is faster than removing what it wrote."""


def look(workspace: Workspace, path: Path, rows: int) -> None:
    first = import_labels(path, workspace, "l")
    second = import_labels(path, workspace, "l")
    assert first.rows_read == second.rows_read == rows == first.rows_kept + first.rows_quarantined
    assert (second.rows_kept, second.rows_known) == (0, first.rows_kept)
    assert len(read_quarantine(workspace, "l")) == first.rows_quarantined
    assert len(right(workspace)) == first.contexts == first.rows_kept
    assert all(labels for _, labels in right(workspace))


@FEW
@given(table=tables(), broken=st.booleans())
def test_rows_of_any_table_are_kept_or_quarantined(
    tmp_path_factory: Any, empty_workspace: Path, table: list[dict[str, str]], broken: bool
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    more = "many,more,cells,than,there,are,columns,here\n" if broken else ""
    path = tmp_path_factory.getbasetemp() / "any labels.csv"
    path.write_bytes((text.getvalue() + more).encode("utf-8", "surrogatepass"))
    with open_workspace(empty_workspace) as workspace:

        def look_and_undo() -> None:
            with workspace.transaction():
                look(workspace, path, len(table) + broken)
                raise UndoneError

        with pytest.raises(UndoneError):
            look_and_undo()
