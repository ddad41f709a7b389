"""Engines: what can run a model, all asked in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, nearest
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.scoring import Pair
from counterplay.llm.models import ModelIdentity, identify

EngineName = Literal["transformers", "vllm", "xllamacpp"]
ENGINES: tuple[EngineName, ...] = ("transformers", "vllm", "xllamacpp")


class Engine(Protocol):
    """A loaded model. ``limit``: how many tokens it can look at; None where nothing says so."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is: that of the requests that it may answer."""

    @property
    def limit(self) -> int | None:
        """Tokens of a prompt and what is written after it, at most."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands."""

    def prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of what the model is to read."""

    def complete(
        self, prompts: Sequence[Prompt], sampling: Mapping[str, Any], *, tick: Callable[[float], None] | None = None
    ) -> list[list[Completion]]:
        """The completions of each prompt: see `counterplay.llm.engines.generation.complete`."""

    def loglikelihoods(
        self, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """log p(continuation | prompt) of each pair of token ids, in nats."""

    def provenance(self) -> dict[str, Any]:
        """``engine``, ``device``, ``versions``: what runs, and where."""


def engine_identity(
    spec: str, *, engine: str = "transformers", dtype: str = "float32", adapter: str | Path | None = None
) -> ModelIdentity:
    """The identity of a model as an engine runs it, from its files alone.

    llama.cpp multiplies quantised weights as they are, by quantised activations: its ``dtype`` is ``native``, which is
    no precision that another engine could take.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"There is no engine '{engine}'. {nearest(engine, ENGINES)}")
    if engine != "xllamacpp":
        return identify(spec, dtype=dtype, adapter=adapter)
    if dtype != "float32":
        raise ConfigurationError("xllamacpp computes in the precision of the file; leave dtype out.")
    return identify(spec, dtype="native", adapter=adapter)


def load_engine(
    spec: str, *, engine: str = "transformers", dtype: str = "float32", adapter: str | Path | None = None
) -> Engine:
    """Load a model into an engine.

    ``spec``: see `counterplay.llm.models`. Errors: `ConfigurationError` for an engine that is none or cannot do what
    is asked; `MissingExtraError` where it is not installed; `FileError` for a model that is not there.
    """
    identity = engine_identity(spec, engine=engine, dtype=dtype, adapter=adapter)
    if engine == "vllm":
        from counterplay.llm.engines.vllm_engine import load_vllm

        return load_vllm(spec, identity, adapter=adapter)
    if engine == "xllamacpp":
        from counterplay.llm.engines.llama_engine import load_llama

        return load_llama(spec, identity, adapter=adapter)
    from counterplay.llm.engines.local import load_model

    return load_model(spec, dtype=dtype, adapter=adapter)
