"""One POST to a server that may be slow, busy or broken: sent again where that can help, and only there.

Sent again, after a pause that doubles each time and varies by up to half: 408, 429, 500 to 504, 529 (overloaded), a
time-out, a cut connection. A ``Retry-After`` is obeyed by all threads together. Not sent again: 400, 401, 402, 403, 404
and whatever else says that the request is wrong. What makes every further request useless (a refused key, an empty
account, an unknown model or address) stops the whole run, as `Transport.stopped` says.

The standard library does this well enough that no HTTP package is needed. A redirect is not followed: the key would go
with it to an address that nobody named.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import random
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import counterplay
from counterplay.errors import ConfigurationError, CounterplayError, MissingOutputError
from counterplay.llm.endpoints.dialects import error_message, part

MOST_BYTES = 64 * 2**20
"""An answer longer than this is none: a runaway server must not fill the memory."""

LONGEST_WAIT = 600.0
"""Seconds: a server that asks to wait longer is left alone until the next run."""

_AGAIN = frozenset({408, 429, 500, 501, 502, 503, 504, 529})
_USELESS = frozenset({401, 402, 404, 405})
_LONGEST_PAUSE = 60.0
_SECRET = 16  # characters: what servers without keys are given, by convention, is shorter
_BLOCK = 65536


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came of one request. ``status``: HTTP's, 0 where none came; ``data``: the parsed JSON of a 200, else None.

    ``error``: why there is no data, in words; ``outage``: the server was at fault, not the request; ``refused``: a
    content filter declined the prompt. ``seconds``: of the last attempt alone.
    """

    status: int
    data: Any
    error: str | None
    outage: bool
    refused: bool
    attempts: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    status: int
    body: bytes
    wait: float | None
    error: str | None


class Transport:
    """An address, its key, and the pauses that it asked for; shared by all threads of a run."""

    def __init__(self, *, url: str, key: str | None, timeout: float, attempts: int, backoff: float) -> None:
        self._url, self._key = url, key
        self._timeout, self._attempts, self._backoff = timeout, attempts, backoff
        self._opener = urllib.request.build_opener(
            _AsItCame, urllib.request.HTTPSHandler(context=ssl.create_default_context())
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self.stopped: CounterplayError | None = None

    def stop(self, reason: CounterplayError | None = None) -> None:
        """Send nothing more; requests on their way are still waited for."""
        with self._lock:
            self.stopped = self.stopped or reason
        self._stop.set()

    def post(self, path: str, body: object) -> Reply | None:
        """The reply to a body, or None when the run was stopped before there was one."""
        payload = json.dumps(body, ensure_ascii=False).encode()
        for number in range(1, self._attempts + 1):
            if not self._pause():
                return None
            started = time.monotonic()
            attempt = self._try(path, payload)
            seconds = time.monotonic() - started
            reply = self._judge(attempt, number, seconds)
            if reply is None or not reply.outage or number == self._attempts:
                return reply
            self._wait_after(attempt, number)
        return None

    def _pause(self) -> bool:
        """Wait until the server may be asked; False when the run was stopped."""
        while not self._stop.is_set():
            left = self._not_before - time.monotonic()
            if left <= 0:
                return True
            self._stop.wait(left)
        return False

    def _wait_after(self, attempt: _Attempt, number: int) -> None:
        pause = min(self._backoff * 2 ** (number - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        if attempt.wait is None:
            self._stop.wait(pause)
        elif attempt.wait > LONGEST_WAIT:
            self.stop(
                MissingOutputError(
                    f"{self._url} asks to wait {attempt.wait:.0f} s. Run the same command again then: "
                    "what was answered is stored."
                )
            )
        else:
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + attempt.wait)
            self._stop.wait(attempt.wait + pause)

    def _try(self, path: str, payload: bytes) -> _Attempt:
        headers = {"Content-Type": "application/json", "User-Agent": f"counterplay/{counterplay.__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url + path, data=payload, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                wait = retry_after(response.headers.get("Retry-After"))
                body = _read(response, time.monotonic() + self._timeout)
                return _Attempt(
                    status=response.status, body=self._without_key(body, response.status), wait=wait, error=None
                )
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, ssl.SSLCertVerificationError):
                self.stop(ConfigurationError(f"The certificate of {self._url} is not valid: {reason.verify_message}."))
            words = "time-out" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__
            return _Attempt(status=0, body=b"", wait=None, error=words)

    def _judge(self, attempt: _Attempt, number: int, seconds: float) -> Reply | None:
        data, malformed = _parse(attempt.body) if attempt.error is None else (None, None)
        status, error, found = attempt.status, attempt.error, None
        if error is None and status == 200:
            error, found = malformed, data
        elif error is None:
            words = error_message(part(data, "error") or data) or attempt.body[:200].decode(errors="replace").strip()
            error = f"HTTP {status}: {words}" if words else f"HTTP {status}"
        code = part(data, "error", "code")
        if status in _USELESS or 300 <= status < 400 or code == "insufficient_quota":
            self.stop(ConfigurationError(f"{self._url} answers {error}. {_mend(status)}"))
            return None
        return Reply(
            status=status,
            data=found,
            error=error,
            outage=status in _AGAIN or attempt.error is not None,
            refused=status == 400 and code == "content_filter",
            attempts=number,
            seconds=seconds,
        )

    def _without_key(self, body: bytes, status: int) -> bytes:
        """A body that does not repeat the key; in an answer, a key that is a mere word (EMPTY) is left alone."""
        if self._key is None or (status == 200 and len(self._key) < _SECRET):
            return body
        return body.replace(self._key.encode(), b"(key)")


class _AsItCame(urllib.request.HTTPErrorProcessor):
    """Hands over every status as an answer: no exception, no redirect."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002
        return response

    https_response = http_response


def _read(response: Any, deadline: float) -> bytes:
    """The whole body. A socket's time-out starts anew with each byte, so the whole gets a deadline of its own."""
    blocks, size = [], 0
    while block := response.read1(_BLOCK):
        blocks.append(block)
        size += len(block)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > MOST_BYTES:
            raise http.client.HTTPException(f"the answer is longer than {MOST_BYTES:,} bytes")
    promised = response.headers.get("Content-Length")
    if promised is not None and promised.isdigit() and size < int(promised):
        raise http.client.HTTPException(f"the connection was cut after {size:,} of {int(promised):,} bytes")
    return b"".join(blocks)


def _parse(body: bytes) -> tuple[Any, str | None]:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None, f"the answer is no JSON: {body[:200].decode(errors='replace')}"
    return data, None


def retry_after(header: str | None) -> float | None:
    """Seconds to wait, from a number or a date; None where the header says nothing."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds == seconds else None


def _mend(status: int) -> str:
    if status == 401:
        return "Give the right key."
    if status in (402, 429):
        return "The account has no credit left; what was answered is stored."
    if 300 <= status < 400:
        return "Redirects are not followed, as the key would go with them: name the final address."
    return "Name the model as the server does, and the address up to and with /v1."
