"""A barycentric spanner: few actions whose vectors span all the others with small coefficients.

Awerbuch and Kleinberg (STOC 2004), as Zhu et al. (ICML 2022) use it: every action is a combination of the spanner's
actions with coefficients in [-C, C], so exploring over the spanner explores them all.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError


def reduced(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Action vectors `(K, m)` in their ``dimensions`` main directions: U S of the singular value decomposition, not
    centred.

    Each direction's sign is fixed (its largest entry is positive), so that the result does not depend on the solver.
    Where the vectors have fewer directions than asked for, the result has as many columns as they have.
    """
    left, sizes, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    rank = int(np.sum(sizes > 1e-6 * sizes[0]))
    kept = min(dimensions, rank)
    result = left[:, :kept] * sizes[:kept]
    signs = np.sign(result[np.argmax(np.abs(result), axis=0), np.arange(kept)])
    return np.ascontiguousarray(result * signs, dtype=np.float32)


def barycentric_spanner(vectors: NDArray[np.float32], factor: float = 2.0) -> NDArray[np.int32]:
    """The actions of a C-approximate barycentric spanner: `(m,)` indices into ``vectors`` `(K, m)`, all different.

    Args:
        vectors: must have rank m.
        factor: C, above 1.

    With m or fewer vectors, the spanner is all of them.
    """
    count, width = vectors.shape
    if count <= width:
        return np.arange(count, dtype=np.int32)
    values = vectors.astype(np.float64)
    basis, inverse = np.eye(width), np.eye(width)
    log_scale = 0.0
    chosen = np.zeros(width, dtype=np.int32)

    def replace(column: int) -> None:
        # The basis is kept at determinant 1 (times exp(width log_scale)), so the inverse stays well conditioned.
        nonlocal basis, inverse, log_scale
        scores = np.abs(values @ inverse[column])
        action = int(np.argmax(scores))
        if scores[action] <= 0:
            raise ConfigurationError(f"the action vectors span fewer than {width} dimensions; ask for fewer.")
        chosen[column] = action
        vector = values[action] / math.exp(log_scale)
        change = vector - basis[:, column]
        projected = inverse @ change
        inverse -= np.outer(projected, inverse[column]) / (1.0 + projected[column])
        basis[:, column] = vector
        shift = (math.log(scores[action]) - log_scale) / width
        basis /= math.exp(shift)
        inverse *= math.exp(shift)
        log_scale += shift

    for column in range(width):
        replace(column)
    for _ in range(int(width * math.log(width)) + 1):
        for column in range(width):
            best = float(np.abs(values @ inverse[column]).max())
            if best >= factor * math.exp(log_scale):
                replace(column)
                break
        else:
            break
    return np.sort(chosen)


def spanner_coefficients(vectors: NDArray[np.float32], spanner: NDArray[np.int32]) -> NDArray[np.float32]:
    """Every action's coefficients in the actions of a spanner: M `(m, K)` with ``vectors[a] = sum_i M[i, a]
    vectors[spanner[i]]``.

    Args:
        vectors: `(K, m)`.
        spanner: `(m,)` indices into ``vectors``, in any order.

    Raises:
        ConfigurationError: the spanner is not a basis: it has fewer or more actions than the vectors have dimensions,
            or their vectors depend on each other.
    """
    width = vectors.shape[1]
    basis = vectors[spanner].astype(np.float64)
    if basis.shape[0] != width or np.linalg.matrix_rank(basis) < width:
        raise ConfigurationError(
            f"{basis.shape[0]} actions are no basis of {width} dimensions: give {width} whose vectors do not depend on "
            "each other, such as those of barycentric_spanner on vectors of full rank."
        )
    result = np.linalg.solve(basis.T, vectors.T.astype(np.float64)).astype(np.float32)
    result[:, spanner] = np.eye(width, dtype=np.float32)
    return np.ascontiguousarray(result)
