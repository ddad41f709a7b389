"""Exact replay: the log knows what every action would have earned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bilinear import (
    best_candidate,
    best_of_all,
    exploration_rate,
    explored,
    gather,
    learn,
    nth_allowed,
)
from counterplay.replay.kernels.compiled import compiled, inlined
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
def look_up(tape: Tape, rounds: NDArray[np.int64], played: NDArray[np.int32], rewards: NDArray[np.float64]) -> int:
    """Write what ``played`` would have earned into ``rewards``; NaN where the table does not know, and how many."""
    context, offsets, actions, known = tape.context, tape.outcome_offsets, tape.outcome_actions, tape.outcome_rewards
    unknown = 0
    for r in range(rounds.shape[0]):
        low, end = offsets[context[rounds[r]]], offsets[context[rounds[r]] + 1]
        high = end
        while low < high:
            middle = (low + high) // 2
            if actions[middle] < played[r]:
                low = middle + 1
            else:
                high = middle
        found = low < end and actions[low] == played[r]
        rewards[r] = known[low] if found else tape.default_reward
        unknown += np.isnan(rewards[r])
    return unknown


@inlined
def table_action(
    candidates: NDArray[np.int32],
    actions: int,
    table: NDArray[np.int32],
    weight: NDArray[np.float64],
    base: int,
    decision: int,
    luck: float,
) -> int:
    """The action of a base that does not learn, at the place ``luck`` in [0, 1) of its probabilities."""
    last = table[base, decision, 0]
    if last < 0:
        last = nth_allowed(candidates, actions, decision, luck)
    else:
        left = luck
        for j in range(table.shape[2]):
            action = table[base, decision, j]
            if action < 0:
                break
            last = action
            if left < weight[base, decision, j]:
                break
            left -= weight[base, decision, j]
    return int(last)


@compiled
def let_bases_play(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    counts: NDArray[np.int64],
    trace: Trace,
    start: int,
    p: NDArray[np.float64],
    kept: NDArray[np.float64],
    exploration: float,
) -> None:
    """Draw who acts in the rounds from ``start``, one a row of ``kept``, and what they play; GREEDY: scores decide."""
    # Fields are taken out of their records once: inside the loop each access would count a reference.
    order, kind, calls, table, weight = tape.order, bases.kind, bases.calls, bases.table, bases.weight
    candidates, actions, explore = tape.candidates, tape.actions.shape[0], bandit.explore
    rule, budget = selector.budget_rule, selector.budget
    luck_base, luck_explore, luck_action = luck.base, luck.explore, luck.action
    decisions, acted, p_bandit, played = trace.decision, trace.base, trace.p_bandit, trace.action
    for r in range(kept.shape[0]):
        i = start + r
        decision = order[i]
        within_budget(rule, budget, calls, counts[1], p, kept, r)
        base = drawn_base(kept, r, 1.0, luck_base[decision])
        counts[1] += calls[base]
        decisions[i], acted[i], p_bandit[i] = decision, base, kept[r, 0]
        if kind[base] != BANDIT:
            played[i] = table_action(candidates, actions, table, weight, base, decision, luck_action[decision])
        elif luck_explore[decision] < exploration:
            played[i] = explored(candidates, actions, explore, decision, luck_action[decision])
        else:
            played[i] = GREEDY


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
            for j in range(picked.shape[1]):
                picked[count, j] = projected[r, j]
            count += 1
    if count == 0:
        return
    np.dot(picked[:count], tape.actions.T, scores[:count])
    count = 0
    for r in range(played.shape[0]):
        if played[r] == GREEDY:
            played[r] = best_of_all(scores, count)
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
    for number in range((rounds_total + batch - 1) // batch):
        start = number * batch
        size = min(batch, rounds_total - start)
        rounds = tape.order[start : start + size]
        played = trace.action[start : start + size]
        rewards = trace.reward[start : start + size]
        base_probabilities(selector, state, number + 1, p)
        exploration = exploration_rate(bandit, number)
        if learns:
            gather(tape, rounds, rows)
            np.dot(rows[:size], state.weights, projected[:size])
        let_bases_play(tape, luck, bases, bandit, selector, state.counts, trace, start, p, kept[:size], exploration)
        if learns:
            play_greedily(tape, rounds, played, projected[:size], picked, scores)
        unknown = look_up(tape, rounds, played, rewards)
        if unknown > 0:
            return unknown
        credit(selector, state, kept[:size], trace.base[start : start + size], rewards, losses)
        barrier_step(selector, state, losses)
        if learns:
            learn(tape, bandit, state, rows[:size], projected[:size], played, rewards, gradient)
    return 0
