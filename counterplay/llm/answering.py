"""Asking a loaded model: requests in, outputs out.

Nothing here knows a log or a cache. The same function answers for ``counterplay generate`` and for the demo's data.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.endpoints.dialects import TRUNCATED
from counterplay.llm.engines.engine import Engine
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.scoring import Pair
from counterplay.llm.prompting.requests import Request
from counterplay.logs.outputs import ERROR, OK, Output, canonical_json, request_key

NAMED = 3
"""Prompts that an error names."""

ROOM = 8
"""Tokens that a tokenizer may put around a text, generously."""


def answer(model: Engine, requests: Sequence[Request], *, tick: Callable[[float], None] | None = None) -> list[Output]:
    """The output of each request, in their order. ``tick(r)``: so many requests more are done (may be a fraction).

    A request whose log-probabilities are no numbers has the status ``error``. Errors: `ConfigurationError` for a
    request for other weights; `InputError` for an empty prompt or continuation, and for prompts longer than the model
    can look at, all of which are counted before any is asked.
    """
    foreign = next((r for r in requests if _identity_of(r) != _identity_of(vars(model.identity))), None)
    if foreign is not None:
        raise ConfigurationError(
            f"A request is for revision {foreign['revision'][:12]} of {foreign['model']} in {foreign['dtype']}; the "
            f"loaded model is {model.identity.model}, revision {model.identity.revision[:12]} in "
            f"{model.identity.dtype}. Load that one."
        )
    pairs = {at: _pairs(model, r) for at, r in enumerate(requests) if r["operation"] == "loglikelihood"}
    prompts = {at: _prompt(model, r) for at, r in enumerate(requests) if at not in pairs}
    _refuse_too_long(model, requests, _lengths(requests, pairs, prompts))
    found = _rank(model, requests, pairs, tick) | _complete(model, requests, prompts, tick)
    return [found[at] for at in range(len(requests))]


def provenance_of(model: Engine) -> dict[str, Any]:
    """What ran, where and when: stored beside an output, no part of its key."""
    return {
        "provenance": "recorded",
        "hardware": platform.machine(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        **model.provenance(),
    }


def _identity_of(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(fields[name] for name in ("revision", "tokenizer", "adapter", "dtype"))


def _rank(
    model: Engine,
    requests: Sequence[Request],
    grouped: Mapping[int, list[Pair]],
    tick: Callable[[float], None] | None,
) -> dict[int, Output]:
    pairs = [pair for group in grouped.values() for pair in group]
    share = len(grouped) / len(pairs) if pairs else 0.0
    started = time.monotonic()
    scores = model.loglikelihoods(pairs, tick=None if tick is None else lambda done: tick(done * share))
    provenance = {**provenance_of(model), "seconds": _each(started, len(grouped))} if grouped else {}
    outputs, start = dict[int, Output](), 0
    for at, group in grouped.items():
        own = scores[start : start + len(group)]
        response: dict[str, Any] = {
            "logprobs": [float(score) for score in own],
            "tokens": [len(continuation) for _, continuation in group],
        }
        seen = {**provenance, "token_ids_sha256": token_hash([prompt + rest for prompt, rest in group])}
        outputs[at] = _output(requests[at], response, OK, seen, response["logprobs"])
        start += len(group)
    return outputs


def _complete(
    model: Engine,
    requests: Sequence[Request],
    prompts: Mapping[int, Prompt],
    tick: Callable[[float], None] | None,
) -> dict[int, Output]:
    alike: dict[str, list[int]] = {}
    for at in prompts:
        alike.setdefault(canonical_json(requests[at]["sampling"]), []).append(at)
    outputs: dict[int, Output] = {}
    for places in alike.values():
        started = time.monotonic()
        found = model.complete([prompts[at] for at in places], requests[places[0]]["sampling"], tick=tick)
        provenance = {**provenance_of(model), "seconds": _each(started, len(places))}
        for at, completions in zip(places, found, strict=True):
            seen = {**provenance, "token_ids_sha256": token_hash([prompts[at].ids])}
            outputs[at] = _completed(requests[at], completions, seen)
    return outputs


def _completed(request: Request, completions: Sequence[Completion], provenance: Mapping[str, Any]) -> Output:
    logprobs = [completion.logprob for completion in completions]
    response = {
        "texts": [completion.text for completion in completions],
        "logprobs": logprobs,
        "tokens": [completion.tokens for completion in completions],
    }
    status = OK if all(completion.finished for completion in completions) else TRUNCATED
    return _output(request, response, status, provenance, logprobs)


def _output(
    request: Request, response: Mapping[str, Any], status: str, provenance: Mapping[str, Any], logprobs: Sequence[float]
) -> Output:
    if not np.isfinite(logprobs).all():
        status = ERROR
        response = {
            "error": "The model's logits are not finite: its weights are damaged, or the precision "
            f"{request['dtype']} is too small for them. float32 and bfloat16 have room for larger numbers than float16."
        }
    return Output(request=request, response=response, status=status, provenance=provenance)


def _each(started: float, count: int) -> float:
    """Seconds of one of them, to four digits: a plan is made of these."""
    return float(f"{(time.monotonic() - started) / count:.4g}")


def _prompt(model: Engine, request: Request) -> Prompt:
    return Prompt(ids=_read(model, request, request["prompt"]), key=request_key(request))


def _pairs(model: Engine, request: Request) -> list[Pair]:
    pairs = []
    for prompt, continuation in zip(request["prompts"], request["continuations"], strict=True):
        ids = tuple(model.encode(continuation))
        if not ids:
            raise InputError(
                f"The continuation of the prompt '...{prompt[-40:]}' is empty; nothing can be scored. Mend the block "
                "'continuation' of the template, or the texts of the actions."
            )
        pairs.append((_read(model, request, prompt), ids))
    return pairs


def _read(model: Engine, request: Request, prompt: str) -> tuple[int, ...]:
    """Token ids of a prompt; a beginning that the tokenizer adds does not make an empty one a prompt."""
    text = request["preamble"] + prompt
    ids = model.prompt(text) if text else ()
    if not ids:
        raise InputError(
            f"A prompt of the request {request_key(request)[:12]} is empty; nothing can be asked. Mend the template."
        )
    return ids


def check_lengths(model: Engine, requests: Sequence[Request]) -> None:
    """Refuse prompts that are longer than the model can look at, all at once, before any is asked.

    A text has no more tokens than bytes, so most need not be encoded to know that they fit.
    """
    if model.limit is None:
        return
    long = [request for request in requests if _bytes_of(request) > model.limit]
    pairs = {at: _pairs(model, r) for at, r in enumerate(long) if r["operation"] == "loglikelihood"}
    prompts = {at: _prompt(model, r) for at, r in enumerate(long) if at not in pairs}
    _refuse_too_long(model, long, _lengths(long, pairs, prompts))


def _bytes_of(request: Request) -> int:
    if "prompt" in request:
        return len((request["preamble"] + request["prompt"]).encode()) + int(request["sampling"]["max_tokens"]) + ROOM
    pairs = zip(request["prompts"], request["continuations"], strict=True)
    longest = max((len((prompt + rest).encode()) for prompt, rest in pairs), default=0)
    return longest + len(request["preamble"].encode()) + ROOM


def _lengths(
    requests: Sequence[Request], pairs: Mapping[int, list[Pair]], prompts: Mapping[int, Prompt]
) -> dict[int, int]:
    """Tokens that the model looks at for each request, by its place."""
    lengths = {at: max(len(prompt) + len(rest) for prompt, rest in group) for at, group in pairs.items()}
    return lengths | {at: len(own.ids) + int(requests[at]["sampling"]["max_tokens"]) for at, own in prompts.items()}


def _refuse_too_long(model: Engine, requests: Sequence[Request], lengths: Mapping[int, int]) -> None:
    limit = model.limit
    over = [at for at, length in lengths.items() if limit is not None and length > limit]
    if not over:
        return
    over.sort(key=lambda at: -lengths[at])
    shown = "; ".join(f"{lengths[at]:,} tokens: '...{_text_of(requests[at])[-40:]}'" for at in over[:NAMED])
    raise InputError(
        f"{len(over):,} prompts, with what is to be written after them, are longer than the {limit:,} tokens that "
        f"{model.identity.model} can look at ({shown}). None of them was asked. Cut the texts (--cut), shorten the "
        "template, or take a model that looks at more."
    )


def _text_of(request: Request) -> str:
    return str(request["prompt"] if "prompt" in request else request["prompts"][0])


def token_hash(sequences: Sequence[tuple[int, ...]]) -> str:
    """SHA-256 of token ids: tells a changed tokenizer from a changed model when the same text gives another output."""
    return hashlib.sha256(repr([list(ids) for ids in sequences]).encode()).hexdigest()
