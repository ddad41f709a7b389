"""A sweep: every agent of an experiment under every seed, each replay kept as soon as it is finished.

Agents are compared at one horizon. With exact replay, or where the experiment names it, the horizon is known, and an
agent is summarised when its last seed is done. With other methods it is the least number of rounds that any replay
reached: all are replayed first, and then cut. Pilots come before everything, runs on line and on sub-samples last. In
memory are the replays being played and one agent at a time for each worker, never all of them.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import HorizonError
from counterplay.estimators.evidence import distinct
from counterplay.replay.experiment import Experiment
from counterplay.replay.grid import settings_of
from counterplay.replay.interrupts import interrupts_noted
from counterplay.replay.parts import Parts
from counterplay.replay.subsampling import EACH, std_error_subsampled
from counterplay.replay.summary import (
    COLUMNS,
    KEPT,
    Trace,
    beside_truth,
    curves,
    groups_of,
    mean_curves,
    parts_of,
    summarise,
    summary_json,
    trace_of,
)
from counterplay.replay.tasks import AGENT, ONLINE, PILOT, REPLAY, SUBSAMPLE, Material, Task

LATE = (ONLINE, SUBSAMPLE)
"""Replays that are played when the common horizon is known."""

PATIENCE = 0.2
"""Seconds between two looks at whether Ctrl-C was pressed."""


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
        self._seeds = material.seeds
        cluster = material.prepared.log.cluster
        self._cluster, self._group = np.unique(cluster, return_inverse=True)[1], groups_of(cluster)
        self._rounds = 0

    @property
    def replays(self) -> int:
        """How many there are in all, with pilots, sub-samples and those for true values."""
        return len(self._material.settings.agents) * sum(map(len, self._seeds.values()))

    def kept(self) -> int:
        """How many of them are finished."""
        return self.replays - len(self._left(*self._seeds))

    def run(self) -> None:
        """Play what is left to play.

        Raises:
            HorizonError: the log is too short for the horizon, or some agent has no round at all.
        """
        self._tell(self.kept(), "compiling the replay loops, the first time only")
        settings = self._material.settings
        self._material.warm(settings.agents[task.agent] for task in self._left(*self._seeds))
        if self._seeds[PILOT]:
            self._work(self._left(PILOT), self._pilot)
            tasks = [Task(PILOT, i, seed) for i in range(len(settings.agents)) for seed in self._seeds[PILOT]]
            self._material.use_constant(min(self._constant(task) for task in tasks))
        if settings.open_ended:
            while left := self._left(REPLAY):
                self._work(left, self._play)
            self._rounds = self._least_accepted()
        else:
            self._rounds = settings.horizon or len(self._group)
        self._finish_agents()

    def agents(self) -> list[dict[str, Any]]:
        """The numbers of each agent, in order, as ``results.json`` holds them."""
        return [self._finished(index, "agent") for index in range(len(self._material.settings.agents))]

    def runs(self, identity: str) -> Iterator[dict[str, Any]]:
        """One row for each replay, as ``store_results`` takes them."""
        for index in range(len(self._material.settings.agents)):
            for row in self._finished(index, "runs"):
                yield {"run": f"{identity[:16]}/{row['agent']}/{row['seed']}", **row}

    def _left(self, *kinds: str) -> list[Task]:
        """The replays of these kinds that are not kept, agent by agent, so that those of one finish together."""
        agents = [i for i in range(len(self._material.settings.agents)) if not self._has(Task(AGENT, i))]
        tasks = [Task(kind, i, seed) for kind in kinds for i in agents for seed in self._seeds[kind]]
        return [task for task in tasks if not self._has(task)]

    def _has(self, task: Task) -> bool:
        return self._parts.values(task.part) is not None

    def _least_accepted(self) -> int:
        """The least number of rounds of all replays; agents that are summarised already were cut to it."""
        agents = range(len(self._material.settings.agents))
        tasks = [Task(AGENT, i) for i in agents] + [
            Task(REPLAY, i, seed) for i in agents for seed in self._seeds[REPLAY]
        ]
        found = [self._parts.values(task.part) for task in tasks]
        return min(int(values["rounds"]) for values in found if values is not None)

    def _work(self, tasks: Sequence[Task], job: Callable[[Task], object]) -> None:
        """Do a job for every task, in threads: the kernels release the interpreter lock."""

        def quietly(task: Task) -> None:
            job(task)  # what it returns would be held until its turn comes

        pool = ThreadPoolExecutor(self._workers)
        try:
            with interrupts_noted() as check:
                for task, future in [(task, pool.submit(quietly, task)) for task in tasks]:
                    while not wait([future], timeout=PATIENCE).done:
                        check()
                    check()
                    future.result()
                    self._tell(int(task.kind != AGENT), self._material.settings.agents[task.agent].name)
        finally:
            # What is being played is finished and kept, also on Ctrl-C; nothing new is begun.
            pool.shutdown(wait=True, cancel_futures=True)

    def _play(self, task: Task) -> Trace:
        """Play one replay, and keep what its numbers are made from."""
        started = time.perf_counter()
        played = self._material.play(task, self._online_rounds(task.agent) if task.kind == ONLINE else self._rounds)
        trace = trace_of(played, time.perf_counter() - started)
        if task.kind == REPLAY:
            names = {name: getattr(trace, name) for name in COLUMNS}
            self._parts.keep(task.part, _kept_of(trace), names)
        else:
            average = float(trace.reward.mean()) if task.kind == ONLINE else None
            rewards = {"reward": trace.reward} if task.kind == SUBSAMPLE else {}
            values = {"rounds": len(trace.reward), "average_reward": average, "value": trace.value}
            self._parts.keep(task.part, values, rewards)
        return trace

    def _pilot(self, task: Task) -> float:
        """Play one replay of the pilot, and keep the constant that it found."""
        constant = self._material.pilot(task)
        self._parts.keep(task.part, {"constant": constant})
        return constant

    def _constant(self, task: Task) -> float:
        values = self._parts.values(task.part)
        return self._pilot(task) if values is None else float(values["constant"])

    def _finish_agents(self) -> None:
        """Play what is left agent by agent, and summarise each when its last replay is done."""
        left = self._left(REPLAY, *LATE)
        tasks, open_tasks = [], {}
        for index in range(len(self._material.settings.agents)):
            if self._has(Task(AGENT, index)):
                continue
            own = [task for task in left if task.agent == index] or [Task(AGENT, index)]
            tasks += own
            open_tasks[index] = len(own)
        lock = threading.Lock()

        def job(task: Task) -> None:
            if task.kind == SUBSAMPLE:
                with suppress(HorizonError):  # there is no number then, and the others stand
                    self._play(task)
            elif task.kind != AGENT:
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
        kept = {name: part.values[name] for name in KEPT}
        columns: dict[str, Any] = part.columns
        return Trace(**kept, **columns).cut(self._rounds)

    def _online_rounds(self, index: int) -> int:
        """The rounds of an agent's on-line runs: of doubly robust replay, whose value is of all the rounds of each
        history, as many as the histories have on average."""
        settings = self._material.settings
        if settings.method != "doubly-robust" or settings.horizon is not None:
            return self._rounds
        tasks = [Task(REPLAY, index, seed) for seed in self._seeds[REPLAY]]
        found = [(task, self._parts.values(task.part)) for task in tasks]
        lengths = [self._play(task).length if values is None else values["length"] for task, values in found]
        return round(float(np.mean(lengths)))

    def _online(self, index: int) -> list[float]:
        """The average reward of each on-line run of an agent."""
        rewards = []
        for seed in self._seeds[ONLINE]:
            task = Task(ONLINE, index, seed)
            values = self._parts.values(task.part)
            rewards.append(float(self._play(task).reward.mean() if values is None else values["average_reward"]))
        return rewards

    def _subsampled(self, index: int) -> float | None:
        """The standard error over logs of an agent's value, from its replays on sub-samples; None where these are not
        asked for, or some sub-sample has no rounds."""
        uncertainty = self._material.settings.uncertainty
        if uncertainty is None or not uncertainty.subsamples:
            return None
        try:
            values = self._subsample_values(index)
        except HorizonError:
            return None
        clusters = len(distinct(self._cluster[self._material.ground.rows]))
        return std_error_subsampled(values.reshape(-1, EACH), clusters, uncertainty.share)

    def _subsample_values(self, index: int) -> NDArray[np.float64]:
        """The value of each replay on a sub-sample, over as many rounds as all of them have, at most those of the log.

        A part that is gone or damaged is played again.
        """
        tasks = [Task(SUBSAMPLE, index, seed) for seed in self._seeds[SUBSAMPLE]]
        found = [(task, self._parts.values(task.part)) for task in tasks]
        lengths = [len(self._play(task).reward) if values is None else values["rounds"] for task, values in found]
        rounds = min(self._rounds, *lengths)
        return np.array([self._subsample_value(task, rounds) for task in tasks])

    def _subsample_value(self, task: Task, rounds: int) -> float:
        part = self._parts.load(task.part)
        if part is None:
            trace = self._play(task)
            value, rewards = trace.value, trace.reward
        else:
            value, rewards = part.values["value"], part.columns["reward"]
        return float(rewards[:rounds].mean() if value is None else value[0])

    def _finished(self, index: int, what: str) -> Any:
        """The ``agent`` or the ``runs`` of an agent that is summarised; one that is gone or damaged is made again."""
        part = self._parts.load(Task(AGENT, index).part)
        texts = self._finish(index) if part is None else part.columns
        return json.loads(texts[what].tobytes())

    def _finish(self, index: int) -> dict[str, NDArray[Any]]:
        """The numbers of an agent from its replays, which are then dropped; as JSON."""
        settings = self._material.settings
        agent = settings.agents[index]
        traces = [self._trace(index, seed) for seed in self._seeds[REPLAY]]
        summary = summarise(agent.name, traces, self._cluster, replicates=settings.method == "bootstrapped")
        lines = [curves(trace) for trace in traces]
        table = settings_of(agent)
        values = {
            "agent": {
                **summary_json(summary),
                "std_error_log_subsampled": self._subsampled(index),
                "settings": table,
                "truth": beside_truth(summary, self._online(index)),
                "curves": mean_curves(lines),
                **({"parts": parts_of(traces, self._group)} if traces[0].value is None else {}),
            },
            "runs": [
                {**_run_row(settings, agent.name, trace), "configuration": table, "curves": line}
                for trace, line in zip(traces, lines, strict=True)
            ],
        }
        texts = {name: np.frombuffer(json.dumps(value).encode(), np.uint8) for name, value in values.items()}
        self._parts.keep(Task(AGENT, index).part, {"rounds": self._rounds}, texts)
        done = [Task(kind, index, seed) for kind in (REPLAY, *LATE) for seed in self._seeds[kind]]
        self._parts.drop(*(task.part for task in done))
        return texts


def _kept_of(trace: Trace) -> dict[str, Any]:
    return {"rounds": len(trace.reward), **{name: getattr(trace, name) for name in KEPT}}


def _run_row(settings: Experiment, agent: str, trace: Trace) -> dict[str, Any]:
    return {
        "log": settings.log,
        "method": settings.method,
        "agent": agent,
        "seed": trace.seed,
        "result": {
            "rounds": len(trace.reward),
            "average_reward": float(trace.reward.mean()) if trace.value is None else trace.value[0],
            "model_calls": int(trace.call.sum()),
            "acceptance": trace.acceptance,
        },
        "seconds": trace.seconds,
    }
