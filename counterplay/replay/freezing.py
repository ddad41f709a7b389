"""An agent that has stopped learning, as a policy."""

from __future__ import annotations

import numpy as np

from counterplay.replay.agents import BuiltIn
from counterplay.replay.kernels.bilinear import exploration_rate
from counterplay.replay.kernels.records import State
from counterplay.replay.kernels.selection import base_probabilities
from counterplay.replay.policies import FrozenBandit, Mixture, Policy, TablePolicy
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.settings import machine


def policy_of(prepared: PreparedLog, agent: BuiltIn, state: State | None = None) -> Policy:
    """The policy of an agent on the decisions of a log: what it would do next, with the exploration it has left.

    Args:
        prepared: the log, which need not be the one the agent has learned from.
        agent: the settings.
        state: what it has learned (``Replay.state``); default: nothing yet. A budget plays no part.
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
        weights=state.weights.copy(),
        action_features=engine.tape.actions,
        exploration=exploration_rate(engine.bandit, batches),
        explore=engine.bandit.explore,
    )
    shares = np.empty(len(bases.kind))
    base_probabilities(engine.selector, state, batches + 1, shares)
    tables = [
        TablePolicy(name=name, actions=bases.table[i], weights=bases.weight[i]) for i in range(1, len(bases.kind))
    ]
    return Mixture(name=name, parts=[bandit, *tables], shares=tuple(float(share / shares.sum()) for share in shares))
