"""How many tokens requests have, counted or estimated without running a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from counterplay.llm.files import quiet
from counterplay.llm.models import resolve
from counterplay.llm.prompting.requests import Request

COUNTED = 2_000
"""Of more requests, so many are looked at, evenly spaced."""

BYTES = 4.0
"""Bytes of UTF-8 a token where nothing better is known: usual for English text, too many for most other languages."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """``count`` tokens, and in words how it is known: ``basis``."""

    count: int
    basis: str


def texts_read(request: Request) -> list[str]:
    """What a model reads for one request, piece by piece; a ranking has two pieces for each candidate.

    The preamble counts with every prompt that it stands before, as a service would bill it. A model that runs here
    reads what prompts have in common only once.
    """
    if "messages" in request:
        return [message["content"] for message in request["messages"]]
    prompts = request.get("prompts") or [request["prompt"]]
    return [*(request["preamble"] + prompt for prompt in prompts), *request.get("continuations", ())]


def bytes_read(request: Request) -> int:
    """Bytes of UTF-8 that a model reads for one request."""
    return sum(len(text.encode()) for text in texts_read(request))


def count_read(requests: Sequence[Request], model: str) -> Tokens:
    """Tokens that a model which runs here is to read, by its own tokenizer, special tokens included.

    ``model``: its spec. Where the libraries that read a tokenizer are not installed, an estimate by bytes. Errors:
    `FileError` for a model that is not there.
    """
    lengths_of = _tokenizer(model)
    if lengths_of is None:
        return estimate_read(requests, 1 / BYTES, "an estimate, 4 bytes a token: the tokenizer needs the extra `llm`")

    def count(some: Sequence[Request]) -> int:
        texts = [texts_read(request) for request in some]
        # Most prompts of a ranking stand in many requests.
        distinct = list({text: None for group in texts for text in group})
        lengths = dict(zip(distinct, lengths_of(distinct), strict=True))
        return sum(lengths[text] for group in texts for text in group)

    return _scaled(requests, count, "by the model's tokenizer")


def estimate_read(requests: Sequence[Request], tokens_a_byte: float, basis: str) -> Tokens:
    """Tokens to read, from bytes. ``basis``: where the rate is from."""
    total = _scaled(requests, lambda some: round(tokens_a_byte * sum(map(bytes_read, some))), "")
    return Tokens(count=total.count, basis=basis)


def _scaled(requests: Sequence[Request], count: Callable[[Sequence[Request]], int], basis: str) -> Tokens:
    if len(requests) <= COUNTED:
        return Tokens(count=count(requests), basis=f"counted {basis}")
    places = np.linspace(0, len(requests) - 1, COUNTED).round().astype(int).tolist()
    found = count([requests[place] for place in places])
    return Tokens(
        count=round(found * len(requests) / COUNTED),
        basis=f"about, {COUNTED:,} of {len(requests):,} requests counted {basis}",
    )


def _tokenizer(spec: str) -> Callable[[list[str]], list[int]] | None:
    """How many tokens texts have for a model; None where the libraries that say it are not installed."""
    path = resolve(spec)
    try:
        return _of_folder(path) if path.is_dir() else _of_gguf(path)
    except ImportError:
        return None


def _of_folder(folder: Path) -> Callable[[list[str]], list[int]]:
    # Not by transformers, which takes seconds to import.
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda texts: [len(found.ids) for found in tokenizer.encode_batch(texts)]


def _of_gguf(file: Path) -> Callable[[list[str]], list[int]]:
    with quiet():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    return lambda texts: [len(ids) for ids in tokenizer(texts).input_ids] if texts else []
