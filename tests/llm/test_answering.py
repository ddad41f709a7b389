"""Requests in, outputs out: what is refused before anything is asked, and what a damaged model makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.answering import answer, check_lengths
from counterplay.llm.engines.generation import Prompt
from counterplay.llm.engines.local import LanguageModel, load_model
from counterplay.llm.models import identify
from counterplay.llm.prompting.requests import Prompting, Request, generation_request, ranking_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template
from counterplay.logs import Workspace
from counterplay.logs.outputs import get_outputs, put_outputs, request_key
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

WRITES = Template(name="writes", source="{% block prompt %}{{ text }}{% endblock %}")
RANKS = Template(
    name="ranks", source="{% block prompt %}{{ text }}{% endblock %}{% block continuation %}{{ action }}{% endblock %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def whole(folder: Path) -> LanguageModel:
    return load_model(str(folder))


def writing(model: LanguageModel, text: str, best: int = 1, **sampling: Any) -> Request:
    drawn = Sampling(**{"max_tokens": 4, "stop": (), **sampling})
    return generation_request(model.identity, Prompting(template=WRITES, sampling=drawn), text, best=best)


def ranking(model: LanguageModel, text: str, candidates: list[str]) -> Request:
    return ranking_request(model.identity, Prompting(template=RANKS), text, candidates)


def refuses_to_run(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(model.module, "generate", run)
    monkeypatch.setattr(model.module.base_model, "forward", run)


def test_outputs_come_in_the_order_of_their_requests(whole: LanguageModel) -> None:
    requests = [
        writing(whole, "the end"),
        ranking(whole, "the end", ["a", "b cake"]),
        writing(whole, "the end", temperature=1.0, seed=4),
        ranking(whole, "x", ["the tea"]),
        writing(whole, "the end", best=2),
        writing(whole, "one two three"),
    ]
    ticks = list[float]()
    outputs = answer(whole, requests, tick=ticks.append)
    assert [output.request for output in outputs] == requests
    assert sum(ticks) == pytest.approx(len(requests))
    for request, output in zip(requests, outputs, strict=True):
        (alone,) = answer(whole, [request])
        assert alone.response.get("texts") == output.response.get("texts")
        np.testing.assert_allclose(alone.response["logprobs"], output.response["logprobs"], rtol=0, atol=1e-3)
        assert len(output.provenance["token_ids_sha256"]) == 64
        assert output.provenance["token_ids_sha256"] == alone.provenance["token_ids_sha256"]
    assert outputs[1].response["tokens"] == [1, len(whole.encode("b cake"))]
    assert outputs[0].status == "truncated"


def test_a_request_for_other_weights_is_refused(whole: LanguageModel) -> None:
    request = writing(whole, "the end")
    for name in ("revision", "tokenizer", "adapter", "dtype"):
        with pytest.raises(ConfigurationError, match="Load that one"):
            answer(whole, [request, {**request, name: "f" * 64}])


def test_a_prompt_at_the_limit_is_asked_and_one_beyond_it_is_not(
    whole: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whole.limit == tiny.LIMIT
    # "b" is one token, and the beginning is one.
    fits = writing(whole, "b" * (tiny.LIMIT - 1 - 4))
    (output,) = answer(whole, [fits])
    assert output.response["tokens"] == [4]
    pair = ranking(whole, "b" * (tiny.LIMIT - 1 - 3), ["bbb"])
    (output,) = answer(whole, [pair])
    assert output.response["tokens"] == [3]
    check_lengths(whole, [fits, pair])
    refuses_to_run(whole, monkeypatch)
    over = [writing(whole, "b" * (tiny.LIMIT - 4)), writing(whole, "b" * 300 + " the longest"), fits]
    over.append(ranking(whole, "b" * (tiny.LIMIT - 1 - 3), ["b", "bbbb"]))
    for refused in (lambda: answer(whole, over), lambda: check_lengths(whole, over)):
        with pytest.raises(
            InputError, match=r"3 prompts, .* longer than the 192 tokens.* the longest'.*None of them"
        ) as found:
            refused()
        assert str(found.value).index("the longest") < str(found.value).index("; 193 tokens"), "the longest comes first"


def test_an_empty_prompt_or_continuation_is_refused_by_name(
    whole: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    (preamble_alone,) = answer(whole, [{**writing(whole, "x"), "preamble": "read this", "prompt": ""}])
    assert preamble_alone.response["tokens"] == [4]
    refuses_to_run(whole, monkeypatch)
    assert whole.prompt("") == (tiny.BEGINNING,), "the tokenizer's own beginning does not make it a prompt"
    empty = {**writing(whole, "x"), "prompt": ""}
    with pytest.raises(InputError, match=rf"A prompt of the request {request_key(empty)[:12]} is empty"):
        answer(whole, [writing(whole, "x"), empty])
    bare = {**ranking(whole, "x", ["a"]), "prompts": [""]}
    with pytest.raises(InputError, match="is empty"):
        answer(whole, [bare])
    with pytest.raises(InputError, match=r"The continuation of the prompt '...which ward\?' is empty"):
        answer(whole, [ranking(whole, "which ward?", ["a", ""])])


def test_a_damaged_row_is_an_error_and_the_others_are_answered(folder: Path, workspace: Workspace) -> None:
    import torch

    model = load_model(str(folder))
    sound = [writing(model, "the end"), ranking(model, "the end", ["a", "b"]), writing(model, "x", temperature=1.0)]
    wanted = answer(model, sound)
    (token,) = model.encode("q")
    with torch.no_grad():
        model.module.get_input_embeddings().weight[token] = torch.nan
    bad = [
        writing(model, "q and the end"),
        writing(model, "q", temperature=0.7),
        writing(model, "a q", best=3),
        ranking(model, "the end", ["b q q", "a"]),
    ]
    outputs = answer(model, [bad[0], sound[0], bad[1], sound[1], bad[2], sound[2], bad[3]])
    for output in outputs[::2]:
        assert output.status == "error"
        assert "not finite" in output.response["error"]
        assert "float32" in output.response["error"]
    for output, before in zip(outputs[1::2], wanted, strict=True):
        assert output.status == before.status
        assert output.response.get("texts") == before.response.get("texts")
        np.testing.assert_allclose(output.response["logprobs"], before.response["logprobs"], rtol=0, atol=1e-3)
    with workspace.transaction() as connection:
        put_outputs(connection, outputs)
    served = get_outputs(workspace.connection, [request_key(output.request) for output in outputs])
    assert set(served) == {request_key(output.request) for output in outputs if output.status == "ok"}
    assert set(served) == {request_key(sound[1])}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_that_are_no_numbers_or_too_large_answer_nothing(dtype: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tiny.save("llama", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    # Beyond 65,504, the largest number of float16; float32 has room for it.
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] * 1e7 if dtype == "float16" else torch.full_like(weights[name], torch.nan)
    save_file(weights, file, metadata={"format": "pt"})
    model = load_model(str(tmp_path), dtype=dtype)
    requests = [writing(model, "the end"), ranking(model, "the end", ["a", "b"]), writing(model, "x", temperature=1.0)]
    for output in answer(model, requests):
        assert output.status == "error"
        assert dtype in output.response["error"]
    if dtype == "float16":
        wide = load_model(str(tmp_path))
        assert "error" not in {
            output.status for output in answer(wide, [writing(wide, "x"), ranking(wide, "x", ["a"])])
        }


def test_what_the_models_own_file_says_of_sampling_changes_nothing(folder: Path, tmp_path: Path) -> None:
    plain = load_model(str(folder))
    tiny.save("llama", tmp_path)
    settings = tmp_path / "generation_config.json"
    said = json.loads(settings.read_text())
    settings.write_text(
        json.dumps({**said, "do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 5.0})
    )
    other = load_model(str(tmp_path))
    one, two = (
        model.complete([Prompt(ids=model.prompt("the end"), key="k")], Sampling(max_tokens=12, stop=()).fields(1))
        for model in (plain, other)
    )
    assert one[0][0].text == two[0][0].text


def test_quantisation_is_what_the_configuration_says(folder: Path, tmp_path: Path) -> None:
    assert identify(str(folder)).quantisation == "none"
    tiny.save("llama", tmp_path)
    settings = tmp_path / "config.json"
    plain = json.loads(settings.read_text())
    for said, known in (
        ({"quant_method": "gptq", "bits": 4}, "gptq-4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes-8"),
        ({"quant_method": "fp8"}, "fp8"),
    ):
        settings.write_text(json.dumps({**plain, "quantization_config": said}))
        identity = identify(str(tmp_path))
        assert identity.quantisation == known
        request = generation_request(identity, Prompting(template=WRITES), "x")
        assert request["quantisation"] == known
