"""One agent, one seed, one log: exact replay and rejection replay."""

from __future__ import annotations

import numpy as np

from counterplay.errors import HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.replay import plain
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.agents import BuiltIn
from counterplay.replay.history import (
    BATCH,
    Order,
    Replay,
    check_reached,
    empty_trace,
    expected_rounds,
    plain_replay_of,
    replay_of,
)
from counterplay.replay.kernels.exact import replay_exactly
from counterplay.replay.kernels.rejection import replay_by_rejection
from counterplay.replay.one_thread import one_thread
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.settings import machine


def replay_exact(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    seed: int = 0,
    horizon: int | None = None,
    order: Order = "shuffled",
    batch: int = BATCH,
    alone: bool = False,
) -> Replay:
    """Run an agent on a log that knows the reward of every action: what it plays is what it would have earned.

    Args:
        prepared: a log with an outcome table.
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent``.
        seed: of the order and of the agent's own draws.
        horizon: stop after so many rounds; default: the whole log.
        order: ``shuffled`` by the seed (for logs whose decisions are exchangeable) or as ``logged``.
        batch: decisions between two updates.
        alone: also find what the bandit's own choices would have earned in every round (built-in agents that learn):
            of a hybrid, its bandit as if it acted alone; with a selector that always lets the models act, a bandit
            that learns from the models' decisions only (Chen et al., EMNLP 2024, figure 4).

    Raises:
        MissingEvidenceError: the log has no outcome table, or it does not know an outcome that the agent needs.
        HorizonError: the log is shorter than the horizon.
    """
    count = len(prepared.log.context)
    if prepared.log.outcomes is None:
        raise MissingEvidenceError(
            f"exact replay needs the reward of every action; log '{prepared.log.name}' is of the regime "
            f"'{prepared.log.regime}'. Take rejection replay where propensities are known."
        )
    if horizon is not None and horizon > count:
        raise HorizonError(f"the horizon is {horizon:,}, but log '{prepared.log.name}' has {count:,} decisions.")
    rounds = prepared.order(seed, order == "shuffled")[: horizon or count]
    if not isinstance(agent, BuiltIn):
        return plain_replay_of(agent, seed, plain.exact(prepared, agent, seed, rounds), None)
    engine = machine(prepared, agent, rounds, batch)
    trace = empty_trace(len(rounds), alone and engine.learns)
    with one_thread():
        unknown = replay_exactly(
            engine.tape, prepared.luck(seed), engine.bases, engine.bandit, engine.selector, engine.state, trace, batch
        )
    if unknown:
        raise MissingEvidenceError(
            f"the outcome table of log '{prepared.log.name}' does not know what '{agent.name}' would have earned in "
            f"{unknown} decisions of one batch; exact replay needs every outcome."
        )
    return replay_of(agent, seed, engine, trace, len(rounds), None)


def replay_rejection(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    seed: int = 0,
    constant: float | None = None,
    horizon: int | None = None,
    order: Order = "shuffled",
    batch: int = BATCH,
) -> Replay:
    """Run an agent on a log that knows one action a decision and its propensity, by rejection sampling.

    Args:
        prepared: a log with propensities.
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent``.
        seed: of the order, of the acceptance and of who acted.
        constant: c, the same for the whole run. Default: the smallest propensity of the log, which no policy can
        violate.
        horizon: stop after so many accepted rounds; default: when the log ends. The number accepted is then random, and
            averages of agents with different numbers are not comparable; selectors that have to know it are told c n.
        order: ``shuffled`` by the seed or as ``logged``.
        batch: accepted decisions between two updates.

    Raises:
        MissingEvidenceError: the log has no propensities.
        HorizonError: the log was at its end before the horizon; the message says how long it would have to be.
    """
    log = prepared.log
    known = np.isfinite(log.propensity) & (log.action >= 0) & np.isfinite(log.reward)
    if not known.all():
        raise MissingEvidenceError(
            f"rejection replay needs action, propensity and reward of every decision; log '{log.name}' lacks them in "
            f"{int((~known).sum()):,} of {len(known):,} (regime '{log.regime}')."
        )
    c = float(log.propensity.min()) if constant is None else constant
    if not 0 < c <= 1:
        raise UnsupportedError(f"the constant c is {c}; it must be above 0 and at most 1.")
    rounds = prepared.order(seed, order == "shuffled")
    limit = len(rounds) if horizon is None else horizon
    if not isinstance(agent, BuiltIn):
        trace, acceptance = plain.rejection(prepared, agent, seed, rounds, c, limit)
        check_reached(log.name, agent.name, acceptance.accepted, acceptance.read, acceptance.expected, horizon)
        return plain_replay_of(agent, seed, trace, acceptance)
    engine = machine(prepared, agent, rounds, batch, expected_rounds(c, len(rounds), horizon))
    trace = empty_trace(min(limit, len(rounds)), False)
    with one_thread():
        accepted, read, violations, excess, expected = replay_by_rejection(
            engine.tape,
            prepared.luck(seed),
            engine.bases,
            engine.bandit,
            engine.selector,
            engine.state,
            trace,
            batch,
            c,
        )
    check_reached(log.name, agent.name, accepted, read, expected, horizon)
    report = Acceptance(
        constant=c, read=read, accepted=accepted, expected=expected, violations=violations, excess=excess
    )
    return replay_of(agent, seed, engine, trace, accepted, report)
