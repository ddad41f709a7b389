"""A log can stay in Parquet files: checked once, read in place, and refused when the files are not what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from counterplay.errors import FileError, InputError
from counterplay.logs import (
    Workspace,
    attach_decisions,
    import_decisions,
    list_logs,
    read_log,
    read_quarantine,
    stream_decisions,
)


def decisions(rows: int, seed: int = 0, labels: str = "abcde") -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    action = rng.integers(0, len(labels), rows)
    return pl.DataFrame(
        {
            "context_id": [f"c{i % 40}" for i in range(rows)],
            "action": [labels[i] for i in action],
            "propensity": rng.uniform(0.1, 1, rows),
            "reward": rng.normal(size=rows),
            "candidates": [list(labels)] * rows,
            "features": [[i % 40 / 2, 1.0] for i in range(rows)],
            "step": [i % 3 for i in range(rows)],
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "lake"
    place.mkdir()
    for i in range(3):
        decisions(100, seed=i).write_parquet(place / f"part-{i}.parquet")
    return place


def test_an_attached_log_reads_like_an_imported_one(workspace: Workspace, folder: Path) -> None:
    report = attach_decisions(folder, workspace, "attached")
    import_decisions(folder, workspace, "copied")
    assert (report.rows_read, report.rows_kept) == (300, 300)
    attached, copied = read_log(workspace, "attached"), read_log(workspace, "copied")
    for name in ("context", "context_features", "candidates", "action", "propensity", "reward"):
        assert np.array_equal(getattr(attached, name), getattr(copied, name)), name
    assert (attached.context_ids, attached.action_labels) == (copied.context_ids, copied.action_labels)
    columns = ["position", "action", "candidates", "reward", "step"]
    streams = [pl.concat(stream_decisions(workspace, name, columns, batch=64)) for name in ("attached", "copied")]
    assert streams[0].equals(streams[1])
    assert workspace.connection.execute("SELECT DISTINCT log FROM decisions").fetchall() == [("copied",)]
    assert [row["decisions"] for row in list_logs(workspace)] == [300, 300]


def test_whole_number_labels_of_two_attached_logs_do_not_meet(workspace: Workspace, tmp_path: Path) -> None:
    for name, shift in (("one", 10), ("two", 100)):
        frame = pl.DataFrame({"action": [shift + 2, shift, shift + 1], "reward": [1, 2, 3]})
        frame.write_parquet(tmp_path / f"{name}.parquet")
        attach_decisions(tmp_path / f"{name}.parquet", workspace, name)
    one, two = (stream_decisions(workspace, name, ["action"], batch=1) for name in ("one", "two"))
    pairs = [(left["action"][0], right["action"][0]) for left, right in zip(one, two, strict=True)]
    assert pairs == [(2, 2), (0, 0), (1, 1)]


def test_unsound_rows_of_an_attached_file_are_left_out(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame({"action": ["a", "b", "a"], "propensity": [0.5, 0.0, 0.5], "reward": [1, 2, 3]})
    frame.write_parquet(path)
    report = attach_decisions(path, workspace, "l")
    assert (report.rows_kept, report.rows_quarantined) == (2, 1)
    assert read_quarantine(workspace, "l")["line"].to_list() == [2]
    assert read_log(workspace, "l").reward.tolist() == [1, 3]


def test_a_file_that_changed_or_went_is_not_read(workspace: Workspace, folder: Path) -> None:
    attach_decisions(folder, workspace, "l")
    decisions(150, seed=1, labels="abcdef").write_parquet(folder / "part-1.parquet")
    with pytest.raises(FileError, match=r"part-1\.parquet has changed since it was attached to log 'l'\. Attach the"):
        read_log(workspace, "l")
    assert attach_decisions(folder, workspace, "l").rows_kept == 350
    assert read_log(workspace, "l").action_labels == list("abcdef")
    (folder / "part-2.parquet").unlink()
    with pytest.raises(FileError, match=r"part-2\.parquet, which holds decisions of log 'l', cannot be read"):
        read_log(workspace, "l")
    assert list_logs(workspace)[0]["decisions"] is None


def test_decisions_are_in_the_workspace_or_in_files_not_in_both(workspace: Workspace, folder: Path) -> None:
    attach_decisions(folder, workspace, "l")
    with pytest.raises(InputError, match=r"Log 'l' is attached to files\. Import under another name"):
        import_decisions(folder, workspace, "l")
    import_decisions(folder, workspace, "m")
    with pytest.raises(InputError, match=r"Log 'm' has its decisions in the workspace\. Attach under another name"):
        attach_decisions(folder, workspace, "m")
    with pytest.raises(FileError, match="no Parquet files at"):
        attach_decisions(folder / "none", workspace, "n")
