"""Exact replay of one hybrid on one thread, beside the same loop in torch and beside the sgemm it cannot do without.

The hybrid: SpannerGreedy on a bilinear logistic model with Adam, batches of 32, and a log-barrier selector with
clipping. Three shapes, made-up numbers: that of Chen, Zhang and Zhu (EMNLP 2024; OneShotWikiLinks: 311 actions,
contexts of 1,536; a slice of its 622,000 decisions), and the demo's with contexts of 384 and 64 (36,343 decisions, 285
actions); action vectors of 50 dimensions. All sides have one thread, BLAS and torch included.

- released, by hand: the loop in torch in two forms, see `peers_replay`.
- floor: the same multiply-adds as plain sgemm (projections, scores of the whole batch, gradients), gathering the
  batch's rows, and reading and writing weights and both moments of Adam once a batch.
- scored: our bandit alone without exploration, so that every decision is scored, as the floor does.

Times are processor seconds, which others on the machine disturb less than the clock, and the least of several turns,
all sides taking turns. Then 100 runs (20 agents, 5 seeds; with ``--quick`` 4
agents) of the smallest shape on one and on two threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from common import arguments, finish, table
from peers_replay import BATCH, by_hand, released
from peers_replay import Hybrid as Task
from threadpoolctl import threadpool_limits

from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.replay.agents import Bandit, Hybrid
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import LogBarrier
from counterplay.replay.single import replay_exact

REDUCED = 50


@dataclass(frozen=True, kw_only=True)
class Shape:
    """n decisions, K actions, contexts of so many dimensions."""

    name: str
    decisions: int
    actions: int
    width: int


SHAPES = (
    Shape(name="1536", decisions=62_200, actions=311, width=1536),
    Shape(name="384", decisions=36_343, actions=285, width=384),
    Shape(name="64", decisions=36_343, actions=285, width=64),
)


def made_up(shape: Shape) -> tuple[PreparedLog, Task]:
    """Contexts near the image of their right action's vector; a model that is right in 3 of 10."""
    rng = np.random.default_rng(0)
    count, names = shape.decisions, [str(i) for i in range(shape.decisions)]
    vectors = rng.standard_normal((shape.actions, REDUCED), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = rng.integers(0, shape.actions, count).astype(np.int32)
    image = vectors @ rng.standard_normal((REDUCED, shape.width), dtype=np.float32) / np.float32(shape.width**0.5)
    contexts = rng.standard_normal((count, shape.width), dtype=np.float32)
    contexts *= np.float32(shape.width**-0.5)
    contexts += 0.5 * image[labels]
    model = np.where(rng.random(count) < 0.3, labels, rng.integers(0, shape.actions, count)).astype(np.int32)
    empty = np.full(count, np.nan)
    log = Log(
        name="made up", regime="full", decision_ids=names, context=np.arange(count, dtype=np.int32),
        context_ids=names, context_features=contexts, action_labels=[f"a{i}" for i in range(shape.actions)],
        action_features=vectors, candidates=None, action=np.full(count, -1, np.int32), propensity=empty,
        reward=empty, cost=empty, cluster=np.arange(count), fingerprint="made up",
        outcomes=Outcomes(offsets=np.arange(count + 1), actions=labels, rewards=np.ones(count), default=0.0),
    )  # fmt: skip
    stored = Choices(log="made up", policy="llm", actions=model[:, None], probabilities=np.ones((count, 1)))
    prepared = PreparedLog(log, {"llm": stored})
    seen = prepared.features(Bandit())
    return prepared, Task(contexts=contexts, vectors=seen.actions, spanner=seen.explore, right=labels, model=model)


def floor(task: Task) -> None:
    """What one run cannot do without."""
    width, m = task.contexts.shape[1], task.vectors.shape[1]
    weights, scored = np.ones((width, m), np.float32), np.ascontiguousarray(task.vectors.T)
    x, projected = np.empty((BATCH, width), np.float32), np.empty((BATCH, m), np.float32)
    scores, gradient = np.empty((BATCH, len(task.vectors)), np.float32), np.empty((width, m), np.float32)
    state, written = np.ones((3, width, m), np.float32), np.empty((3, width, m), np.float32)
    order = np.random.default_rng(0).permutation(len(task.right))
    for start in range(0, len(order) // BATCH * BATCH, BATCH):
        np.take(task.contexts, order[start : start + BATCH], axis=0, out=x, mode="clip")
        np.dot(x, weights, projected)
        np.dot(projected, scored, scores)
        np.dot(x.T, projected, gradient)
        np.copyto(written, state)


def turns(works: Mapping[str, Callable[[], object]], count: int) -> dict[str, float]:
    """The least processor seconds of each in so many turns, all taking turns; the first is not counted."""
    found: list[dict[str, float]] = []
    for _ in range(count + 1):
        found.append({})
        for name, work in works.items():
            started = time.process_time()
            work()
            found[-1][name] = time.process_time() - started
    return {name: min(turn[name] for turn in found[1:]) for name in works}


def one_shape(shape: Shape, count: int) -> tuple[list[list[str]], dict[str, float]]:
    """Rows of the table, and the ratios."""
    prepared, task = made_up(shape)
    works: dict[str, Callable[[], object]] = {
        "ours": partial(replay_exact, prepared, Hybrid(selector=LogBarrier())),
        "torch, released": partial(released, task),
        "torch, by hand": partial(by_hand, task),
        "floor": partial(floor, task),
        "ours, all scored": partial(replay_exact, prepared, Bandit(exploration_rate=0.0)),
    }
    took = turns(works, count)
    ours = took["ours"]
    size = f"{shape.decisions:,} x {shape.width:,}, {shape.actions} actions"
    rows = [
        [f"{name}: {size}", f"{each:.3f}", f"{each / shape.decisions * 1e6:.2f}", f"{each / ours:.2f}"]
        for name, each in took.items()
    ]
    return rows, {
        f"torch_released_over_ours_{shape.name}": took["torch, released"] / ours,
        f"torch_by_hand_over_ours_{shape.name}": took["torch, by hand"] / ours,
        f"ours_over_floor_{shape.name}": ours / took["floor"],
        f"ours_all_scored_over_floor_{shape.name}": took["ours, all scored"] / took["floor"],
    }


def many_runs(count: int) -> dict[int, float]:
    """Seconds of so many hybrids with 5 seeds each, by threads, on the smallest shape."""
    prepared, _ = made_up(SHAPES[-1])
    hybrid = Hybrid(selector=LogBarrier())
    agents = [replace(hybrid, name=f"hybrid {i}", selector=LogBarrier(clip=0.05 + i / 100)) for i in range(count)]
    tasks = [(one, seed) for one in agents for seed in range(5)]
    for seed in range(5):
        prepared.luck(seed)
    walls = {}
    for workers in (1, 2):
        started = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda task: replay_exact(prepared, task[0], seed=task[1]), tasks))
        walls[workers] = time.perf_counter() - started
    return walls


def main() -> None:
    quick = arguments(__doc__).quick
    shapes = [replace(shape, decisions=shape.decisions // 4 if quick else shape.decisions) for shape in SHAPES]
    rows: list[list[str]] = []
    ratios: dict[str, float] = {}
    with threadpool_limits(1, user_api="blas"):
        for shape in shapes:
            more, found = one_shape(shape, 3 if quick else 5)
            rows += more
            ratios |= found
    table(["decisions x context, one thread", "s", "us a decision", "of ours"], rows)
    hybrids = 4 if quick else 20
    walls = many_runs(hybrids)
    table([f"{5 * hybrids} runs of 36,343 x 64", "s"], [[f"{n} threads", f"{wall:.2f}"] for n, wall in walls.items()])
    ratios["two_threads_speedup"] = walls[1] / walls[2]
    sizes = {shape.name: [shape.decisions, shape.actions, shape.width, REDUCED] for shape in shapes}
    finish(
        "exact_replay", ratios, {**sizes, "batch": BATCH, "runs": 5 * hybrids, "seconds_of_runs": round(walls[2], 2)}
    )


if __name__ == "__main__":
    main()
