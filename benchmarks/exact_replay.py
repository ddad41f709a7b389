"""Exact replay of one hybrid, against the same loop in torch on one thread.

36,343 decisions, 285 actions, contexts of 64 and action vectors of 50 dimensions: the shape of the demo, made-up
numbers. The hybrid: SpannerGreedy on a bilinear logistic model with Adam, batches of 32, and a log-barrier selector
with clipping. The loop in torch comes in two forms that do the same: as one writes it (a module, autograd,
``torch.optim.Adam``), and by hand (gradients written out, the fused Adam, nothing recomputed). Torch scores the whole
batch, since picking the rows that need scores costs it more than it saves.

Also: 100 runs (20 agents, 5 seeds) on one and on two threads, and the floor: the same multiply-adds as plain sgemm.
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
from counterplay.replay.agents import Bandit, Hybrid
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import LogBarrier
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


def torch_loop(prepared: PreparedLog, labels: np.ndarray, model: np.ndarray, *, by_hand: bool) -> float:
    """The same hybrid in torch; gives its average reward."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    features = prepared.features(Bandit())
    vectors, spanner = features.actions, features.explore
    assert prepared.log.context_features is not None
    X, Z = torch.from_numpy(prepared.log.context_features), torch.from_numpy(vectors)
    Zt, design = Z.T.contiguous(), torch.from_numpy(spanner.astype(np.int64))
    right, llm = torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(model.astype(np.int64))
    W = torch.zeros(WIDTH, Z.shape[1], requires_grad=not by_hand)
    bias = torch.zeros(1, requires_grad=not by_hand)
    optimiser = torch.optim.Adam([W, bias], lr=0.1, fused=True if by_hand else None)
    loss = torch.nn.BCEWithLogitsLoss()
    inverse = [2.0, 2.0]
    order = torch.randperm(DECISIONS, generator=generator)
    total = 0.0
    for t, start in enumerate(range(0, DECISIONS, BATCH)):
        rows = order[start : start + BATCH]
        size = len(rows)
        x = X[rows]
        projected = x @ W
        with torch.no_grad():
            greedy = (projected @ Zt).argmax(1)
            draws = torch.rand(2, size, generator=generator)
            explore = draws[0] < (10 / (10 + t)) ** (1 / 3)
            tried = design[torch.randint(len(design), (size,), generator=generator)]
            calls = draws[1] >= max(0.2, 1 / inverse[0])
            action = torch.where(calls, llm[rows], torch.where(explore, tried, greedy))
            reward = (action == right[rows]).float()
        logit = (projected * Z[action]).sum(1) + bias
        optimiser.param_groups[0]["lr"] = 0.1 * (1000 / (1000 + t)) ** 0.5
        if by_hand:
            slope = (torch.sigmoid(logit) - reward) / size
            W.grad = x.T @ (slope[:, None] * Z[action])
            bias.grad = slope.sum().reshape(1)
        else:
            optimiser.zero_grad()
            loss(logit, reward).backward()
        optimiser.step()
        gained = float(reward.sum())
        of_model = float((reward * calls).sum())
        inverse = barrier(inverse[0] * (1 - 0.025 * (gained - of_model)), inverse[1] * (1 - 0.025 * of_model))
        total += gained
    return total / DECISIONS


def barrier(bandit: float, model: float) -> list[float]:
    """The log-barrier step for two bases in closed form, from the moved inverse probabilities."""
    distance = abs(bandit - model)
    small = (2 - distance + (distance**2 + 4) ** 0.5) / 2
    return [small, small + distance] if bandit <= model else [small + distance, small]


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
        theirs = seconds(lambda: torch_loop(prepared, labels, model, by_hand=False), times)
        by_hand = seconds(lambda: torch_loop(prepared, labels, model, by_hand=True), times)
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
    timed = {"ours": ours, "torch": theirs, "by hand": by_hand, "floor": least, "every row": every_row}
    mid = {name: float(np.median(values)) for name, values in timed.items()}
    table(
        ["what (36,343 decisions)", "median s", "us a decision"],
        [
            ["hybrid, compiled", f"{mid['ours']:.4f}", f"{mid['ours'] / DECISIONS * 1e6:.2f}"],
            ["hybrid, torch by hand", f"{mid['by hand']:.4f}", f"{mid['by hand'] / DECISIONS * 1e6:.2f}"],
            ["hybrid, torch", f"{mid['torch']:.4f}", f"{mid['torch'] / DECISIONS * 1e6:.2f}"],
            [
                "bandit, every decision scored",
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
            "torch_by_hand_over_ours": mid["by hand"] / mid["ours"],
            "bandit_scoring_every_decision_over_floor": mid["every row"] / mid["floor"],
            "two_threads_speedup": walls[1] / walls[2],
        },
        {"decisions": DECISIONS, "actions": ACTIONS, "width": WIDTH, "reduced": REDUCED, "batch": BATCH,
         "seconds_one_hybrid": mid["ours"], "seconds_100_runs_2_threads": walls[2]},
    )  # fmt: skip


if __name__ == "__main__":
    main()
