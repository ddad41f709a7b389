"""The bandit's model: logit(x, a) = x W z_a + b, learned by Adam on the chosen action's loss.

Chen, Zhang and Zhu (EMNLP 2024, appendix A.2) and Zhu, Foster, Langford and Mineiro (ICML 2022): W starts at zero,
the loss is taken on the played action only, its mean over a batch of 32 is one Adam step, the learning rate decays as
sqrt(t0 / (t0 + t)) and the exploration as (e0 / (e0 + t))^(1/3), t in batches.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled, compiled_sums
from counterplay.replay.kernels.records import BanditSettings, State, Tape

_MEAN_DECAY = np.float32(0.9)
_SQUARE_DECAY = np.float32(0.999)
_EPSILON = np.float32(1e-8)
_ONE = np.float32(1.0)


@compiled_sums
def dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> np.float32:
    total = np.float32(0.0)
    for j in range(left.shape[0]):
        total += left[j] * right[j]
    return total


@compiled
def allowed_count(tape: Tape, decision: int) -> int:
    """How many actions are allowed for a decision."""
    if tape.candidates.shape[1] == 0:
        return int(tape.actions.shape[0])
    count = 0
    for s in range(tape.candidates.shape[1]):
        if tape.candidates[decision, s] < 0:
            break
        count += 1
    return count


@compiled
def nth_allowed(tape: Tape, decision: int, place: int) -> int:
    return place if tape.candidates.shape[1] == 0 else int(tape.candidates[decision, place])


@compiled
def gather(tape: Tape, rounds: NDArray[np.int64], size: int, rows: NDArray[np.float32]) -> None:
    """Copy the context features of the decisions ``rounds[:size]`` into ``rows[:size]``."""
    for r in range(size):
        c = tape.context[rounds[r]]
        for j in range(rows.shape[1]):
            rows[r, j] = tape.contexts[c, j]


@compiled
def best_of_all(scores: NDArray[np.float32]) -> int:
    """The first of the highest scores: the lowest action wins a tie."""
    best, best_score = 0, scores[0]
    for a in range(1, scores.shape[0]):
        if scores[a] > best_score:
            best, best_score = a, scores[a]
    return best


@compiled
def best_candidate(tape: Tape, decision: int, projected: NDArray[np.float32]) -> int:
    """The candidate with the highest score; the lowest action wins a tie."""
    best = tape.candidates[decision, 0]
    best_score = dot(projected, tape.actions[best])
    for s in range(1, tape.candidates.shape[1]):
        a = tape.candidates[decision, s]
        if a < 0:
            break
        score = dot(projected, tape.actions[a])
        if score > best_score or (score == best_score and a < best):
            best, best_score = a, score
    return int(best)


@compiled
def exploration_rate(bandit: BanditSettings, batches: int) -> float:
    delay = bandit.exploration_delay
    return float(bandit.exploration * (delay / (delay + batches)) ** (1.0 / 3.0))


@compiled
def explored(tape: Tape, bandit: BanditSettings, decision: int, luck: float) -> int:
    """The action of one exploring step."""
    if bandit.explore.shape[0] > 0:
        return int(bandit.explore[int(luck * bandit.explore.shape[0])])
    return nth_allowed(tape, decision, int(luck * allowed_count(tape, decision)))


@compiled
def explored_probability(tape: Tape, bandit: BanditSettings, decision: int, action: int) -> float:
    """The probability that one exploring step plays ``action``."""
    if bandit.explore.shape[0] > 0:
        for e in range(bandit.explore.shape[0]):
            if bandit.explore[e] == action:
                return float(1.0 / bandit.explore.shape[0])
        return 0.0
    return 1.0 / allowed_count(tape, decision)


@compiled
def adam(
    values: NDArray[np.float32],
    mean: NDArray[np.float32],
    square: NDArray[np.float32],
    gradient: NDArray[np.float32],
    rate: float,
    steps: int,
) -> None:
    """One step of Adam (Kingma and Ba, 2015) on flat arrays, in place; ``steps`` counts this one."""
    step = np.float32(rate / (1.0 - 0.9**steps))
    correction = np.float32(1.0 / math.sqrt(1.0 - 0.999**steps))
    for j in range(values.shape[0]):
        g = gradient[j]
        first = _MEAN_DECAY * mean[j] + (_ONE - _MEAN_DECAY) * g
        second = _SQUARE_DECAY * square[j] + (_ONE - _SQUARE_DECAY) * g * g
        mean[j] = first
        square[j] = second
        values[j] -= step * first / (np.sqrt(second) * correction + _EPSILON)


@compiled
def learn(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    rows: NDArray[np.float32],
    projected: NDArray[np.float32],
    played: NDArray[np.int32],
    rewards: NDArray[np.float64],
    gradient: NDArray[np.float32],
) -> None:
    """One update from a batch: rows `(B, d)`, projected = rows @ W `(B, m)` (overwritten), played and rewards
    `(B,)`."""
    size = rows.shape[0]
    bias_gradient = np.zeros(1, np.float32)
    for r in range(size):
        features = tape.actions[played[r]]
        value = float(dot(projected[r], features) + state.bias[0])
        predicted = 1.0 / (1.0 + math.exp(-value)) if bandit.logistic else value
        slope = np.float32((predicted - rewards[r]) / size)
        bias_gradient[0] += slope
        for j in range(features.shape[0]):
            projected[r, j] = slope * features[j]
    np.dot(rows.T, projected, gradient)
    batches = state.counts[0]
    delay = bandit.learning_delay
    rate = bandit.learning_rate * math.sqrt(delay / (delay + batches))
    state.counts[0] = batches + 1
    adam(state.weights.ravel(), state.mean.ravel(), state.square.ravel(), gradient.ravel(), rate, batches + 1)
    if bandit.bias:
        adam(state.bias[0:1], state.bias[1:2], state.bias[2:3], bias_gradient, rate, batches + 1)
