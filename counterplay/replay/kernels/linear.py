"""Ridge bandits on a log: what LinUCB and LinTS play, and how they learn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.bilinear import allowed_count
from counterplay.replay.kernels.compiled import borrowing, inlined
from counterplay.replay.kernels.draws import key_of
from counterplay.replay.kernels.records import OPTIMISTIC, BanditSettings, State, Tape
from counterplay.replay.kernels.ridge import (
    best_optimistic,
    best_optimistic_shared,
    best_sampled,
    best_scored,
    is_sampled,
    joint,
    learn_ridge,
    mean_of,
    scores_ridge,
    scores_shared,
    width,
    width_of,
)
from counterplay.replay.kernels.work import Work, allowed_arms


@borrowing
def fill_row(contexts: NDArray[np.float32], row: int, x: NDArray[np.float64]) -> None:
    """Copy a row of context features into ``x``."""
    for j in range(x.shape[0]):
        x[j] = contexts[row, j]


@inlined
def fill_context(tape: Tape, decision: int, x: NDArray[np.float64]) -> None:
    """Copy the features of a decision's context into ``x``."""
    fill_row(tape.contexts, tape.context[decision], x)


@borrowing
def play_ridge(
    tape: Tape, bandit: BanditSettings, state: State, amount: float, luck: float, decision: int, work: Work
) -> int:
    """What a ridge bandit plays; ``luck`` is its draw for this decision."""
    arms = allowed_arms(tape.candidates, work.arms, decision)
    fill_context(tape, decision, work.x)
    if bandit.shared:
        if bandit.exploring == OPTIMISTIC:
            best = best_optimistic_shared(work.x, tape.actions, arms, state.theta[0], state.covariance[0], amount)
        else:
            scores_shared(work.x, tape.actions, arms, work.theta, work.ridge_values)
            best = best_scored(arms, work.ridge_values)
    elif bandit.exploring == OPTIMISTIC:
        best = best_optimistic(work.x, arms, state.theta, state.covariance, amount)
    else:
        best = best_sampled(work.x, arms, state.theta, state.covariance, amount, key_of(luck))
    return int(best)


@borrowing
def logged_plays(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    amount: float,
    draws: NDArray[np.float64],
    rounds: NDArray[np.int64],
    work: Work,
) -> int:
    """Whether a ridge bandit plays what was logged, 1 or 0, into ``work.chance``, up to the first decision of
    ``rounds`` in which it does: that one may be accepted and learned from. How many these are.

    ``draws`` `(n,)`: the bandit's luck in each decision.
    """
    contexts, context, candidates, logged = tape.contexts, tape.context, tape.candidates, tape.action
    theta, covariance, x, chance = state.theta, state.covariance, work.x, work.chance
    if not bandit.shared and bandit.exploring == OPTIMISTIC:
        return optimistic_plays(
            contexts, context, candidates, rounds, logged, theta, covariance, amount, x, work.ridge_values, chance
        )
    for r in range(rounds.shape[0]):
        decision = rounds[r]
        action = logged[decision]
        if bandit.shared:
            plays = play_ridge(tape, bandit, state, amount, draws[decision], decision, work) == action
        else:
            fill_row(contexts, context[decision], x)
            arms = allowed_arms(candidates, work.arms, decision)
            plays = is_sampled(x, arms, action, theta, covariance, amount, key_of(draws[decision]))
        chance[r] = 1.0 if plays else 0.0
        if plays:
            return r + 1
    return int(rounds.shape[0])


@borrowing
def optimistic_plays(
    contexts: NDArray[np.float32],
    context: NDArray[np.int32],
    candidates: NDArray[np.int32],
    rounds: NDArray[np.int64],
    logged: NDArray[np.int32],
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    amount: float,
    x: NDArray[np.float64],
    means: NDArray[np.float64],
    chance: NDArray[np.float64],
) -> int:
    """`logged_plays` of disjoint models that explore by optimism.

    Most losers lose to a mean already, which is D times cheaper than a width.
    """
    wide, scored, beaten = candidates.shape[1] == 0, 0, True
    while scored < rounds.shape[0] and beaten:
        decision = rounds[scored]
        action = logged[decision]
        fill_row(contexts, context[decision], x)
        count = allowed_count(candidates, theta.shape[0], decision)
        own, top = -math.inf, -math.inf
        for s in range(count):
            a = s if wide else candidates[decision, s]
            mean = mean_of(x, theta, a)
            means[s], top = mean, max(top, mean)
            own = mean if a == action else own
        score = own + amount * math.sqrt(width_of(x, covariance, action))
        beaten, s = top > score, 0
        while s < count and not beaten:
            a = s if wide else candidates[decision, s]
            if a != action:
                other = means[s] + amount * math.sqrt(width_of(x, covariance, a))
                beaten = other > score or (other == score and a < action)
            s += 1
        chance[scored] = 0.0 if beaten else 1.0
        scored += 1
    return scored


@borrowing
def predict_linear(tape: Tape, bandit: BanditSettings, state: State, decision: int, count: int, work: Work) -> None:
    """The predicted rewards of the ``count`` allowed actions of a decision, into ``work.values``."""
    arms = allowed_arms(tape.candidates, work.arms, decision)
    fill_context(tape, decision, work.x)
    if bandit.shared:
        scores_shared(work.x, tape.actions, arms, state.theta[0], work.ridge_values)
    else:
        scores_ridge(work.x, arms, state.theta, work.ridge_values)
    for s in range(count):
        work.values[s] = np.float32(work.ridge_values[s])


@borrowing
def deviation(tape: Tape, bandit: BanditSettings, state: State, decision: int, action: int, work: Work) -> float:
    """The posterior's standard deviation of the mean reward of an action."""
    fill_context(tape, decision, work.x)
    if bandit.shared:
        joint(work.x, tape.actions[action], work.joined)
        return math.sqrt(width(work.joined, state.covariance[0]))
    return math.sqrt(width(work.x, state.covariance[action]))


@borrowing
def learn_linear(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    rounds: NDArray[np.int64],
    played: NDArray[np.int32],
    rewards: NDArray[np.float64],
    work: Work,
) -> None:
    """One update from a batch."""
    for r in range(rounds.shape[0]):
        fill_context(tape, rounds[r], work.x)
        if bandit.shared:
            joint(work.x, tape.actions[played[r]], work.joined)
            learn_ridge(work.joined, rewards[r], state.covariance[0], state.response[0], state.theta[0])
        else:
            a = played[r]
            learn_ridge(work.x, rewards[r], state.covariance[a], state.response[a], state.theta[a])
    state.counts[0] += 1
