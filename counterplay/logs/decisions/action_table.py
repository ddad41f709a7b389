"""The table of actions that a user gives beside the decisions: labels, texts, features."""

from __future__ import annotations

import dataclasses
from typing import Any

import duckdb
import numpy as np

from counterplay.errors import ColumnError, InputError, nearest
from counterplay.logs.decisions.typed import label_text, number_list
from counterplay.logs.log import Singles
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.text import clear

_LABELS = ("label", "action", "action_id", "item_id", "arm", "name")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ActionTable:
    """K actions in the user's order; `features` (K, m) float32 or None."""

    labels: list[str]
    texts: list[str | None]
    features: Singles | None


def read_action_table(connection: duckdb.DuckDBPyConnection, source: Any) -> ActionTable:
    """Read an action table: a list of labels, or a path or frame with a column `label` and perhaps `text` and
    `features`.

    Errors: `ColumnError` when there is no label column, `InputError` for a missing or repeated label or bad features.
    """
    if isinstance(source, (list, tuple)):
        return _checked([None if one is None else str(one) for one in source], [None] * len(source), None)
    opened = open_source(connection, source)
    names = {name.lower(): name for name in opened.columns}
    label = next((names[word] for word in _LABELS if word in names), None)
    if label is None:
        raise ColumnError(f"The action table has no column 'label'. {nearest('label', opened.columns)} Rename it.")
    value, kind = opened.columns[label]
    parts = [label_text(value, kind)]
    parts.append(f"CAST({opened.columns[names['text']][0]} AS VARCHAR)" if "text" in names else "NULL")
    parts.append(number_list([opened.columns[names["features"]]], "FLOAT") if "features" in names else "NULL")
    rows = connection.execute(f"SELECT {', '.join(parts)} FROM {opened.scan} ORDER BY ordinal").fetchall()
    clear(connection)
    vectors = [row[2] for row in rows]
    return _checked([row[0] for row in rows], [row[1] for row in rows], vectors if "features" in names else None)


def _checked(labels: list[str | None], texts: list[str | None], vectors: list[Any] | None) -> ActionTable:
    known = [label for label in labels if label is not None]
    if len(known) < len(labels):
        raise InputError(f"The label of action {labels.index(None) + 1} is missing. Give every action a label.")
    if len(set(known)) < len(known):
        twice = next(label for label in known if known.count(label) > 1)
        raise InputError(f"Action '{twice}' stands twice in the action table. Keep one of them.")
    features: Singles | None = None
    if vectors is not None:
        if len({len(vector or ()) for vector in vectors}) > 1 or any(None in (vector or [None]) for vector in vectors):
            raise InputError("The features of the actions must be lists of numbers of one length.")
        features = np.array(vectors, dtype=np.float32)
        if not np.isfinite(features).all():
            raise InputError("The features of the actions must be finite numbers.")
    return ActionTable(labels=known, texts=texts, features=features)


def add_actions(connection: duckdb.DuckDBPyConnection, log: str, table: ActionTable) -> None:
    """Append the actions of a table in its order; those that the log has keep their index, text and features."""
    (size,) = connection.execute("SELECT count(*) FROM actions WHERE log = ?", [log]).fetchall()[0]
    known = {name for (name,) in connection.execute("SELECT label FROM actions WHERE log = ?", [log]).fetchall()}
    new = [i for i, label in enumerate(table.labels) if label not in known]
    if new:
        vectors = None if table.features is None else [table.features[i].tolist() for i in new]
        connection.execute(
            "INSERT INTO actions SELECT $log, unnest($index), unnest($label), unnest($text), unnest($features)",
            {
                "log": log,
                "index": list(range(size, size + len(new))),
                "label": [table.labels[i] for i in new],
                "text": [table.texts[i] for i in new],
                "features": vectors or [None] * len(new),
            },
        )
