"""A cache is counted, and checked against itself."""

from __future__ import annotations

import pytest

from counterplay.logs import Workspace
from counterplay.logs.outputs import (
    Output,
    canonical_json,
    find_damaged_outputs,
    get_outputs,
    put_outputs,
    remove_outputs,
    survey_outputs,
)
from tests.logs.outputs import output, request


def test_a_cache_that_nobody_touched_is_not_damaged(workspace: Workspace) -> None:
    odd = {"a/b~'c": [1e300, 1.5e-9, -0.0, 2**70], "ü": "\u2028 \x00", "nested": {"z": None, "a": True}}
    put_outputs(workspace.connection, [output(), output("error", sample_index=1), output(**odd)])
    assert list(find_damaged_outputs(workspace.connection)) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (f"request = '{canonical_json(request(seed=1))}'", "the key does not belong to the request"),
        ("request = json_object('operation', 'x')", "the key does not belong to the request"),
        ("request = '[1]'", "request is no JSON object"),
        ("response = '{\"b\": 1}'", "response is not in its canonical form"),
        ('response = \'{"b":1,"a":1}\'', "response is not in its canonical form"),
        ("model = 'n'", "model is 'n', but not in the request"),
        ("operation = ''", "operation is ''"),
        ("status = ''", "status"),
        ("provenance = '1'", "provenance is no JSON object"),
        (f"key = '{'0' * 64}'", "the key does not belong to the request"),
    ],
)
def test_a_row_that_was_changed_is_found_and_can_be_removed(workspace: Workspace, change: str, says: str) -> None:
    put_outputs(workspace.connection, [output(sample_index=index) for index in range(20)])
    key = output(sample_index=7).key
    workspace.connection.execute(f"UPDATE outputs SET {change} WHERE key = '{key}'")
    (found,) = find_damaged_outputs(workspace.connection)
    assert says in found.fault
    assert found.key == (key if "key = " not in change else "0" * 64)
    assert remove_outputs(workspace.connection, [found.key]) == 1
    assert remove_outputs(workspace.connection, [found.key]) == 0
    assert list(find_damaged_outputs(workspace.connection)) == []
    assert len(get_outputs(workspace.connection, [output(sample_index=index).key for index in range(20)])) == 19


def made(day: int, tokens: int | None, status: str = "ok", **changes: object) -> Output:
    usage = {"prompt_tokens": tokens, "completion_tokens": 2}
    counted = {"usage": usage} if day % 2 else {"input_tokens": tokens, "output_tokens": 2}
    said = {} if tokens is None else {**counted, "cost": tokens / 1000}
    provenance = {"date": f"2026-11-{day:02}", **said}
    return Output(request=request(**changes), response={}, status=status, provenance=provenance)


def test_outputs_are_counted_by_model_revision_operation_and_status(workspace: Workspace) -> None:
    outputs = [
        made(3, 10, revision="r"),
        made(2, 20, revision="r", sample_index=1),
        made(2, None, "error", sample_index=2),
    ]
    put_outputs(workspace.connection, [*outputs, made(4, None, model="n")])
    found = survey_outputs(workspace.connection)
    assert [(group.model, group.revision, group.status, group.outputs) for group in found.groups] == [
        ("m", "r", "ok", 2), ("m", None, "error", 1), ("n", None, "ok", 1),
    ]  # fmt: skip
    first = found.groups[0]
    assert (first.first, first.last) == ("2026-11-02", "2026-11-03")
    assert (first.input_tokens, first.output_tokens, first.cost) == (30, 4, pytest.approx(0.03))
    assert (found.groups[1].input_tokens, found.groups[1].cost) == (None, None)
    assert found.outputs == 4
    texts = [canonical_json(part) for one in outputs[:2] for part in (one.request, one.response, one.provenance)]
    assert first.bytes == sum(len(text.encode()) for text in texts)


def test_prompts_that_were_asked_under_several_settings_are_counted(workspace: Workspace) -> None:
    put_outputs(
        workspace.connection,
        [
            output(sampling={"temperature": 0}),
            output(sampling={"temperature": 1}),
            output(sampling={"temperature": 1}, sample_index=1),
            output(prompts=["c"]),
            output(prompts=["d"], dtype="float32"),
            output(prompts=["d"], dtype="bfloat16"),
            output(prompts=["d"], operation="other"),
        ],
    )
    repeated = survey_outputs(workspace.connection).repeated
    assert (repeated.prompts, repeated.outputs, repeated.looked_at) == (2, 5, 2)
    assert repeated.fields == {"dtype": 1, "sample_index": 1, "sampling.temperature": 1}


def test_an_empty_cache_has_nothing_to_count(workspace: Workspace) -> None:
    found = survey_outputs(workspace.connection)
    assert (found.groups, found.outputs, found.repeated.prompts, found.repeated.fields) == ((), 0, 0, {})
