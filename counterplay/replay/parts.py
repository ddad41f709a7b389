"""Finished replays of an experiment that is not finished itself, in a folder beside the workspace.

A part is one file: two checksums, a line of JSON, and columns of numbers as they lie in memory. It is written under
another name and then moved into its place, so that a process that dies at any moment leaves whole parts only; a part
that a power failure has damaged does not match its checksum, and counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import threading
import types
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import FileError, WorkspaceBusyError

_LOCK, _ORIGIN = "lock", "origin.json"
_DIGITS = 8


class Part(NamedTuple):
    """What was kept under a name: plain values, and columns of numbers."""

    values: dict[str, Any]
    columns: dict[str, NDArray[Any]]


class Parts:
    """The parts of one experiment; a context manager that keeps every other run of the same experiment out.

    Args:
        workspace: the workspace file; the folder is ``<workspace>.sweep/<first 16 characters of the experiment>``.
        experiment: the experiment's identity.
        origin: whatever else the parts follow from. Parts of another origin are dropped.

    Raises, on entering:
        WorkspaceBusyError: the same experiment is being run by another process, or elsewhere in this one.
        FileError: the folder cannot be made.
    """

    def __init__(self, workspace: str | Path, experiment: str, origin: Mapping[str, Any]) -> None:
        self.folder = Path(f"{workspace}.sweep") / experiment[:16]
        self._origin = {"experiment": experiment, **origin}
        self._lock: IO[str] | None = None

    def __enter__(self) -> Parts:
        with _named(self.folder):
            self._lock = _locked(self.folder)
            origin = self.folder / _ORIGIN
            if not origin.exists() or origin.read_text(encoding="utf-8") != json.dumps(self._origin):
                for file in self.folder.iterdir():
                    if file.name != _LOCK:
                        file.unlink()
                self._write(origin, json.dumps(self._origin).encode())
            for draft in self.folder.glob(".*"):
                draft.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()

    def keep(self, name: str, values: Mapping[str, Any], columns: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Keep a part; it is there whole, or not at all.

        Raises:
            FileError: it cannot be written, for example because the disk is full. All that was kept before stays.
        """
        arrays = {key: np.ascontiguousarray(column) for key, column in (columns or {}).items()}
        shapes = {key: [column.dtype.str, len(column)] for key, column in arrays.items()}
        line = json.dumps({"values": values, "columns": shapes}).encode() + b"\n"
        body = b"".join(column.tobytes() for column in arrays.values())
        with _named(self.folder):
            self._write(self.folder / name, b"".join([_checksum(line), _checksum(body), line, body]))

    def _write(self, place: Path, content: bytes) -> None:
        draft = place.with_name(f".{place.name}.{threading.get_ident()}")
        try:
            draft.write_bytes(content)
            os.replace(draft, place)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def values(self, name: str) -> dict[str, Any] | None:
        """The plain values of a part, without a look at its columns; None where there is no such part."""
        with _named(self.folder), _absent_is_none(), (self.folder / name).open("rb") as file:
            return dict(_head(file.readline())["values"])
        return None

    def load(self, name: str) -> Part | None:
        """A part; None where there is none, or a damaged one."""
        with _named(self.folder), _absent_is_none():
            first, _, body = (self.folder / name).read_bytes().partition(b"\n")
            return _part(_head(first + b"\n"), first[_DIGITS : 2 * _DIGITS], body)
        return None

    def drop(self, *names: str) -> None:
        """Forget parts that are no longer needed."""
        with _named(self.folder):
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the folder: the experiment is finished, or would fail again."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # only when no other experiment has parts there


def _checksum(content: bytes) -> bytes:
    return b"%08x" % zlib.crc32(content)


def _head(first: bytes) -> dict[str, Any]:
    """The line of JSON, with the values and the shapes of the columns, from the checksums and that line."""
    line = first[2 * _DIGITS :]
    if first[:_DIGITS] != _checksum(line):
        raise ValueError("damaged")
    return dict(json.loads(line))


def _part(head: dict[str, Any], checksum: bytes, body: bytes) -> Part:
    if checksum != _checksum(body):
        raise ValueError("damaged")
    columns, start = {}, 0
    for key, (kind, length) in head["columns"].items():
        columns[key] = np.frombuffer(body, dtype=kind, count=length, offset=start)
        start += columns[key].nbytes
    return Part(values=head["values"], columns=columns)


@contextlib.contextmanager
def _absent_is_none() -> Iterator[None]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        yield


@contextlib.contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Errors of the disk with the place they happened in."""
    try:
        yield
    except OSError as error:
        raise FileError(
            f"Finished replays cannot be kept in {folder} ({error.strerror}). What was kept before is still there: "
            "free space or ask for the right to write, and run the experiment again; it goes on."
        ) from error


def _locked(folder: Path) -> IO[str]:
    """The lock of a folder, made where it is absent; the system gives it up when the process dies, however it dies."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            file = (folder / _LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:
            continue  # removed in between by a run that has finished
        try:
            _lock(file)
            if os.path.samestat(os.fstat(file.fileno()), (folder / _LOCK).stat()):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        except FileNotFoundError:
            pass
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            holder = file.read() or "unknown"
            file.close()
            raise WorkspaceBusyError(
                f"this experiment is being run already, by process {holder} (its finished replays are in {folder}). "
                "Let it finish, or stop it and run the experiment again: it goes on from there."
            ) from error
        file.close()


def _lock(file: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def software() -> str:
    """A digest of what replays are computed with: parts that another version has left are not mixed with new ones."""
    versions = [platform.machine(), platform.python_version()]
    versions += [importlib.metadata.version(name) for name in ("numba", "numpy")]
    digest = hashlib.sha256(" ".join(versions).encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
