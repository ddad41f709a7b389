"""A sweep: every agent of an experiment under every seed, each replay kept as soon as it is finished.

Agents are compared at one horizon. With exact replay, or where the experiment names it, the horizon is known, and an
agent is summarised when its last seed is done. With rejection replay it is the least number of rounds that any replay
accepted: all are replayed first, and then cut. In memory are the replays being played and one agent at a time for each
worker, never all of them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from counterplay.errors import HorizonError
from counterplay.replay.experiment import Experiment
from counterplay.replay.grid import settings_of
from counterplay.replay.parts import Parts
from counterplay.replay.summary import (
    COLUMNS,
    Summary,
    Trace,
    curves,
    groups_of,
    mean_curves,
    parts_of,
    summarise,
    summary_json,
    trace_of,
)
from counterplay.replay.tasks import AGENT, ONLINE, REPLAY, TRUTH_SEED, Material, Task


class Sweep:
    """The replays of an experiment, those that are kept already and those still to be played.

    Args:
        material: what is replayed.
        parts: where finished replays are kept.
        workers: threads side by side; no result depends on it.
        tell: called with (replays found or finished since the last call, what is going on).
    """

    def __init__(self, material: Material, parts: Parts, workers: int, tell: Callable[[int, str], None]) -> None:
        self._material, self._parts, self._workers, self._tell = material, parts, workers, tell
        settings = material.settings
        self._seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
        self._online_seeds = range(TRUTH_SEED, TRUTH_SEED + (settings.truth_seeds if material.online else 0))
        cluster = material.prepared.log.cluster
        self._cluster, self._group = np.unique(cluster, return_inverse=True)[1], groups_of(cluster)
        self._rounds = 0

    @property
    def replays(self) -> int:
        """How many there are in all, true values included."""
        return len(self._material.settings.agents) * (len(self._seeds) + len(self._online_seeds))

    def kept(self) -> int:
        """How many of them are finished."""
        return self.replays - len(self._left(REPLAY)) - len(self._left(ONLINE))

    def run(self) -> None:
        """Play what is left to play.

        Raises:
            HorizonError: the log is too short for the horizon, or nothing was accepted of some agent.
        """
        self._tell(self.kept(), "compiling the replay loops, the first time only")
        left = self._left(REPLAY) + self._left(ONLINE)
        self._material.warm(self._material.settings.agents[task.agent] for task in left)
        settings = self._material.settings
        if settings.method == "rejection" and settings.horizon is None:
            while left := self._left(REPLAY):
                self._work(left, self._play)
            self._rounds = self._least_accepted()
        else:
            self._rounds = settings.horizon or len(self._group)
        self._finish_agents()

    def agents(self) -> list[dict[str, Any]]:
        """The numbers of each agent, in order, as ``results.json`` holds them."""
        return [self._finished(index)["agent"] for index in range(len(self._material.settings.agents))]

    def runs(self, identity: str) -> Iterator[dict[str, Any]]:
        """One row for each replay, as ``store_results`` takes them."""
        for index in range(len(self._material.settings.agents)):
            for row in self._finished(index)["runs"]:
                yield {"run": f"{identity[:16]}/{row['agent']}/{row['seed']}", **row}

    def _left(self, kind: str) -> list[Task]:
        """The replays of a kind that are not kept, agent by agent, so that the seeds of one finish together."""
        seeds = self._seeds if kind == REPLAY else self._online_seeds
        agents = [i for i in range(len(self._material.settings.agents)) if not self._has(Task(AGENT, i))]
        tasks = [Task(kind, agent, seed) for agent in agents for seed in seeds]
        return [task for task in tasks if not self._has(task)]

    def _has(self, task: Task) -> bool:
        return self._parts.values(task.part) is not None

    def _least_accepted(self) -> int:
        """The least number of rounds of all replays; agents that are summarised already were cut to it."""
        agents = range(len(self._material.settings.agents))
        tasks = [Task(AGENT, i) for i in agents] + [Task(REPLAY, i, seed) for i in agents for seed in self._seeds]
        found = [self._parts.values(task.part) for task in tasks]
        rounds = min(int(values["rounds"]) for values in found if values is not None)
        if rounds == 0:
            raise HorizonError(
                "rejection replay accepted nothing for some agent; a longer log or a larger c is needed."
            )
        return rounds

    def _work(self, tasks: Sequence[Task], job: Callable[[Task], object]) -> None:
        """Do a job for every task, in threads: the kernels release the interpreter lock."""

        def quietly(task: Task) -> None:
            job(task)  # what it returns would be held until its turn comes

        pool = ThreadPoolExecutor(self._workers)
        try:
            for task, _ in zip(tasks, pool.map(quietly, tasks), strict=True):
                self._tell(int(task.kind != AGENT), self._material.settings.agents[task.agent].name)
        finally:
            # What is being played is finished and kept, also on Ctrl-C; nothing new is begun.
            pool.shutdown(wait=True, cancel_futures=True)

    def _play(self, task: Task) -> Trace:
        """Play one replay, and keep what its numbers are made from."""
        started = time.perf_counter()
        replay = self._material.play(task, self._rounds)
        trace = trace_of(replay, time.perf_counter() - started)
        values: dict[str, Any] = {"rounds": len(trace.reward)}
        if task.kind == ONLINE:
            self._parts.keep(task.part, {**values, "average_reward": float(trace.reward.mean())})
            return trace
        kept = ("seed", "acceptance", "prior_calls", "seconds")
        values |= {name: getattr(trace, name) for name in kept}
        self._parts.keep(task.part, values, {name: getattr(trace, name) for name in COLUMNS})
        return trace

    def _finish_agents(self) -> None:
        """Play what is left agent by agent, and summarise each when its last replay is done."""
        left = self._left(REPLAY) + self._left(ONLINE)
        tasks, open_tasks = [], {}
        for index in range(len(self._material.settings.agents)):
            if self._has(Task(AGENT, index)):
                continue
            own = [task for task in left if task.agent == index] or [Task(AGENT, index)]
            tasks += own
            open_tasks[index] = len(own)
        lock = threading.Lock()

        def job(task: Task) -> None:
            if task.kind != AGENT:
                self._play(task)
            with lock:
                open_tasks[task.agent] -= 1
                last = not open_tasks[task.agent]
            if last:
                self._finish(task.agent)

        self._work(tasks, job)

    def _trace(self, index: int, seed: int) -> Trace:
        """A replay, cut at the horizon; one that is gone or damaged is played again."""
        task = Task(REPLAY, index, seed)
        part = self._parts.load(task.part)
        if part is None:
            return self._play(task).cut(self._rounds)
        kept = {name: value for name, value in part.values.items() if name != "rounds"}
        columns: dict[str, Any] = part.columns
        return Trace(**kept, **columns).cut(self._rounds)

    def _online(self, index: int) -> list[float]:
        """The average reward of each on-line run of an agent."""
        rewards = []
        for seed in self._online_seeds:
            task = Task(ONLINE, index, seed)
            values = self._parts.values(task.part)
            rewards.append(float(self._play(task).reward.mean() if values is None else values["average_reward"]))
        return rewards

    def _finished(self, index: int) -> dict[str, Any]:
        part = self._parts.load(Task(AGENT, index).part)
        return self._finish(index) if part is None else dict(json.loads(part.columns["json"].tobytes()))

    def _finish(self, index: int) -> dict[str, Any]:
        """The numbers of an agent from its replays, which are then dropped."""
        settings = self._material.settings
        agent = settings.agents[index]
        traces = [self._trace(index, seed) for seed in self._seeds]
        summary = summarise(agent.name, traces, self._cluster)
        lines = [curves(trace) for trace in traces]
        table = settings_of(agent)
        values = {
            "agent": {
                **summary_json(summary),
                "settings": table,
                "truth": _beside(summary, self._online(index)),
                "curves": mean_curves(lines),
                "parts": parts_of(traces, self._group),
            },
            "runs": [
                {**_run_row(settings, agent.name, trace), "configuration": table, "curves": line}
                for trace, line in zip(traces, lines, strict=True)
            ],
        }
        text = np.frombuffer(json.dumps(values).encode(), np.uint8)
        self._parts.keep(Task(AGENT, index).part, {"rounds": self._rounds}, {"json": text})
        done = [*(Task(REPLAY, index, seed) for seed in self._seeds)]
        done += [Task(ONLINE, index, seed) for seed in self._online_seeds]
        self._parts.drop(*(task.part for task in done))
        return dict(json.loads(text.tobytes()))


def _beside(summary: Summary, online: Sequence[float]) -> dict[str, Any] | None:
    """The true value with its own standard error, and whether the interval of the estimate holds it."""
    if not online:
        return None
    value = float(np.mean(online))
    return {
        "value": value,
        "std_error": float(np.std(online, ddof=1) / np.sqrt(len(online))),
        "seeds": len(online),
        "covered": bool(summary.low <= value <= summary.high),
    }


def _run_row(settings: Experiment, agent: str, trace: Trace) -> dict[str, Any]:
    return {
        "log": settings.log,
        "method": settings.method,
        "agent": agent,
        "seed": trace.seed,
        "result": {
            "rounds": len(trace.reward),
            "average_reward": float(trace.reward.mean()),
            "model_calls": int(trace.call.sum()),
            "acceptance": trace.acceptance,
        },
        "seconds": trace.seconds,
    }
