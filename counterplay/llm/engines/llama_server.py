"""llama.cpp's server (the package ``xllamacpp``), run in this process and asked over its own HTTP interface."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import selectors
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from counterplay.errors import FileError, MissingExtraError, UnsupportedError
from counterplay.llm.engines.threads import patient_threads

SLOTS = 4
"""Sequences that are computed at the same time."""

Answer = dict[str, Any]
Result = TypeVar("Result")
Work = Generator[dict[str, Any], Answer, Result]
"""Yields what is to be asked of the sequence that it is given, is sent the answers, and returns what came of them."""


def library() -> Any:
    """The module ``xllamacpp``. Errors: `MissingExtraError` where it is not installed."""
    try:
        with patient_threads():
            import xllamacpp
    except ImportError as error:
        raise MissingExtraError(
            "The engine xllamacpp is not installed. Install it with: pip install xllamacpp"
        ) from error
    return xllamacpp


class LlamaServer:
    """llama.cpp's server, in this process and for it alone: on the loopback device, with a key of chance.

    Only its HTTP interface can tokenize; and over it one thread can wait for all sequences, so that Ctrl-C ends the
    waiting, and the closed connections end what is under way.

    ``path``: a GGUF file. ``context``: tokens of memory of each of the `SLOTS` sequences. Errors: `FileError` for a
    file that llama.cpp cannot load.
    """

    def __init__(self, path: Path, context: int) -> None:
        llama = library()
        self.context, self._key = context, secrets.token_hex(16)
        params = llama.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context * SLOTS, SLOTS
        # A sequence that shares its memory with others is added up in another order.
        params.kv_unified = False
        # Windows of attention keep what they have passed, or nothing of a prompt could be used twice.
        params.swa_full = True
        params.cache_ram_mib = params.n_ctx_checkpoints = 0
        params.cache_idle_slots = params.warmup = params.endpoint_slots = params.ui = False
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _processors()
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self._key]
        params.verbosity = -1
        try:
            self._server = llama.Server(params)
        except RuntimeError as error:
            raise FileError(
                f"llama.cpp cannot load '{path}': the file is cut short, damaged, of an architecture that this version "
                f"does not know, or too large for the memory. ({error})"
            ) from error
        self._address = self._server.listening_address.removeprefix("http://")
        # Answered by the thread that computes: a server that is let go before that thread runs waits for it forever.
        self.ask("GET", "/lora-adapters")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Ask, and wait for the answer."""
        return _answer(self._send(method, path, body))

    def tokens(self, text: str, *, marked: bool) -> list[int]:
        """Token ids of a text, with what the tokenizer puts around it or without."""
        body = {"content": text, "add_special": marked, "parse_special": True}
        return [int(token) for token in self.ask("POST", "/tokenize", body)["tokens"]]

    def each(self, works: Iterable[Work[Result]]) -> list[Result]:
        """What each of the works returns, in their order; `SLOTS` of them are done at the same time."""
        waiting = enumerate(works)
        found: dict[int, Result] = {}
        with selectors.DefaultSelector() as busy, contextlib.ExitStack() as opened:

            def ask(slot: int, at: int, work: Work[Result], asked: Mapping[str, Any]) -> None:
                connection = self._send("POST", "/completion", {**asked, "id_slot": slot})
                busy.register(connection.sock, selectors.EVENT_READ, (connection, slot, at, work))

            def begin(slot: int) -> None:
                for at, work in waiting:
                    ask(slot, at, work, next(work))
                    return

            # Whatever ends the waiting, closed connections end what is under way.
            opened.callback(lambda: [key.data[0].close() for key in list(busy.get_map().values())])
            for slot in range(SLOTS):
                begin(slot)
            while busy.get_map():
                for key, _ in busy.select():
                    connection, slot, at, work = key.data
                    busy.unregister(key.fileobj)
                    try:
                        asked = work.send(_answer(connection))
                    except StopIteration as end:
                        found[at] = end.value
                        begin(slot)
                    else:
                        ask(slot, at, work, asked)
        return [found[at] for at in range(len(found))]

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self._address)
        headers = {"Authorization": f"Bearer {self._key}", "Connection": "close", "Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return connection


def _answer(connection: http.client.HTTPConnection) -> Answer:
    with connection.getresponse() as response:
        content = response.read()
    connection.close()
    answer: Answer = json.loads(content)
    if response.status != 200:
        raise UnsupportedError(f"llama.cpp cannot answer: {answer['error']['message']}. Take the engine transformers.")
    return answer


def _processors() -> int:
    """As many as this process may use; llama.cpp would count those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
