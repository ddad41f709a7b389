"""Ctrl-C, raised only where it can do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], None]]:
    """Ctrl-C is noted, and raised when the function that is given is called, at the latest at the end.

    Python raises it wherever the main thread happens to be. Inside a thread pool that can leave a lock taken for good,
    so that ending the pool waits for ever. Where there is no such handler (another thread, or one that somebody has
    replaced) nothing changes.
    """
    noted: list[int] = []

    def note(number: int, _frame: Any) -> None:
        noted.append(number)

    def check() -> None:
        if noted:
            raise KeyboardInterrupt

    usual = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not usual:
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
