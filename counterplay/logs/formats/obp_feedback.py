"""The arrays in obp's bandit feedback, checked against each other before anything is touched."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from counterplay.errors import FileError, InputError, nearest
from counterplay.logs.log import Floats

Feedback: TypeAlias = Mapping[str, Any]
MOST_POSITIONS = 1000
MOST_ACTIONS = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rounds:
    """n rounds, A actions, L positions. `context` has the L positions one-hot as its last columns when L > 1.

    `action` (n,) is float so that it can be NaN; `pi_b` (n, A) is the distribution at the round's position.
    """

    actions: int
    positions: int
    action: Floats
    reward: Floats
    pscore: Floats | None
    position: Floats | None
    context: Floats
    pi_b: Floats | None
    action_context: Floats | None


def load_feedback(path: os.PathLike[str]) -> dict[str, Any]:
    """The dictionary in an .npz file. Errors: `FileError`."""
    try:
        # numpy leaves a file that it opened itself open when it is broken.
        with Path(path).open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise FileError(f"{path} is one array. Save the whole dictionary with numpy.savez.")
            return {name: found[name] for name in found.files}
    except FileError:
        raise
    except ValueError as error:
        raise FileError(
            f"{path} is no .npz file, or holds objects that are not plain arrays. Save the dictionary with "
            "numpy.savez, without the entries that are None."
        ) from error
    except Exception as error:  # for damaged bytes numpy, zipfile and zlib have a dozen kinds of errors
        raise FileError(f"{path} cannot be read: {error}. It is cut short or no .npz file; save it again.") from error


def read_feedback(feedback: Feedback) -> Rounds:
    """The arrays of a dictionary of bandit feedback, checked against each other. Errors: `InputError`."""
    if not isinstance(feedback, Mapping):
        raise InputError(
            f"Bandit feedback is a dictionary or the path of an .npz file, not a {type(feedback).__name__}. Pass what "
            "obp's obtain_batch_bandit_feedback gives."
        )
    given = {name: value for name, value in feedback.items() if value is not None}
    for name in ("n_actions", "context", "action", "reward"):
        if name not in given:
            raise InputError(f"The bandit feedback has no '{name}'. {nearest(name, map(str, given))}")
    actions = _count(given, "n_actions")
    if actions > MOST_ACTIONS:
        raise InputError(f"n_actions is {actions}; at most {MOST_ACTIONS} are possible. Number the actions from 0.")
    action = _numbers(given, "action", 1)
    n = len(action)
    if n == 0:
        raise InputError("The bandit feedback has no rounds. Pass one with at least one.")
    if "n_rounds" in given and _count(given, "n_rounds") != n:
        raise InputError(
            f"n_rounds is {_count(given, 'n_rounds')}, but there are {n} actions. Give one for each round."
        )
    pi_b = _pi_b(given, n, actions)
    position = _numbers(given, "position", 1, n) if "position" in given else None
    positions = _positions(pi_b, position)
    context = _numbers(given, "context", 2, n)
    if positions > 1 and position is not None:
        context = np.hstack([context, (position[:, None] == np.arange(positions)).astype(np.float64)])
    if context.shape[1] == 0:
        raise InputError("context has no columns. Pass a column of ones when nothing is known.")
    chosen = None if pi_b is None else _at_position(pi_b, position)
    return Rounds(
        actions=actions,
        positions=positions,
        action=action,
        reward=_numbers(given, "reward", 1, n),
        pscore=_numbers(given, "pscore", 1, n) if "pscore" in given else _pscore(chosen, action),
        position=position,
        context=context,
        pi_b=chosen,
        action_context=_numbers(given, "action_context", 2, actions) if "action_context" in given else None,
    )


def _count(given: Feedback, name: str) -> int:
    value = _array(given, name)
    if value.shape != () or value.dtype.kind not in "iu" or value < 1:
        plain = value.shape == () and value.dtype.kind in "biuf"
        shown = value if plain else f"{value.dtype} of the shape {value.shape}"
        raise InputError(f"{name} must be a whole number of at least 1, not {shown}.")
    return int(value)


def _array(given: Feedback, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(given[name])
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{name} is no array: {error} Give it as an array of numbers.") from error


def _numbers(given: Feedback, name: str, dimensions: int, length: int | None = None) -> Floats:
    """An entry as float64; `InputError` when it holds no numbers or has another shape."""
    value = _array(given, name)
    if value.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {value.dtype}, not numbers. Convert it to an array of numbers.")
    if value.ndim != dimensions:
        mend = f"Use {name}.reshape(-1, 1)." if (value.ndim, dimensions) == (1, 2) else "Reshape it."
        raise InputError(f"{name} has the shape {value.shape}; it needs {dimensions} dimension(s). {mend}")
    if length is not None and len(value) != length:
        raise InputError(f"{name} has {len(value)} rows; it needs {length}. Give one for each.")
    with np.errstate(over="ignore"):
        return value.astype(np.float64)


def _pi_b(given: Feedback, n: int, actions: int) -> Floats | None:
    """(n, A, L), or None."""
    if "pi_b" not in given:
        return None
    value = _array(given, "pi_b")
    pi_b = _numbers({"pi_b": value[:, :, None] if value.ndim == 2 else value}, "pi_b", 3, n)
    if pi_b.shape[1] != actions or pi_b.shape[2] == 0:
        raise InputError(f"pi_b has the shape {value.shape}; it needs ({n}, {actions}, positions).")
    return pi_b


def _positions(pi_b: Floats | None, position: Floats | None) -> int:
    if pi_b is not None:
        if position is None and pi_b.shape[2] > 1:
            raise InputError(
                f"pi_b has {pi_b.shape[2]} positions, and position is None. Pass the position of each round, or the "
                "pi_b of one position."
            )
        return int(pi_b.shape[2])
    known = np.empty(0) if position is None else position[np.isfinite(position)]
    most = max(0.0, float(known.max(initial=0)))
    if most >= MOST_POSITIONS:
        raise InputError(f"position goes up to {most:g}; at most {MOST_POSITIONS} are possible. Number them from 0.")
    return 1 + int(most)


def _at_position(pi_b: Floats, position: Floats | None) -> Floats:
    if position is None or pi_b.shape[2] == 1:
        return np.ascontiguousarray(pi_b[:, :, 0])
    # A round whose position is none of them is quarantined for that; which distribution it gets does not matter.
    index = np.clip(np.nan_to_num(position), 0, pi_b.shape[2] - 1).astype(np.int64)
    chosen: Floats = pi_b[np.arange(len(pi_b)), :, index]
    return chosen


def _pscore(pi_b: Floats | None, action: Floats) -> Floats | None:
    """What the distribution says of the action; NaN where the action is none."""
    if pi_b is None:
        return None
    known = (action == np.floor(action)) & (action >= 0) & (action < pi_b.shape[1])
    rows = np.flatnonzero(known)
    pscore: Floats = np.full(len(action), np.nan)
    pscore[rows] = pi_b[rows, action[rows].astype(np.int64)]
    return pscore
