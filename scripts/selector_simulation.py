"""What each selector costs and gains where everything is known: one model that does not learn, one bandit that does.

    python scripts/selector_simulation.py            # the table of docs/selectors.md; under a minute
    python scripts/selector_simulation.py --quick    # a tenth of the rounds, one seed

622,000 rounds in batches of 32 (Chen, Zhang and Zhu, EMNLP 2024). Rewards are 0 or 1. The model's mean is .124, what
they report for Flan-T5-large alone. The bandit's mean in round t is .2 (1 - exp(-t / 76,200)), whose average is the
.1755 that they report for the bandit inside their hybrid. The bandit's curve is given: it does not depend on who acts,
so what a selector does for the bandit's learning is not in these numbers. Every selector meets the same luck.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.records import LOG_BARRIER, SelectorSettings, State
from counterplay.replay.kernels.selection import (
    base_probabilities,
    credit,
    drawn_base,
    engage,
    selector_step,
    settle,
    shares_now,
)
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
    selector_settings,
)

ROUNDS, BATCH, MODEL, BANDIT, CLIMB = 622_000, 32, 0.124, 0.2, 76_200
DIVERGED = 1e-9
"""A rule that learns has diverged when its raw probability of the bandit is below this: the kernels stop at 1e-15."""

SELECTORS: Mapping[str, Selector] = {
    "fixed: share 0 (the bandit alone)": Fixed(share=0.0),
    "fixed: share 1 (the model alone)": Fixed(share=1.0),
    "log-barrier: -r, 1/p raw": LogBarrier(),
    "log-barrier: -r, 1/p played": LogBarrier(weight="played"),
    "log-barrier: 1 - r, 1/p played": LogBarrier(loss="one-minus-reward", weight="played"),
    "log-barrier: 1 - r, 1/p raw (as printed)": LogBarrier(loss="one-minus-reward"),
    "log-barrier: -r, no smoothing": LogBarrier(clip=None),
    "log-barrier: -r, clip .1": LogBarrier(clip=0.1),
    "log-barrier: -r, mix .1": LogBarrier(clip=None, mix=0.1),
    "exp3": Exp3(),
    "tsallis": Tsallis(),
    "polynomial": Polynomial(),
    "exponential": Exponential(),
    "linear-decay": LinearDecay(),
    "priced: price 0": Priced(price=0.0),
    "priced: price .05": Priced(price=0.05),
    "guarded: allowance .02": Guarded(allowance=0.02),
    "guarded: allowance .1": Guarded(allowance=0.1),
}


class Played(NamedTuple):
    """One simulated run. acted, rewards: `(n,)`. raw: `(batches,)`, the bandit's probability before smoothing.
    last: the probability with which the bandit was to act in the last round."""

    acted: NDArray[np.int8]
    rewards: NDArray[np.float64]
    raw: NDArray[np.float64]
    last: float


@compiled
def simulate(
    selector: SelectorSettings,
    state: State,
    means: NDArray[np.float64],
    luck_base: NDArray[np.float64],
    luck_reward: NDArray[np.float64],
    batch: int,
    acted: NDArray[np.int8],
    rewards: NDArray[np.float64],
    raw: NDArray[np.float64],
) -> float:
    """Play rounds whose bases earn 1 with the probabilities ``means`` `(n, M)`; give the bandit's last probability."""
    members = means.shape[1]
    calls = np.ones(members, np.bool_)
    calls[0] = False
    counts, ledger, prices = state.counts, state.ledger, selector.prices
    p, kept, losses = np.zeros(members), np.empty((batch, members)), np.zeros(members)
    for number in range((means.shape[0] + batch - 1) // batch):
        start = number * batch
        size = min(batch, means.shape[0] - start)
        base_probabilities(selector, state, number + 1, p)
        raw[number] = 1.0 / state.inverse[0] if selector.kind == LOG_BARRIER else p[0]
        for r in range(size):
            i = start + r
            shares_now(selector, calls, counts, ledger, p, kept, r, 0.0, means[i, 0], i)
            base = drawn_base(kept, r, 1.0, luck_base[i])
            engage(calls, prices, counts, ledger, base)
            acted[i] = base
            rewards[i] = 1.0 if luck_reward[i] < means[i, base] else 0.0
        for r in range(size):
            settle(calls, ledger, acted[start + r], rewards[start + r])
        credit(selector, state, kept[:size], acted[start : start + size], rewards[start : start + size], losses)
        selector_step(selector, state, losses)
    return float(kept[0, 0])


def start(members: int) -> State:
    """The state of a selector before the first round; there is no bandit model."""
    none = np.zeros((0, 0), np.float32)
    wide, flat = np.zeros((0, 0, 0)), np.zeros((0, 0))
    return State(
        weights=none,
        mean=none,
        square=none,
        bias=np.zeros(3, np.float32),
        covariance=wide,
        response=flat,
        theta=flat,
        inverse=np.full(members, float(members)),
        losses=np.zeros(members),
        counts=np.zeros(2, np.int64),
        ledger=np.zeros(4),
    )


def play(selector: Selector, means: NDArray[np.float64], seed: int, batch: int = BATCH) -> Played:
    """Run a selector over bases that earn 1 with the probabilities ``means`` `(n, M)`, base 0 being the bandit."""
    count, members = means.shape
    batches = -(-count // batch)
    rng = np.random.default_rng(seed)
    luck_base, luck_reward = rng.random(count), rng.random(count)
    acted, rewards, raw = np.empty(count, np.int8), np.empty(count), np.empty(batches)
    settings = selector_settings(selector, members, batch=batch, batches=batches)
    last = simulate(settings, start(members), means, luck_base, luck_reward, batch, acted, rewards, raw)
    return Played(acted, rewards, raw, last)


def curves(rounds: int) -> NDArray[np.float64]:
    """The mean rewards `(rounds, 2)` of bandit and model; a shorter run climbs in proportion."""
    climb = CLIMB * rounds / ROUNDS
    bandit = BANDIT * (1.0 - np.exp(-np.arange(rounds) / climb))
    return np.stack([bandit, np.full(rounds, MODEL)], axis=1)


def row(name: str, selector: Selector, runs: list[Played]) -> str:
    """One line of the table: means over the seeds."""
    calls = np.mean([np.count_nonzero(run.acted) for run in runs])
    reward = np.mean([run.rewards.mean() for run in runs])
    lowest, last = [run.raw.min() for run in runs], np.mean([run.last for run in runs])
    found, verdict = "", ""
    if isinstance(selector, LogBarrier | Exp3 | Tsallis):
        found, diverged = f"{np.mean(lowest):.2g}", sum(low < DIVERGED for low in lowest)
        verdict = f"{diverged} of {len(runs)}" if diverged else "no"
    return f"| {name} | {calls:,.0f} | {reward:.4f} | {found} | {last:.3f} | {verdict} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, one seed")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: %(default)s)")
    options = parser.parse_args()
    rounds, seeds = (ROUNDS // 10, 1) if options.quick else (ROUNDS, options.seeds)
    means = curves(rounds)
    print("| selector | calls of the model | mean reward | lowest raw p(bandit) | last p(bandit) | diverged |")
    print("|---|---:|---:|---:|---:|---|")
    better = means[:, 1] > means[:, 0]
    print(
        f"| whoever is better in each round (nobody knows) | {better.sum():,} | {means.max(axis=1).mean():.4f} | | | |"
    )
    for name, selector in SELECTORS.items():
        print(row(name, selector, [play(selector, means, seed) for seed in range(seeds)]), flush=True)


if __name__ == "__main__":
    main()
