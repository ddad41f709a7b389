"""Putting outputs into the cache, and looking them up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb

from counterplay.errors import InputError
from counterplay.logs.outputs.canonical import canonical_json, request_key
from counterplay.logs.outputs.rows import COLUMNS, ERROR, OK, Output, Row, registered, row_of, rows_table, text_table

_INSERT = f"""INSERT INTO outputs ({", ".join(COLUMNS)}) SELECT {", ".join(COLUMNS)} FROM {{source}}
    ON CONFLICT (key) DO UPDATE SET response = excluded.response, status = excluded.status,
        provenance = excluded.provenance WHERE outputs.status <> '{OK}'"""


def put_outputs(connection: duckdb.DuckDBPyConnection, outputs: Iterable[Output]) -> int:
    """Store outputs; how many were not known before.

    An output that is ``ok`` is never replaced; one that is not is replaced by a later one of the same request.
    """
    rows: dict[str, Row] = {}
    for output in outputs:
        row = row_of(output)
        if row[0] not in rows or rows[row[0]][5] != OK:
            rows[row[0]] = row
    with registered(connection, rows_table(list(rows.values()))):
        return insert_from(connection, "incoming")


def insert_from(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    """Store the rows of a table with the columns of ``outputs``, by the rule of `put_outputs`; how many are new."""
    before = count_outputs(connection)
    connection.execute(_INSERT.format(source=source))
    return count_outputs(connection) - before


def count_outputs(connection: duckdb.DuckDBPyConnection) -> int:
    """How many outputs are stored, whatever their status."""
    return int(connection.execute("SELECT count(*) FROM outputs").fetchall()[0][0])


def get_outputs(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The responses of those keys that the cache can serve, by key."""
    found = _served(connection, keys, "key, CAST(response AS VARCHAR)")
    return {key: json.loads(response) for key, response in found}


def served_keys(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> set[str]:
    """Those of the keys that the cache can serve, without reading what was said."""
    return {key for (key,) in _served(connection, keys, "key")}


def settled_keys(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> set[str]:
    """Those of the keys that need not be asked: what was answered, and what was cut short or refused, which has been
    paid for and would end the same way."""
    with registered(connection, text_table({"key": list(dict.fromkeys(keys))})):
        found = connection.execute("SELECT key FROM outputs SEMI JOIN incoming USING (key) WHERE status <> ?", [ERROR])
        return {key for (key,) in found.fetchall()}


def get_draws(
    connection: duckdb.DuckDBPyConnection, request: Mapping[str, Any], count: int
) -> list[dict[str, Any] | None]:
    """The responses to the draws 0 to ``count - 1`` of a request; None where the cache cannot serve one.

    Draws are requests that differ in ``sample_index`` alone; the one that ``request`` itself has does not matter.
    Errors: `InputError` for a count below 1.
    """
    if count < 1:
        raise InputError(f"{count} draws cannot be looked up. Ask for 1 or more.")
    keys = [request_key({**request, "sample_index": index}) for index in range(count)]
    found = get_outputs(connection, keys)
    return [found.get(key) for key in keys]


def outputs_hash(connection: duckdb.DuckDBPyConnection) -> str:
    """One hash of all outputs that can be served: keys and responses, in the order of the keys."""
    digest = hashlib.sha256()
    rows = connection.execute("SELECT key, CAST(response AS VARCHAR) FROM outputs WHERE status = ? ORDER BY key", [OK])
    while batch := rows.fetchmany(10_000):
        for key, response in batch:
            digest.update(f"{key}{canonical_json(json.loads(response))}\n".encode())
    return digest.hexdigest()


def _served(connection: duckdb.DuckDBPyConnection, keys: Sequence[str], columns: str) -> list[tuple[Any, ...]]:
    if isinstance(keys, str):
        raise InputError(f"Keys are looked up in a list; '{keys[:12]}' is one. Give [key].")
    with registered(connection, text_table({"key": list(dict.fromkeys(keys))})):
        return connection.execute(
            f"SELECT {columns} FROM outputs SEMI JOIN incoming USING (key) WHERE status = ?", [OK]
        ).fetchall()
