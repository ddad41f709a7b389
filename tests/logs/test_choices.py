"""A policy of one's own comes in as a table of probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.logs import Workspace, import_choices, import_decisions, read_choices

DECISIONS = pl.DataFrame(
    {
        "context_id": ["x", "y", "z"],
        "action": ["a", "b", "a"],
        "propensity": [0.5, 0.5, 0.5],
        "reward": [1.0, 0.0, 1.0],
    }
)
POLICY = pl.DataFrame({"context_id": ["x", "x", "y"], "action": ["a", "b", "b"], "probability": [0.25, 0.75, 1.0]})


@pytest.fixture
def desk(workspace: Workspace) -> Workspace:
    import_decisions(DECISIONS, workspace, "march")
    return workspace


@pytest.mark.parametrize("kind", ["frame", "pandas", "csv", "parquet", "jsonl"])
def test_a_policy_is_read_back_with_the_likeliest_action_first_and_a_miss_where_it_is_silent(
    desk: Workspace, tmp_path: Path, kind: str
) -> None:
    source: Any = POLICY
    if kind == "pandas":
        source = POLICY.to_pandas()
    elif kind != "frame":
        source = tmp_path / f"policy.{kind}"
        {"csv": POLICY.write_csv, "parquet": POLICY.write_parquet, "jsonl": POLICY.write_ndjson}[kind](source)
    report = import_choices(source, desk, "march", "mine")
    assert (report.contexts, report.misses, report.unknown) == (2, 1, 0)
    stored = read_choices(desk, "march", "mine")
    assert stored.actions.tolist() == [[1, 0], [1, -1], [-1, -1]]
    assert stored.probabilities.tolist() == [[0.75, 0.25], [1.0, 0.0], [0.0, 0.0]]


def test_without_probabilities_a_policy_is_deterministic(desk: Workspace) -> None:
    import_choices(POLICY.filter(pl.col("probability") > 0.5).drop("probability"), desk, "march", "mine")
    assert read_choices(desk, "march", "mine").actions[:, 0].tolist() == [1, 1, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action": ["a", "b", "c"]}, "no action 'c'"),
        ({"context_id": ["u", "u", "w"]}, "none of the contexts in this source, the first of which is 'u'"),
        ({"probability": [0.25, 0.7, 1.0]}, "do not sum to 1, the first is 'x' with 0.95"),
        ({"probability": [float("nan"), 0.75, 1.0]}, "not between 0 and 1"),
        ({"probability": [-0.5, 1.5, 1.0]}, "not between 0 and 1"),
        ({"action": ["a", "a", "b"]}, "twice"),
    ],
)
def test_what_is_no_policy_is_refused_and_nothing_is_stored(
    desk: Workspace, change: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        import_choices(POLICY.with_columns(**{name: pl.Series(v) for name, v in change.items()}), desk, "march", "mine")
    assert desk.connection.execute("SELECT count(*) FROM choices").fetchone() == (0,)


def test_contexts_that_the_log_does_not_have_are_left_out_and_counted(desk: Workspace) -> None:
    report = import_choices(POLICY.with_columns(context_id=pl.Series(["w", "w", "x"])), desk, "march", "mine")
    assert (report.contexts, report.misses, report.unknown) == (1, 2, 1)
    assert read_choices(desk, "march", "mine").actions[:, 0].tolist() == [1, -1, -1]


def test_probabilities_are_found_under_the_names_of_the_field(desk: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "policy.csv"
    path.write_text("Context_ID;item_id;pscore;note\nx;a;0.25;\nx;b;0.75;hm\n")
    assert import_choices(path, desk, "march", "mine").ignored == ("note",)
    assert read_choices(desk, "march", "mine").probabilities[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize(("row", "message"), [("x,", "row 2 has no action"), (",a", "row 2 has no context")])
def test_a_row_without_a_context_or_an_action_is_refused(
    desk: Workspace, tmp_path: Path, row: str, message: str
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(f"context_id,action\ny,b\n{row}\n")
    with pytest.raises(InputError, match=message):
        import_choices(path, desk, "march", "mine")
    path.write_text("context_id,action\ny,b\nz,a,b\n")
    with pytest.raises(FileError, match="line 3"):
        import_choices(path, desk, "march", "mine")


def test_a_misspelt_column_is_refused_with_the_nearest(desk: Workspace) -> None:
    with pytest.raises(ColumnError, match="Did you mean 'context'"):
        import_choices(POLICY.rename({"context_id": "context"}), desk, "march", "mine")


def test_a_file_of_no_known_kind_and_an_absent_file_are_refused(desk: Workspace, tmp_path: Path) -> None:
    for name in ("policy.xlsx", "absent.csv"):
        with pytest.raises(FileError):
            import_choices(tmp_path / name, desk, "march", "mine")


def test_an_unknown_log_is_refused_with_the_nearest_name(desk: Workspace) -> None:
    with pytest.raises(InputError, match="Did you mean 'march'"):
        import_choices(POLICY, desk, "marsh", "mine")
