"""Writing logs and choices from arrays: one bulk, transactional call each; writing the same again adds nothing."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.logs.log import Floats, Ints, Outcomes, Singles, check_range, digest_value
from counterplay.logs.material import DecisionArrays, Material, check_rows
from counterplay.logs.reading import require_log
from counterplay.logs.relations import contexts_of
from counterplay.logs.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

_TABLES = (
    "logs",
    "sources",
    "contexts",
    "actions",
    "decisions",
    "steps",
    "outcomes",
    "choices",
    "quarantine",
    "attachments",
)
_SOURCE = "arrays"


def write_log(
    workspace: Workspace,
    *,
    log: str,
    regime: str,
    context_ids: Sequence[str],
    action_labels: Sequence[str],
    description: str | None = None,
    context_texts: Sequence[str] | None = None,
    context_features: npt.ArrayLike | None = None,
    action_texts: Sequence[str] | None = None,
    action_features: npt.ArrayLike | None = None,
    outcomes: Outcomes | None = None,
    decisions: DecisionArrays | None = None,
    replace: bool = False,
) -> bool:
    """Write a whole log; true when it was written, false when it was there already with the same content.

    C contexts and K actions: `context_features` (C, d), `action_features` (K, m) float32; `outcomes` over C contexts,
    where entries equal to the default need not be given. `decisions` None: one decision a context, action unknown, as a
    log of full information has. Errors: `InputError` when the arrays do not fit each other, or when the log exists with
    other content and `replace` is false. Replacing removes everything of the old log, choices and quarantine included.
    """
    if decisions is None:
        decisions = DecisionArrays(context=np.arange(len(context_ids), dtype=np.int32), ids=context_ids)
    material = Material(
        regime=regime,
        description=description,
        context_ids=list(context_ids),
        context_texts=None if context_texts is None else list(context_texts),
        context_features=_matrix(context_features, "context_features"),
        action_labels=list(action_labels),
        action_texts=None if action_texts is None else list(action_texts),
        action_features=_matrix(action_features, "action_features"),
        outcomes=outcomes,
        decisions=decisions,
    )
    digest = hashlib.sha256()
    digest_value(digest, "log", material)
    with workspace.transaction() as connection:
        if not _make_room(connection, log, digest.hexdigest(), replace):
            return False
        _insert_log(connection, log, material, digest.hexdigest())
    return True


def write_choices(
    workspace: Workspace, log: str, policy: str, actions: npt.ArrayLike, probabilities: npt.ArrayLike | None = None
) -> None:
    """Store what a fixed policy would do in each context of a log, instead of what was stored for it before.

    `actions` (C, k) or (C,) int, padded with -1; `probabilities` of the same shape, by default all to the first action.
    A context whose first action is -1 is stored as a miss. Errors: `InputError` for shapes or values that do not fit.
    """
    chosen = np.atleast_2d(np.asarray(actions, dtype=np.int32).T).T
    given = np.asarray(probabilities, dtype=np.float64) if probabilities is not None else np.eye(1, chosen.shape[1])
    weights = np.broadcast_to(np.atleast_2d(given.T).T if probabilities is not None else given, chosen.shape)
    with workspace.transaction() as connection:
        require_log(connection, log)
        context_ids = [
            name
            for (name,) in connection.execute(
                f"SELECT context_id FROM {contexts_of(connection, log)} ORDER BY position"
            ).fetchall()
        ]
        (known,) = connection.execute("SELECT count(*) FROM actions WHERE log = ?", [log]).fetchall()[0]
        _check_choices(log, chosen, weights, len(context_ids), known)
        connection.execute("DELETE FROM choices WHERE log = ? AND policy = ?", [log, policy])
        row, rank = np.nonzero(chosen >= 0)
        ids = _texts(context_ids).take(row)
        table = {"context_id": ids, "rank": rank, "action": chosen[row, rank], "probability": weights[row, rank]}
        with _registered(connection, table):
            connection.execute(
                "INSERT INTO choices SELECT ?, ?, context_id, rank, action, probability FROM arrays", [log, policy]
            )


def _check_choices(log: str, actions: Ints, probabilities: Floats, contexts: int, known: int) -> None:
    if actions.ndim != 2 or len(actions) != contexts:
        raise InputError(
            f"Log '{log}' has {contexts} contexts; the choices have shape {actions.shape}. Give one row for each."
        )
    check_range("choices", actions, -1, known)
    check_rows("choices", actions)
    used = np.where(actions >= 0, probabilities, 0.0)
    if not (np.isfinite(used).all() and (used >= 0).all()):
        raise InputError("The probabilities of choices must be finite and not negative.")
    present = (actions >= 0).any(axis=1)
    totals = used.sum(axis=1)[present]
    if not np.allclose(totals, 1.0, rtol=0, atol=1e-6):
        worst = np.flatnonzero(present)[np.argmax(np.abs(totals - 1))]
        raise InputError(
            f"The probabilities of context row {worst} sum to {used[worst].sum():.6g}; they must sum to 1."
        )


def _make_room(connection: duckdb.DuckDBPyConnection, log: str, sha256: str, replace: bool) -> bool:
    """True when the log is to be written: it is new, or was just removed to be replaced."""
    if not connection.execute("SELECT 1 FROM logs WHERE log = ?", [log]).fetchall():
        return True
    sources = connection.execute("SELECT source, sha256 FROM sources WHERE log = ?", [log]).fetchall()
    if sources == [(_SOURCE, sha256)]:
        return False
    if not replace:
        raise InputError(
            f"Log '{log}' exists with other content. Choose another name, or pass replace=True to replace it."
        )
    for table in _TABLES:
        connection.execute(f"DELETE FROM {table} WHERE log = ?", [log])
    return True


def _insert_log(connection: duckdb.DuckDBPyConnection, log: str, material: Material, sha256: str) -> None:
    decisions, outcomes = material.decisions, material.outcomes
    default = None if outcomes is None or np.isnan(outcomes.default) else outcomes.default
    connection.execute(
        "INSERT INTO logs VALUES (?, ?, ?, ?, now(), true)", [log, material.regime, default, material.description]
    )
    n = len(decisions.context)
    connection.execute(
        "INSERT INTO sources VALUES (?, ?, ?, '{}', ?, ?, 0, 0, now(), NULL, NULL, NULL)", [log, _SOURCE, sha256, n, n]
    )
    ids = _texts(material.context_ids)
    contexts = {
        "position": np.arange(len(ids)),
        "context_id": ids,
        "text": _texts(material.context_texts, len(ids)),
        "features": _lists(material.context_features, len(ids)),
    }
    actions = {
        "action": np.arange(len(material.action_labels)),
        "label": _texts(material.action_labels),
        "text": _texts(material.action_texts, len(material.action_labels)),
        "features": _lists(material.action_features, len(material.action_labels)),
    }
    rows: dict[str, Any] = {
        "position": np.arange(n),
        "decision_id": _texts(decisions.ids if decisions.ids is not None else [str(i) for i in range(n)]),
        "context_id": ids.take(decisions.context),
        "action": _known(decisions.action, n),
        "propensity": _known(decisions.propensity, n),
        "reward": _known(decisions.reward, n),
        "cost": _known(decisions.cost, n),
        "cluster": _texts(decisions.cluster, n),
        "candidates": _unpadded(decisions.candidates, n),
    }
    _insert(connection, "contexts", log, contexts)
    _insert(connection, "actions", log, actions)
    _insert(connection, "decisions", log, rows)
    if outcomes is not None:
        _insert(connection, "outcomes", log, _sparse(outcomes, ids))


def _sparse(outcomes: Outcomes, ids: Any) -> dict[str, Any]:
    """The entries that differ from the default; all when there is none."""
    kept = np.flatnonzero(outcomes.rewards != outcomes.default)
    context = np.repeat(np.arange(len(outcomes.offsets) - 1), np.diff(outcomes.offsets))
    return {
        "context_id": ids.take(context[kept]),
        "action": outcomes.actions[kept],
        "reward": _known(outcomes.rewards[kept], len(kept)),
    }


def _insert(connection: duckdb.DuckDBPyConnection, table: str, log: str, columns: dict[str, Any]) -> None:
    names = ", ".join(columns)
    with _registered(connection, columns):
        connection.execute(f"INSERT INTO {table} (log, {names}) SELECT ?, {names} FROM arrays", [log])


@contextlib.contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, columns: dict[str, Any]) -> Iterator[None]:
    import pyarrow as pa

    connection.register("arrays", pa.table(columns))
    try:
        yield
    finally:
        connection.unregister("arrays")


def _matrix(values: npt.ArrayLike | None, name: str) -> Singles | None:
    if values is None:
        return None
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise InputError(f"{name} must be a matrix of finite numbers, one row each; its shape is {matrix.shape}.")
    return matrix


def _texts(values: Sequence[str | None] | None, n: int = 0) -> pa.Array:
    import pyarrow as pa

    return pa.nulls(n, pa.string()) if values is None else pa.array(list(values), pa.string())


def _known(values: Ints | Floats | None, n: int) -> pa.Array:
    """Numbers with NULL for what is unknown: -1 of an action, NaN of a number."""
    import pyarrow as pa

    if values is None:
        return pa.nulls(n, pa.float64())
    unknown = values < 0 if values.dtype == np.int32 else np.isnan(values)
    return pa.array(values, mask=unknown)


def _lists(matrix: Singles | None, n: int) -> pa.Array:
    import pyarrow as pa

    if matrix is None:
        return pa.nulls(n, pa.list_(pa.float32()))
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(matrix.ravel()))


def _unpadded(candidates: Ints | None, n: int) -> pa.Array:
    import pyarrow as pa

    if candidates is None:
        return pa.nulls(n, pa.list_(pa.int32()))
    present = candidates >= 0
    offsets = np.concatenate(([0], np.cumsum(present.sum(axis=1)))).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(candidates[present]))
