"""Where a text ends: at the first stop string that it writes itself.

The library's own criterion sorts through the whole vocabulary at every call, .4 s for 49,152 tokens and over 2 s for
262,144, and looks at the prompt too. Here the vocabulary is read once a model: a row can only have ended at this step
if its last token holds the last sign of a stop string, and only such rows are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

WINDOW = 8
"""Tokens that are decoded beyond those that a stop string may take, one a byte at most."""

BROKEN = "\ufffd"
"""What stands in a text for bytes that are no sign."""


class StopStrings:
    """Which tokens can end a stop string; made once for a tokenizer and the strings.

    ``marks``: the strings. ``sure``: whether such a token always ends one, as with a single sign of ASCII. ``ends``:
    special tokens that are stop strings themselves, such as a chat's end of turn, which no text shows.
    """

    def __init__(self, tokenizer: Any, marks: Sequence[str], vocabulary: int, device: torch.device) -> None:
        import torch

        self.marks, self.tokenizer = tuple(marks), tokenizer
        self.sure = all(len(mark) == 1 and mark.isascii() for mark in marks)
        self.window = WINDOW + max((len(mark.encode()) for mark in marks), default=0)
        special = tokenizer.added_tokens_decoder.items()
        self.ends = frozenset(place for place, token in special if token.special and token.content in marks)
        last = {mark[-1] for mark in marks}
        # Behind another token, because the first of a text may lose its space.
        (anchor,) = tokenizer("a", add_special_tokens=False).input_ids[-1:]
        known = min(vocabulary, len(tokenizer))
        texts = tokenizer.batch_decode([[anchor, token] for token in range(known)], skip_special_tokens=True)
        before = len(tokenizer.decode([anchor], skip_special_tokens=True))
        suspects = np.zeros(vocabulary, dtype=np.bool_)
        # A sign of several bytes may be completed by a token that is no text alone.
        last |= set() if all(mark[-1].isascii() for mark in marks) else {BROKEN}
        suspects[:known] = [not last.isdisjoint(text[before:]) for text in texts]
        self.suspects = torch.from_numpy(suspects).to(device)


class StopAt:
    """A stopping criterion for ``model.generate``: rows that have written a stop string since ``start``."""

    def __init__(self, stops: StopStrings, start: int) -> None:
        self._stops, self._start = stops, start

    def __call__(self, input_ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
        flagged: torch.Tensor = self._stops.suspects[input_ids[:, -1]]
        # Without a look at the values, so that a GPU need not be waited for.
        if self._stops.sure:
            return flagged
        for row in flagged.nonzero()[:, 0].tolist():
            tail = input_ids[row, max(self._start, input_ids.shape[1] - self._stops.window) :]
            text = self._stops.tokenizer.decode(tail, skip_special_tokens=True)
            flagged[row] = any(mark in text for mark in self._stops.marks)
        return flagged
