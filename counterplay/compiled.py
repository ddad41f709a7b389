"""How kernels are compiled: ordinary functions over arrays, kept on disk, without the interpreter lock.

With the environment variable ``NUMBA_DISABLE_JIT=1`` the same functions run interpreted. numba takes half a second to
import: kernels stand in modules of their own, imported where they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a kernel: strict IEEE arithmetic; a division by zero is no error."""
    return cast(Function, njit(cache=True, nogil=True, error_model="numpy")(function))


def in_any_order(function: Function) -> Function:
    """Compile a kernel whose sums may be taken in any order, which lets them use vector instructions.

    There must be no NaN. Bits differ between machines, not between runs on one: such kernels are compiled into those
    that call them. Else the run that compiles them would call the kernel as it was compiled by itself, and later ones
    as it was compiled beside its caller, which may add up in another order.
    """
    fast = {"reassoc", "contract", "nsz", "nnan"}
    return cast(Function, njit(cache=True, nogil=True, fastmath=fast, error_model="numpy", forceinline=True)(function))
