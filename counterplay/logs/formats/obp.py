"""The bandit feedback of obp (Open Bandit Pipeline): a dictionary of arrays, in and out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.logs.decisions.report import ImportReport
from counterplay.logs.decisions.table import import_source
from counterplay.logs.formats.obp_feedback import Feedback, Rounds, load_feedback, read_feedback
from counterplay.logs.log import Floats, Log, Longs, Singles
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources.files import existing_file, file_hash
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source

if TYPE_CHECKING:
    import duckdb
    import polars as pl


def import_obp(
    bandit_feedback: Feedback | str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    description: str | None = None,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring the bandit feedback of obp into a log.

    `bandit_feedback`: the dictionary, or the path of an .npz file of it (`numpy.savez` without the entries that are
    None): n_actions, context (n, d), action (n,), reward (n,), pscore (n,) or None, position (n,) or None, pi_b
    (n, A, L) or (n, A) or None, action_context (A, m) or None. Other entries, such as expected_reward, are left out.

    Actions are labelled "0" to "A-1", and all of them are candidates. With several positions, pi_b is taken at the
    round's position, and the position becomes L more columns of the context, one-hot, so that it is not lost. Features
    are kept in single precision. Without pscore it is what pi_b says, and without that too the log has the regime
    'observed'.

    Rounds with an impossible value go to the quarantine, counted from 1. `as_new` and `progress` are those of
    `import_decisions`. Errors: `FileError`, `InputError`; after any error the workspace is as it was.
    """
    name, sha256 = None, ""
    if isinstance(bandit_feedback, (str, os.PathLike)):
        path = existing_file(bandit_feedback)
        name, sha256 = path.name, file_hash(path)
        bandit_feedback = load_feedback(path)
    arrays = read_feedback(bandit_feedback)

    def opener(connection: duckdb.DuckDBPyConnection) -> Source:
        source = open_source(connection, _table(arrays))
        digest = sha256 or hashlib.sha256(f"{arrays.actions} {source.sha256}".encode()).hexdigest()
        return _source(source, arrays, name or f"obp feedback {digest[:12]}", digest)

    columns = {"action": "action", "reward": "reward", "features": "context"}
    columns |= {"propensity": "pscore"} if arrays.pscore is not None else {}
    columns |= {"candidates": "candidates", "candidate_propensities": "pi_b"} if arrays.pi_b is not None else {}
    return import_source(
        opener,
        workspace,
        log,
        columns=columns,
        actions=_action_table(arrays),
        description=description,
        as_new=as_new,
        progress=progress,
    )


def to_obp(log: Log, *, positions: int = 1) -> dict[str, Any]:
    """A log as the bandit feedback of obp: n_rounds, n_actions, context, action, position, reward, pscore, pi_b,
    action_context.

    `positions`: how many of the last context columns are the position one-hot, as `import_obp` and `import_obd` write
    them; 1: position is None. `pscore` is None when a propensity is unknown; `pi_b` always is, for a log in memory has
    no whole distributions. A log without features gives a context of one column of ones.

    Errors: `InputError` when a decision has no action, reward or not all actions as candidates (obp knows no others),
    or when the last columns are no positions.
    """
    size = len(log.action_labels)
    if len(log.action) and (log.action.min() < 0 or np.isnan(log.reward).any()):
        raise InputError(
            f"Log '{log.name}' has decisions without an action or a reward; obp needs both. Take a subset "
            "that has them."
        )
    if log.candidates is not None and ((log.candidates >= 0).sum(axis=1) < size).any():
        raise InputError(
            f"Some decisions of log '{log.name}' allow only some actions; in obp every action is allowed. Take a "
            "subset of decisions that allow all."
        )
    features = log.context_features
    context = np.ones((len(log.action), 1)) if features is None else features[log.context].astype(np.float64)
    position: Longs | None = None
    if positions > 1:
        context, position = _split(context, positions)
    return {
        "n_rounds": len(log.action),
        "n_actions": size,
        "context": context,
        "action": log.action.astype(np.int64),
        "position": position,
        "reward": log.reward.copy(),
        "pscore": None if np.isnan(log.propensity).any() else log.propensity.copy(),
        "pi_b": None,
        "action_context": None if log.action_features is None else log.action_features.astype(np.float64),
    }


def _split(context: Floats, positions: int) -> tuple[Floats, Longs]:
    tail = context[:, -positions:]
    if tail.shape[1] < positions or not (np.isin(tail, (0, 1)).all() and (tail.sum(axis=1) == 1).all()):
        raise InputError(
            f"The last {positions} context columns are not a position, each row with one 1 among zeros. Pass the "
            "number of positions that the log was imported with, or positions=1."
        )
    return np.ascontiguousarray(context[:, :-positions]), tail.argmax(axis=1).astype(np.int64)


def _table(arrays: Rounds) -> Any:
    import pyarrow as pa

    columns = {"action": pa.array(arrays.action), "reward": pa.array(arrays.reward), "context": _lists(arrays.context)}
    if arrays.pscore is not None:
        columns["pscore"] = pa.array(arrays.pscore)
    if arrays.position is not None:
        columns["position"] = pa.array(arrays.position)
    if arrays.pi_b is not None:
        columns["pi_b"] = _lists(arrays.pi_b)
    return pa.table(columns)


def _lists(matrix: Floats) -> Any:
    import pyarrow as pa

    offsets: npt.NDArray[np.int64] = np.arange(len(matrix) + 1, dtype=np.int64) * matrix.shape[1]
    return pa.LargeListArray.from_arrays(offsets, pa.array(matrix.ravel()))


def _source(source: Source, arrays: Rounds, name: str, sha256: str) -> Source:
    columns = dict(source.columns)
    action = columns["action"][0]
    columns["action"] = (f"TRY_CAST(CASE WHEN {action} = floor({action}) THEN {action} END AS BIGINT)", "BIGINT")
    if arrays.pi_b is not None:
        columns["candidates"] = (f"CAST(range({arrays.actions}) AS BIGINT[])", "BIGINT[]")
    cases = [f"WHEN NOT coalesce({action} = floor({action}), false) THEN 'action is not a whole number: ' || {action}"]
    if arrays.position is not None and arrays.positions > 1:
        at = columns["position"][0]
        cases.append(
            f"WHEN NOT coalesce({at} = floor({at}) AND {at} >= 0 AND {at} < {arrays.positions}, false) "
            f"THEN 'position is none of 0 to {arrays.positions - 1}: ' || {at}"
        )
    return dataclasses.replace(source, name=name, sha256=sha256, columns=columns, fault=f"CASE {' '.join(cases)} END")


def _action_table(arrays: Rounds) -> pl.DataFrame | list[str]:
    labels = [str(action) for action in range(arrays.actions)]
    if arrays.action_context is None:
        return labels
    import polars as pl

    with np.errstate(over="ignore"):  # what single precision cannot hold is refused as no finite number
        features: Singles = arrays.action_context.astype(np.float32)
    return pl.DataFrame({"label": labels, "features": features.tolist()})
