"""What a batch service gave back, read into the cache.

Result and error files of OpenAI, vLLM, Anthropic's message batches and Gemini, in any order, in part, or twice. A line
counts only when its id is a key that was asked for; what is wrong with other lines is said with the file's name and the
number of the line. Files are read line by line, whatever their size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

import counterplay
from counterplay.errors import FileError
from counterplay.llm.endpoints.dialects import (
    REFUSED,
    Answer,
    error_message,
    failure,
    part,
    read_anthropic,
    read_gemini,
    read_openai,
)
from counterplay.llm.prompting.requests import Request
from counterplay.logs import Workspace
from counterplay.logs.outputs import ERROR, OK, Output, canonical_json, put_outputs

_CHUNK = 1000
_LONGEST_LINE = 64 * 2**20
_NAMED = 20
_GEMINI = ("candidates", "promptFeedback", "usageMetadata")


class _Found(NamedTuple):
    """An output, its key, and in which line it stands."""

    place: str
    key: str
    output: Output


@dataclass(kw_only=True)
class ImportReport:
    """What files of results held. ``lines`` = the sum of the other counts but ``torn``.

    ``answered``: outputs that are now served; ``failed``: stored with another status; ``repeated``: known already, or
    a failure of what has an answer. ``conflicts``, ``unknown`` and ``unreadable`` were not stored; the first
    of each are named in ``remarks``. ``torn``: files whose last line was cut. ``missing``: requests of the log that
    have no output that can be served, now; ``choices``: contexts that have a choice, for the policy.
    """

    lines: int = 0
    answered: int = 0
    failed: int = 0
    repeated: int = 0
    conflicts: int = 0
    unknown: int = 0
    unreadable: int = 0
    torn: int = 0
    remarks: list[str] = field(default_factory=list)
    missing: int = 0
    choices: int = 0

    @property
    def clean(self) -> bool:
        """Whether every whole line was a result of something that was asked for, and contradicted nothing."""
        return not (self.conflicts or self.unknown or self.unreadable)

    def remark(self, kind: str, words: str) -> None:
        """Count one line of a kind, and name it if it is among the first."""
        count = getattr(self, kind) + 1
        setattr(self, kind, count)
        if count <= _NAMED:
            self.remarks.append(words)

    def __str__(self) -> str:
        counts = {
            "answered": self.answered,
            "failed or cut short": self.failed,
            "known already": self.repeated,
            "in conflict with what is stored": self.conflicts,
            "of requests that were not asked for": self.unknown,
            "not understood": self.unreadable,
        }
        said = ", ".join(f"{count:,} {words}" for words, count in counts.items() if count)
        now = f"{self.missing:,} requests have no answer that can be used; {self.choices:,} contexts have a choice."
        return "\n".join([f"{self.lines:,} lines: {said or 'nothing in them'}. {now}", *self.remarks])


def import_batch(
    workspace: Workspace,
    files: Sequence[str | os.PathLike[str]],
    requests: Mapping[str, Request],
    *,
    tick: Callable[[float], None] | None = None,
) -> ImportReport:
    """Store the results that the files hold for these requests (by key); the first answer to a request stays.

    Every 1,000 lines are one transaction, so an import that was stopped is simply run again. ``tick(k)``: k lines more.

    Errors: `FileError` for a file that is not there, and for one in which no line is a result.
    """
    report = ImportReport()
    for path in map(Path, files):
        if not path.is_file():
            raise FileError(f"'{path}' is no file of results. Name the files that the batch service gave back.")
    for path in map(Path, files):
        before, refused, remarks = report.lines, report.unreadable, len(report.remarks)
        # A parsed line is many times the size of its output, so no two are held at once.
        found = (_output(path, number, line, requests, report) for number, line in _lines(path, report))
        while chunk := list(islice(found, _CHUNK)):
            with workspace.transaction() as connection:
                _merge(connection, [one for one in chunk if one is not None], report)
            if tick is not None:
                tick(float(len(chunk)))
        read = report.lines - before
        if read and report.unreadable - refused == read:
            said = " ".join(report.remarks[remarks : remarks + 1])
            raise FileError(f"No line of {path} is a result of a batch. {said}".strip())
    return report


def _lines(path: Path, report: ImportReport) -> Iterator[tuple[int, Any]]:
    """The number and the JSON of each line; a line that is none is remarked upon and left out."""
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_LONGEST_LINE):
            number += 1
            if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                raise FileError(f"Line {number} of {path} is longer than {_LONGEST_LINE:,} bytes: no file of results.")
            if not raw.strip():
                continue
            try:
                line = json.loads(raw)
            except (ValueError, RecursionError) as error:
                if not raw.endswith(b"\n"):
                    report.remark("torn", f"{path}, line {number}: cut off, as by a download that was stopped.")
                    continue
                report.lines += 1
                report.remark("unreadable", f"{path}, line {number}: no JSON ({error}).")
                continue
            report.lines += 1
            yield number, line


def _output(
    path: Path, number: int, line: object, requests: Mapping[str, Request], report: ImportReport
) -> _Found | None:
    """The output in a line, or None after a remark."""
    place = f"{path}, line {number}"
    key = part(line, "custom_id") or part(line, "key")
    if not isinstance(key, str):
        report.remark("unreadable", f"{place}: has no custom_id (or key), so nobody can say what it answers.")
        return None
    if key not in requests:
        report.remark("unknown", f"{place}: {key[:64]!r} was not asked for.")
        return None
    request = requests[key]
    read = _answer(line, int(request["sampling"]["n"]))
    if read is None:
        report.remark("unreadable", f"{place}: {key[:12]} has neither a response nor an error that is known.")
        return None
    dialect, answer = read
    seen = {
        "provenance": "imported",
        "engine": "batch",
        "dialect": dialect,
        "file": path.name,
        "versions": {"counterplay": counterplay.__version__},
        "date": datetime.now(UTC).date().isoformat(),
        **answer.seen,
    }
    output = Output(request=request, response=answer.response, status=answer.status, provenance=seen)
    return _Found(place=place, key=key, output=output)


def _answer(line: object, count: int) -> tuple[str, Answer] | None:
    """The dialect of a line and the answer in it; None for a line of no known dialect."""
    result, response, error = (part(line, name) for name in ("result", "response", "error"))
    kind = part(result, "type")
    if isinstance(kind, str):
        if kind == "succeeded":
            return "anthropic", read_anthropic(part(result, "message"), count)
        return "anthropic", failure(error_message(part(result, "error")) or kind)
    if isinstance(response, Mapping) and any(name in response for name in _GEMINI):
        return "gemini", read_gemini(response, count)
    body, status = part(response, "body"), part(response, "status_code")
    if isinstance(response, Mapping) and ("body" in response or "status_code" in response):
        if error or (isinstance(status, int) and status >= 400):
            code = part(body, "error", "code")
            words = error_message(error) or error_message(part(body, "error")) or f"HTTP {status}"
            return "openai", failure(words, status=REFUSED if code == "content_filter" else ERROR)
        return "openai", read_openai(body, count)
    trouble = error_message(error) or error_message(part(line, "status"))
    return None if trouble is None else ("unknown", failure(trouble))


def _merge(connection: duckdb.DuckDBPyConnection, found: Sequence[_Found], report: ImportReport) -> None:
    """Store outputs: an answer replaces a failure, else the first stays."""
    known = _stored(connection, [one.key for one in found])
    fresh: dict[str, Output] = {}
    for place, key, output in found:
        response = canonical_json(output.response)
        status, stored = known.get(key, ("", ""))
        if not status or (status != OK and output.status == OK):
            known[key], fresh[key] = (output.status, response), output
            report.answered += output.status == OK
            report.failed += output.status != OK
        elif status == output.status == OK and stored != response:
            report.remark("conflicts", f"{place}: another answer to {key} is stored, and stays.")
        else:
            report.repeated += 1
    put_outputs(connection, fresh.values())


def _stored(connection: duckdb.DuckDBPyConnection, keys: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Status and canonical response of those keys that are stored."""
    rows = connection.execute(
        "SELECT key, status, CAST(response AS VARCHAR) FROM outputs "
        "SEMI JOIN (SELECT unnest(CAST(? AS VARCHAR[])) AS key) USING (key)",
        [list(keys)],
    ).fetchall()
    return {key: (status, canonical_json(json.loads(response))) for key, status, response in rows}
