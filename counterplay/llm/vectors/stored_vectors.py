"""Vectors of texts, kept in a workspace that is closed while they are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from counterplay.errors import CounterplayError
from counterplay.llm.vectors.embedders import identify_embedder
from counterplay.llm.vectors.embedding import (
    EMBEDDER,
    Singles,
    check_width,
    embed,
    known_vectors,
    store_vectors,
    stored_name,
    vector_keys,
)
from counterplay.logs import Workspace, open_workspace
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed

_WAIT = 10.0
"""Seconds for another process to let go of the workspace."""


def embed_stored(workspace: Place, texts: Sequence[str], *, embedder: str = EMBEDDER) -> Singles:
    """The vectors that `embed` gives, ``(len(texts), d)``: those that the workspace has are read, the others computed
    and stored for the next time.

    A path is open while vectors are read, and again while they are stored, never while they are computed. Where the
    workspace cannot be written to (its file, or another process that holds it), they are not stored. Errors: those of
    `embed`.
    """
    if not len(texts):
        return np.empty((0, 0), dtype=np.float32)
    identity = identify_embedder(embedder)
    name, keys = stored_name(embedder, identity), vector_keys(identity, texts)
    with borrowed(workspace) as opened:
        known = known_vectors(opened.connection, list(dict.fromkeys(keys)))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if missing:
        vectors = embed(list(missing.values()), embedder=embedder)
        check_width(name, vectors.shape[1], known)
        _keep(workspace, name, list(missing), vectors)
        known.update(zip(missing, vectors, strict=True))
    check_width(name, len(known[keys[0]]), known)
    return np.stack([known[key] for key in keys])


def _keep(workspace: Place, name: str, keys: list[str], vectors: Singles) -> None:
    """Store vectors if that is possible; they can be computed again."""
    if isinstance(workspace, Workspace):
        if not _read_only(workspace):
            store_vectors(workspace.connection, name, keys, vectors)
        return
    with (
        contextlib.suppress(CounterplayError),
        open_workspace(workspace, wait=_WAIT) as opened,
        opened.transaction() as connection,
    ):
        store_vectors(connection, name, keys, vectors)


def _read_only(workspace: Workspace) -> bool:
    query = "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
    return bool(workspace.connection.execute(query).fetchall()[0][0])
