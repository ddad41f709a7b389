"""What every reader of a file does first: is it there, is it one file, does it hold anything, what is its hash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from counterplay.errors import FileError


def existing(path: str | os.PathLike[str]) -> Path:
    """The path of a file or folder that is there. Errors: `FileError`."""
    place = Path(path)
    if not place.exists():
        raise FileError(f"There is no file {place}. Check the path.")
    return place


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path of one file that holds something. Errors: `FileError`."""
    place = existing(path)
    if place.is_dir():
        raise FileError(f"{place} is a folder; name one file in it.")
    if place.stat().st_size == 0:
        raise FileError(f"{place} is empty. Export it again, or leave it out.")
    return place


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hex characters."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
