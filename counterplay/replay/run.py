"""Run a whole experiment: replay every agent under every seed, estimate, compare, and store the results."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from counterplay.errors import ConfigurationError, HorizonError
from counterplay.logs.log import Choices, Log, digest_value
from counterplay.logs.reading import read_choices, read_log
from counterplay.logs.results import store_results
from counterplay.logs.workspace import Workspace, open_workspace
from counterplay.replay.agents import BuiltIn
from counterplay.replay.estimation import estimate_policies
from counterplay.replay.evidence import with_outcomes
from counterplay.replay.experiment import Experiment, experiment_from, load_experiment
from counterplay.replay.grid import settings_of
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.results import header
from counterplay.replay.settings import machine
from counterplay.replay.single import Replay, replay_exact, replay_rejection
from counterplay.replay.summary import Summary, curves, summarise, summary_json

Progress = Callable[[int, int, str], None]
TRUTH_SEED = 1_000_000
"""The first seed of the on-line runs that give the true value of an agent that learns: far from any seed of a
replay."""


@dataclass(frozen=True, kw_only=True)
class _Timed:
    replay: Replay
    seconds: float


def run_experiment(
    experiment: Experiment | Mapping[str, Any] | str | Path,
    *,
    workspace: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run an experiment and store its results in the workspace.

    Args:
        experiment: the experiment, a table of its settings, or the path of its TOML file.
        workspace: the workspace file; default: the one that the experiment names.
        workers: runs side by side; default: one for each core. The results do not depend on it.
        progress: called with (steps done, steps in all, what is going on).

    Returns:
        The results as plain values, as ``results.json`` holds them: without times and dates, so that the same
        experiment on the same log gives the same bytes.

    Raises:
        ConfigurationError, UnsupportedError, InputError: see the message. Nothing is stored then.
    """
    if isinstance(experiment, Experiment):
        settings = experiment
    else:
        settings = experiment_from(experiment) if isinstance(experiment, Mapping) else load_experiment(experiment)
    if workers is not None and workers < 1:
        raise ConfigurationError(f"workers is {workers}; at least 1 is needed.")
    place = workspace or settings.workspace
    if place is None:
        raise ConfigurationError('the experiment names no workspace: add workspace = "file.duckdb", or pass one.')
    tell = progress or _silent
    with open_workspace(place, read_only=True) as source:
        log, choices, truth = _read(source, settings)
    with threadpool_limits(1, user_api="blas"):
        results, runs = _Run(settings, log, choices, truth, workers or os.cpu_count() or 1, tell).results()
    with open_workspace(place) as target:
        store_results(target, results, runs)
    return results


def _silent(done: int, total: int, what: str) -> None:
    """No progress is shown."""
    del done, total, what


def _read(workspace: Workspace, settings: Experiment) -> tuple[Log, dict[str, Choices], Log | None]:
    log = read_log(workspace, settings.log)
    choices = {name: read_choices(workspace, settings.log, name) for name in settings.models}
    truth = None if settings.truth is None else with_outcomes(log, read_log(workspace, settings.truth))
    return log, choices, truth


class _Run:
    def __init__(
        self,
        settings: Experiment,
        log: Log,
        choices: dict[str, Choices],
        truth: Log | None,
        workers: int,
        tell: Progress,
    ) -> None:
        self.settings, self.workers = settings, workers
        self.prepared = PreparedLog(log, choices)
        self.choices = choices
        self.truth = None if truth is None else PreparedLog(truth, choices)
        self._tell, self._done = tell, 0
        replays = 0 if settings.method == "none" else len(settings.agents) * settings.seeds
        truths = len(settings.agents) * settings.truth_seeds if self._needs_online_truth else 0
        self._steps = replays + truths + (2 + len(settings.estimate.frozen) if settings.estimate else 0)

    @property
    def _needs_online_truth(self) -> bool:
        return self.settings.method == "rejection" and self.truth is not None

    def results(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The results, and the runs behind them."""
        settings, log = self.settings, self.prepared.log
        definition = settings.definition()
        outputs = _outputs_hash(self.choices)
        row = {
            "name": log.name,
            "regime": log.regime,
            "decisions": len(log.decision_ids),
            "actions": len(log.action_labels),
            "hash": log.fingerprint,
        }
        head = header(settings.name, definition, row, outputs)
        agents, runs = self._replay_all(head["experiment"])
        estimates, differences = estimate_policies(settings, self.prepared, self.truth, self._step)
        results = {**head, "agents": agents, "estimates": estimates, "comparisons": differences}
        return results, runs

    def _step(self, what: str) -> None:
        self._done += 1
        self._tell(self._done, self._steps, what)

    def _map(self, tasks: Sequence[tuple[BuiltIn, int]], play: Callable[[BuiltIn, int], Replay]) -> list[_Timed]:
        """Replay every task, in threads (the kernels release the interpreter lock); results in the order of the
        tasks."""

        def timed(task: tuple[BuiltIn, int]) -> _Timed:
            started = time.perf_counter()
            replay = play(*task)
            return _Timed(replay=replay, seconds=time.perf_counter() - started)

        results = []
        with ThreadPoolExecutor(self.workers) as pool:
            for task, result in zip(tasks, pool.map(timed, tasks), strict=True):
                self._step(task[0].name)
                results.append(result)
        return results

    def _play(self, agent: BuiltIn, seed: int) -> Replay:
        settings = self.settings
        if settings.method == "exact":
            return replay_exact(
                self.prepared, agent, seed=seed, horizon=settings.horizon, order=settings.order, batch=settings.batch
            )
        return replay_rejection(
            self.prepared,
            agent,
            seed=seed,
            constant=settings.rejection.constant,
            horizon=settings.horizon,
            order=settings.order,
            batch=settings.batch,
        )

    def _replay_all(self, identity: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        settings = self.settings
        if settings.method == "none":
            return [], []
        seeds = range(settings.first_seed, settings.first_seed + settings.seeds)
        self._tell(self._done, self._steps, "compiling the replay loops, the first time only")
        for agent in settings.agents:
            # What is shared is derived here, once, before the workers start and the clock runs.
            self._warm(agent)
        played = self._map([(agent, seed) for agent in settings.agents for seed in seeds], self._play)
        rounds = settings.horizon or min(len(run.replay.reward) for run in played)
        if rounds == 0:
            raise HorizonError(
                "rejection replay accepted nothing for some agent; a longer log or a larger c is needed."
            )
        truths = self._online_truths(rounds)
        agents: list[dict[str, Any]] = []
        runs: list[dict[str, Any]] = []
        for i, agent in enumerate(settings.agents):
            own = played[i * settings.seeds : (i + 1) * settings.seeds]
            summary = summarise([run.replay for run in own], len(self.prepared.log.context), rounds)
            agents.append(
                {
                    **summary_json(summary),
                    "settings": settings_of(agent),
                    "truth": _beside(summary, truths.get(agent.name)),
                    "curves": _mean_curves([run.replay for run in own], rounds),
                }
            )
            runs.extend(_run_row(identity, settings, agent, run, rounds) for run in own)
        return agents, runs

    def _warm(self, agent: BuiltIn) -> None:
        for prepared in filter(None, (self.prepared, self.truth)):
            machine(prepared, agent, np.arange(0))
        if agent is self.settings.agents[0]:
            if self.settings.method == "exact" or self._needs_online_truth:
                replay_exact(self.truth or self.prepared, agent, horizon=1)
            if self.settings.method == "rejection":
                replay_rejection(self.prepared, agent, horizon=0)

    def _online_truths(self, rounds: int) -> dict[str, Summary]:
        """What each agent earns on line in ``rounds`` rounds: exact replay with full information, over other seeds."""
        if not self._needs_online_truth:
            return {}
        assert self.truth is not None
        truth, settings = self.truth, self.settings
        seeds = range(TRUTH_SEED, TRUTH_SEED + settings.truth_seeds)
        tasks = [(agent, seed) for agent in settings.agents for seed in seeds]
        played = self._map(
            tasks,
            lambda agent, seed: replay_exact(truth, agent, seed=seed, horizon=rounds, batch=settings.batch),
        )
        return {
            agent.name: summarise(
                [run.replay for run in played[i * len(seeds) : (i + 1) * len(seeds)]], len(truth.log.context), rounds
            )
            for i, agent in enumerate(settings.agents)
        }


def _outputs_hash(choices: Mapping[str, Choices]) -> str:
    digest = hashlib.sha256()
    for name, stored in sorted(choices.items()):
        digest_value(digest, name, stored)
    return digest.hexdigest()


def _beside(summary: Summary, truth: Summary | None) -> dict[str, Any] | None:
    """The true value with its own standard error, and whether the interval of the estimate holds it."""
    if truth is None:
        return None
    return {
        "value": truth.average_reward,
        "std_error": truth.std_error_seeds,
        "seeds": truth.seeds,
        "covered": bool(summary.low <= truth.average_reward <= summary.high),
    }


def _mean_curves(replays: Sequence[Replay], rounds: int) -> dict[str, list[list[float]]]:
    """Each curve averaged over the seeds, as [round, value] pairs."""
    lines = [curves(replay, rounds) for replay in replays]
    return {
        name: [[t, float(np.mean([line[name][i][1] for line in lines]))] for i, (t, _) in enumerate(lines[0][name])]
        for name in lines[0]
    }


def _run_row(identity: str, settings: Experiment, agent: BuiltIn, run: _Timed, rounds: int) -> dict[str, Any]:
    replay = run.replay
    return {
        "run": f"{identity[:16]}/{agent.name}/{replay.seed}",
        "log": settings.log,
        "method": settings.method,
        "agent": agent.name,
        "seed": replay.seed,
        "configuration": settings_of(agent),
        "result": {
            "rounds": rounds,
            "average_reward": float(replay.reward[:rounds].mean()),
            "model_calls": int(replay.call[:rounds].sum()),
            "acceptance": None if replay.acceptance is None else asdict(replay.acceptance),
        },
        "curves": curves(replay, rounds),
        "seconds": run.seconds,
    }
