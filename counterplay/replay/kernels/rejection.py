"""Rejection replay: the log knows one action a decision, and its propensity.

A decision is accepted with probability c pi(a|x) / mu(a|x), one c for the whole run; then the accepted decisions have
the law of an on-line run of the agent (Li et al., WSDM 2011, for uniform logs; Dudik et al., UAI 2012). The
acceptance uses the agent's whole probability of the logged action, so who acted is drawn afterwards, from its
posterior given that action.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bandit import (
    begin_batch,
    learn_batch,
    logged_chances,
    project,
    score_block,
)
from counterplay.replay.kernels.bilinear import allowed_count, exploration_rate
from counterplay.replay.kernels.compiled import borrowing, compiled, inlined
from counterplay.replay.kernels.records import (
    BANDIT,
    BILINEAR,
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

BLOCK, SMALLEST = 128, 8
"""The most and the fewest decisions that are scored together."""


@inlined
def table_probability(
    candidates: NDArray[np.int32],
    actions: int,
    table: NDArray[np.int32],
    weight: NDArray[np.float64],
    base: int,
    decision: int,
    action: int,
) -> float:
    """The probability that a base that does not learn plays ``action``."""
    total = 0.0
    if table[base, decision, 0] < 0:
        total = 1.0 / allowed_count(candidates, actions, decision)
    else:
        for j in range(table.shape[2]):
            if table[base, decision, j] == action:
                total += weight[base, decision, j]
    return total


@inlined
def agent_probability(
    candidates: NDArray[np.int32],
    actions: int,
    kind: NDArray[np.int64],
    table: NDArray[np.int32],
    weight: NDArray[np.float64],
    kept: NDArray[np.float64],
    chance: float,
    decision: int,
    action: int,
    shares: NDArray[np.float64],
) -> float:
    """The agent's whole probability of ``action``, which its bandit plays with probability ``chance``; what each base
    adds to it goes into ``shares[0]``."""
    whole = 0.0
    for i in range(kind.shape[0]):
        if kind[i] == BANDIT:
            share = chance
        else:
            share = table_probability(candidates, actions, table, weight, i, decision, action)
        shares[0, i] = share * kept[0, i]
        whole += shares[0, i]
    return whole


@borrowing
def learn_accepted(
    tape: Tape, bandit: BanditSettings, state: State, trace: Trace, first: int, last: int, work: Work
) -> None:
    """One update from the accepted rounds ``first`` to ``last``."""
    rounds = trace.decision[first:last]
    if bandit.form == BILINEAR:
        project(tape, bandit, state, rounds, work)
    learn_batch(tape, bandit, state, rounds, trace.action[first:last], trace.reward[first:last], work)


@compiled
def replay_by_rejection(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    batch: int,
    constant: float,
) -> tuple[int, int, int, float, float]:
    """Replay until the log ends or ``trace`` is full.

    Returns:
        rounds accepted, decisions read, decisions whose acceptance probability exceeded 1, the sum of those excesses,
        and the sum of the acceptance probabilities (capped at 1): the accepted rounds to expect.
    """
    work, shares = work_for(tape, bandit, state, max(batch, BLOCK)), shares_for(bases.kind.shape[0], 1)
    return read_decisions(tape, luck, bases, bandit, selector, state, trace, batch, constant, work, shares)


@borrowing
def read_decisions(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    batch: int,
    constant: float,
    work: Work,
    shares: Shares,
) -> tuple[int, int, int, float, float]:
    """`replay_by_rejection`, once there is room for it."""
    count, horizon, learns = tape.order.shape[0], trace.reward.shape[0], bases.kind[0] == BANDIT
    uncertain = learns and needs_uncertainty(selector.kind)
    p, kept, parts, losses = shares.p, shares.kept, shares.parts, shares.losses
    order, logged, propensity, rewards = tape.order, tape.action, tape.propensity, tape.reward
    candidates, actions = tape.candidates, tape.actions.shape[0]
    kind, calls, table, weight = bases.kind, bases.calls, bases.table, bases.weight
    prices, counts, ledger = selector.prices, state.counts, state.ledger
    unsure, best, chances = work.unsure, work.best, work.chance
    luck_accept, luck_base, luck_explore = luck.accept, luck.base, luck.explore
    accepted, position, violations, excess, expected, filled, number = 0, 0, 0, 0.0, 0.0, 0, 0
    r, block = 0, 0
    base_probabilities(selector, state, 1, p)
    exploration = exploration_rate(bandit, 0)
    if learns and count > 0:
        begin_batch(bandit, state, exploration, luck_explore[0], work)
    while position < count and accepted < horizon:
        if r >= block:
            # About as many as will be read before the next update, which makes their scores stale.
            ahead = (batch - filled) * (position + 1) // (accepted + 1)
            r, block = 0, min(BLOCK, max(SMALLEST, ahead), count - position)
            if learns:
                rounds = order[position : position + block]
                score_block(tape, bandit, state, rounds, uncertain, work)
                block = logged_chances(tape, bandit, state, exploration, luck_explore, rounds, work)
        decision = order[position]
        action = logged[decision]
        shares_now(selector, calls, counts, ledger, p, kept, 0, unsure[r], best[r], accepted)
        chance = chances[r] if learns and kept[0, 0] > 0.0 else 0.0
        total = agent_probability(candidates, actions, kind, table, weight, kept, chance, decision, action, parts)
        position += 1
        r += 1
        ratio = constant * total / propensity[decision]
        if ratio > 1.0 + 1e-9:
            violations += 1
            excess += ratio - 1.0
        expected += min(ratio, 1.0)
        if luck_accept[decision] >= ratio:
            continue
        base = drawn_base(parts, 0, total, luck_base[decision])
        engage(calls, prices, counts, ledger, base)
        trace.decision[accepted] = decision
        trace.action[accepted] = action
        trace.reward[accepted] = rewards[decision]
        trace.base[accepted] = base
        trace.p_bandit[accepted] = kept[0, 0]
        accepted += 1
        last = slice(accepted - 1, accepted)
        credit(selector, state, kept, trace.base[last], trace.reward[last], losses)
        filled += 1
        if filled < batch:
            continue
        for t in range(accepted - batch, accepted):
            settle(calls, ledger, trace.base[t], trace.reward[t])
        selector_step(selector, state, losses)
        if learns:
            learn_accepted(tape, bandit, state, trace, accepted - batch, accepted, work)
        filled, number, block = 0, number + 1, 0
        base_probabilities(selector, state, number + 1, p)
        exploration = exploration_rate(bandit, number)
        # Where every decision is accepted and learned from, the last one leaves no luck for a further batch.
        if learns and number < luck_explore.shape[0]:
            begin_batch(bandit, state, exploration, luck_explore[number], work)
    return accepted, position, violations, excess, expected
