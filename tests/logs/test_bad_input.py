"""Nothing that stands in a file is lost without a word, however broken, long or strange it is."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import FileError, InputError
from counterplay.logs import ImportReport, Workspace, import_decisions, list_logs, read_log, read_quarantine
from counterplay.logs.sources import extent
from counterplay.logs.sources.extent import csv_extent, lines_extent

Bring = Callable[..., ImportReport]
HEADER = b"decision_id,action,propensity,reward,text\n"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, bytes], Path]:
    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


def test_a_field_of_50_megabytes_is_read_like_any_other(bring: Bring, file: Any, workspace: Workspace) -> None:
    long = b"x" * 50_000_000
    rows = HEADER + b"1,a,0.5,1,ok\n2,b,0.5,1," + long + b'\n3,c,0.5,1,"' + long[:5_000_000] + b'\n"\n4,d,0.5,1,ok\n'
    assert bring(file("long.csv", rows)).rows_kept == 4
    lengths = workspace.connection.execute("SELECT max(len(text)), count(*) FROM contexts").fetchall()
    assert lengths == [(50_000_000, 3)]
    rows = b'{"action": "a", "reward": 1, "text": "' + long + b'"}\n{"action": "b", "reward": 1, "text": "s"}\n'
    assert bring(file("long.jsonl", rows), log="json").rows_kept == 2


def test_a_reader_that_loses_records_is_found_out(
    bring: Bring, file: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With its own limit the reader drops the long record and says nothing of it.
    measure = extent._measure
    monkeypatch.setattr(extent, "_measure", lambda *values, **words: (measure(*values, **words)[0], 0))
    rows = HEADER + b"1,a,0.5,1,ok\n2,b,0.5,1," + b"x" * 50_000_000 + b"\n3,c,0.5,1,ok\n"
    with pytest.raises(FileError, match=r"has 4 records, of which the reader found only 3; nothing was imported"):
        bring(file("long.csv", rows))
    assert list_logs(workspace) == []


FIELDS = st.sampled_from([b"a", b"", b" ", b'"x"', b'"x\ny"', b'"x""\r\n"', b'"\n\n"', b"\xc3\xa9"])
RECORDS = st.lists(st.tuples(st.lists(FIELDS, min_size=2, max_size=3), st.sampled_from([b"\n", b"\r\n", b"\n\n"])))


@given(records=RECORDS, start=st.sampled_from([b"", b"\n", b"\r\n"]), cut=st.integers(0, 2), size=st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_records_are_counted_like_python_counts_them_wherever_a_chunk_ends(
    records: list[tuple[list[bytes], bytes]], start: bytes, cut: int, size: int
) -> None:
    text = start + b"".join(b",".join(fields) + end for fields, end in records)
    text = text[: -cut or None] if text.endswith(b"\n") else text
    plain = text.replace(b" ", b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extent, "_CHUNK", size)
        found = csv_extent("f", lambda: io.BytesIO(text), ",")
        assert found.records == found.recount()
        lines = lines_extent("f", lambda: io.BytesIO(plain))
        assert lines.records == lines.recount()
        assert lines.longest == max(map(len, plain.split(b"\n")))


def test_bytes_that_are_not_utf8_are_quarantined(bring: Bring, file: Any, workspace: Workspace) -> None:
    report = bring(file("latin.csv", HEADER + b"1,a,0.5,1,ok\n2,caf\xe9,0.5,1,ok\n3,b,0.5,1,ok\n"))
    assert (report.rows_kept, reasons(workspace)) == (2, [(3, "the line is broken: invalid encoding")])
    line = b'{"action": "%s", "reward": 1}\n'
    report = bring(file("latin.jsonl", line % b"a" + line % b"caf\xe9" + line % b"b"), log="json")
    assert (report.rows_kept, report.rows_quarantined) == (2, 1)
    with pytest.raises(FileError, match="is in UTF-16"):
        bring(file("wide.csv", HEADER.decode().encode("utf-16")))


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_a_file_that_is_named_gz_and_is_none_is_refused(bring: Bring, file: Any, name: str) -> None:
    with pytest.raises(FileError, match=name):
        bring(file(name, HEADER + b"1,a,0.5,1,ok\n"))


def test_a_byte_order_mark_is_read_over_in_csv_and_refused_in_json_lines(bring: Bring, file: Any) -> None:
    # There DuckDB would take the first line for no JSON.
    mark = b"\xef\xbb\xbf"
    assert bring(file("marked.csv", mark + HEADER + b"1,a,0.5,1,ok\n")).rows_kept == 1
    for name in ("marked.jsonl", "marked.jsonl.gz"):
        text = mark + b'{"action": "a", "reward": 1}\n'
        with pytest.raises(FileError, match=r"begins with a byte order mark. Save it without, .* tail -c \+4"):
            bring(file(name, gzip.compress(text) if name.endswith("gz") else text))


def test_a_quote_that_is_never_closed_says_how_many_lines_it_took(
    bring: Bring, file: Any, workspace: Workspace
) -> None:
    rows = b"".join(b"%d,a,0.5,1,%s\n" % (i, b'"oh' if i == 7 else b"ok") for i in range(10))
    assert bring(file("quote.csv", HEADER + rows)).rows_kept == 7
    assert reasons(workspace) == [(9, "the line is broken: unquoted value, over 3 lines")]


def test_zero_bytes_are_text_like_any_other(bring: Bring, file: Any, workspace: Workspace) -> None:
    assert bring(file("nul.csv", HEADER + b"1,a\x00b,0.5,1,o\x00k\n2,b,0.5,1,ok\n")).rows_kept == 2
    assert read_log(workspace, "l").action_labels == ["a\x00b", "b"]


def test_mixed_types_in_a_column_are_judged_cell_by_cell(bring: Bring, file: Any, workspace: Workspace) -> None:
    bring(file("mixed.csv", HEADER + b"1,1,0.5,1,ok\n2,b,0.5,yes,ok\n3,2.0,half,1e3,7\n"))
    assert reasons(workspace) == [(3, "reward is not a number: yes"), (4, "propensity is not a number: half")]


def test_times_of_other_zones_and_forms_are_one_time_or_named(bring: Bring, file: Any, workspace: Workspace) -> None:
    same = ["2023-11-14T22:13:20Z", "2023-11-14 17:13:20-05:00", "1700000000", "2023-11-14 22:13:20 UTC",
            "2023-11-14 17:13:20 America/New_York", "2023-11-14T22:13:20"]  # fmt: skip
    other = ["14/11/2023 22:13", "Nov 14, 2023", "infinity", "1e300", "3/4/26", "03-04-26", "26-04-03", "20260403",
             "202604031015", "20260403101500", "2026040310", "46025", "1.5"]  # fmt: skip
    rows = [f"{i},a,0.5,1,{time!r}".replace("'", '"') for i, time in enumerate(same + other)]
    header = "decision_id,action,propensity,reward,timestamp\n"
    report = bring(file("times.csv", (header + "\n".join(rows)).encode()))
    assert report.reasons == {"timestamp is not a time": len(other)}
    times = workspace.connection.execute("SELECT DISTINCT epoch(timestamp) FROM decisions").fetchall()
    assert times == [(1_700_000_000,)]


def test_ids_and_labels_may_be_larger_than_any_integer(bring: Bring, file: Any, workspace: Workspace) -> None:
    huge = [str(2**63), str(2**64), str(2**127), "9" * 60]
    rows = "".join(f"{one},{one},0.5,1,ok\n" for one in huge)
    assert bring(file("huge.csv", HEADER + rows.encode())).rows_kept == 4
    log = read_log(workspace, "l")
    assert (log.decision_ids, sorted(log.action_labels)) == (huge, sorted(huge))
    frame = pl.DataFrame({"action": pl.Series([2**64 - 1, 1], dtype=pl.UInt64), "reward": [1, 2]})
    bring(frame, log="unsigned")
    assert read_log(workspace, "unsigned").action_labels == ["1", str(2**64 - 1)]


def test_a_number_with_underscores_is_no_number(bring: Bring, file: Any, workspace: Workspace) -> None:
    bring(file("underscores.csv", HEADER + b"1,a,1_0e-2,1,ok\n2,a,0.5,1_000,ok\n"))
    assert reasons(workspace) == [(2, "propensity is not a number: 1_0e-2"), (3, "reward is not a number: 1_000")]


def test_an_import_that_fails_leaves_no_workspace_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        import_decisions(tmp_path / "none.csv", tmp_path / "new.duckdb", "l")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("label", [str, lambda i: 7 * i, lambda i: f"action {i}"])
def test_a_hundred_thousand_actions_come_in(bring: Bring, workspace: Workspace, label: Callable[[int], Any]) -> None:
    frame = pl.DataFrame({"action": [label(i) for i in range(100_000)], "reward": [1.0] * 100_000})
    assert bring(frame).rows_kept == 100_000
    log = read_log(workspace, "l")
    assert [log.action_labels[action] for action in log.action[:500]] == [str(label(i)) for i in range(500)]


def test_a_log_may_have_one_row_or_rewards_that_are_all_equal(bring: Bring, workspace: Workspace) -> None:
    bring(pl.DataFrame({"action": ["a"], "reward": [1.0], "p": [1.0]}))
    assert len(read_log(workspace, "l").action) == 1
    bring(pl.DataFrame({"action": ["a", "b"] * 50, "reward": [0.25] * 100}), log="equal")
    assert set(read_log(workspace, "equal").reward) == {0.25}


def test_a_frame_with_a_type_that_nobody_reads_is_refused_with_the_mend(bring: Bring) -> None:
    with pytest.raises(InputError, match=r"halffloat.*Cast half precision"):
        bring(pa.table({"action": ["a"], "reward": pa.array([1.5], pa.float16())}))
