"""The options of `counterplay generate` and `counterplay plan` for what a model is asked, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from counterplay.errors import ConfigurationError

if TYPE_CHECKING:
    from counterplay.llm.prompting.requests import Prompting
    from counterplay.llm.prompting.sampling import Sampling


@Parameter(name="*", group="Prompt")
@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the model reads.

    Attributes:
        prompt: a prompt template, or the name of one that comes with the package; default: `triage`, the demo's.
        chat: put the model's own chat format around the prompt (a model that runs here; a server has its own).
        examples: so many contexts with their best actions are shown first, where the template has a place for them.
        examples_from: the log that they are drawn from: another one than is asked about.
        examples_seed: of that draw.
        cut: so many characters of a context's text are shown; default: all, and a prompt that is too long is an error.
    """

    prompt: str | None = None
    chat: Annotated[bool, Parameter(negative="")] = False
    examples: int | None = None
    examples_from: str | None = None
    examples_seed: int = 0
    cut: int | None = None

    def prompting(self, workspace: Path, log: str, *, model: str | None = None, sampling: Sampling) -> Prompting:
        """How a text becomes a request for a model that runs here; `model` None: for one behind an endpoint.

        Errors: `ConfigurationError` for options that do not go together; those of `draw_examples` and `chat_format`.
        """
        from counterplay.llm.prompting.chat import chat_format
        from counterplay.llm.prompting.examples import draw_examples
        from counterplay.llm.prompting.requests import Prompting
        from counterplay.llm.prompting.templates import load_template

        if (self.examples is None) != (self.examples_from is None):
            raise ConfigurationError("Examples need both --examples N and --examples-from LOG.")
        if self.examples_from == log:
            raise ConfigurationError(
                f"Examples out of '{log}' itself would show the model answers that it is then asked for. Draw them "
                "from another log: import the contexts that may be shown as a log of their own."
            )
        if self.chat and model is None:
            raise ConfigurationError("--chat does nothing for an endpoint, which has a chat format of its own.")
        drawn = (
            draw_examples(workspace, self.examples_from, self.examples, seed=self.examples_seed)
            if self.examples is not None and self.examples_from is not None
            else ()
        )
        return Prompting(
            template=load_template(self.prompt or "triage"),
            examples=drawn,
            chat=chat_format(model) if self.chat and model is not None else None,
            sampling=sampling,
            cut=self.cut,
        )


@Parameter(name="*", group="Sampling")
@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How texts are drawn; a template that ranks candidates draws none.

    Attributes:
        temperature: 0 takes the likeliest token each time.
        top_p: the share of probability that is drawn from.
        top_k: how many tokens are drawn from; default: all. No endpoint takes it.
        max_tokens: where a text is cut.
        seed: of the draws; default: 0 for a model that runs here; a server gets none.
        stop: where a text ends, may be given several times, '' for nowhere; default: the end of the line.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    max_tokens: int = 24
    seed: int | None = None
    stop: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ("\n",)

    def sampling(self, *, logprobs: bool = True) -> Sampling:
        """As the library takes it. Errors: `ConfigurationError`."""
        from counterplay.llm.prompting.sampling import Sampling

        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
            stop=tuple(mark for mark in self.stop if mark),
            logprobs=logprobs,
        )


@Parameter(name="*", group="Engine")
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What runs a model here.

    Attributes:
        engine: transformers; vllm, or xllamacpp for GGUF files without torch, where they are installed.
        dtype: the arithmetic, part of every request; bfloat16 is faster, and moves log-likelihoods by some 0.2 nats.
        adapter: a folder that PEFT has saved, put on top of the model.
    """

    engine: Literal["transformers", "vllm", "xllamacpp"] = "transformers"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    adapter: Path | None = None


PLAIN_PROMPT, PLAIN_SAMPLING, PLAIN_ENGINE = PromptOptions(), SamplingOptions(), EngineOptions()
