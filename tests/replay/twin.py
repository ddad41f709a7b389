"""Replay a matrix of agents and print what happened: run once compiled and once interpreted, and compare."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import UnsupportedError
from counterplay.logs.chunks import Chunk
from counterplay.replay.agents import Bandit, BuiltIn, Constant, FixedPolicy, Hybrid, Learner, LinTS, LinUCB, Uniform
from counterplay.replay.doubly_robust import replay_doubly_robust
from counterplay.replay.history import Replay
from counterplay.replay.methods import Estimator
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import (
    Exp3,
    Exponential,
    Fixed,
    Guarded,
    LinearDecay,
    LogBarrier,
    Polynomial,
    Priced,
    Selector,
    Tsallis,
    Unsure,
)
from counterplay.replay.single import replay_exact, replay_rejection

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.replay.worlds import world

BANDITS: tuple[Learner, ...] = (
    Bandit(dimensions=5),
    Bandit(dimensions=5, exploration="epsilon-greedy", optimizer="sgd", bias=False),
    Bandit(dimensions=5, exploration="softmax", optimizer="adagrad", start="embedding-prior"),
    Bandit(dimensions=5, exploration="igw", exploration_rate=30.0, exploration_power=-0.5, loss="squared"),
    Bandit(dimensions=5, exploration="spanner-igw", exploration_rate=30.0, exploration_delay=3.0),
    Bandit(dimensions=5, exploration="thompson"),
    Bandit(dimensions=5, start="pretrained", pretrain_on="llm", pretrain_decisions=12, answers="llm"),
    Bandit(model="disjoint", exploration="igw"),
    LinUCB(dimensions=3),
    LinTS(dimensions=3, intercept=False),
    LinUCB(model="shared", dimensions=2),
    LinTS(model="shared", dimensions=2),
)
SELECTORS: tuple[Selector, ...] = (
    Fixed(share=0.3),
    Polynomial(scale=3.0),
    Exponential(scale=2.0, rate=0.2),
    LinearDecay(),
    LogBarrier(),
    LogBarrier(clip=None, mix=0.2),
    LogBarrier(clip=None),
    LogBarrier(weight="played", loss="one-minus-reward"),
    Exp3(rate=0.1),
    Tsallis(),
    Unsure(threshold=0.7, most=0.9, least=0.1),
    Priced(price=0.1),
    Guarded(allowance=0.4),
)
ESTIMATORS: tuple[Estimator, ...] = ("dr", "ips", "snips", "dm")
BUDGETS: tuple[dict[str, Any], ...] = (
    {},
    {"budget": 5},
    {"budget": 5, "budget_rule": "linear"},
    {"money": 4.0},
    {"money": 4.0, "budget_rule": "linear"},
)


def alone() -> Iterator[BuiltIn]:
    """Every agent that is not a hybrid."""
    yield Uniform()
    yield Constant()
    yield FixedPolicy(name="model", policy="llm")
    yield FixedPolicy(name="two best", policy="two-best")
    yield from BANDITS


def hybrids() -> Iterator[Hybrid]:
    """Every combination of bandit, selector with its smoothing, and budget; models one or two in turn."""
    for number, (bandit, selector, budget) in enumerate(itertools.product(BANDITS, SELECTORS, BUDGETS)):
        models, prices = (("llm",), ()) if number % 2 else (("llm", "two-best"), (1.0, 0.3))
        prices = prices if "money" in budget else ()
        name = f"{bandit} {selector} {budget}"
        yield Hybrid(name=name, selector=selector, models=models, bandit=bandit, prices=prices, **budget)


def told(replay: Replay) -> dict[str, object]:
    result: dict[str, object] = {
        "decision": replay.decision.tolist(),
        "action": replay.action.tolist(),
        "base": replay.base.tolist(),
        "p": np.round(replay.p_bandit.astype(float), 4).tolist(),
    }
    if replay.state is not None:
        result["weights"] = [part.round(2).tolist() for part in (replay.state.weights, replay.state.theta)]
    if replay.alone is not None:
        result["alone"] = replay.alone.tolist()
    return result


def wrong(log: Chunk, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """A reward model that knows nothing, and says so differently everywhere."""
    return np.asarray(0.8 * np.sin(allowed(log, rows) + 3.0 * rows[:, None]))


def doubly_robust(prepared: PreparedLog, agent: BuiltIn, estimator: Estimator) -> dict[str, object]:
    try:
        found = replay_doubly_robust(
            prepared,
            agent,
            seed=3,
            batch=4,
            quantile=0.1,
            estimator=estimator,
            model=wrong if estimator in ("dr", "dm") else None,
        )
    except UnsupportedError:
        return {"refused": True}
    return {**told(found.history), "estimate": [round(found.value, 6), round(found.std_error, 6)]}


def main() -> None:
    outcome = {}
    for shortlist, uneven in ((None, False), (4, True)):
        large = world(decisions=150, actions=8, dimensions=5, shortlist=shortlist, uneven=uneven)
        small = world(decisions=24, actions=8, dimensions=5, shortlist=shortlist, uneven=uneven)
        tasks = [*((large, agent) for agent in alone()), *((small, agent) for agent in hybrids())]
        for number, (prepared, agent) in enumerate(tasks):
            where = f"{shortlist} {number} {agent.name}"
            exact = replay_exact(prepared, agent, seed=3, batch=8, alone=number % 3 == 0)
            outcome[f"exact {where}"] = told(exact)
            outcome[f"doubly robust {where}"] = doubly_robust(prepared, agent, ESTIMATORS[number % len(ESTIMATORS)])
            outcome[f"rejection {where}"] = told(replay_rejection(prepared, agent, seed=3, batch=4, constant=0.5))
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
