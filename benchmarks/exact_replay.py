"""Exact replay of one hybrid, against the same loop in torch on one thread.

36,343 decisions, 285 actions, contexts of 64 and action vectors of 50 dimensions: the shape of the demo, made-up
numbers. The hybrid: SpannerGreedy on a bilinear logistic model with Adam, batches of 32, and a log-barrier selector
with clipping. The torch loop does the same arithmetic: gradients written out (no autograd), the fused Adam of torch,
nothing recomputed; both know who acts before scoring, but torch scores the whole batch, since gathering rows costs it
more than it saves.

Also: 100 runs (20 agents, 5 seeds) on two threads, and the floor: the same multiply-adds as plain sgemm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from common import arguments, finish, table
from threadpoolctl import threadpool_limits

from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.replay.agents import Bandit, Hybrid, LogBarrier
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact

DECISIONS, ACTIONS, WIDTH, REDUCED, BATCH = 36_343, 285, 64, 50, 32


def made_up() -> tuple[PreparedLog, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((ACTIONS, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = rng.integers(0, ACTIONS, DECISIONS).astype(np.int32)
    contexts = (vectors[labels] * 0.5 + rng.standard_normal((DECISIONS, WIDTH)) / 8).astype(np.float32)
    model = np.where(rng.random(DECISIONS) < 0.3, labels, rng.integers(0, ACTIONS, DECISIONS)).astype(np.int32)
    names = [str(i) for i in range(DECISIONS)]
    empty = np.full(DECISIONS, np.nan)
    log = Log(
        name="made up", regime="full", decision_ids=names, context=np.arange(DECISIONS, dtype=np.int32),
        context_ids=names, context_features=contexts, action_labels=[f"a{i}" for i in range(ACTIONS)],
        action_features=vectors, candidates=None, action=np.full(DECISIONS, -1, np.int32), propensity=empty,
        reward=empty, cost=empty, cluster=np.arange(DECISIONS),
        outcomes=Outcomes(
            offsets=np.arange(DECISIONS + 1), actions=labels, rewards=np.ones(DECISIONS), default=0.0
        ),
    )  # fmt: skip
    stored = Choices(log="made up", policy="llm", actions=model[:, None], probabilities=np.ones((DECISIONS, 1)))
    return PreparedLog(log, {"llm": stored}), labels, model


def torch_loop(prepared: PreparedLog, labels: np.ndarray, model: np.ndarray) -> float:
    """The same hybrid in torch; gives its average reward."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    vectors, spanner = prepared.action_vectors(Bandit())
    assert prepared.log.context_features is not None
    X, Z = torch.from_numpy(prepared.log.context_features), torch.from_numpy(vectors)
    Zt, design = Z.T.contiguous(), torch.from_numpy(spanner.astype(np.int64))
    right, llm = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(model.astype(np.int64))
    W, bias = torch.zeros(WIDTH, Z.shape[1]), torch.zeros(1)
    optimiser = torch.optim.Adam([W, bias], lr=0.1, fused=True)
    inverse = [2.0, 2.0]
    order = torch.randperm(DECISIONS, generator=generator)
    total = 0.0
    with torch.no_grad():
        for t, start in enumerate(range(0, DECISIONS, BATCH)):
            rows = order[start : start + BATCH]
            size = len(rows)
            x = X[rows]
            projected = x @ W
            greedy = (projected @ Zt).argmax(1)
            draws = torch.rand(2, size, generator=generator)
            explore = draws[0] < (10 / (10 + t)) ** (1 / 3)
            tried = design[torch.randint(len(design), (size,), generator=generator)]
            p_bandit = max(0.2, 1 / inverse[0])
            calls = draws[1] >= p_bandit
            action = torch.where(calls, llm[rows], torch.where(explore, tried, greedy))
            reward = (action == right[rows]).float()
            z = Z[action]
            slope = (torch.sigmoid((projected * z).sum(1) + bias) - reward) / size
            W.grad = x.T @ (slope[:, None] * z)
            bias.grad = slope.sum().reshape(1)
            optimiser.param_groups[0]["lr"] = 0.1 * (1000 / (1000 + t)) ** 0.5
            optimiser.step()
            gained = float(reward.sum())
            of_model = float((reward * calls).sum())
            moved = [
                inverse[0] - 0.025 * (gained - of_model) * inverse[0],
                inverse[1] - 0.025 * of_model * inverse[1],
            ]
            distance = abs(moved[0] - moved[1])
            small = (2 - distance + (distance**2 + 4) ** 0.5) / 2
            inverse = [small, small + distance] if moved[0] <= moved[1] else [small + distance, small]
            total += gained
    return total / DECISIONS


def floor() -> float:
    """Seconds for the multiply-adds of one run as plain sgemm: projections, scores, gradients."""
    x, w = np.ones((BATCH, WIDTH), np.float32), np.ones((WIDTH, REDUCED), np.float32)
    z = np.ones((REDUCED, ACTIONS), np.float32)
    projected, scores = np.empty((BATCH, REDUCED), np.float32), np.empty((BATCH, ACTIONS), np.float32)
    started = time.perf_counter()
    for _ in range(DECISIONS // BATCH):
        np.dot(x, w, projected)
        np.dot(projected, z, scores)
        np.dot(x.T, projected)
    return time.perf_counter() - started


def seconds(task: Callable[[], object], times: int) -> list[float]:
    task()
    result = []
    for _ in range(times):
        started = time.perf_counter()
        task()
        result.append(time.perf_counter() - started)
    return result


def main() -> None:
    quick = arguments(__doc__).quick
    prepared, labels, model = made_up()
    agent = Hybrid(selector=LogBarrier())
    times = 3 if quick else 9
    with threadpool_limits(1, user_api="blas"):
        ours = seconds(lambda: replay_exact(prepared, agent), times)
        theirs = seconds(lambda: torch_loop(prepared, labels, model), times)
        least = seconds(floor, times)
        every_row = seconds(lambda: replay_exact(prepared, Bandit(exploration_rate=0.0)), times)
    agents = [replace(agent, name=f"hybrid {i}", selector=LogBarrier(clip=0.05 + i / 100)) for i in range(20)]
    tasks = [(one, seed) for one in agents for seed in range(5)]
    for seed in range(5):
        prepared.luck(seed)
    walls = {}
    for workers in (1, 2):
        started = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda task: replay_exact(prepared, task[0], seed=task[1]), tasks))
        walls[workers] = time.perf_counter() - started
    mid = {name: float(np.median(values)) for name, values in
           {"ours": ours, "torch": theirs, "floor": least, "every row": every_row}.items()}  # fmt: skip
    table(
        ["what (36,343 decisions)", "median s", "us a decision"],
        [
            ["hybrid, compiled", f"{mid['ours']:.4f}", f"{mid['ours'] / DECISIONS * 1e6:.2f}"],
            ["hybrid, torch, one thread", f"{mid['torch']:.4f}", f"{mid['torch'] / DECISIONS * 1e6:.2f}"],
            [
                "bandit that scores every decision",
                f"{mid['every row']:.4f}",
                f"{mid['every row'] / DECISIONS * 1e6:.2f}",
            ],
            ["floor: the multiply-adds as sgemm", f"{mid['floor']:.4f}", f"{mid['floor'] / DECISIONS * 1e6:.2f}"],
            ["100 runs, 1 thread", f"{walls[1]:.2f}", ""],
            ["100 runs, 2 threads", f"{walls[2]:.2f}", ""],
        ],
    )
    finish(
        "exact_replay",
        {
            "torch_over_ours": mid["torch"] / mid["ours"],
            "bandit_scoring_every_decision_over_floor": mid["every row"] / mid["floor"],
            "two_threads_speedup": walls[1] / walls[2],
        },
        {"decisions": DECISIONS, "actions": ACTIONS, "width": WIDTH, "reduced": REDUCED, "batch": BATCH,
         "seconds_one_hybrid": mid["ours"], "seconds_100_runs_2_threads": walls[2]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
