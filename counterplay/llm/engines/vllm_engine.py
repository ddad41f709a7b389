"""A folder of safetensors, by vLLM's offline engine, on a machine with a GPU.

Not run on this project's machines: tested against a stand-in with vLLM's signatures (version 0.33).
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, MissingExtraError, UnsupportedError
from counterplay.llm.engines.drawing import uniforms
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.scoring import Pair
from counterplay.llm.models import ModelIdentity, resolve

LIBRARIES = ("counterplay", "torch", "transformers", "numpy")
TEMPERATURES = (0.01, 2.0)
"""Between which vLLM draws; below the first it would silently take the first."""

SEEDS = 2**53

_SETTINGS = {
    # One process: vLLM repeats its scheduling only so, and Ctrl-C reaches it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    # It would report each start to its makers.
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, kw_only=True)
class VllmEngine:
    """A model in vLLM, an `Engine` of ``counterplay.llm.engines.engine``: ``llm`` is a ``vllm.LLM``.

    Differences to ``transformers``: no search with beams; draws come from vLLM's own generator, seeded by the request,
    and are others. A text's log-probability is vLLM's ``cumulative_logprob`` in its mode ``raw_logprobs``: of all
    tokens written, the end and those of the stop string included, before temperature, top-k and top-p. Batches are put
    together as requests come and go, so that texts of a half-precision model may change where two tokens are nearly
    tied; the setting ``VLLM_BATCH_INVARIANT=1`` of vLLM prevents it on the GPUs that it knows.
    """

    identity: ModelIdentity
    llm: Any
    beginning: tuple[int, ...] = ()
    limit: int | None = None

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no beginning is added."""
        return list(self.llm.get_tokenizer()(text, add_special_tokens=False).input_ids)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of what the model is to read, with the beginning that its tokenizer gives every text; a beginning
        that stands in the text already, as in a chat, is not repeated."""
        ids = tuple(self.encode(text))
        before = () if ids[: len(self.beginning)] == self.beginning else self.beginning
        return before + ids

    def complete(
        self, prompts: Sequence[Prompt], sampling: Mapping[str, Any], *, tick: Callable[[float], None] | None = None
    ) -> list[list[Completion]]:
        """The completions of each prompt: see `counterplay.llm.engines.generation.complete`.

        Errors: `UnsupportedError` for a search with beams, and for temperatures that vLLM does not draw at.
        """
        _refuse(sampling)
        count = int(sampling["n"])
        seeds = [uniforms(prompt.key, int(sampling["seed"] or 0), count, 1)[:, 0] for prompt in prompts]
        # A request for each draw: one of several would take its seeds from the first's.
        asked = [_parameters(sampling, int(number * SEEDS)) for numbers in seeds for number in numbers]
        outputs = self._generate([prompt.ids for prompt in prompts for _ in range(count)], asked)
        completions = [_completion(output.outputs[0]) for output in outputs]
        if tick is not None:
            tick(float(len(prompts)))
        return [completions[start : start + count] for start in range(0, len(completions), count)]

    def loglikelihoods(
        self, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """log p(continuation | prompt) of each pair of token ids, in nats: shape ``(len(pairs),)``."""
        from vllm import SamplingParams

        # vLLM writes at least one token, which nobody reads.
        asked = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        outputs = self._generate([prompt + rest for prompt, rest in pairs], [asked] * len(pairs))
        scores = [
            math.fsum(output.prompt_logprobs[len(prompt) + place][token].logprob for place, token in enumerate(rest))
            for output, (prompt, rest) in zip(outputs, pairs, strict=True)
        ]
        if tick is not None:
            tick(len(pairs))
        return np.array(scores, dtype=np.float64)

    def provenance(self) -> dict[str, Any]:
        """``engine``, ``device``, ``versions``: what runs, and where."""
        import torch
        import vllm

        cuda = torch.cuda.is_available()
        return {
            "engine": "vllm",
            "device": "cuda" if cuda else "cpu",
            **({"device_name": torch.cuda.get_device_name()} if cuda else {}),
            "versions": {"vllm": vllm.__version__, **{name: importlib.metadata.version(name) for name in LIBRARIES}},
        }

    def _generate(self, rows: Sequence[tuple[int, ...]], asked: Sequence[Any]) -> list[Any]:
        from vllm import TokensPrompt

        prompts = [TokensPrompt(prompt_token_ids=list(ids)) for ids in rows]
        return list(self.llm.generate(prompts, list(asked), use_tqdm=False)) if prompts else []


def load_vllm(spec: str, identity: ModelIdentity, *, adapter: str | Path | None = None) -> VllmEngine:
    """Load a folder of safetensors into vLLM, in the precision of the identity, quantised as the folder says.

    Nothing of the model's ``generation_config.json`` applies but its ends of a text; the longest prompt is the
    configuration's. Environment variables of vLLM that are set already are left alone.

    Not run on this project's machines: tested against a stand-in with vLLM's signatures.

    Errors: `MissingExtraError` without ``vllm``; `ConfigurationError` for a GGUF file; `UnsupportedError` for an
    adapter, an encoder-decoder, and whatever vLLM refuses.
    """
    path = resolve(spec)
    if path.is_file():
        raise ConfigurationError(f"'{spec}' is a GGUF file; vLLM runs folders of safetensors. Take xllamacpp.")
    if adapter is not None:
        raise UnsupportedError("vLLM gets no adapter here. Merge it into the model, or take the engine transformers.")
    if json.loads((path / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder"):
        raise UnsupportedError(
            f"'{spec}' is an encoder-decoder, which vLLM does not run. Take the engine transformers."
        )
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from vllm import LLM
    except ImportError as error:
        raise MissingExtraError("The engine vllm is not installed. Install it with: pip install vllm") from error
    try:
        llm = LLM(model=str(path), dtype=identity.dtype, seed=0, generation_config="vllm", logprobs_mode="raw_logprobs")
    except (ValueError, RuntimeError) as error:
        raise UnsupportedError(f"vLLM cannot run '{spec}': {error}. Take the engine transformers.") from error
    tokenizer = llm.get_tokenizer()
    plain, marked = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    start = next(i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
    # One less, since the token that vLLM writes after what it scores must find room too.
    limit = int(llm.llm_engine.model_config.max_model_len) - 1
    return VllmEngine(identity=identity, llm=llm, beginning=tuple(marked[:start]), limit=limit)


def _refuse(sampling: Mapping[str, Any]) -> None:
    if int(sampling["beams"]) > 1:
        raise UnsupportedError(
            f"vLLM is not asked for the {sampling['beams']} likeliest texts. Draw them at a temperature above 0, ask "
            "for the best alone, or take the engine transformers."
        )
    least, most = TEMPERATURES
    if sampling["temperature"] != 0 and not least <= sampling["temperature"] <= most:
        raise UnsupportedError(
            f"vLLM draws at temperatures from {least} to {most}, not at {sampling['temperature']}. Take one of these, "
            "or the engine transformers."
        )


def _parameters(sampling: Mapping[str, Any], seed: int) -> Any:
    """``SamplingParams`` of one text; what is left out is off by default: penalties, min-p, biases."""
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=int(sampling["max_tokens"]),
        temperature=float(sampling["temperature"]),
        top_p=float(sampling["top_p"]),
        top_k=int(sampling["top_k"] or 0),
        seed=seed,
        stop=list(sampling["stop"]),
        logprobs=0,
    )


def _completion(written: Any) -> Completion:
    return Completion(
        text=written.text.strip(),
        logprob=float(written.cumulative_logprob),
        tokens=len(written.token_ids),
        finished=written.finish_reason == "stop",
    )
