"""Asking a model behind an OpenAI-compatible address, some requests at a time, and handing over answers as they come.

The address may be a service or a server of one's own (vLLM, llama.cpp, Ollama ...). Nothing here knows a log; what was
asked and answered goes into the cache through the function that the caller passes. Needs no torch and no HTTP package.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import counterplay
from counterplay.errors import ConfigurationError, MissingOutputError
from counterplay.llm.endpoints.dialects import REFUSED, Answer, failure, read_openai
from counterplay.llm.endpoints.protocol import endpoint_identity, endpoint_request, wire_body
from counterplay.llm.endpoints.transport import Reply, Transport
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.requests import Request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.logs.outputs import ERROR, OK, Output

URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
PREFIX = "endpoint:"
"""What a model's name begins with when it stands behind an endpoint: ``endpoint:gpt-4o-mini``."""

GIVE_UP = 8
"""So many failures in a row, and the run stops: a server that is down is not asked fifty thousand times."""

COMMIT_SECONDS = 1.0
"""How long an answer waits to be kept together with others, at most: what a killed process can lose."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a model is asked, and how.

    ``url``: up to and with ``/v1``. ``key``: sent as a bearer token; it is never stored, printed or part of a
    provenance. ``provider``: whose name for the model it is, part of every key; default: the url's host, port and path
    without ``/v1``, so give a name of your own to a server that may move. ``chat``: ``/chat/completions``, else
    ``/completions``. ``parallel``: requests under way at once. ``timeout``: seconds for one attempt. ``attempts``: how
    often one request is sent at most; ``backoff``: seconds of the first pause, doubled each time.

    `ConfigurationError` names what cannot be.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    provider: str = ""
    chat: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    parallel: int = 4
    timeout: float = 120.0
    attempts: int = 5
    backoff: float = 0.5

    def __post_init__(self) -> None:
        url = _checked_url(self.url)
        parts = urlsplit(url)
        object.__setattr__(self, "url", url)
        object.__setattr__(self, "provider", self.provider or parts.netloc + parts.path.removesuffix("/v1"))
        object.__setattr__(self, "key", _checked_key(self.key))
        for name, least in (("parallel", 1), ("attempts", 1)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; give {least} or more.")
        if not 0 < self.timeout < float("inf") or not 0 <= self.backoff < float("inf"):
            raise ConfigurationError(f"timeout {self.timeout} and backoff {self.backoff} are no seconds to wait.")

    def identity(self, model: str) -> ModelIdentity:
        """The identity of the model that the server knows under this name."""
        if not model:
            raise ConfigurationError(f"The model has no name. Write {PREFIX}NAME, with the server's name for it.")
        return endpoint_identity(model, self.provider)

    def request(self, planned: Request) -> Request:
        """A planned request in this endpoint's form: see `counterplay.llm.endpoints.protocol.endpoint_request`."""
        return endpoint_request(planned, self.sampling, chat=self.chat)

    def body(self, request: Request) -> tuple[str, dict[str, Any]]:
        """The path below ``/v1`` and the body of a request."""
        return wire_body(request, limit=_limit_name(self.url))

    def ask(
        self,
        requests: Sequence[Request],
        keep: Callable[[Sequence[Output]], object],
        *,
        tick: Callable[[float], None] | None = None,
    ) -> None:
        """Ask each request and pass outputs to ``keep`` as they come, in their order, once a second.

        ``keep`` is called in this thread, with at least one output, and may meet one twice if it was interrupted;
        ``tick(1.0)`` for each output. A failed request is an output too, with the status ``error``. When the run stops,
        for an error or Ctrl-C, nothing more is sent, and what is under way is waited for (``timeout`` at most) and
        kept.

        `ConfigurationError`: the key, the account, the model or the address is refused. `MissingOutputError`: `GIVE_UP`
        requests in a row failed. `UnsupportedError`: before anything is sent, for a request that no endpoint can do.
        """
        for request in requests:
            self.body(request)
        transport = Transport(
            url=self.url, key=self.key, timeout=self.timeout, attempts=self.attempts, backoff=self.backoff
        )
        crowd = _Crowd(endpoint=self, transport=transport, keep=keep, tick=tick or (lambda _: None))
        crowd.run(requests)


def endpoint_from_environment(url: str | None = None, *, key_variable: str | None = None, **fields: Any) -> Endpoint:
    """An `Endpoint` whose key stands in an environment variable, and its url too where none is given.

    The url is that of ``OPENAI_BASE_URL``. ``key_variable``: where the key is; None: ``OPENAI_API_KEY`` for the url of
    ``OPENAI_BASE_URL`` and for OpenAI's own, nowhere for others, so that no key goes to a server that it is not meant
    for. ``fields``: the others of `Endpoint`. Errors: `ConfigurationError` without a url, or a key that was named.
    """
    found = url or os.environ.get(URL_VARIABLE)
    if not found:
        raise ConfigurationError(f"No address is named. Give --endpoint, or set {URL_VARIABLE}, up to and with /v1.")
    if key_variable is None:
        key = os.environ.get(KEY_VARIABLE) if found == os.environ.get(URL_VARIABLE) or _is_openai(found) else None
    else:
        key = os.environ.get(key_variable)
        if not key:
            raise ConfigurationError(f"The environment variable {key_variable} holds no key. Set it, or name another.")
    return Endpoint(url=found, key=key, **fields)


_Running = Future[tuple[Output, bool] | None]


@dataclass(kw_only=True)
class _Crowd:
    """The requests of one run that are under way, and how the last ones ended."""

    endpoint: Endpoint
    transport: Transport
    keep: Callable[[Sequence[Output]], object]
    tick: Callable[[float], None]
    failures: int = 0
    answered: bool = False
    unkept: list[Output] = field(default_factory=list)
    kept_at: float = field(default_factory=time.monotonic)

    def run(self, requests: Sequence[Request]) -> None:
        queue = iter(requests)
        running: set[_Running] = set()
        with ThreadPoolExecutor(self.endpoint.parallel, thread_name_prefix="endpoint") as pool:
            try:
                while self.transport.stopped is None:
                    free = self.endpoint.parallel - len(running)
                    running |= {pool.submit(self._one, request) for request in islice(queue, free)}
                    if not running:
                        break
                    done, others = wait(running, timeout=COMMIT_SECONDS, return_when=FIRST_COMPLETED)
                    self._collect(done)
                    running = others
                    if time.monotonic() - self.kept_at >= COMMIT_SECONDS:
                        self._keep()
            finally:
                self.transport.stop()
                try:
                    self._collect(wait(running).done)
                finally:
                    self._keep()
        if self.transport.stopped is not None:
            raise self.transport.stopped

    def _keep(self) -> None:
        if self.unkept:
            self.keep(list(self.unkept))
            self.unkept.clear()
        self.kept_at = time.monotonic()

    def _one(self, request: Request) -> tuple[Output, bool] | None:
        reply = self.transport.post(*self.endpoint.body(request))
        if reply is None:
            return None
        answer = _read(reply, int(request["sampling"]["n"]))
        seen = _provenance(self.endpoint, reply, answer)
        return Output(request=request, response=answer.response, status=answer.status, provenance=seen), reply.outage

    def _collect(self, done: set[_Running]) -> None:
        ended = [result for future in done if future.exception() is None and (result := future.result()) is not None]
        # First of all, and all of them: they are paid for.
        self.unkept += [output for output, _ in ended]
        for output, outage in ended:
            self.tick(1.0)
            self.answered = self.answered or output.status == OK
            self.failures = self.failures + 1 if output.status == ERROR else 0
            # A request can be wrong by itself; that all are wrong is certain only while none was right.
            if self.failures >= GIVE_UP and (outage or not self.answered):
                self.transport.stop(
                    MissingOutputError(
                        f"{self.failures} requests to {self.endpoint.url} failed in a row, the last with: "
                        f"{output.response['error']}. What was answered is stored; run the same command again to go on."
                    )
                )
        for future in done:
            future.result()


def _read(reply: Reply, count: int) -> Answer:
    if reply.error is not None:
        return failure(reply.error, status=REFUSED if reply.refused else ERROR)
    return read_openai(reply.data, count)


def _provenance(endpoint: Endpoint, reply: Reply, answer: Answer) -> dict[str, Any]:
    return {
        "provenance": "recorded",
        "engine": "endpoint",
        "url": endpoint.url,
        "latency_seconds": round(reply.seconds, 3),
        "attempts": reply.attempts,
        "http_status": reply.status,
        "versions": {"counterplay": counterplay.__version__},
        "date": datetime.now(UTC).date().isoformat(),
        **answer.seen,
    }


def _limit_name(url: str) -> str:
    """OpenAI's own service has renamed ``max_tokens`` for chats, and its newer models refuse the old name."""
    return "max_completion_tokens" if _is_openai(url) else "max_tokens"


def _is_openai(url: str) -> bool:
    return _checked_url(url).startswith("https://api.openai.com/")


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError("The endpoint's address is none. Write it as https://api.example.com/v1.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "The endpoint's address holds a user, a password, a query or a fragment, which would be stored with every "
            f"output. Give the address alone, and the key in {KEY_VARIABLE}."
        )
    return url.rstrip("/")


def _checked_key(key: str | None) -> str | None:
    """The key without the line end that a file leaves; not shown in the message, whatever is wrong with it."""
    stripped = (key or "").strip()
    if not stripped.isascii() or not stripped.isprintable() or " " in stripped:
        raise ConfigurationError("The endpoint's key holds a space or a sign that no key has. Copy it again.")
    return stripped or None
