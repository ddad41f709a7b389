"""How far a long statement of DuckDB is, told to whoever watches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import duckdb

Progress: TypeAlias = Callable[[int, int, str], None]
_PAUSE = 0.2


@contextlib.contextmanager
def watched(connection: duckdb.DuckDBPyConnection, tell: Progress | None) -> Iterator[Callable[[str], None]]:
    """Call `tell(percent, 100, what)` five times a second during the block.

    Gives the function that says what is being done now. `percent` is that of the statement that runs: it starts again
    with each one. Without `tell` nothing is watched.
    """
    if tell is None:
        yield lambda _: None
        return
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    doing, done = "", threading.Event()

    def say(what: str) -> None:
        nonlocal doing
        doing = what

    def watch() -> None:
        while not done.wait(_PAUSE):
            tell(max(0, round(connection.query_progress())), 100, doing)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield say
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(duckdb.Error):
            connection.execute("SET enable_progress_bar = false")
