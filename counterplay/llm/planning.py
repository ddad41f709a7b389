"""The plan: which requests a language model policy needs for a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.llm.embedding import EMBEDDER, embed, nearest_actions
from counterplay.llm.models import ModelIdentity
from counterplay.llm.requests import Request, generation_request, ranking_request
from counterplay.llm.templates import Template
from counterplay.logs import read_log, read_texts
from counterplay.logs.outputs import request_key
from counterplay.logs.reading import Place


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One request for each of the log's first n contexts; ``contexts`` is how many the log has.

    ``candidates (n, S)``: the actions that a ranking request asks about, in its order, padded with -1; None when the
    template does not rank. ``action_texts``: the text of each of the log's K actions.
    """

    requests: tuple[Request, ...]
    keys: tuple[str, ...]
    candidates: npt.NDArray[np.int32] | None
    action_texts: tuple[str, ...]
    contexts: int


def plan(
    workspace: Place,
    log: str,
    identity: ModelIdentity,
    template: Template,
    *,
    candidates: int = 5,
    best: int = 1,
    sample: int | None = None,
    embedder: str = EMBEDDER,
) -> Plan:
    """The requests for a log's contexts (its first ``sample``), whether their outputs are there or not.

    ``workspace``: an open one, or a path, which is open only while the log is read.
    A ranking asks about the first ``candidates`` actions of the context's own list of candidates; in a log without such
    lists, about the ``candidates`` actions whose texts are nearest by embedding.
    """
    found, action_texts = read_texts(workspace, log)
    texts = [_text(text, "context", log) for text in found[:sample]]
    actions = tuple(_text(text, "action", log) for text in action_texts)
    if not template.ranks:
        requests = [generation_request(identity, template, text, best=best) for text in texts]
        rows = None
    else:
        rows = _candidates(workspace, log, texts, actions, candidates, embedder)
        requests = [
            ranking_request(identity, template, text, [actions[action] for action in row if action >= 0])
            for text, row in zip(texts, rows, strict=True)
        ]
    return Plan(
        requests=tuple(requests),
        keys=tuple(request_key(request) for request in requests),
        candidates=rows,
        action_texts=actions,
        contexts=len(found),
    )


def _candidates(
    workspace: Place, log: str, texts: Sequence[str], actions: Sequence[str], count: int, embedder: str
) -> npt.NDArray[np.int32]:
    content = read_log(workspace, log)
    if content.candidates is None:
        vectors = embed(actions, embedder=embedder)
        return nearest_actions(embed(texts, embedder=embedder), vectors, count)
    # A context that is decided more than once keeps the list of its first decision.
    _, first = np.unique(content.context, return_index=True)
    lists = np.full((len(content.context_ids), count), -1, dtype=np.int32)
    width = min(count, content.candidates.shape[1])
    lists[content.context[first], :width] = content.candidates[first, :width]
    if (lists[: len(texts), 0] < 0).any():
        raise InputError(f"Log '{log}' has contexts without a decision, hence without candidates. Remove them.")
    return lists[: len(texts)]


def _text(text: str | None, what: str, log: str) -> str:
    if not text:
        raise InputError(f"Log '{log}' has a {what} without a text, which a model would read. Import it with texts.")
    return text
