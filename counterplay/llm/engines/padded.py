"""Log-likelihood of continuations, each pair a row of its own, padded on the right.

For models that a prefix tree (``counterplay.llm.engines.scoring``) does not suit: encoder-decoders, where the prompt is
read and the continuation is written; and decoders whose attention no mask describes. A row sees nothing of its
neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from counterplay.llm.engines.logits import term_values

if TYPE_CHECKING:
    import torch

    from counterplay.llm.engines.local import LanguageModel
    from counterplay.llm.engines.scoring import Pair


def loglikelihoods(
    model: LanguageModel, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
) -> npt.NDArray[np.float64]:
    """log p(continuation | prompt) of each pair, in nats: shape ``(len(pairs),)``, in the order given.

    The end of the text is no part of a continuation. ``tick(k)`` is called as k more pairs are done. Errors:
    `InputError` for a pair that alone does not fit into memory.
    """
    scores = np.empty(len(pairs), dtype=np.float64)
    lengths = [len(prompt) + len(continuation) for prompt, continuation in pairs]
    score = _written if model.encoder_decoder else _continued
    for rows, found in model.batches.run(lengths, lambda batch: score(model, [pairs[i] for i in batch])):
        scores[rows] = found
        if tick is not None:
            tick(len(rows))
    return scores


def padded(rows: Sequence[Sequence[int]], filler: int, *, left: bool = False) -> torch.Tensor:
    """``(rows, longest)``: token ids, what a shorter row lacks filled in behind it, or before it."""
    import torch

    longest = max(len(ids) for ids in rows)
    filled = [[filler] * (longest - len(ids)) for ids in rows]
    return torch.tensor(
        [[*fill, *ids] if left else [*ids, *fill] for ids, fill in zip(rows, filled, strict=True)], dtype=torch.long
    )


def _written(model: LanguageModel, pairs: Sequence[Pair]) -> list[float]:
    """By an encoder-decoder."""
    import torch

    ids = padded([prompt for prompt, _ in pairs], model.padding).to(model.device)
    mask = padded([[1] * len(prompt) for prompt, _ in pairs], 0).to(model.device)
    # -100 is no token: the library's word for what is not to be predicted.
    labels = padded([rest for _, rest in pairs], -100).to(model.device)
    with torch.inference_mode():
        logits = model.module(input_ids=ids, attention_mask=mask, labels=labels).logits.float()
        taken = labels.clamp(min=0)[:, :, None]
        values = (logits.gather(2, taken)[:, :, 0] - logits.logsumexp(dim=-1)).where(labels >= 0, 0.0)
    return [float(value) for value in values.double().sum(dim=1).cpu()]


def _continued(model: LanguageModel, pairs: Sequence[Pair]) -> list[float]:
    """By a decoder. No mask is needed: what is filled in stands behind a row, and a decoder never looks ahead."""
    import torch

    # The last token is predicted, never read.
    ids = padded([(prompt + rest)[:-1] for prompt, rest in pairs], model.padding).to(model.device)
    terms = [
        (row * ids.shape[1] + len(prompt) - 1 + place, token)
        for row, (prompt, rest) in enumerate(pairs)
        for place, token in enumerate(rest)
    ]
    with torch.inference_mode():
        values = iter(term_values(model.module, model.module.base_model(input_ids=ids, use_cache=False), terms))
    return [float(np.sum([next(values) for _ in rest])) for _, rest in pairs]
