"""A model behind an address: what is asked, what is understood, what is asked again, and what never is."""

from __future__ import annotations

import email.utils
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from counterplay.errors import ConfigurationError, MissingOutputError, UnsupportedError
from counterplay.llm.endpoints import endpoint as module
from counterplay.llm.endpoints.asking import Asked, ask_endpoint
from counterplay.llm.endpoints.endpoint import Endpoint, endpoint_from_environment
from counterplay.llm.endpoints.protocol import wire_body
from counterplay.llm.endpoints.transport import retry_after
from counterplay.llm.prompting.requests import Prompting, Request, generation_request, ranking_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template, load_template
from counterplay.logs import Workspace, open_workspace
from counterplay.logs.outputs import Output, get_outputs, put_outputs, request_key
from tests.llm.server import Body, ModelServer, Trouble, chat, serving, texts_of

KEY = "sk-very-secret-0123456789"
TEMPLATE = Template(
    name="desk",
    source="{% block preamble %}Name the desk.\n{% endblock %}{% block prompt %}{{ text }}{% endblock %}",
)
WORDS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay", "kea", "lynx")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


def endpoint_of(server: ModelServer, **fields: Any) -> Endpoint:
    return Endpoint(url=server.url, **{"key": KEY, "provider": "test", "backoff": 0.01, "timeout": 5.0, **fields})


def requests_of(endpoint: Endpoint, *words: str, best: int = 1) -> list[Request]:
    identity = endpoint.identity("parrot")
    return [
        endpoint.request(generation_request(identity, Prompting(template=TEMPLATE), word, best=best)) for word in words
    ]


def ask(endpoint: Endpoint, *words: str, best: int = 1) -> list[Output]:
    outputs: list[Output] = []
    endpoint.ask(requests_of(endpoint, *words, best=best), outputs.extend)
    return outputs


def ask_one(server: ModelServer, word: str = "ant", **fields: Any) -> Output:
    (output,) = ask(endpoint_of(server, **fields), word)
    return output


def count(workspace: Workspace, status: str = "ok") -> int:
    rows = workspace.connection.execute("SELECT count(*) FROM outputs WHERE status = ?", [status]).fetchall()
    return int(rows[0][0])


# What is asked


def test_a_chat_is_asked_with_the_preamble_as_its_system_message(server: ModelServer) -> None:
    output = ask_one(server, sampling=Sampling(seed=7, top_p=0.9, temperature=0.5))
    path, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "parrot",
        "messages": [{"role": "system", "content": "Name the desk.\n"}, {"role": "user", "content": "ant"}],
        "n": 1,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "max_tokens": 24,
        "stop": ["\n"],
        "logprobs": True,
    }
    assert output.request["chat_template"] == "server"


def test_a_template_without_a_preamble_sends_no_system_message(server: ModelServer) -> None:
    endpoint = endpoint_of(server)
    plain = Template(name="plain", source="{% block prompt %}{{ text }}{% endblock %}")
    _, body = endpoint.body(
        endpoint.request(generation_request(endpoint.identity("parrot"), Prompting(template=plain), "ant"))
    )
    assert body["messages"] == [{"role": "user", "content": "ant"}]


def test_a_completion_is_asked_with_preamble_and_prompt_as_one_text(server: ModelServer) -> None:
    server.reply = lambda *_: {
        "choices": [
            {"index": 0, "text": " ANT ", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.25, -0.5]}}
        ]
    }
    output = ask_one(server, chat=False, sampling=Sampling(stop=(), logprobs=True))
    path, body = server.asked[0]
    assert (path, body["prompt"], body["logprobs"]) == ("/v1/completions", "Name the desk.\nant", 1)
    assert "stop" not in body
    assert output.response == {"texts": ["ANT"], "logprobs": [-0.75], "tokens": [2]}


def test_openais_own_service_is_given_the_new_name_of_max_tokens() -> None:
    endpoint = Endpoint(url="https://api.openai.com/v1/")
    _, body = endpoint.body(requests_of(endpoint, "ant")[0])
    assert (body["max_completion_tokens"], "max_tokens" in body) == (24, False)
    assert (endpoint.url, endpoint.provider) == ("https://api.openai.com/v1", "api.openai.com")


def test_whatever_changes_the_body_changes_the_key_and_nothing_else_does(server: ModelServer) -> None:
    def key(**fields: Any) -> str:
        return request_key(requests_of(endpoint_of(server, **fields), "ant")[0])

    same = {key(), key(parallel=9, timeout=1.0, attempts=1, key=None), key(backoff=3.0)}
    others = [
        key(chat=False),
        key(provider="elsewhere"),
        *(
            key(sampling=Sampling(**change))
            for change in (
                {"max_tokens": 25},
                {"temperature": 0.1},
                {"top_p": 0.5},
                {"seed": 1},
                {"stop": ()},
                {"logprobs": False},
            )
        ),
    ]
    assert len(same) == 1
    assert len({*same, *others}) == 1 + len(others)


def test_what_an_endpoint_cannot_do_is_refused_before_anything_is_sent(server: ModelServer) -> None:
    endpoint = endpoint_of(server)
    ranking = ranking_request(
        endpoint.identity("parrot"), Prompting(template=load_template("triage")), "a cold", ["infections"]
    )
    with pytest.raises(UnsupportedError, match=r"'loglikelihood'.*without the block 'continuation'"):
        endpoint.request(ranking)
    with pytest.raises(ConfigurationError, match="3 texts at temperature 0"):
        requests_of(endpoint, "ant", best=3)
    drawn = endpoint_of(server, sampling=Sampling(temperature=1.0, logprobs=False))
    assert requests_of(drawn, "ant", best=3)[0]["sampling"]["n"] == 3
    good, bad = requests_of(endpoint, "ant", "bee")
    for name, value in (("top_k", 40), ("beams", 4), ("min_p", 0.1)):
        with pytest.raises(UnsupportedError, match=name):
            endpoint.ask([good, {**bad, "sampling": {**bad["sampling"], name: value}}], lambda _: None)
    with pytest.raises(UnsupportedError, match="'loglikelihood'"):
        wire_body(ranking)
    assert server.asked == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "api.example.com/v1"}, "address is none"),
        ({"url": "ftp://example.com/v1"}, "address is none"),
        ({"url": "http://exa mple.com/v1"}, "address is none"),
        ({"url": "http://example.com:99999/v1"}, "address is none"),
        ({"url": "https://me:pass@example.com/v1"}, "OPENAI_API_KEY"),
        ({"url": "https://example.com/v1?key=pass"}, "OPENAI_API_KEY"),
        ({"key": "two\nlines"}, "Copy it again"),
        ({"parallel": 0}, "parallel is 0"),
        ({"attempts": 0}, "attempts is 0"),
        ({"timeout": 0.0}, "timeout 0.0"),
    ],
)
def test_an_impossible_endpoint_is_refused_without_repeating_a_secret(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        Endpoint(**{"url": "http://127.0.0.1:1/v1", **fields})
    assert "pass" not in str(caught.value).replace("password", "")
    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"stop": ("",)}]
)
def test_impossible_sampling_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        Sampling(**fields)


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        endpoint_from_environment()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("DESK_KEY", "mine")
    found = endpoint_from_environment(parallel=7)
    assert (found.url, found.key, found.parallel) == ("http://127.0.0.1:1/v1", KEY, 7)
    assert endpoint_from_environment(key_variable="DESK_KEY").key == "mine"
    with pytest.raises(ConfigurationError, match="NO_SUCH holds no key"):
        endpoint_from_environment(key_variable="NO_SUCH")


def test_a_key_goes_only_where_it_is_meant_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert endpoint_from_environment("https://api.openai.com/v1").key == KEY
    for url in (
        "http://127.0.0.1:2/v1",
        "https://api.openai.com.example.com/v1",
        "http://api.openai.com/v1",
    ):
        assert endpoint_from_environment(url).key is None
    assert endpoint_from_environment("http://127.0.0.1:2/v1", key_variable="OPENAI_API_KEY").key == KEY


# What is understood


def test_an_answer_comes_with_its_likelihood_and_where_it_came_from(server: ModelServer) -> None:
    output = ask_one(server, "a tall giraffe")
    assert (output.status, output.response) == (
        "ok",
        {"texts": ["A TALL GIRAFFE"], "logprobs": [-1.5], "tokens": [3]},
    )
    seen = dict(output.provenance)
    assert seen.pop("latency_seconds") >= 0
    assert seen.pop("date") <= (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert set(seen.pop("versions")) == {"counterplay"}
    assert seen == {
        "provenance": "recorded",
        "engine": "endpoint",
        "url": server.url,
        "attempts": 1,
        "http_status": 200,
        "response_id": "chatcmpl-1",
        "served_model": "parrot-2026-01-01",
        "system_fingerprint": "fp_1",
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        "finish_reasons": ["stop"],
    }


def test_several_texts_stay_with_their_likelihoods_in_the_order_of_their_index(server: ModelServer) -> None:
    def backwards(_: str, body: Body) -> Body:
        answer = chat(body, "one", "two words", "three more words")
        answer["choices"].reverse()
        return answer

    server.reply = backwards
    (output,) = ask(endpoint_of(server, sampling=Sampling(temperature=1.0)), "ant", best=3)
    assert server.asked[0][1]["n"] == 3
    assert output.response == {
        "texts": ["one", "two words", "three more words"],
        "logprobs": [-0.5, -1.0, -1.5],
        "tokens": [1, 2, 3],
    }


def test_a_server_without_log_probabilities_leaves_them_out_and_the_tokens_are_those_it_bills(
    server: ModelServer,
) -> None:
    def plain(_: str, body: Body) -> Body:
        answer = chat(body, "two words")
        answer["choices"][0]["logprobs"] = None
        return answer

    server.reply = plain
    assert ask_one(server).response == {"texts": ["two words"], "logprobs": None, "tokens": [2]}


@pytest.mark.parametrize(
    ("endings", "status"),
    [
        (("stop", "length", "stop"), "truncated"),
        (("stop", "length", "content_filter"), "refused"),
        (("stop", "content_filter", "tool_calls"), "error"),
    ],
)
def test_several_texts_are_as_good_as_the_worst_of_them(
    server: ModelServer, endings: Sequence[str], status: str
) -> None:
    def mixed(_: str, body: Body) -> Body:
        answer = chat(body, "one", "two", "three")
        for choice, ending in zip(answer["choices"], endings, strict=True):
            choice["finish_reason"] = ending
        return answer

    server.reply = mixed
    (output,) = ask(endpoint_of(server, sampling=Sampling(temperature=1.0)), "ant", best=3)
    assert output.status == status


def altered(**change: Any) -> Callable[[Body], Any]:
    """A whole answer with fields of its only choice changed."""

    def make(body: Body) -> Any:
        answer = chat(body, "words")
        answer["choices"][0] |= change
        return answer

    return make


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (lambda body: chat(body, "half a", ending="length"), "truncated", None),
        (altered(finish_reason="length", message={"content": None}), "truncated", None),
        (altered(finish_reason="content_filter", message={"content": None}), "refused", None),
        (lambda body: chat(body, "", refusal="I cannot help with that."), "refused", None),
        (altered(finish_reason="tool_calls"), "error", "'tool_calls'"),
        (altered(finish_reason=None), "error", "'None'"),
        (altered(message={"content": None}), "error", "no answer"),
        (altered(message={"content": ["parts"]}), "error", "no answer"),
        (altered(message={"content": "half \ud83d"}), "error", "no answer"),
        (lambda body: chat(body, "one", "two"), "error", "1 texts were asked for, 2 came"),
        (lambda _: {"error": {"message": "overloaded", "code": 529}}, "error", "529: overloaded"),
        (lambda _: {"error": "no such thing"}, "error", "no such thing"),
        (lambda _: {"choices": []}, "error", "0 came"),
        (lambda _: {"choices": [None, 7]}, "error", "2 came"),
        (lambda _: {"choices": {}}, "error", "'choices'"),
        (lambda _: [1, 2], "error", "'choices'"),
        (lambda _: None, "error", "'choices'"),
        (lambda body: {**chat(body, "words"), "id": "\ud83d"}, "error", "no plain text"),
    ],
)
def test_only_a_whole_answer_is_ok(
    server: ModelServer, answer: Callable[[Body], Any], status: str, words: str | None
) -> None:
    server.reply = lambda _, body: answer(body)
    output = ask_one(server)
    assert output.status == status
    assert len(server.asked) == 1
    if words is not None:
        assert words in output.response["error"]
    else:
        assert len(output.response["texts"]) == 1


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "1" * 400, '"low"', "true", "null"])
def test_log_probabilities_that_are_no_numbers_are_not_taken(server: ModelServer, value: str) -> None:
    choice = '{"message": {"content": "ant"}, "finish_reason": "stop", "logprobs": {"content": [{"logprob": %s}]}}'
    server.troubles.append(Trouble(body='{"choices": [' + choice % value + "]}"))
    output = ask_one(server)
    assert (output.status, output.response["texts"], output.response["logprobs"]) == ("ok", ["ant"], None)


@pytest.mark.parametrize(
    "body", ["<html>gateway</html>", '{"choices": [', "", '"\xff', "[" * 100_000, '{"n": ' + "9" * 5000 + "}"]
)
def test_what_is_no_json_is_an_error_and_never_an_answer(server: ModelServer, workspace: Workspace, body: str) -> None:
    server.troubles.append(Trouble(body=body))
    endpoint = endpoint_of(server)
    requests = requests_of(endpoint, "ant")
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=0, failed=1)
    assert (count(workspace, "error"), len(server.asked)) == (1, 1)
    assert get_outputs(workspace.connection, [request_key(requests[0])]) == {}
    # It is asked again by the next run, and only then.
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=1, failed=0)
    assert (count(workspace, "error"), count(workspace), len(server.asked)) == (0, 1, 2)


# What is asked again, and what never is


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_busy_server_is_asked_again(server: ModelServer, status: int) -> None:
    server.troubles.extend([Trouble(status=status, body="busy")] * 2)
    output = ask_one(server)
    assert (output.status, output.provenance["attempts"], len(server.asked)) == ("ok", 3, 3)


@pytest.mark.parametrize("trouble", [Trouble(cut=True, body='{"choices"'), Trouble(cut=True), Trouble(delay=0.5)])
def test_a_cut_connection_and_a_time_out_are_asked_again(server: ModelServer, trouble: Trouble) -> None:
    server.troubles.append(trouble)
    output = ask_one(server, timeout=0.2)
    assert (output.status, output.provenance["attempts"], len(server.asked)) == ("ok", 2, 2)


def test_attempts_end_and_the_error_says_what_was_wrong_last(server: ModelServer) -> None:
    server.troubles.extend([Trouble(status=500), Trouble(delay=0.5), Trouble(status=503, body="try later")])
    output = ask_one(server, attempts=3, timeout=0.2)
    assert (output.status, output.response["error"], len(server.asked)) == ("error", "HTTP 503: try later", 3)


def test_retry_after_is_waited_for_by_all_threads(server: ModelServer) -> None:
    server.troubles.append(Trouble(status=429, headers={"Retry-After": "0.8"}))
    server.delay = 0.3
    outputs = ask(endpoint_of(server, parallel=2), *WORDS[:3])
    assert {output.status for output in outputs} == {"ok"}
    assert len(server.asked) == 4
    # Two were sent at once, one of which was turned away; then nobody asked for 0.8 s.
    assert sum(at < server.times[0] + 0.8 for at in server.times) <= 2


def test_retry_after_may_be_a_number_of_seconds_or_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=120)
    assert 100 < (retry_after(email.utils.format_datetime(then, usegmt=True)) or 0) <= 120
    assert retry_after(email.utils.format_datetime(then - timedelta(hours=1), usegmt=True)) == 0
    assert (retry_after("2.5"), retry_after("-5"), retry_after("nan"), retry_after("soon")) == (2.5, 0, None, None)


@pytest.mark.parametrize("header", ["soon", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(server: ModelServer, header: str) -> None:
    server.troubles.append(Trouble(status=429, headers={"Retry-After": header}))
    assert ask_one(server).status == "ok"


def test_a_server_that_wants_to_be_left_alone_for_hours_is(server: ModelServer) -> None:
    server.troubles.extend([Trouble(status=429, headers={"Retry-After": "7200"})])
    with pytest.raises(MissingOutputError, match="7200 s"):
        ask_one(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (Trouble(status=401, body=json.dumps({"error": {"message": f"no such key: {KEY}"}})), "401.*the right key"),
        (Trouble(status=402, body="pay"), "402.*no credit"),
        (Trouble(status=404, body='{"error": {"message": "no model parrot"}}'), "404.*no model parrot.*Name the model"),
        (Trouble(status=307, headers={"Location": "http://127.0.0.1:1/v1"}), "307.*Redirects are not followed"),
        (Trouble(status=429, body='{"error": {"code": "insufficient_quota"}}'), "429.*no credit"),
    ],
)
def test_what_makes_every_request_useless_stops_the_run_at_once(
    server: ModelServer, workspace: Workspace, trouble: Trouble, words: str
) -> None:
    server.troubles.append(trouble)
    endpoint = endpoint_of(server, parallel=1)
    with pytest.raises(ConfigurationError, match=words) as caught:
        ask_endpoint(workspace, requests_of(endpoint, *WORDS), endpoint)
    assert KEY not in str(caught.value)
    assert (len(server.asked), count(workspace, "error"), count(workspace)) == (1, 0, 0)


def test_a_request_that_is_wrong_by_itself_fails_alone(server: ModelServer) -> None:
    server.troubles.append(Trouble(status=400, body='{"error": {"message": "too long"}}'))
    outputs = ask(endpoint_of(server, parallel=1), *WORDS[:3])
    assert [output.status for output in outputs] == ["error", "ok", "ok"]
    assert "HTTP 400: too long" in outputs[0].response["error"]
    assert len(server.asked) == 3


def test_a_prompt_that_a_filter_declines_is_refused(server: ModelServer) -> None:
    server.troubles.append(Trouble(status=400, body='{"error": {"code": "content_filter", "message": "filtered"}}'))
    output = ask_one(server)
    assert (output.status, len(server.asked)) == ("refused", 1)


@pytest.mark.parametrize(("status", "sent"), [(400, 8), (500, 8 * 2)])
def test_a_server_that_answers_nothing_is_given_up(server: ModelServer, status: int, sent: int) -> None:
    server.troubles.extend([Trouble(status=status, body="down")] * 100)
    with pytest.raises(MissingOutputError, match=f"8 requests.*HTTP {status}: down.*run the same command again"):
        ask(endpoint_of(server, parallel=1, attempts=2), *WORDS)
    assert len(server.asked) == sent


def test_nobody_there_is_given_up_with_the_reason() -> None:
    with serving() as gone:
        pass
    outputs: list[Output] = []
    endpoint = endpoint_of(gone, parallel=1, attempts=1)
    with pytest.raises(MissingOutputError, match="refused"):
        endpoint.ask(requests_of(endpoint, *WORDS), outputs.extend)
    assert [output.status for output in outputs] == ["error"] * 8


def test_an_answer_that_drips_has_a_deadline(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterplay.llm.endpoints.transport._BLOCK", 1)
    clock = iter(range(10**6))
    monkeypatch.setattr("counterplay.llm.endpoints.transport.time.monotonic", lambda: float(next(clock)))
    server.reply = lambda _, body: chat(body, "word " * 100)
    output = ask_one(server, attempts=1, timeout=5.0)
    assert (output.status, output.response["error"]) == ("error", "time-out")


def test_an_endless_answer_is_cut_off(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("counterplay.llm.endpoints.transport.MOST_BYTES", 1000)
    server.reply = lambda _, body: chat(body, "word " * 1000)
    output = ask_one(server, attempts=1)
    assert output.status == "error"
    assert "longer than 1,000 bytes" in output.response["error"]


# Paid once, kept at once


def test_no_more_requests_than_allowed_are_under_way(server: ModelServer) -> None:
    server.delay = 0.05
    outputs = ask(endpoint_of(server, parallel=3), *WORDS)
    assert server.most == 3
    assert texts_of(outputs) == sorted(word.upper() for word in WORDS)


def test_nothing_is_asked_twice_whatever_goes_wrong(server: ModelServer, workspace: Workspace) -> None:
    server.troubles.extend(
        [Trouble(status=500), Trouble(cut=True), Trouble(body="{"), Trouble(status=429), Trouble(status=503)]
    )
    endpoint = endpoint_of(server)
    requests = requests_of(endpoint, *WORDS, *WORDS)
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=11, failed=1)
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=1, failed=0)
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=0, failed=0)
    # Each word once, and once more for each of the five troubles.
    assert len(server.asked) == len(WORDS) + 5
    assert count(workspace) == len(WORDS)


def test_what_was_cut_short_or_refused_was_paid_for_and_is_not_asked_again(
    server: ModelServer, workspace: Workspace
) -> None:
    server.reply = lambda _, body: chat(body, "half a", ending="length")
    endpoint = endpoint_of(server)
    requests = requests_of(endpoint, "ant", "bee")
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=0, failed=2)
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=0, failed=0)
    longer = endpoint_of(server, sampling=Sampling(max_tokens=99))
    server.reply = lambda _, body: chat(body, "a whole")
    assert ask_endpoint(workspace, requests_of(longer, "ant", "bee"), longer) == Asked(answered=2, failed=0)
    assert len(server.asked) == 4


def test_answers_are_kept_while_others_are_waited_for(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    kept: list[int] = []
    last = threading.Event()

    def reply(_: str, body: Body) -> Mapping[str, Any]:
        if body["messages"][-1]["content"] == "slow":
            last.wait(5)
        return chat(body, "words")

    def keep(outputs: Sequence[Output]) -> None:
        kept.append(len(outputs))
        if sum(kept) == len(WORDS):
            last.set()

    server.reply = reply
    endpoint = endpoint_of(server, parallel=2)
    endpoint.ask(requests_of(endpoint, "slow", *WORDS), keep)
    assert sum(kept) == 1 + len(WORDS)
    assert kept[-1] == 1


def test_what_was_under_way_when_the_run_was_stopped_is_kept(server: ModelServer, workspace: Workspace) -> None:
    server.delay = 0.1
    endpoint = endpoint_of(server, parallel=4)
    requests = requests_of(endpoint, *WORDS)

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    # The first answer brings the interrupt; the three others were sent, hence paid for, and none is lost.
    with pytest.raises(KeyboardInterrupt):
        ask_endpoint(workspace, requests, endpoint, tick=lambda done: stop(done) if done else None)
    assert len(server.asked) == count(workspace) == 4
    assert ask_endpoint(workspace, requests, endpoint) == Asked(answered=8, failed=0)
    assert sorted(server.prompts) == sorted(WORDS)


def test_a_commit_that_was_interrupted_is_made_up_for(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.0)
    endpoint = endpoint_of(server, parallel=1)
    tries, kept = list[int](), list[Output]()

    def keep(outputs: Sequence[Output]) -> None:
        tries.append(len(outputs))
        if len(tries) == 1:
            raise KeyboardInterrupt
        kept.extend(outputs)

    with pytest.raises(KeyboardInterrupt):
        endpoint.ask(requests_of(endpoint, *WORDS[:3]), keep)
    assert tries == [1, 1]
    assert texts_of(kept) == ["ANT"]
    assert server.prompts == ["ant"]


def test_a_chunk_leaves_out_what_another_process_has_stored_meanwhile(
    server: ModelServer, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("counterplay.llm.endpoints.asking.CHUNK", 3)
    monkeypatch.setattr("counterplay.llm.endpoints.asking.random.shuffle", lambda _: None)
    place = workspace.path
    workspace.close()
    endpoint = endpoint_of(server, parallel=1)
    requests = requests_of(endpoint, *WORDS)
    others = [*requests[3:6], requests[7]]
    elsewhere = [
        Output(request=request, response={"texts": ["x"], "logprobs": [-1.0], "tokens": [1]}, provenance={})
        for request in others
    ]
    ticks: list[float] = []

    def tick(done: float) -> None:
        ticks.append(done)
        if sum(ticks) == 1:
            with open_workspace(place) as opened, opened.transaction() as connection:
                put_outputs(connection, elsewhere)

    assert ask_endpoint(place, requests, endpoint, tick=tick) == Asked(answered=8, failed=0)
    assert sum(ticks) == len(WORDS)
    assert not {"dog", "eel", "fox", "hen"} & set(server.prompts)


# The key


def test_the_key_is_sent_and_nowhere_else(server: ModelServer, workspace: Workspace) -> None:
    server.troubles.append(Trouble(status=400, body=json.dumps({"error": {"message": f"bad: Bearer {KEY}"}})))
    endpoint = endpoint_of(server, parallel=1)
    ask_endpoint(workspace, requests_of(endpoint, *WORDS), endpoint)
    assert {headers["Authorization"] for headers in server.seen} == {f"Bearer {KEY}"}
    assert KEY not in repr(endpoint)
    rows = workspace.connection.execute("SELECT CAST(outputs AS VARCHAR) FROM outputs").fetchall()
    assert len(rows) == len(WORDS)
    assert not [row for (row,) in rows if KEY in row]
    assert [row for (row,) in rows if "bad: Bearer (key)" in row]


def test_a_key_that_an_answer_repeats_is_not_stored_and_a_mere_word_is_left_alone(server: ModelServer) -> None:
    server.reply = lambda _, body: chat(body, f"EMPTY {KEY}")
    assert ask_one(server).response["texts"] == ["EMPTY (key)"]
    assert ask_one(server, key="EMPTY").response["texts"] == [f"EMPTY {KEY}"]
    server.reply = lambda *_: {"headers": "x" * 480 + KEY}
    output = ask_one(server)
    assert output.status == "error"
    assert KEY[:8] not in str(output.response)


def test_without_a_key_no_header_is_sent(server: ModelServer) -> None:
    ask_one(server, key=None)
    assert "Authorization" not in server.seen[0]
