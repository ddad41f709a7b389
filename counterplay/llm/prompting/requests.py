"""Requests: everything that decides what a model will say, and nothing else.

A request is a plain JSON object. Its canonical form is hashed into the key of the cache (``counterplay.logs.outputs``),
so each field is written out, defaults included. What ran it, where and when is provenance and stays out.

Fields of every request: ``schema_version``, ``operation``, ``provider``, ``model``, ``revision``, ``adapter``,
``quantisation``, ``dtype``, ``tokenizer``, ``chat_template`` (null, or the SHA-256 of the chat format that was
applied), ``template`` (SHA-256 of its file), ``preamble``, ``sampling``, ``sample_index``. A ``loglikelihood`` request
adds ``prompts`` and ``continuations``, of one length; a ``generate`` request adds ``prompt``. What the model reads is
preamble + prompt, to the letter: in a chat both stand in the prompt, with the format's marks, and the preamble is
empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.chat import ChatFormat
from counterplay.llm.prompting.examples import Example
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template, load_template

REQUEST_VERSION = 1

Request = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """How a text becomes a request: the ``template``, the ``examples`` that its preamble shows, the ``chat`` format
    that goes around both (None: none), how texts are drawn, unless candidates are ranked, and after how many
    characters a context's text is ``cut`` (None: it is never)."""

    template: Template
    examples: tuple[Example, ...] = ()
    chat: ChatFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)
    cut: int | None = None

    def __post_init__(self) -> None:
        if self.cut is not None and self.cut < 1:
            raise ConfigurationError(f"A text cut after {self.cut} characters is none. Give 1 or more.")
        shows = self.template.shows_examples
        if self.examples and not shows:
            raise ConfigurationError(
                f"The template '{self.template.name}' does not use the examples that it is given. Use 'examples' in "
                "its block 'preamble', or give none."
            )
        if shows and not self.examples:
            raise ConfigurationError(
                f"The template '{self.template.name}' shows examples, and none are given. Say how many, and the log "
                "that they are drawn from."
            )

    def preamble(self) -> str:
        """What comes before every prompt."""
        shown = {"examples": [asdict(example) for example in self.examples]} if self.examples else {}
        return self.template.render("preamble", **shown)

    def shown(self, text: str) -> str:
        """As much of a context's text as a prompt shows."""
        return text if self.cut is None else text[: self.cut]

    def prompt(self, text: str, preamble: str, **values: str) -> str:
        """What the model reads after the request's own preamble. Errors: `InputError` where it would read nothing."""
        prompt = self.template.render("prompt", text=text, **values)
        if not (preamble + prompt).strip():
            raise InputError(f"The template '{self.template.name}' makes an empty prompt of the text {text!r:.60}.")
        return prompt if self.chat is None else self.chat.render(preamble, prompt)


def prompting_of(prompt: str | Path | Prompting) -> Prompting:
    """A prompting as it is; of a template's path or name, one with nothing around it."""
    return prompt if isinstance(prompt, Prompting) else Prompting(template=load_template(prompt))


def ranking_request(identity: ModelIdentity, prompting: Prompting, text: str, candidates: Sequence[str]) -> Request:
    """Log-likelihood of ``continuations[i]`` after ``prompts[i]``, one pair for each candidate, in their order."""
    preamble, text = prompting.preamble(), prompting.shown(text)
    return {
        **_common(identity, prompting, preamble, "loglikelihood"),
        "sampling": None,
        "prompts": [prompting.prompt(text, preamble, action=candidate) for candidate in candidates],
        "continuations": [
            prompting.template.render("continuation", text=text, action=candidate) for candidate in candidates
        ],
    }


def generation_request(identity: ModelIdentity, prompting: Prompting, text: str, *, best: int = 1) -> Request:
    """``best`` completions of the prompt, each cut before the first of the stop strings.

    At temperature 0 the most likely ones, one found greedily and several by a beam search of that width; above it,
    independent draws.
    """
    preamble, text = prompting.preamble(), prompting.shown(text)
    return {
        **_common(identity, prompting, preamble, "generate"),
        "sampling": prompting.sampling.fields(best),
        "prompt": prompting.prompt(text, preamble),
    }


def _common(identity: ModelIdentity, prompting: Prompting, preamble: str, operation: str) -> Request:
    return {
        "schema_version": REQUEST_VERSION,
        "operation": operation,
        **vars(identity),
        "chat_template": None if prompting.chat is None else prompting.chat.sha256,
        "template": prompting.template.sha256,
        "preamble": preamble if prompting.chat is None else "",
        "sample_index": 0,
    }
