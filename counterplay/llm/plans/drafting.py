"""Many requests at once: what they share is made once.

The requests of a log have nearly everything in common. A block of a template that does not use the context's text is
the same for all contexts, and so is the canonical JSON of most fields. Requests and keys are exactly those that
`counterplay.llm.prompting.requests` and `counterplay.logs.outputs.request_key` make one by one.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from json.encoder import encode_basestring
from typing import Any

from jinja2 import Environment, nodes
from jinja2.runtime import Context

from counterplay.llm.prompting.requests import Prompting, Request
from counterplay.llm.prompting.templates import Template
from counterplay.logs.outputs import canonical_json, request_key
from counterplay.logs.outputs.canonical import hash_of_text

_VALUES = {"text", "action"}


def remembering(prompting: Prompting) -> Prompting:
    """The same prompting, which renders a block once for each combination of the values that the block uses."""
    template = prompting.template
    if type(prompting) is not Prompting or type(template) is not Template:
        return prompting  # one that renders in a way of its own
    values = {one.name: getattr(prompting, one.name) for one in fields(prompting)}
    return _Prompting(**{**values, "template": _Template(name=template.name, source=template.source)})


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's collector of cycles sleeps: it would look through all requests again and again as they become more, and
    they hold no cycles."""
    awake = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if awake:
            gc.enable()


def request_keys(requests: Iterable[Request]) -> tuple[str, ...]:
    """`request_key` of each request. Errors: `InputError` for what JSON cannot say in one way."""
    last: dict[str, tuple[Any, str]] = {}
    return tuple(_key(request, last) for request in requests)


@dataclass(frozen=True, kw_only=True)
class _Template(Template):
    rendered: dict[tuple[str | None, ...], str] = field(default_factory=dict, repr=False, compare=False)

    def render(self, block: str, **values: Any) -> str:
        place = self.place(block, values)
        if place is None:
            return super().render(block, **values)
        found = self.rendered.get(place)
        if found is None:
            try:
                found = self._render_again(block, values)
            except Exception:
                found = super().render(block, **values)  # which says what is wrong
            self.rendered[place] = found
        return found

    def _render_again(self, block: str, values: dict[str, Any]) -> str:
        """In the context of the last time: to make one takes longer than to render a line."""
        self._context.vars.clear()
        self._context.vars.update(values)
        return "".join(self._compiled().blocks[block](self._context))

    @cached_property
    def _context(self) -> Context:
        return self._compiled().new_context()

    def place(self, block: str, values: dict[str, Any]) -> tuple[str | None, ...] | None:
        """What the block's text depends on; None where that is not known."""
        used = self._used.get(block)
        return None if used is None else (block, *map(values.get, used))

    @cached_property
    def sha256(self) -> str:
        return super().sha256

    @cached_property
    def _used(self) -> dict[str, list[str]]:
        """Of the blocks that use nothing but text and action, which of them. A block inside is part of the outer one;
        other names, such as `self`, may stand for anything."""
        blocks = Environment(autoescape=False).parse(self.source).find_all(nodes.Block)
        used = {block.name: {name.name for name in block.find_all(nodes.Name)} for block in blocks}
        return {block: sorted(names) for block, names in used.items() if names <= _VALUES}


@dataclass(frozen=True, kw_only=True)
class _Prompting(Prompting):
    template: _Template
    made: dict[tuple[str | None, ...], str] = field(default_factory=dict, repr=False, compare=False)

    def preamble(self) -> str:
        return self._preamble

    def prompt(self, text: str, preamble: str, **values: str) -> str:
        place = self.template.place("prompt", {"text": text, **values})
        if place is None:
            return super().prompt(text, preamble, **values)
        found = self.made.get(place)
        if found is None:
            found = self.made[place] = super().prompt(text, preamble, **values)
        return found

    @cached_property
    def _preamble(self) -> str:
        return super().preamble()


def _key(request: Request, last: dict[str, tuple[Any, str]]) -> str:
    """`last`: of each field the last value that was met, and its JSON."""
    written = []
    try:
        for name in sorted(request):
            value = request[name]
            known = last.get(name)
            if known is None or known[0] is not value:
                known = last[name] = (value, f"{encode_basestring(name)}:{_json(value)}")
            written.append(known[1])
        return hash_of_text("{" + ",".join(written) + "}")
    except (ValueError, TypeError):
        # Half a surrogate pair, say: the slow way names the field.
        return request_key(request)


def _json(value: Any) -> str:
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return "[" + ",".join(map(encode_basestring, value)) + "]"
    return canonical_json(value)
