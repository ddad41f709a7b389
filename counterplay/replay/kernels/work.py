"""Room for the loops of replay, made once a run: a block of decisions and what is computed of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled, inlined
from counterplay.replay.kernels.exploring import SpannerScratch, spanner_scratch
from counterplay.replay.kernels.records import GREEDY_MIX, RIDGE, THOMPSON, BanditSettings, State, Tape
from counterplay.replay.kernels.tiles import STEP, packed, padded


class Work(NamedTuple):
    """Room for a block of at most B decisions.

    rows `(B, d)`, projected `(B, m)`: of the bilinear model; drawn `(d, m)`: its draw from the posterior. tiles,
    picked, scores, top, first: of `best_actions`, which finds the best of all actions for the picked rows. x `(d,)`,
    joined and theta `(D,)`, ridge_values `(S,)`: of ridge models. arms `(K,)`: all actions. row_scores, values, p
    `(S,)`: scores, predicted rewards and probabilities of the allowed actions. gradient `(d, m)`, slopes `(B,)`,
    bias_gradient `(1,)`: of the loss. unsure, best `(B,)`: how unsure the bandit is, and what it expects of its best
    action, which is in greedy, as long as first. chance `(B,)`: the probability of the logged action.
    """

    rows: NDArray[np.float32]
    projected: NDArray[np.float32]
    drawn: NDArray[np.float32]
    tiles: NDArray[np.float32]
    picked: NDArray[np.float32]
    scores: NDArray[np.float32]
    top: NDArray[np.int32]
    first: NDArray[np.int64]
    x: NDArray[np.float64]
    joined: NDArray[np.float64]
    theta: NDArray[np.float64]
    arms: NDArray[np.int32]
    row_scores: NDArray[np.float32]
    values: NDArray[np.float32]
    ridge_values: NDArray[np.float64]
    p: NDArray[np.float64]
    spanner: SpannerScratch
    gradient: NDArray[np.float32]
    unsure: NDArray[np.float64]
    best: NDArray[np.float64]
    greedy: NDArray[np.int64]
    chance: NDArray[np.float64]
    slopes: NDArray[np.float32]
    bias_gradient: NDArray[np.float32]


class Shares(NamedTuple):
    """Room for who acts: the probabilities of the M bases before gate and budget, p `(M,)`, and what these leave of
    them in a block, kept `(b, M)`; what each base adds to the probability of the logged action, parts `(1, M)`; the
    losses of a batch `(M,)`."""

    p: NDArray[np.float64]
    kept: NDArray[np.float64]
    parts: NDArray[np.float64]
    losses: NDArray[np.float64]


@compiled
def shares_for(members: int, size: int) -> Shares:
    """Room for ``members`` bases and blocks of ``size`` decisions."""
    return Shares(np.empty(members), np.empty((size, members)), np.empty((1, members)), np.zeros(members))


@compiled
def work_for(tape: Tape, bandit: BanditSettings, state: State, size: int) -> Work:
    """Room for blocks of ``size`` decisions."""
    d, m, count = tape.contexts.shape[1], tape.actions.shape[1], tape.actions.shape[0]
    wide = tape.candidates.shape[1] == 0
    ridge, sampled = bandit.form == RIDGE, bandit.exploring == THOMPSON
    allowed = count if wide else tape.candidates.shape[1]
    models = state.covariance.shape[1]
    kept = 0 if ridge else 1
    tiles = packed(tape.actions, wide and not ridge and (sampled or bandit.exploring == GREEDY_MIX))
    return Work(
        np.empty((size * kept, d), np.float32),
        np.empty((size * kept, m), np.float32),
        np.empty((d, m) if sampled and not ridge else (0, 0), np.float32),
        tiles,
        np.zeros((padded(size), tiles.shape[1]), np.float32),
        np.empty((STEP, tiles.shape[2]), np.float32),
        np.empty(padded(size), np.int32),
        np.empty(padded(size), np.int64),
        np.empty(d if ridge else 0, np.float64),
        np.empty(models if bandit.shared else 0, np.float64),
        np.empty(models if bandit.shared and sampled else 0, np.float64),
        np.arange(count).astype(np.int32),
        np.empty(allowed, np.float32),
        np.empty(allowed, np.float32),
        np.empty(allowed if ridge else 0, np.float64),
        np.empty(allowed, np.float64),
        spanner_scratch(bandit.coefficients.shape[0], bandit.coefficients.shape[1]),
        np.empty(state.weights.shape, np.float32),
        np.zeros(size, np.float64),
        np.zeros(size, np.float64),
        np.zeros(padded(size), np.int64),
        np.zeros(size, np.float64),
        np.empty(size, np.float32),
        np.empty(1, np.float32),
    )


@inlined
def allowed_arms(candidates: NDArray[np.int32], arms: NDArray[np.int32], decision: int) -> NDArray[np.int32]:
    """The allowed actions of a decision, padded with -1."""
    allowed = arms
    if candidates.shape[1] > 0:
        allowed = candidates[decision]
    return allowed
