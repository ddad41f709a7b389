"""How many records a text file has, counted apart from the reader that imports it.

A reader that is told to put broken lines aside drops some without a word: records longer than its limit, and records at
the edge of a buffer that is too small. So records are counted here, and the limit is set by the longest of them.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from counterplay.errors import FileError

_CHUNK = 1 << 22
_NEWLINE, _QUOTE, _RETURN = 10, 34, 13


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extent:
    """`records`: lines that are not blank, where a newline between quotes ends none; `longest`: bytes of the longest.

    `path`, `recount`: for the check; `recount` counts slowly what stray quotes make the fast count miss.
    """

    path: str
    records: int
    longest: int
    recount: Callable[[], int]

    def check(self, found: int) -> None:
        """Refuse a reading that found fewer records than there are. Errors: `FileError`."""
        if found != self.records and found < (exact := self.recount()):
            raise FileError(
                f"{self.path} has {exact:,} records, of which the reader found only {found:,}; nothing was imported. "
                "Convert the file to Parquet, or look for records that are very long or badly quoted."
            )


def csv_extent(path: str, opened: Callable[[], IO[bytes]], delimiter: str) -> Extent:
    """The records of a CSV file, its header among them."""
    records, longest = _measure(opened, quotes=True)
    return Extent(path=path, records=records, longest=longest, recount=lambda: _count_csv(opened, delimiter))


def lines_extent(path: str, opened: Callable[[], IO[bytes]]) -> Extent:
    """The lines of a file of which each is a record."""
    records, longest = _measure(opened, quotes=False)
    return Extent(path=path, records=records, longest=longest, recount=lambda: _count_lines(opened))


def _measure(opened: Callable[[], IO[bytes]], *, quotes: bool) -> tuple[int, int]:
    records = longest = carried = 0
    inside = last_return = False
    with opened() as file:
        while chunk := file.read(_CHUNK):
            data = np.frombuffer(chunk, dtype=np.uint8)
            ends = data == _NEWLINE
            if quotes and (inside or b'"' in chunk):
                odd = (np.cumsum(data == _QUOTE) + inside) & 1
                ends &= odd == 0
                inside = bool(odd[-1])
            places = np.flatnonzero(ends)
            if len(places) == 0:
                carried += len(data)
                last_return = chunk.endswith(b"\r")
                continue
            lengths = np.diff(places, prepend=-1) - 1
            # A line that holds nothing but the return of a Windows line end is blank.
            blank = (lengths == 1) & (data[np.maximum(places - 1, 0)] == _RETURN)
            blank[0] = carried == 1 and last_return if lengths[0] == 0 else blank[0] and carried == 0
            lengths[0] += carried
            records += int(np.count_nonzero((lengths > 0) & ~blank))
            longest = max(longest, int(lengths.max()))
            carried = len(data) - int(places[-1]) - 1
            last_return = carried > 0 and chunk.endswith(b"\r")
    alone = carried == 1 and last_return
    return records + (carried > 0 and not alone), max(longest, carried)


@contextlib.contextmanager
def csv_records(opened: Callable[[], IO[bytes]], delimiter: str) -> Iterator[Any]:
    """Python's reader over a CSV file, for fields of any length; what it refuses ends the block without an error."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        with (
            opened() as binary,
            io.TextIOWrapper(binary, "utf-8-sig", errors="replace", newline="") as file,
            contextlib.suppress(csv.Error),
        ):
            yield csv.reader(file, delimiter=delimiter)
    finally:
        csv.field_size_limit(limit)


def _count_csv(opened: Callable[[], IO[bytes]], delimiter: str) -> int:
    count = 0
    with csv_records(opened, delimiter) as reader:
        for record in reader:
            count += bool(record)
    return count


def _count_lines(opened: Callable[[], IO[bytes]]) -> int:
    with opened() as file:
        return sum(bool(line.strip()) for line in file)
