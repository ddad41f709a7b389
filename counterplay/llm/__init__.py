"""Language models: plan what to ask, ask it once, keep it, and turn it into a policy.

The only room that uses torch, and only inside the functions that run a model: importing this package does not import
it.
"""

from __future__ import annotations

from counterplay.llm.actions.choosing import AnswerRule
from counterplay.llm.endpoints.asking import generate_from_batch, generate_from_endpoint, generate_to_batch
from counterplay.llm.endpoints.endpoint import Endpoint, endpoint_from_environment
from counterplay.llm.engines.local import load_model
from counterplay.llm.generate import CheckReport, GenerateReport, generate
from counterplay.llm.models import ModelIdentity, identify
from counterplay.llm.prompting.chat import ChatFormat, chat_format
from counterplay.llm.prompting.examples import Example, draw_examples
from counterplay.llm.prompting.requests import Prompting
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template, load_template
from counterplay.llm.vectors.embedding import embed

__all__ = [
    "AnswerRule",
    "ChatFormat",
    "CheckReport",
    "Endpoint",
    "Example",
    "GenerateReport",
    "ModelIdentity",
    "Prompting",
    "Sampling",
    "Template",
    "chat_format",
    "draw_examples",
    "embed",
    "endpoint_from_environment",
    "generate",
    "generate_from_batch",
    "generate_from_endpoint",
    "generate_to_batch",
    "identify",
    "load_model",
    "load_template",
]
