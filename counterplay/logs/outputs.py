"""The cache: what models said, each output under the hash of the whole request that made it.

The key is the SHA-256 of the request's canonical JSON (64 hexadecimal characters, so it also serves as the
``custom_id`` of a batch file). The request is stored beside it: a hit can be proved, and a miss can be explained by the
nearest request that is there. Only outputs with the status ``ok`` are ever served; errors and truncated answers are
kept, to be looked at and to be replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from counterplay.errors import FileError, InputError
from counterplay.logs.sources.source import json_pointer

if TYPE_CHECKING:
    import pyarrow as pa

OK = "ok"
COLUMNS = ("key", "operation", "model", "request", "response", "status", "provenance")


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing that a model said.

    ``request`` has at least ``operation`` and ``model``. ``status``: ``ok``, or why it is not to be used (``error``,
    ``truncated``, ...). ``provenance``: what ran it, where and when; it is no part of the key.
    """

    request: Mapping[str, Any]
    response: Mapping[str, Any]
    status: str = OK
    provenance: Mapping[str, Any]

    @property
    def key(self) -> str:
        return request_key(self.request)


@dataclass(frozen=True, kw_only=True)
class Miss:
    """Why a request has no output: the nearest stored request, and the fields in which it differs.

    ``nearest`` is None when nothing is stored for this operation. A request that is stored, but whose output is not
    ``ok``, is its own nearest: no field differs, and ``status`` says what is wrong.
    """

    key: str
    nearest: str | None
    fields: Mapping[str, tuple[Any, Any]]
    status: str | None

    def __str__(self) -> str:
        if self.nearest is None:
            return f"No output {self.key[:12]}: none of this operation is stored. Run counterplay generate first."
        if not self.fields:
            return f"The output {self.key[:12]} has the status '{self.status}'. Run counterplay generate again."
        differences = "; ".join(
            f"{name}: asked {_short(asked)}, stored {_short(stored)}" for name, (asked, stored) in self.fields.items()
        )
        return f"No output {self.key[:12]}. The nearest stored request, {self.nearest[:12]}, differs in {differences}."


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8, whole numbers without a fraction.

    Refuses with `InputError` what JSON cannot say in one way: NaN, infinities, keys that are no text, other objects.
    """
    return json.dumps(_plain(value, "request"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def request_key(request: Mapping[str, Any]) -> str:
    """SHA-256 of the request's canonical JSON, as 64 hexadecimal characters."""
    return _hash(canonical_json(request))


def put_outputs(connection: duckdb.DuckDBPyConnection, outputs: Iterable[Output]) -> int:
    """Store outputs; how many were not known before.

    An output that is ``ok`` is never replaced; one that is not is replaced by a later one of the same request.
    """
    rows: dict[str, tuple[str, ...]] = {}
    for output in outputs:
        row = _row(output)
        if row[0] not in rows or rows[row[0]][5] != OK:
            rows[row[0]] = row
    return _insert(connection, _table(list(rows.values())))


def get_outputs(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The responses of those keys that the cache can serve, by key."""
    wanted = _arrow({"key": list(dict.fromkeys(keys))})
    with _registered(connection, wanted):
        found = connection.execute(
            "SELECT key, CAST(response AS VARCHAR) FROM outputs SEMI JOIN incoming USING (key) WHERE status = ?", [OK]
        ).fetchall()
    return {key: json.loads(response) for key, response in found}


def explain_miss(connection: duckdb.DuckDBPyConnection, request: Mapping[str, Any]) -> Miss:
    """The stored request of the same operation with the fewest differing fields (ties: the lowest key)."""
    text = canonical_json(request)
    asked: dict[str, Any] = json.loads(text)
    names = sorted(asked)
    differs = " + ".join(["CAST(json_extract(request, ?) IS DISTINCT FROM CAST(? AS JSON) AS INTEGER)"] * len(names))
    values = [part for name in names for part in (json_pointer(name), canonical_json(asked[name]))]
    row = connection.execute(
        f"""SELECT key, CAST(request AS VARCHAR), status FROM outputs WHERE operation = ?
            ORDER BY {differs or "0"}, key LIMIT 1""",
        [str(asked.get("operation")), *values],
    ).fetchone()
    if row is None:
        return Miss(key=_hash(text), nearest=None, fields={}, status=None)
    stored = json.loads(row[1])
    fields = {
        name: (asked.get(name), stored.get(name))
        for name in sorted({*asked, *stored})
        if (name in asked, asked.get(name)) != (name in stored, stored.get(name))
    }
    return Miss(key=_hash(text), nearest=row[0], fields=fields, status=row[2])


def outputs_hash(connection: duckdb.DuckDBPyConnection) -> str:
    """One hash of all outputs that can be served: keys and responses, in the order of the keys."""
    digest = hashlib.sha256()
    rows = connection.execute("SELECT key, CAST(response AS VARCHAR) FROM outputs WHERE status = ? ORDER BY key", [OK])
    while batch := rows.fetchmany(10_000):
        for key, response in batch:
            digest.update(f"{key}{canonical_json(json.loads(response))}\n".encode())
    return digest.hexdigest()


def export_outputs(connection: duckdb.DuckDBPyConnection, path: str | os.PathLike[str]) -> int:
    """Write the whole cache to one Parquet file (zstd); how many outputs it holds."""
    import pyarrow.parquet as pq

    casts = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in COLUMNS)
    table = connection.sql(f"SELECT {casts} FROM outputs ORDER BY key").to_arrow_table()
    draft = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.new")
    pq.write_table(table, draft, compression="zstd")
    draft.replace(path)
    return int(table.num_rows)


def import_outputs(connection: duckdb.DuckDBPyConnection, path: str | os.PathLike[str]) -> int:
    """Add the outputs of a file that `export_outputs` wrote; how many were new.

    Every key is computed again from its request: a file in which one does not fit is refused whole, with `FileError`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FileError(f"{path} is no Parquet file of outputs ({error}). Export it again.") from error
    if tuple(table.column_names) != COLUMNS:
        raise FileError(f"{path} has the columns {', '.join(table.column_names)}, not {', '.join(COLUMNS)}.")
    for key, text in zip(table["key"].to_pylist(), table["request"].to_pylist(), strict=True):
        if request_key(json.loads(text)) != key:
            raise FileError(f"In {path} the key {key} does not belong to its request. Export the file again.")
    return _insert(connection, table)


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


def _row(output: Output) -> tuple[str, ...]:
    missing = [name for name in ("operation", "model") if not isinstance(output.request.get(name), str)]
    if missing:
        raise InputError(f"A request needs the field '{missing[0]}' as text.")
    text = canonical_json(output.request)
    return (
        _hash(text),
        output.request["operation"],
        output.request["model"],
        text,
        canonical_json(output.response),
        output.status,
        canonical_json(output.provenance),
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _short(value: Any) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _table(rows: Sequence[tuple[str, ...]]) -> pa.Table:
    return _arrow({name: [row[i] for row in rows] for i, name in enumerate(COLUMNS)})


def _arrow(columns: Mapping[str, list[str]]) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: pa.array(values, type=pa.string()) for name, values in columns.items()})


def _insert(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> int:
    (before,) = connection.execute("SELECT count(*) FROM outputs").fetchall()[0]
    with _registered(connection, table):
        connection.execute(
            f"""INSERT INTO outputs SELECT {", ".join(COLUMNS)} FROM incoming
                ON CONFLICT (key) DO UPDATE SET response = excluded.response, status = excluded.status,
                    provenance = excluded.provenance WHERE outputs.status <> '{OK}'"""
        )
    (after,) = connection.execute("SELECT count(*) FROM outputs").fetchall()[0]
    return int(after - before)


@contextlib.contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, table: pa.Table) -> Iterator[None]:
    """An Arrow table under the name ``incoming`` for the length of a block."""
    connection.register("incoming", table)
    try:
        yield
    finally:
        connection.unregister("incoming")
