"""SpannerIGW beside SpannerGreedy, exact replay on one thread, in the shape of OneShotWikiLinks.

311 actions, contexts of 1,536 and action vectors of 50 dimensions, batches of 32, made-up numbers (those of
`exact_replay`). SpannerIGW finds a barycentric spanner for every decision anew (Zhu, Foster, Langford and Mineiro, ICML
2022); the scale of its exploration is 14,000 x 50 / 311 in their notebook. In that notebook, on another machine, it
took 694 s and SpannerGreedy 32.5 s for the same 622,000 decisions: 21.4 times as long. That ratio is what can be
compared; both have their update in it. "inverse gap weighting": the same without a spanner.

Times are processor seconds, the least of several turns, all taking turns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from common import arguments, finish, table
from exact_replay import REDUCED, Shape, made_up, turns
from threadpoolctl import threadpool_limits

from counterplay.replay.agents import Bandit
from counterplay.replay.single import replay_exact

ACTIONS, GAMMA = 311, 14_000.0
THEIR_SECONDS = {"SpannerGreedy": 32.5, "SpannerIGW": 694.0}
"""For 622,000 decisions, as the notebook of Zhu et al. prints them."""


def main() -> None:
    quick = arguments(__doc__).quick
    prepared, task = made_up(Shape(name="1536", decisions=8_000 if quick else 62_200, actions=ACTIONS, width=1536))
    agents = {
        "SpannerGreedy": Bandit(),
        "SpannerIGW": Bandit(
            exploration="spanner-igw", exploration_rate=GAMMA * REDUCED / ACTIONS, exploration_power=0.0
        ),
        "inverse gap weighting": Bandit(exploration="igw", exploration_rate=GAMMA, exploration_power=0.0),
    }
    works: dict[str, Callable[[], object]] = {
        name: partial(replay_exact, prepared, agent) for name, agent in agents.items()
    }
    with threadpool_limits(1, user_api="blas"):
        took = turns(works, 2 if quick else 4)
        rewards = {name: float(replay_exact(prepared, agent).reward.mean()) for name, agent in agents.items()}
    count, greedy = len(task.right), took["SpannerGreedy"]
    table(
        [f"{count:,} decisions, {ACTIONS} actions, one thread", "s", "us a decision", "of SpannerGreedy", "reward"],
        [
            [name, f"{each:.3f}", f"{each / count * 1e6:.2f}", f"{each / greedy:.2f}", f"{rewards[name]:.3f}"]
            for name, each in took.items()
        ],
    )
    ratio, theirs = took["SpannerIGW"] / greedy, THEIR_SECONDS["SpannerIGW"] / THEIR_SECONDS["SpannerGreedy"]
    finish(
        "spanner_replay",
        {"igw_over_greedy": ratio, "their_igw_over_greedy": theirs, "their_ratio_over_ours": theirs / ratio},
        {
            "decisions": count, "actions": ACTIONS, "width": 1536,
            "microseconds_a_decision": round(took["SpannerIGW"] / count * 1e6, 1),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
