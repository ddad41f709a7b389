"""The cache: keys that mean the whole request, outputs that are only served when they are good."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.errors import InputError
from counterplay.logs import Workspace
from counterplay.logs.outputs import (
    Output,
    canonical_json,
    explain_miss,
    get_draws,
    get_outputs,
    outputs_hash,
    put_outputs,
    request_key,
    served_keys,
)
from counterplay.logs.outputs.canonical import canonical_object
from tests.logs.outputs import output, request

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-1000, 1000) | st.floats(-10, 10, allow_nan=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
REQUESTS = st.dictionaries(TEXT, VALUES, max_size=5)


@given(REQUESTS)
def test_the_order_of_the_fields_does_not_matter(fields: dict[str, Any]) -> None:
    assert request_key(dict(reversed(list(fields.items())))) == request_key(fields)


@given(REQUESTS)
def test_the_canonical_text_is_json_and_its_own_canonical_text(fields: dict[str, Any]) -> None:
    text = canonical_json(fields)
    assert json.loads(text) == fields
    assert canonical_json(json.loads(text)) == text


@given(REQUESTS)
def test_a_text_that_is_read_again_has_the_canonical_text_of_its_value(fields: dict[str, Any]) -> None:
    value, text = canonical_object(json.dumps(fields, indent=1))
    assert (value, text) == (fields, canonical_json(fields))


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


def test_a_request_says_what_it_asks_of_which_model(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="'model'"):
        put_outputs(workspace.connection, [Output(request={"operation": "x"}, response={}, provenance={})])


def test_the_hash_of_a_cache_does_not_know_the_order_in_which_it_was_filled(workspace: Workspace) -> None:
    hashes = []
    for values in ([output(), output(sample_index=1)], [output(sample_index=1), output()]):
        workspace.connection.execute("DELETE FROM outputs")
        put_outputs(workspace.connection, values)
        hashes.append(outputs_hash(workspace.connection))
    assert hashes[0] == hashes[1]


def test_the_draws_of_a_request_are_looked_up_together(workspace: Workspace) -> None:
    drawn = [output(sample_index=index, value=-float(index)) for index in (0, 1, 3)]
    put_outputs(workspace.connection, [*drawn, output("truncated", sample_index=2), output(sample_index=1, seed=1)])
    found = get_draws(workspace.connection, request(sample_index=7), 5)
    assert found == [{"logprobs": [0]}, {"logprobs": [-1]}, None, {"logprobs": [-3]}, None]
    assert get_draws(workspace.connection, request(), 1) == [{"logprobs": [0]}]
    with pytest.raises(InputError, match="0 draws"):
        get_draws(workspace.connection, request(), 0)


def test_keys_are_looked_up_in_a_list(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(), output("error", sample_index=1)])
    keys = [output().key, output(sample_index=1).key, output(sample_index=2).key]
    assert served_keys(workspace.connection, keys * 2) == {keys[0]}
    assert served_keys(workspace.connection, []) == set()
    with pytest.raises(InputError, match="in a list"):
        get_outputs(workspace.connection, keys[0])
    with pytest.raises(InputError, match="status"):
        put_outputs(workspace.connection, [output("")])
