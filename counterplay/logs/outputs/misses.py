"""Why a request has no output: the nearest one that is stored, and in what it differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from counterplay.logs.outputs.canonical import canonical_json, hash_of_text
from counterplay.logs.outputs.differences import READ, Difference, count_fields, differences, shared_beginning, tell
from counterplay.logs.outputs.rows import OK

# So many requests are compared field by field; at most 20 ms, and a small cache is compared whole.
_COMPARED = 1_000


@dataclass(frozen=True, kw_only=True)
class Miss:
    """Why a request has no output: the nearest stored request, and the fields in which it differs.

    ``nearest`` is None when nothing is stored for this operation. A request that is stored, but whose output is not
    ``ok``, is its own nearest: nothing differs, and ``status`` says what is wrong. A request that is no miss at all has
    the status ``ok``.
    """

    key: str
    nearest: str | None
    differences: tuple[Difference, ...]
    status: str | None

    @property
    def fields(self) -> Mapping[str, tuple[Any, Any]]:
        """By the path of a field that differs: what was asked, and what is stored."""
        return {difference.field: (difference.asked, difference.stored) for difference in self.differences}

    def __str__(self) -> str:
        if self.nearest is None:
            return f"No output {self.key[:12]}: none of this operation is stored. Run counterplay generate first."
        if self.differences:
            return (
                f"No output {self.key[:12]}. The nearest stored request, {self.nearest[:12]}, differs in "
                f"{tell(self.differences)}."
            )
        if self.status == OK:
            return f"The output {self.key[:12]} is stored, and is served."
        return f"The output {self.key[:12]} has the status '{self.status}'. Run counterplay generate again."


def explain_miss(connection: duckdb.DuckDBPyConnection, request: Mapping[str, Any]) -> Miss:
    """The stored request of the same operation with the fewest differing fields.

    A field is a leaf of the request (``sampling.max_tokens``); a list counts once. Ties go to the request whose text
    shares the longest beginning with the one that was asked, then to the lowest key. Up to 1,000 stored requests are
    all compared. Of more, those 1,000 that share most with the asked one as text: halves of the prompt, what stands
    before it in the canonical JSON, what stands behind it; so of a large cache the answer is a near request, seldom
    not the nearest one.
    """
    text = canonical_json(request)
    asked: dict[str, Any] = json.loads(text)
    key = hash_of_text(text)
    known = connection.execute("SELECT status FROM outputs WHERE key = ?", [key]).fetchall()
    if known:
        return Miss(key=key, nearest=key, differences=(), status=known[0][0])
    best: tuple[int, int, str] | None = None
    nearest: tuple[tuple[Difference, ...], str] | None = None
    for name, stored, status in _candidates(connection, asked):
        found = differences(asked, json.loads(stored))
        rank = (count_fields(found), -_shared_text(found), name)
        if best is None or rank < best:
            best, nearest = rank, (found, status)
    if best is None or nearest is None:
        return Miss(key=key, nearest=None, differences=(), status=None)
    return Miss(key=key, nearest=best[2], differences=nearest[0], status=nearest[1])


def _shared_text(found: tuple[Difference, ...]) -> int:
    """How many characters the texts that differ have in common at their beginnings."""
    pairs = [(one.asked, one.stored) for one in found if isinstance(one.asked, str) and isinstance(one.stored, str)]
    return sum(shared_beginning(asked, stored) for asked, stored in pairs)


def _candidates(connection: duckdb.DuckDBPyConnection, asked: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, request and status of the stored requests that share most with one, by comparing texts alone.

    A JSON parser over a million requests takes seconds; looking for a piece of text, tenths.
    """
    head, (first, second), tail = _pieces(asked)
    return connection.execute(
        """SELECT key, CAST(request AS VARCHAR), status FROM outputs SEMI JOIN
           (SELECT key FROM outputs WHERE operation = ?
            ORDER BY CAST(contains(request, ?) AS INTEGER) + CAST(contains(request, ?) AS INTEGER)
                + CAST(starts_with(request, ?) AS INTEGER) + CAST(suffix(request, ?) AS INTEGER) DESC, key
            LIMIT ?) USING (key)""",
        [str(asked.get("operation")), first, second, head, tail, _COMPARED],
    ).fetchall()


def _pieces(asked: Mapping[str, Any]) -> tuple[str, tuple[str, str], str]:
    """The canonical JSON in pieces: before what the model reads, that in two halves, and behind it."""
    fields = [f"{canonical_json(name)}:{canonical_json(asked[name])}" for name in sorted(asked)]
    read = next((name for name in READ if name in asked), None)
    place = sorted(asked).index(read) if read else fields.index(max(fields, key=len)) if fields else 0
    text = fields[place] if fields else ""
    half = len(text) // 2
    return "{" + ",".join(fields[:place]), (text[:half], text[half:]), ",".join(fields[place + 1 :]) + "}"
