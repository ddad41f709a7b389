"""vLLM, by a stand-in with its signatures: what it would be asked, and what is made of its answers.

The names of arguments and fields are those of vLLM 0.33.0: ``vllm/entrypoints/llm.py`` (``LLM.__init__``,
``LLM.generate``), ``vllm/engine/arg_utils.py`` (``EngineArgs``), ``vllm/sampling_params.py`` (``SamplingParams``),
``vllm/inputs/llm.py`` (``TokensPrompt``), ``vllm/outputs.py`` (``RequestOutput``, ``CompletionOutput``),
``vllm/logprobs.py`` (``Logprob``). Nothing here says that vLLM itself runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, MissingExtraError, UnsupportedError
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.vllm_engine import VllmEngine, load_vllm
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.sampling import Sampling

LETTERS = ["<s>", "</s>", *"abcdefgh"]
END = 1
ENGINE_ARGS = {"generation_config", "logprobs_mode", "max_model_len", "enable_prefix_caching", "max_logprobs"}
IDENTITY = ModelIdentity(model="toy", revision="r", quantisation="none", dtype="bfloat16", tokenizer="t")
LOGPROBS = np.log(np.random.default_rng(7).dirichlet([1e-9, *[0.5] * (len(LETTERS) - 1)], size=len(LETTERS)) + 1e-30)
"""The toy model: log p of the next letter after a letter."""


class Tokenizer:
    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        ids = [0] * add_special_tokens
        while text:
            at = next(i for i, letter in enumerate(LETTERS) if text.startswith(letter))
            ids.append(at)
            text = text.removeprefix(LETTERS[at])
        return SimpleNamespace(input_ids=ids)


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        assert type(self.max_tokens) is int
        assert self.max_tokens >= 1
        assert self.temperature == 0 or 0.01 <= self.temperature <= 2
        assert 0 < self.top_p <= 1
        assert type(self.top_k) is int
        assert self.seed is None or -(2**63) <= self.seed < 2**63
        assert self.n == 1 or self.temperature > 0
        assert self.detokenize or not self.stop


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class LLM:
    made: list[dict[str, Any]] = []  # noqa: RUF012
    asked: list[list[SamplingParams]] = []  # noqa: RUF012

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        assert set(kwargs) <= ENGINE_ARGS, kwargs
        assert tokenizer is quantization is None
        self.made.append({"model": model, "dtype": dtype, "seed": seed, **kwargs})
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def generate(
        self,
        prompts: Sequence[TokensPrompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: None = None,
    ) -> list[SimpleNamespace]:
        assert isinstance(sampling_params, list)
        assert lora_request is None
        assert not use_tqdm
        self.asked.append(sampling_params)
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._answer(prompt["prompt_token_ids"], asked) for prompt, asked in pairs]

    def _answer(self, ids: list[int], asked: SamplingParams) -> SimpleNamespace:
        assert len(ids) < 64, "the prompt is longer than the maximum model length"
        told: list[dict[int, Logprob] | None] = [None]
        told += [{after: Logprob(LOGPROBS[before, after])} for before, after in pairwise(ids)]
        return SimpleNamespace(
            prompt_token_ids=ids,
            prompt_logprobs=None if asked.prompt_logprobs is None else told,
            outputs=[_write(ids, asked)],
        )


def _write(ids: list[int], asked: SamplingParams) -> CompletionOutput:
    luck, written, text, reason = np.random.default_rng(asked.seed), list[int](), "", "length"
    while len(written) < int(asked.max_tokens or 0):
        row = LOGPROBS[[*ids, *written][-1]]
        drawn = asked.temperature > 0
        token = int(luck.choice(len(row), p=np.exp(row) / np.exp(row).sum()) if drawn else row.argmax())
        written.append(token)
        text += LETTERS[token] if token > END else ""
        places = [text.find(mark) for mark in asked.stop if mark in text]
        if places or token == END:
            text, reason = text[: min(places, default=None)], "stop"
            break
    total = float(sum(LOGPROBS[before, after] for before, after in pairwise([ids[-1], *written])))
    return CompletionOutput(0, text, written, None if asked.logprobs is None else total, None, reason)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    module = ModuleType("vllm")
    for name, value in {"LLM": LLM, "SamplingParams": SamplingParams, "TokensPrompt": TokensPrompt}.items():
        setattr(module, name, value)
    monkeypatch.setattr(LLM, "made", [])
    monkeypatch.setattr(LLM, "asked", [])
    monkeypatch.setattr(module, "__version__", "0.33.0", raising=False)
    monkeypatch.setitem(sys.modules, "vllm", module)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        # Set and removed, so that the variable is gone after the test whatever the test has made of it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return str(tmp_path)


@pytest.fixture
def engine(folder: str) -> VllmEngine:
    return load_vllm(folder, IDENTITY)


def prompts(engine: VllmEngine) -> list[Prompt]:
    return [Prompt(engine.prompt(text), text) for text in ("a", "bad", "face", "h", "gg")]


def score(engine: VllmEngine, prompt: Prompt, text: str) -> float:
    return float(engine.loglikelihoods([(prompt.ids, tuple(engine.encode(text)))])[0])


def test_the_model_is_loaded_as_its_identity_says_and_without_defaults_of_its_own(
    engine: VllmEngine, folder: str
) -> None:
    (made,) = LLM.made
    assert made == {
        "model": folder,
        "dtype": "bfloat16",
        "seed": 0,
        "generation_config": "vllm",
        "logprobs_mode": "raw_logprobs",
    }
    assert engine.identity == IDENTITY
    # What is scored needs room for the token that vLLM writes after it.
    assert engine.limit == 63
    assert np.isfinite(engine.loglikelihoods([((0,) * 60, (2, 3, 4))])).all()


def test_a_beginning_is_given_once(engine: VllmEngine) -> None:
    assert engine.encode("ab") == [2, 3]
    assert engine.prompt("ab") == engine.prompt("<s>ab") == (0, 2, 3)


def test_a_text_has_the_log_likelihood_of_all_its_tokens(engine: VllmEngine) -> None:
    for sampling in (Sampling(stop=("c", "f")), Sampling(stop=("c",), temperature=1.0, seed=2)):
        for prompt, (said,) in zip(prompts(engine), engine.complete(prompts(engine), sampling.fields(1)), strict=True):
            ends = [said.text + end for end in ("</s>", *sampling.stop)] if said.finished else [said.text]
            assert any(said.logprob == pytest.approx(score(engine, prompt, text), rel=1e-12) for text in ends)


def test_a_text_that_is_cut_is_not_finished(engine: VllmEngine) -> None:
    first = int(LOGPROBS[2].argmax())
    (said,) = engine.complete([Prompt((2,), "key")], Sampling(max_tokens=1, stop=()).fields(1))[0]
    assert said == Completion(
        text=LETTERS[first] if first > END else "",
        logprob=float(LOGPROBS[2, first]),
        tokens=1,
        finished=first == END,
    )


def test_a_draw_does_not_depend_on_its_neighbours(engine: VllmEngine) -> None:
    sampling, asked = Sampling(temperature=0.9, top_k=5, top_p=0.8, seed=4, stop=("h",)), prompts(engine)
    together = engine.complete(asked, sampling.fields(3))
    assert [engine.complete([prompt], sampling.fields(3))[0] for prompt in asked] == together
    assert [texts[:2] for texts in together] == engine.complete(asked, sampling.fields(2))
    seeds = [one.seed for one in LLM.asked[0]]
    assert len(set(seeds)) == len(seeds) == 15
    other = Sampling(temperature=0.9, top_k=5, top_p=0.8, seed=5, stop=("h",))
    engine.complete(asked, other.fields(3))
    assert not set(seeds) & {one.seed for one in LLM.asked[-1]}


def test_what_the_request_says_is_asked_and_nothing_else(engine: VllmEngine) -> None:
    sampling = Sampling(max_tokens=9, temperature=0.9, top_k=5, top_p=0.8, seed=4, stop=("h",))
    engine.complete(prompts(engine)[:1], sampling.fields(1))
    ((asked,),) = LLM.asked
    assert asked == SamplingParams(
        max_tokens=9, temperature=0.9, top_k=5, top_p=0.8, stop=["h"], logprobs=0, seed=asked.seed
    )
    engine.complete(prompts(engine)[:1], Sampling(max_tokens=9).fields(1))
    assert LLM.asked[-1] == [
        SamplingParams(max_tokens=9, temperature=0.0, stop=["\n"], logprobs=0, seed=LLM.asked[-1][0].seed)
    ]


def test_log_likelihoods_add_up_over_a_continuation(engine: VllmEngine) -> None:
    done: list[int] = []
    pairs = [((0, 2), (3,)), ((0, 2, 3), (4, 5)), ((0, 2), (3, 4, 5))]
    first, second, whole = engine.loglikelihoods(pairs, tick=done.append)
    assert first == LOGPROBS[2, 3]
    assert whole == pytest.approx(first + second)
    assert sum(done) == 3
    assert LLM.asked[-1][0].prompt_logprobs == 0


def test_nothing_to_ask_gives_nothing(engine: VllmEngine) -> None:
    assert engine.complete([], Sampling().fields(1)) == []
    assert engine.loglikelihoods([]).shape == (0,)
    assert LLM.asked == []


def test_settings_of_the_user_are_left_alone(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    load_vllm(folder, IDENTITY)
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


def test_it_says_what_runs(engine: VllmEngine) -> None:
    pytest.importorskip("transformers", reason="vLLM brings torch and transformers, which are not here")
    assert engine.provenance()["engine"] == "vllm"
    assert engine.provenance()["versions"]["vllm"] == "0.33.0"


def test_what_it_cannot_do_is_refused_before_anything_is_asked(
    engine: VllmEngine, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnsupportedError, match="3 likeliest texts"):
        engine.complete(prompts(engine), Sampling().fields(3))
    for temperature in (0.001, 2.5):
        with pytest.raises(UnsupportedError, match=f"not at {temperature}"):
            engine.complete(prompts(engine), Sampling(temperature=temperature).fields(1))
    assert LLM.asked == []
    with pytest.raises(UnsupportedError, match="no adapter"):
        load_vllm(folder, IDENTITY, adapter=folder)
    monkeypatch.setattr(LLM, "__init__", lambda *_, **__: (_ for _ in ()).throw(ValueError("no GPU")))
    with pytest.raises(UnsupportedError, match="no GPU"):
        load_vllm(folder, IDENTITY)
    (tmp_path / "config.json").write_text('{"is_encoder_decoder": true}')
    with pytest.raises(UnsupportedError, match="encoder-decoder"):
        load_vllm(folder, IDENTITY)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigurationError, match="Take xllamacpp"):
        load_vllm(str(tmp_path / "model.gguf"), IDENTITY)


def test_without_it_the_message_says_how_to_install_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match="pip install vllm"):
        load_vllm(folder, IDENTITY)
