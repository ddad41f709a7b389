"""Log-probabilities of tokens, out of what the body of a decoder has computed.

The logits are evaluated only where a continuation is predicted: of 262,144 tokens those of one place are a megabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

BLOCK = 128
"""Places whose logits are made at once: those stay in the processor's cache, those of a whole tree do not."""

Term = tuple[int, int]
"""A place and a token: how likely the token is next."""


def term_values(module: Any, output: Any, terms: Sequence[Term]) -> list[float]:
    """Log-probability of each term, in nats.

    ``output``: what the body of ``module`` gave, hidden states ``(rows, length, width)``; place p is that of
    ``row * length + position``. ``terms`` come sorted by place.
    """
    import torch

    hidden = output.last_hidden_state.flatten(0, 1)
    places = sorted({place for place, _ in terms})
    values: list[float] = []
    bounds = [*range(0, len(places), BLOCK), len(places)]
    for low, high in pairwise(bounds):
        block = places[low:high]
        logits = _logits(module, output, hidden[block]).float()
        normaliser = torch.logsumexp(logits, dim=-1)
        at = {place: i for i, place in enumerate(block)}
        mine = [(at[place], token) for place, token in terms if place in at]
        rows, tokens = (torch.tensor(column, device=logits.device) for column in zip(*mine, strict=True))
        values += (logits[rows, tokens] - normaliser[rows]).double().cpu().tolist()
    return values


def _logits(module: Any, output: Any, hidden: Any) -> Any:
    """Of these hidden states ``(places, width)``, by the model's own last steps.

    Models differ in what they do behind the matrix of the output layer: Gemma 2 caps the logits, Cohere and Granite
    scale them, others cut a padded vocabulary. So the module is asked as a whole, its body having answered already.
    """
    import torch

    body, asked = module.base_model, False

    def answered(*_: Any, **__: Any) -> Any:
        nonlocal asked
        asked = True
        return type(output)(last_hidden_state=hidden[None])

    body.forward = answered
    try:
        stand_in = torch.zeros((1, len(hidden)), dtype=torch.long, device=hidden.device)
        logits = module(input_ids=stand_in, use_cache=False).logits[0]
    finally:
        # The attribute of the instance: that of the class was never gone.
        del body.forward
    # OPT goes past its body to the decoder in it; what it does after that is the matrix alone.
    return logits if asked else module.get_output_embeddings()(hidden)
