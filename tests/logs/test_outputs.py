"""The cache: keys that mean the whole request, outputs that are only served when they are good, misses that explain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.errors import FileError, InputError
from counterplay.logs import Workspace
from counterplay.logs.outputs import (
    Output,
    canonical_json,
    explain_miss,
    export_outputs,
    get_outputs,
    import_outputs,
    outputs_hash,
    put_outputs,
    request_key,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10, allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
REQUESTS = st.dictionaries(TEXT, VALUES, max_size=5)


def request(**changes: Any) -> dict[str, Any]:
    return {"operation": "loglikelihood", "model": "m", "dtype": "float32", "prompts": ["a", "b"], **changes}


def output(status: str = "ok", value: float = -1.5, **changes: Any) -> Output:
    return Output(request=request(**changes), response={"logprobs": [value]}, status=status, provenance={"date": "d"})


@given(REQUESTS)
def test_the_order_of_the_fields_does_not_matter(fields: dict[str, Any]) -> None:
    assert request_key(dict(reversed(list(fields.items())))) == request_key(fields)


@given(REQUESTS)
def test_the_canonical_text_is_json_and_its_own_canonical_text(fields: dict[str, Any]) -> None:
    text = canonical_json(fields)
    assert json.loads(text) == fields
    assert canonical_json(json.loads(text)) == text


@given(REQUESTS, TEXT, VALUES)
def test_any_change_of_a_field_changes_the_key(fields: dict[str, Any], name: str, value: Any) -> None:
    changed = {**fields, name: value}
    same = name in fields and canonical_json(fields[name]) == canonical_json(value)
    assert (request_key(changed) == request_key(fields)) == same


def test_one_number_has_one_key_and_a_truth_value_is_no_number() -> None:
    assert request_key({"temperature": 0}) == request_key({"temperature": 0.0}) == request_key({"temperature": -0.0})
    assert request_key({"echo": 1}) != request_key({"echo": True})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: "a"}, "\ud800", {"a": [b"bytes"]}])
def test_what_json_cannot_say_in_one_way_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="request"):
        request_key({"field": value})


def test_an_output_is_served_under_the_key_of_its_request(workspace: Workspace) -> None:
    assert put_outputs(workspace.connection, [output(), output(sample_index=1, value=-2.0), output()]) == 2
    assert put_outputs(workspace.connection, [output()]) == 0
    found = get_outputs(workspace.connection, [request_key(request()), request_key(request(model="other"))])
    assert found == {request_key(request()): {"logprobs": [-1.5]}}


@pytest.mark.parametrize("status", ["error", "truncated", "refused"])
def test_what_is_not_ok_is_never_served_and_gives_way_to_what_is(workspace: Workspace, status: str) -> None:
    key = request_key(request())
    put_outputs(workspace.connection, [output(status)])
    assert get_outputs(workspace.connection, [key]) == {}
    assert status in str(explain_miss(workspace.connection, request()))
    put_outputs(workspace.connection, [output(value=-3.0), output(status)])
    assert get_outputs(workspace.connection, [key]) == {key: {"logprobs": [-3]}}
    put_outputs(workspace.connection, [output(status), output(value=-4.0)])
    assert get_outputs(workspace.connection, [key]) == {key: {"logprobs": [-3]}}


def test_a_miss_is_explained_by_the_nearest_request(workspace: Workspace) -> None:
    near, far = output(dtype="bfloat16"), output(dtype="bfloat16", model="n", prompts=["c"])
    put_outputs(workspace.connection, [far, near])
    miss = explain_miss(workspace.connection, request())
    assert (miss.nearest, dict(miss.fields)) == (near.key, {"dtype": ("float32", "bfloat16")})
    assert 'differs in dtype: asked "float32", stored "bfloat16"' in str(miss)


def test_a_miss_names_fields_that_only_one_of_the_two_has(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(adapter="lora")])
    assert dict(explain_miss(workspace.connection, request(seed=1)).fields) == {
        "adapter": (None, "lora"),
        "seed": (1, None),
    }


def test_names_with_slashes_and_quotes_are_only_names(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(**{"a/b~'c": 1})])
    assert dict(explain_miss(workspace.connection, request(**{"a/b~'c": 2})).fields) == {"a/b~'c": (2, 1)}


def test_a_miss_in_an_empty_cache_says_what_to_run(workspace: Workspace) -> None:
    miss = explain_miss(workspace.connection, request())
    assert miss.nearest is None
    assert "counterplay generate" in str(miss)


def test_a_request_says_what_it_asks_of_which_model(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="'model'"):
        put_outputs(workspace.connection, [Output(request={"operation": "x"}, response={}, provenance={})])


def test_a_cache_goes_through_a_file_unchanged(workspace: Workspace, tmp_path: Path) -> None:
    put_outputs(workspace.connection, [output(), output("error", sample_index=1), output(prompts=["ü", "'"])])
    before = outputs_hash(workspace.connection)
    assert export_outputs(workspace.connection, tmp_path / "cache.parquet") == 3
    workspace.connection.execute("DELETE FROM outputs")
    assert outputs_hash(workspace.connection) != before
    assert import_outputs(workspace.connection, tmp_path / "cache.parquet") == 3
    assert import_outputs(workspace.connection, tmp_path / "cache.parquet") == 0
    assert outputs_hash(workspace.connection) == before
    assert get_outputs(workspace.connection, [request_key(request(sample_index=1))]) == {}


def test_the_hash_of_a_cache_does_not_know_the_order_in_which_it_was_filled(workspace: Workspace) -> None:
    hashes = []
    for values in ([output(), output(sample_index=1)], [output(sample_index=1), output()]):
        workspace.connection.execute("DELETE FROM outputs")
        put_outputs(workspace.connection, values)
        hashes.append(outputs_hash(workspace.connection))
    assert hashes[0] == hashes[1]


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
