"""Folds for cross-fitting: a hash decides, so that a decision has the same fold in any chunk, shard or order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Codes

Hashes = npt.NDArray[np.uint64]


def assign_folds(n: int, folds: int = 5, cluster: npt.ArrayLike | None = None, seed: int = 0, start: int = 0) -> Codes:
    """(n,) fold of each decision, in [0, folds): a hash of the seed and its cluster, or of its position from `start`.

    Decisions of one cluster share a fold. Pure: the same decision gets the same fold in any chunk of the log.
    """
    if folds < 2:
        raise ConfigurationError(f"folds is {folds}; at least 2 are needed: a model never predicts its own rows.")
    keys = np.arange(start, start + n) if cluster is None else np.asarray(cluster)
    if keys.dtype.kind not in "iu":
        raise EvidenceError(f"cluster holds {keys.dtype} values; integer codes are needed (np.unique gives them).")
    if keys.shape != (n,):
        raise EvidenceError(f"cluster has shape {keys.shape}; one code for each of {n} decisions is needed.")
    mixed = splitmix64(keys.astype(np.int64).view(np.uint64) ^ splitmix64(np.array([seed], np.int64).view(np.uint64)))
    return (mixed % np.uint64(folds)).astype(np.int64)


def splitmix64(x: Hashes) -> Hashes:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): every bit of x reaches every bit of it."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
