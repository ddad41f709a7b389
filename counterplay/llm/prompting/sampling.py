"""How texts are drawn from a model, the same for all requests of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from counterplay.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How texts are drawn.

    ``max_tokens``: where a text is cut (its output then has the status ``truncated``). ``temperature`` 0 takes the
    likeliest token each time; above it, tokens are drawn from the distribution that it flattens or sharpens.
    ``top_p``: the share of probability drawn from; ``top_k``: how many tokens are drawn from (None: all; no endpoint
    takes it). ``seed``: of the draws; a model that runs here gives the same texts for the same seed whatever is asked
    beside them (None is 0 there), a server does what it can. ``stop``: a text ends before the first of these.
    ``logprobs``: ask a server for log-probabilities, which some refuse; a model that runs here always gives them.
    """

    max_tokens: int = 24
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ("\n",)
    logprobs: bool = True

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigurationError(f"max_tokens is {self.max_tokens}; a text has at least 1 token.")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigurationError(f"temperature is {self.temperature}; it is 0 or more.")
        if not 0 < self.top_p <= 1:
            raise ConfigurationError(f"top_p is {self.top_p}; it is a share above 0, at most 1.")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigurationError(f"top_k is {self.top_k}; it is 1 token or more. Leave it out to draw from all.")
        if not all(self.stop):
            raise ConfigurationError("A stop string is empty, and would end every text at once. Remove it.")

    def fields(self, count: int) -> dict[str, Any]:
        """The field ``sampling`` of a request for ``count`` texts from a model that runs here: several are found by a
        beam search at temperature 0, and drawn independently above it. Errors: `ConfigurationError` for what would do
        nothing at temperature 0."""
        drawn = self.temperature > 0
        if not drawn and (self.seed is not None or self.top_k is not None or self.top_p < 1):
            raise ConfigurationError(
                "At temperature 0 nothing is drawn: seed, top_k and top_p do nothing there. Leave them out, or give a "
                "temperature above 0."
            )
        return {
            "beams": 1 if drawn else count,
            "max_tokens": self.max_tokens,
            "n": count,
            "seed": (self.seed or 0) if drawn else None,
            "stop": list(self.stop),
            "temperature": self.temperature if drawn else 0,
            "top_k": self.top_k if drawn else None,
            "top_p": self.top_p if drawn and self.top_p < 1 else 1,
        }
