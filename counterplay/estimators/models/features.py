"""Features of decisions, dense or hashed, and the few operations on them that every model needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array, Codes

ROWS = 8192
"""Rows turned into float64 at once."""

WIDEST = 2048
"""The widest hashed features that models with a gram matrix take: 32 MiB a fold."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HashedFeatures:
    """Sparse features: row i is the sum over j of values[i, j] at column indices[i, j]; all other columns are 0.

    `indices` (n, k) int32 in [0, width), `values` (n, k) float32, `width` columns. A row with fewer than k features is
    padded with value 0. Made by `hash_features`, or from any table of indices of one's own.
    """

    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    width: int

    def __post_init__(self) -> None:
        indices, values = self.indices, self.values
        if indices.ndim != 2 or indices.shape != values.shape:
            raise EvidenceError(f"indices {indices.shape} and values {values.shape} must have one shape (n, k).")
        if indices.dtype != np.int32 or values.dtype != np.float32:
            raise EvidenceError(
                f"Hashed features need int32 indices and float32 values, not {indices.dtype} and {values.dtype}."
            )
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= self.width):
            raise EvidenceError(
                f"Indices go from {indices.min()} to {indices.max()}; they must lie in [0, {self.width})."
            )

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.indices)

    def rows(self, chosen: slice | npt.NDArray[Any]) -> HashedFeatures:
        """Some rows, by a slice, positions or a mask."""
        return HashedFeatures(indices=self.indices[chosen], values=self.values[chosen], width=self.width)

    def to_sparse(self) -> Any:
        """The same as a scipy CSR array (n, width) of float64; indices that meet in a row are added up on use."""
        from scipy.sparse import csr_array

        n, k = self.indices.shape
        starts = np.arange(n + 1, dtype=np.int64) * k
        return csr_array((self.values.ravel().astype(np.float64), self.indices.ravel(), starts), shape=(n, self.width))


Features = npt.ArrayLike | HashedFeatures
"""(n, p) numbers, or hashed features of n rows."""

Table = npt.NDArray[Any] | HashedFeatures


def as_table(features: Features) -> Table:
    """Features as an array (n, p) of numbers, in the type they have, or as they are where they are hashed."""
    if isinstance(features, HashedFeatures):
        return features
    table = np.asarray(features)
    if table.dtype.kind not in "fiub":
        raise EvidenceError(f"features hold {table.dtype} values; numbers are needed. Use hash_features for words.")
    if table.ndim != 2:
        raise EvidenceError(f"features has shape {table.shape}; (n, p) is needed: a row for each decision.")
    return table


def width_of(table: Table) -> int:
    """The number of columns."""
    return table.width if isinstance(table, HashedFeatures) else int(table.shape[1])


def take(table: Table, chosen: slice | npt.NDArray[Any]) -> Table:
    """Some rows."""
    return table.rows(chosen) if isinstance(table, HashedFeatures) else table[chosen]


def stacked(first: Table, second: Table) -> Table:
    """The rows of both, the first's before the second's; both of one kind and width."""
    kinds = {type(first), type(second)}
    if len(kinds) > 1 or width_of(first) != width_of(second):
        raise EvidenceError(
            f"Features of width {width_of(first)} ({type(first).__name__}) and {width_of(second)} "
            f"({type(second).__name__}) do not stack; make both in the same way."
        )
    if isinstance(first, HashedFeatures) and isinstance(second, HashedFeatures):
        if first.indices.shape[1] != second.indices.shape[1]:
            raise EvidenceError(
                f"Rows of {first.indices.shape[1]} and {second.indices.shape[1]} hashed features do not stack; "
                "hash all rows in one call, then take the parts with rows()."
            )
        return HashedFeatures(
            indices=np.concatenate([first.indices, second.indices]),
            values=np.concatenate([first.values, second.values]),
            width=first.width,
        )
    return np.concatenate([first, second])


def blocks(n: int) -> Iterator[slice]:
    """Slices that cover n rows."""
    for start in range(0, n, ROWS):
        yield slice(start, min(start + ROWS, n))


def gram_width(table: Table) -> int:
    """The number of columns, where a matrix of that size squared is reasonable."""
    width = width_of(table)
    if isinstance(table, HashedFeatures) and width > WIDEST:
        raise ConfigurationError(
            f"Hashed features of width {width:,} need a matrix of that size squared for each fold. "
            f"Hash to a width of at most {WIDEST:,}, or fit CrossFittedAdaGrad, whose memory is the width itself."
        )
    return width


def with_constant(table: Table) -> Any:
    """(n, p + 1) float64 with a last column of ones: an array, or a scipy CSR array for hashed features."""
    n = len(table)
    if isinstance(table, HashedFeatures):
        indices = np.hstack([table.indices, np.full((n, 1), table.width, np.int32)])
        values = np.hstack([table.values, np.ones((n, 1), np.float32)])
        return HashedFeatures(indices=indices, values=values, width=table.width + 1).to_sparse()
    block = np.ones((n, table.shape[1] + 1))
    block[:, :-1] = table
    return block


def weighted_gram(block: Any, weight: Array | None) -> Array:
    """(p + 1, p + 1) sum of weight x x' over the rows of a block that `with_constant` made."""
    if isinstance(block, np.ndarray):
        # Squares that leave the range of floating-point numbers are refused by the models, by name: no warning is due.
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray((block if weight is None else block * weight[:, None]).T @ block)
    from scipy.sparse import diags_array

    weighted = block if weight is None else diags_array(weight) @ block
    return np.asarray((block.T @ weighted).toarray())


def linear(features: Features, coefficients: Array, fold: npt.ArrayLike) -> Array:
    """(m,) x'b of each row with the coefficients (folds, p + 1) of its fold, the last that of the constant."""
    table, k = as_table(features), np.asarray(fold)
    folds, width = coefficients.shape
    if width_of(table) != width - 1 or k.shape != (len(table),):
        shape = (len(table), width_of(table))
        raise EvidenceError(f"features {shape} and fold {k.shape} do not fit: (m, {width - 1}) and (m,).")
    check_fold(k, folds)
    found = np.empty(len(table))
    if isinstance(table, HashedFeatures):
        for rows in blocks(len(table)):
            weight = coefficients[k[rows, None], table.indices[rows]]
            found[rows] = (weight * table.values[rows]).sum(axis=1) + coefficients[k[rows], -1]
        return found
    for own in np.unique(k):
        chosen = k == own
        found[chosen] = table[chosen] @ coefficients[own, :-1] + coefficients[own, -1]
    return found


def check_fold(fold: npt.NDArray[Any], folds: int) -> Codes:
    """The folds as they are, where they are integers in [0, folds)."""
    if fold.dtype.kind not in "iu" or (len(fold) and (int(fold.min()) < 0 or int(fold.max()) >= folds)):
        raise EvidenceError(f"fold must hold integers from 0 to {folds - 1}: take them from assign_folds.")
    return fold
