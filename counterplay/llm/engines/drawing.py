"""What each step of generation leaves: the next tokens, drawn by luck that belongs to the request, and their
log-probabilities.

Two processors of logits for ``model.generate``. With these, drawing needs no random generator of torch: the token is
where the cumulative distribution passes a number that is a function of the request and the step, so a request gets the
same text whatever stands beside it in the batch.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Uniforms = npt.NDArray[np.float64]


def uniforms(key: str, seed: int, draws: int, steps: int) -> Uniforms:
    """Numbers in [0, 1), ``(draws, steps)``, that depend on the request's key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    words = np.frombuffer(digest[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=words)).random((draws, steps))


class Recorder:
    """Keeps log p of every token that is taken, before anything but the model has touched the distribution.

    One number a row and step, and the distribution of the step before; not those of all steps, which of 262,144 tokens
    would be a megabyte a row and step.
    """

    def __init__(self) -> None:
        self._before: torch.Tensor | None = None
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._settle(input_ids[:, -1])
        self._before = scores.log_softmax(dim=-1)
        return scores

    def logprobs(self, last: torch.Tensor) -> npt.NDArray[np.float64]:
        """``(rows, steps)``, in nats, when ``last`` (rows,) are the tokens of the last step."""
        import torch

        self._settle(last)
        return torch.stack(self._steps, dim=1).double().cpu().numpy()

    def _settle(self, taken: torch.Tensor) -> None:
        if self._before is not None:
            self._steps.append(self._before.gather(1, taken[:, None])[:, 0])
            self._before = None


class Draw:
    """Makes a greedy search draw: all but the drawn token get the logit -inf.

    ``numbers`` (rows, steps): where in the cumulative distribution each token is taken. Rows whose logits are NaN take
    the first token; their log-probability is NaN, and says so.
    """

    def __init__(self, numbers: Uniforms) -> None:
        self._numbers, self._step = numbers, 0

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        # Single precision where there is no other (MPS): then a number may fall to the neighbour in 1 of 10^6.
        kind = torch.float32 if scores.device.type == "mps" else torch.float64
        cumulative = scores.to(kind).softmax(dim=-1).cumsum(dim=-1)
        at = torch.as_tensor(self._numbers[:, self._step, None], dtype=kind, device=scores.device)
        self._step += 1
        # Against the last sum, not 1, which rounding may miss.
        token = torch.searchsorted(cumulative, at * cumulative[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


def processors(recorder: Recorder | None, sampling: Any, numbers: Uniforms | None) -> Any:
    """The list for ``model.generate``: record, then temperature, top-k and top-p, then draw."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    found: list[Any] = [] if recorder is None else [recorder]
    if numbers is not None:
        if sampling["temperature"] != 1:
            found.append(TemperatureLogitsWarper(float(sampling["temperature"])))
        if sampling["top_k"] is not None:
            found.append(TopKLogitsWarper(int(sampling["top_k"])))
        if sampling["top_p"] < 1:
            found.append(TopPLogitsWarper(float(sampling["top_p"])))
        found.append(Draw(numbers))
    return LogitsProcessorList(found)
