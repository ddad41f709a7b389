"""A process that fills the cache of a workspace through `generate`, with a model that is a function."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from counterplay.logs.outputs import Output

module = importlib.import_module("counterplay.llm.generate")

# Processes are forked from one that has imported everything and opened nothing.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.logs.filling", "polars", "pyarrow"])


class Filling:
    """A run of `generate` on the log 'desk', with chunks of a size, in a process of its own.

    Each key that the model is asked for is written to a file before it is answered. ``seconds``: how long the model
    takes for a chunk. ``steps``: it waits for `go` at each chunk.
    """

    def __init__(self, place: Path, name: str, chunk: int = 20, seconds: float = 0.0, *, steps: bool = False) -> None:
        self._file = place.parent / name
        self._here, there = _PROCESSES.Pipe()
        words = (place, self._file, chunk, seconds, steps, there)
        self._process = _PROCESSES.Process(target=_fill, args=words, daemon=True)
        self._process.start()
        there.close()
        assert self.said() == "ready"

    @property
    def asked(self) -> list[str]:
        """The keys that the model was asked for, in their order."""
        return self._file.read_text().split() if self._file.exists() else []

    @property
    def number(self) -> int | None:
        return self._process.pid

    def said(self) -> Any:
        """The size of the chunk that waits, or at the end what `generate` reports."""
        return self._here.recv()

    def go(self) -> Any:
        self._here.send("go")
        return self.said()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def _fill(place: Path, file: Path, chunk: int, seconds: float, steps: bool, there: Connection) -> None:
    asked = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(_model: Any, requests: Sequence[dict[str, Any]], *, tick: Any) -> list[Output]:
        outputs = []
        for request in requests:
            response = {"logprobs": [-float(len(prompt)) for prompt in request["prompts"]]}
            outputs.append(Output(request=request, response=response, provenance={"process": os.getpid()}))
            tick(1.0)
        os.write(asked, "".join(f"{output.key}\n" for output in outputs).encode())
        if steps:
            there.send(len(outputs))
            there.recv()
        time.sleep(seconds)
        return outputs

    module.CHUNK, module.answer = chunk, answer
    module.load_engine = lambda *_, **__: SimpleNamespace(limit=None)
    there.send("ready")
    there.send(str(module.generate(place, "desk", model=str(place.parent / "tiny-Q4_1.gguf"))))
