"""The plan: which requests a language model policy needs for a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError
from counterplay.llm.models import ModelIdentity
from counterplay.llm.plans.drafting import collector_paused, remembering, request_keys
from counterplay.llm.prompting.requests import Prompting, Request, generation_request, ranking_request
from counterplay.llm.vectors.embedding import EMBEDDER, nearest_actions
from counterplay.llm.vectors.stored_vectors import embed_stored
from counterplay.logs import read_texts
from counterplay.logs.reading import Place
from counterplay.logs.relations import decisions_of, numbered_contexts
from counterplay.logs.workspace import borrowed


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
    prompting: Prompting,
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
    with borrowed(workspace) as opened:
        found, action_texts = read_texts(opened, log)
        lists = _first_candidates(opened.connection, log, candidates) if prompting.template.ranks else None
    texts = [_text(text, "context", log) for text in found[:sample]]
    actions = tuple(_text(text, "action", log) for text in action_texts)
    if prompting.template.ranks and lists is None:
        # The workspace is closed while vectors are computed.
        vectors = embed_stored(workspace, [*actions, *texts], embedder=embedder)
        lists = nearest_actions(vectors[len(actions) :], vectors[: len(actions)], candidates)
    rows = None if lists is None else lists[: len(texts)]
    if rows is not None and (rows[:, 0] < 0).any():
        raise InputError(f"Log '{log}' has contexts without a decision, hence without candidates. Remove them.")
    with collector_paused():
        requests = _requests(identity, remembering(prompting), texts, actions, rows, best)
        keys = request_keys(requests)
    return Plan(requests=requests, keys=keys, candidates=rows, action_texts=actions, contexts=len(found))


def _requests(
    identity: ModelIdentity,
    prompting: Prompting,
    texts: Sequence[str],
    actions: Sequence[str],
    rows: npt.NDArray[np.int32] | None,
    best: int,
) -> tuple[Request, ...]:
    if rows is None:
        return tuple(generation_request(identity, prompting, text, best=best) for text in texts)
    return tuple(
        ranking_request(identity, prompting, text, [actions[action] for action in row if action >= 0])
        for text, row in zip(texts, rows.tolist(), strict=True)
    )


def _first_candidates(connection: duckdb.DuckDBPyConnection, log: str, count: int) -> npt.NDArray[np.int32] | None:
    """The first ``count`` candidates of each context ``(C, count)``; None for a log without lists of candidates.

    A context that is decided more than once keeps the list of its first decision.
    """
    contexts, decisions = numbered_contexts(connection, log), decisions_of(connection, log)
    found = connection.execute(
        f"""SELECT list_slice(arg_min(candidates, position), 1, ?), count(position), count(candidates)
            FROM ({contexts}) c LEFT JOIN {decisions} d USING (context_id) GROUP BY c.row ORDER BY c.row""",
        [count],
    ).fetchall()
    if not any(listed for _, _, listed in found):
        return None
    if any(listed < decided for _, decided, listed in found):
        raise InputError(
            f"Some decisions of log '{log}' have candidates and some have none. Import it again with all or none."
        )
    lists = np.full((len(found), count), -1, dtype=np.int32)
    for row, (candidates, _, _) in enumerate(found):
        lists[row, : len(candidates or ())] = candidates or ()
    return lists


def _text(text: str | None, what: str, log: str) -> str:
    if not text:
        raise InputError(f"Log '{log}' has a {what} without a text, which a model would read. Import it with texts.")
    return text
