"""One JSON text, and one key, for each request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from counterplay.errors import InputError


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8, whole numbers without a fraction.

    Refuses with `InputError` what JSON cannot say in one way: NaN, infinities, keys that are no text, other objects.
    """
    return _text(_plain(value, "request"))


def request_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of the request's canonical JSON, as 64 hexadecimal characters."""
    return hash_of_text(canonical_json(request))


def canonical_object(text: str) -> tuple[dict[str, Any], str]:
    """The object in a JSON text, and its canonical text; by far faster than `canonical_json` of what was parsed.

    Errors: `InputError` for a text that is no JSON object, or that JSON cannot say in one way.
    """
    try:
        value = json.loads(text, parse_float=_number, parse_constant=_number)
        made = _text(value)
        made.encode()
    except (ValueError, RecursionError) as error:
        raise InputError("no JSON") from error
    if not isinstance(value, dict):
        raise InputError("no JSON object")
    return value, made


def hash_of_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, as 64 hexadecimal characters."""
    return hashlib.sha256(text.encode()).hexdigest()


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _number(text: str) -> float | int:
    value = float(text)
    if value - value != 0.0:
        raise ValueError(text)
    return int(value) if value.is_integer() else value


def _plain(value: Any, where: str) -> Any:
    """The value in JSON's own types; 2.0 becomes 2, since both are the same number."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where} holds half a surrogate pair, which is no text. Decode the text again as UTF-8."
            ) from error
        return value
    if isinstance(value, float):
        if value - value != 0.0:
            raise InputError(f"{where} is {value}, which JSON cannot say. Use None, or a number.")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InputError(f"{where} has a field whose name is no text. Name fields with text.")
        return {_plain(name, where): _plain(part, f"{where}.{name}") for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, f"{where}[{i}]") for i, part in enumerate(value)]
    raise InputError(f"{where} is of type {type(value).__name__}, which JSON cannot say. Turn it into text or numbers.")
