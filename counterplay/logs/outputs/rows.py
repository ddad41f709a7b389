"""An output, and the row of the table ``outputs`` that holds it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb

from counterplay.errors import InputError
from counterplay.logs.outputs.canonical import canonical_json, canonical_object, hash_of_text, request_key

if TYPE_CHECKING:
    import pyarrow as pa

OK = "ok"
ERROR = "error"
"""Nothing was answered, and nothing paid for: the only status after which a request is asked again."""
COLUMNS = ("key", "operation", "model", "request", "response", "status", "provenance")

Row: TypeAlias = tuple[str, ...]
"""The values of ``COLUMNS``, JSON as canonical text."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing that a model said.

    ``request`` has at least ``operation`` and ``model``. ``status``: ``ok``, or why it is not to be used (``error``,
    ``truncated``, ``refused``, ...). ``provenance``: what ran it, where and when; it is no part of the key.
    """

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    status: str = OK
    provenance: Mapping[str, Any]

    @property
    def key(self) -> str:
        return request_key(self.request)


def row_of(output: Output) -> Row:
    """The row of an output. Errors: `InputError` for a request without operation or model, or an empty status."""
    missing = [name for name in ("operation", "model") if not isinstance(output.request.get(name), str)]
    if missing:
        raise InputError(f"A request needs the field '{missing[0]}' as text.")
    if not output.status:
        raise InputError(f"An output needs a status. Give '{OK}', or say in a word why it is not to be used.")
    text = canonical_json(output.request)
    return (
        hash_of_text(text),
        output.request["operation"],
        output.request["model"],
        text,
        canonical_json(output.response),
        output.status,
        canonical_json(output.provenance),
    )


def fault_of(row: Sequence[str | None]) -> str | None:
    """What is wrong with a row that was stored or exported; None if it is what `row_of` makes of its output."""
    if None in row:
        return f"{COLUMNS[row.index(None)]} is NULL"
    values = dict(zip(COLUMNS, (value or "" for value in row), strict=True))
    for name in ("request", "response", "provenance"):
        try:
            content, made = canonical_object(values[name])
        except InputError as error:
            return f"{name} is {error}"
        if name == "request":
            if hash_of_text(made) != values["key"]:
                return "the key does not belong to the request"
            other = [field for field in ("operation", "model") if content.get(field) != values[field]]
            if other:
                return f"{other[0]} is '{values[other[0]]}', but not in the request"
        if made != values[name]:
            return f"{name} is not in its canonical form"
    return None if values["status"] else "the status is empty"


def rows_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as an Arrow table with the columns ``COLUMNS``."""
    return text_table({name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)})


def text_table(columns: Mapping[str, Sequence[str]]) -> pa.Table:
    """An Arrow table of text columns."""
    import pyarrow as pa

    return pa.table({name: pa.array(values, type=pa.string()) for name, values in columns.items()})


@contextlib.contextmanager
def registered(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> Iterator[None]:
    """An Arrow table under the name ``incoming`` for the length of a block."""
    connection.register("incoming", table)
    try:
        yield
    finally:
        connection.unregister("incoming")
