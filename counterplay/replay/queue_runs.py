"""One run of an agent from queues of logged rewards, one for each context, or for each context and action."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import MissingEvidenceError, UnsupportedError
from counterplay.logs.log import Log
from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.history import BATCH, Replay, empty_trace
from counterplay.replay.kernels.records import Trace
from counterplay.replay.one_thread import one_thread
from counterplay.replay.players import Player, player_of
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog

Floats = NDArray[np.float64]

FEWEST = 2.0
"""Decisions a state, on average, below which queues are refused."""


@dataclass(frozen=True, kw_only=True)
class QueueRun:
    """One run from the queues of a log, which ends at an empty queue or at the horizon."""

    replay: Replay
    """Its decisions are those whose rewards were taken."""
    unsupported: float
    """As in ``QueueReplay``, over this run."""


def queue_run(
    states: States,
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    per_state: bool = False,
    seed: int = 0,
    horizon: int | None = None,
    batch: int = BATCH,
) -> QueueRun:
    """One run of ``replay_queues`` or, ``per_state``, of ``replay_per_state``.

    Args:
        states: ``states_of(prepared.log, per_state)``, which all runs share.
        seed: of the order of the queues, the arrivals and the agent's draws.
        prepared, agent, horizon, batch: as there. A run that ends before the horizon is no error here.
    """
    order = prepared.order(seed, True)
    player = player_of(prepared, agent, seed, order[:horizon], batch)
    with one_thread():
        trace, unsupported = _run(prepared, states, player, _reject if per_state else _pop, seed, horizon)
    replay = Replay(
        agent=agent.name,
        seed=seed,
        **{**trace._asdict(), "alone": None},
        call=player.calls[trace.base],
        acceptance=None,
        prior_calls=player.prior_calls,
        state=player.state,
    )
    return QueueRun(replay=replay, unsupported=unsupported)


def states_of(log: Log, per_state: bool) -> States:
    """The states of a log: its different contexts, with their candidates.

    Raises:
        MissingEvidenceError: an action or a reward is not known, or, ``per_state``, a propensity.
        UnsupportedError: nearly no context repeats.
    """
    known = np.isfinite(log.propensity) & (log.propensity > 0)
    if per_state and not known.all():
        raise MissingEvidenceError(
            f"per-state rejection needs the propensity of every decision; log '{log.name}' lacks it in "
            f"{int((~known).sum()):,} of {len(known):,}. Take replay_queues, which needs none."
        )
    return States(log)


class States:
    """The states of a log: which decisions belong to each, and the propensity of each action in each."""

    def __init__(self, log: Log) -> None:
        known = (log.action >= 0) & np.isfinite(log.reward)
        if not known.all() or len(known) == 0:
            raise MissingEvidenceError(
                f"queues need action and reward of every decision; log '{log.name}' lacks them in "
                f"{int((~known).sum()):,} of {len(known):,} (regime '{log.regime}')."
            )
        keys = log.context[:, None] if log.candidates is None else np.column_stack([log.context, log.candidates])
        _, self.of, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        self.of = self.of.reshape(-1)
        self.count, self.repeating = len(counts), int((counts > 1).sum())
        if len(known) < FEWEST * self.count:
            raise UnsupportedError(
                f"queues need contexts that repeat; in log '{log.name}' {self.repeating:,} of {self.count:,} contexts "
                f"occur more than once, {len(known) / self.count:.2f} times on average, so that every run would stop "
                "at once. Take replay_rejection or replay_doubly_robust."
            )
        self.log = log
        self.least: dict[tuple[int, int], float] = {}
        for state, action, mu in zip(self.of.tolist(), log.action.tolist(), log.propensity.tolist(), strict=True):
            # Queues alone need no propensities: 0 stands for one that is not known.
            self.least[state, action] = min(mu if mu > 0 else 0.0, self.least.get((state, action), np.inf))
        self.smallest = float(log.propensity.min())

    def shares(self, row: int) -> Floats:
        """mu of each allowed action in the state of decision ``row``; NaN where it was never logged there."""
        state = int(self.of[row])
        return np.array([self.least.get((state, a), np.nan) for a in _columns(self.log, row).tolist()])


def _columns(log: Log, row: int) -> NDArray[np.int32]:
    columns: NDArray[np.int32] = allowed(log, np.array([row]))[0]
    return columns[columns >= 0]


Queue = dict[tuple[int, int], list[int]]
Draw = Callable[[States, Queue, int, Floats, Floats, float], int | None]
"""The logged decision that answers the agent's law in the state of a decision, or None: its queue is empty."""


def _pop(states: States, queues: Queue, row: int, law: Floats, accept: Floats, luck: float) -> int | None:
    del accept
    place = min(int(np.searchsorted(np.cumsum(law), luck, side="right")), int(np.flatnonzero(law)[-1]))
    waiting = queues.get((int(states.of[row]), int(_columns(states.log, row)[place])))
    return waiting.pop() if waiting else None


def _reject(states: States, queues: Queue, row: int, law: Floats, accept: Floats, luck: float) -> int | None:
    del luck
    columns, mu = _columns(states.log, row).tolist(), states.shares(row)
    most = float((law / np.where(np.isnan(mu), states.smallest, mu)).max())
    waiting = queues[int(states.of[row]), -1]
    while waiting:
        item = waiting.pop()
        action = int(states.log.action[item])
        pi = law[columns.index(action)] if action in columns else 0.0
        if accept[item] < pi / (most * states.log.propensity[item]):
            return item
    return None


def _run(
    prepared: PreparedLog, states: States, player: Player, draw: Draw, seed: int, horizon: int | None
) -> tuple[Trace, float]:
    """The rounds of one run, and the mean probability of actions that the state at hand has never seen."""
    log, luck = prepared.log, prepared.luck(seed)
    queues: Queue = {}
    for row in prepared.order(seed, True)[::-1].tolist():
        action = -1 if draw is _reject else int(log.action[row])
        queues.setdefault((int(states.of[row]), action), []).append(row)
    count = len(log.context)
    arrivals = np.random.Generator(np.random.Philox(key=np.array([seed, 1 << 48], np.uint64))).integers(0, count, count)
    trace, played, met, unsupported = empty_trace(count if horizon is None else min(horizon, count), False), 0, 0, 0.0
    for row in arrivals[: len(trace.reward)].tolist():
        law = player.law(row, luck.explore[played])
        unsupported += float(law[np.isnan(states.shares(row))].sum())
        met += 1
        item = draw(states, queues, row, law, luck.accept, luck.action[played])
        if item is None:
            break
        reward, action = float(log.reward[item]), int(log.action[item])
        trace.base[played], trace.p_bandit[played] = player.learn(row, action, reward, luck.base[played])
        trace.decision[played], trace.action[played], trace.reward[played] = item, action, reward
        played += 1
    columns = {name: column[:played] for name, column in trace._asdict().items()}
    return Trace(**columns), unsupported / max(1, met)
