"""What the errors of DuckDB mean for a workspace: held by another process, damaged, no room left, stopped by hand."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb


def interrupted(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or what DuckDB (in a statement) or Python (while a class is made) makes of it."""
    return (
        isinstance(error, KeyboardInterrupt | duckdb.InterruptException)
        or (isinstance(error, RuntimeError) and "Query interrupted" in str(error))
        or (error.__cause__ is not None and interrupted(error.__cause__))
    )


def busy(place: Path, error: Exception, wait: float) -> str:
    """The message for a file that another process holds, with its number and command."""
    pid = re.search(r"PID (\d+)", str(error))
    holder = f"process {pid.group(1)}{_command(pid.group(1))}" if pid else "another process"
    return f"{place} is held by {holder}; waited {wait:g} s. Let it finish or stop it, or wait longer (wait=...)."


def _command(pid: str) -> str:
    """The command of a process in brackets, where the system tells."""
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    text = " ".join(" ".join(words).split())
    return f" ({text if len(text) <= 80 else text[:77] + '...'})" if text else ""


def full(error: BaseException | None) -> duckdb.Error | None:
    """The error behind an error with which DuckDB says that a disk is full."""
    signs = ("No space left", "File too large", "quota exceeded", "max_temp_directory_size")
    while error is not None:
        if isinstance(error, duckdb.Error) and any(sign in str(error) for sign in signs):
            return error
        error = error.__cause__
    return None


def damaged(place: Path, error: Exception) -> str:
    """The message for a file that DuckDB cannot open."""
    return (
        f"{place} cannot be opened as a workspace ({first_line(error)}); it was left as it is. It may be cut short, "
        "damaged, or written by a newer DuckDB: copy it again from where it came."
    )


def first_line(error: BaseException) -> str:
    """What an error says, without the hints that DuckDB writes below it."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
