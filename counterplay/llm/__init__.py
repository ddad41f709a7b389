"""Language models: plan what to ask, ask it once, keep it, and turn it into a policy.

The only room that uses torch, and only inside the functions that run a model: importing this package does not import
it.
"""

from __future__ import annotations

from counterplay.llm.embedding import embed
from counterplay.llm.generate import CheckReport, GenerateReport, generate
from counterplay.llm.models import ModelIdentity, identify, load_model
from counterplay.llm.templates import Template, load_template

__all__ = [
    "CheckReport",
    "GenerateReport",
    "ModelIdentity",
    "Template",
    "embed",
    "generate",
    "identify",
    "load_model",
    "load_template",
]
