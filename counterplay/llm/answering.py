"""Asking a loaded model: requests in, outputs out.

Nothing here knows a log or a cache. The same function answers for ``counterplay generate`` and for the demo's data.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from counterplay.errors import ConfigurationError
from counterplay.llm.generation import complete
from counterplay.llm.models import LanguageModel
from counterplay.llm.requests import Request
from counterplay.llm.scoring import Pair, loglikelihoods
from counterplay.logs.outputs import Output

LIBRARIES = ("counterplay", "torch", "transformers", "numpy")


def answer(
    model: LanguageModel, requests: Sequence[Request], *, tick: Callable[[float], None] | None = None
) -> list[Output]:
    """The output of each request, in their order. ``tick(r)``: so many requests more are done (may be a fraction)."""
    foreign = next((r for r in requests if r["revision"] != model.identity.revision), None)
    if foreign is not None:
        raise ConfigurationError(
            f"A request is for revision {foreign['revision'][:12]} of {foreign['model']}; "
            f"the loaded model is {model.identity.model}, revision {model.identity.revision[:12]}. Load that one."
        )
    provenance = provenance_of(model)
    rankings = [request for request in requests if request["operation"] == "loglikelihood"]
    scored = iter(_rank(model, rankings, provenance, tick))
    outputs = []
    for request in requests:
        if request["operation"] == "loglikelihood":
            outputs.append(next(scored))
        else:
            outputs.append(_generate(model, request, provenance))
            if tick is not None:
                tick(1.0)
    return outputs


def provenance_of(model: LanguageModel) -> dict[str, Any]:
    """What ran, where and when: stored beside an output, no part of its key."""
    return {
        "provenance": "recorded",
        "engine": "transformers",
        "device": str(model.device),
        "hardware": platform.machine(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _rank(
    model: LanguageModel,
    requests: Sequence[Request],
    provenance: dict[str, Any],
    tick: Callable[[float], None] | None,
) -> list[Output]:
    grouped = [_pairs(model, request) for request in requests]
    pairs = [pair for group in grouped for pair in group]
    share = len(requests) / len(pairs) if pairs else 0.0
    scores = loglikelihoods(model, pairs, tick=None if tick is None else lambda done: tick(done * share))
    outputs, start = [], 0
    for request, group in zip(requests, grouped, strict=True):
        response = {
            "logprobs": [float(score) for score in scores[start : start + len(group)]],
            "tokens": [len(continuation) for _, continuation in group],
        }
        seen = {**provenance, "token_ids_sha256": token_hash([prompt + rest for prompt, rest in group])}
        outputs.append(Output(request=request, response=response, provenance=seen))
        start += len(group)
    return outputs


def _pairs(model: LanguageModel, request: Request) -> list[Pair]:
    pairs = [
        (tuple(model.encode(request["preamble"] + prompt)), tuple(model.encode(continuation)))
        for prompt, continuation in zip(request["prompts"], request["continuations"], strict=True)
    ]
    if not all(prompt and continuation for prompt, continuation in pairs):
        raise ConfigurationError("A prompt or a continuation is empty; nothing can be scored. Mend the template.")
    return pairs


def _generate(model: LanguageModel, request: Request, provenance: dict[str, Any]) -> Output:
    ids = model.encode(request["preamble"] + request["prompt"])
    completions = complete(model, ids, request["sampling"])
    response = {
        "texts": [completion.text for completion in completions],
        "logprobs": [completion.logprob for completion in completions],
        "tokens": [completion.tokens for completion in completions],
    }
    status = "ok" if all(completion.finished for completion in completions) else "truncated"
    seen = {**provenance, "token_ids_sha256": token_hash([tuple(ids)])}
    return Output(request=request, response=response, status=status, provenance=seen)


def token_hash(sequences: Sequence[tuple[int, ...]]) -> str:
    """SHA-256 of token ids: tells a changed tokenizer from a changed model when the same text gives another output."""
    return hashlib.sha256(repr([list(ids) for ids in sequences]).encode()).hexdigest()
