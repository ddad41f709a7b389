"""Batch files: what is written is what would be asked, and what comes back is stored once, under the right key."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from counterplay.errors import ConfigurationError, FileError, UnsupportedError
from counterplay.llm.endpoints import batch_results, batches
from counterplay.llm.endpoints.batch_results import ImportReport, import_batch
from counterplay.llm.endpoints.batches import outstanding, write_batch
from counterplay.llm.endpoints.endpoint import Endpoint
from counterplay.llm.prompting.requests import Prompting, Request, generation_request, ranking_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template, load_template
from counterplay.logs import Workspace
from counterplay.logs.outputs import Output, get_outputs, outputs_hash, put_outputs, request_key
from tests.llm.server import chat

ENDPOINT = Endpoint(url="https://api.example.com/v1", key="sk-secret", sampling=Sampling(max_tokens=9))
TEMPLATE = Template(name="desk", source="{% block prompt %}Which desk for {{ text }}?{% endblock %}")


def request_of(word: str, endpoint: Endpoint = ENDPOINT) -> Request:
    return endpoint.request(generation_request(endpoint.identity("parrot"), Prompting(template=TEMPLATE), word))


WORDS = [f"étude {number}" for number in range(7)]
REQUESTS = [request_of(word) for word in WORDS]
KEYS = [request_key(request) for request in REQUESTS]
BY_KEY = dict(zip(KEYS, REQUESTS, strict=True))


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def put(path: Path, lines: Iterable[object], end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + end, encoding="utf-8")
    return path


def openai(key: str, text: str, **fields: Any) -> dict[str, Any]:
    body = chat({"model": "parrot"}, text, ending=fields.pop("ending", "stop"))
    response = {"status_code": 200, "request_id": "r1", "body": body}
    return {"id": "batch_req_1", "custom_id": key, "response": response, "error": None, **fields}


def anthropic(key: str, text: str, reason: str = "end_turn") -> dict[str, Any]:
    message = {
        "id": "msg_1",
        "type": "message",
        "model": "claude-1",
        "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}],
        "stop_reason": reason,
        "usage": {"input_tokens": 11, "output_tokens": 36},
    }
    return {"custom_id": key, "result": {"type": "succeeded", "message": message}}


def gemini(key: str, text: str, reason: str = "STOP") -> dict[str, Any]:
    parts = [{"text": "hm", "thought": True}, {"text": text}]
    response = {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason}],
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 30, "thoughtsTokenCount": 6},
        "modelVersion": "gemini-1",
        "responseId": "g1",
    }
    return {"key": key, "response": response}


def read(workspace: Workspace, *files: Path, requests: Mapping[str, Request] = BY_KEY) -> ImportReport:
    report = import_batch(workspace, files, requests)
    counted = report.answered + report.failed + report.repeated + report.conflicts + report.unknown + report.unreadable
    assert counted == report.lines
    return report


def stored(workspace: Workspace) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    rows = workspace.connection.execute(
        "SELECT key, status, CAST(response AS VARCHAR), CAST(provenance AS VARCHAR) FROM outputs"
    ).fetchall()
    return {key: (status, json.loads(response), json.loads(seen)) for key, status, response, seen in rows}


# Writing


def test_a_batch_holds_each_request_once_under_its_key(tmp_path: Path) -> None:
    report = write_batch(tmp_path / "out", [*REQUESTS, *REQUESTS[:3]], ENDPOINT)
    assert (report.requests, report.shards) == (7, ("batch-0001.jsonl",))
    lines = lines_of(tmp_path / "out" / "batch-0001.jsonl")
    assert [line["custom_id"] for line in lines] == KEYS
    assert all(len(line["custom_id"]) == 64 for line in lines)
    assert lines[2] == {
        "custom_id": KEYS[2],
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "parrot",
            "messages": [{"role": "user", "content": "Which desk for étude 2?"}],
            "n": 1,
            "temperature": 0.0,
            "top_p": 1.0,
            "max_tokens": 9,
            "stop": ["\n"],
            "logprobs": True,
        },
    }


def test_the_body_is_the_one_that_would_be_sent(tmp_path: Path) -> None:
    completions = Endpoint(url="https://api.example.com/v1", chat=False)
    request = request_of("a cold", completions)
    write_batch(tmp_path / "out", [request], completions)
    (line,) = lines_of(tmp_path / "out" / "batch-0001.jsonl")
    path, body = completions.body(request)
    assert (line["url"], line["body"]) == (f"/v1{path}", body)


def test_shards_end_at_so_many_lines_or_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = write_batch(tmp_path / "lines", REQUESTS, ENDPOINT, lines=3)
    sizes = [len(lines_of(tmp_path / "lines" / name)) for name in report.shards]
    assert (report.shards, sizes) == (tuple(f"batch-{n:04}.jsonl" for n in (1, 2, 3)), [3, 3, 1])
    length = (tmp_path / "lines" / "batch-0003.jsonl").stat().st_size
    monkeypatch.setattr(batches, "SHARD_BYTES", 2 * length)
    report = write_batch(tmp_path / "bytes", REQUESTS, ENDPOINT)
    assert [len(lines_of(tmp_path / "bytes" / name)) for name in report.shards] == [2, 2, 2, 1]
    monkeypatch.setattr(batches, "SHARD_BYTES", 1)
    assert len(write_batch(tmp_path / "one", REQUESTS, ENDPOINT).shards) == 7


def test_the_manifest_says_what_was_asked(tmp_path: Path) -> None:
    write_batch(tmp_path / "out", REQUESTS, ENDPOINT, lines=4)
    text = (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")
    manifest = json.loads(text)
    assert "sk-secret" not in text
    assert (manifest["requests"], manifest["address"]) == (7, "https://api.example.com/v1")
    assert manifest["common"]["sampling"] == REQUESTS[0]["sampling"]
    assert (manifest["common"]["model"], manifest["common"]["template"]) == ("parrot", TEMPLATE.sha256)
    assert "messages" not in manifest["common"]
    for shard in manifest["shards"]:
        content = (tmp_path / "out" / shard["file"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
        assert (shard["lines"], shard["bytes"]) == (content.count(b"\n"), len(content))


def test_only_what_is_not_settled_is_written(workspace: Workspace, tmp_path: Path) -> None:
    made = [
        Output(request=request, response={"texts": ["x"]}, status=status, provenance={})
        for request, status in zip(REQUESTS, ("ok", "error", "truncated", "refused"), strict=False)
    ]
    put_outputs(workspace.connection, made)
    assert list(outstanding(workspace.connection, REQUESTS)) == [KEYS[1], *KEYS[4:]]
    report = write_batch(tmp_path / "out", outstanding(workspace.connection, REQUESTS).values(), ENDPOINT)
    assert report.requests == 4
    assert [line["custom_id"] for line in lines_of(tmp_path / "out" / "batch-0001.jsonl")] == [KEYS[1], *KEYS[4:]]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    write_batch(tmp_path / "out", REQUESTS, ENDPOINT)
    before = sorted(path.read_bytes() for path in (tmp_path / "out").iterdir())
    with pytest.raises(FileError, match="is there already"):
        write_batch(tmp_path / "out", REQUESTS[:1], ENDPOINT)
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="is there already"):
        write_batch(tmp_path / "file", REQUESTS, ENDPOINT)
    (tmp_path / "empty").mkdir()
    assert write_batch(tmp_path / "empty", REQUESTS, ENDPOINT).requests == 7


def test_a_batch_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    ranking = ranking_request(
        ENDPOINT.identity("parrot"), Prompting(template=load_template("triage")), "a cold", ["infections"]
    )
    with pytest.raises(UnsupportedError, match="loglikelihood"):
        write_batch(tmp_path / "out", [*REQUESTS, ranking], ENDPOINT)
    report = write_batch(tmp_path / "out", [], ENDPOINT)
    assert (report.requests, report.shards, str(report)[:7]) == (0, (), "Nothing")
    with pytest.raises(ConfigurationError, match="0 lines"):
        write_batch(tmp_path / "out", REQUESTS, ENDPOINT, lines=0)
    assert list(tmp_path.iterdir()) == []


# Reading


@pytest.mark.parametrize(("dialect", "line"), [("openai", openai), ("anthropic", anthropic), ("gemini", gemini)])
def test_every_dialect_is_read(workspace: Workspace, tmp_path: Path, dialect: str, line: Any) -> None:
    report = read(workspace, put(tmp_path / "results.jsonl", [line(key, f" desk {key[:4]} ") for key in KEYS]))
    assert (report.lines, report.answered, report.remarks) == (7, 7, [])
    status, response, seen = stored(workspace)[KEYS[3]]
    assert (status, response["texts"]) == ("ok", [f"desk {KEYS[3][:4]}"])
    assert (seen["provenance"], seen["dialect"], seen["file"]) == ("imported", dialect, "results.jsonl")
    usage = {"prompt_tokens": 11, "completion_tokens": 36}
    assert seen["usage"] == (usage if dialect != "openai" else {"prompt_tokens": 7, "completion_tokens": 2})
    assert set(get_outputs(workspace.connection, KEYS)) == set(KEYS)


def error_of(key: str, code: int, message: str) -> dict[str, Any]:
    body = {"error": {"code": str(code), "message": message}}
    return {"custom_id": key, "response": {"status_code": code, "body": body}, "error": None}


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        (openai(KEYS[0], "half", ending="length"), "truncated", None),
        (anthropic(KEYS[0], "half", "max_tokens"), "truncated", None),
        (gemini(KEYS[0], "half", "MAX_TOKENS"), "truncated", None),
        (openai(KEYS[0], "", ending="content_filter"), "refused", None),
        (anthropic(KEYS[0], "no", "refusal"), "refused", None),
        (gemini(KEYS[0], "no", "SAFETY"), "refused", None),
        ({"key": KEYS[0], "response": {"promptFeedback": {"blockReason": "SAFETY"}}}, "refused", "blocked: SAFETY"),
        ({"key": KEYS[0], "response": {"candidates": [{"finishReason": "SAFETY"}]}}, "refused", None),
        (error_of(KEYS[0], 500, "server"), "error", "500: server"),
        # The line of OpenAI's error file, and of an expired batch.
        ({**error_of(KEYS[0], 400, "too long"), "error": {"code": "bad", "message": "x"}}, "error", "bad: x"),
        ({"custom_id": KEYS[0], "response": None, "error": {"code": "batch_expired", "message": "late"}},
         "error", "batch_expired: late"),
        # vLLM's run_batch puts the whole answer into the error.
        ({"custom_id": KEYS[0], "response": {"status_code": 400, "request_id": "r", "body": None},
          "error": {"error": {"message": "not supported", "type": "BadRequestError", "code": 400}}},
         "error", "BadRequestError: 400: not supported"),
        ({"custom_id": KEYS[0], "result": {"type": "expired"}}, "error", "expired"),
        ({"custom_id": KEYS[0], "result": {"type": "errored", "error": {"type": "error", "error": {
            "type": "invalid_request_error", "message": "no"}}}}, "error", "invalid_request_error: no"),
        (anthropic(KEYS[0], "x", "tool_use"), "error", "'tool_use'"),
        ({"key": KEYS[0], "error": {"code": 13, "message": "internal"}}, "error", "13: internal"),
        ({"key": KEYS[0], "response": {}, "status": "Bad Request: 400"}, "error", "Bad Request: 400"),
        ({"custom_id": KEYS[0], "response": {"status_code": 200, "body": {"output": []}}}, "error", "'choices'"),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_kept_with_its_status(
    workspace: Workspace, tmp_path: Path, line: object, status: str, words: str | None
) -> None:
    report = read(workspace, put(tmp_path / "errors.jsonl", [line]))
    assert (report.answered, report.failed) == (0, 1)
    found, response, _ = stored(workspace)[KEYS[0]]
    assert found == status
    assert words is None or words in response["error"]
    assert get_outputs(workspace.connection, KEYS) == {}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_and_the_cutting_into_files_do_not_matter(
    workspace: Workspace, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_results, "_CHUNK", 2)
    lines = [openai(key, f"desk {key[:4]}") for key in KEYS] + [error_of(key, 500, "server") for key in KEYS[:4]]
    lines += lines[:3]
    random.Random(seed).shuffle(lines)
    files = [put(tmp_path / f"{i}.jsonl", lines[i::3]) for i in range(3)]
    report = read(workspace, *files)
    assert (report.lines, report.answered, report.conflicts) == (14, 7, 0)
    assert {key: response["texts"] for key, (_, response, _) in stored(workspace).items()} == {
        key: [f"desk {key[:4]}"] for key in KEYS
    }


def test_a_second_import_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    lines = [openai(key, "desk") for key in KEYS[:4]] + [error_of(KEYS[4], 500, "server")]
    file = put(tmp_path / "results.jsonl", lines)
    read(workspace, file)
    before, digest = stored(workspace), outputs_hash(workspace.connection)
    put_away = file.rename(tmp_path / "again.jsonl")
    again = read(workspace, put_away)
    assert (again.answered, again.failed, again.repeated, again.remarks) == (0, 0, 5, [])
    assert (stored(workspace), outputs_hash(workspace.connection)) == (before, digest)


def test_a_failure_gives_way_to_an_answer_and_never_the_other_way(workspace: Workspace, tmp_path: Path) -> None:
    bad = put(tmp_path / "bad.jsonl", [error_of(KEYS[0], 500, "server")])
    good = put(tmp_path / "good.jsonl", [openai(KEYS[0], "desk")])
    assert read(workspace, bad).failed == 1
    assert read(workspace, good).answered == 1
    assert read(workspace, bad).repeated == 1
    assert stored(workspace)[KEYS[0]][0] == "ok"


@pytest.mark.parametrize("together", [True, False])
def test_of_two_answers_the_first_stays_and_the_conflict_is_named(
    workspace: Workspace, tmp_path: Path, together: bool
) -> None:
    lines = [openai(KEYS[0], "the first"), openai(KEYS[0], "another")]
    if together:
        report = read(workspace, put(tmp_path / "both.jsonl", lines))
        place = "both.jsonl, line 2"
    else:
        read(workspace, put(tmp_path / "one.jsonl", lines[:1]))
        report = read(workspace, put(tmp_path / "two.jsonl", lines[1:]))
        place = "two.jsonl, line 1"
    assert report.conflicts == 1
    assert place in report.remarks[0]
    assert KEYS[0] in report.remarks[0]
    assert stored(workspace)[KEYS[0]][1]["texts"] == ["the first"]


def test_an_unknown_id_is_named_and_never_stored(workspace: Workspace, tmp_path: Path) -> None:
    lines = [openai("request-1", "x"), openai("f" * 64, "x"), openai(KEYS[0], "desk"), openai(KEYS[1], "desk")]
    report = read(workspace, put(tmp_path / "r.jsonl", lines), requests={KEYS[0]: REQUESTS[0]})
    assert (report.unknown, report.answered) == (3, 1)
    assert "line 1: 'request-1' was not asked for" in report.remarks[0]
    assert set(stored(workspace)) == {KEYS[0]}
    assert "3 of requests that were not asked for" in str(report)


def test_a_last_line_that_is_torn_is_tolerated_and_others_are_refused_by_number(
    workspace: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "r.jsonl"
    whole = [json.dumps(openai(key, "desk é")).encode() for key in KEYS[:2]]
    last = json.dumps(openai(KEYS[2], "dé"), ensure_ascii=False).encode()
    cut = last[: last.index("é".encode()) + 1]  # in the middle of a character
    file.write_bytes(b"\n".join([whole[0], b"{torn", b"", b"[1]", b"null", b'{"custom_id": 7}', whole[1], cut]))
    report = read(workspace, file)
    assert (report.answered, report.unreadable, report.torn) == (2, 4, 1)
    assert [remark.split(": ")[0].rsplit(" ", 1)[1] for remark in report.remarks] == ["2", "4", "5", "6", "8"]
    # The whole file, when it has come, adds what was missing.
    file.write_bytes(b"\n".join([*whole, last]))
    report = read(workspace, file)
    assert (report.answered, report.repeated, report.torn) == (1, 2, 0)


def test_a_known_id_with_nothing_known_about_it_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    lines = [{"custom_id": KEYS[0], "answer": "x"}, openai(KEYS[1], "desk")]
    report = read(workspace, put(tmp_path / "r.jsonl", lines))
    assert (report.unreadable, report.answered) == (1, 1)
    assert "neither a response nor an error" in report.remarks[0]


def test_what_is_no_file_of_results_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no file of results"):
        read(workspace, tmp_path / "absent.jsonl")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match=r"No line of .*table.csv is a result.*line 1: no JSON"):
        read(workspace, tmp_path / "table.csv")
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 64)
    with pytest.raises(FileError, match="No line of"):
        read(workspace, tmp_path / "weights.bin")
    (tmp_path / "empty.jsonl").write_text("")
    assert read(workspace, tmp_path / "empty.jsonl").lines == 0


def test_an_absent_file_is_found_before_anything_is_stored(workspace: Workspace, tmp_path: Path) -> None:
    good = put(tmp_path / "good.jsonl", [openai(KEYS[0], "desk")])
    with pytest.raises(FileError, match="absent"):
        read(workspace, good, tmp_path / "absent.jsonl")
    assert stored(workspace) == {}


def test_a_line_without_end_is_refused(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_results, "_LONGEST_LINE", 1000)
    (tmp_path / "r.jsonl").write_bytes(b"x" * 5000)
    with pytest.raises(FileError, match=r"Line 1 of .* is longer than 1,000 bytes"):
        read(workspace, tmp_path / "r.jsonl")


def test_an_import_that_was_stopped_goes_on(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_results, "_CHUNK", 2)
    file = put(tmp_path / "r.jsonl", [openai(key, "desk") for key in KEYS])

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_batch(workspace, [file], BY_KEY, tick=stop)
    assert len(stored(workspace)) == 2
    report = import_batch(workspace, [file], BY_KEY)
    assert (report.repeated, report.answered) == (2, 5)


def test_a_long_file_is_never_in_memory(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_results, "_CHUNK", 100)
    file = put(tmp_path / "r.jsonl", [openai(KEYS[0], "desk " * 100)] * 1500)
    tracemalloc.start()
    try:
        report = read(workspace, file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.repeated == 1499
    assert file.stat().st_size > 5e6
    assert peak < 1e6


def test_what_is_written_comes_back(workspace: Workspace, tmp_path: Path) -> None:
    report = write_batch(tmp_path / "out", outstanding(workspace.connection, REQUESTS).values(), ENDPOINT)

    def answered(lines: Sequence[Any]) -> list[Any]:
        return [openai(line["custom_id"], line["body"]["messages"][-1]["content"].upper()) for line in lines]

    done = [
        put(tmp_path / f"result-{name}", answered(lines_of(report.folder / name))) for name in reversed(report.shards)
    ]
    import_batch(workspace, done, BY_KEY)
    said = get_outputs(workspace.connection, KEYS)
    assert [said[key]["texts"] for key in KEYS] == [[f"WHICH DESK FOR {word.upper()}?"] for word in WORDS]
    assert not outstanding(workspace.connection, REQUESTS)
