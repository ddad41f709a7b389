"""Exact replay: the log knows what every action would have earned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bilinear import (
    allowed_count,
    best_candidate,
    best_of_all,
    exploration_rate,
    explored,
    gather,
    learn,
    nth_allowed,
)
from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.records import (
    BANDIT,
    BanditSettings,
    Bases,
    Luck,
    SelectorSettings,
    State,
    Tape,
    Trace,
)
from counterplay.replay.kernels.selection import barrier_step, base_probabilities, credit, drawn_base, within_budget

GREEDY = -2


@compiled
def outcome(tape: Tape, decision: int, action: int) -> float:
    """The reward of an action, NaN where the table does not know it."""
    context = tape.context[decision]
    low, high = tape.outcome_offsets[context], tape.outcome_offsets[context + 1]
    while low < high:
        middle = (low + high) // 2
        if tape.outcome_actions[middle] < action:
            low = middle + 1
        else:
            high = middle
    if low < tape.outcome_offsets[context + 1] and tape.outcome_actions[low] == action:
        return float(tape.outcome_rewards[low])
    return tape.default_reward


@compiled
def table_action(tape: Tape, bases: Bases, base: int, decision: int, luck: float) -> int:
    """The action of a base that does not learn, at the place ``luck`` in [0, 1) of its probabilities."""
    first = bases.table[base, decision, 0]
    if first < 0:
        return nth_allowed(tape, decision, int(luck * allowed_count(tape, decision)))
    left, last = luck, first
    for j in range(bases.table.shape[2]):
        action = bases.table[base, decision, j]
        if action < 0:
            break
        last = action
        if left < bases.weight[base, decision, j]:
            break
        left -= bases.weight[base, decision, j]
    return int(last)


@compiled
def chosen(
    tape: Tape, luck: Luck, bases: Bases, bandit: BanditSettings, base: int, decision: int, exploration: float
) -> int:
    """What ``base`` plays, or GREEDY where the bandit's scores decide."""
    if bases.kind[base] != BANDIT:
        return table_action(tape, bases, base, decision, luck.action[decision])
    if luck.explore[decision] < exploration:
        return explored(tape, bandit, decision, luck.action[decision])
    return GREEDY


@compiled
def play_greedily(
    tape: Tape,
    rounds: NDArray[np.int64],
    played: NDArray[np.int32],
    projected: NDArray[np.float32],
    picked: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:
    """Replace each GREEDY in ``played`` by the action with the highest score."""
    if tape.candidates.shape[1] > 0:
        for r in range(played.shape[0]):
            if played[r] == GREEDY:
                played[r] = best_candidate(tape, rounds[r], projected[r])
        return
    count = 0
    for r in range(played.shape[0]):
        if played[r] == GREEDY:
            picked[count] = projected[r]
            count += 1
    if count == 0:
        return
    np.dot(picked[:count], tape.actions.T, scores[:count])
    count = 0
    for r in range(played.shape[0]):
        if played[r] == GREEDY:
            played[r] = best_of_all(scores[count])
            count += 1


@compiled
def replay_exactly(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    batch: int,
) -> int:
    """Play ``len(trace.reward)`` rounds; fill ``trace`` and ``state``; give how many outcomes were unknown."""
    rounds_total, learns = trace.reward.shape[0], bases.kind[0] == BANDIT
    width = tape.actions.shape[1]
    rows = np.empty((batch, tape.contexts.shape[1]), np.float32)
    projected = np.empty((batch, width), np.float32)
    picked = np.empty((batch, width), np.float32)
    scores = np.empty((batch, tape.actions.shape[0] if tape.candidates.shape[1] == 0 else 0), np.float32)
    gradient = np.empty(state.weights.shape, np.float32)
    p, kept = np.empty(bases.kind.shape[0]), np.empty((batch, bases.kind.shape[0]))
    losses = np.zeros(bases.kind.shape[0])
    unknown = 0
    for number in range((rounds_total + batch - 1) // batch):
        start = number * batch
        size = min(batch, rounds_total - start)
        rounds = tape.order[start : start + size]
        played = trace.action[start : start + size]
        rewards = trace.reward[start : start + size]
        base_probabilities(selector, state, number + 1, p)
        exploration = exploration_rate(bandit, number)
        if learns:
            gather(tape, rounds, size, rows)
            np.dot(rows[:size], state.weights, projected[:size])
        for r in range(size):
            within_budget(selector, bases, state.counts[1], p, kept[r])
            base = drawn_base(kept[r], 1.0, luck.base[rounds[r]])
            state.counts[1] += bases.calls[base]
            trace.decision[start + r] = rounds[r]
            trace.base[start + r] = base
            trace.p_bandit[start + r] = kept[r, 0]
            played[r] = chosen(tape, luck, bases, bandit, base, rounds[r], exploration)
        if learns:
            play_greedily(tape, rounds, played, projected[:size], picked, scores)
        for r in range(size):
            rewards[r] = outcome(tape, rounds[r], played[r])
            unknown += np.isnan(rewards[r])
        if unknown > 0:
            return unknown
        for r in range(size):
            credit(selector, state, kept[r], trace.base[start + r], rewards[r], losses)
        barrier_step(selector, state, losses)
        if learns:
            learn(tape, bandit, state, rows[:size], projected[:size], played, rewards, gradient)
    return unknown
