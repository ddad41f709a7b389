"""Completing prompts: texts, each with its log-likelihood, many prompts at a time.

Prompts of a batch are sorted by length and padded, and what all begin with is read once. In float32 a text does not
depend on what stands beside it but for rounding (about 1e-5 in a logit: a greedy text can change where two tokens are
as good as tied); in half precision it does, more often. `counterplay cache verify --live` counts such changes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from counterplay.llm.engines.beginnings import read_beginning, shared_length
from counterplay.llm.engines.drawing import Recorder, Uniforms, processors, uniforms
from counterplay.llm.engines.padded import padded
from counterplay.llm.engines.scoring import longest_masked
from counterplay.llm.engines.stopping import StopAt

if TYPE_CHECKING:
    import torch

    from counterplay.llm.engines.local import LanguageModel

Tick = Callable[[float], None]


class Prompt(NamedTuple):
    """Token ids, and the key of the request, from which the luck of its draws comes."""

    ids: tuple[int, ...]
    key: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    """``logprob``: nats of all ``tokens`` tokens given the prompt, of the text before it is cut at the stop string.

    ``finished``: whether a stop string or the model's own end was reached within the limit.
    """

    text: str
    logprob: float
    tokens: int
    finished: bool


def complete(
    model: LanguageModel, prompts: Sequence[Prompt], sampling: Mapping[str, Any], *, tick: Tick | None = None
) -> list[list[Completion]]:
    """The completions of each prompt that ``sampling`` asks for (see ``counterplay.llm.prompting.requests``).

    Of a search the most likely come first; draws come in their order. A log-likelihood is that of the model itself,
    whatever the temperature.
    """
    count, room = int(sampling["n"]), int(sampling["max_tokens"])
    found: dict[int, list[Completion]] = {}
    lengths = [len(prompt.ids) + room for prompt in prompts]
    work = _searched if int(sampling["beams"]) > 1 else _drawn
    batches = model.batches.run(
        lengths, lambda rows: work(model, [prompts[i] for i in rows], sampling), rows_each=count
    )
    for rows, completions in batches:
        found.update(zip(rows, completions, strict=True))
        if tick is not None:
            tick(float(len(rows)))
    return [found[i] for i in range(len(prompts))]


def _drawn(model: LanguageModel, prompts: Sequence[Prompt], sampling: Mapping[str, Any]) -> list[list[Completion]]:
    """Greedy completions, or draws, of one batch."""
    count, room = int(sampling["n"]), int(sampling["max_tokens"])
    numbers: Uniforms | None = None
    if sampling["temperature"] > 0:
        numbers = np.concatenate([uniforms(prompt.key, int(sampling["seed"]), count, room) for prompt in prompts])
    recorder = Recorder()
    rows = [prompt.ids for prompt in prompts for _ in range(count)]
    written = _generate(model, rows, sampling, processors(recorder, sampling, numbers))
    logprobs = recorder.logprobs(written[:, -1])
    completions = [
        _completion(model, ids, steps, sampling) for ids, steps in zip(written.cpu().tolist(), logprobs, strict=True)
    ]
    return [completions[start : start + count] for start in range(0, len(completions), count)]


def _searched(model: LanguageModel, prompts: Sequence[Prompt], sampling: Mapping[str, Any]) -> list[list[Completion]]:
    """The most likely completions that a beam search finds."""
    count = int(sampling["beams"])
    written = _generate(
        model, [prompt.ids for prompt in prompts], sampling, None, num_beams=count, num_return_sequences=count
    )
    kept = [ids[: _ending(model, ids, sampling)] for ids in written.cpu().tolist()]
    # Scored again in one way for one text and for many: a search's own scores are normalised by length.
    pairs = [(prompts[row // count].ids, tuple(ids)) for row, ids in enumerate(kept)]
    scores = model.loglikelihoods(pairs)
    completions = [_text_of(model, ids, float(score), sampling) for ids, score in zip(kept, scores, strict=True)]
    groups = [completions[start : start + count] for start in range(0, len(completions), count)]
    return [sorted(group, key=lambda completion: -completion.logprob) for group in groups]


def _generate(
    model: LanguageModel, rows: Sequence[tuple[int, ...]], sampling: Mapping[str, Any], steered: Any, **search: Any
) -> torch.Tensor:
    """The tokens written after each row ``(rows, steps)``; what follows a row's end is padding."""
    import torch

    # A decoder goes on where its prompt ends, so all end in one place; an encoder counts places from the first.
    left = not model.encoder_decoder
    shared = 0 if search else _worth_sharing(model, rows, int(sampling["max_tokens"]))
    ids = _joined(rows, shared, model.padding, left=left)
    # A decoder repeats its prompt; that of an encoder-decoder begins with its own first token.
    start = ids.shape[1] if left else 1
    mask = _joined([[1] * len(row) for row in rows], shared, 0, left=left)
    if shared:
        search["past_key_values"] = read_beginning(model, rows[0][:shared])
        search["past_key_values"].batch_repeat_interleave(len(rows))
    marks = tuple(sampling["stop"])
    with torch.inference_mode():
        sequences = model.module.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=int(sampling["max_tokens"]),
            do_sample=False,
            stopping_criteria=_stopping(model, marks, start),
            eos_token_id=sorted(model.ends_with(marks)) or None,
            pad_token_id=model.padding,
            logits_processor=steered,
            **search,
        )
    written: torch.Tensor = sequences[:, start:]
    return written


def _worth_sharing(model: LanguageModel, rows: Sequence[tuple[int, ...]], room: int) -> int:
    """Tokens of a beginning that is read once for all rows: none for a single row, or for a model whose attention
    counts the padding behind the beginning as distance."""
    longest = max(len(row) for row in rows) + room
    if model.encoder_decoder or len(rows) == 1 or longest > longest_masked(model.module):
        return 0
    return shared_length(rows)


def _joined(rows: Sequence[Sequence[int]], shared: int, filler: int, *, left: bool) -> torch.Tensor:
    """``(rows, longest)``: the beginning that all share, then padding, then what is each row's own."""
    import torch

    rest = padded([row[shared:] for row in rows], filler, left=left)
    beginning = torch.tensor([list(row[:shared]) for row in rows], dtype=torch.long)
    return torch.cat([beginning, rest], dim=1)


def _stopping(model: LanguageModel, marks: tuple[str, ...], start: int) -> Any:
    from transformers import StoppingCriteriaList

    stops = model.stop_strings(marks)
    return StoppingCriteriaList([] if stops is None else [StopAt(stops, start)])


def _completion(
    model: LanguageModel, ids: list[int], logprobs: npt.NDArray[np.float64], sampling: Mapping[str, Any]
) -> Completion:
    end = _ending(model, ids, sampling)
    logprob = float(np.sum(logprobs[:end]))
    return _text_of(model, ids[:end], logprob, sampling)


def _ending(model: LanguageModel, ids: list[int], sampling: Mapping[str, Any]) -> int:
    """How many of the ids were written before padding began, an end of the model's own included.

    Found by what ends a text, not by what padding looks like: a model can write the token that pads, and a beam search
    pads with ends, whatever it is told.
    """
    ends = model.ends_with(tuple(sampling["stop"]))
    size = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))

    def stopped(count: int) -> bool:
        text = model.tokenizer.decode(ids[:count], skip_special_tokens=True)
        return any(mark in text for mark in sampling["stop"])

    # A text that has a stop string keeps it as it grows, so the place where it came is found by halving.
    return bisect_left(range(1, size + 1), True, key=stopped) + 1 if stopped(size) else size


def _text_of(model: LanguageModel, ids: list[int], logprob: float, sampling: Mapping[str, Any]) -> Completion:
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    places = [place for place in (text.find(mark) for mark in sampling["stop"]) if place >= 0]
    finished = bool(places) or ids[-1] in model.ends_with(tuple(sampling["stop"]))
    return Completion(
        text=text[: min(places)].strip() if places else text.strip(),
        logprob=logprob,
        tokens=len(ids),
        finished=finished,
    )
