"""A table that leaves a workspace: whole, in order, in words, and able to come back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.errors import FileError, InputError
from counterplay.logs import (
    DecisionArrays,
    Outcomes,
    Workspace,
    import_choices,
    import_decisions,
    list_logs,
    open_workspace,
    read_choices,
    read_log,
    read_texts,
    write_log,
)
from counterplay.logs.decisions.table import attach_decisions
from counterplay.logs.export import export_table
from counterplay.logs.outputs import Output, put_outputs
from counterplay.logs.schema import TABLES

ROWS = pl.DataFrame(
    {
        "decision_id": ["d1", "d2", "d3", "d4"],
        "context_id": ["c2", "c1", "c2", "c3"],
        "action": ["10", "9", "10", "b"],
        "propensity": [0.5, 0.25, 0.1 + 0.2, 1.0],
        "reward": [1.0, -2.5, 1e-300, 0.0],
        "cost": [None, 0.1, None, 3.0],
        "cluster": ["u", "v", "u", None],
        "candidates": [["9", "10"], ["9", "b", "10"], ["10"], ["b", "9"]],
        "text": ['two, "quoted"', "éins\nzwei", 'two, "quoted"', "three"],
        "features": [[1.0, 2.0], [0.1, -0.5], [1.0, 2.0], [0.0, 0.0]],
        "timestamp": ["2024-05-01T10:00:00Z", "2024-05-01T09:00:00Z", None, "2024-05-02T00:00:00.123456Z"],
    }
)


@pytest.fixture
def desk(workspace: Workspace) -> Workspace:
    table = pl.DataFrame({"label": ["b", "10", "9", "never"], "features": [[1.0], [2.0], [3.0], [4.0]]})
    import_decisions(ROWS, workspace, "desk", actions=table)
    import_decisions(pl.DataFrame({"action": ["a", "z", "a"], "reward": [1.0, 2.0, 1.0]}), workspace, "plain")
    return workspace


def test_a_log_that_went_out_comes_back_with_the_same_arrays(desk: Workspace, tmp_path: Path) -> None:
    assert export_table(desk, "decisions", tmp_path / "d.parquet", log="desk") == 4
    assert export_table(desk, "actions", tmp_path / "a.parquet", log="desk") == 4
    with open_workspace(tmp_path / "new.duckdb") as new:
        report = import_decisions(tmp_path / "d.parquet", new, "desk", actions=tmp_path / "a.parquet")
        assert (report.rows_kept, report.regime) == (4, "propensity")
        assert read_log(new, "desk").fingerprint == read_log(desk, "desk").fingerprint
        assert read_texts(new, "desk") == read_texts(desk, "desk")
        times = "SELECT CAST(timestamp AS VARCHAR) FROM decisions WHERE log = 'desk' ORDER BY position"
        assert new.connection.execute(times).fetchall() == desk.connection.execute(times).fetchall()


def test_a_log_without_propensities_texts_and_features_comes_back_without_them(desk: Workspace, tmp_path: Path) -> None:
    export_table(desk, "decisions", tmp_path / "d.parquet", log="plain")
    assert not {"propensity", "features", "candidates", "text"} & set(pl.read_parquet(tmp_path / "d.parquet").columns)
    export_table(desk, "actions", tmp_path / "a.parquet", log="plain")
    with open_workspace(tmp_path / "new.duckdb") as new:
        report = import_decisions(tmp_path / "d.parquet", new, "plain", actions=tmp_path / "a.parquet")
        assert (report.rows_kept, report.rows_quarantined, report.regime) == (3, 0, "observed")
        assert read_log(new, "plain").fingerprint == read_log(desk, "plain").fingerprint


def test_an_attached_log_goes_out_like_any_other(desk: Workspace, tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "held.parquet")
    attach_decisions(tmp_path / "held.parquet", desk, "held", actions=["b", "10", "9", "never"])
    assert export_table(desk, "decisions", tmp_path / "h.parquet", log="held") == 4
    assert export_table(desk, "decisions", tmp_path / "d.parquet", log="desk") == 4
    held, stored = (pl.read_parquet(tmp_path / name).drop("log") for name in ("h.parquet", "d.parquet"))
    assert held.select(stored.columns).equals(stored)
    assert export_table(desk, "decisions", tmp_path / "all.parquet") == 11
    with pytest.raises(FileError, match="part of the workspace"):
        export_table(desk, "decisions", tmp_path / "held.parquet", overwrite=True)


def test_choices_come_back_through_their_own_import(desk: Workspace, tmp_path: Path) -> None:
    chosen = {"context_id": ["c3", "c1", "c1", "c2"], "action": ["b", "9", "10", "never"]}
    import_choices(pl.DataFrame(chosen | {"probability": [1.0, 0.75, 0.25, 1.0]}), desk, "desk", "fixed")
    before = read_choices(desk, "desk", "fixed")
    assert export_table(desk, "choices", tmp_path / "c.parquet") == 4
    table = pl.read_parquet(tmp_path / "c.parquet")
    assert table["context_id"].to_list() == ["c2", "c1", "c1", "c3"]
    assert table["action"].to_list() == ["never", "9", "10", "b"]
    assert table["action_index"].to_list() == [3, 2, 1, 0]
    import_choices(tmp_path / "c.parquet", desk, "desk", "again")
    after = read_choices(desk, "desk", "again")
    assert (after.actions == before.actions).all()
    assert (after.probabilities == before.probabilities).all()


def test_decisions_of_all_logs_stand_one_log_below_the_other_in_their_order(desk: Workspace, tmp_path: Path) -> None:
    assert export_table(desk, "decisions", tmp_path / "d.parquet") == 7
    table = pl.read_parquet(tmp_path / "d.parquet")
    assert table["log"].to_list() == ["desk"] * 4 + ["plain"] * 3
    assert table["action"].to_list() == ["10", "9", "10", "b", "a", "z", "a"]
    assert table["action_index"].to_list() == [1, 2, 1, 0, 0, 1, 0]
    assert table["candidates"].to_list()[:5] == [["9", "10"], ["9", "b", "10"], ["10"], ["b", "9"], None]


def test_an_outcome_table_carries_labels_in_the_order_of_its_contexts(workspace: Workspace, tmp_path: Path) -> None:
    outcomes = Outcomes(
        offsets=np.array([0, 2, 3]), actions=np.array([0, 1, 1], np.int32), rewards=np.array([1.0, 2.0, 3.0]),
        default=float("nan"),
    )  # fmt: skip
    write_log(
        workspace, log="full", regime="full", context_ids=["z", "a"], action_labels=["no", "yes"], outcomes=outcomes
    )
    assert export_table(workspace, "outcomes", tmp_path / "o.parquet", log="full") == 3
    table = pl.read_parquet(tmp_path / "o.parquet")
    assert table.select("context_id", "action", "action_index", "reward").rows() == [
        ("z", "no", 0, 1.0), ("z", "yes", 1, 2.0), ("a", "yes", 1, 3.0)
    ]  # fmt: skip
    assert "place" not in table.columns
    assert export_table(workspace, "decisions", tmp_path / "d.parquet", log="full") == 2


@pytest.mark.parametrize("table", TABLES)
def test_every_table_can_go_out_with_as_many_rows_as_it_has(desk: Workspace, tmp_path: Path, table: str) -> None:
    (held,) = desk.connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0]
    held += table == "contexts"  # that of the log 'plain' stands nowhere but with its decisions
    assert export_table(desk, table, tmp_path / "t.parquet") == held
    assert pl.read_parquet(tmp_path / "t.parquet").height == held


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_workspace_gives_files_with_columns_and_no_rows(
    workspace: Workspace, tmp_path: Path, table: str
) -> None:
    assert export_table(workspace, table, tmp_path / "t.parquet") == (1 if table == "workspace" else 0)
    assert len(pl.read_parquet(tmp_path / "t.parquet").columns) > 1


def test_json_and_lists_survive(desk: Workspace, tmp_path: Path) -> None:
    request = {"operation": "rank", "model": "m", "prompt": 'a "b"\n', "n": [1, 2.5, None]}
    put_outputs(desk.connection, [Output(request=request, response={"x": {"y": []}}, provenance={})])
    export_table(desk, "outputs", tmp_path / "o.parquet")
    (row,) = pl.read_parquet(tmp_path / "o.parquet").to_dicts()
    assert json.loads(row["request"]) == request
    assert json.loads(row["response"]) == {"x": {"y": []}}
    export_table(desk, "contexts", tmp_path / "c.parquet", log="desk")
    contexts = pl.read_parquet(tmp_path / "c.parquet")
    assert contexts["features"].to_list()[0] == [1.0, 2.0]
    assert contexts["text"].to_list() == ['two, "quoted"', "éins\nzwei", "three"]


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(desk: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match=r"exists.*overwrite"):
        export_table(desk, "decisions", path)
    assert path.read_bytes() == b"mine"
    assert export_table(desk, "decisions", path, overwrite=True) == 7
    assert pl.read_parquet(path).height == 7


def test_names_that_are_nearly_right_are_answered_with_the_right_one(desk: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'decisions'"):
        export_table(desk, "decision", tmp_path / "d.parquet")
    with pytest.raises(InputError, match="'desk'"):
        export_table(desk, "decisions", tmp_path / "d.parquet", log="dask")
    with pytest.raises(InputError, match="belongs to no log"):
        export_table(desk, "outputs", tmp_path / "d.parquet", log="desk")
    assert not [name for name in os.listdir(tmp_path) if "workspace" not in name]


def test_places_that_cannot_be_written_are_named_and_left_as_they_are(desk: Workspace, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        export_table(desk, "decisions", tmp_path / "no" / "d.parquet")
    with pytest.raises(FileError, match=r"Name it \*.parquet"):
        export_table(desk, "decisions", desk.path, overwrite=True)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        export_table(desk, "decisions", tmp_path / "folder.parquet", overwrite=True)
    os.link(desk.path, tmp_path / "workspace.parquet")
    with pytest.raises(FileError, match="part of the workspace"):
        export_table(desk, "decisions", tmp_path / "workspace.parquet", overwrite=True)
    assert len(list_logs(desk)) == 2


def test_an_export_that_finds_no_room_leaves_nothing(
    desk: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match=r"No space left.*free space"):
        export_table(desk, "decisions", tmp_path / "d.parquet")
    assert not [name for name in os.listdir(tmp_path) if "workspace" not in name]


def test_a_log_name_and_a_path_with_quotes_are_no_sql(workspace: Workspace, tmp_path: Path) -> None:
    name = "o'; DROP TABLE logs; --"
    import_decisions(pl.DataFrame({"action": ["a"], "reward": [1.0]}), workspace, name)
    path = tmp_path / "it's [1] *.parquet"
    assert export_table(workspace, "decisions", path, log=name) == 1
    assert export_table(workspace, "sources", path, log=name, overwrite=True) == 1
    assert pl.read_parquet(path.read_bytes())["log"].to_list() == [name]


def test_a_million_candidates_do_not_need_memory_for_all(workspace: Workspace, tmp_path: Path) -> None:
    labels = [f"action {i}" for i in range(5000)]
    rng = np.random.default_rng(0)
    size = 50_000
    first = rng.integers(0, 4980, size)
    write_log(
        workspace,
        log="wide",
        regime="propensity",
        context_ids=["none"],
        action_labels=labels,
        decisions=DecisionArrays(
            context=np.zeros(size, np.int32),
            action=first.astype(np.int32),
            propensity=np.full(size, 0.5),
            reward=rng.random(size),
            candidates=(first[:, None] + np.arange(20)).astype(np.int32),
        ),
    )
    workspace.connection.execute("SET memory_limit = '400MB'")
    assert export_table(workspace, "decisions", tmp_path / "d.parquet") == size
    table = pl.read_parquet(tmp_path / "d.parquet", columns=["action", "candidates"])
    assert table["action"].to_list() == [labels[i] for i in first]
    assert (table["candidates"].list.first() == table["action"]).all()
