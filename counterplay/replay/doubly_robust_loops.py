"""The loop of doubly robust replay, for built-in agents (compiled) and for any other, one decision at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels import doubly_robust as kernel
from counterplay.replay.kernels.doubly_robust import (
    Progress,
    add_acceptance,
    add_ratio,
    add_term,
    begin_replay,
    next_constant,
    replay_piece,
)
from counterplay.replay.kernels.records import Luck, Trace
from counterplay.replay.kernels.rejection import BLOCK
from counterplay.replay.kernels.work import work_for
from counterplay.replay.methods import Estimator
from counterplay.replay.players import Player
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.settings import Machine

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Pieces = Iterator[tuple[Rows, Floats]]
"""Some decisions at a time, in their order, with what a model predicts for their allowed actions (``predictions``)."""

ESTIMATORS: dict[str, int] = {
    "dr": kernel.DOUBLY_ROBUST,
    "ips": kernel.INVERSE_PROPENSITY,
    "snips": kernel.SELF_NORMALISED,
    "dm": kernel.DIRECT,
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How decisions are accepted and counted: ``first`` is the first c, ``most`` the greatest."""

    estimator: Estimator
    quantile: float
    first: float
    most: float
    batch: int


def _progress(rule: Rule, members: int, decisions: int, offset: float, clustered: bool) -> Progress:
    kept = decisions + 1 if rule.quantile > 0 else 0
    moments = np.zeros(10)
    moments[kernel.OFFSET] = offset
    return Progress(
        counts=np.zeros(7, np.int64),
        acceptance=np.array([rule.first, rule.first, np.inf, 0.0, 0.0]),
        moments=moments,
        terms=np.empty((decisions if clustered else 0, 2)),
        p=np.zeros(members),
        losses=np.zeros(members),
        below=np.zeros(int(kept * rule.quantile) + 2 if kept else 0),
        above=np.zeros(kept),
    )


def replay_compiled(engine: Machine, luck: Luck, rule: Rule, pieces: Pieces, trace: Trace, clustered: bool) -> Progress:
    """Replay a built-in agent until the decisions end or ``trace`` is full; fill ``trace``. ``clustered``: whether to
    keep the term of each decision."""
    tape, bandit, state = engine.tape, engine.bandit, engine.state
    offset = float(tape.reward[tape.order[0]])
    progress = _progress(rule, len(engine.bases.kind), len(tape.order), offset, clustered)
    work = work_for(tape, bandit, state, max(rule.batch, BLOCK))
    begin_replay(luck, bandit, engine.selector, state, progress, engine.learns, work)
    for rows, predicted in pieces:
        replay_piece(
            tape,
            luck,
            engine.bases,
            bandit,
            engine.selector,
            state,
            trace,
            progress,
            work,
            rows,
            predicted,
            ESTIMATORS[rule.estimator],
            rule.quantile,
            rule.most,
            rule.batch,
        )
        if progress.counts[kernel.ACCEPTED] == len(trace.reward):
            break
    return progress


def replay_one_by_one(
    player: Player,
    prepared: PreparedLog,
    seed: int,
    rule: Rule,
    pieces: Pieces,
    trace: Trace,
    clustered: bool,
) -> Progress:
    """The same for any player, in plain Python."""
    log, luck, progress = prepared.log, prepared.luck(seed), None
    for rows, predicted in pieces:
        progress = progress or _progress(rule, 1, len(log.context), float(log.reward[rows[0]]), clustered)
        for r, row in enumerate(rows.tolist()):
            t = int(progress.counts[kernel.ACCEPTED])
            if t == len(trace.reward):
                return progress
            law = player.law(row, luck.explore[row])
            action, reward, mu = int(log.action[row]), float(log.reward[row]), float(log.propensity[row])
            place = np.flatnonzero(allowed(log, np.array([row]))[0] == action)
            pi = float(law[place].sum())
            q_logged = q_target = 0.0
            if len(predicted):
                q_logged, q_target = float(predicted[r, place[0]]), float(law @ predicted[r, : len(law)])
            c = float(progress.acceptance[kernel.CONSTANT])
            add_term(progress, ESTIMATORS[rule.estimator], c, pi / mu, reward, q_logged, q_target)
            add_acceptance(progress, c * pi / mu)
            if pi > 0:
                add_ratio(progress, rule.quantile, mu / pi)
            if luck.accept[row] < c * pi / mu:
                base, share = player.learn(row, action, reward, luck.base[row])
                trace.decision[t], trace.action[t], trace.reward[t] = row, action, reward
                trace.base[t], trace.p_bandit[t] = base, share
                progress.counts[kernel.ACCEPTED] += 1
                next_constant(progress, rule.quantile, rule.most)
    assert progress is not None
    return progress
