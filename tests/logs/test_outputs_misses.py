"""A miss is explained by the nearest request, in the words of the person who asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from counterplay.logs import Workspace
from counterplay.logs.outputs import Output, canonical_json, explain_miss, misses, put_outputs
from counterplay.logs.outputs.differences import differences, shared_beginning
from tests.logs.outputs import output, request

LONG = "Category: injuries of the limbs, of bones and of joints, but not of the hand or the foot. Diagnosis: {}"


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


def sampling(**changes: Any) -> dict[str, Any]:
    return {"max_tokens": 24, "temperature": 0, "stop": ["\n"], **changes}


def test_the_field_of_a_nested_object_is_named_and_not_the_whole_object(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(sampling=sampling(max_tokens=32, top_p=1))])
    miss = explain_miss(workspace.connection, request(sampling=sampling()))
    assert dict(miss.fields) == {"sampling.max_tokens": (24, 32), "sampling.top_p": (None, 1)}
    assert str(miss).endswith(
        "differs in sampling.max_tokens: asked 24, stored 32; sampling.top_p: asked nothing, stored 1."
    )


def test_of_two_long_texts_the_place_is_shown_where_they_begin_to_differ(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(prompts=["a", LONG.format("a broken arm, closed")])])
    text = str(explain_miss(workspace.connection, request(prompts=["a", LONG.format("a broken leg, closed")])))
    place = len(LONG) - 2 + len("a broken ") + 1
    assert f"prompts[1], from character {place} on: asked" in text
    assert "broken leg, closed" in text
    assert "broken arm, closed" in text
    assert "Category" not in text


def test_of_many_texts_that_differ_the_first_is_shown_and_the_others_counted(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(prompts=["a", "b", "c"])])
    text = str(explain_miss(workspace.connection, request(prompts=["a", "x", "y"])))
    assert 'prompts[1]: asked "x", stored "b" (and 1 more in it)' in text


def test_five_other_prompts_are_one_change_and_two_other_settings_are_two(workspace: Workspace) -> None:
    texts, settings = output(prompts=["c", "d"]), output(dtype="bfloat16", seed=1)
    put_outputs(workspace.connection, [texts, settings])
    assert explain_miss(workspace.connection, request()).nearest == texts.key


def test_null_is_not_absent_and_true_is_not_one(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output(adapter=None, echo=True)])
    miss = explain_miss(workspace.connection, request(echo=1))
    assert str(miss).endswith("adapter: asked nothing, stored null; echo: asked 1, stored true.")


def test_a_request_that_is_stored_and_good_is_no_miss(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output()])
    miss = explain_miss(workspace.connection, request())
    assert (miss.nearest, miss.differences, miss.status) == (output().key, (), "ok")
    assert "is served" in str(miss)


def test_a_miss_of_another_operation_finds_nothing_near(workspace: Workspace) -> None:
    put_outputs(workspace.connection, [output()])
    assert explain_miss(workspace.connection, request(operation="generate")).nearest is None
    assert explain_miss(workspace.connection, {}).nearest is None


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "bfloat16"},
        {"template": "changed", "tokenizer": "changed"},
        {"prompts": ["Label 77, text 77 ", "and 77"]},
        {"adapter": "lora", "prompts": ["Label 77, text 77", "and the number 77"]},
    ],
)
def test_in_a_large_cache_texts_alone_find_what_comparing_all_finds(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    def made(i: int) -> dict[str, Any]:
        prompts = [f"Label {i}, text {i}", f"and the number {i}"]
        return request(adapter=None, prompts=prompts, template="t", tokenizer="z")

    put_outputs(workspace.connection, [Output(request=made(i), response={}, provenance={}) for i in range(300)])
    asked = {**made(77), **changes}
    everything = explain_miss(workspace.connection, asked)
    monkeypatch.setattr(misses, "_COMPARED", 5)
    assert explain_miss(workspace.connection, asked) == everything
    assert set(everything.fields) <= {*changes, "prompts[0]", "prompts[1]"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.text("ab", max_size=2), JSON, max_size=4)


@given(OBJECTS, OBJECTS)
def test_two_requests_differ_in_nothing_exactly_if_they_are_one(asked: dict[str, Any], stored: dict[str, Any]) -> None:
    found = differences(asked, stored)
    assert (not found) == (canonical_json(asked) == canonical_json(stored))
    back = differences(stored, asked)
    assert [(one.field, one.asked, one.in_asked) for one in found] == [
        (one.field, one.stored, one.in_stored) for one in back
    ]


@given(st.text("ab"), st.text("ab"))
def test_the_shared_beginning_ends_at_the_first_difference(left: str, right: str) -> None:
    count = shared_beginning(left, right)
    assert left[:count] == right[:count]
    assert left[count : count + 1] != right[count : count + 1] or left == right
