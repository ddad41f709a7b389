"""How a kernel is compiled.

A kernel is an ordinary Python function over arrays and named tuples of arrays. It is compiled once, kept on disk, and
releases the interpreter lock, so that the runs of a sweep go side by side in threads that share the log. With the
environment variable ``NUMBA_DISABLE_JIT=1`` the same functions run interpreted: the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a kernel: strict IEEE arithmetic, cached on disk, without the interpreter lock."""
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def compiled_sums(function: Function) -> Function:
    """Compile a kernel whose sums may be taken in any order, which lets them use vector instructions."""
    options = {"reassoc", "contract", "nsz"}
    return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=options)(function))


def inlined(function: Function) -> Function:
    """Compile a small kernel into its callers: a call would count references to every array of its records."""
    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))
