"""Requests: everything that decides what a model will say, and nothing else.

A request is a plain JSON object. Its canonical form is hashed into the key of the cache (``counterplay.logs.outputs``),
so each field is written out, defaults included. What ran it, where and when is provenance and stays out.

Fields of every request: ``schema_version``, ``operation``, ``provider``, ``model``, ``revision``, ``adapter``,
``quantisation``, ``dtype``, ``tokenizer``, ``chat_template`` (always null: templates write a chat's marks out),
``template`` (SHA-256 of its file), ``preamble``, ``sampling``, ``sample_index``. A ``loglikelihood`` request adds
``prompts`` and ``continuations``, of one length; a ``generate`` request adds ``prompt``. What the model reads is
preamble + prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from counterplay.llm.models import ModelIdentity
from counterplay.llm.templates import Template

REQUEST_VERSION = 1

Request = dict[str, Any]


def ranking_request(identity: ModelIdentity, template: Template, text: str, candidates: Sequence[str]) -> Request:
    """Log-likelihood of ``continuations[i]`` after ``prompts[i]``, one pair for each candidate, in their order."""
    return {
        **_common(identity, template, "loglikelihood"),
        "sampling": None,
        "prompts": [template.render("prompt", text=text, action=candidate) for candidate in candidates],
        "continuations": [template.render("continuation", text=text, action=candidate) for candidate in candidates],
    }


def generation_request(
    identity: ModelIdentity,
    template: Template,
    text: str,
    *,
    best: int = 1,
    max_tokens: int = 24,
    stop: Sequence[str] = ("\n",),
) -> Request:
    """The ``best`` most likely completions of the prompt, each cut before the first of the stop strings.

    One is found greedily, several by a beam search of that width.
    """
    sampling = {
        "beams": best,
        "max_tokens": max_tokens,
        "n": best,
        "seed": None,
        "stop": list(stop),
        "temperature": 0,
        "top_k": None,
        "top_p": 1,
    }
    return {
        **_common(identity, template, "generate"),
        "sampling": sampling,
        "prompt": template.render("prompt", text=text),
    }


def _common(identity: ModelIdentity, template: Template, operation: str) -> Request:
    return {
        "schema_version": REQUEST_VERSION,
        "operation": operation,
        **asdict(identity),
        "chat_template": None,
        "template": template.sha256,
        "preamble": template.render("preamble"),
        "sample_index": 0,
    }
