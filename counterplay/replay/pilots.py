"""The constant of rejection replay, found on decisions that are not replayed afterwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import MissingEvidenceError, UnsupportedError
from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.doubly_robust_loops import Rule, replay_compiled, replay_one_by_one
from counterplay.replay.history import BATCH, Order, empty_trace
from counterplay.replay.kernels.doubly_robust import SMALLEST_RATIO
from counterplay.replay.one_thread import one_thread
from counterplay.replay.players import player_of
from counterplay.replay.portions import Portion
from counterplay.replay.predictions import predicted_pieces
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.settings import machine


def pilot_constant(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    rows: NDArray[np.int64],
    *,
    seed: int = 0,
    order: Order = "shuffled",
    batch: int = BATCH,
) -> float:
    """The greatest c with which an agent's replay of some decisions would have had no violation: the smallest ratio
    mu/pi of all that it met there, at most 1.

    Where the agent gives little probability to what was logged seldom, this c is far above the smallest propensity of
    the log, and so are the rounds that rejection replay accepts. Replay other decisions with it than ``rows``: a c
    that knows the decisions it accepts biases the history.

    The pilot is a replay in which c is the smallest ratio met so far (1 before the first acceptance), as in
    ``replay_doubly_robust`` with quantile 0. It is shorter than the replay to come, so what the agent does after more
    rounds than the pilot accepted can still violate c: look at ``violations`` and ``excess``. For several agents that
    are to be compared, take the smallest of their constants.

    Args:
        prepared: a log with propensities.
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent``.
        rows: `(m,)` positions of the pilot's decisions, chosen without a look at their actions and rewards.
        seed: of the order, of the acceptance and of who acted.
        order: ``shuffled`` by the seed or as ``logged``.
        batch: accepted decisions between two updates.

    Raises:
        MissingEvidenceError: an action, a propensity or a reward is not known.
        UnsupportedError: there are no decisions, or the agent would have done nothing that was logged in them.
    """
    log, portion = prepared.log, Portion(prepared, rows)
    known = (log.propensity[rows] > 0) & (log.action[rows] >= 0) & np.isfinite(log.reward[rows])
    if not known.all():
        raise MissingEvidenceError(
            f"a pilot needs action, propensity and reward of every decision; log '{log.name}' lacks them in "
            f"{int((~known).sum()):,} of {len(rows):,} (regime '{log.regime}')."
        )
    smallest = np.inf
    if len(rows):
        rounds = portion.order(seed, order == "shuffled")
        rule = Rule(estimator="ips", quantile=0.0, first=1.0, most=1.0, batch=batch)
        trace, pieces = empty_trace(len(rounds), False), predicted_pieces(log, rounds, None)
        with one_thread():
            if isinstance(agent, BuiltIn):
                engine = machine(portion, agent, rounds, batch)
                progress = replay_compiled(engine, portion.luck(seed), rule, pieces, trace, clustered=False)
            else:
                player = player_of(portion, agent, seed, rounds, batch)
                progress = replay_one_by_one(player, portion, seed, rule, pieces, trace, clustered=False)
        smallest = float(progress.acceptance[SMALLEST_RATIO])
    if smallest == np.inf:
        raise UnsupportedError(
            f"in none of the {len(rows):,} decisions of the pilot on log '{log.name}' could '{agent.name}' have taken "
            "the logged action: take a larger pilot, or name the constant."
        )
    return min(1.0, smallest)
