"""The logged interactions of coba: mappings with context, action, reward, probability and actions.

coba itself is not needed: a mapping is known by its `items`, a sequence by what it gives when it is gone through.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from counterplay.errors import InputError
from counterplay.logs.decisions.report import ImportReport
from counterplay.logs.decisions.table import import_source
from counterplay.logs.outputs import canonical_json
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources.files import existing_file, open_binary
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source, unreadable

if TYPE_CHECKING:
    import duckdb
    import polars as pl
    import pyarrow as pa

_CHUNK = 10_000
_LARGEST = float(np.finfo(np.float32).max)


def import_coba(
    interactions: Iterable[Any],
    workspace: Place,
    log: str,
    *,
    description: str | None = None,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring coba's logged interactions into a log.

    `interactions`: mappings (coba's own are dictionaries) with context, action, reward and perhaps probability and
    actions, or an environment whose `read` gives them. They are taken in chunks and kept as Arrow, not as objects.

    When the first context that is not None is a number or a list of numbers, contexts are features; otherwise they are
    text: a text as it is, anything else as JSON with sorted keys. An action is a text, or its JSON is its label; when
    all actions are lists of numbers of one length, these are their features. Without any probability the log has the
    regime 'observed'; `rewards` of actions that were not taken is left out.

    What cannot be understood goes to the quarantine, counted from 1. `as_new` and `progress` are those of
    `import_decisions`. Errors: `InputError`; after any error the workspace is as it was.
    """
    reader = _Reader()
    table = reader.table(_each(interactions))
    if not len(table):
        raise InputError("There are no interactions. Pass at least one; an iterator that was used up gives none.")

    def opener(connection: duckdb.DuckDBPyConnection) -> Source:
        source = open_source(connection, table)
        columns = {name: column for name, column in source.columns.items() if name != "fault"}
        return dataclasses.replace(
            source,
            name=f"coba interactions {source.sha256[:12]}",
            columns=columns,
            fault=source.columns["fault"][0],
        )

    words = {"action": "action", "reward": "reward", "propensity": "probability", "candidates": "actions"}
    words |= {"text": "context", "features": "features"}
    held = {name for name in table.column_names if table[name].null_count < len(table)} | {"action", "reward"}
    return import_source(
        opener,
        workspace,
        log,
        columns={word: name if name in held else "" for word, name in words.items()},
        actions=reader.action_table(),
        description=description,
        as_new=as_new,
        progress=progress,
    )


def _each(interactions: Any) -> Iterator[Any]:
    if hasattr(interactions, "read"):
        interactions = interactions.read()
    if isinstance(interactions, (str, bytes, Mapping)) or not isinstance(interactions, Iterable):
        raise InputError(
            f"Interactions are an iterable of mappings, not a {type(interactions).__name__}. Pass a list of logged "
            "interactions, or an environment."
        )
    rows = iter(interactions)
    for first in rows:
        if hasattr(first, "read"):
            raise InputError("These are several environments. Pass one of them, such as environments[0], for each log.")
        yield first
        yield from rows


class _Reader:
    """Turns interactions into rows of an Arrow table; remembers what kind contexts are, and the features of actions."""

    def __init__(self) -> None:
        self._numeric: bool | None = None
        self._vectors: dict[str, list[float] | None] = {}

    def table(self, interactions: Iterator[Any]) -> pa.Table:
        import pyarrow as pa

        kinds = {
            "action": pa.string(),
            "reward": pa.float64(),
            "probability": pa.float64(),
            "actions": pa.large_list(pa.string()),
            "context": pa.string(),
            "features": pa.large_list(pa.float64()),
            "fault": pa.string(),
        }
        schema = pa.schema(list(kinds.items()))
        batches = []
        while chunk := list(islice(interactions, _CHUNK)):
            batches.append(pa.RecordBatch.from_pylist([self._row(one) for one in chunk], schema=schema))
        return pa.Table.from_batches(batches, schema=schema)

    def action_table(self) -> pl.DataFrame | None:
        """Labels and features of all actions, when all have features of one length."""
        widths = {None if vector is None else len(vector) for vector in self._vectors.values()}
        if len(widths) != 1 or None in widths:
            return None
        import polars as pl

        return pl.DataFrame({"label": list(self._vectors), "features": list(self._vectors.values())})

    def _row(self, interaction: Any) -> dict[str, Any]:
        row: dict[str, Any] = {}
        try:
            if not hasattr(interaction, "items"):
                raise _Fault(f"the interaction is no mapping: {type(interaction).__name__}")
            given = _mapping(interaction)
            row["action"] = None if given.get("action") is None else self._label(given["action"])
            row["reward"] = _number(given, "reward")
            row["probability"] = _number(given, "probability")
            # No actions, or none at all, is how coba says that any number may be chosen.
            row["actions"] = [self._label(one) for one in _actions(given)] or None
            row |= self._context(given.get("context"))
        except _Fault as fault:
            row["fault"] = str(fault)
        return row

    def _context(self, context: Any) -> dict[str, Any]:
        if context is None:
            return {}
        numbers_ = _vector(context)
        if self._numeric is None:
            self._numeric = numbers_ is not None
        if not self._numeric:
            return {"context": _text(context, "context")}
        if numbers_ is None:
            raise _Fault(f"context is not a list of numbers as the first is: {_shown(context)}")
        return {"features": numbers_}

    def _label(self, action: Any) -> str:
        if action is None:
            raise _Fault("actions hold an empty entry")
        label = _text(action, "action")
        if label not in self._vectors:
            vector = None if isinstance(action, numbers.Number) else _vector(action)
            # In the table of actions such a number would stop the whole import.
            if vector is not None and max(map(abs, vector)) > _LARGEST:
                raise _Fault(f"action holds a number that single precision cannot hold: {_shown(action)}")
            self._vectors[label] = vector
        return label


class _Fault(Exception):  # noqa: N818 - what is wrong with one row; it never leaves this module
    def __str__(self) -> str:
        return "".join(map(str, self.args)).encode("utf-8", "replace").decode()


def _mapping(interaction: Any) -> dict[Any, Any]:
    try:
        return dict(interaction.items())
    except (TypeError, ValueError):
        raise _Fault(f"the interaction is no mapping: {type(interaction).__name__}") from None


def _actions(given: Mapping[Any, Any]) -> list[Any]:
    actions = given.get("actions")
    if actions is None:
        return []
    entries = _entries(actions)
    if entries is None:
        raise _Fault(f"actions are no list: {_shown(actions)}")
    return entries


def _number(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise _Fault(f"{name} is not a number: {_shown(value)}") from None


def _vector(value: Any) -> list[float] | None:
    """A number or a sequence of numbers as a list; None when it is neither."""
    if isinstance(value, numbers.Real):
        return [_float(value)]
    entries = _entries(value)
    if not entries or not all(isinstance(entry, numbers.Real) for entry in entries):
        return None
    return [_float(entry) for entry in entries]


def _entries(value: Any) -> list[Any] | None:
    """A sequence as a list; None for texts, mappings and what cannot be gone through."""
    if isinstance(value, str) or hasattr(value, "items"):
        return None
    try:
        return list(value)
    except TypeError:
        return None


def _shown(value: Any) -> str:
    """A value for a message; what is too deep or too long for Python to show is its type."""
    try:
        return str(value)[:80]
    except (ValueError, RecursionError):
        return type(value).__name__


def read_interactions(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Interactions from a file of JSON lines; a line that is none is given as its text. Errors: `FileError`."""
    place = existing_file(path)
    try:
        with open_binary(place) as file:
            for line in file:
                if text := line.decode("utf-8", "replace").strip():
                    try:
                        yield json.loads(text)
                    except (ValueError, RecursionError):
                        yield text
    except (EOFError, OSError, zlib.error) as error:
        raise unreadable(place, error) from error


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _text(value: Any, what: str) -> str:
    """A text as it is, anything else as its one JSON text."""
    try:
        text = canonical_json(_plain(value))
    except (InputError, RecursionError, TypeError, ValueError):
        raise _Fault(f"{what} is nothing that JSON can say: {_shown(value)}") from None
    return str(value) if isinstance(value, str) else text


def _plain(value: Any) -> Any:
    """Mappings and sequences of any class as dictionaries and lists."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Real):
        return _float(value)
    if hasattr(value, "items"):
        return {str(key): _plain(held) for key, held in value.items()}
    if hasattr(value, "__iter__"):
        return [_plain(held) for held in value]
    return value
