"""How many prompts go through a model at once: as many as fit into memory, fewer where that was too many."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from counterplay.errors import InputError

if TYPE_CHECKING:
    import torch

SHARE = 0.6
"""Of the free memory: what an estimate of what a batch needs may be wrong by."""

MOST_ROWS = {"cuda": 512, "mps": 64, "cpu": 32}
"""Rows beyond which nothing is won; on two cores 32 rows of SmolLM2 are as fast a prompt as 64."""

MOST_TOKENS = {"cuda": 262_144, "mps": 32_768, "cpu": 16_384}
"""Rows times tokens of a batch, padding and what is still to be written included."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes that a row takes for itself, and for each of its tokens."""

    row: int
    token: int

    def of(self, length: int) -> int:
        """Of a row of so many tokens."""
        return self.row + self.token * length


class Batches:
    """Cuts work into batches for one model on one device, and remembers what was too much.

    ``footprint``: what a row and each of its tokens hold while a batch runs.
    """

    def __init__(self, device: torch.device, footprint: Footprint) -> None:
        self._device, self._footprint = device, footprint
        # Measured while nothing runs: later, the memory that is free has our own in it.
        self._ceiling = int(SHARE * free_bytes(device))

    def run(
        self,
        lengths: Sequence[int],
        work: Callable[[list[int]], Sequence[Result]],
        *,
        rows_each: int = 1,
    ) -> Iterator[tuple[list[int], Sequence[Result]]]:
        """``work`` on batches of positions, the longest first, and what it gave for them.

        ``lengths``: tokens of each position, those to be written included; ``rows_each``: rows that one position takes.
        A batch that runs out of memory is halved, and no later one is larger. Errors: `InputError` where one position
        alone is too much.
        """
        waiting = sorted(range(len(lengths)), key=lambda at: -lengths[at])
        while waiting:
            count = self._rows(lengths[waiting[0]], rows_each)
            batch = waiting[:count]
            found = self._tried(work, batch)
            if found is None:
                if len(batch) == 1:
                    raise InputError(
                        f"A prompt of {lengths[batch[0]]:,} tokens does not fit into the memory of {self._device} with "
                        "this model. What was answered is stored. Shorten the prompts, ask for fewer texts or tokens, "
                        "take bfloat16, or a machine with more memory."
                    )
                self._ceiling = len(batch) * rows_each * self._footprint.of(lengths[batch[0]]) // 2
                continue
            waiting = waiting[len(batch) :]
            yield batch, found

    def _rows(self, length: int, rows_each: int) -> int:
        kind = self._device.type
        fit = self._ceiling // self._footprint.of(length)
        quick = min(MOST_TOKENS.get(kind, MOST_TOKENS["cpu"]) // length, MOST_ROWS.get(kind, MOST_ROWS["cpu"]))
        return max(1, min(fit, quick) // rows_each)

    def _tried(self, work: Callable[[list[int]], Sequence[Result]], batch: list[int]) -> Sequence[Result] | None:
        try:
            return work(batch)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler: while it is handled, the error keeps the tensors of the batch alive.
        self._released()
        return None

    def _released(self) -> None:
        import torch

        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._device.type == "mps":
            torch.mps.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory that a batch could take."""
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    import psutil

    return int(psutil.virtual_memory().available)


def footprint(config: Any, itemsize: int) -> Footprint:
    """What a row takes at most: a token the keys and values of every layer and, while it is read, activations; the row
    itself its logits in single precision, with copies for their sum and for a draw.

    ``config``: of a ``transformers`` model; ``itemsize``: bytes of a number.
    """
    text = config.get_text_config(decoder=True)
    hidden = int(text.hidden_size)
    heads = int(getattr(text, "num_attention_heads", 1) or 1)
    kept = int(getattr(text, "num_key_value_heads", None) or heads)
    width = int(getattr(text, "head_dim", None) or getattr(text, "d_kv", None) or hidden // heads)
    layers = int(text.num_hidden_layers)
    inner = int(getattr(text, "intermediate_size", None) or getattr(text, "d_ff", None) or 4 * hidden)
    token = itemsize * (2 * layers * kept * width + 4 * hidden + 2 * inner)
    return Footprint(row=24 * int(text.vocab_size), token=token)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch has a class of its own for CUDA's memory, and words for cuBLAS and for the other devices.
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said
        for words in ("out of memory", "not enough memory", "can't allocate memory", "cublas_status_alloc_failed")
    )
