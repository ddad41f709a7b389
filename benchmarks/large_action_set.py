"""Exact replay of a hybrid over 46,881 actions on one thread, beside the same loop in torch.

As many actions as ICD-10 has codes; contexts of 384 and action vectors of 50 dimensions, batches of 32, made-up
numbers. The agent is that of `exact_replay`: SpannerGreedy on a bilinear logistic model with Adam, and a log-barrier
selector. All sides have one thread, BLAS and torch included.

- released, by hand: the loop in torch in two forms, see `peers_replay`; by hand also with only those rows scored whose
  action the scores decide, as ours does: of the two by hand the faster is compared.
- product and argmax: of each batch the full product of 32 projections with all action vectors, as numpy's sgemm and as
  torch's, then argmax: what a loop that scores every decision cannot do without.
- all scored: our bandit alone without exploration, so that every decision is scored.

Times are processor seconds, the least of several turns, all sides taking turns.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from common import arguments, finish, table
from exact_replay import Shape, made_up, turns
from peers_replay import BATCH, Hybrid, by_hand, released
from threadpoolctl import threadpool_limits

from counterplay.replay.agents import Bandit
from counterplay.replay.agents import Hybrid as HybridAgent
from counterplay.replay.selectors import LogBarrier
from counterplay.replay.single import replay_exact

SHAPE = Shape(name="46881", decisions=6_400, actions=46_881, width=384)


def products(task: Hybrid) -> None:
    """Full product and argmax, batch by batch, by numpy."""
    projected = np.ones((BATCH, task.vectors.shape[1]), np.float32)
    columns = np.ascontiguousarray(task.vectors.T)
    scores = np.empty((BATCH, len(task.vectors)), np.float32)
    for _ in range(len(task.right) // BATCH):
        np.dot(projected, columns, scores)
        scores.argmax(1)


def products_by_torch(task: Hybrid) -> None:
    """The same by torch."""
    projected, columns = torch.ones(BATCH, task.vectors.shape[1]), torch.from_numpy(task.vectors).T.contiguous()
    scores = torch.empty(BATCH, len(task.vectors))
    for _ in range(len(task.right) // BATCH):
        torch.mm(projected, columns, out=scores).argmax(1)


def main() -> None:
    quick = arguments(__doc__).quick
    torch.set_num_threads(1)
    shape = Shape(name=SHAPE.name, decisions=960 if quick else 6_400, actions=SHAPE.actions, width=SHAPE.width)
    prepared, task = made_up(shape)
    agent = HybridAgent(selector=LogBarrier())
    works: dict[str, Callable[[], object]] = {
        "ours": partial(replay_exact, prepared, agent),
        "ours, all scored": partial(replay_exact, prepared, Bandit(exploration_rate=0.0)),
        "torch, released": partial(released, task),
        "torch, by hand": partial(by_hand, task),
        "torch, by hand, rows picked": partial(by_hand, task, pick=True),
        "numpy, product and argmax": partial(products, task),
        "torch, product and argmax": partial(products_by_torch, task),
    }
    with threadpool_limits(1, user_api="blas"):
        took = turns(works, 2 if quick else 5)
        acted = replay_exact(prepared, agent).base
    hand = min(took["torch, by hand"], took["torch, by hand, rows picked"])
    ours, scored = took["ours"], took["ours, all scored"]
    table(
        [f"{shape.decisions:,} decisions, {shape.actions:,} actions, one thread", "s", "us a decision", "of ours"],
        [
            [name, f"{each:.3f}", f"{each / shape.decisions * 1e6:.1f}", f"{each / ours:.2f}"]
            for name, each in took.items()
        ],
    )
    print(f"the bandit acts in {(acted == 0).mean():.0%} of the decisions")
    finish(
        "large_action_set",
        {
            "torch_released_over_ours": took["torch, released"] / ours,
            "torch_by_hand_over_ours": hand / ours,
            "torch_product_and_argmax_over_ours_all_scored": took["torch, product and argmax"] / scored,
            "numpy_product_and_argmax_over_ours_all_scored": took["numpy, product and argmax"] / scored,
        },
        {
            "decisions": shape.decisions, "actions": shape.actions, "width": shape.width, "batch": BATCH,
            "microseconds_a_decision": round(ours / shape.decisions * 1e6, 1),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
