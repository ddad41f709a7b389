"""A bandit that has learned from a model's choices before its first round (the idea of Alamdari, Cao and Wilson, EMNLP
2024: a language model's preferences as made-up data)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bandit import learn_batch, project
from counterplay.replay.kernels.records import BILINEAR, LAPLACE, BanditSettings, State, Tape
from counterplay.replay.kernels.work import work_for
from counterplay.replay.randomness import Purpose, uniforms


def pretrain(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    table: tuple[NDArray[np.int32], NDArray[np.float64]],
    decisions: int,
    batch: int,
) -> None:
    """Let a bandit learn from a stored policy's choices, in place.

    In each of some contexts the choice counts as a reward of 1, another allowed action, drawn at random, as one of 0.

    The contexts are drawn at random with replacement, the same for every seed. Each costs a call, which budgets count.
    What the learner knows of its own steps (moments, schedules) starts anew afterwards.
    """
    if tape.context.shape[0] == 0:
        return
    place, draw = uniforms(0, Purpose.PRETRAINING, decisions), uniforms(1, Purpose.PRETRAINING, decisions)
    rounds = (place * tape.context.shape[0]).astype(np.int64)
    chosen, other = table[0][rounds, 0], _others(tape, rounds, table[0][rounds, 0], draw)
    known = (chosen >= 0) & (other >= 0)
    rounds, chosen, other = rounds[known], chosen[known], other[known]
    both = np.repeat(rounds, 2)
    played = np.stack([chosen, other], axis=1).ravel().astype(np.int32)
    rewards = np.tile([1.0, 0.0], len(rounds))
    work = work_for(tape, bandit, state, batch)
    for start in range(0, len(both), batch):
        part = slice(start, start + batch)
        if bandit.form == BILINEAR:
            project(tape, bandit, state, both[part], work)
        learn_batch(tape, bandit, state, both[part], played[part], rewards[part], work)
    if bandit.form == BILINEAR and bandit.learner != LAPLACE:
        for moments in (state.mean, state.square):
            moments[:] = 0
        state.bias[1:] = 0
    state.counts[0], state.counts[1] = 0, decisions


def _others(
    tape: Tape, rounds: NDArray[np.int64], chosen: NDArray[np.int32], draw: NDArray[np.float64]
) -> NDArray[np.int32]:
    """An allowed action that is not the chosen one, at the place ``draw``; -1 where there is none."""
    if tape.candidates.shape[1] == 0:
        count = tape.actions.shape[0]
        place = (draw * (count - 1)).astype(np.int32)
        return place + (place >= chosen) if count > 1 else np.full(len(rounds), -1, np.int32)
    allowed = tape.candidates[rounds]
    possible = (allowed >= 0) & (allowed != chosen[:, None])
    wanted = (draw * possible.sum(axis=1)).astype(np.int64) + 1
    place = np.argmax(possible.cumsum(axis=1) == wanted[:, None], axis=1)
    found = allowed[np.arange(len(rounds)), place]
    return np.where(possible.any(axis=1), found, -1).astype(np.int32)
