"""Exact replay: the log knows what every action would have earned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bandit import (
    ASK,
    begin_batch,
    learn_batch,
    play_block,
    project,
    weigh,
)
from counterplay.replay.kernels.bilinear import exploration_rate, explored, nth_allowed
from counterplay.replay.kernels.compiled import borrowing, compiled, inlined
from counterplay.replay.kernels.records import (
    BANDIT,
    BILINEAR,
    GREEDY_MIX,
    BanditSettings,
    Bases,
    Luck,
    SelectorSettings,
    State,
    Tape,
    Trace,
)
from counterplay.replay.kernels.selection import (
    base_probabilities,
    credit,
    drawn_base,
    engage,
    needs_uncertainty,
    selector_step,
    settle,
    shares_now,
)
from counterplay.replay.kernels.work import Shares, Work, shares_for, work_for


@borrowing
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


@borrowing
def let_bases_play(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    exploration: float,
    rounds: NDArray[np.int64],
    acted: NDArray[np.int8],
    own: NDArray[np.int32],
    played: NDArray[np.int32],
) -> None:
    """What the bases that acted play. Of the bandit: what exploring plays, or ASK; the same into ``own`` for every
    round where ``own`` is as long as these."""
    kind, table, weight = bases.kind, bases.table, bases.weight
    candidates, actions, explore = tape.candidates, tape.actions.shape[0], bandit.explore
    luck_explore, luck_action = luck.explore, luck.action
    mixes, analysed = bandit.exploring == GREEDY_MIX, own.shape[0] > 0
    for r in range(rounds.shape[0]):
        decision, base = rounds[r], acted[r]
        if kind[base] == BANDIT or analysed:
            action = ASK
            if mixes and luck_explore[decision] < exploration:
                action = explored(candidates, actions, explore, decision, luck_action[decision])
            played[r] = action
            if analysed:
                own[r] = action
        if kind[base] != BANDIT:
            played[r] = table_action(candidates, actions, table, weight, base, decision, luck_action[decision])


@borrowing
def draw_bases(
    luck: Luck,
    bases: Bases,
    selector: SelectorSettings,
    state: State,
    rounds: NDArray[np.int64],
    start: int,
    p: NDArray[np.float64],
    kept: NDArray[np.float64],
    work: Work,
    trace: Trace,
) -> None:
    """Draw who acts in the rounds from ``start``; with what probabilities goes into ``kept`` `(b, M)`."""
    calls, prices, counts, ledger, luck_base = bases.calls, selector.prices, state.counts, state.ledger, luck.base
    decisions, acted, p_bandit, unsure, best = trace.decision, trace.base, trace.p_bandit, work.unsure, work.best
    for r in range(rounds.shape[0]):
        decision = rounds[r]
        shares_now(selector, calls, counts, ledger, p, kept, r, unsure[r], best[r], start + r)
        base = drawn_base(kept, r, 1.0, luck_base[decision])
        engage(calls, prices, counts, ledger, base)
        decisions[start + r], acted[start + r], p_bandit[start + r] = decision, base, kept[r, 0]


@borrowing
def fill_alone(tape: Tape, rounds: NDArray[np.int64], own: NDArray[np.int32], trace: Trace, start: int) -> None:
    """What the bandit's own choices would have earned; NaN where the table does not know."""
    look_up(tape, rounds, own, trace.alone[start : start + rounds.shape[0]])


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
    analysed = bases.kind[0] == BANDIT and trace.alone.shape[0] > 0
    work, shares = work_for(tape, bandit, state, batch), shares_for(bases.kind.shape[0], batch)
    own = np.empty(batch if analysed else 0, np.int32)
    return play_batches(tape, luck, bases, bandit, selector, state, trace, batch, own, work, shares)


@borrowing
def play_batches(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    batch: int,
    own: NDArray[np.int32],
    work: Work,
    shares: Shares,
) -> int:
    """`replay_exactly`, once there is room for it."""
    rounds_total, learns, analysed = trace.reward.shape[0], bases.kind[0] == BANDIT, own.shape[0] > 0
    uncertain = learns and needs_uncertainty(selector.kind)
    p, kept, losses = shares.p, shares.kept, shares.losses
    for number in range((rounds_total + batch - 1) // batch):
        start = number * batch
        size = min(batch, rounds_total - start)
        rounds = tape.order[start : start + size]
        played, rewards = trace.action[start : start + size], trace.reward[start : start + size]
        acted = trace.base[start : start + size]
        base_probabilities(selector, state, number + 1, p)
        exploration = exploration_rate(bandit, number)
        if learns:
            begin_batch(bandit, state, exploration, luck.explore[number], work)
            if bandit.form == BILINEAR:
                project(tape, bandit, state, rounds, work)
        for r in range(size if uncertain else 0):
            weigh(tape, bandit, state, rounds[r], r, work)
        draw_bases(luck, bases, selector, state, rounds, start, p, kept[:size], work, trace)
        let_bases_play(tape, luck, bases, bandit, exploration, rounds, acted, own[:size], played)
        if analysed:
            play_block(tape, luck, bandit, state, exploration, rounds, own[:size], work)
            fill_alone(tape, rounds, own[:size], trace, start)
            for r in range(size):
                if bases.kind[acted[r]] == BANDIT:
                    played[r] = own[r]
        elif learns:
            play_block(tape, luck, bandit, state, exploration, rounds, played, work)
        unknown = look_up(tape, rounds, played, rewards)
        if unknown > 0:
            return unknown
        for r in range(size):
            settle(bases.calls, state.ledger, acted[r], rewards[r])
        credit(selector, state, kept[:size], acted, rewards, losses)
        selector_step(selector, state, losses)
        if learns:
            learn_batch(tape, bandit, state, rounds, played, rewards, work)
    return 0
