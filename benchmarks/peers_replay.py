"""The loops of others that `rejection_replay`, `exact_replay` and `large_action_set` time beside ours.

obp, mabwiser and coba are looked for on the path; where they are absent their rows are left out, with the reason and
how to install them beside the environment (their own pins would change it):

    uv pip install --no-deps --target PEERS coba mabwiser sb-obp pandas joblib seaborn
    PYTHONPATH=PEERS python benchmarks/rejection_replay.py

Torch comes in two forms that do the same hybrid. `released`: as Chen, Zhang and Zhu (EMNLP 2024) released it, a module
that gives all logits, the played one gathered, autograd and `torch.optim.Adam`; without their bookkeeping, and with
the selector's step in closed form. `by_hand`: gradients written out, every result into an array that exists, Adam by
the fused kernel called directly, draws made once for the whole run.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Longs = NDArray[np.int64]
BATCH = 32
EXPLORATION_DELAY, LEARNING_RATE, LEARNING_DELAY, STEP, CLIP = 10.0, 0.1, 1000.0, 0.025, 0.2
INSTALL = "uv pip install --no-deps --target PEERS coba mabwiser sb-obp pandas joblib seaborn; PYTHONPATH=PEERS"


class AbsentError(Exception):
    """A peer cannot be imported; says why and how to install it."""


def _peer(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"{name}: {error} ({INSTALL})") from error


@dataclass(frozen=True, kw_only=True)
class UniformLog:
    """n decisions whose action was drawn uniformly: contexts `(n, d)`, actions and rewards `(n,)`."""

    contexts: Singles
    actions: Longs
    rewards: NDArray[np.float64]
    arms: int

    def first(self, count: int) -> UniformLog:
        return UniformLog(
            contexts=self.contexts[:count],
            actions=self.actions[:count],
            rewards=self.rewards[:count],
            arms=self.arms,
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a loop did: processor seconds, events read, events accepted and the mean of their rewards."""

    seconds: float
    events: int
    accepted: int
    reward: float


def obp_loop(log: UniformLog) -> Run:
    """`run_bandit_replay` of obp with its LinUCB; the progress bar, which fails in 0.5.10, is taken out."""
    replay, policies = _peer("obp.simulator.replay"), _peer("obp.policy")
    replay.tqdm = lambda rounds, total: rounds  # type: ignore[attr-defined]  # noqa: ARG005
    policy = policies.LinUCB(dim=log.contexts.shape[1], n_actions=log.arms, epsilon=1.0)
    found: list[float] = []
    update = policy.update_params

    def update_and_note(**given: Any) -> None:
        found.append(given["reward"])
        update(**given)

    policy.update_params = update_and_note
    feedback = {
        "n_rounds": len(log.actions), "action": log.actions, "reward": log.rewards, "context": log.contexts,
        "position": np.zeros(len(log.actions), int), "pscore": np.full(len(log.actions), 1 / log.arms),
    }  # fmt: skip
    started = time.process_time()
    replay.run_bandit_replay(feedback, policy)
    took = time.process_time() - started
    return Run(seconds=took, events=len(log.actions), accepted=len(found), reward=float(np.mean(found)))


def mabwiser_loop(log: UniformLog) -> Run:
    """Replay as mabwiser's users write it: predict, and where the log agrees, partial_fit."""
    mab = _peer("mabwiser.mab")
    bandit = mab.MAB(list(range(log.arms)), mab.LearningPolicy.LinUCB(alpha=1.0, l2_lambda=1.0), seed=0)
    # It wants to be fitted before it predicts; nothing earned in a context of zeros changes no model.
    bandit.fit([0], [0.0], np.zeros((1, log.contexts.shape[1])))
    contexts, found = log.contexts.astype(np.float64), []
    started = time.process_time()
    for i, (action, reward) in enumerate(zip(log.actions.tolist(), log.rewards.tolist(), strict=True)):
        x = contexts[i : i + 1]
        if bandit.predict(x) == action:
            bandit.partial_fit([action], [reward], x)
            found.append(reward)
    took = time.process_time() - started
    return Run(seconds=took, events=len(log.actions), accepted=len(found), reward=float(np.mean(found)))


def coba_loop(log: UniformLog) -> Run:
    """`RejectionCB` of coba with its LinUCB on the products of context and action.

    Actions as indicator vectors: one matrix that holds the ten of the others on its diagonal.
    """
    evaluators, learners, primitives = _peer("coba.evaluators"), _peer("coba.learners"), _peer("coba.primitives")
    arms = [tuple(float(k == a) for k in range(log.arms)) for a in range(log.arms)]
    interactions = [
        primitives.LoggedInteraction(x, arms[a], r, actions=arms, probability=1 / log.arms)
        for x, a, r in zip(log.contexts.tolist(), log.actions.tolist(), log.rewards.tolist(), strict=True)
    ]

    class Environment:
        params: dict[str, Any] = {}  # noqa: RUF012

        def read(self) -> Iterator[Any]:
            yield from interactions

    learner = learners.LinUCBLearner(alpha=1.0, features=["ax"])
    started = time.process_time()
    found = [row["reward"] for row in evaluators.RejectionCB(seed=1).evaluate(Environment(), learner)]
    took = time.process_time() - started
    return Run(seconds=took, events=len(log.actions), accepted=len(found), reward=float(np.mean(found)))


def write_vw(log: UniformLog, place: Path) -> None:
    """The log as Vowpal Wabbit's text; each action has weights of its own by the products of c and a."""
    actions = [f"|a a{k}\n" for k in range(log.arms)]
    shape = "shared |c " + " ".join(f"x{j}:%.6g" for j in range(log.contexts.shape[1])) + "\n"
    rows = zip(log.contexts.tolist(), log.actions.tolist(), log.rewards.tolist(), strict=True)
    with place.open("w") as file:
        for x, a, r in rows:
            label = f"0:{-r:.6g}:{1 / log.arms:.6g} "
            file.write(shape % tuple(x) + "".join(actions[:a]) + label + "".join(actions[a:]) + "\n")


VW_CHILD = """
import sys, time
import vowpalwabbit
started = time.perf_counter(), time.process_time()
workspace = vowpalwabbit.Workspace(sys.argv[1], enable_logging=True)
workspace.finish()
print(time.perf_counter() - started[0], time.process_time() - started[1])
print(*workspace.get_log(), sep="\\n")
"""


def vw_pass(text: Path, flags: str, turns: int = 1) -> tuple[float, float, str]:
    """Seconds by the clock and of the processor for a pass over the cache beside ``text`` (the first makes it): the
    least of some turns; and what VW says. It parses in a thread of its own: the processor's seconds are both's."""
    command = f"--cb_explore_adf -d {text} --cache_file {text}.cache -q ca --ignore_linear c --noconstant {flags}"
    found, said = [], ""
    for _ in range(turns):
        child = subprocess.run([sys.executable, "-c", VW_CHILD, command], check=True, capture_output=True, text=True)
        first, said = child.stdout.split("\n", 1)
        found.append(tuple(map(float, first.split())))
    clock, processor = (min(column) for column in zip(*found, strict=True))
    return clock, processor, said


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """What the loops in torch run on: contexts `(n, d)`, reduced action vectors `(K, m)`, the spanner's actions, the
    right action and the model's of each decision `(n,)`."""

    contexts: Singles
    vectors: Singles
    spanner: NDArray[np.int32]
    right: NDArray[np.int32]
    model: NDArray[np.int32]


def _barrier(bandit: float, model: float) -> tuple[float, float]:
    """The log-barrier step for two bases in closed form, from the moved inverse probabilities."""
    distance = abs(bandit - model)
    small = (2 - distance + (distance**2 + 4) ** 0.5) / 2
    return (small, small + distance) if bandit <= model else (small + distance, small)


def released(task: Hybrid) -> float:
    """The hybrid in torch as it was released; gives its average reward."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    X, Z = torch.from_numpy(task.contexts), torch.from_numpy(task.vectors)
    right, llm = torch.from_numpy(task.right).long(), torch.from_numpy(task.model).long()
    spanner, count = torch.from_numpy(task.spanner).long(), len(task.right)
    W, bias = torch.zeros(X.shape[1], Z.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([W, bias], lr=LEARNING_RATE)
    loss, inverse, total = torch.nn.BCEWithLogitsLoss(), (2.0, 2.0), 0.0
    order = torch.randperm(count, generator=generator)
    for t, start in enumerate(range(0, count, BATCH)):
        rows = order[start : start + BATCH]
        size = len(rows)
        optimiser.zero_grad()
        logits = torch.matmul(torch.matmul(X[rows], W), Z.T) + bias
        with torch.no_grad():
            greedy = logits.argmax(1)
            explore = torch.rand(size, generator=generator) < (EXPLORATION_DELAY / (EXPLORATION_DELAY + t)) ** (1 / 3)
            tried = spanner[torch.randint(len(spanner), (size,), generator=generator)]
            calls = torch.rand(size, generator=generator) >= max(CLIP, 1 / inverse[0])
            action = torch.where(calls, llm[rows], torch.where(explore, tried, greedy))
            reward = (action == right[rows]).float()
        loss(logits.gather(1, action[:, None]), reward[:, None]).backward()
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * (LEARNING_DELAY / (LEARNING_DELAY + t)) ** 0.5
        optimiser.step()
        gained, of_model = float(reward.sum()), float((reward * calls).sum())
        inverse = _barrier(inverse[0] * (1 - STEP * (gained - of_model)), inverse[1] * (1 - STEP * of_model))
        total += gained
    return total / count


def by_hand(task: Hybrid, *, pick: bool = False) -> float:
    """The same in torch as fast as we can write it; ``pick``: score only the rows whose action the scores decide."""
    import torch

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    X, Z = torch.from_numpy(task.contexts), torch.from_numpy(task.vectors)
    count, Zt = len(task.right) // BATCH * BATCH, Z.T.contiguous()
    order = torch.randperm(len(task.right), generator=generator)[:count]
    right, llm = (torch.from_numpy(column).long()[order] for column in (task.right, task.model))
    spanner = torch.from_numpy(task.spanner).long()
    tried = spanner[torch.randint(len(spanner), (count,), generator=generator)]
    explores, bases = torch.rand(count, generator=generator), torch.rand(count, generator=generator)
    W, bias = torch.zeros(X.shape[1], Z.shape[1]), torch.zeros(1)
    moments = [torch.zeros_like(each) for each in (W, bias, W, bias)]
    gradients, steps = [torch.zeros_like(W), torch.zeros_like(bias)], [torch.zeros(()), torch.zeros(())]
    x, projected, scores = (torch.empty(BATCH, width) for width in (X.shape[1], Z.shape[1], len(Z)))
    one, inverse, total = torch.ones(()), (2.0, 2.0), 0.0
    with torch.no_grad():
        for t, start in enumerate(range(0, count, BATCH)):
            here = slice(start, start + BATCH)
            torch.index_select(X, 0, order[here], out=x)
            torch.mm(x, W, out=projected)
            calls = bases[here] >= max(CLIP, 1 / inverse[0])
            explore = explores[here] < (EXPLORATION_DELAY / (EXPLORATION_DELAY + t)) ** (1 / 3)
            action = torch.where(explore, tried[here], llm[here])
            action = torch.where(calls, llm[here], action)
            scored = torch.logical_or(calls, explore).logical_not_()
            if pick:
                (picked,) = scored.nonzero(as_tuple=True)
                action[picked] = torch.mm(projected[picked], Zt).argmax(1)
            else:
                torch.mm(projected, Zt, out=scores)
                action = torch.where(scored, scores.argmax(1), action)
            reward = (action == right[here]).float()
            chosen = Z[action]
            logit = torch.linalg.vecdot(projected, chosen).add_(bias)
            slope = logit.sigmoid_().sub_(reward).mul_(1 / BATCH)
            torch.mm(x.T, chosen.mul_(slope[:, None]), out=gradients[0])
            torch.sum(slope, 0, keepdim=True, out=gradients[1])
            rate = LEARNING_RATE * (LEARNING_DELAY / (LEARNING_DELAY + t)) ** 0.5
            torch._foreach_add_(steps, one)
            torch._fused_adam_(
                [W, bias], gradients, moments[:2], moments[2:], [], steps, lr=rate, beta1=0.9, beta2=0.999,
                weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
            )  # fmt: skip
            gained, of_model = torch.stack((reward.sum(), torch.dot(reward, calls.float()))).tolist()
            inverse = _barrier(inverse[0] * (1 - STEP * (gained - of_model)), inverse[1] * (1 - STEP * of_model))
            total += gained
    return total / count
