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


# Whether references are counted is said aloud: a function that says nothing takes over what its caller says.
_COUNTING: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": True}
_BORROWING: dict[str, Any] = {**_COUNTING, "_nrt": False}
_ANY_ORDER: dict[str, Any] = {**_BORROWING, "fastmath": {"reassoc", "contract", "nsz"}}


def compiled(function: Function) -> Function:
    """Compile a kernel: strict IEEE arithmetic, cached on disk, without the interpreter lock."""
    return cast(Function, numba.njit(**_COUNTING)(function))


def borrowing(function: Function) -> Function:
    """Compile a kernel that neither makes an array nor gives one back, as `compiled` does.

    It borrows the arrays that it is handed, and numba then counts no references to them: a call that hands on the fifty
    arrays of a replay would otherwise spend up to a microsecond on counting. An array made inside is refused when the
    kernel is compiled; one given back would be freed too early.
    """
    return cast(Function, numba.njit(**_BORROWING)(function))


def compiled_sums(function: Function) -> Function:
    """Compile a kernel that borrows its arrays and whose sums may be taken in any order, which lets them use vector
    instructions."""
    return cast(Function, numba.njit(**_ANY_ORDER)(function))


def inlined(function: Function) -> Function:
    """Compile a small kernel into its callers."""
    return cast(Function, numba.njit(inline="always", error_model="numpy")(function))
