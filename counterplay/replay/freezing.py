"""An agent that has stopped learning, as a policy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.logs.chunks import Chunk
from counterplay.logs.log import Log
from counterplay.replay.agents import BuiltIn
from counterplay.replay.kernels.bandit import block_probabilities
from counterplay.replay.kernels.bilinear import exploration_rate
from counterplay.replay.kernels.records import THOMPSON, BanditSettings, State, Tape
from counterplay.replay.kernels.selection import base_probabilities
from counterplay.replay.policies import Mixture, Policy, TablePolicy, allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, uniforms
from counterplay.replay.settings import machine

DRAWS = 200
"""A frozen bandit that explores by its posterior is the policy that takes one of so many draws at random."""


@dataclass(frozen=True, kw_only=True)
class FrozenBandit:
    """A bandit that has stopped learning, on the decisions of one log, with what was left of its exploration.

    One that explores by its posterior (LinTS, Thompson sampling) is the policy that takes one of 200 draws from that
    posterior at random, the same draws for every decision.
    """

    name: str
    tape: Tape
    bandit: BanditSettings
    state: State
    exploration: float

    def probabilities(self, log: Log | Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities `(b, S)` over the allowed actions of the decisions ``rows``."""
        draws = uniforms(0, Purpose.EXPLORE, DRAWS if self.bandit.exploring == THOMPSON else 1)
        result = np.zeros(allowed(log, rows).shape)
        block_probabilities(self.tape, self.bandit, self.state, self.exploration, draws, rows, result)
        return result


def policy_of(prepared: PreparedLog, agent: BuiltIn, state: State | None = None) -> Policy:
    """The policy of an agent on the decisions of a log: what it would do next, with the exploration it has left.

    Args:
        prepared: the log, which need not be the one the agent has learned from.
        agent: the settings.
        state: what it has learned (``Replay.state``); default: nothing yet. Budgets and gates play no part: a selector
            that looks at each decision is frozen with the probabilities it has where it lets the models act.
    """
    engine = machine(prepared, agent, np.arange(len(prepared.log.context)))
    bases = engine.bases
    if not engine.learns:
        return TablePolicy(name=agent.name, actions=bases.table[0], weights=bases.weight[0])
    state = state or engine.state
    batches = int(state.counts[0])
    name = f"{agent.name}, frozen"
    bandit = FrozenBandit(
        name=name,
        tape=engine.tape,
        bandit=engine.bandit,
        state=State(**{name: part.copy() for name, part in state._asdict().items()}),
        exploration=exploration_rate(engine.bandit, batches),
    )
    shares = np.empty(len(bases.kind))
    base_probabilities(engine.selector, state, batches + 1, shares)
    tables = [
        TablePolicy(name=name, actions=bases.table[i], weights=bases.weight[i]) for i in range(1, len(bases.kind))
    ]
    return Mixture(name=name, parts=[bandit, *tables], shares=tuple(float(share / shares.sum()) for share in shares))
