"""Polars, pandas and Arrow frames, and Arrow files, as sources of rows."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from counterplay.errors import ColumnError, InputError
from counterplay.logs.sources.source import FRAME, Source, unreadable

if TYPE_CHECKING:
    import pyarrow as pa


def frame_source(connection: duckdb.DuckDBPyConnection, frame: Any) -> Source:
    table, kind = _to_arrow(frame)
    if len(set(table.column_names)) < len(table.column_names):
        raise ColumnError("A column name stands twice in the frame. Rename one of them.")
    import numpy as np
    import pyarrow as pa

    names = table.column_names
    numbered = table.rename_columns([f"c{i}" for i in range(len(names))])
    numbered = numbered.append_column("ordinal", pa.array(np.arange(1, len(table) + 1)))
    try:
        connection.register(FRAME, numbered)
        described = connection.execute(f"DESCRIBE SELECT * FROM {FRAME}").fetchall()
    except duckdb.NotImplementedException as error:
        kinds = ", ".join(sorted({str(field.type) for field in table.schema}))
        raise InputError(
            f"A column of this {kind} frame has a type that DuckDB does not read (its types: {kinds}). Cast half "
            "precision to float32 and the like before importing."
        ) from error
    sha256 = _table_hash(table)
    return Source(
        name=f"{kind} frame {sha256[:12]}",
        sha256=sha256,
        scan=FRAME,
        columns={name: (f"c{i}", described[i][1]) for i, name in enumerate(names)},
        twice=True,
    )


def _to_arrow(frame: Any) -> tuple[pa.Table, str]:
    import pyarrow as pa

    kind = type(frame).__module__.split(".")[0]
    if kind == "pandas":
        return _from_pandas(frame), kind
    if kind == "polars" and hasattr(frame, "collect"):
        frame = frame.collect()
    if isinstance(frame, pa.Table):
        return frame, "arrow"
    if hasattr(frame, "__arrow_c_stream__"):
        return pa.table(frame), kind
    raise InputError(
        f"Rows cannot be read from a {type(frame).__name__}. Pass a path, or a polars, pandas or Arrow frame."
    )


def _from_pandas(frame: Any) -> pa.Table:
    import pyarrow as pa

    columns = {}
    for name in frame.columns:
        try:
            columns[str(name)] = pa.array(frame[name], from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            # Mixed types in one column: as text they can at least be quarantined one by one.
            columns[str(name)] = pa.array(frame[name].astype("string"), from_pandas=True)
    return pa.table(columns)


def _table_hash(table: pa.Table) -> str:
    """SHA-256 over the frame's content in Arrow's own wire format, independent of how it was cut into chunks."""
    import pyarrow as pa

    class Sink(io.RawIOBase):
        def __init__(self) -> None:
            super().__init__()
            self.digest = hashlib.sha256()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.digest.update(data)
            return len(memoryview(data))

    sink = Sink()
    whole = table.replace_schema_metadata(None).combine_chunks()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=1 << 20)
    return sink.digest.hexdigest()


def arrow_source(connection: duckdb.DuckDBPyConnection, path: Path, _: str) -> Source:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                table = pa.ipc.open_file(file).read_all()
            except pa.ArrowInvalid:
                file.seek(0)
                table = pa.ipc.open_stream(file).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error
    return dataclasses.replace(frame_source(connection, table), name=path.name)
