"""Few directions that contexts and actions have in common.

A bandit's model has a weight for each pair of a context's and an action's dimension, and the paper (Chen, Zhang and
Zhu, EMNLP 2024) reduces the vectors of the actions to 50 by their singular value decomposition, not centred. Here both
sides are reduced, and by the same directions, so that the inner product of a context and an action goes on meaning how
similar they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Vectors are rounded to five decimals: what lies below is the noise of that, not a direction.
_LEAST = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions:
    """``basis (d, D)``: orthonormal; ``contexts``, ``actions``: the share of squared length that each keeps in it;
    ``used``: the first so many columns are those in which actions differ from 0."""

    basis: Doubles
    contexts: float
    actions: float
    used: int

    def of_contexts(self, vectors: Singles) -> Singles:
        """Vectors of contexts ``(n, d)`` in these directions, ``(n, D)``."""
        return np.asarray(vectors.astype(np.float64) @ self.basis, dtype=np.float32)

    def of_actions(self, vectors: Singles) -> Singles:
        """Vectors of actions ``(K, d)`` in these directions, ``(K, D)``: exactly 0 where they have no part."""
        reduced = self.of_contexts(vectors)
        reduced[:, self.used :] = 0
        return reduced


def second_moments(blocks: Iterable[Singles], width: int) -> Doubles:
    """The sum of x x' over all vectors ``(n, width)``, which come in blocks."""
    total = np.zeros((width, width))
    for block in blocks:
        exact = block.astype(np.float64)
        total += exact.T @ exact
    return total


def common_directions(contexts: Doubles, actions: Doubles, dimensions: int) -> Directions:
    """The ``dimensions`` main directions of contexts and actions together, from the second moments ``(d, d)`` of each.

    Each side counts one half, whatever their numbers; nothing is centred, as inner products would change. There are
    fewer directions where the vectors have fewer. The basis is turned so that the actions lie in their own main
    directions, the largest first: reducing them further is taking the first columns.

    Errors: `InputError` where no vector of a context has any length.
    """
    if np.trace(contexts) <= 0:
        raise InputError("The embedder knows no word of the contexts' texts, so their vectors are all 0. Use another.")
    sizes, vectors = np.linalg.eigh(_scaled(contexts) + _scaled(actions))
    kept = int(np.sum(sizes > _LEAST * sizes[-1]))
    basis = vectors[:, ::-1][:, : min(dimensions, kept)]
    strengths, turn = np.linalg.eigh(basis.T @ actions @ basis)
    strengths, turn = strengths[::-1], turn[:, ::-1]
    used = int(np.sum(strengths > _LEAST * strengths[0])) if strengths[0] > 0 else 0
    basis = basis @ turn
    # In what is left the actions have no part, and the contexts say which directions are the main ones.
    rest = basis[:, used:]
    basis[:, used:] = rest @ np.linalg.eigh(rest.T @ contexts @ rest)[1][:, ::-1]
    # The sign of a direction depends on the solver.
    basis *= np.sign(basis[np.argmax(np.abs(basis), axis=0), np.arange(basis.shape[1])])
    return Directions(basis=basis, contexts=_share(contexts, basis), actions=_share(actions, basis), used=used)


def _scaled(moments: Doubles) -> Doubles:
    total = float(np.trace(moments))
    return np.asarray(moments / total) if total > 0 else moments


def _share(moments: Doubles, basis: Doubles) -> float:
    total = float(np.trace(moments))
    return float(np.trace(basis.T @ moments @ basis)) / total if total > 0 else 1.0
