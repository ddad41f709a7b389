"""Examples for a prompt: what to do with a text, shown before the text that is asked about.

They are drawn once, from a log of their own, and stand in the request's preamble word by word.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from counterplay.errors import InputError, UnsupportedError
from counterplay.logs import Outcomes, read_log, read_texts
from counterplay.logs.reading import Place, require_log
from counterplay.logs.workspace import borrowed


@dataclass(frozen=True, kw_only=True)
class Example:
    """The text of a context, and that of the action that was best in it."""

    text: str
    action: str


def draw_examples(workspace: Place, log: str, count: int, *, seed: int = 0) -> tuple[Example, ...]:
    """``count`` different contexts of a log, drawn with a seed, each with the text of its best action.

    In a log of full information the best action is that of the highest reward (ties: the lowest index; a context in
    which no stored reward exceeds the log's default has none); in any other, only decisions that earned the
    log's highest reward are drawn, with the action that was taken. Which are drawn depends on the log and the seed.

    Errors: `InputError` for an unknown log, one without texts, or fewer contexts than asked for; `UnsupportedError` for
    a log in which no decision has a reward.
    """
    if count < 1:
        raise InputError(f"{count} examples cannot be drawn. Give 1 or more.")
    context_texts, action_texts = read_texts(workspace, log)
    found = _best_of(workspace, log)
    usable = [(context, action) for context, action in found if context_texts[context] and action_texts[action]]
    if len(usable) < count:
        raise InputError(
            f"Log '{log}' has {len(usable)} contexts with a text and a best action that has one; {count} examples were "
            "asked for. Ask for fewer, or draw from another log."
        )
    rows = np.random.default_rng([seed, 0xE8A]).permutation(len(usable))[:count]
    return tuple(
        Example(text=str(context_texts[context]), action=str(action_texts[action]))
        for context, action in (usable[row] for row in rows)
    )


def _best_of(workspace: Place, log: str) -> list[tuple[int, int]]:
    """(context, best action) of each context that has one, by context."""
    with borrowed(workspace) as opened:
        require_log(opened.connection, log)
        content = read_log(opened, log)
    if content.outcomes is not None:
        return _of_outcomes(content.outcomes)
    rewards = content.reward
    if not len(rewards) or np.isnan(rewards).all():
        raise UnsupportedError(f"Log '{log}' has no rewards, so no decision in it is an example. Name another log.")
    # -1: the action that was taken is not known.
    rows = np.flatnonzero((rewards == np.nanmax(rewards)) & (content.action >= 0))
    _, first = np.unique(content.context[rows], return_index=True)
    return [(int(content.context[row]), int(content.action[row])) for row in rows[first]]


def _of_outcomes(outcomes: Outcomes) -> list[tuple[int, int]]:
    floor = -np.inf if np.isnan(outcomes.default) else outcomes.default
    found = []
    for context, (start, end) in enumerate(pairwise(outcomes.offsets.tolist())):
        rewards = outcomes.rewards[start:end]
        if end > start and rewards.max() > floor:
            found.append((context, int(outcomes.actions[start + int(np.argmax(rewards))])))
    return found
