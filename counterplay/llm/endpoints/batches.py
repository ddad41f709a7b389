"""Batch files: the requests that the cache has no output for, written out for a batch service.

Shards of JSON lines ``{"custom_id", "method", "url", "body"}``, as OpenAI's batch service and vLLM's ``run_batch`` read
them, with the request's key (64 hexadecimal characters) as ``custom_id``; and ``manifest.json``, which says what was
asked. `counterplay.llm.endpoints.batch_results` reads what comes back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

import counterplay
from counterplay.errors import ConfigurationError, FileError
from counterplay.llm.endpoints.endpoint import Endpoint
from counterplay.llm.prompting.requests import Request
from counterplay.logs.outputs import request_key, settled_keys

LINES = 50_000
"""Lines of a shard: the most that OpenAI's batch service takes in one file."""

SHARD_BYTES = 190 * 10**6
"""Bytes of a shard, a little under the 200 MB that the same service takes."""

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class BatchReport:
    """What was written: ``requests`` lines in ``shards`` (file names in order) below ``folder``."""

    folder: Path
    shards: tuple[str, ...]
    requests: int

    def __str__(self) -> str:
        if not self.requests:
            return "Nothing is to be asked: the cache has all of it. No file was written."
        return f"{self.requests:,} requests in {len(self.shards)} files, described in {self.folder / MANIFEST}."


def outstanding(connection: duckdb.DuckDBPyConnection, requests: Iterable[Request]) -> dict[str, Request]:
    """The requests that are still to be asked, by key, each once: those without an output, and those that failed.

    What was cut short or refused has been paid for, and would end the same way: it is not asked again. Change the
    request (``max_tokens``, the template) or remove the output from the cache.
    """
    keyed = {request_key(request): request for request in requests}
    settled = settled_keys(connection, list(keyed))
    return {key: request for key, request in keyed.items() if key not in settled}


def write_batch(
    folder: str | os.PathLike[str], requests: Iterable[Request], endpoint: Endpoint, *, lines: int = LINES
) -> BatchReport:
    """Write requests as batch files into a new folder; all of them or, when it fails, none.

    ``requests``: in the endpoint's form (`Endpoint.request`); the same request twice is one line. ``lines``: of one
    file at most; a file also ends at ``SHARD_BYTES``. Only the address of ``endpoint`` is used, and no key is written.

    Without requests no folder is made. Errors: `FileError` for a folder with something in it, `UnsupportedError` for a
    request that no endpoint can do.
    """
    target = Path(folder)
    if lines < 1:
        raise ConfigurationError(f"A file of {lines} lines cannot be written. Give 1 or more.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileError(
            f"'{target}' is there already. A batch that was sent is paid for: read its results first, "
            "or name another folder."
        )
    keyed = {request_key(request): request for request in requests}
    if not keyed:
        return BatchReport(folder=target, shards=(), requests=0)
    draft = target.with_name(f".{target.name}.{os.getpid()}.new")
    draft.mkdir(parents=True)
    try:
        report = _write(draft, target, keyed, endpoint, lines)
        if target.exists():
            target.rmdir()
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return report


def _write(draft: Path, target: Path, requests: Mapping[str, Request], endpoint: Endpoint, lines: int) -> BatchReport:
    shards: list[dict[str, Any]] = []
    pending = iter(_batch_lines(requests, endpoint))
    line = next(pending, None)
    while line is not None:
        name = f"batch-{len(shards) + 1:04}.jsonl"
        digest, count, size = hashlib.sha256(), 0, 0
        with (draft / name).open("wb") as file:
            while line is not None and (count == 0 or (count < lines and size + len(line) <= SHARD_BYTES)):
                file.write(line)
                digest.update(line)
                count, size = count + 1, size + len(line)
                line = next(pending, None)
        shards.append({"file": name, "lines": count, "bytes": size, "sha256": digest.hexdigest()})
    manifest = {
        "counterplay": counterplay.__version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "address": endpoint.url,
        "requests": len(requests),
        "common": _common(list(requests.values())),
        "shards": shards,
    }
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return BatchReport(folder=target, shards=tuple(str(shard["file"]) for shard in shards), requests=len(requests))


def _batch_lines(requests: Mapping[str, Request], endpoint: Endpoint) -> Iterator[bytes]:
    for key, request in requests.items():
        path, body = endpoint.body(request)
        line = {"custom_id": key, "method": "POST", "url": f"/v1{path}", "body": body}
        yield json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _common(requests: Sequence[Request]) -> Request:
    """The fields in which all requests agree: what was asked, but for the texts."""
    first = requests[0]
    return {name: value for name, value in first.items() if all(request.get(name) == value for request in requests)}
