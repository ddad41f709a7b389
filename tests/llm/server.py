"""A model server on the loopback interface that misbehaves as it is told to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Mapping[str, Any]


@dataclass(kw_only=True)
class Trouble:
    """What the server does instead of answering, once: a status with headers and a body, after a delay, or a cut."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    delay: float = 0.0
    cut: bool = False


def chat(body: Body, *texts: str, ending: str = "stop", **message: Any) -> dict[str, Any]:
    """An answer of `/chat/completions` in which every token has the log-probability -0.5."""
    words = [text.split() for text in texts]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": f"{body['model']}-2026-01-01",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None, **message},
                "finish_reason": ending,
                "logprobs": {"content": [{"token": word, "logprob": -0.5} for word in words[index]]},
            }
            for index, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": sum(map(len, words)), "total_tokens": 9},
    }


class ModelServer:
    """``asked``: path and body of every request; ``seen``: its headers; ``troubles``: what goes wrong first, in order;
    ``most``: how many requests were ever under way at once."""

    def __init__(self) -> None:
        self.reply: Callable[[str, Body], Body] = lambda _, body: chat(body, prompt_of(body).upper())
        self.asked: list[tuple[str, Body]] = []
        self.seen: list[Mapping[str, str]] = []
        self.times: list[float] = []
        self.troubles: deque[Trouble] = deque()
        self.delay = 0.0
        self.most = 0
        self.url = ""
        self._under_way = 0
        self._lock = threading.Lock()

    def enter(self, path: str, headers: Mapping[str, str], body: Body) -> Trouble | None:
        with self._lock:
            self.asked.append((path, body))
            self.seen.append(headers)
            self.times.append(time.monotonic())
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            return self.troubles.popleft() if self.troubles else None

    def leave(self) -> None:
        with self._lock:
            self._under_way -= 1

    @property
    def prompts(self) -> list[str]:
        return [prompt_of(body) for _, body in self.asked]


def prompt_of(body: Body) -> str:
    """What the user said, in a chat or a completion."""
    said = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    assert isinstance(said, str)
    return said


@contextmanager
def serving() -> Iterator[ModelServer]:
    """A server for the length of a block."""
    model = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            trouble = model.enter(self.path, dict(self.headers), body)
            try:
                time.sleep(model.delay if trouble is None else trouble.delay)
                said = trouble or Trouble(body=json.dumps(model.reply(self.path, body)))
            finally:
                model.leave()  # before the client has its answer, and may ask the next
            with contextlib.suppress(OSError):  # the client has gone, which is what some tests are about
                self.answer(said)

        def answer(self, said: Trouble) -> None:
            payload = said.body.encode()
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(payload) + (100 if said.cut else 0)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def texts_of(outputs: Sequence[Any]) -> list[str]:
    """The first text of each output, sorted."""
    return sorted(output.response["texts"][0] for output in outputs)
