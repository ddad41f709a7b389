"""In what two requests differ, named as a person would look for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from counterplay.logs.outputs.canonical import canonical_json

READ = ("prompt", "prompts", "messages", "input", "text", "continuations", "preamble")
"""The fields that hold what a model reads, those first that tell requests apart best."""

_WIDTH = 70  # a hash is shown whole
_BEFORE = 20


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One field in which a request that was asked differs from one that is stored.

    ``field``: its path, such as ``sampling.max_tokens`` or ``prompts[2]``. ``asked`` and ``stored``: its values, None
    also where a request lacks it (``in_asked``, ``in_stored``).
    """

    field: str
    asked: Any
    stored: Any
    in_asked: bool = True
    in_stored: bool = True

    def __str__(self) -> str:
        asked = _short(self.asked) if self.in_asked else "nothing"
        stored = _short(self.stored) if self.in_stored else "nothing"
        texts = isinstance(self.asked, str) and isinstance(self.stored, str)
        if not texts or max(len(asked), len(stored)) <= _WIDTH:
            return f"{self.field}: asked {_cut(asked)}, stored {_cut(stored)}"
        start = shared_beginning(self.asked, self.stored)
        return (
            f"{self.field}, from character {start + 1:,} on: asked {_excerpt(self.asked, start)}, "
            f"stored {_excerpt(self.stored, start)}"
        )


def differences(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Every field in which two requests differ, both read from canonical JSON, in the order of their names.

    Lists of one length are compared item by item.
    """
    return tuple(_objects(asked, stored, ""))


def count_fields(found: Sequence[Difference]) -> int:
    """How many fields differ, a list counted once: five other prompts are one change, not five."""
    return len({difference.field.split("[")[0] for difference in found})


def tell(found: Sequence[Difference]) -> str:
    """Differences as one clause; of each list only the first item, with the number of the others."""
    lists: dict[str, list[Difference]] = {}
    for difference in found:
        lists.setdefault(difference.field.split("[")[0], []).append(difference)
    parts = [f"{group[0]}{f' (and {len(group) - 1} more in it)' if group[1:] else ''}" for group in lists.values()]
    return "; ".join(parts)


def shared_beginning(left: str, right: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if left[low:middle] == right[low:middle] else (low, middle - 1)
    return low


def _objects(asked: Mapping[str, Any], stored: Mapping[str, Any], path: str) -> Iterator[Difference]:
    for name in sorted({*asked, *stored}):
        field = f"{path}.{name}" if path else name
        if name in asked and name in stored:
            yield from _values(asked[name], stored[name], field)
        else:
            yield Difference(
                field=field,
                asked=asked.get(name),
                stored=stored.get(name),
                in_asked=name in asked,
                in_stored=name in stored,
            )


def _values(asked: Any, stored: Any, field: str) -> Iterator[Difference]:
    if isinstance(asked, Mapping) and isinstance(stored, Mapping):
        yield from _objects(asked, stored, field)
    elif isinstance(asked, list) and isinstance(stored, list) and len(asked) == len(stored):
        for i, (left, right) in enumerate(zip(asked, stored, strict=True)):
            yield from _values(left, right, f"{field}[{i}]")
    # Types as well, because in Python True is 1.
    elif type(asked) is not type(stored) or asked != stored:
        yield Difference(field=field, asked=asked, stored=stored)


def _short(value: Any) -> str:
    text = canonical_json(value)
    return f"a list of {len(value)}" if isinstance(value, list) and len(text) > _WIDTH else text


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."


def _excerpt(text: str, start: int) -> str:
    """A piece of a text around the place where it begins to differ."""
    first = max(0, start - _BEFORE)
    last = first + _WIDTH - 6
    before, after = "..." if first else "", "..." if last < len(text) else ""
    return canonical_json(before + text[first:last] + after)
