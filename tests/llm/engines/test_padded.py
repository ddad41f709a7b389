"""Log-likelihoods of the local engine are those of plain forward passes: in trees, in padded rows, for any model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.llm.engines.local import LanguageModel, load_model
from counterplay.llm.engines.padded import loglikelihoods as padded_loglikelihoods
from counterplay.llm.engines.scoring import Pair, longest_masked
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

TEXTS = (
    ("the ", "end"),
    ("the ", "tea"),
    ("the end of the thing: ", "a cake"),
    ("the end of the thing: ", "a cat, and a dog that was not there"),
    ("one two three four five six seven eight nine ten: ", "x"),
    ("x", "a continuation that is much longer than the prompt that it stands behind"),
)


def pairs(model: LanguageModel) -> list[Pair]:
    return [(model.prompt(prompt), tuple(model.encode(rest))) for prompt, rest in TEXTS]


def assert_plain(model: LanguageModel, asked: list[Pair], found: Any) -> None:
    wanted = [tiny.plain_loglikelihood(model, prompt, rest) for prompt, rest in asked]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "mamba", "t5"])
def test_log_likelihoods_are_those_of_plain_passes(kind: str, tmp_path: Path) -> None:
    model, ticks = tiny.load(kind, tmp_path), list[int]()
    asked = pairs(model)
    found = model.loglikelihoods(asked, tick=ticks.append)
    assert_plain(model, asked, found)
    assert sum(ticks) == len(asked)
    for pair, score in zip(asked, found, strict=True):
        np.testing.assert_allclose(model.loglikelihoods([pair]), score, rtol=0, atol=1e-3)
    np.testing.assert_allclose(padded_loglikelihoods(model, asked), found, rtol=0, atol=1e-3)
    assert model.loglikelihoods([]).shape == (0,)


@pytest.mark.parametrize("length", [tiny.WINDOW - 1, tiny.WINDOW, tiny.WINDOW + 1, 3 * tiny.WINDOW])
@pytest.mark.parametrize("trunk", [False, True])
def test_a_sliding_window_is_minded_at_its_edge(length: int, trunk: bool, tmp_path: Path) -> None:
    model = tiny.load("gemma3", tmp_path)
    ids = np.random.default_rng(length).integers(4, 200, size=(6, length + 1)).tolist()
    if trunk:
        ids = [[*ids[0][: length - 3], *row[length - 3 :]] for row in ids]
    # The last token is predicted and never read, so each pair reads `length` tokens.
    asked = [(tuple(row[:-2]), tuple(row[-2:])) for row in ids]
    found = model.loglikelihoods(asked)
    assert_plain(model, asked, found)
    # Without the window the same weights say something else as soon as it is shorter than what is read.
    wide = tiny.load("gemma3", tmp_path / "wide", sliding_window=4 * tiny.WINDOW)
    differs = np.abs(wide.loglikelihoods(asked) - found).max() > 1e-2
    assert differs == (length > tiny.WINDOW)


def test_a_pair_is_scored_alike_whatever_is_longer_beside_it(tmp_path: Path) -> None:
    model = tiny.load("gemma3", tmp_path)
    asked = pairs(model)
    read = [len(prompt) + len(rest) - 1 for prompt, rest in asked]
    assert min(read) <= tiny.WINDOW < max(read)
    short = [pair for pair, size in zip(asked, read, strict=True) if size <= tiny.WINDOW]
    alone = model.loglikelihoods(short)
    beside = model.loglikelihoods(asked)[[size <= tiny.WINDOW for size in read]]
    np.testing.assert_allclose(alone, beside, rtol=0, atol=1e-3)


def test_which_models_are_packed() -> None:
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    assert longest_masked(tiny.build("llama", 32)) == float("inf")
    assert longest_masked(tiny.build("gemma3", 32)) == tiny.WINDOW
    assert longest_masked(tiny.build("gemma3", 32, layer_types=["full_attention"] * 2)) == float("inf")
    assert longest_masked(tiny.build("mamba", 32)) == 0
    grouped: dict[str, Any] = {**sizes, "intermediate_size": 16, "num_key_value_heads": 1}
    windowed = transformers.MistralConfig(**grouped, sliding_window=24)
    assert longest_masked(transformers.MistralForCausalLM(windowed)) == 24
    assert (
        longest_masked(transformers.MistralForCausalLM(transformers.MistralConfig(**grouped, sliding_window=None)))
        > 1e9
    )
    # Positions of ALiBi are distances in the order of tokens, which in a tree is not that of the text.
    assert longest_masked(transformers.BloomForCausalLM(transformers.BloomConfig(**sizes))) == 0
    neo = transformers.GPTNeoConfig(
        vocab_size=32, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]]
    )
    assert longest_masked(transformers.GPTNeoForCausalLM(neo)) == 0


GROUPED = {"num_key_value_heads": 1, "intermediate_size": 16, "initializer_range": 0.5}
LOCAL = {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8}
OTHERS: dict[str, dict[str, Any]] = {
    "Gemma2": {**GROUPED, "head_dim": 8, "final_logit_softcapping": 1.5},
    "Cohere": {**GROUPED, "logit_scale": 0.3},
    "Granite": {**GROUPED, "logits_scaling": 3.0},
    "OPT": {"ffn_dim": 16, "word_embed_proj_dim": 16, "init_std": 0.5},
    "Bloom": {"initializer_range": 0.5},
    "GPTNeo": {**LOCAL, "initializer_range": 0.5},
    "GPT2": {"initializer_range": 0.5},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_logits_are_the_models_own_to_the_last_step(kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    words = tiny.tokenizer(beginning=True)
    ends = {"pad_token_id": tiny.PADDING, "bos_token_id": tiny.BEGINNING, "eos_token_id": tiny.END}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(words), **ends, **sizes | OTHERS[kind])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module: Any = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    module.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(str(tmp_path))
    asked = pairs(model)
    assert_plain(model, asked, model.loglikelihoods(asked))
    assert "forward" not in vars(model.module.base_model), "the body is left as it was"


def test_what_is_no_number_stays_in_its_own_pair(tmp_path: Path) -> None:
    import torch

    model = tiny.load("llama", tmp_path)
    (bad,) = model.encode("q")
    asked = [*pairs(model), (model.prompt("the q"), tuple(model.encode("end"))), (model.prompt("q"), (bad,))]
    with torch.no_grad():
        model.module.get_input_embeddings().weight[bad] = torch.nan
    ticks = list[int]()
    found = model.loglikelihoods(asked, tick=ticks.append)
    assert np.isnan(found[-2:]).all()
    assert_plain(model, asked[:-2], found[:-2])
    assert sum(ticks) == len(asked)
