"""Do 95 % intervals hold the exact value in 95 % of logs, and is rejection replay right on average?

The logs are drawn again and again from the triage desk: 36,343 descriptions drawn with replacement from the 36,343
there are, each with its shortlist of ten blocks, one of them logged uniformly. So the exact value over the whole desk
is what every interval is about. For three policies that do not learn (uniform, LLM alone, embedding prior): how often
the intervals of IPS, SNIPS and DR hold it, and the mean error of rejection replay (c = 0.1) in units of its own
standard error.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
from common import finish, table
from numpy.typing import NDArray

from counterplay.demo.data import llm_choice, load_demo
from counterplay.estimators import evaluate
from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.replay.agents import FixedPolicy, Uniform
from counterplay.replay.evidence import exact_values, gather_evidence
from counterplay.replay.freezing import policy_of
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, uniforms
from counterplay.replay.single import replay_rejection

ESTIMATORS = ("ips", "snips", "dr")
AGENTS = (
    Uniform(),
    FixedPolicy(name="LLM alone", policy="llm"),
    FixedPolicy(name="embedding prior", policy="embedding-prior"),
)


def desk() -> PreparedLog:
    """The whole desk with its outcome table, nothing logged yet."""
    demo = load_demo()
    count = len(demo.labels)
    unknown = np.full(count, np.nan)
    log = Log(
        name="desk", regime="full", decision_ids=list(demo.context_ids), context=np.arange(count, dtype=np.int32),
        context_ids=list(demo.context_ids), context_features=demo.features, action_labels=list(demo.action_labels),
        action_features=demo.action_features, candidates=demo.shortlist, action=np.full(count, -1, np.int32),
        propensity=unknown, reward=unknown, cost=unknown, cluster=np.arange(count),
        outcomes=Outcomes(
            offsets=np.arange(count + 1), actions=demo.labels, rewards=np.ones(count), default=0.0
        ),
    )  # fmt: skip
    ones = np.ones((count, 1))
    stored = {"llm": llm_choice(demo)[:, None], "embedding-prior": demo.shortlist[:, :1]}
    return PreparedLog(
        log, {name: Choices(log="desk", policy=name, actions=rows, probabilities=ones) for name, rows in stored.items()}
    )


def logged_again(whole: PreparedLog, draw: int) -> PreparedLog:
    """A log of the same length: descriptions drawn with replacement, one shortlisted block tried for each."""
    log = whole.log
    assert log.candidates is not None
    assert log.outcomes is not None
    count = len(log.context)
    rows = np.floor(uniforms(50_000 + draw, Purpose.ORDER, count) * count).astype(np.int64)
    place = np.floor(uniforms(50_000 + draw, Purpose.LOGGING, count) * 10).astype(np.int64)
    context, candidates = log.context[rows], log.candidates[rows]
    action = candidates[np.arange(count), place]
    again = replace(
        log, regime="propensity", context=context, candidates=candidates, action=action,
        propensity=np.full(count, 0.1), reward=log.outcomes.reward(context, action), outcomes=None, fingerprint="-",
    )  # fmt: skip
    return PreparedLog(again, whole._choices)


def one_draw(whole: PreparedLog, draw: int, exact: NDArray[np.float64]) -> tuple[Any, ...]:
    """For one log: which intervals hold the exact value, the errors of the estimates, those of rejection replay."""
    logged = logged_again(whole, draw)
    policies = [policy_of(logged, agent) for agent in AGENTS]
    held, errors = np.zeros((3, 3), bool), np.zeros((3, 3))
    for k, estimate in enumerate(evaluate(gather_evidence(logged.log, policies), ESTIMATORS)):
        i, j = divmod(k, 3)
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        held[i, j] = estimate.low <= exact[i] <= estimate.high
        errors[i, j] = estimate.value - exact[i]
    replayed = [replay_rejection(logged, agent, seed=draw, constant=0.1).reward.mean() for agent in AGENTS]
    return held, errors, np.array(replayed) - exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 logs; within 45 seconds on 2 cores")
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    draws = 20 if options.quick else options.draws
    whole = desk()
    exact = exact_values(whole.log, [policy_of(whole, agent) for agent in AGENTS]).mean(axis=1)
    started = time.perf_counter()
    results = [one_draw(whole, draw, exact) for draw in range(draws)]
    seconds = time.perf_counter() - started
    held, errors, replays = (np.stack(column) for column in zip(*results, strict=True))
    coverage = held.mean(axis=0)
    z = replays.mean(axis=0) / (replays.std(axis=0, ddof=1) / math.sqrt(draws))
    rows = []
    for i, agent in enumerate(AGENTS):
        for j, name in enumerate(ESTIMATORS):
            bias, spread = errors[:, i, j].mean(), errors[:, i, j].std(ddof=1)
            rows.append([agent.name, name, f"{exact[i]:.4f}", f"{coverage[i, j]:.3f}", f"{bias:+.5f}", f"{spread:.5f}"])
        bias, spread = replays[:, i].mean(), replays[:, i].std(ddof=1)
        rows.append(
            [agent.name, "rejection replay", f"{exact[i]:.4f}", f"z {z[i]:+.2f}", f"{bias:+.5f}", f"{spread:.5f}"]
        )
    print(f"{draws} logs of {len(whole.log.context):,} decisions, {seconds:.0f} s")
    table(["policy", "estimator", "exact", "coverage", "mean error", "spread"], rows)
    names = [agent.name.replace(" ", "_") for agent in AGENTS]
    ratios = {f"coverage_{name}_{ESTIMATORS[j]}": coverage[i, j] for i, name in enumerate(names) for j in range(3)}
    ratios |= {f"replay_z_{name}": z[i] for i, name in enumerate(names)}
    finish("coverage_of_intervals", ratios, {"draws": draws, "decisions": len(whole.log.context)})


if __name__ == "__main__":
    main()
