"""What one replay leaves, however it was played."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import HorizonError
from counterplay.replay import plain
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.agents import BuiltIn
from counterplay.replay.kernels.records import State, Trace
from counterplay.replay.settings import Machine

BATCH = 32
"""Decisions between two updates, where nothing else is asked for."""
Order = Literal["shuffled", "logged"]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What one replay leaves. T rounds, in order.

    decision `(T,)` int64, action `(T,)` int32, reward `(T,)` float64, base `(T,)` int8 (0 is the bandit of a hybrid),
    p_bandit `(T,)` float32 (the probability with which base 0 was to act), call `(T,)` bool (whether a model was
    asked).
    """

    agent: str
    seed: int
    decision: NDArray[np.int64]
    action: NDArray[np.int32]
    reward: NDArray[np.float64]
    base: NDArray[np.int8]
    p_bandit: NDArray[np.float32]
    call: NDArray[np.bool_]
    acceptance: Acceptance | None
    alone: NDArray[np.float64] | None
    """`(T,)` What its bandit's own choices would have earned, whoever acted; None where it was not asked for."""
    prior_calls: int
    """Calls that were made before the first round, to pretrain the bandit."""
    state: State | None
    """What a built-in agent had learned at the end; ``freezing.policy_of`` makes a policy of it."""


def check_reached(log: str, agent: str, accepted: int, read: int, expected: float, horizon: int | None) -> None:
    """Refuse a replay that was accepted less often than the horizon asks for; ``expected`` is the sum of its acceptance
    probabilities, which says something even where nothing was accepted."""
    if horizon is not None and accepted < horizon:
        needed = (
            f"about {read * horizon / expected:,.0f} decisions would be needed"
            if expected > 0
            else "it never does what was logged, so no log of this kind is long enough"
        )
        raise HorizonError(
            f"'{agent}' was accepted {accepted:,} times in the {read:,} decisions of log '{log}', less than the "
            f"horizon of {horizon:,}: {needed}."
        )


def expected_rounds(constant: float, decisions: int, horizon: int | None) -> int:
    """How many rounds a replay by rejection is expected to have: the horizon, or c for each decision."""
    return horizon if horizon is not None else max(1, round(constant * decisions))


def empty_trace(rounds: int, alone: bool) -> Trace:
    """Room for so many rounds, with or without what the bandit alone would have earned."""
    return Trace(
        decision=np.zeros(rounds, np.int64),
        action=np.zeros(rounds, np.int32),
        reward=np.zeros(rounds, np.float64),
        base=np.zeros(rounds, np.int8),
        p_bandit=np.zeros(rounds, np.float32),
        alone=np.zeros(rounds if alone else 0),
    )


def replay_of(
    agent: BuiltIn,
    seed: int,
    engine: Machine,
    trace: Trace,
    rounds: int,
    acceptance: Acceptance | None,
) -> Replay:
    """The first rounds of what a built-in agent left."""
    return Replay(
        agent=agent.name,
        seed=seed,
        decision=trace.decision[:rounds],
        action=trace.action[:rounds],
        reward=trace.reward[:rounds],
        base=trace.base[:rounds],
        p_bandit=trace.p_bandit[:rounds],
        call=engine.bases.calls[trace.base[:rounds]],
        acceptance=acceptance,
        alone=trace.alone[:rounds] if len(trace.alone) else None,
        prior_calls=engine.prior_calls,
        state=engine.state if engine.learns else None,
    )


def plain_replay_of(agent: plain.Agent, seed: int, trace: Trace, acceptance: Acceptance | None) -> Replay:
    """What an agent in plain Python left."""
    return Replay(
        agent=agent.name,
        seed=seed,
        **{**trace._asdict(), "alone": None},
        call=np.zeros(len(trace.reward), bool),
        acceptance=acceptance,
        prior_calls=0,
        state=None,
    )
