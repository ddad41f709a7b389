"""Replay from queues, for logs whose contexts repeat: queue-based, and per-state rejection sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from counterplay.errors import ConfigurationError, HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.logs.log import Log
from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.history import BATCH
from counterplay.replay.players import Player, player_of
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

FEWEST = 2.0
"""Decisions a state, on average, below which queues are refused."""


@dataclass(frozen=True, kw_only=True)
class QueueReplay:
    """Runs of one agent from the queues of one log. R runs; T: the rounds of the longest."""

    agent: str
    seed: int
    value: float
    """The mean reward over the first ``horizon`` rounds of all runs."""
    std_error: float
    """Of ``value`` over shuffles and draws of this one log: the log's own luck, which all runs share, is not in it."""
    horizon: int
    """The rounds that ``value`` is of: those asked for, or those that every run survived."""
    survival: Floats
    """`(T,)` the share of runs that played round t."""
    curve: Floats
    """`(T,)` the mean reward in round t of the runs that played it. Beyond the horizon of all runs it is biased: runs
    that met only what the log has plenty of last longer."""
    lengths: NDArray[np.int64]
    """`(R,)` how many rounds each run played."""
    states: int
    """Different contexts (with different candidates) in the log."""
    repeating: int
    """How many of them occur more than once."""
    unsupported: float
    """The mean probability that the agent gave to actions that were never logged in the context at hand."""


def replay_queues(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    runs: int = 100,
    seed: int = 0,
    horizon: int | None = None,
    batch: int = BATCH,
) -> QueueReplay:
    """Replay an agent with one queue of logged rewards for each context and action (Mandel, Liu, Brunskill and Popovic,
    AAAI 2016: the queue-based evaluator, here for decisions without states that follow each other).

    Contexts arrive by drawing decisions of the log with replacement. The agent's action takes the next reward from the
    queue of that context and action; where it is empty the run stops. No propensities are needed, and no reward is ever
    rejected.

    Unbiased: given the history and that the queue is not empty, a reward has its law given context and action. Not
    unbiased: means over runs that have stopped at different times, since a run stops the sooner the more often the
    agent does what the log seldom did. So ``value`` is over rounds that all runs survived, and ``survival`` says how
    far that is. Arrivals have the law of the contexts in the log, not of those beyond it.

    Runs in plain Python, one decision at a time, for built-in agents too.

    Args:
        prepared: a log with actions and rewards, in which contexts repeat; decisions of one context (and the same
            candidates) count as one state.
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent``.
        runs: R, at least 2; run i has the seed ``seed + i``.
        seed: of the order of the queues, the arrivals and the agent's draws.
        horizon: how many rounds; default: as many as every run survives.
        batch: rounds between two updates (built-in agents).

    Raises:
        MissingEvidenceError: an action or a reward is not known.
        UnsupportedError: nearly no context repeats.
        HorizonError: a run stopped before the horizon, or before its first round.
        ConfigurationError: a setting is out of its range.
    """
    return _replay_all(prepared, agent, _pop, runs, seed, horizon, batch)


def replay_per_state(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    runs: int = 100,
    seed: int = 0,
    horizon: int | None = None,
    batch: int = BATCH,
) -> QueueReplay:
    """Replay an agent by rejection sampling within each context (Mandel, Liu, Brunskill and Popovic, AAAI 2016: PSRS).

    Contexts arrive as in ``replay_queues``. The agent gives its whole law pi; logged decisions of the context are then
    taken in turn, each accepted with probability pi(a) / (M mu(a)), M the greatest such ratio, until one is; that one
    is what the agent did. Where they run out the run stops. The nearer the agent is to what logged, the fewer are lost.
    For M, mu(a) is the smallest propensity with which the context's decisions took a, and of an action never logged
    there the smallest of the whole log: too small a mu only rejects more.

    Unbiased: given the history and that the context's decisions do not run out, a reward has its law given context and
    action, and the action that of the agent where the log is uniform; elsewhere M depends a little on which actions a
    context happens to show, which vanishes with the number of its decisions. Not unbiased: means over runs that have
    stopped at different times; see ``replay_queues``.

    M belongs to a context, which is right only because an arriving context waits until one of its own decisions is
    accepted. To read a log from front to back with an M for each context would accept context x with probability
    1 / M(x) and so change the law of the contexts: there take one constant (``replay_rejection``,
    ``replay_doubly_robust``).

    Args, raises: as ``replay_queues``; the log's propensities must be known (MissingEvidenceError).
    """
    mu = prepared.log.propensity
    known = np.isfinite(mu) & (mu > 0)
    if not known.all():
        raise MissingEvidenceError(
            f"per-state rejection needs the propensity of every decision; log '{prepared.log.name}' lacks it in "
            f"{int((~known).sum()):,} of {len(known):,}. Take replay_queues, which needs none."
        )
    return _replay_all(prepared, agent, _reject, runs, seed, horizon, batch)


class _States:
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
Draw = Callable[[_States, Queue, int, Floats, Floats, float], int | None]
"""The logged decision that answers the agent's law in the state of a decision, or None: its queue is empty."""


def _pop(states: _States, queues: Queue, row: int, law: Floats, accept: Floats, luck: float) -> int | None:
    del accept
    place = min(int(np.searchsorted(np.cumsum(law), luck, side="right")), int(np.flatnonzero(law)[-1]))
    waiting = queues.get((int(states.of[row]), int(_columns(states.log, row)[place])))
    return waiting.pop() if waiting else None


def _reject(states: _States, queues: Queue, row: int, law: Floats, accept: Floats, luck: float) -> int | None:
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


def _replay_all(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    draw: Draw,
    runs: int,
    seed: int,
    horizon: int | None,
    batch: int,
) -> QueueReplay:
    if runs < 2 or batch < 1 or (horizon is not None and horizon < 1):
        raise ConfigurationError(f"runs is {runs}, batch {batch}, horizon {horizon}; they must be at least 2, 1 and 1.")
    states = _States(prepared.log)
    rewards, unsupported = [], 0.0
    with threadpool_limits(1, user_api="blas"):
        for run in range(seed, seed + runs):
            player = player_of(prepared, agent, run, prepared.order(run, True), batch)
            earned, lacking = _run(prepared, states, player, draw, run, horizon)
            rewards.append(earned)
            unsupported += lacking
    lengths = np.array([len(earned) for earned in rewards], np.int64)
    rounds = int(lengths.min()) if horizon is None else horizon
    _survived(prepared.log.name, agent.name, lengths, rounds)
    means = np.array([np.mean(earned[:rounds]) for earned in rewards])
    longest = range(int(lengths.max()))
    at = [[earned[t] for earned in rewards if t < len(earned)] for t in longest]
    return QueueReplay(
        agent=agent.name,
        seed=seed,
        value=float(means.mean()),
        std_error=float(means.std(ddof=1) / np.sqrt(runs)),
        horizon=rounds,
        survival=np.array([len(alive) / runs for alive in at]),
        curve=np.array([np.mean(alive) for alive in at]),
        lengths=lengths,
        states=states.count,
        repeating=states.repeating,
        unsupported=unsupported / runs,
    )


def _run(
    prepared: PreparedLog, states: _States, player: Player, draw: Draw, seed: int, horizon: int | None
) -> tuple[list[float], float]:
    """The rewards of one run, and the mean probability of actions that the state at hand has never seen."""
    log, luck = prepared.log, prepared.luck(seed)
    queues: Queue = {}
    for row in prepared.order(seed, True)[::-1].tolist():
        action = -1 if draw is _reject else int(log.action[row])
        queues.setdefault((int(states.of[row]), action), []).append(row)
    count = len(log.context)
    arrivals = np.random.Generator(np.random.Philox(key=np.array([seed, 1 << 48], np.uint64))).integers(0, count, count)
    rewards: list[float] = []
    unsupported = 0.0
    for t, row in enumerate(arrivals.tolist()):
        if len(rewards) == horizon:
            break
        law = player.law(row, luck.explore[t])
        unsupported += float(law[np.isnan(states.shares(row))].sum())
        item = draw(states, queues, row, law, luck.accept, luck.action[t])
        if item is None:
            return rewards, unsupported / (t + 1)
        reward = float(log.reward[item])
        player.learn(row, int(log.action[item]), reward, luck.base[t])
        rewards.append(reward)
    return rewards, unsupported / max(1, len(rewards))


def _survived(log: str, agent: str, lengths: NDArray[np.int64], horizon: int) -> None:
    alive = int((lengths >= horizon).sum())
    if horizon < 1 or alive < len(lengths):
        raise HorizonError(
            f"'{agent}' came to an empty queue of log '{log}' before round {max(1, horizon):,} in "
            f"{int((lengths < max(1, horizon)).sum()):,} of {len(lengths):,} runs (median length "
            f"{float(np.median(lengths)):,.0f}): take a shorter horizon, or a log with more decisions a context."
        )
