"""Small made-up logs for the tests of replay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.replay.prepared import PreparedLog


def world(
    *,
    decisions: int = 400,
    actions: int = 12,
    shortlist: int | None = None,
    dimensions: int = 6,
    skill: float = 0.5,
    seed: int = 0,
    uneven: bool = False,
) -> PreparedLog:
    """Contexts near the vector of their right action; a model that is right in a share ``skill`` of them.

    Logged uniformly over the candidates (all actions, or ``shortlist`` of them), or unevenly with known propensities.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((actions, dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    right = rng.integers(0, actions, decisions)
    contexts = vectors[right] + 0.5 * rng.standard_normal((decisions, dimensions))
    rows = np.arange(decisions)
    candidates = None
    pool = np.tile(np.arange(actions), (decisions, 1))
    if shortlist is not None:
        pool = np.argsort(-(contexts @ vectors.T), axis=1, kind="stable")[:, :shortlist]
        candidates = pool.astype(np.int32)
    guess = pool[rows, rng.integers(0, pool.shape[1], decisions)]
    knows = (rng.random(decisions) < skill) & (pool == right[:, None]).any(axis=1)
    model = np.where(knows, right, guess).astype(np.int32)
    weights = rng.random(pool.shape) + 0.3 if uneven else np.ones(pool.shape)
    weights /= weights.sum(axis=1, keepdims=True)
    place = (weights.cumsum(axis=1) < rng.random((decisions, 1))).sum(axis=1)
    logged = pool[rows, place].astype(np.int32)
    log = Log(
        name="world",
        regime="full",
        decision_ids=[f"d{i}" for i in rows],
        context=rows.astype(np.int32),
        context_ids=[f"c{i}" for i in rows],
        context_features=contexts.astype(np.float32),
        action_labels=[f"a{i}" for i in range(actions)],
        action_features=vectors.astype(np.float32),
        candidates=candidates,
        action=logged,
        propensity=weights[rows, place],
        reward=(logged == right).astype(np.float64),
        cost=np.full(decisions, np.nan),
        cluster=rows.astype(np.int64),
        outcomes=Outcomes(
            offsets=np.arange(decisions + 1), actions=right.astype(np.int32), rewards=np.ones(decisions), default=0.0
        ),
    )
    choices = Choices(log="world", policy="llm", actions=model[:, None], probabilities=np.ones((decisions, 1)))
    second = np.stack([model, np.roll(pool[:, 0], 0)], axis=1).astype(np.int32)
    second[second[:, 0] == second[:, 1], 1] = -1
    split = np.where(second[:, 1:] < 0, [[1.0, 0.0]], [[0.7, 0.3]])
    both = Choices(log="world", policy="two-best", actions=second, probabilities=split)
    return PreparedLog(log, {"llm": choices, "two-best": both})


def without_outcomes(prepared: PreparedLog) -> PreparedLog:
    """The same log as a system would have logged it: what was not tried is not known."""
    log = replace(prepared.log, regime="propensity", outcomes=None, fingerprint="")
    return PreparedLog(log, prepared._choices)
