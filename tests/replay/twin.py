"""Replay a matrix of agents and print what happened: run once compiled and once interpreted, and compare."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from counterplay.replay.agents import (
    Bandit,
    BuiltIn,
    Constant,
    Exponential,
    Fixed,
    FixedPolicy,
    Hybrid,
    LogBarrier,
    Polynomial,
    Uniform,
)
from counterplay.replay.single import Replay, replay_exact, replay_rejection

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.replay.worlds import world


def agents() -> Iterator[BuiltIn]:
    """Every base alone, every bandit, and every combination of selector, budget and number of models."""
    yield Uniform()
    yield Constant()
    yield FixedPolicy(name="model", policy="llm")
    yield FixedPolicy(name="two best", policy="two-best")
    bandits = itertools.product(
        ("spanner-greedy", "epsilon-greedy"), ("zero", "embedding-prior"), ("logistic", "squared"), (True, False)
    )
    for explore, start, loss, bias in bandits:
        name = f"{explore} {start} {loss} {bias}"
        yield Bandit(name=name, exploration=explore, start=start, loss=loss, bias=bias, dimensions=5)
    selectors = (
        Fixed(share=0.3),
        Polynomial(scale=3.0),
        Exponential(scale=2.0, rate=0.2),
        LogBarrier(),
        LogBarrier(clip=None, mix=0.2),
        LogBarrier(clip=None),
        LogBarrier(weight="played", loss="one-minus-reward"),
    )
    budgets = ((None, "hard-stop"), (25, "hard-stop"), (25, "linear"), (0, "linear"))
    for selector, (budget, rule), models in itertools.product(selectors, budgets, (("llm",), ("llm", "two-best"))):
        yield Hybrid(
            name=f"{selector} {budget} {rule} {models}",
            selector=selector,
            budget=budget,
            budget_rule=rule,
            models=models,
            bandit=Bandit(dimensions=5),
        )


def told(replay: Replay) -> dict[str, object]:
    result: dict[str, object] = {
        "decision": replay.decision.tolist(),
        "action": replay.action.tolist(),
        "base": replay.base.tolist(),
        "p": np.round(replay.p_bandit.astype(float), 5).tolist(),
    }
    if replay.state is not None:
        result["weights"] = replay.state.weights.round(3).tolist()
    return result


def main() -> None:
    outcome = {}
    for shortlist, uneven in ((None, False), (4, False), (4, True)):
        prepared = world(decisions=150, actions=8, dimensions=5, shortlist=shortlist, uneven=uneven)
        for agent in agents():
            where = f"{shortlist} {uneven} {agent.name}"
            outcome[f"exact {where}"] = told(replay_exact(prepared, agent, seed=3, batch=8))
            outcome[f"rejection {where}"] = told(replay_rejection(prepared, agent, seed=3, batch=4, constant=0.2))
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
