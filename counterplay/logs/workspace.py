"""The workspace: one DuckDB file that holds everything, opened safely.

One process writes at a time (DuckDB locks the file); who comes second waits, and is then told who holds it. Every write
is a transaction, so a process that dies leaves the file as it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import types
from collections.abc import Iterator
from pathlib import Path

import duckdb

from counterplay.errors import (
    ConfigurationError,
    FileError,
    NewerWorkspaceError,
    NotAWorkspaceError,
    WorkspaceBusyError,
    WorkspaceError,
)
from counterplay.logs import schema
from counterplay.logs.troubles import busy, damaged, first_line, full, interrupted

_MAGIC = b"DUCK"  # bytes 8 to 11 of every DuckDB file
# Beyond this DuckDB works on disk, beside the workspace; it is enough for 100 million decisions.
_MEMORY = "1GB"
_LEAST = 5e7
_UNITS = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def memory_limit() -> str:
    """How much memory DuckDB may take: COUNTERPLAY_MEMORY, or 1 GB.

    Errors: `ConfigurationError` where the variable is no amount of at least 50 MB, such as 4GB or 800MB.
    """
    given = os.environ.get("COUNTERPLAY_MEMORY", "").strip() or _MEMORY
    if memory_bytes(given) < _LEAST:
        raise ConfigurationError(
            f"The environment variable COUNTERPLAY_MEMORY is '{given}'; an amount such as 4GB or 800MB is needed, at "
            "least 50MB."
        )
    return given


def memory_bytes(amount: str) -> float:
    """An amount as DuckDB writes it (4GB, 800MB, 2GiB) in bytes; 0 for anything else."""
    found = re.fullmatch(r"([\d.]+)\s*([a-zA-Z]+)", amount)
    try:
        return float(found[1]) * _UNITS.get(found[2].upper(), 0) if found else 0.0
    except ValueError:
        return 0.0


def _settings() -> dict[str, str | bool | int | float | list[str]]:
    return {
        # DuckDB would otherwise fetch extensions from the network, for example for a file of another database.
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "memory_limit": memory_limit(),
    }


class Workspace:
    """An open workspace; a context manager that closes it. Made by `open_workspace`."""

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self.connection = connection
        self._depth = 0

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up its lock. A transaction that is still open is rolled back."""
        self.connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """All of the block or, when it raises, none of it. A transaction inside another one joins it.

        Errors: `FileError` when the disk is full, `KeyboardInterrupt` for Ctrl-C; else what the block raises.
        """
        if self._depth == 0:
            self.connection.execute("BEGIN")
        self._depth += 1
        try:
            yield self.connection
            if self._depth == 1:
                self.connection.execute("COMMIT")
        except BaseException as error:
            if self._depth == 1:
                self._rollback()
                if interrupted(error):
                    raise KeyboardInterrupt from error
                found = full(error)
                if found is not None:
                    raise FileError(
                        f"There is no room left for {self.path} or what DuckDB puts beside it ({first_line(found)}). "
                        "Nothing was stored: free space, or move the workspace to a larger disk, and run it again."
                    ) from error
            raise
        finally:
            self._depth -= 1

    def _rollback(self) -> None:
        # An error in DuckDB itself may have ended the transaction already; the first error is the one to report.
        with contextlib.suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")


def open_workspace(path: str | os.PathLike[str], *, read_only: bool = False, wait: float = 30.0) -> Workspace:
    """Open the workspace at `path`; create it when there is none and `read_only` is false.

    `wait`: seconds to wait for another process that holds the file. DuckDB keeps to 1 GB of memory and then works on
    disk; the environment variable COUNTERPLAY_MEMORY ("8GB") changes that.

    Errors: `FileError` (no such file or folder), `NotAWorkspaceError` (the file is left as it is),
    `NewerWorkspaceError`, `WorkspaceBusyError` (names the process that holds the file).
    """
    place = Path(path)
    deadline = time.monotonic() + wait
    _check_place(place, read_only)
    if not place.exists():
        _create(place)
    # The look inside is read-only, so that a database of somebody else's is not even given a checkpoint.
    with contextlib.closing(_connect(place, True, deadline, wait)) as connection:
        found = _version(place, connection)
    if found > schema.SCHEMA_VERSION:
        raise NewerWorkspaceError(
            f"{place} has schema version {found}; this Counterplay knows versions up to {schema.SCHEMA_VERSION}. "
            "Upgrade Counterplay to open it."
        )
    if found < schema.SCHEMA_VERSION and read_only:
        raise WorkspaceError(
            f"{place} has the older schema version {found}. Open it once for writing to bring it to version "
            f"{schema.SCHEMA_VERSION}."
        )
    connection = _connect(place, read_only, deadline, wait)
    if found < schema.SCHEMA_VERSION:
        _upgrade(connection, found)
    return Workspace(place, connection)


@contextlib.contextmanager
def borrowed(workspace: Workspace | str | os.PathLike[str], *, read_only: bool = True) -> Iterator[Workspace]:
    """The workspace itself, left open; or the one at a path, opened for the block."""
    if isinstance(workspace, Workspace):
        yield workspace
        return
    fresh = not Path(workspace).exists()
    try:
        with open_workspace(workspace, read_only=read_only) as opened:
            yield opened
    except BaseException:
        # What was made only to be written to, and was not, would look like a workspace that has lost its logs.
        if fresh:
            Path(workspace).unlink(missing_ok=True)
            Path(f"{workspace}.wal").unlink(missing_ok=True)
        raise


def _check_place(place: Path, read_only: bool) -> None:
    if place.is_dir():
        raise FileError(
            f"{place} is a folder, not a workspace. Name a file in it, such as {place / 'workspace.duckdb'}."
        )
    if not place.exists() and read_only:
        raise FileError(f"There is no workspace at {place}. Check the path, or create one by importing a log into it.")
    if not place.parent.is_dir():
        raise FileError(f"The folder {place.parent} does not exist. Create it first, or choose another path.")


def _check_magic(place: Path) -> None:
    """Say why DuckDB could not open a file. Only then: a process that closes a file gives up every lock it has on it,
    so looking at one that this process holds open would let a second writer in.
    """
    try:
        with place.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        raise FileError(f"{place} cannot be read ({error.strerror}). Check its permissions.") from error
    if head[8:12] != _MAGIC:
        what = "is empty" if not head else "is not a DuckDB file"
        raise NotAWorkspaceError(f"{place} {what}, so it is no workspace; it was left as it is. Choose another path.")


def _create(place: Path) -> None:
    """Build the new workspace beside its place and move it there whole: nobody ever sees half of one."""
    draft = place.with_name(f".{place.name}.{os.getpid()}.new")
    draft.unlink(missing_ok=True)
    try:
        with contextlib.closing(duckdb.connect(draft, config=_settings())) as connection:
            connection.execute("BEGIN")
            schema.create(connection)
            connection.execute("COMMIT")
        _move_unless_taken(draft, place)
    except (OSError, duckdb.IOException) as error:
        raise FileError(
            f"A workspace cannot be created at {place}: {first_line(error)}. Choose another path."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _move_unless_taken(draft: Path, place: Path) -> None:
    try:
        os.link(draft, place)
    except FileExistsError:
        return  # another process created the workspace in the meantime; that one is as good
    except OSError:
        if not place.exists():  # a file system without hard links
            draft.rename(place)


def _connect(place: Path, read_only: bool, deadline: float, wait: float) -> duckdb.DuckDBPyConnection:
    pause = 0.01
    while True:
        try:
            return _join(place, read_only)
        except duckdb.ConnectionException as error:
            return _join_writer(place, read_only, error)
        except duckdb.IOException as error:
            if "Permission denied" in str(error):
                raise FileError(
                    f"{place} cannot be opened (permission denied). Ask for the right, or copy it."
                ) from error
            if "lock" not in str(error):
                _check_magic(place)
                raise NotAWorkspaceError(damaged(place, error)) from error
            if time.monotonic() >= deadline:
                raise WorkspaceBusyError(busy(place, error, wait)) from error
        except duckdb.Error as error:
            _check_magic(place)
            raise NotAWorkspaceError(damaged(place, error)) from error
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(2 * pause, 0.25)


def _join(place: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(place, read_only=read_only, config=_settings())
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _join_writer(place: Path, read_only: bool, error: Exception) -> duckdb.DuckDBPyConnection:
    """DuckDB gives one process one mode for a file: who only reads can share what this process has open for writing."""
    if read_only:
        with contextlib.suppress(duckdb.ConnectionException):
            return _join(place, False)
    raise WorkspaceBusyError(
        f"{place} is already open in this process ({os.getpid()}) in another mode. Close that one first, or pass the "
        "open workspace instead of its path."
    ) from error


def _upgrade(connection: duckdb.DuckDBPyConnection, found: int) -> None:
    try:
        schema.upgrade(connection, found)
    except BaseException:
        connection.close()
        raise


def _version(place: Path, connection: duckdb.DuckDBPyConnection) -> int:
    _refuse_disguises(place, connection)
    try:
        rows = connection.execute("SELECT schema_version FROM main.workspace").fetchall()
        connection.execute("SELECT log, regime FROM main.logs LIMIT 0")
    except duckdb.Error as error:
        raise NotAWorkspaceError(
            f"{place} is a DuckDB file without Counterplay's tables; it was left as it is. Choose another path."
        ) from error
    if len(rows) != 1:
        raise NotAWorkspaceError(f"{place} does not say its schema version; it was left as it is. Choose another path.")
    return int(rows[0][0])


def _refuse_disguises(place: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """A view under the name of a table could read any file of this machine; a macro could stand in for any function,
    which is why those of DuckDB are named in full here.
    """
    here = "database_name = system.main.current_database() AND NOT internal"
    views = connection.execute(f"SELECT view_name FROM system.main.duckdb_views() WHERE {here}").fetchall()
    macros = connection.execute(f"SELECT function_name FROM system.main.duckdb_functions() WHERE {here}").fetchall()
    found = [f"view '{name}'" for (name,) in views if name.lower() in schema.TABLES]
    found += [f"macro '{name}'" for (name,) in macros]
    if found:
        raise NotAWorkspaceError(
            f"{place} holds the {found[0]}, which no workspace has and which could make it read other files; it was "
            "left as it is. If that is yours, drop it; else do not trust the file."
        )
