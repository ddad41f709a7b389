"""Doubly robust replay: the history grows by rejection, the value is estimated from every decision read.

The loop of Dudik, Erhan, Langford and Li (UAI 2012; Statistical Science 2014, DR-ns). It takes a log piece by piece, so
that predicted rewards exist for one piece at a time, and goes on from ``Progress``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bandit import begin_batch, logged_chances, probabilities, score_block
from counterplay.replay.kernels.bilinear import allowed_count, exploration_rate
from counterplay.replay.kernels.compiled import borrowing, compiled, inlined
from counterplay.replay.kernels.linear import play_ridge
from counterplay.replay.kernels.records import (
    BANDIT,
    BILINEAR,
    GREEDY_MIX,
    RIDGE,
    THOMPSON,
    BanditSettings,
    Bases,
    Luck,
    SelectorSettings,
    State,
    Tape,
    Trace,
)
from counterplay.replay.kernels.rejection import BLOCK, SMALLEST, agent_probability, learn_accepted
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
from counterplay.replay.kernels.work import Work, allowed_arms

DOUBLY_ROBUST, INVERSE_PROPENSITY, SELF_NORMALISED, DIRECT = 0, 1, 2, 3
ACCEPTED, READ, FILLED, BATCHES, VIOLATIONS, BELOW, ABOVE = range(7)
CONSTANT, LEAST, SMALLEST_RATIO, EXCESS, EXPECTED = range(5)
OFFSET, TOTAL, UNIT, TOTAL_SQUARED, CROSSED, UNIT_SQUARED, MULTIPLIER, WEIGHT, WEIGHT_SQUARED, LARGEST = range(10)


class Progress(NamedTuple):
    """Where a replay stands between two pieces of a log.

    counts: `(7,)` int64: rounds accepted, decisions read, rounds since the last update, updates, violations, and how
    many ratios mu/pi are in ``below`` and ``above``.
    acceptance: `(5,)` float64: c, the least c so far, the smallest ratio mu/pi seen, the sum of c pi/mu - 1 over the
    violations, and of the acceptance probabilities.
    moments: `(10,)` float64: see ``add_term``. terms: `(n, 2)` what each decision read added to TOTAL and UNIT, or
    `(0, 2)` where decisions are independent.
    p: `(M,)` the bases' probabilities in this batch. losses: `(M,)`.
    below, above: the ratios mu/pi seen, negated up to their quantile and as they are beyond it: two heaps, both with
    their smallest number first. Empty where only the smallest ratio is asked for.
    """

    counts: NDArray[np.int64]
    acceptance: NDArray[np.float64]
    moments: NDArray[np.float64]
    terms: NDArray[np.float64]
    p: NDArray[np.float64]
    losses: NDArray[np.float64]
    below: NDArray[np.float64]
    above: NDArray[np.float64]


@borrowing
def push(heap: NDArray[np.float64], size: int, value: float) -> None:
    """Put ``value`` into a heap that holds ``size`` numbers, the smallest first."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if heap[parent] <= value:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = value


@borrowing
def pop(heap: NDArray[np.float64], size: int) -> float:
    """Take the smallest number from a heap that holds ``size``."""
    smallest, last, left, place = heap[0], heap[size - 1], size - 1, 0
    while 2 * place + 1 < left:
        child = 2 * place + 1
        if child + 1 < left and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= last:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = last
    return float(smallest)


@borrowing
def add_ratio(progress: Progress, quantile: float, ratio: float) -> None:
    """Enter a ratio mu/pi. Of n, the first floor(quantile (n - 1)) + 1 in rising order are kept below."""
    acceptance = progress.acceptance
    acceptance[SMALLEST_RATIO] = min(acceptance[SMALLEST_RATIO], ratio)
    if quantile <= 0.0:
        return
    counts, below, above = progress.counts, progress.below, progress.above
    if counts[BELOW] > 0 and ratio < -below[0]:
        push(below, counts[BELOW], -ratio)
        counts[BELOW] += 1
    else:
        push(above, counts[ABOVE], ratio)
        counts[ABOVE] += 1
    wanted = int(quantile * (counts[BELOW] + counts[ABOVE] - 1)) + 1
    while counts[BELOW] < wanted:
        push(below, counts[BELOW], -pop(above, counts[ABOVE]))
        counts[BELOW] += 1
        counts[ABOVE] -= 1
    while counts[BELOW] > wanted:
        push(above, counts[ABOVE], -pop(below, counts[BELOW]))
        counts[BELOW] -= 1
        counts[ABOVE] += 1


@borrowing
def next_constant(progress: Progress, quantile: float, most: float) -> None:
    """Set c to the quantile of the ratios mu/pi seen so far, at most ``most``."""
    acceptance = progress.acceptance
    seen = acceptance[SMALLEST_RATIO] if quantile <= 0.0 else -progress.below[0]
    acceptance[CONSTANT] = min(most, seen)
    acceptance[LEAST] = min(acceptance[LEAST], acceptance[CONSTANT])


@borrowing
def add_term(
    progress: Progress,
    estimator: int,
    constant: float,
    weight: float,
    reward: float,
    q_logged: float,
    q_target: float,
) -> None:
    """Enter what a decision says of the agent's value: a numerator and, of a ratio, a denominator, both times c.

    All numerators are taken from the offset, the first reward, so that equal rewards have no variance.

    Args:
        weight: pi/mu of the logged action.
        q_logged, q_target: the model's predictions for the logged action, and for the agent's whole law.
    """
    moments, terms = progress.moments, progress.terms
    numerator, unit = q_target, 1.0
    if estimator == INVERSE_PROPENSITY:
        numerator = weight * reward
    elif estimator == SELF_NORMALISED:
        numerator, unit = weight * reward, weight
    elif estimator == DOUBLY_ROBUST:
        numerator += weight * (reward - q_logged)
    scaled = constant * (numerator - unit * moments[OFFSET])
    unit *= constant
    moments[TOTAL] += scaled
    moments[UNIT] += unit
    moments[TOTAL_SQUARED] += scaled * scaled
    moments[CROSSED] += scaled * unit
    moments[UNIT_SQUARED] += unit * unit
    moments[MULTIPLIER] += constant
    moments[WEIGHT] += constant * weight
    moments[WEIGHT_SQUARED] += (constant * weight) ** 2
    moments[LARGEST] = max(moments[LARGEST], constant * weight)
    if terms.shape[0] > 0:
        terms[progress.counts[READ], 0], terms[progress.counts[READ], 1] = scaled, unit


@borrowing
def add_acceptance(progress: Progress, ratio: float) -> None:
    """Enter the acceptance probability c pi/mu of a decision, which may exceed 1."""
    progress.counts[READ] += 1
    if ratio > 1.0 + 1e-9:
        progress.counts[VIOLATIONS] += 1
        progress.acceptance[EXCESS] += ratio - 1.0
    progress.acceptance[EXPECTED] += min(ratio, 1.0)


@inlined
def place_of(candidates: NDArray[np.int32], decision: int, action: int) -> int:
    """The column of ``action`` among what is allowed in a decision."""
    place = action
    if candidates.shape[1] > 0:
        place = -1
        for s in range(candidates.shape[1]):
            if candidates[decision, s] == action:
                place = s
                break
    return int(place)


@inlined
def table_value(
    candidates: NDArray[np.int32],
    actions: int,
    table: NDArray[np.int32],
    weight: NDArray[np.float64],
    base: int,
    decision: int,
    predicted: NDArray[np.float64],
    row: int,
) -> float:
    """The predicted reward of a base that does not learn; ``predicted[row]``: of each allowed action."""
    total = 0.0
    if table[base, decision, 0] < 0:
        count = allowed_count(candidates, actions, decision)
        for s in range(count):
            total += predicted[row, s] / count
    else:
        for j in range(table.shape[2]):
            if table[base, decision, j] < 0:
                break
            if weight[base, decision, j] > 0.0:
                place = place_of(candidates, decision, table[base, decision, j])
                total += weight[base, decision, j] * predicted[row, place]
    return total


@borrowing
def chance_and_value(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    amount: float,
    luck: float,
    decision: int,
    action: int,
    r: int,
    predicted: NDArray[np.float64],
    work: Work,
) -> tuple[float, float]:
    """The bandit's probability of ``action`` in the decision in row ``r`` of the block, and the mean of ``predicted``
    `(S,)`, one number for each allowed action, over all that it may play."""
    candidates = tape.candidates
    if bandit.form == RIDGE:
        greedy = play_ridge(tape, bandit, state, amount, luck, decision, work)
        return 1.0 if greedy == action else 0.0, predicted[place_of(candidates, decision, greedy)]
    value, chance = 0.0, 0.0
    if bandit.exploring == GREEDY_MIX or bandit.exploring == THOMPSON:
        chance = work.chance[r]
        greedy_value = predicted[place_of(candidates, decision, work.greedy[r])]
        if bandit.exploring == THOMPSON:
            return chance, greedy_value
        explore = bandit.explore
        if explore.shape[0] > 0:
            for arm in explore:
                value += predicted[arm] / explore.shape[0]
        else:
            count = allowed_count(candidates, tape.actions.shape[0], decision)
            for s in range(count):
                value += predicted[s] / count
        return chance, amount * value + (1.0 - amount) * greedy_value
    count = probabilities(tape, bandit, state, amount, luck, decision, r, work)
    arms = allowed_arms(candidates, work.arms, decision)
    for s in range(count):
        value += work.p[s] * predicted[s]
        if arms[s] == action:
            chance = work.p[s]
    return chance, value


@borrowing
def begin_replay(
    luck: Luck,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    progress: Progress,
    learns: bool,
    work: Work,
) -> None:
    """Before the first decision."""
    base_probabilities(selector, state, 1, progress.p)
    if learns:
        begin_batch(bandit, state, exploration_rate(bandit, 0), luck.explore[0], work)


@borrowing
def end_batch(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    progress: Progress,
    learns: bool,
    batch: int,
    work: Work,
) -> None:
    """Learn from the last ``batch`` rounds and begin the next."""
    counts, calls, ledger = progress.counts, bases.calls, state.ledger
    for t in range(counts[ACCEPTED] - batch, counts[ACCEPTED]):
        settle(calls, ledger, trace.base[t], trace.reward[t])
    selector_step(selector, state, progress.losses)
    if learns:
        learn_accepted(tape, bandit, state, trace, counts[ACCEPTED] - batch, counts[ACCEPTED], work)
    counts[FILLED] = 0
    counts[BATCHES] += 1
    base_probabilities(selector, state, counts[BATCHES] + 1, progress.p)
    # Where every decision is accepted and learned from, the last one leaves no luck for a further batch.
    if learns and counts[BATCHES] < luck.explore.shape[0]:
        begin_batch(bandit, state, exploration_rate(bandit, counts[BATCHES]), luck.explore[counts[BATCHES]], work)


@compiled
def replay_piece(
    tape: Tape,
    luck: Luck,
    bases: Bases,
    bandit: BanditSettings,
    selector: SelectorSettings,
    state: State,
    trace: Trace,
    progress: Progress,
    work: Work,
    rounds: NDArray[np.int64],
    predicted: NDArray[np.float64],
    estimator: int,
    quantile: float,
    most: float,
    batch: int,
) -> None:
    """Go on with the decisions ``rounds``, until they end or ``trace`` is full.

    Args:
        predicted: `(len(rounds), S)`, the model's rewards of the allowed actions; `(0, 0)` without a model.
        estimator: DOUBLY_ROBUST to DIRECT.
        quantile: of the ratios mu/pi, to which c is set after each acceptance.
        most: the greatest c.
    """
    learns, modelled, size = bases.kind[0] == BANDIT, predicted.shape[0] > 0, rounds.shape[0]
    uncertain = learns and needs_uncertainty(selector.kind)
    mixed = bandit.form == BILINEAR and (bandit.exploring == GREEDY_MIX or bandit.exploring == THOMPSON)
    counts, acceptance, p, losses = progress.counts, progress.acceptance, progress.p, progress.losses
    kept, shares = np.empty((1, p.shape[0])), np.empty((1, p.shape[0]))
    logged, propensity, rewards = tape.action, tape.propensity, tape.reward
    candidates, actions = tape.candidates, tape.actions.shape[0]
    kind, calls, table, weight = bases.kind, bases.calls, bases.table, bases.weight
    prices, calls_made, ledger = selector.prices, state.counts, state.ledger
    unsure, best = work.unsure, work.best
    luck_accept, luck_base, luck_explore = luck.accept, luck.base, luck.explore
    exploration = exploration_rate(bandit, counts[BATCHES])
    position, r, block, horizon = 0, 0, 0, trace.reward.shape[0]
    while position < size and counts[ACCEPTED] < horizon:
        if r >= block:
            ahead = (batch - counts[FILLED]) * (counts[READ] + 1) // (counts[ACCEPTED] + 1)
            r, block = 0, min(BLOCK, max(SMALLEST, ahead), size - position)
            if learns:
                following = rounds[position : position + block]
                score_block(tape, bandit, state, following, uncertain, work)
                if mixed or not modelled:
                    block = logged_chances(tape, bandit, state, exploration, luck_explore, following, work)
        decision = rounds[position]
        action = logged[decision]
        shares_now(selector, calls, calls_made, ledger, p, kept, 0, unsure[r], best[r], counts[ACCEPTED])
        chance, q_target, q_logged, luck_now = 0.0, 0.0, 0.0, luck_explore[decision]
        if learns and kept[0, 0] > 0.0:
            if modelled:
                chance, q_target = chance_and_value(
                    tape, bandit, state, exploration, luck_now, decision, action, r, predicted[position], work
                )
                q_target *= kept[0, 0]
            else:
                chance = work.chance[r]
        total = agent_probability(candidates, actions, kind, table, weight, kept, chance, decision, action, shares)
        if modelled:
            q_logged = predicted[position, place_of(candidates, decision, action)]
            for i in range(kind.shape[0]):
                if kind[i] != BANDIT and kept[0, i] > 0.0:
                    q_target += kept[0, i] * table_value(
                        candidates, actions, table, weight, i, decision, predicted, position
                    )
        position += 1
        r += 1
        c, mu = acceptance[CONSTANT], propensity[decision]
        add_term(progress, estimator, c, total / mu, rewards[decision], q_logged, q_target)
        ratio = c * total / mu
        add_acceptance(progress, ratio)
        if total > 0.0:
            add_ratio(progress, quantile, mu / total)
        if luck_accept[decision] >= ratio:
            continue
        base = drawn_base(shares, 0, total, luck_base[decision])
        engage(calls, prices, calls_made, ledger, base)
        t = counts[ACCEPTED]
        trace.decision[t], trace.action[t], trace.reward[t] = decision, action, rewards[decision]
        trace.base[t], trace.p_bandit[t] = base, kept[0, 0]
        counts[ACCEPTED] += 1
        counts[FILLED] += 1
        next_constant(progress, quantile, most)
        credit(selector, state, kept, trace.base[t : t + 1], trace.reward[t : t + 1], losses)
        if counts[FILLED] == batch:
            end_batch(tape, luck, bases, bandit, selector, state, trace, progress, learns, batch, work)
            exploration, block = exploration_rate(bandit, counts[BATCHES]), 0
