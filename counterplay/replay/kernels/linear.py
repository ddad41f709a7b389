"""Ridge bandits on a log: what LinUCB and LinTS play, and how they learn."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.draws import key_of
from counterplay.replay.kernels.records import OPTIMISTIC, BanditSettings, State, Tape
from counterplay.replay.kernels.ridge import (
    best_optimistic,
    best_optimistic_shared,
    best_sampled,
    best_scored,
    is_optimistic,
    is_sampled,
    joint,
    learn_ridge,
    scores_ridge,
    scores_shared,
    width,
)
from counterplay.replay.kernels.work import Work, allowed_arms


@compiled
def fill_context(tape: Tape, decision: int, x: NDArray[np.float64]) -> None:
    contexts, row = tape.contexts, tape.context[decision]
    for j in range(x.shape[0]):
        x[j] = contexts[row, j]


@compiled
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


@compiled
def ridge_plays(
    tape: Tape, bandit: BanditSettings, state: State, amount: float, luck: float, decision: int, action: int, work: Work
) -> bool:
    """Whether a ridge bandit plays ``action``; often answered before every action has been looked at."""
    if bandit.shared:
        return play_ridge(tape, bandit, state, amount, luck, decision, work) == action
    arms = allowed_arms(tape.candidates, work.arms, decision)
    fill_context(tape, decision, work.x)
    if bandit.exploring == OPTIMISTIC:
        return is_optimistic(work.x, arms, action, state.theta, state.covariance, amount)
    return is_sampled(work.x, arms, action, state.theta, state.covariance, amount, key_of(luck))


@compiled
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


@compiled
def deviation(tape: Tape, bandit: BanditSettings, state: State, decision: int, action: int, work: Work) -> float:
    """The posterior's standard deviation of the mean reward of an action."""
    fill_context(tape, decision, work.x)
    if bandit.shared:
        joint(work.x, tape.actions[action], work.joined)
        return math.sqrt(width(work.joined, state.covariance[0]))
    return math.sqrt(width(work.x, state.covariance[action]))


@compiled
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
