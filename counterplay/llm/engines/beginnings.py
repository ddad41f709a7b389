"""What several token sequences begin with (instruction, examples), read by the model once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterplay.llm.engines.local import LanguageModel


def shared_length(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with; at least one of every row is left over."""
    first, last = min(rows), max(rows)
    # What the first and the last in order share, all in between share too.
    return min(common(first, last), min(len(row) for row in rows) - 1)


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences share from the first on."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count


def read_beginning(model: LanguageModel, ids: Sequence[int]) -> Any:
    """The keys and values of a beginning: a `DynamicCache` of one row, empty where there is none."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.module.config)
    if ids:
        with torch.inference_mode():
            model.module.base_model(
                input_ids=torch.tensor([list(ids)], device=model.device), past_key_values=cache, use_cache=True
            )
    return cache
