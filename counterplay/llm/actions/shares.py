"""Probabilities from likelihoods: how the outputs of a context share its choice.

k outputs with likelihoods q_1, ..., q_k have the shares q_i / sum_j q_j (Algorithm 1 of Chen, Zhang and Zhu, EMNLP
2024). An output that comes twice is one, with both likelihoods; the shares of outputs that act alike add up.

Of k texts that were drawn from the model each has the share 1 / k instead: a likely text is drawn more often already,
and weighing it by its likelihood besides would count that twice. Over many draws the shares of Algorithm 1 with every
possible output are the limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError

Ints = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

Response = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The N outputs that share the choices of C contexts.

    ``texts``: U different ones. ``context (N,)``, ``text (N,)``: whose and which; ``share (N,)``: adds up to 1 in each
    context that has any. ``without_output``, ``without_text``: how many contexts have none, for which reason.
    """

    contexts: int
    texts: tuple[str, ...]
    context: Places
    text: Places
    share: Floats
    without_output: int
    without_text: int


def answers_of(responses: Sequence[Response | None], best: int, *, drawn: bool = False) -> Answers:
    """The ``best`` most likely different texts of each response (None: there is no output), with their shares; of
    texts that were ``drawn``, the most frequent ones.

    Space around a text does not count, and a text of nothing else is none. Errors: `InputError` for several texts that
    were not drawn whose log-probabilities are missing, NaN or all -inf: one text needs none.
    """
    if best < 1:
        raise InputError(f"The {best} most likely outputs cannot act. Give 1 or more.")
    number: dict[str, int] = {}
    context, text, share = list[int](), list[int](), list[float]()
    without_output = without_text = 0
    for row, response in enumerate(responses):
        if response is None:
            without_output += 1
            continue
        ranked = (_counted(response) if drawn else _ranked(response, row))[:best]
        without_text += not ranked
        for (name, _), part in zip(ranked, softmax([weight for _, weight in ranked]), strict=True):
            context.append(row)
            text.append(number.setdefault(name, len(number)))
            share.append(part)
    return Answers(
        contexts=len(responses),
        texts=tuple(number),
        context=np.array(context, dtype=np.int64),
        text=np.array(text, dtype=np.int64),
        share=np.array(share, dtype=np.float64),
        without_output=without_output,
        without_text=without_text,
    )


def softmax(logprobs: Sequence[float]) -> list[float]:
    """Shares in proportion to likelihoods, however small these are."""
    if not logprobs:
        return []
    weights = np.exp(np.asarray(logprobs, dtype=np.float64) - max(logprobs))
    return [float(weight) for weight in weights / weights.sum()]


def rectangles(
    context: Places, action: Ints, weight: Floats, contexts: int, least: float | None = None
) -> tuple[Ints, Floats]:
    """Weighted actions of contexts, in any order and several times, as a row for each context.

    Gives actions ``(C, k)``, the likeliest first and ties by action, padded with -1, and probabilities ``(C, k)``,
    which add up to 1, padded with 0. A context without any is a miss, and so is one whose best action has less than
    ``least``, before the weights are scaled to add up to 1: what was left out still counts against it.
    """
    used = weight > 0.0
    context, action, weight = _merged(context[used], action[used], weight[used])
    order = np.lexsort((action, -weight, context))
    context, action, weight = context[order], action[order], weight[order]
    rank = np.arange(len(context)) - np.searchsorted(context, context)
    if least is not None:
        first = np.zeros(contexts)
        first[context[rank == 0]] = weight[rank == 0]
        sure = first[context] >= least
        context, action, weight, rank = context[sure], action[sure], weight[sure], rank[sure]
    total = np.bincount(context, weights=weight, minlength=contexts)
    width = int(rank.max(initial=0)) + 1
    actions, probabilities = np.full((contexts, width), -1, dtype=np.int32), np.zeros((contexts, width))
    actions[context, rank] = action
    probabilities[context, rank] = weight / total[context]
    return actions, probabilities


def _merged(context: Places, action: Ints, weight: Floats) -> tuple[Places, Ints, Floats]:
    """Each action once in a context; its weights add up in the order in which they come."""
    order = np.lexsort((action, context))
    context, action, weight = context[order], action[order], weight[order]
    begins = np.ones(len(context), dtype=np.bool_)
    begins[1:] = (context[1:] != context[:-1]) | (action[1:] != action[:-1])
    starts = np.flatnonzero(begins)
    return context[starts], action[starts], np.add.reduceat(weight, starts) if len(starts) else weight


def _counted(response: Response) -> list[tuple[str, float]]:
    """The different texts of a response that say something, with the logarithms of how often, the most frequent first,
    ties in the order of the draws."""
    counts = Counter(text for text in _texts(response) if text)
    return [(text, math.log(count)) for text, count in counts.most_common()]


def _texts(response: Response) -> list[str]:
    return [text.strip() if isinstance(text, str) else "" for text in response.get("texts") or ()]


def _ranked(response: Response, row: int) -> list[tuple[str, float]]:
    """The different texts of a response that say something, with their log-likelihoods, the likeliest first."""
    texts = _texts(response)
    known = {text: 0.0 for text in texts if text}
    if len(known) <= 1:
        return list(known.items())
    logprobs = _logprobs(response, len(texts), row)
    known = dict.fromkeys(known, -math.inf)
    for text, logprob in zip(texts, logprobs, strict=True):
        if text:
            known[text] = float(np.logaddexp(known[text], logprob))
    if max(known.values()) == -math.inf:
        raise InputError(f"All {len(known)} outputs of context {row} have the likelihood 0. Ask for them again.")
    return sorted(known.items(), key=lambda pair: -pair[1])


def _logprobs(response: Response, count: int, row: int) -> list[float]:
    found = response.get("logprobs") or []
    if len(found) != count or any(not isinstance(one, int | float) or not one < math.inf for one in found):
        raise InputError(
            f"Context {row} has {count} outputs, which need as many log-probabilities to share its choice; it has "
            f"{found!r:.60}. Ask for them again with log-probabilities, or for one output."
        )
    return [float(one) for one in found]
