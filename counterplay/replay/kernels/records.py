"""What the kernels read and write: named tuples of arrays, so that compiled and interpreted code see the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BANDIT, TABLE = 0, 1
FIXED, POLYNOMIAL, EXPONENTIAL, LOG_BARRIER = 0, 1, 2, 3
NO_SMOOTHING, CLIP, MIX = 0, 1, 2
NO_BUDGET, HARD_STOP, LINEAR = 0, 1, 2


class Tape(NamedTuple):
    """A log as the kernels read it: n decisions, C contexts, K actions.

    order: `(n,)` int64, the decisions in the order of the replay.
    context: `(n,)` int32, the row of each decision's context.
    contexts: `(C, d)` float32. actions: `(K, m)` float32.
    candidates: `(n, S)` int32 padded with -1, or `(0, 0)`: every action is allowed.
    outcome_offsets `(C + 1,)` int64, outcome_actions int32, outcome_rewards float64, default_reward: the outcome table.
    action `(n,)` int32, propensity `(n,)` float64, reward `(n,)` float64: what was logged.
    """

    order: NDArray[np.int64]
    context: NDArray[np.int32]
    contexts: NDArray[np.float32]
    actions: NDArray[np.float32]
    candidates: NDArray[np.int32]
    outcome_offsets: NDArray[np.int64]
    outcome_actions: NDArray[np.int32]
    outcome_rewards: NDArray[np.float64]
    default_reward: float
    action: NDArray[np.int32]
    propensity: NDArray[np.float64]
    reward: NDArray[np.float64]


class Luck(NamedTuple):
    """`(n,)` float64 each: the draws of one seed, indexed by decision."""

    base: NDArray[np.float64]
    explore: NDArray[np.float64]
    action: NDArray[np.float64]
    accept: NDArray[np.float64]


class Bases(NamedTuple):
    """The M bases of an agent, the bandit (if there is one) first.

    kind: `(M,)` int64, BANDIT or TABLE. calls: `(M,)` bool, whether acting costs a call of a model.
    table: `(M, n, k)` int32 and weight: `(M, n, k)` float64: the actions of a base that does not learn, with their
    probabilities; -1 in the first place means uniform over what is allowed.
    """

    kind: NDArray[np.int64]
    calls: NDArray[np.bool_]
    table: NDArray[np.int32]
    weight: NDArray[np.float64]


class BanditSettings(NamedTuple):
    """How the bandit learns and explores; see ``agents.Bandit`` for the meaning of each."""

    explore: NDArray[np.int32]
    exploration: float
    exploration_delay: float
    learning_rate: float
    learning_delay: float
    logistic: bool
    bias: bool


class SelectorSettings(NamedTuple):
    """Who acts: see ``selectors`` for the meaning of each."""

    kind: int
    scale: float
    decay: float
    least: float
    most: float
    step: float
    loss_offset: float
    played_weight: bool
    smoothing: int
    smoothing_amount: float
    budget_rule: int
    budget: int


class State(NamedTuple):
    """What changes while an agent runs.

    weights, mean, square: `(d, m)` float32, the bilinear model and Adam's two moments.
    bias: `(3,)` float32, the intercept and its two moments.
    inverse: `(M,)` float64, 1/p of the log-barrier selector. counts: `(2,)` int64, batches learned and calls made.
    """

    weights: NDArray[np.float32]
    mean: NDArray[np.float32]
    square: NDArray[np.float32]
    bias: NDArray[np.float32]
    inverse: NDArray[np.float64]
    counts: NDArray[np.int64]


class Trace(NamedTuple):
    """What a replay leaves for each of its T rounds, in order.

    decision: `(T,)` int64, which decision of the log it was. action: `(T,)` int32. reward: `(T,)` float64.
    base: `(T,)` int8, who acted. p_bandit: `(T,)` float32, the probability with which base 0 was to act.
    """

    decision: NDArray[np.int64]
    action: NDArray[np.int32]
    reward: NDArray[np.float64]
    base: NDArray[np.int8]
    p_bandit: NDArray[np.float32]
