"""What a model is, and what it is fitted on, checked once for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array, Codes
from counterplay.estimators.models.features import Features, HashedFeatures, Table, as_table, check_fold, width_of


class RewardModel(Protocol):
    """A cross-fitted model: what it says about a decision was learnt from other folds than that decision's."""

    def predict(self, features: Features, fold: npt.ArrayLike) -> Array:
        """(m,) predictions for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        ...


class Fit(Protocol):
    """How a model is made: the class of a model, or `functools.partial` of it with its options.

    `CrossFittedRidge`, `partial(CrossFittedLogistic, alpha=0.1)` and `partial(CrossFitted, estimator=...)` are three.
    """

    def __call__(
        self, features: Features, reward: npt.ArrayLike, fold: npt.ArrayLike, *, weight: npt.ArrayLike | None = None
    ) -> RewardModel:
        """Fit on features (n, p) of the logged actions, reward (n,), fold (n,) and weight (n,)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """n decisions: features (n, p), reward (n,), fold (n,) in [0, folds), weight (n,) or None for all 1."""

    features: Table
    reward: Array
    fold: Codes
    weight: Array | None
    folds: int


def training(
    features: Features,
    reward: npt.ArrayLike,
    fold: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    shape: tuple[int, int] | None = None,
) -> Training:
    """The decisions a model is fitted on. Raises `EvidenceError` with what does not fit and the first bad row.

    `shape`: (folds, p) where they are known already; else folds is 1 + the largest fold.
    """
    table, r, k = as_table(features), _numbers("reward", reward), np.asarray(fold)
    width = width_of(table)
    if not len(table) or not k.size:
        raise EvidenceError(f"features has shape {(len(table), width)}; (n, p) with at least one decision is needed.")
    if k.shape != r.shape or r.shape != (len(table),) or (shape is not None and shape[1] != width):
        wanted = width if shape is None else shape[1]
        raise EvidenceError(
            f"features {(len(table), width)}, reward {r.shape} and fold {k.shape} do not fit: "
            f"(n, {wanted}), (n,) and (n,) are needed."
        )
    folds = shape[0] if shape is not None else (int(k.max()) + 1 if k.dtype.kind in "iu" else 1)
    check_fold(k, folds)
    _check_finite("feature", table.values if isinstance(table, HashedFeatures) else table)
    _check_finite("reward", r)
    w = None if weight is None else _numbers("weight", weight)
    if w is not None:
        if w.shape != r.shape:
            raise EvidenceError(f"weight has shape {w.shape}; one for each of {len(r)} decisions is needed.")
        _check_finite("weight", w)
        if w.min() < 0:
            raise EvidenceError(f"weight at row {int(np.argmin(w))} is {w.min():g}; weights must not be negative.")
    return Training(features=table, reward=r, fold=k, weight=w, folds=folds)


def no_row_left(fold: int) -> EvidenceError:
    """The error for a fold that leaves its model nothing to learn from."""
    return EvidenceError(
        f"All decisions are in fold {fold}, or all others have weight 0: no row is left to fit its model on. "
        "Use more folds, or more decisions."
    )


def check_binary_range(reward: Array) -> None:
    """Refuse rewards that are no probabilities."""
    bad = np.flatnonzero((reward < 0) | (reward > 1))
    if len(bad):
        raise EvidenceError(
            f"reward at row {bad[0]} is {reward[bad[0]]:g}, and {len(bad) - 1} more lie outside [0, 1]; "
            "logistic regression needs 0, 1 or shares between them. Use ridge or the squared loss."
        )


def _numbers(name: str, value: npt.ArrayLike) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise EvidenceError(f"{name} holds {array.dtype} values; numbers are needed.")
    return array.astype(np.float64, copy=False)


def _check_finite(name: str, array: npt.NDArray[Any]) -> None:
    # One sum is finite unless a value is not (or the sum overflows): no boolean array of the same size is made.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = f"row {bad[0][0]}" + (f", column {bad[0][1]}" if array.ndim == 2 else "")
        raise EvidenceError(
            f"A {name} of the reward model is NaN or infinite at {where}, one of {len(bad)}; finite numbers are needed."
        )
