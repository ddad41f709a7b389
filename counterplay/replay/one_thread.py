"""One thread for linear algebra while a replay runs: its matrices are small, and the replays of a sweep go side by side
already."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, under the interpreter's lock; a replay may take ten.
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Hold numpy's linear algebra to one thread, as far as it is loaded when this is first called."""
    limit: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return limit
