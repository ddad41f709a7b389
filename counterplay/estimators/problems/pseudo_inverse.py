"""Weights of the pseudo-inverse estimator for slates whose positions are not filled independently of each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.problems.arrays import PROBABILITY, by_policy, numbers, within

TOLERANCE = 1e-6
"""How far probabilities may miss 1, and a policy's items what the logged slates span: rounding, no more."""


def pseudo_inverse_weights(slates: npt.ArrayLike, logging: npt.ArrayLike, target: npt.ArrayLike) -> Array:
    """(P, S) weights of the S slates that one context can have, whatever the logging policy: for `Slates.pi_weights`.

    `slates` (S, K): the item at each position as integers, all slates (rankings without replacement, say);
    `logging` (S,) and `target` (P, S): their probabilities; (S,) stands for one policy. The weights of a log are the
    columns of its logged slates; contexts with the same probabilities share the answer.

    With 1_s the indicators of slate s, one for each position and item,
    w(s) = E_target[1_s]' pinv(E_logging[1_s 1_s']) 1_s (Swaminathan et al. 2017). They are 1 on average, and may be
    negative. Time: cubic in the number of indicators; memory: S times that number.

    Raises `EvidenceError` where a policy shows items that the logged slates do not span.
    """
    items = np.asarray(slates)
    if items.dtype.kind not in "iu" or items.ndim != 2 or not items.size:
        raise EvidenceError(f"slates is {items.dtype} of shape {items.shape}; (S, K) integers are needed.")
    count = len(items)
    mu = numbers("logging", logging, (count,), f"({count},), a probability for each slate,")
    pi = by_policy("target", target, None, (count,))
    for name, array in (("logging", mu), ("target", pi)):
        within(name, array, PROBABILITY)
        if np.any(np.abs(array.sum(axis=-1) - 1) > TOLERANCE):
            raise EvidenceError(f"{name} does not add up to 1 over the slates: list every slate of the context.")
    shown = np.concatenate([column[:, None] == np.unique(column) for column in items.T], axis=1).astype(np.float64)
    gamma = (shown.T * mu) @ shown
    # The indicators of each position add up to 1, so gamma is singular for K > 1: rounding must not be inverted.
    inverse = np.linalg.pinv(gamma, rcond=1e-12, hermitian=True)
    wanted = pi @ shown
    missed = np.abs(wanted @ inverse @ gamma - wanted).max(axis=1)
    if np.any(missed > TOLERANCE):
        raise EvidenceError(
            f"Policy {int(np.argmax(missed))} shows items at positions that the logged slates do not span: not even an "
            "additive reward lets its value be known from this log."
        )
    weights: Array = wanted @ inverse @ shown.T
    return weights
