"""The bandit, whatever its model and its exploration: what it plays, with what probability, and how it learns.

A batch is a draw from the posterior where there is one, then decisions, then one update; between two updates the model
does not change, so blocks of decisions are scored together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bilinear import (
    allowed_count,
    best_candidate,
    dot,
    explored_probability,
    gather,
    learn,
    multiply,
)
from counterplay.replay.kernels.compiled import borrowing, compiled
from counterplay.replay.kernels.draws import key_of
from counterplay.replay.kernels.exploring import (
    drawn_place,
    inverse_gap_probabilities,
    softmax_probabilities,
    spanner_inverse_gap,
    values_of,
)
from counterplay.replay.kernels.laplace import draw_weights, learn_laplace
from counterplay.replay.kernels.linear import deviation, learn_linear, logged_plays, play_ridge, predict_linear
from counterplay.replay.kernels.records import (
    BILINEAR,
    GREEDY_MIX,
    INVERSE_GAP,
    LAPLACE,
    RIDGE,
    SOFTMAX,
    THOMPSON,
    BanditSettings,
    Luck,
    State,
    Tape,
)
from counterplay.replay.kernels.ridge import draw_shared
from counterplay.replay.kernels.tiles import best_actions
from counterplay.replay.kernels.work import Work, allowed_arms, work_for

ASK = -2
"""In place of an action: what the bandit's scores say."""


SPANNER_FACTOR = 2.0
"""C of the spanners that SpannerIGW draws from."""


@borrowing
def begin_batch(bandit: BanditSettings, state: State, amount: float, luck: float, work: Work) -> None:
    """Draw the model that this batch plays with, where the bandit explores by its posterior."""
    if bandit.exploring == THOMPSON:
        if bandit.form == BILINEAR:
            draw_weights(state.weights, state.square, amount, key_of(luck), work.drawn)
        elif bandit.shared:
            draw_shared(state.theta[0], state.covariance[0], amount, key_of(luck), work.theta)


@borrowing
def project(tape: Tape, bandit: BanditSettings, state: State, rounds: NDArray[np.int64], work: Work) -> None:
    """The contexts of some decisions times the weights that the bandit plays with."""
    size = rounds.shape[0]
    gather(tape, rounds, work.rows)
    weights = work.drawn if bandit.exploring == THOMPSON else state.weights
    multiply(work.rows[:size], weights, work.projected[:size])


@borrowing
def predict_rewards(tape: Tape, bandit: BanditSettings, state: State, decision: int, r: int, work: Work) -> int:
    """The predicted rewards of the allowed actions of the decision in row ``r`` of the block, into ``work.values``; how
    many they are."""
    arms = allowed_arms(tape.candidates, work.arms, decision)
    count = allowed_count(tape.candidates, tape.actions.shape[0], decision)
    if bandit.form == RIDGE:
        predict_linear(tape, bandit, state, decision, count, work)
    else:
        actions, projected, scores, bias = tape.actions, work.projected[r], work.row_scores, state.bias[0]
        if tape.candidates.shape[1] > 0:
            for s in range(count):
                scores[s] = dot(projected, actions[arms[s]])
        else:
            multiply(actions, projected, scores)
        values_of(scores[:count], bias, bandit.logistic, work.values[:count])
    return count


@borrowing
def probabilities(
    tape: Tape, bandit: BanditSettings, state: State, amount: float, luck: float, decision: int, r: int, work: Work
) -> int:
    """The probability of each allowed action of the decision in row ``r`` of the block, into ``work.p``; how many they
    are. Given its draws, a bandit that explores by its posterior plays one action."""
    arms = allowed_arms(tape.candidates, work.arms, decision)
    count = allowed_count(tape.candidates, tape.actions.shape[0], decision)
    if bandit.form == BILINEAR and bandit.exploring != GREEDY_MIX and bandit.exploring != THOMPSON:
        predict_rewards(tape, bandit, state, decision, r, work)
        if bandit.exploring == SOFTMAX:
            softmax_probabilities(work.values, count, amount, work.p)
        elif bandit.exploring == INVERSE_GAP:
            inverse_gap_probabilities(work.values, count, float(count), amount, work.p)
        elif bandit.explore.shape[0] > 0:
            spanner_inverse_gap(
                work.values, amount, SPANNER_FACTOR, bandit.explore, bandit.coefficients, work.spanner, work.p
            )
        else:
            # So few candidates that all of them are the spanner.
            inverse_gap_probabilities(work.values, count, 1.0 + count, amount, work.p)
        return count
    work.p[:count] = 0.0
    explored = 0.0
    if bandit.form == RIDGE:
        greedy = play_ridge(tape, bandit, state, amount, luck, decision, work)
    else:
        greedy = greedy_action(tape, decision, r, work)
        explored = amount if bandit.exploring == GREEDY_MIX else 0.0
    for s in range(count):
        if explored > 0.0:
            work.p[s] = explored * explored_probability(
                tape.candidates, tape.actions.shape[0], bandit.explore, decision, arms[s]
            )
        if arms[s] == greedy:
            work.p[s] += 1.0 - explored
    return count


@borrowing
def greedy_action(tape: Tape, decision: int, r: int, work: Work) -> int:
    """The action with the highest score of the decision in row ``r`` of the block."""
    if tape.candidates.shape[1] > 0:
        return best_candidate(tape, decision, work.projected[r])
    pick(work.projected, r, work.picked, 0)
    best_actions(work.tiles, tape.actions.shape[0], work.picked, 1, work.scores, work.top, work.first)
    return int(work.first[0])


@borrowing
def logged_chances(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    amount: float,
    draws: NDArray[np.float64],
    rounds: NDArray[np.int64],
    work: Work,
) -> int:
    """The probability that the bandit plays what was logged in each of a block of decisions, into ``work.chance``; for
    so many of them as it gives. `score_block` must have been there. ``draws`` `(n,)`: its luck in each decision."""
    if bandit.form == RIDGE:
        return logged_plays(tape, bandit, state, amount, draws, rounds, work)
    logged, candidates, actions, explore = tape.action, tape.candidates, tape.actions.shape[0], bandit.explore
    greedy, chance, p, every = work.greedy, work.chance, work.p, work.arms
    mixes, sampled = bandit.exploring == GREEDY_MIX, bandit.exploring == THOMPSON
    for r in range(rounds.shape[0]):
        decision = rounds[r]
        action = logged[decision]
        if mixes or sampled:
            share = 0.0 if sampled else amount
            chance[r] = 1.0 - share if greedy[r] == action else 0.0
            if mixes:
                chance[r] += share * explored_probability(candidates, actions, explore, decision, action)
        else:
            count = probabilities(tape, bandit, state, amount, draws[decision], decision, r, work)
            arms = allowed_arms(candidates, every, decision)
            chance[r] = 0.0
            for s in range(count):
                if arms[s] == action:
                    chance[r] = p[s]
    return int(rounds.shape[0])


@borrowing
def score_block(
    tape: Tape, bandit: BanditSettings, state: State, rounds: NDArray[np.int64], uncertain: bool, work: Work
) -> None:
    """Whatever the probabilities of a block of decisions have in common: projections, best actions, uncertainties."""
    size = rounds.shape[0]
    if bandit.form == BILINEAR:
        project(tape, bandit, state, rounds, work)
        if bandit.exploring == GREEDY_MIX or bandit.exploring == THOMPSON:
            if tape.candidates.shape[1] > 0:
                for r in range(size):
                    work.greedy[r] = best_candidate(tape, rounds[r], work.projected[r])
            else:
                for r in range(size):
                    pick(work.projected, r, work.picked, r)
                best_actions(work.tiles, tape.actions.shape[0], work.picked, size, work.scores, work.top, work.greedy)
    if uncertain:
        for r in range(size):
            weigh(tape, bandit, state, rounds[r], r, work)


@borrowing
def weigh(tape: Tape, bandit: BanditSettings, state: State, decision: int, r: int, work: Work) -> None:
    """What the bandit expects of its best action in [0, 1], and how unsure it is of it: the posterior's standard
    deviation of a ridge model, else 1 minus the lead over the second best; both cut to [0, 1]."""
    count = predict_rewards(tape, bandit, state, decision, r, work)
    first, second, place = -np.inf, -np.inf, 0
    for s in range(count):
        value = work.values[s]
        if value > first:
            first, second, place = value, first, s
        elif value > second:
            second = value
    unsure = 1.0 - (first - second) if count > 1 else 0.0
    if bandit.form == RIDGE:
        arm = allowed_arms(tape.candidates, work.arms, decision)[place]
        unsure = deviation(tape, bandit, state, decision, arm, work)
    work.unsure[r] = min(1.0, max(0.0, unsure))
    work.best[r] = min(1.0, max(0.0, first))


@borrowing
def play_block(
    tape: Tape,
    luck: Luck,
    bandit: BanditSettings,
    state: State,
    amount: float,
    rounds: NDArray[np.int64],
    played: NDArray[np.int32],
    work: Work,
) -> None:
    """Replace each ASK in ``played`` by what the bandit plays; projections must be there."""
    if bandit.form == BILINEAR and (bandit.exploring == GREEDY_MIX or bandit.exploring == THOMPSON):
        play_greedily(tape, rounds, played, work)
        return
    luck_explore, luck_action = luck.explore, luck.action
    for r in range(rounds.shape[0]):
        if played[r] != ASK:
            continue
        decision = rounds[r]
        if bandit.form == RIDGE:
            played[r] = play_ridge(tape, bandit, state, amount, luck_explore[decision], decision, work)
        else:
            count = probabilities(tape, bandit, state, amount, luck_explore[decision], decision, r, work)
            place = drawn_place(work.p, count, luck_action[decision])
            played[r] = allowed_arms(tape.candidates, work.arms, decision)[place]


@borrowing
def play_greedily(tape: Tape, rounds: NDArray[np.int64], played: NDArray[np.int32], work: Work) -> None:
    """Replace each ASK in ``played`` by the action with the highest score."""
    if tape.candidates.shape[1] > 0:
        for r in range(played.shape[0]):
            if played[r] == ASK:
                played[r] = best_candidate(tape, rounds[r], work.projected[r])
        return
    count = 0
    for r in range(played.shape[0]):
        if played[r] == ASK:
            pick(work.projected, r, work.picked, count)
            count += 1
    best_actions(work.tiles, tape.actions.shape[0], work.picked, count, work.scores, work.top, work.first)
    count = 0
    for r in range(played.shape[0]):
        if played[r] == ASK:
            played[r] = work.first[count]
            count += 1


@borrowing
def pick(projected: NDArray[np.float32], r: int, picked: NDArray[np.float32], place: int) -> None:
    """Copy row ``r`` of the projections to a place among those that are scored; what is right of it stays 0."""
    for j in range(projected.shape[1]):
        picked[place, j] = projected[r, j]


@borrowing
def learn_batch(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    rounds: NDArray[np.int64],
    played: NDArray[np.int32],
    rewards: NDArray[np.float64],
    work: Work,
) -> None:
    """One update from a batch; with a bilinear model its rows and projections must be in ``work``."""
    if bandit.form == RIDGE:
        learn_linear(tape, bandit, state, rounds, played, rewards, work)
    elif bandit.learner == LAPLACE:
        learn_posterior(tape.actions, bandit.logistic, bandit.bias, state, played, rewards, work.rows)
    else:
        learn(tape, bandit, state, played, rewards, work)


@compiled
def learn_posterior(
    actions: NDArray[np.float32],
    logistic: bool,
    bias: bool,
    state: State,
    played: NDArray[np.int32],
    rewards: NDArray[np.float64],
    rows: NDArray[np.float32],
) -> None:
    """One update of a Gaussian posterior of the bilinear model."""
    size = played.shape[0]
    vectors = np.empty((size, actions.shape[1]), np.float32)
    for r in range(size):
        vectors[r] = actions[played[r]]
    learn_laplace(rows[:size], vectors, rewards, state.weights, state.square, state.bias, logistic, bias)
    state.counts[0] += 1


@compiled
def block_probabilities(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    amount: float,
    draws: NDArray[np.float64],
    rounds: NDArray[np.int64],
    result: NDArray[np.float64],
) -> None:
    """Add the mean over ``draws`` of the bandit's probabilities in some decisions to ``result`` `(b, S)`."""
    work = work_for(tape, bandit, state, rounds.shape[0])
    for draw in draws:
        begin_batch(bandit, state, amount, draw, work)
        if bandit.form == BILINEAR:
            project(tape, bandit, state, rounds, work)
        for r in range(rounds.shape[0]):
            count = probabilities(tape, bandit, state, amount, draw, rounds[r], r, work)
            for s in range(count):
                result[r, s] += work.p[s] / draws.shape[0]
