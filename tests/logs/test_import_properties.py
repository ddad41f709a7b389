"""Whatever a file holds: rows read = rows kept + rows quarantined + rows known, and as many as were put into it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterplay.errors import FileError
from counterplay.logs import Workspace, import_decisions, open_workspace, read_log, read_quarantine

NUMBERS = st.one_of(
    st.sampled_from(
        ["0.5", "1", "0", "-1", "2", "nan", "inf", "-inf", "", "1e400", "x", "0.5.5", " 0.5", "1,5", "½", "NULL"]
    ),
    st.floats(0.01, 1).map(repr),
)
WORDS = st.one_of(st.sampled_from(["a", "b", "c", "", '"', "a|b", "[a]", "é\n", "\x00", "'); --"]), st.text(max_size=5))
CELLS = {
    "decision_id": st.one_of(st.sampled_from(["1", "2", "3", ""]), WORDS),
    "action": WORDS,
    "propensity": NUMBERS,
    "reward": NUMBERS,
    "cost": NUMBERS,
    "candidates": st.one_of(WORDS, st.sampled_from(["a|b|c", '["a", "b"]', "[a, b", "[]", "a|a", '["a", null]'])),
    "features": st.one_of(WORDS, st.sampled_from(["[1, 2]", "[1, 2]", "[1]", "[1, x]", "[nan, 1]"])),
    "timestamp": st.one_of(WORDS, st.sampled_from(["2024-01-01", "1700000000", "1e30", "-5"])),
    "step": st.sampled_from(["1", "1.5", "", "x", "99999999999"]),
}
OPTIONAL = ["decision_id", "propensity", "cost", "candidates", "features", "timestamp", "step"]
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, str]]:
    names = ["action", "reward", *draw(st.lists(st.sampled_from(OPTIONAL), unique=True))]
    return draw(st.lists(st.fixed_dictionaries({name: CELLS[name] for name in names}), min_size=1, max_size=8))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("shared") / "w.duckdb") as workspace:
        yield workspace


def check(workspace: Workspace, path: Path, rows: int) -> None:
    """Import twice into a new log: the counts add up, what is kept is sound, and nothing is added the second time."""

    def look_and_undo() -> None:
        with workspace.transaction():
            look(workspace, path, rows)
            raise UndoneError

    with pytest.raises(UndoneError):
        look_and_undo()


class UndoneError(Exception):
    """Rolls an example back, which is faster than removing what it wrote."""


def look(workspace: Workspace, path: Path, rows: int) -> None:
    try:
        first = import_decisions(path, workspace, "l")
    except FileError:
        assert rows == 0
        return
    second = import_decisions(path, workspace, "l")
    assert first.rows_read == second.rows_read == rows
    assert first.rows_read == first.rows_kept + first.rows_quarantined
    assert (second.rows_kept, second.rows_known) == (0, first.rows_kept)
    assert len(read_quarantine(workspace, "l")) == first.rows_quarantined
    log = read_log(workspace, "l")
    assert len(log.decision_ids) == len(set(log.decision_ids)) == first.rows_kept
    assert np.isfinite(log.reward).all()
    if first.regime == "propensity":
        assert ((log.propensity > 0) & (log.propensity <= 1)).all()
    if log.candidates is not None:
        assert (log.candidates == log.action[:, None]).any(axis=1).all()
    lines = read_quarantine(workspace, "l")["line"]
    assert (lines >= 1).all()
    assert lines.n_unique() == len(lines)


@FEW
@given(table=tables())
def test_rows_of_any_csv_file_are_kept_or_quarantined(shared: Workspace, tmp_path_factory: Any, table: Any) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    check(shared, path, len(table))


@FEW
@given(
    table=tables(),
    broken=st.lists(st.sampled_from(["a,0.5", "x", "1,2,3,4,5,6,7,8,9,10,11", ",,,,,,,,,,,,"]), max_size=3),
)
def test_broken_records_of_a_csv_file_are_quarantined(
    shared: Workspace, tmp_path_factory: Any, table: Any, broken: list[str]
) -> None:
    plain = [
        {name: "".join(c for c in cell if c.isalnum() or c in ".-|[] ") for name, cell in row.items()} for row in table
    ]
    lines = [",".join(plain[0])] + [",".join(f'"{cell}"' for cell in row.values()) for row in plain] + broken
    path = tmp_path_factory.getbasetemp() / "broken.csv"
    path.write_text("\n".join(lines))
    check(shared, path, len(lines) - 1)


JSON = st.one_of(
    NUMBERS, WORDS, st.none(), st.booleans(), st.integers(-2, 2), st.floats(), st.lists(st.integers(0, 2), max_size=3)
)


@FEW
@given(
    table=st.lists(
        st.dictionaries(st.sampled_from(["action", "reward", "p", "id", "actions", "features", "text", "new"]), JSON),
        max_size=8,
    ),
    broken=st.lists(
        st.sampled_from(["[1]", "3", "{", '{"action": "a", "rew', "null", '"x"', "nul", "{}{}"]), max_size=3
    ),
    blank=st.integers(0, 2),
)
def test_lines_of_any_jsonl_file_are_kept_or_quarantined(
    shared: Workspace, tmp_path_factory: Any, table: Any, broken: list[str], blank: int
) -> None:
    sound = {"action": "a", "reward": 1}
    lines = [json.dumps(sound), *map(json.dumps, table), *broken]
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(("\n" * (1 + blank)).join(lines))
    check(shared, path, len(lines))
