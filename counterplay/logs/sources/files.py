"""What every reader of a file does first: is it there, is it one file, does it hold anything, what is its hash."""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
from pathlib import Path
from typing import IO, cast

from counterplay.errors import FileError
from counterplay.logs.sources.source import literal


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Errors: `FileError` when it is empty."""
    with existing_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def one_file(path: Path) -> str:
    """A path as an SQL literal that means this one file, whatever brackets and stars its name holds."""
    return literal(glob.escape(str(path)))


def open_binary(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed."""
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def refuse_utf16(path: Path) -> None:
    """Refuse a file in UTF-16, with the mend."""
    with open_binary(path) as file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise FileError(f"{path} is in UTF-16. Save it as UTF-8, for example with iconv -f UTF-16 -t UTF-8.")


def refuse_marked(path: Path) -> None:
    """Refuse a file of JSON lines that begins with a byte order mark: its first line would be no JSON."""
    with open_binary(path) as file:
        marked = file.read(3) == b"\xef\xbb\xbf"
    if marked:
        raise FileError(f"{path} begins with a byte order mark. Save it without, for example with tail -c +4.")
