"""Prompt templates: Jinja2 files with named blocks.

A template defines the block ``prompt`` and, for ranking, the block ``continuation``. Both may use ``text`` (the
context's) and, when ranking, ``action`` (the candidate's). Which of the two stands in which block is the template's
choice: asking for the action given the text ranks directly, asking for the text given the action is the noisy channel.
The block ``preamble`` (instruction, examples) comes before the prompt and uses neither. It may use ``examples``, a list
of pairs with ``text`` and ``action`` (`counterplay.llm.prompting.examples`):

    {% block preamble %}{% for example in examples %}{{ example.text }}: {{ example.action }}
    {% endfor %}{% endblock %}

Rendering is sandboxed, and a name that is not defined is an error rather than an empty string.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from counterplay.errors import ConfigurationError, FileError, nearest

_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
)


@dataclass(frozen=True, kw_only=True)
class Template:
    """``source`` is the text of the file, ``sha256`` its hash, which is part of every request made with it."""

    name: str
    source: str

    def __post_init__(self) -> None:
        if "prompt" not in self._compiled().blocks:
            raise ConfigurationError(
                f"The template '{self.name}' has no block 'prompt'. "
                "Wrap the prompt in {% block prompt %} ... {% endblock %}."
            )

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def ranks(self) -> bool:
        """Whether the template has a continuation to score, so that it can rank candidates."""
        return "continuation" in self._compiled().blocks

    @property
    def shows_examples(self) -> bool:
        """Whether the preamble uses ``examples``."""
        return "examples" in meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source))

    def render(self, block: str, **values: Any) -> str:
        """The text of one block; nothing for a preamble that the template does not have."""
        template = self._compiled()
        if block == "preamble" and block not in template.blocks:
            return ""
        try:
            return "".join(template.blocks[block](template.new_context(values)))
        except SecurityError as error:
            raise ConfigurationError(
                f"The template '{self.name}' reaches for what a template may not have: {error}."
            ) from error
        except jinja2.UndefinedError as error:
            raise ConfigurationError(
                f"The template '{self.name}' uses a name that this request does not have: {error}. "
                f"Available here: {', '.join(sorted(values))}."
            ) from error

    def _compiled(self) -> jinja2.Template:
        try:
            return _compile(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigurationError(
                f"The template '{self.name}' is no Jinja2 template: line {error.lineno}: {error.message}."
            ) from error


@lru_cache(maxsize=32)
def _compile(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


def load_template(spec: str | Path) -> Template:
    """A template by the name of one that comes with the package (``triage``) or by the path of a file."""
    shipped = {Path(f.name).stem: f for f in files("counterplay.llm.prompts").iterdir() if f.name.endswith(".j2")}
    if isinstance(spec, str) and spec in shipped:
        return Template(name=spec, source=shipped[spec].read_text(encoding="utf-8"))
    path = Path(spec)
    if not path.is_file():
        raise FileError(f"'{spec}' is neither a template file nor a template's name. {nearest(str(spec), shipped)}")
    return Template(name=path.stem, source=path.read_text(encoding="utf-8"))
