"""A cache goes through a file and back, and nothing comes in that is not what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from counterplay.errors import FileError, InputError
from counterplay.logs import Workspace
from counterplay.logs.outputs import (
    COLUMNS,
    canonical_json,
    export_outputs,
    files,
    get_outputs,
    import_outputs,
    outputs_hash,
    put_outputs,
    request_key,
)
from tests.logs.outputs import output, request


def test_a_cache_goes_through_a_file_unchanged(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(), output("error", sample_index=1), output(prompts=["ü", "'"])])
    before = outputs_hash(workspace.connection)
    assert export_outputs(workspace.connection, tmp_path / "cache.parquet") == 3
    workspace.connection.execute("DELETE FROM outputs")
    assert outputs_hash(workspace.connection) != before
    assert import_outputs(workspace.connection, tmp_path / "cache.parquet").new == 3
    assert import_outputs(workspace.connection, tmp_path / "cache.parquet").new == 0
    assert outputs_hash(workspace.connection) == before
    assert get_outputs(workspace.connection, [request_key(request(sample_index=1))]) == {}


def test_a_file_in_which_a_key_does_not_belong_to_its_request_is_refused_whole(
    workspace: Workspace, tmp_path: Path
) -> None:
    put_outputs(workspace.connection, [output(), output(sample_index=1)])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    table = pq.read_table(tmp_path / "cache.parquet")
    forged = table.set_column(3, "request", [[canonical_json(request(model="m2"))] * 2])
    pq.write_table(forged, tmp_path / "cache.parquet")
    workspace.connection.execute("DELETE FROM outputs")
    with pytest.raises(FileError, match="does not belong"):
        import_outputs(workspace.connection, tmp_path / "cache.parquet")
    assert workspace.connection.execute("SELECT count(*) FROM outputs").fetchall() == [(0,)]


def test_a_file_that_is_no_cache_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no", encoding="utf-8")
    with pytest.raises(FileError, match="no Parquet file"):
        import_outputs(workspace.connection, tmp_path / "text.parquet")


def counts(workspace: Workspace, path: Path) -> tuple[int, int, int, int]:
    report = import_outputs(workspace.connection, path)
    assert report.outputs == report.new + report.known + report.replaced + report.conflicting
    return report.new, report.known, report.replaced, report.conflicting


def everything(workspace: Workspace) -> list[tuple[Any, ...]]:
    return workspace.connection.execute("SELECT * FROM outputs ORDER BY key").fetchall()


def test_an_import_says_what_became_of_each_output(workspace: Workspace, tmp_path: Path) -> None:
    there = [output(), output(sample_index=1), output("error", sample_index=2), output("error", sample_index=3)]
    put_outputs(workspace.connection, [*there, output(sample_index=4), output("error", sample_index=5)])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    workspace.connection.execute("DELETE FROM outputs")
    here = [output(), output(sample_index=1, value=-9.0), output(sample_index=2, value=-9.0)]
    put_outputs(workspace.connection, [*here, output("refused", sample_index=3), output("error", sample_index=5)])
    report = import_outputs(workspace.connection, tmp_path / "cache.parquet")
    # Known: the same answer; an error that meets an answer; the same error again. Replaced: a refusal by an error.
    assert (report.outputs, report.new, report.known, report.replaced, report.conflicting) == (6, 1, 3, 1, 1)
    assert report.conflicts == (output(sample_index=1).key,)
    keys = [output(sample_index=index).key for index in (1, 2)]
    assert get_outputs(workspace.connection, keys) == {key: {"logprobs": [-9]} for key in keys}
    assert "1 conflicting" in str(report)


def test_an_answer_takes_the_place_of_an_error(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output()])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    before = everything(workspace)
    workspace.connection.execute("DELETE FROM outputs")
    put_outputs(workspace.connection, [output("error", value=0.0)])
    assert counts(workspace, tmp_path / "cache.parquet") == (0, 0, 1, 0)
    assert everything(workspace) == before


def test_a_file_is_sorted_and_says_its_version_and_keeps_the_provenance(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(sample_index=index) for index in range(50)])
    before = everything(workspace)
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    table = pq.read_table(tmp_path / "cache.parquet")
    assert table.schema.metadata[b"counterplay_outputs"] == b"2"
    assert table["key"].to_pylist() == sorted(table["key"].to_pylist())
    workspace.connection.execute("DELETE FROM outputs")
    assert counts(workspace, tmp_path / "cache.parquet") == (50, 0, 0, 0)
    assert everything(workspace) == before


def test_a_file_of_version_one_says_no_version_and_is_read(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(), output("error", sample_index=1)])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    old = pq.read_table(tmp_path / "cache.parquet").replace_schema_metadata(None)
    pq.write_table(old, tmp_path / "old.parquet", compression="zstd")
    workspace.connection.execute("DELETE FROM outputs")
    assert counts(workspace, tmp_path / "old.parquet") == (2, 0, 0, 0)


@pytest.mark.parametrize("version", ["3", "0", "two", ""])
def test_a_file_of_another_version_is_refused_by_its_version(
    workspace: Workspace, tmp_path: Path, version: str
) -> None:
    put_outputs(workspace.connection, [output()])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    table = pq.read_table(tmp_path / "cache.parquet").replace_schema_metadata({"counterplay_outputs": version})
    pq.write_table(table, tmp_path / "cache.parquet")
    with pytest.raises(FileError, match=f"of version {version};"):
        import_outputs(workspace.connection, tmp_path / "cache.parquet")


def column(name: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Another value in the last row of a column."""

    def change(table: pa.Table) -> pa.Table:
        values = [*table[name].to_pylist()[:-1], value]
        return table.set_column(COLUMNS.index(name), name, pa.array(values, pa.string()))

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (column("key", "f" * 64), "the key does not belong to the request"),
        (column("request", canonical_json(request(model="n"))), "the key does not belong to the request"),
        (column("request", "{"), "request is no JSON"),
        (column("response", "[1]"), "response is no JSON object"),
        (column("response", '{"logprobs": [-1.5]}'), "response is not in its canonical form"),
        (column("response", '{"logprobs":[NaN]}'), "response is no JSON"),
        (column("response", '{"logprobs":[-2.0]}'), "response is not in its canonical form"),
        (column("response", '{"logprobs":[1e999]}'), "response is no JSON"),
        (column("response", '{"text":"\\ud800"}'), "response is no JSON"),
        (column("response", None), "response is NULL"),
        (column("model", "n"), "model is 'n', but not in the request"),
        (column("operation", "generate"), "operation is 'generate'"),
        (column("status", ""), "status"),
        (column("provenance", "text"), "provenance is no JSON"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "not sorted, or one is there twice"),
        (lambda table: table.drop_columns(["provenance"]), "has the columns"),
        (lambda table: table.set_column(5, "status", pa.array([1] * len(table))), "status is no text"),
    ],
)
def test_what_no_export_writes_is_refused_whole(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, says: str
) -> None:
    monkeypatch.setattr(files, "_BATCH", 3)
    put_outputs(workspace.connection, [output(sample_index=index) for index in range(8)])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    pq.write_table(change(pq.read_table(tmp_path / "cache.parquet")), tmp_path / "other.parquet")
    workspace.connection.execute("DELETE FROM outputs")
    with pytest.raises(FileError, match=says):
        import_outputs(workspace.connection, tmp_path / "other.parquet")
    assert everything(workspace) == []
    assert counts(workspace, tmp_path / "cache.parquet") == (8, 0, 0, 0)


def test_one_model_can_be_taken_out_alone(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(), output(model="it's"), output(model="it's", sample_index=1)])
    assert export_outputs(workspace.connection, tmp_path / "cache.parquet", model="it's") == 2
    assert set(pq.read_table(tmp_path / "cache.parquet")["model"].to_pylist()) == {"it's"}
    with pytest.raises(InputError, match="Did you mean 'it's'"):
        export_outputs(workspace.connection, tmp_path / "other.parquet", model="its")


def test_a_file_that_is_there_is_not_replaced_unawares(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output()])
    (tmp_path / "mine.parquet").write_text("mine")
    with pytest.raises(FileError, match="--overwrite"):
        export_outputs(workspace.connection, tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_text() == "mine"
    assert export_outputs(workspace.connection, tmp_path / "mine.parquet", overwrite=True) == 1
    for name in ("folder/cache.parquet", "cache.csv", workspace.path.name):
        with pytest.raises(FileError, match="Name"):
            export_outputs(workspace.connection, tmp_path / name, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} <= {
        "mine.parquet",
        workspace.path.name,
        f"{workspace.path.name}.wal",
    }


def test_a_file_that_is_cut_short_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(sample_index=index) for index in range(100)])
    export_outputs(workspace.connection, tmp_path / "cache.parquet")
    content = (tmp_path / "cache.parquet").read_bytes()
    for length in (0, 100, len(content) - 10):
        (tmp_path / "cut.parquet").write_bytes(content[:length])
        with pytest.raises(FileError, match="no Parquet file of outputs"):
            import_outputs(workspace.connection, tmp_path / "cut.parquet")
    with pytest.raises(FileError, match="no Parquet file of outputs"):
        import_outputs(workspace.connection, tmp_path / "absent.parquet")
