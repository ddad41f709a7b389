"""The bilinear model: logit(x, a) = x W z_a + b, learned by gradients of the chosen action's loss.

Chen, Zhang and Zhu (EMNLP 2024, appendix A.2) and Zhu, Foster, Langford and Mineiro (ICML 2022): W starts at zero,
the loss is taken on the played action only, its mean over a batch of 32 is one Adam step, the learning rate decays as
sqrt(t0 / (t0 + t)) and the exploration as (e0 / (e0 + t))^(1/3), t in batches.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import borrowing, compiled, compiled_sums, inlined
from counterplay.replay.kernels.records import ADAGRAD, ADAM, BanditSettings, State, Tape
from counterplay.replay.kernels.work import Work

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
def multiply(left: NDArray[np.float32], right: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write the product of two matrices, or of a matrix and a vector, into ``out``."""
    np.dot(left, right, out)  # gives its result back too, which a kernel that borrows must not


# The inlined functions take arrays, not records: handing a record on would count a reference to each of its arrays.
@inlined
def allowed_count(candidates: NDArray[np.int32], actions: int, decision: int) -> int:
    """How many of all ``actions`` are allowed for a decision."""
    count = actions
    if candidates.shape[1] > 0:
        count = 0
        for s in range(candidates.shape[1]):
            if candidates[decision, s] < 0:
                break
            count += 1
    return count


@inlined
def nth_allowed(candidates: NDArray[np.int32], actions: int, decision: int, luck: float) -> int:
    """The allowed action at the place ``luck`` in [0, 1)."""
    place = int(luck * allowed_count(candidates, actions, decision))
    action = place if candidates.shape[1] == 0 else candidates[decision, place]
    return int(action)


@borrowing
def gather(tape: Tape, rounds: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
    """Copy the context features of the decisions ``rounds`` into the first ``rows``."""
    context, contexts = tape.context, tape.contexts
    for r in range(rounds.shape[0]):
        c = context[rounds[r]]
        for j in range(rows.shape[1]):
            rows[r, j] = contexts[c, j]


@borrowing
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


@borrowing
def exploration_rate(bandit: BanditSettings, batches: int) -> float:
    """How much the bandit explores after so many batches."""
    return float(bandit.amount * (bandit.delay / (bandit.delay + batches)) ** bandit.power)


@inlined
def explored(
    candidates: NDArray[np.int32], actions: int, explore: NDArray[np.int32], decision: int, luck: float
) -> int:
    """The action of one exploring step: one of ``explore``, or where that is empty any that is allowed."""
    if explore.shape[0] > 0:
        action = explore[int(luck * explore.shape[0])]
    else:
        action = nth_allowed(candidates, actions, decision, luck)
    return int(action)


@inlined
def explored_probability(
    candidates: NDArray[np.int32], actions: int, explore: NDArray[np.int32], decision: int, action: int
) -> float:
    """The probability that one exploring step plays ``action``."""
    probability = 0.0
    if explore.shape[0] > 0:
        for e in range(explore.shape[0]):
            if explore[e] == action:
                probability = 1.0 / explore.shape[0]
    else:
        probability = 1.0 / allowed_count(candidates, actions, decision)
    return probability


@borrowing
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


@borrowing
def adagrad(
    values: NDArray[np.float32], square: NDArray[np.float32], gradient: NDArray[np.float32], rate: float
) -> None:
    """One step of AdaGrad (Duchi, Hazan and Singer, 2011) on flat arrays, in place."""
    step = np.float32(rate)
    for j in range(values.shape[0]):
        g = gradient[j]
        square[j] += g * g
        values[j] -= step * g / (np.sqrt(square[j]) + _EPSILON)


@borrowing
def descend(values: NDArray[np.float32], gradient: NDArray[np.float32], rate: float) -> None:
    """One step down the gradient on flat arrays, in place."""
    step = np.float32(rate)
    for j in range(values.shape[0]):
        values[j] -= step * gradient[j]


@borrowing
def step(
    learner: int,
    values: NDArray[np.float32],
    mean: NDArray[np.float32],
    square: NDArray[np.float32],
    gradient: NDArray[np.float32],
    rate: float,
    steps: int,
) -> None:
    """One step of a learner on flat arrays, in place; ``steps`` counts this one."""
    if learner == ADAM:
        adam(values, mean, square, gradient, rate, steps)
    elif learner == ADAGRAD:
        adagrad(values, square, gradient, rate)
    else:
        descend(values, gradient, rate)


@compiled
def step_all(
    learner: int,
    values: NDArray[np.float32],
    mean: NDArray[np.float32],
    square: NDArray[np.float32],
    gradient: NDArray[np.float32],
    rate: float,
    steps: int,
) -> None:
    """`step` on matrices."""
    step(learner, values.ravel(), mean.ravel(), square.ravel(), gradient.ravel(), rate, steps)


@compiled_sums
def chosen_values(
    projected: NDArray[np.float32],
    actions: NDArray[np.float32],
    played: NDArray[np.int32],
    bias: np.float32,
    values: NDArray[np.float32],
) -> None:
    """Write x W z_a + b of the played actions into ``values`` `(B,)`."""
    for r in range(values.shape[0]):
        total = np.float32(0.0)
        for j in range(projected.shape[1]):
            total += projected[r, j] * actions[played[r], j]
        values[r] = total + bias


@borrowing
def learn(
    tape: Tape,
    bandit: BanditSettings,
    state: State,
    played: NDArray[np.int32],
    rewards: NDArray[np.float64],
    work: Work,
) -> None:
    """One update from a batch, whose rows `(B, d)` and projected = rows @ W `(B, m)` are in ``work``; the latter is
    overwritten. played and rewards `(B,)`."""
    size = played.shape[0]
    rows, projected, values = work.rows[:size], work.projected[:size], work.slopes[:size]
    actions, bias_gradient, b = tape.actions, work.bias_gradient, state.bias
    chosen_values(projected, actions, played, b[0], values)
    bias_gradient[0] = 0.0
    for r in range(size):
        value = float(values[r])
        predicted = 1.0 / (1.0 + math.exp(-value)) if bandit.logistic else value
        slope = np.float32((predicted - rewards[r]) / size)
        bias_gradient[0] += slope
        for j in range(actions.shape[1]):
            projected[r, j] = slope * actions[played[r], j]
    multiply(rows.T, projected, work.gradient)
    batches = state.counts[0]
    delay = bandit.learning_delay
    rate = bandit.learning_rate * (delay / (delay + batches)) ** bandit.learning_power
    step_all(bandit.learner, state.weights, state.mean, state.square, work.gradient, rate, batches + 1)
    if bandit.bias:
        step(bandit.learner, b[0:1], b[1:2], b[2:3], bias_gradient, rate, batches + 1)
    state.counts[0] = batches + 1
