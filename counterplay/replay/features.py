"""What a bandit sees of contexts and actions: features, reduced to what its model can carry, and the actions that it
explores over."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import UnsupportedError
from counterplay.logs.log import Log
from counterplay.replay.agents import Bandit, Learner
from counterplay.replay.spanner import barycentric_spanner, reduced, spanner_coefficients

Floats = NDArray[np.float32]
Array = TypeVar("Array", bound=NDArray[Any])

SHARED_LIMIT = 512
"""The most weights of a shared ridge model, whose update takes their square."""

REMEMBERED = 8
"""Arrays that follow from an action set alone (its reduction, its spanner, the coefficients), the last ones used."""

_ORTHOGONAL = 1e-6
_remembered: OrderedDict[tuple[str, str, int], NDArray[Any]] = OrderedDict()
_lock = threading.RLock()


@dataclass(frozen=True, kw_only=True)
class Features:
    """contexts `(C, d)`, actions `(K, m)`; explore `(D,)`: the actions of an exploring step (empty: all that are
    allowed), coefficients `(D, K)` of all actions in these, where the exploration needs them."""

    contexts: Floats
    actions: Floats
    explore: NDArray[np.int32]
    coefficients: Floats


def features_of(log: Log, contexts: Floats | None, learner: Learner, answers: Floats | None) -> Features:
    """The features that a bandit learns from.

    Args:
        log: the log.
        contexts: its context features `(C, d)` as the kernels may have them, or None where it has none.
        learner: the bandit.
        answers: features of a model's answer `(C, j)` to append to each context, or None.

    Raises:
        UnsupportedError: the log lacks features that the bandit needs, or has too many candidates for a spanner.
    """
    shared = not isinstance(learner, Bandit) and learner.model == "shared"
    bilinear = isinstance(learner, Bandit) and learner.model == "bilinear"
    lacking = "context" if contexts is None else None
    if (shared or bilinear) and log.action_features is None:
        lacking = "action"
    if lacking is not None:
        raise UnsupportedError(f"'{learner.name}' needs {lacking} features, which log '{log.name}' does not have.")
    assert contexts is not None
    if answers is not None:
        contexts = np.concatenate([contexts, answers], axis=1)
    if isinstance(learner, Bandit):
        actions = _reduced(_features(log), learner.dimensions) if bilinear else np.eye(_size(log), dtype=np.float32)
        explore, coefficients = _spanner(log, learner, actions)
        return Features(contexts=contexts, actions=actions, explore=explore, coefficients=coefficients)
    contexts = _main_directions(contexts, learner.dimensions)
    if learner.intercept:
        contexts = np.concatenate([contexts, np.ones((len(contexts), 1), np.float32)], axis=1)
    actions = _reduced(_features(log), learner.dimensions) if shared else np.zeros((_size(log), 0), np.float32)
    weights = contexts.shape[1] * actions.shape[1]
    if weights > SHARED_LIMIT:
        raise UnsupportedError(
            f"the shared model of '{learner.name}' would have {contexts.shape[1]} x {actions.shape[1]} = {weights:,} "
            f"weights, and each update costs their square; at most {SHARED_LIMIT} are allowed: lower dimensions."
        )
    none = np.zeros(0, np.int32)
    # A product of matrices may come in Fortran's order, which would be another type to the compiled kernels.
    return Features(
        contexts=np.ascontiguousarray(contexts),
        actions=actions,
        explore=none,
        coefficients=np.zeros((0, 0), np.float32),
    )


def _features(log: Log) -> Floats:
    assert log.action_features is not None
    return np.asarray(log.action_features, np.float32)


def _reduced(vectors: Floats, dimensions: int) -> Floats:
    """Action vectors in their main directions, worked out once for each set of them."""
    return _once("reduced", vectors, dimensions, lambda: _first_columns(vectors, dimensions))


def _first_columns(vectors: Floats, dimensions: int) -> Floats:
    """The first columns of vectors that lie in their main directions already, as `counterplay embed` stores them:
    a singular value decomposition would give the same up to signs. That of all others."""
    sizes = np.linalg.norm(vectors, axis=0)
    used = int(np.count_nonzero(sizes))
    columns = vectors[:, :used]
    # Where sizes are equal there is no order; where they are tiny, no direction.
    sorted_sizes = used > 0 and bool((np.diff(sizes[:used]) < 0).all()) and sizes[used - 1] > 1e-6 * sizes[0]
    if sorted_sizes and not vectors[:, used:].any():
        unit = columns / sizes[:used]
        if np.abs(unit.T @ unit - np.eye(used, dtype=np.float32)).max() < _ORTHOGONAL * len(vectors) ** 0.5:
            # A copy: arrays from Arrow are read-only, which would be another type to the compiled kernels.
            return np.array(columns[:, :dimensions], order="C")
    return reduced(vectors, dimensions)


def _once(what: str, vectors: Floats, dimensions: int, make: Callable[[], Array]) -> Array:
    """What follows from action vectors alone; agents, parts of a log and its resamples share it."""
    content = np.ascontiguousarray(vectors)
    key = (what, f"{content.shape}{hashlib.sha256(content.data).hexdigest()}", dimensions)
    with _lock:
        if key not in _remembered:
            _remembered[key] = make()
            while len(_remembered) > REMEMBERED:
                _remembered.popitem(last=False)
        _remembered.move_to_end(key)
        return cast(Array, _remembered[key])


def _size(log: Log) -> int:
    return len(log.action_labels)


def _main_directions(vectors: Floats, dimensions: int) -> Floats:
    """Vectors `(C, d)` in their main directions, not centred; as they are where d is no more than ``dimensions``."""
    if vectors.shape[1] <= dimensions:
        return vectors
    _, directions = np.linalg.eigh(vectors.astype(np.float64).T @ vectors.astype(np.float64))
    kept = directions[:, ::-1][:, :dimensions]
    # The sign of a direction depends on the solver.
    kept = kept * np.sign(kept[np.argmax(np.abs(kept), axis=0), np.arange(kept.shape[1])])
    return np.asarray(vectors @ kept, np.float32)


def _spanner(log: Log, bandit: Bandit, actions: Floats) -> tuple[NDArray[np.int32], Floats]:
    none, no_coefficients = np.zeros(0, np.int32), np.zeros((0, 0), np.float32)
    if not bandit.exploration.startswith("spanner"):
        return none, no_coefficients
    if log.candidates is None:
        spanner = _once("spanner", actions, 0, lambda: barycentric_spanner(actions))
        if bandit.exploration != "spanner-igw":
            return spanner, no_coefficients
        return spanner, _once("coefficients", actions, 0, lambda: spanner_coefficients(actions, spanner))
    if log.candidates.shape[1] > actions.shape[1]:
        raise UnsupportedError(
            f"{bandit.exploration} needs one action set, or at most {actions.shape[1]} candidates a decision (then "
            f"they are the spanner); log '{log.name}' has up to {log.candidates.shape[1]}. Take "
            f"{'epsilon-greedy' if bandit.exploration == 'spanner-greedy' else 'igw'}."
        )
    return none, no_coefficients
