"""Encoder-decoders: the prompt is read, the text is written, by the same functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.llm.answering import answer
from counterplay.llm.engines.generation import Prompt
from counterplay.llm.engines.local import LanguageModel, load_model
from counterplay.llm.prompting.requests import Prompting, generation_request, ranking_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

PROMPTS = ("a", "the end of the thing", "one two three four five six seven eight nine ten", "x\ny")
ROOM = 10


@pytest.fixture(scope="module", params=["t5", "bart"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("tiny")
    return tiny.load("t5", folder) if request.param == "t5" else load_bart(folder)


def load_bart(folder: Path) -> LanguageModel:
    """Its places are counted from the first token, where those of T5 are distances."""
    import torch
    import transformers

    words = tiny.tokenizer(beginning=False)
    config = transformers.BartConfig(
        vocab_size=len(words),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=128,
        init_std=0.5,
        pad_token_id=tiny.PADDING,
        bos_token_id=tiny.BEGINNING,
        eos_token_id=tiny.END,
        decoder_start_token_id=tiny.END,
        forced_eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = transformers.BartForConditionalGeneration(config)
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    return load_model(str(folder))


def greedy(model: LanguageModel, text: str, stop: tuple[str, ...]) -> tuple[str, float, int]:
    """By forward passes alone: what was written is given to the decoder again at each step."""
    import torch

    prompt, ids, logprob, said = torch.tensor([model.prompt(text)]), list[int](), 0.0, ""
    first = model.module.generation_config.decoder_start_token_id
    while len(ids) < ROOM and (not ids or ids[-1] != tiny.END) and not any(mark in said for mark in stop):
        with torch.inference_mode():
            logits = model.module(input_ids=prompt, decoder_input_ids=torch.tensor([[first, *ids]])).logits[0, -1]
        logprobs = logits.double().log_softmax(-1)
        ids.append(int(logprobs.argmax()))
        logprob += float(logprobs[ids[-1]])
        said = model.tokenizer.decode(ids, skip_special_tokens=True)
    return (
        said[: min([place for mark in stop if (place := said.find(mark)) >= 0], default=None)].strip(),
        logprob,
        len(ids),
    )


def written(model: LanguageModel, texts: tuple[str, ...], stop: tuple[str, ...], best: int = 1) -> list[Any]:
    asked = [Prompt(ids=model.prompt(text), key=text) for text in texts]
    return model.complete(asked, Sampling(max_tokens=ROOM, stop=stop).fields(best))


def test_a_prompt_ends_as_its_tokenizer_ends_it(model: LanguageModel) -> None:
    assert model.encoder_decoder
    assert model.prompt("the end")[-1] == tiny.END
    assert tiny.END not in model.encode("the end")


def test_a_batch_writes_what_plain_forward_passes_write(model: LanguageModel) -> None:
    texts = [one.text for (one,) in written(model, PROMPTS, ())]
    assert len(set(texts)) > 1
    longest = max(texts, key=len)
    for stop in ((), (longest[2],), (longest[3:5], "\n")):
        for text, (found,) in zip(PROMPTS, written(model, PROMPTS, stop), strict=True):
            said, logprob, tokens = greedy(model, text, stop)
            assert (found.text, found.tokens) == (said, tokens)
            assert found.logprob == pytest.approx(logprob, abs=1e-3)
            ((alone,),) = written(model, (text,), stop)
            assert (alone.text, alone.tokens, alone.finished) == (found.text, found.tokens, found.finished)


def test_a_search_finds_the_same_in_a_batch(model: LanguageModel) -> None:
    for text, found in zip(PROMPTS, written(model, PROMPTS, (), best=3), strict=True):
        (alone,) = written(model, (text,), (), best=3)
        assert [one.text for one in found] == [one.text for one in alone]
        np.testing.assert_allclose([one.logprob for one in found], [one.logprob for one in alone], rtol=0, atol=1e-3)
        assert [one.logprob for one in found] == sorted((one.logprob for one in found), reverse=True)


def test_both_operations_are_answered(model: LanguageModel) -> None:
    ranks = Template(
        name="rank",
        source="{% block prompt %}{{ text }}:{% endblock %}{% block continuation %} {{ action }}{% endblock %}",
    )
    writes = Template(name="write", source="{% block prompt %}{{ text }}:{% endblock %}")
    sampling = Sampling(max_tokens=ROOM, stop=())
    requests = [
        ranking_request(model.identity, Prompting(template=ranks), "the end", ["a cake", "the tea"]),
        generation_request(model.identity, Prompting(template=writes, sampling=sampling), "the end"),
        generation_request(model.identity, Prompting(template=writes, sampling=sampling), "the end", best=2),
    ]
    ranked, one, two = answer(model, requests)
    wanted = [
        tiny.plain_loglikelihood(model, model.prompt("the end:"), tuple(model.encode(rest)))
        for rest in (" a cake", " the tea")
    ]
    np.testing.assert_allclose(ranked.response["logprobs"], wanted, rtol=0, atol=1e-3)
    assert ranked.status == "ok"
    said, logprob, tokens = greedy(model, "the end:", ())
    assert (one.response["texts"], one.response["tokens"]) == ([said], [tokens])
    assert one.response["logprobs"] == [pytest.approx(logprob, abs=1e-3)]
    assert len(two.response["texts"]) == 2
