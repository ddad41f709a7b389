"""Draws: luck belongs to the request, and follows the model's distribution."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chisquare

from counterplay.llm.engines.drawing import uniforms
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.local import LanguageModel
from counterplay.llm.prompting.sampling import Sampling
from counterplay.logs.outputs import request_key
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

TEXT = "the end of the thing"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny.load("llama", tmp_path_factory.mktemp("llama"))


def drawn(
    model: LanguageModel, keys: list[str], texts: list[str] | None = None, count: int = 1, **sampling: Any
) -> list[list[Completion]]:
    texts = texts or [TEXT] * len(keys)
    asked = [Prompt(ids=model.prompt(text), key=key) for text, key in zip(texts, keys, strict=True)]
    return model.complete(asked, Sampling(stop=(), **{"max_tokens": 12, "temperature": 1.0, **sampling}).fields(count))


def distribution(model: LanguageModel, temperature: float, top_k: int | None, top_p: float) -> npt.NDArray[np.float64]:
    """Of the first token, by hand: of the ``top_k`` likeliest, the fewest that have ``top_p`` of the probability."""
    logits = tiny.plain_logprobs(model.module, model.prompt(TEXT))[-1] / temperature
    order = np.argsort(-logits)[: top_k or len(logits)]
    shares = np.exp(logits[order] - logits[order[0]])
    shares /= shares.sum()
    kept = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
    found = np.zeros(len(logits))
    found[order[:kept]] = shares[:kept] / shares[:kept].sum()
    return found


def test_a_request_has_its_text_whatever_stands_beside_it(model: LanguageModel) -> None:
    texts = ["a", TEXT, "one two three four five six seven eight nine ten, and then eleven", "x\ny", TEXT]
    keys = [f"key {i}" for i in range(len(texts))]
    together = drawn(model, keys, texts, seed=5)
    turned = drawn(model, keys[::-1], texts[::-1], seed=5)[::-1]
    for text, key, (one,), (other,) in zip(texts, keys, together, turned, strict=True):
        ((alone,),) = drawn(model, [key], [text], seed=5)
        assert one.text == other.text == alone.text
        assert one.logprob == pytest.approx(alone.logprob, abs=1e-3)
    assert together[1][0].text != together[4][0].text, "one text under two keys is two requests"


def test_another_seed_or_sample_index_is_another_draw(model: LanguageModel) -> None:
    request = {"operation": "generate", "model": "tiny", "prompt": TEXT}
    keys = [request_key({**request, "sample_index": index}) for index in range(8)]
    assert len({one.text for (one,) in drawn(model, keys, seed=1)}) == len(keys)
    seeds = [drawn(model, keys[:1], seed=seed)[0][0].text for seed in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert drawn(model, keys[:1], seed=3)[0][0].text == seeds[3]
    # No seed is the seed 0, which the request writes out.
    assert drawn(model, keys[:1], seed=None)[0][0].text == seeds[0]


def test_several_draws_of_a_request_differ_and_the_first_of_them_stay(model: LanguageModel) -> None:
    (three,) = drawn(model, ["key"], count=3)
    (six,) = drawn(model, ["key"], count=6)
    assert len({one.text for one in six}) == 6
    assert [one.text for one in six[:3]] == [one.text for one in three]


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, 1.0), (0.5, None, 1.0), (3.0, None, 1.0), (2.0, 7, 1.0), (2.0, None, 0.8), (3.0, 12, 0.7)],
)
def test_the_first_token_is_drawn_from_the_models_distribution(
    model: LanguageModel, temperature: float, top_k: int | None, top_p: float
) -> None:
    keys, wanted = [f"key {i}" for i in range(4_000)], distribution(model, temperature, top_k, top_p)
    sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_tokens": 1}
    found = drawn(model, keys, **sampling)
    # A token is told by its log-probability, which is the model's own: that of temperature 1, whatever is drawn from.
    own = tiny.plain_logprobs(model.module, model.prompt(TEXT))[-1]
    order = np.argsort(own)
    logprobs = np.array([one.logprob for (one,) in found])
    nearest = np.abs(logprobs[:, None] - own[order][None, :]).argmin(axis=1)
    np.testing.assert_allclose(logprobs, own[order][nearest], atol=1e-4)
    # Tokens as likely as each other (those whose logit is 0) are one class.
    classes = np.cumsum(np.append(0, np.diff(own[order]) > 1e-3))
    expected = np.bincount(classes, wanted[order]) * len(keys)
    counts = np.bincount(classes[nearest], minlength=len(expected))
    assert counts[expected == 0].sum() == 0, "what the filter leaves out is never drawn"
    often = expected >= 5
    observed, hoped = np.append(counts[often], counts[~often].sum()), np.append(expected[often], expected[~often].sum())
    if hoped[-1] == 0:
        observed, hoped = observed[:-1], hoped[:-1]
    assert len(hoped) > 3
    assert chisquare(observed, hoped).pvalue > 1e-3


def test_a_low_temperature_takes_the_likeliest(model: LanguageModel) -> None:
    ((cold,),) = drawn(model, ["key"], temperature=0.001)
    greedy = model.complete([Prompt(ids=model.prompt(TEXT), key="key")], Sampling(max_tokens=12, stop=()).fields(1))
    assert cold.text == greedy[0][0].text
    assert cold.logprob == pytest.approx(greedy[0][0].logprob, abs=1e-3)


def test_the_log_likelihood_of_a_draw_is_the_models_before_the_temperature(tmp_path_factory: Any) -> None:
    import torch

    # A head with ten letters alone: each text then has one way to be written, and can be read back into tokens.
    model = tiny.load("llama", tmp_path_factory.mktemp("letters"))
    letters = {model.encode(letter)[0] for letter in "ABCDEFGHIJ"}
    with torch.no_grad():
        head = model.module.get_output_embeddings()
        head.weight[[i for i in range(len(model.tokenizer)) if i not in letters]] = 0
    seen = Counter[str]()
    for (one,) in drawn(model, [f"key {i}" for i in range(40)], temperature=2.0, top_k=3, max_tokens=4):
        rest = tuple(model.encode(one.text))
        if len(rest) == one.tokens and set(rest) <= letters:
            seen[one.text] += 1
            assert one.logprob == pytest.approx(tiny.plain_loglikelihood(model, model.prompt(TEXT), rest), abs=1e-3)
    assert len(seen) >= 10


def test_numbers_are_uniform_and_belong_to_key_and_seed() -> None:
    numbers = uniforms("key", 0, 3, 5)
    assert numbers.shape == (3, 5)
    np.testing.assert_array_equal(numbers, uniforms("key", 0, 3, 5))
    assert not np.intersect1d(numbers, uniforms("key", 1, 3, 5)).size
    assert not np.intersect1d(numbers, uniforms("other", 0, 3, 5)).size
    many = np.concatenate([uniforms(f"{i}", 0, 1, 4).ravel() for i in range(2_000)])
    assert ((many >= 0) & (many < 1)).all()
    assert chisquare(np.histogram(many, bins=20, range=(0, 1))[0]).pvalue > 1e-3
