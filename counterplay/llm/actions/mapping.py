"""What the outputs of a log mean: the choices of its contexts.

What a rule makes of texts is worked out once, and kept in the cache as what an embedder answered to one request: which
actions do these outputs mean, by this rule, among these actions and candidates? The request holds hashes of all of
that, so the answer is found again when nothing has changed, and only then. The table ``choices`` could not tell: it has
one policy of a name, and not what it was made from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from counterplay.llm.actions.choosing import (
    MISS,
    Actions,
    AnswerRule,
    Chosen,
    Tally,
    as_arrays,
    choose_by_rank,
    choose_by_text,
)
from counterplay.llm.actions.nearest import Singles
from counterplay.llm.actions.shares import Ints, Response
from counterplay.llm.plans.planning import Plan
from counterplay.llm.vectors.embedders import identify_embedder
from counterplay.llm.vectors.embedding import embed, name_of
from counterplay.logs import Workspace, read_log
from counterplay.logs.outputs import Output, get_outputs, put_outputs, request_key

MAPPING_VERSION = 1


def choices_of(
    workspace: Workspace,
    log: str,
    asked: Plan,
    responses: Mapping[str, Response],
    *,
    rule: AnswerRule,
    best: int,
    embedder: str,
) -> Chosen:
    """What each of the log's C contexts chooses: by rank where the plan has candidates to rank, else by its texts.

    ``asked``: a plan for all contexts; ``responses``: those that are there, by key. Vectors and what was worked out of
    texts are stored in the workspace. Errors: those of `choose_by_rank`, `choose_by_text` and `embed`.
    """
    found = [responses.get(key) for key in asked.keys]
    if asked.candidates is not None:
        return _by_rank(found, asked.candidates, best)
    lists = candidate_lists(workspace, log) if rule.among == "candidates" else None
    actions = Actions(texts=asked.action_texts, labels=_labels(workspace, log), lists=lists)
    drawn = any(request["sampling"]["temperature"] > 0 for request in asked.requests[:1])
    request = _request(asked.keys, found, actions, rule, best, embedder) | {"drawn": drawn}
    key = request_key(request)
    stored = get_outputs(workspace.connection, [key]).get(key)
    if stored is not None:
        return _read(stored)

    def encode(texts: Sequence[str]) -> Singles:
        return embed(texts, embedder=embedder, connection=workspace.connection)

    chosen = choose_by_text(found, actions, rule, encode, best=best, drawn=drawn)
    output = Output(request=request, response=_written(chosen), provenance=_provenance())
    with workspace.transaction() as connection:
        put_outputs(connection, [output])
    return chosen


def candidate_lists(workspace: Workspace, log: str) -> Ints | None:
    """The candidates of each context ``(C, S)``, padded with -1; None for a log without such lists.

    A context that is decided more than once keeps the list of its first decision; one without a decision has none.
    """
    content = read_log(workspace, log)
    if content.candidates is None:
        return None
    known, first = np.unique(content.context, return_index=True)
    lists = np.full((len(content.context_ids), content.candidates.shape[1]), -1, dtype=np.int32)
    lists[known] = content.candidates[first]
    return lists


def _by_rank(found: Sequence[Response | None], candidates: Ints, best: int) -> Chosen:
    rows = zip(found, candidates, strict=True)
    choices = [
        MISS if response is None else choose_by_rank(response, [int(action) for action in row if action >= 0], best)
        for response, row in rows
    ]
    actions, probabilities = as_arrays(choices)
    missing = sum(response is None for response in found)
    return Chosen(actions=actions, probabilities=probabilities, tally=Tally(without_output=missing))


def _labels(workspace: Workspace, log: str) -> list[str]:
    query = "SELECT label FROM actions WHERE log = ? ORDER BY action"
    return [label for (label,) in workspace.connection.execute(query, [log]).fetchall()]


def _request(
    keys: Sequence[str],
    found: Sequence[Response | None],
    actions: Actions,
    rule: AnswerRule,
    best: int,
    embedder: str,
) -> dict[str, Any]:
    identity = identify_embedder(embedder) if rule.fallback == "nearest" else None
    return {
        "schema_version": MAPPING_VERSION,
        "operation": "choose",
        "model": name_of(embedder, identity) if identity else "names",
        "revision": identity.revision if identity else None,
        "tokenizer": identity.tokenizer if identity else None,
        # Under this name the cache looks for what was asked more than once.
        "prompt": _hash(list(zip(keys, found, strict=True))),
        "actions": _hash([list(actions.texts), list(actions.labels)]),
        "candidates": None if actions.lists is None else [list(actions.lists.shape), _digest(actions.lists.tobytes())],
        "rule": asdict(rule),
        "best": best,
    }


def _hash(value: Any) -> str:
    return _digest(json.dumps(value, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _written(chosen: Chosen) -> dict[str, Any]:
    present = chosen.actions >= 0
    rows = zip(chosen.actions, chosen.probabilities, present, strict=True)
    pairs = [(actions[real].tolist(), shares[real].tolist()) for actions, shares, real in rows]
    return {
        "actions": [actions for actions, _ in pairs],
        "probabilities": [shares for _, shares in pairs],
        "tally": asdict(chosen.tally),
    }


def _read(response: Response) -> Chosen:
    rows = response["actions"]
    width = max((len(row) for row in rows), default=0) or 1
    actions, probabilities = np.full((len(rows), width), -1, dtype=np.int32), np.zeros((len(rows), width))
    for i, (row, shares) in enumerate(zip(rows, response["probabilities"], strict=True)):
        actions[i, : len(row)], probabilities[i, : len(row)] = row, shares
    return Chosen(actions=actions, probabilities=probabilities, tally=Tally(**response["tally"]))


def _provenance() -> dict[str, Any]:
    return {
        "provenance": "derived",
        "versions": {name: importlib.metadata.version(name) for name in ("counterplay", "numpy")},
        "date": datetime.now(UTC).date().isoformat(),
    }
