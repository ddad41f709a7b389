"""Replay from queues, for logs whose contexts repeat: queue-based, and per-state rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, HorizonError
from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.history import BATCH
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.queue_runs import queue_run, states_of

Floats = NDArray[np.float64]


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
    return _replay_all(prepared, agent, False, runs, seed, horizon, batch)


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
    return _replay_all(prepared, agent, True, runs, seed, horizon, batch)


def _replay_all(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    per_state: bool,
    runs: int,
    seed: int,
    horizon: int | None,
    batch: int,
) -> QueueReplay:
    if runs < 2 or batch < 1 or (horizon is not None and horizon < 1):
        raise ConfigurationError(f"runs is {runs}, batch {batch}, horizon {horizon}; they must be at least 2, 1 and 1.")
    states = states_of(prepared.log, per_state)
    rewards, unsupported = [], 0.0
    for run in range(seed, seed + runs):
        found = queue_run(states, prepared, agent, per_state=per_state, seed=run, horizon=horizon, batch=batch)
        rewards.append(found.replay.reward)
        unsupported += found.unsupported
    lengths = np.array([len(earned) for earned in rewards], np.int64)
    rounds = int(lengths.min()) if horizon is None else horizon
    _survived(prepared.log.name, agent.name, lengths, rounds)
    means = np.array([earned[:rounds].mean() for earned in rewards])
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


def _survived(log: str, agent: str, lengths: NDArray[np.int64], horizon: int) -> None:
    alive = int((lengths >= horizon).sum())
    if horizon < 1 or alive < len(lengths):
        raise HorizonError(
            f"'{agent}' came to an empty queue of log '{log}' before round {max(1, horizon):,} in "
            f"{int((lengths < max(1, horizon)).sum()):,} of {len(lengths):,} runs (median length "
            f"{float(np.median(lengths)):,.0f}): take a shorter horizon, or a log with more decisions a context."
        )
