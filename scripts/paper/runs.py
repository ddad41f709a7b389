"""The agents behind the tables and figures, and their runs: five seeds, batches of 32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from paper.published import BATCH, ROUNDS, SEEDS
from paper.tasks import PRIOR, Task

from counterplay.replay import replay_exact
from counterplay.replay.agents import Bandit, BuiltIn, Constant, FixedPolicy, Hybrid, LinTS, LinUCB
from counterplay.replay.selectors import (
    Exp3,
    Exponential,
    Fixed,
    Guarded,
    LogBarrier,
    Polynomial,
    Priced,
    Selector,
    Tsallis,
    Unsure,
)

Line = NDArray[np.float64]

WARM = "bandit from the embedding prior, exploring a tenth"
Agents = dict[str, BuiltIn]

POINTS = 100
"""Points of a curve."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One agent over S seeds.

    reward and calls `(S,)`: the average reward, and the calls of all models before and in the rounds; by_model
    `(S, M)`: those in the rounds; rounds `(P,)`; reward_so_far, calls_so_far, p_bandit and alone_so_far `(S, P)`, the
    last empty for agents without a bandit; seconds: of the fastest seed, one decision.
    """

    reward: Line
    calls: Line
    by_model: Line
    rounds: NDArray[np.int64]
    reward_so_far: Line
    calls_so_far: Line
    p_bandit: Line
    alone_so_far: Line
    seconds: float

    @property
    def asked(self) -> bool:
        """Whether any model was asked."""
        return bool(self.calls.any())


def mean(values: Line) -> float:
    """Over seeds."""
    return float(np.mean(values))


def error(values: Line) -> float:
    """The standard error of the mean over seeds; NaN for one seed."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def budgets(rounds: int) -> dict[str, int]:
    """10K and 20K calls as the same shares of other numbers of rounds."""
    return {name: max(1, round(calls / ROUNDS * rounds)) for name, calls in (("10K", 10_000), ("20K", 20_000))}


def stretched(rounds: int) -> tuple[Polynomial, Exponential]:
    """The paper's schedules with time measured in shares of the run, so that they ask in the same share of it."""
    ratio = math.ceil(rounds / BATCH) / math.ceil(ROUNDS / BATCH)
    return Polynomial(scale=100 * ratio), Exponential(scale=100, rate=0.01 / ratio)


def expected_calls(schedule: Polynomial | Exponential, rounds: int) -> float:
    """The sum of p(LLM) over the rounds, t in batches from 1."""
    t = np.arange(rounds) // BATCH + 1.0
    if isinstance(schedule, Polynomial):
        p = schedule.scale / t**schedule.power
    else:
        p = schedule.scale * np.exp(-schedule.rate * t)
    return float(np.clip(p, schedule.least, schedule.most).sum())


def agents(task: Task) -> Agents:
    """Every agent of every table and figure, by the name that the tables use."""
    return {**_parents(task), **_paper(task), **_beyond(task)}


def _parents(task: Task) -> Agents:
    fixed = {words: FixedPolicy(policy=model, calls=model != PRIOR) for model, words in task.models.items()}
    return {"best constant": Constant(), "SpannerGreedy": Bandit(), **fixed}


def _paper(task: Task) -> Agents:
    """What the paper ran, Tables 4 to 7 and Figure 4."""

    def hybrid(selector: Selector, budget: int | None = None, linear: bool = False) -> Hybrid:
        rule: Literal["hard-stop", "linear"] = "linear" if linear else "hard-stop"
        return Hybrid(selector=selector, models=(task.main,), budget=budget, budget_rule=rule)

    found: Agents = {"log-barrier": hybrid(LogBarrier())}
    for name, calls in budgets(task.rounds).items():
        found[f"Eq. (1), B = {name}"] = hybrid(LogBarrier(), calls, linear=True)
        found[f"early stop, B = {name}"] = hybrid(LogBarrier(), calls)
    polynomial, exponential = stretched(task.rounds)
    schedules: dict[str, Polynomial | Exponential] = {
        "polynomial": Polynomial(),
        "exponential": Exponential(),
        "polynomial, stretched": polynomial,
        "exponential, stretched": exponential,
    }
    found |= {name: hybrid(schedule) for name, schedule in schedules.items()}
    for name, schedule in schedules.items():
        most = round(expected_calls(schedule, task.rounds))
        found[f"log-barrier, the calls of {name}"] = hybrid(LogBarrier(), most)
    found["smoothing none"] = hybrid(LogBarrier(clip=None))
    found["smoothing clip .1"] = hybrid(LogBarrier(clip=0.1))
    found |= {f"smoothing mix {_short(mix)}": hybrid(LogBarrier(clip=None, mix=mix)) for mix in (0.05, 0.1, 0.2, 0.4)}
    found |= {
        f"hybrid with {words}": Hybrid(selector=LogBarrier(), models=(model,)) for model, words in task.models.items()
    }
    if len(task.models) > 1:
        # The released code divides its step of .05 by the number of bases, as the default does for two.
        everybody = LogBarrier(step=0.05 / (1 + len(task.models)))
        found["hybrid with all"] = Hybrid(selector=everybody, models=tuple(task.models))
    found["LLM always"] = hybrid(Fixed(share=1.0))
    return found


def _beyond(task: Task) -> Agents:
    """What the paper lacks."""
    model, bare = (task.main,), Bandit()
    warm = Bandit(start="embedding-prior", exploration_rate=0.1)
    found: Agents = {
        "epsilon-greedy": Bandit(exploration="epsilon-greedy"),
        "SpannerGreedy, exploring a tenth": replace(bare, exploration_rate=0.1),
        "IGW": Bandit(exploration="igw"),
        "IGW, 14,000": Bandit(exploration="igw", exploration_rate=14_000),
        "embedding prior in 50 dimensions": Bandit(start="embedding-prior", exploration_rate=0, learning_rate=0),
        "bandit from the embedding prior": Bandit(start="embedding-prior"),
        WARM: warm,
        "bandit pretrained on 1,000 calls": Bandit(
            start="pretrained", pretrain_on=task.main, pretrain_decisions=min(1_000, task.rounds), exploration_rate=0.1
        ),
        "bandit that is told the answer": Bandit(answers=task.main),
    }
    if not task.large:
        found |= {
            "SpannerIGW": Bandit(exploration="spanner-igw"),
            "SpannerIGW, 2,250.8": Bandit(exploration="spanner-igw", exploration_rate=2250.8),
            "LinUCB": LinUCB(),
            "LinTS, scale .1": LinTS(scale=0.1),
        }
        inside = {"IGW": found["IGW, 14,000"], "SpannerIGW": found["SpannerIGW, 2,250.8"], "LinUCB": found["LinUCB"]}
    else:
        inside = {"IGW": found["IGW, 14,000"]}
    inside |= {"SpannerGreedy exploring a tenth": replace(bare, exploration_rate=0.1), "the prior-started bandit": warm}
    for name, bandit in inside.items():
        assert isinstance(bandit, Bandit | LinUCB)
        found[f"log-barrier over {name}"] = Hybrid(selector=LogBarrier(), models=model, bandit=bandit)
    selectors: Mapping[str, Selector] = {
        # The rate that the theory of Exp3 asks for with this many rounds and two bases.
        "Exp3": Exp3(rate=math.sqrt(math.log(2) / task.rounds)),
        "Tsallis": Tsallis(),
        "Unsure, .5": Unsure(threshold=0.5),
        "Priced, .05": Priced(price=0.05),
        "Guarded, .1": Guarded(allowance=0.1),
    }
    return found | {name: Hybrid(selector=selector, models=model) for name, selector in selectors.items()}


def _short(value: float) -> str:
    return f"{value:g}".replace("0.", ".", 1)


def run(task: Task, agent: BuiltIn, seeds: int = SEEDS) -> Run:
    """Replay one agent on a task with seeds 0, 1, ..."""
    learns = isinstance(agent, Bandit | LinUCB | LinTS | Hybrid)
    at = np.unique(np.linspace(1, task.rounds, min(POINTS, task.rounds)).round().astype(np.int64))
    reward, calls, by_model, lines, seconds = [], [], [], [], math.inf
    for seed in range(seeds):
        started = perf_counter()
        own = replay_exact(task.prepared, agent, seed=seed, batch=BATCH, alone=learns)
        seconds = min(seconds, perf_counter() - started)
        reward.append(own.reward.mean())
        calls.append(own.call.sum() + own.prior_calls)
        models = len(agent.models) if isinstance(agent, Hybrid) else 0
        by_model.append(np.bincount(own.base, minlength=models + 1)[1:][:models])
        alone = np.zeros(0) if own.alone is None else np.cumsum(own.alone)[at - 1] / at
        lines.append((np.cumsum(own.reward)[at - 1] / at, np.cumsum(own.call)[at - 1], own.p_bandit[at - 1], alone))
    parts = [np.array(part, np.float64) for part in zip(*lines, strict=True)]
    return Run(
        reward=np.array(reward),
        calls=np.array(calls, np.float64),
        by_model=np.array(by_model, np.float64),
        rounds=at,
        reward_so_far=parts[0],
        calls_so_far=parts[1],
        p_bandit=parts[2],
        alone_so_far=parts[3],
        seconds=seconds / task.rounds,
    )


def run_all(task: Task, seeds: int = SEEDS, tell: Callable[[str], None] = lambda _: None) -> dict[str, Run]:
    """All agents of a task."""
    found, own = {}, agents(task)
    done: dict[BuiltIn, Run] = {}
    for i, (name, agent) in enumerate(own.items()):
        # The same agent under two names (the hybrid of Table 4 is one of Table 7) runs once.
        alike = replace(agent, name="")
        tell(f"{task.key}: {i + 1} of {len(own)}, {name}")
        done[alike] = found[name] = done.get(alike) or run(task, agent, seeds)
    return found
