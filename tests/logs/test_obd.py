"""The Open Bandit Dataset: a made-up campaign in the form in which it is distributed, and the six real samples."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.estimators import Evidence, evaluate
from counterplay.logs import Workspace, list_logs, read_log, read_quarantine, read_texts
from counterplay.logs.formats.obd import import_obd

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

HEAD = (
    ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,"
    "user-item_affinity_0,user-item_affinity_1,user-item_affinity_2"
)
ROWS = (
    "0,2019-11-24 00:00:01.5+00:00,1,3,0,0.25,m,x,0,1.5,0",
    "1,2019-11-24 00:00:02+00:00,0,1,1,0.5,f,y,0,0,2",
    "2,2019-11-24 00:00:03+00:00,0,2,0,0.5,f,x,0,0,0",
)
ITEMS = (",item_id,item_feature_0,item_feature_1", "0,0,-0.5,red", "1,1,0.25,blue", "2,2,1,red")


Campaign = Callable[..., Path]


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Write a campaign's folder."""

    def write(*rows: str, head: str = HEAD, items: tuple[str, ...] | None = ITEMS, folder: str = "all") -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        (place / "all.csv").write_text("\n".join((head, *rows)) + "\n")
        if items is not None:
            (place / "item_context.csv").write_text("\n".join(items) + "\n")
        return place

    return write


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def test_a_campaign_becomes_a_log(campaign: Campaign, workspace: Workspace) -> None:
    report = import_obd(campaign(*ROWS), workspace, "l")
    assert (report.rows_kept, report.regime) == (3, "propensity")
    log = read_log(workspace, "l")
    assert log.action.tolist() == [1, 0, 0]
    assert log.propensity.tolist() == [0.25, 0.5, 0.5]
    assert log.reward.tolist() == [0, 1, 0]
    assert log.context_features is not None
    # user_feature_0 is f or m, user_feature_1 is x or y, position is 1, 2 or 3
    assert log.context_features[log.context].tolist() == [
        [0, 1, 1, 0, 0, 0, 1],
        [1, 0, 0, 1, 1, 0, 0],
        [1, 0, 1, 0, 0, 1, 0],
    ]
    assert report.mapping["features"].split(",")[1:5:3] == ["user_feature_0=m", "position=1"]


def test_every_item_is_an_action_shown_or_not(campaign: Campaign, workspace: Workspace) -> None:
    import_obd(campaign(*ROWS), workspace, "l")
    import_obd(campaign(*ROWS, items=None, folder="bare"), workspace, "bare")
    log, bare = read_log(workspace, "l"), read_log(workspace, "bare")
    assert log.action_labels == bare.action_labels == ["0", "1", "2"]
    assert log.candidates is bare.candidates is None
    assert log.action_features is not None
    assert log.action_features.tolist() == [[-0.5, 0, 1], [0.25, 1, 0], [1, 0, 1]]
    assert bare.action_features is None
    assert read_texts(workspace, "l")[1][1] == '{"item_feature_0": "0.25", "item_feature_1": "blue"}'


def test_affinities_are_features_when_asked_for(campaign: Campaign, workspace: Workspace) -> None:
    import_obd(campaign(*ROWS), workspace, "l", affinities=True)
    log = read_log(workspace, "l")
    assert log.context_features is not None
    assert log.context_features[log.context][:, 7:].tolist() == [[0, 1.5, 0], [0, 0, 2], [0, 0, 0]]


def test_the_same_campaign_twice_adds_nothing(campaign: Campaign, workspace: Workspace) -> None:
    folder = campaign(*ROWS, "3,2019-11-24 00:00:03+00:00,0,2,0,0,f,x,0,0,0")
    first = import_obd(folder, workspace, "l")
    fingerprint = read_log(workspace, "l").fingerprint
    again = import_obd(folder / "all.csv", workspace, "l")
    assert (first.rows_kept, again.rows_kept, again.rows_known, again.rows_quarantined) == (3, 0, 3, 1)
    assert read_log(workspace, "l").fingerprint == fingerprint


def test_the_csv_file_and_a_parquet_file_bring_the_same_log(
    campaign: Campaign, tmp_path: Path, workspace: Workspace
) -> None:
    folder = campaign(*ROWS)
    frame = pl.read_csv(folder / "all.csv").drop("").cast({"user_feature_0": pl.Categorical})
    frame.write_parquet(tmp_path / "one.parquet")
    import_obd(tmp_path / "one.parquet", workspace, "parquet", items=folder / "item_context.csv")
    import_obd(folder / "all.csv", workspace, "l")
    one, other = read_log(workspace, "parquet"), read_log(workspace, "l")
    assert one.context_features is not None
    assert other.context_features is not None
    assert one.context_features.tolist() == other.context_features.tolist()
    assert (one.propensity.tolist(), one.action.tolist()) == (other.propensity.tolist(), other.action.tolist())
    assert one.action_features is not None


def test_a_value_that_only_a_later_file_has_is_quarantined(campaign: Campaign, workspace: Workspace) -> None:
    import_obd(campaign(*ROWS), workspace, "l")
    report = import_obd(
        campaign(
            "0,2019-11-25 00:00:01+00:00,1,3,0,0.25,m,z,0,1,0", "1,2019-11-25 00:00:02+00:00,1,4,0,0.25,m,x,0,1,0",
            "2,2019-11-25 00:00:03+00:00,2,1,0,0.25,m,x,0,1,0", folder="later",
        ), workspace, "l", as_new=True,
    )  # fmt: skip
    assert report.rows_kept == 1
    assert reasons(workspace) == [
        (2, "user_feature_1 is none of the values that the log has: z"),
        (3, "position is none of the values that the log has: 4"),
    ]
    log = read_log(workspace, "l")
    assert log.context_features is not None
    assert log.context_features[log.context[-1]].tolist() == [0, 1, 1, 0, 1, 0, 0]


def test_bad_rows_are_quarantined_with_their_line(campaign: Campaign, workspace: Workspace) -> None:
    time = "2019-11-24 00:00:01+00:00"
    folder = campaign(
        f"0,{time},7,1,0,0.5,f,x,0,0,0", f"1,{time},1,1,,0.5,f,x,0,0,0", f"2,{time},1,,0,0.5,f,x,0,0,0",
        f"3,{time},1,top,0,0.5,f,x,0,0,0", f"4,{time},1,1,0,0.5,,x,0,0,0", f"5,{time},1,1,0,-1,f,x,0,0,0",
        "6,torn", f"7,{time},,1,0,0.5,f,x,0,0,0", *ROWS,
    )  # fmt: skip
    report = import_obd(folder, workspace, "l")
    assert (report.rows_read, report.rows_kept, report.rows_quarantined) == (11, 3, 8)
    assert reasons(workspace) == [
        (2, "action is unknown: 7"),
        (3, "reward is missing"),
        (4, "position is missing"),
        (5, "position is none of the values that the log has: top"),
        (6, "user_feature_0 is missing"),
        (7, "propensity is negative: -1"),
        (8, "the line is broken: missing columns"),
        (9, "action is missing"),
    ]


def test_what_is_no_campaign_is_refused_and_leaves_no_trace(
    campaign: Campaign, tmp_path: Path, workspace: Workspace
) -> None:
    with pytest.raises(FileError, match="no file"):
        import_obd(tmp_path / "none", workspace, "l")
    folder = campaign(*ROWS)
    (folder / "men.csv").write_text("x\n")
    with pytest.raises(FileError, match=r"has: all\.csv, men\.csv\. Pass the file itself"):
        import_obd(folder, workspace, "l")
    with pytest.raises(ColumnError, match="no column 'timestamp'"):
        import_obd(folder / "men.csv", workspace, "l")
    with pytest.raises(FileError, match="no rows"):
        import_obd(campaign(folder="rowless"), workspace, "l")
    with pytest.raises(InputError, match=r"has 2 items, all\.csv has affinities to 3"):
        import_obd(campaign(*ROWS, items=ITEMS[:3], folder="other"), workspace, "l")
    with pytest.raises(ColumnError, match="no column 'item_id'"):
        import_obd(campaign(*ROWS, items=("x", "1"), folder="nameless"), workspace, "l")
    with pytest.raises(InputError, match="lacks a value"):
        import_obd(campaign(*ROWS, items=(*ITEMS[:3], "2,2,,red"), folder="gap"), workspace, "l")
    (folder / "empty.csv").touch()
    with pytest.raises(FileError, match="is empty"):
        import_obd(folder / "empty.csv", workspace, "l")
    assert list_logs(workspace) == []
    assert workspace.connection.execute("SELECT count(*) FROM duckdb_tables() WHERE temporary").fetchall() == [(0,)]


def test_values_with_sql_and_commas_in_them_are_only_text(campaign: Campaign, workspace: Workspace) -> None:
    nasty = """"x',=%; DROP TABLE decisions; --" """.strip()
    folder = campaign(ROWS[0].replace(",m,", f",{nasty},"), ROWS[1])
    assert import_obd(folder, workspace, "l").rows_kept == 2
    assert import_obd(folder, workspace, "l").rows_known == 2


CLICKS = {
    "all_random": 38, "men_random": 46, "women_random": 46, "all_bts": 42, "men_bts": 69, "women_bts": 46,
}  # fmt: skip


@pytest.mark.parametrize("name", CLICKS)
def test_the_real_samples(workspace: Workspace, name: str) -> None:
    path = DATA / "obd" / f"obd_{name}.parquet"
    if not path.is_file():
        pytest.skip(f"the Open Bandit sample is not at {path}; set COUNTERPLAY_DATA")
    report = import_obd(path, workspace, name)
    log = read_log(workspace, name)
    campaign, behavior = name.split("_")
    golden = json.loads((DATA / "obd" / "golden_obd.json").read_text())[f"{behavior}/{campaign}"]
    assert (report.rows_kept, report.rows_quarantined, log.reward.sum()) == (10_000, 0, CLICKS[name])
    assert len(log.action_labels) == golden["n_actions"]
    if behavior == "bts":
        target = np.full(len(log.action), 1 / len(log.action_labels))
        evidence = Evidence(reward=log.reward, propensity=log.propensity, target=target)
        for ours, theirs in (("ips", "ipw"), ("snips", "snipw")):
            assert evaluate(evidence, ours)[0].value == pytest.approx(golden["estimates"][theirs], rel=1e-12)
