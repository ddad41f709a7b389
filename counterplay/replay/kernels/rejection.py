"""Rejection replay: the log knows one action a decision, and its propensity.

A decision is accepted with probability c pi(a|x) / mu(a|x), one c for the whole run; then the accepted decisions have
the law of an on-line run of the agent (Li et al., WSDM 2011, for uniform logs; Dudik et al., UAI 2012). The
acceptance uses the agent's whole probability of the logged action, so who acted is drawn afterwards, from its
posterior given that action.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bilinear import (
    allowed_count,
    best_candidate,
    best_of_all,
    exploration_rate,
    explored_probability,
    gather,
    learn,
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

BLOCK = 128


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
    explore: NDArray[np.int32],
    kind: NDArray[np.int64],
    table: NDArray[np.int32],
    weight: NDArray[np.float64],
    kept: NDArray[np.float64],
    exploration: float,
    greedy: int,
    decision: int,
    action: int,
    shares: NDArray[np.float64],
) -> float:
    """The agent's whole probability of ``action``; what each base adds to it goes into ``shares[0]``."""
    whole = 0.0
    for i in range(kind.shape[0]):
        if kind[i] == BANDIT:
            share = exploration * explored_probability(candidates, actions, explore, decision, action)
            if greedy == action:
                share += 1.0 - exploration
        else:
            share = table_probability(candidates, actions, table, weight, i, decision, action)
        shares[0, i] = share * kept[0, i]
        whole += shares[0, i]
    return whole


@compiled
def learn_accepted(
    tape: Tape, bandit: BanditSettings, state: State, trace: Trace, first: int, last: int, gradient: NDArray[np.float32]
) -> None:
    """One update from the accepted rounds ``first`` to ``last``."""
    rows = np.empty((last - first, tape.contexts.shape[1]), np.float32)
    gather(tape, trace.decision[first:last], rows)
    projected = np.dot(rows, state.weights)
    learn(tape, bandit, state, rows, projected, trace.action[first:last], trace.reward[first:last], gradient)


@compiled
def score_block(
    tape: Tape,
    start: int,
    size: int,
    state: State,
    rows: NDArray[np.float32],
    projected: NDArray[np.float32],
    greedy: NDArray[np.int64],
) -> None:
    """The bandit's best action for the ``size`` decisions from place ``start`` of the order, into ``greedy``."""
    rounds = tape.order[start : start + size]
    gather(tape, rounds, rows)
    np.dot(rows[:size], state.weights, projected[:size])
    if tape.candidates.shape[1] > 0:
        for r in range(size):
            greedy[r] = best_candidate(tape, rounds[r], projected[r])
    else:
        scores = np.dot(projected[:size], tape.actions.T)
        for r in range(size):
            greedy[r] = best_of_all(scores, r)


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
    count, horizon, learns = tape.order.shape[0], trace.reward.shape[0], bases.kind[0] == BANDIT
    members = bases.kind.shape[0]
    width, block = tape.actions.shape[1], BLOCK
    rows = np.empty((block, tape.contexts.shape[1]), np.float32)
    projected = np.empty((block, width), np.float32)
    greedy = np.empty(block, np.int64)
    gradient = np.empty(state.weights.shape, np.float32)
    p, kept, shares, losses = np.empty(members), np.empty((1, members)), np.empty((1, members)), np.zeros(members)
    order, logged, propensity, rewards = tape.order, tape.action, tape.propensity, tape.reward
    candidates, actions, explore = tape.candidates, tape.actions.shape[0], bandit.explore
    kind, calls, table, weight = bases.kind, bases.calls, bases.table, bases.weight
    rule, budget, counts = selector.budget_rule, selector.budget, state.counts
    luck_accept, luck_base = luck.accept, luck.base
    accepted, position, violations, excess, expected, filled, number, r = 0, 0, 0, 0.0, 0.0, 0, 0, block
    base_probabilities(selector, state, 1, p)
    exploration = exploration_rate(bandit, 0)
    while position < count and accepted < horizon:
        if r >= block:
            r = 0
            if learns:
                score_block(tape, position, min(block, count - position), state, rows, projected, greedy)
        decision = order[position]
        action = logged[decision]
        within_budget(rule, budget, calls, counts[1], p, kept, 0)
        total = agent_probability(
            candidates, actions, explore, kind, table, weight, kept, exploration, greedy[r], decision, action, shares
        )
        position += 1
        r += 1
        ratio = constant * total / propensity[decision]
        if ratio > 1.0 + 1e-9:
            violations += 1
            excess += ratio - 1.0
        expected += min(ratio, 1.0)
        if luck_accept[decision] >= ratio:
            continue
        base = drawn_base(shares, 0, total, luck_base[decision])
        counts[1] += calls[base]
        trace.decision[accepted] = decision
        trace.action[accepted] = action
        trace.reward[accepted] = rewards[decision]
        trace.base[accepted] = base
        trace.p_bandit[accepted] = kept[0, 0]
        accepted += 1
        credit(
            selector, state, kept, trace.base[accepted - 1 : accepted], trace.reward[accepted - 1 : accepted], losses
        )
        filled += 1
        if filled < batch:
            continue
        barrier_step(selector, state, losses)
        if learns:
            learn_accepted(tape, bandit, state, trace, accepted - batch, accepted, gradient)
            r = block
        filled, number = 0, number + 1
        base_probabilities(selector, state, number + 1, p)
        exploration = exploration_rate(bandit, number)
    return accepted, position, violations, excess, expected
