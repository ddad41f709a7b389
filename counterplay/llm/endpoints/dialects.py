"""What services answer, read into one shape.

Four dialects: ``openai`` (chat and completions; also vLLM, llama.cpp and whatever else speaks it), ``anthropic`` (a
message), ``gemini`` (candidates; Vertex too). A dialect says how a text ended, and only a text that ended by itself, or
at a stop string, is ``ok``:

- ``truncated``: the limit of tokens cut it; ``refused``: a content filter or the model declined;
- ``error``: the service failed, or the answer is not of the shape that it should have. Never served, kept to be read.

Whatever is not understood is an error that says so; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterplay.errors import InputError
from counterplay.logs.outputs import ERROR, OK, canonical_json

TRUNCATED = "truncated"
REFUSED = "refused"

_ENDINGS = {
    # OpenAI
    "stop": OK,
    "length": TRUNCATED,
    "content_filter": REFUSED,
    # Anthropic
    "end_turn": OK,
    "stop_sequence": OK,
    "max_tokens": TRUNCATED,
    "model_context_window_exceeded": TRUNCATED,
    "refusal": REFUSED,
    # Gemini
    "STOP": OK,
    "MAX_TOKENS": TRUNCATED,
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), REFUSED),
}
_WORST_FIRST = (ERROR, REFUSED, TRUNCATED, OK)
_SHOWN = 500
_LARGEST = 1e9  # nats of one token; JSON can also say 1e999, which is no number here


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``response``: ``texts``, ``logprobs`` (nats of each text, None where the service gives none) and ``tokens``; for
    an error: ``error``, and ``body`` where there is something to show. ``seen``: what goes into the provenance."""

    response: Mapping[str, Any]
    status: str
    seen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Text:
    text: Any
    ending: Any
    logprobs: Sequence[Any] | None = None
    refused: bool = False


def failure(message: str, *, status: str = ERROR, body: object = None, seen: Mapping[str, Any] | None = None) -> Answer:
    """An answer that is none: why, and the beginning of what came instead."""
    response = {"error": _printable(message)[:_SHOWN]}
    if body:
        response["body"] = _printable(body if isinstance(body, str) else repr(body))[:_SHOWN]
    return Answer(response=response, status=status, seen=seen or {})


def read_openai(body: object, count: int) -> Answer:
    """The answer in the body of ``/chat/completions`` or ``/completions``; ``count``: texts that were asked for."""
    choices = part(body, "choices")
    if not isinstance(choices, list):
        message = error_message(part(body, "error")) or "the answer has no 'choices'"
        return failure(message, body=body)
    texts = [_openai_text(choice) for choice in sorted(choices, key=_index)]
    usage = {
        "prompt_tokens": part(body, "usage", "prompt_tokens"),
        "completion_tokens": part(body, "usage", "completion_tokens"),
    }
    return _answer(texts, count, body, usage, "id", "model")


def read_anthropic(body: object, count: int) -> Answer:
    """The answer in an Anthropic message; its blocks of text are one text, other blocks (thinking) are left out."""
    content = part(body, "content")
    if not isinstance(content, list):
        return failure("the message has no list 'content'", body=body)
    words = [part(block, "text") for block in content if part(block, "type") == "text"]
    text = "".join(words) if all(isinstance(word, str) for word in words) else None
    usage = {
        "prompt_tokens": part(body, "usage", "input_tokens"),
        "completion_tokens": part(body, "usage", "output_tokens"),
    }
    return _answer([_Text(text=text, ending=part(body, "stop_reason"))], count, body, usage, "id", "model")


def read_gemini(body: object, count: int) -> Answer:
    """The answer in ``candidates``; parts marked as thoughts are left out."""
    blocked = part(body, "promptFeedback", "blockReason")
    if isinstance(blocked, str):
        return failure(f"the prompt was blocked: {blocked}", status=REFUSED, body=body)
    candidates = part(body, "candidates")
    if not isinstance(candidates, list):
        return failure(error_message(part(body, "error")) or "the answer has no 'candidates'", body=body)
    thoughts, written = (part(body, "usageMetadata", name) for name in ("thoughtsTokenCount", "candidatesTokenCount"))
    usage = {
        "prompt_tokens": part(body, "usageMetadata", "promptTokenCount"),
        "completion_tokens": written + (thoughts if _whole(thoughts) else 0) if _whole(written) else None,
    }
    texts = [_gemini_text(candidate) for candidate in sorted(candidates, key=_index)]
    return _answer(texts, count, body, usage, "responseId", "modelVersion")


def error_message(error: object) -> str | None:
    """The words of an error, wherever the dialect keeps them; None if there is no error."""
    if not error:
        return None
    inner = part(error, "error")
    if isinstance(inner, Mapping):
        return error_message(inner)
    said = [part(error, name) for name in ("type", "code", "status", "message")]
    words = [str(word) for word in said if isinstance(word, str | int)]
    return _printable(": ".join(dict.fromkeys(words)) or str(inner or error))[:_SHOWN]


def part(value: object, *path: str) -> Any:
    """What stands at a path of names in parsed JSON; None where there is nothing."""
    for name in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def _openai_text(choice: object) -> _Text:
    ending = part(choice, "finish_reason")
    if not isinstance(part(choice, "message"), Mapping):
        return _Text(text=part(choice, "text"), ending=ending, logprobs=part(choice, "logprobs", "token_logprobs"))
    tokens = part(choice, "logprobs", "content")
    logprobs = [part(token, "logprob") for token in tokens] if isinstance(tokens, list) else None
    text, refusal = part(choice, "message", "content"), part(choice, "message", "refusal")
    if refusal:
        return _Text(text=refusal, ending=ending, refused=True)
    if text is None and _status(ending) in (REFUSED, TRUNCATED):
        text = ""  # all tokens went into a reasoning that is not shown, or the filter took the text away
    return _Text(text=text, ending=ending, logprobs=logprobs)


def _gemini_text(candidate: object) -> _Text:
    ending, parts = part(candidate, "finishReason"), part(candidate, "content", "parts")
    if not isinstance(parts, list):
        return _Text(text="" if _status(ending) in (REFUSED, TRUNCATED) else None, ending=ending)
    words = [part(piece, "text") for piece in parts if not part(piece, "thought")]
    return _Text(text="".join(words) if all(isinstance(word, str) for word in words) else None, ending=ending)


def _answer(
    texts: Sequence[_Text], count: int, body: object, usage: Mapping[str, Any], name: str, model: str
) -> Answer:
    seen = {
        "response_id": part(body, name),
        "served_model": part(body, model),
        "system_fingerprint": part(body, "system_fingerprint"),
        "usage": {key: value for key, value in usage.items() if _whole(value)} or None,
        "finish_reasons": [text.ending for text in texts],
    }
    seen = {key: value for key, value in seen.items() if value is not None}
    try:
        canonical_json(seen)
    except InputError:
        return failure("the answer's identifiers are no plain text", body=body)
    if len(texts) != count:
        return failure(f"{count} texts were asked for, {len(texts)} came", body=body, seen=seen)
    if strange := next((text for text in texts if not _readable(text)), None):
        return failure(f"a text that ended with '{strange.ending}' is no answer", body=body, seen=seen)
    statuses = [REFUSED if text.refused else _status(text.ending) for text in texts]
    logprobs, tokens = _logprobs(texts), _tokens(texts, usage)
    response = {"texts": [text.text.strip() for text in texts], "logprobs": logprobs, "tokens": tokens}
    return Answer(response=response, status=min(statuses, key=_WORST_FIRST.index), seen=seen)


def _readable(text: _Text) -> bool:
    """Whether there is a text of whole characters that ended in a way that is known."""
    return isinstance(text.text, str) and _printable(text.text) == text.text and _status(text.ending) != ERROR


def _status(ending: object) -> str:
    return _ENDINGS.get(ending, ERROR) if isinstance(ending, str) else ERROR


def _logprobs(texts: Sequence[_Text]) -> list[float] | None:
    """Of all texts or of none: they are weighed against each other."""
    sums = []
    for text in texts:
        values = text.logprobs
        if not isinstance(values, list) or not values or not all(_finite(value) for value in values):
            return None
        sums.append(math.fsum(values))
    return sums


def _tokens(texts: Sequence[_Text], usage: Mapping[str, Any]) -> list[int] | None:
    if all(isinstance(text.logprobs, list) and text.logprobs for text in texts):
        return [len(text.logprobs or ()) for text in texts]
    written = usage.get("completion_tokens")
    return [int(written)] if len(texts) == 1 and written is not None and _whole(written) else None


def _index(choice: object) -> int:
    index = part(choice, "index")
    return index if _whole(index) else 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _printable(text: str) -> str:
    """The text with half surrogate pairs, which no file can hold, written out."""
    return text.encode("utf-8", "backslashreplace").decode()
