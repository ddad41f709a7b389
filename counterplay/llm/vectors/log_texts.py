"""What a log has to be embedded, texts and names, and the features that it has or gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError, UnsupportedError
from counterplay.logs import Workspace
from counterplay.logs.attachments import attached_files
from counterplay.logs.reading import rectangle, require_log
from counterplay.logs.relations import decisions_of, numbered_contexts

Singles = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class LogTexts:
    """Names and texts of a log's C contexts and K actions, in its order, and the dimensions of their features; None
    for a text, or features, that it does not have."""

    context_ids: list[str]
    contexts: list[str | None]
    context_widths: list[int | None]
    labels: list[str]
    actions: list[str | None]
    action_widths: list[int | None]

    @property
    def has_features(self) -> bool:
        return any(width is not None for width in (*self.context_widths, *self.action_widths))


def read_texts_of(opened: Workspace, log: str) -> LogTexts:
    """What a log has. Errors: `InputError` for an unknown one, `UnsupportedError` for an attached one."""
    connection = opened.connection
    require_log(connection, log)
    if attached_files(connection, log):
        raise UnsupportedError(
            f"The decisions of log '{log}' are in files that stay where they are, so it cannot be given features. "
            "Import the files with `counterplay import table`."
        )
    contexts = connection.execute(
        f"SELECT context_id, text, len(features) FROM ({numbered_contexts(connection, log)}) ORDER BY row"
    ).fetchall()
    actions = connection.execute(
        "SELECT label, text, len(features) FROM actions WHERE log = ? ORDER BY action", [log]
    ).fetchall()
    return LogTexts(
        context_ids=[row[0] for row in contexts],
        contexts=[row[1] for row in contexts],
        context_widths=[row[2] for row in contexts],
        labels=[row[0] for row in actions],
        actions=[row[1] for row in actions],
        action_widths=[row[2] for row in actions],
    )


def read_candidates(connection: duckdb.DuckDBPyConnection, log: str) -> Ints | None:
    """The candidates of each context ``(C, S)``, those of its first decision, padded with -1; None for a log without
    such lists."""
    query = f"""SELECT first.candidates FROM ({numbered_contexts(connection, log)}) c LEFT JOIN
        (SELECT context_id, arg_min(candidates, position) AS candidates FROM {decisions_of(connection, log)}
         GROUP BY context_id) first USING (context_id) ORDER BY c.row"""
    lists = connection.sql(query).to_arrow_table()["candidates"]
    if lists.null_count == len(lists):
        return None
    matrix: Ints = rectangle(lists, -1, np.int32)
    return matrix


def check_texts(log: str, found: LogTexts, replace: bool) -> None:
    """Refuse what cannot be embedded, before anything is computed. Errors: `InputError`."""
    if all(text is None for text in found.contexts):
        raise InputError(f"The contexts of log '{log}' have no texts to embed. Import it with a column of texts.")
    _check_empty(log, "context", found.context_ids, found.contexts)
    _check_empty(log, "action", found.labels, found.actions)
    bare = [label for label, text in zip(found.labels, found.actions, strict=True) if text is None]
    if 0 < len(bare) < len(found.labels):
        raise InputError(
            f"Action '{bare[0]}' of log '{log}' has no text, and nor have {len(bare) - 1:,} others, but some have. "
            "Import it with a table of actions in which all or none have one."
        )
    if bare and any(width is not None for width in found.action_widths):
        raise InputError(
            f"The actions of log '{log}' have features of {found.action_widths[0]} dimensions but no texts, so no "
            "embedder can bring contexts and actions into one space. Import it with texts of the actions."
        )
    # What was imported after the features has none.
    if found.has_features and None in found.context_widths and not replace:
        raise other_features(log, found)


def _check_empty(log: str, what: str, names: Sequence[str], texts: Sequence[str | None]) -> None:
    empty = [name for name, text in zip(names, texts, strict=True) if text is not None and not text.strip()]
    if empty:
        others = f" and {len(empty) - 1:,} more" if len(empty) > 1 else ""
        raise InputError(
            f"The text of {what} '{empty[0]}'{others} of log '{log}' is empty, so there is nothing to embed. Leave "
            "such rows out, or write what is meant."
        )


def other_features(log: str, found: LogTexts) -> InputError:
    """Why features of a log are not written over."""
    contexts, actions = (
        " or ".join("none" if width is None else f"{width} dimensions" for width in dict.fromkeys(widths)) or "none"
        for widths in (found.context_widths, found.action_widths)
    )
    return InputError(
        f"Log '{log}' has features already that are others (contexts: {contexts}; actions: {actions}). Give --replace "
        "(replace=True) to put new ones in their place."
    )


def store_features(
    connection: duckdb.DuckDBPyConnection,
    log: str,
    found: LogTexts,
    contexts: Singles,
    actions: Singles | None,
    replace: bool,
) -> bool:
    """Write the features of contexts ``(C, D)`` and actions ``(K, D)``; false where the log has them already.

    Errors: `InputError` where it has others, unless ``replace``.
    """
    if found.has_features:
        if _same(connection, log, contexts, actions):
            return False
        if not replace:
            raise other_features(log, found)
    _update(connection, "contexts", "context_id", log, found.context_ids, contexts)
    if actions is not None:
        _update(connection, "actions", "label", log, found.labels, actions)
    return True


def _same(connection: duckdb.DuckDBPyConnection, log: str, contexts: Singles, actions: Singles | None) -> bool:
    rows = f"SELECT features FROM ({numbered_contexts(connection, log)}) ORDER BY row"
    held = connection.sql(rows).to_arrow_table()
    if not _equal(held["features"], contexts):
        return False
    rows = "SELECT features FROM actions WHERE log = $log ORDER BY action"
    held = connection.sql(rows, params={"log": log}).to_arrow_table()
    return held["features"].null_count == len(held) if actions is None else _equal(held["features"], actions)


def _equal(column: Any, features: Singles) -> bool:
    lists = column.combine_chunks()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    # The last bit of a product depends on how many threads took it.
    return not lists.null_count and len(flat) == features.size and np.allclose(flat, features.ravel(), atol=1e-5)


def _update(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, log: str, names: Sequence[str], features: Singles
) -> None:
    import pyarrow as pa

    ends = np.arange(len(features) + 1, dtype=np.int64) * features.shape[1]
    lists = pa.LargeListArray.from_arrays(ends, pa.array(features.ravel()))
    connection.register("new_features", pa.table({"name": pa.array(names, type=pa.string()), "features": lists}))
    try:
        connection.execute(
            f"UPDATE {table} SET features = new_features.features FROM new_features "
            f"WHERE {table}.log = ? AND {table}.{column} = new_features.name",
            [log],
        )
    finally:
        connection.unregister("new_features")
