"""Completing a prompt: the k most likely texts, each with its log-likelihood.

One prompt at a time. A batch would have to be padded, and padding changes what a model says (in half precision even the
chosen words), so that an output would depend on which other requests happened to be in the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from counterplay.llm.models import LanguageModel
from counterplay.llm.scoring import loglikelihoods


@dataclass(frozen=True, kw_only=True)
class Completion:
    """``logprob``: nats of all ``tokens`` tokens given the prompt, of the text before it is cut at the stop string.

    ``finished``: whether a stop string or the model's own end was reached within the limit.
    """

    text: str
    logprob: float
    tokens: int
    finished: bool


def complete(model: LanguageModel, prompt: Sequence[int], sampling: Mapping[str, Any]) -> list[Completion]:
    """The completions that ``sampling`` asks for (see ``counterplay.llm.requests``), the most likely first."""
    import torch

    count = int(sampling["beams"])
    with torch.inference_mode():
        sequences = model.module.generate(
            input_ids=torch.tensor([list(prompt)], device=model.device),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long, device=model.device),
            max_new_tokens=int(sampling["max_tokens"]),
            do_sample=False,
            num_beams=count,
            num_return_sequences=count,
            stop_strings=list(sampling["stop"]) or None,
            tokenizer=model.tokenizer,
            pad_token_id=_end(model),
        )
    found = [_cut(ids, _end(model)) for ids in sequences[:, len(prompt) :].cpu().tolist()]
    # Scored again in one way for one text and for many: a search's own scores are normalised by length.
    scores = loglikelihoods(model, [(tuple(prompt), tuple(ids)) for ids in found])
    completions = [
        _completion(model, ids, float(score), list(sampling["stop"])) for ids, score in zip(found, scores, strict=True)
    ]
    return sorted(completions, key=lambda completion: -completion.logprob)


def _completion(model: LanguageModel, ids: list[int], logprob: float, stop: list[str]) -> Completion:
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    places = [place for place in (text.find(mark) for mark in stop) if place >= 0]
    finished = bool(places) or ids[-1] == _end(model)
    return Completion(
        text=text[: min(places)].strip() if places else text.strip(),
        logprob=logprob,
        tokens=len(ids),
        finished=finished,
    )


def _end(model: LanguageModel) -> int:
    end = model.tokenizer.eos_token_id
    return int(end if end is not None else model.tokenizer.pad_token_id)


def _cut(ids: list[int], end: int) -> list[int]:
    """The ids up to the first end, which is kept; what follows it is padding."""
    return ids[: ids.index(end) + 1] if end in ids else ids
