"""Kernels: densities that are symmetric around 0, and their mass below a point."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from counterplay.errors import ConfigurationError, nearest
from counterplay.estimators.evidence import Array


class Kernel(NamedTuple):
    """`density(u)` integrates to 1; `below(u)` is its integral up to u. Both take and return arrays of any shape."""

    density: Callable[[Array], Array]
    below: Callable[[Array], Array]


def kernel_named(name: str) -> Kernel:
    """A kernel of `KERNELS`. Raises `ConfigurationError` with the nearest known name."""
    if name not in KERNELS:
        raise ConfigurationError(f"There is no kernel '{name}'. {nearest(name, KERNELS)}")
    return KERNELS[name]


def _cut(u: Array) -> Array:
    return np.clip(u, -1.0, 1.0)


def _epanechnikov(u: Array) -> Array:
    return 0.75 * (1 - _cut(u) ** 2)


def _epanechnikov_below(u: Array) -> Array:
    u = _cut(u)
    return 0.5 + 0.75 * (u - u**3 / 3)


def _triangular(u: Array) -> Array:
    return 1 - np.abs(_cut(u))


def _triangular_below(u: Array) -> Array:
    u = _cut(u)
    return 0.5 + u - u * np.abs(u) / 2


def _uniform(u: Array) -> Array:
    return np.where(np.abs(u) <= 1, 0.5, 0.0)


def _uniform_below(u: Array) -> Array:
    return (1 + _cut(u)) / 2


def _cosine(u: Array) -> Array:
    # cos(pi / 2) is not 0 in floating point, and a weight that is not 0 counts as a decision that says something.
    return np.where(np.abs(u) < 1, np.pi / 4 * np.cos(np.pi / 2 * _cut(u)), 0.0)


def _cosine_below(u: Array) -> Array:
    return (1 + np.sin(np.pi / 2 * _cut(u))) / 2


def _gaussian(u: Array) -> Array:
    with np.errstate(under="ignore", over="ignore"):
        return np.asarray(np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi))


def _gaussian_below(u: Array) -> Array:
    from scipy.special import ndtr

    return np.asarray(ndtr(u), dtype=np.float64)


KERNELS: dict[str, Kernel] = {
    "epanechnikov": Kernel(_epanechnikov, _epanechnikov_below),
    "triangular": Kernel(_triangular, _triangular_below),
    "uniform": Kernel(_uniform, _uniform_below),
    "cosine": Kernel(_cosine, _cosine_below),
    "gaussian": Kernel(_gaussian, _gaussian_below),
}
"""All but `gaussian` are 0 beyond one bandwidth. `epanechnikov` has the least asymptotic mean squared error."""
