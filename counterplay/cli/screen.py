"""What commands print: tables, the files that were written, and a bar on anything that takes long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PATIENCE = 2.0


def console() -> Console:
    from rich.console import Console

    return Console()


def show(console: Console, results: list[dict[str, Any]]) -> None:
    from counterplay.reports import print_table

    print_table(results, console)


def wrote(console: Console, files: list[Path]) -> None:
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)


def as_options(message: str) -> str:
    """A message of the library with its arguments as the options of the command line."""

    def pairs(match: re.Match[str]) -> str:
        return "--map " + " ".join(f"{word}={column}" for word, column in re.findall(r"'(\w+)': '([^']*)'", match[1]))

    message = re.sub(r"columns=\{([^{}]*)\}", pairs, message)
    message = re.sub(
        r"models=\[([^\]]*)\]", lambda match: "--models " + " ".join(re.findall(r"'([^']*)'", match[1])), message
    )
    return re.sub(r"\b(shape|regime)='(\w+)'", r"--\1 \2", message)


@contextmanager
def progress(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A bar that appears when the work has taken two seconds, and goes when it is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("reading", total=None)
    appears = time.monotonic() + _PATIENCE

    def tell(done: int, total: int, what: str) -> None:
        if not bar.live.is_started and time.monotonic() >= appears:
            bar.start()
        bar.update(task, completed=done, total=total or None, description=what.replace("[", r"\["))

    try:
        yield tell
    finally:
        if bar.live.is_started:
            bar.stop()
