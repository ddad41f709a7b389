"""The chat format of a model, as its own files give it.

The format is applied when a request is made: the request holds the very text that the model reads, marks included, and
the hash of the format beside it. Whoever runs the model needs to know nothing of chats.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from counterplay.errors import ConfigurationError, MissingExtraError
from counterplay.llm.models import resolve

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """A chat template (Jinja2, as the tokenizers of ``transformers`` have it), and the special tokens that it names."""

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the template and its tokens: it is part of every request made with them."""
        return hashlib.sha256(json.dumps([self.source, dict(self.tokens)], sort_keys=True).encode()).hexdigest()

    def render(self, preamble: str, prompt: str) -> str:
        """What the model reads when a user says ``prompt``, up to where its answer begins; the preamble is the system
        message (none where it is empty).

        Rendering is sandboxed and knows no date: a template that writes today's date takes its own default. Errors:
        `ConfigurationError` for a template that is none, that refuses a system message, or that needs what is not here.
        """
        system = [{"role": "system", "content": preamble.strip()}] if preamble.strip() else []
        messages = [*system, {"role": "user", "content": prompt.strip()}]
        try:
            # Templates ask whether tools and documents are none, not whether they are there.
            return _compile(self.source).render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self.tokens
            )
        except (jinja2.TemplateError, SecurityError, TypeError) as error:
            raise ConfigurationError(
                f"The model's chat template cannot be applied: {error}. Write the chat's marks into the prompt's "
                "template instead, and leave the chat option out."
            ) from error


def chat_format(spec: str) -> ChatFormat:
    """The chat format of the model that a spec names.

    Errors: `ConfigurationError` for a model without one; `MissingExtraError` where a GGUF file cannot be read without
    the extra ``llm``.
    """
    path = resolve(spec)
    found = _of_gguf(path) if path.is_file() else _of_folder(path)
    if found is None:
        raise ConfigurationError(
            f"'{spec}' has no chat template: it was not trained on chats. Leave the chat option out, or name an "
            "instruction-tuned model."
        )
    return found


def _of_folder(folder: Path) -> ChatFormat | None:
    # Older folders name their special tokens in a file of their own; where both do, the settings hold.
    said = _settings(folder / "special_tokens_map.json") | _settings(folder / "tokenizer_config.json")
    own = folder / "chat_template.jinja"
    source = own.read_text(encoding="utf-8") if own.is_file() else said.get("chat_template")
    if isinstance(source, list):
        source = next((one["template"] for one in source if one.get("name") == "default"), None)
    if not isinstance(source, str):
        return None
    tokens = {name: value["content"] if isinstance(value := said.get(name), dict) else value for name in SPECIAL}
    return ChatFormat(source=source, tokens={name: text for name, text in tokens.items() if isinstance(text, str)})


def _settings(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {name: value for name, value in found.items() if value is not None}


def _of_gguf(path: Path) -> ChatFormat | None:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError(
            "Reading the chat template of a GGUF file needs gguf, which is not installed. "
            "Install it with: pip install 'counterplay[llm]'"
        ) from error
    fields = GGUFReader(path).fields
    if "tokenizer.chat_template" not in fields:
        return None
    vocabulary = fields["tokenizer.ggml.tokens"]
    tokens = {}
    for name in SPECIAL:
        number = fields.get(f"tokenizer.ggml.{name}_id".replace("unk_token", "unknown_token"))
        number = number or fields.get(f"tokenizer.ggml.{name.replace('pad_token', 'padding_token')}_id")
        if number is not None:
            tokens[name] = str(vocabulary.contents(int(number.contents())))
    return ChatFormat(source=str(fields["tokenizer.chat_template"].contents()), tokens=tokens)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


class _Generation(Extension):
    """The tag ``generation``, which marks for training what the model itself has said: here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as its base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands in the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compile(source: str) -> jinja2.Template:
    # As transformers compiles them: without these settings the same template gives other line ends.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(source)
