"""What the kernels read and write: named tuples of arrays, so that compiled and interpreted code see the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BANDIT, TABLE = 0, 1
BILINEAR, RIDGE = 0, 1
SGD, ADAGRAD, ADAM, LAPLACE = 0, 1, 2, 3
GREEDY_MIX, SOFTMAX, INVERSE_GAP, SPANNER_INVERSE_GAP, OPTIMISTIC, THOMPSON = 0, 1, 2, 3, 4, 5
FIXED, POLYNOMIAL, EXPONENTIAL, LINEAR_DECAY, LOG_BARRIER, EXP3, TSALLIS, UNSURE, PRICED, GUARDED = range(10)
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
    """How the bandit learns and explores; see ``agents`` for the meaning of each.

    form: BILINEAR or RIDGE. learner: of a bilinear model, SGD to LAPLACE. exploring: GREEDY_MIX to THOMPSON.
    amount, delay, power: in batch t (from 0) exploration is ``amount (delay / (delay + t))^power``.
    explore: `(D,)` int32, the actions of an exploring step or of the spanner; empty: all that are allowed.
    coefficients: `(D, K)` float32, each action as a combination of those in ``explore`` (SPANNER_INVERSE_GAP only).
    shared: of a ridge model, whether one model serves all actions, on the products of context and action features.
    """

    form: int
    learner: int
    exploring: int
    amount: float
    delay: float
    power: float
    learning_rate: float
    learning_delay: float
    learning_power: float
    logistic: bool
    bias: bool
    shared: bool
    explore: NDArray[np.int32]
    coefficients: NDArray[np.float32]


class SelectorSettings(NamedTuple):
    """Who acts: see ``selectors`` for the meaning of each.

    kind: FIXED to GUARDED. threshold: of UNSURE; price: of PRICED; allowance: of GUARDED.
    budget_rule, budget: in calls; money: in units of ``prices`` `(M,)`, what a call of each base costs; inf: no limit.
    batches: how many there are in all (LINEAR_DECAY).
    """

    kind: int
    scale: float
    decay: float
    least: float
    most: float
    batches: int
    step: float
    loss_offset: float
    played_weight: bool
    threshold: float
    price: float
    allowance: float
    smoothing: int
    smoothing_amount: float
    budget_rule: int
    budget: int
    money: float
    prices: NDArray[np.float64]


class State(NamedTuple):
    """What changes while an agent runs.

    weights, mean, square: `(d, m)` float32, the bilinear model and its learner's two moments (Laplace: ``square`` is
    the precision). bias: `(3,)` float32, the intercept and its two moments.
    covariance `(G, D, D)`, response and theta `(G, D)` float64: the ridge models, one an action or one for all.
    inverse: `(M,)` float64, 1/p of the log-barrier selector. losses: `(M,)` float64, estimated losses added up (EXP3,
    Tsallis). counts: `(2,)` int64, batches learned and calls made.
    ledger: `(4,)` float64, money spent, rounds and rewards of models, and their shortfall against the highest reward.
    """

    weights: NDArray[np.float32]
    mean: NDArray[np.float32]
    square: NDArray[np.float32]
    bias: NDArray[np.float32]
    covariance: NDArray[np.float64]
    response: NDArray[np.float64]
    theta: NDArray[np.float64]
    inverse: NDArray[np.float64]
    losses: NDArray[np.float64]
    counts: NDArray[np.int64]
    ledger: NDArray[np.float64]


class Trace(NamedTuple):
    """What a replay leaves for each of its T rounds, in order.

    decision: `(T,)` int64, which decision of the log it was. action: `(T,)` int32. reward: `(T,)` float64.
    base: `(T,)` int8, who acted. p_bandit: `(T,)` float32, the probability with which base 0 was to act.
    alone: `(T,)` float64, what the bandit would have earned in this round, or `(0,)` where nobody asks.
    """

    decision: NDArray[np.int64]
    action: NDArray[np.int32]
    reward: NDArray[np.float64]
    base: NDArray[np.int8]
    p_bandit: NDArray[np.float32]
    alone: NDArray[np.float64]
