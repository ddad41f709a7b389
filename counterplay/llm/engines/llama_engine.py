"""A GGUF file that runs in this process, by llama.cpp (the package ``xllamacpp``): no torch, no transformers.

llama.cpp multiplies the quantised weights by activations that it quantises too, and the noise of that is larger than
any rounding. For SmolLM2 at four bits it is 0.04 nats a token on average between this engine and ``transformers`` in
float32, and up to 0.25 nats within this engine, between a prompt that is read at once and one that is read token by
token. So that a number belongs to its request all the same, every request is computed in one way: all but the last
token of a prompt are read at once, with nothing kept from other prompts; what follows is read token by token, whether
the model has written it or it was given; and each sequence has its own memory.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, UnsupportedError
from counterplay.llm.engines.drawing import uniforms
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.llama_server import Answer, LlamaServer, Work, library
from counterplay.llm.engines.scoring import Pair
from counterplay.llm.models import ModelIdentity, resolve

CONTEXT = 2048
"""Tokens of memory that a sequence has to begin with; it grows when a request needs more."""

LEAST_LOGPROB = math.log(2.0**-149)
"""The least log-probability of a token: llama.cpp takes the softmax in single precision."""

_FORCED = 1e9
# The last of the 2^32 seeds stands for "take one at random".
_SEEDS = 2**32 - 1


def load_llama(spec: str, identity: ModelIdentity, *, adapter: str | Path | None = None) -> LlamaEngine:
    """Load a GGUF file into llama.cpp, on whatever device the installed ``xllamacpp`` was built for.

    Errors: `MissingExtraError` without ``xllamacpp``; `ConfigurationError` for a folder of safetensors;
    `UnsupportedError` for an adapter; `FileError` for a file that llama.cpp cannot read. Weights that were damaged
    without a change of the file's size load all the same, as in any engine: only ``identity`` tells them.
    """
    path = resolve(spec)
    if path.is_dir():
        raise ConfigurationError(f"xllamacpp runs GGUF files, and '{spec}' is a folder. Take the engine transformers.")
    if adapter is not None:
        raise UnsupportedError("xllamacpp takes no PEFT adapter. Take the engine transformers, or merge the adapter.")
    return LlamaEngine(identity, path)


class LlamaEngine:
    """A loaded GGUF file; an `Engine` of ``counterplay.llm.engines.engine``.

    Differences to ``transformers``: a text ends at every token that llama.cpp counts among the ends of a text (the
    file's, and others by their names, such as ``<|endoftext|>``); a search with beams is refused; draws come from
    llama.cpp's own generator, seeded by the request, and are others than those of ``transformers``. Log-probabilities
    are those of the model before temperature, top-k and top-p, with an error of some 1e-4 nats a token, since
    llama.cpp adds up its softmax in single precision.
    """

    def __init__(self, identity: ModelIdentity, path: Path) -> None:
        self.identity = identity
        self._path = path
        self._server = LlamaServer(path, CONTEXT)
        meta = self._server.ask("GET", "/v1/models")["data"][0]["meta"]
        self.limit: int | None = int(meta["n_ctx_train"]) or None
        self._vocabulary = int(meta["n_vocab"])
        plain, marked = self.encode("a"), self._server.tokens("a", marked=True)
        start = next((i for i in range(len(marked)) if marked[i : i + len(plain)] == plain), 0)
        self._beginning = tuple(marked[:start])
        self._plain_token = plain[-1]
        self._gpus = [device["description"] for device in library().get_device_info() if "GPU" in device["type"].name]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no beginning is added."""
        return self._server.tokens(text, marked=False)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of what the model is to read, with the beginning that its tokenizer gives every text; a beginning
        that stands in the text already, as in a chat, is not repeated."""
        ids = tuple(self.encode(text))
        before = () if ids[: len(self._beginning)] == self._beginning else self._beginning
        return before + ids

    def complete(
        self, prompts: Sequence[Prompt], sampling: Mapping[str, Any], *, tick: Callable[[float], None] | None = None
    ) -> list[list[Completion]]:
        """The completions of each prompt: see `counterplay.llm.engines.generation.complete`.

        The log-probability is that of all tokens that were written, those of the stop string or the end included.
        Errors: `UnsupportedError` for a search with beams.
        """
        if int(sampling["beams"]) > 1:
            raise UnsupportedError(
                f"xllamacpp has no search for the {sampling['beams']} likeliest texts. Draw them at a temperature "
                "above 0, ask for the best alone, or take the engine transformers."
            )
        room = int(sampling["max_tokens"])
        self._make_room(max((len(prompt.ids) + room for prompt in prompts), default=0))

        def write(prompt: Prompt) -> Work[list[Completion]]:
            yield from _read(prompt.ids)
            completions: list[Completion] = []
            for seed in _seeds(prompt.key, sampling, int(sampling["n"])):
                completions.append((yield from self._completion(_wanted(prompt.ids, sampling, seed))))
            if tick is not None:
                tick(1.0)
            return completions

        return self._server.each(write(prompt) for prompt in prompts)

    def loglikelihoods(
        self, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """log p(continuation | prompt) of each pair of token ids, in nats: shape ``(len(pairs),)``.

        Every token of a continuation is taken in turn, whatever the model prefers, and its own log-probability read;
        pairs with one prompt share the reading of it. A token's is never below `LEAST_LOGPROB` (-103.3).
        """
        self._make_room(max((len(prompt) + len(rest) for prompt, rest in pairs), default=0))
        order = sorted(range(len(pairs)), key=lambda i: pairs[i])
        groups = [list(group) for _, group in groupby(order, key=lambda i: pairs[i][0])]
        scores = np.empty(len(pairs), dtype=np.float64)

        def score(group: Sequence[int]) -> Work[None]:
            prompt = pairs[group[0]][0]
            yield from _read(prompt)
            for index in group:
                values = yield from self._steps(prompt, pairs[index][1], 0)
                scores[index] = math.fsum(values)
                if tick is not None:
                    tick(1)

        self._server.each(score(group) for group in groups)
        return scores

    def provenance(self) -> dict[str, Any]:
        """``engine``, ``device``, ``versions``: what runs, and where."""
        device = {"device": "gpu", "device_name": ", ".join(self._gpus)} if self._gpus else {"device": "cpu"}
        versions = {name: importlib.metadata.version(name) for name in ("counterplay", "xllamacpp", "numpy")}
        return {"engine": "xllamacpp", **device, "versions": versions}

    def _make_room(self, tokens: int) -> None:
        """Memory for sequences so long: the model is loaded again, since llama.cpp cannot enlarge what it has."""
        if tokens > self._server.context:
            # The old one is let go first: both at once may not fit.
            del self._server
            self._server = LlamaServer(self._path, 1 << (tokens - 1).bit_length())

    def _completion(self, asked: dict[str, Any]) -> Work[Completion]:
        answer = yield asked
        ids, told = answer["tokens"], _told(answer)
        # One that is told out of its place follows one that is not told.
        aligned = [one["id"] for one in told] == ids[: len(told)]
        values = [_logprob(one) for one in told] if aligned else []
        # The server keeps to itself the tokens of the stop string, and those that end inside a character.
        values += yield from self._steps(asked["prompt"], ids, len(values))
        return Completion(
            text=answer["content"].strip(),
            logprob=math.fsum(values),
            tokens=len(ids),
            finished=answer["stop_type"] in ("eos", "word"),
        )

    def _steps(self, prompt: Sequence[int], ids: Sequence[int], start: int) -> Work[list[float]]:
        """Log-probabilities of ``ids[start:]`` after the prompt, which the sequence has read, and ``ids[:start]``."""
        values: list[float] = []
        for place in range(start, len(ids)):
            asked = _forced([*prompt, *ids[:place]], ids[place])
            found = _told((yield asked))
            if not found:
                # The token ends inside a character, and is told only among all others.
                answer = yield {**_forced(asked["prompt"], self._plain_token), "n_probs": self._vocabulary}
                found = [one for one in _told(answer)[0]["top_logprobs"] if one["id"] == ids[place]]
            values.append(_logprob(found[0]))
        return values


def _wanted(ids: Sequence[int], sampling: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """One text, drawn as the request says and by nothing else.

    llama.cpp takes what is not said from its own defaults (top-k 40, min-p 0.05) and from the file. So the samplers are
    named, in the order of ``transformers``: penalties, DRY, XTC, min-p and typical-p are not among them.
    """
    drawn = sampling["temperature"] > 0
    samplers = ["temperature"]
    if drawn and sampling["top_k"] is not None:
        samplers.append("top_k")
    if drawn and sampling["top_p"] < 1:
        samplers.append("top_p")
    return {
        "prompt": list(ids),
        "n_predict": int(sampling["max_tokens"]),
        "stop": list(sampling["stop"]),
        "temperature": float(sampling["temperature"]),
        "top_k": int(sampling["top_k"] or 0),
        "top_p": float(sampling["top_p"]),
        "seed": seed,
        "samplers": samplers,
        "min_keep": 0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "logit_bias": [],
        "grammar": "",
        "ignore_eos": False,
        "n_probs": 1,
        "post_sampling_probs": False,
        "return_tokens": True,
        "cache_prompt": True,
        "stream": False,
    }


def _seeds(key: str, sampling: Mapping[str, Any], count: int) -> list[int]:
    """Of each draw, from the request's key and seed; what stands beside a request does not matter."""
    numbers = uniforms(key, int(sampling["seed"] or 0), count, 1)[:, 0]
    return [int(number * _SEEDS) for number in numbers]


def _forced(ids: Sequence[int], token: int) -> dict[str, Any]:
    """The next token after ``ids``, whatever the model prefers."""
    greedy: dict[str, Any] = {"max_tokens": 1, "temperature": 0, "top_k": None, "top_p": 1, "stop": []}
    return {**_wanted(ids, greedy, 0), "logit_bias": [[token, _FORCED]]}


def _read(prompt: Sequence[int]) -> Work[None]:
    """All but the last token of a prompt, read at once, with nothing kept from before."""
    yield {**_forced(prompt[:-1] or prompt, prompt[-1]), "cache_prompt": False, "n_probs": 0}


def _told(answer: Answer) -> list[Any]:
    """The tokens whose log-probabilities the server gives: those that end between two characters."""
    told: list[Any] = answer.get("completion_probabilities", [])
    return told


def _logprob(token: Mapping[str, Any]) -> float:
    """NaN where the model's logits are none."""
    return math.nan if token["logprob"] is None else max(float(token["logprob"]), LEAST_LOGPROB)
