"""Run a whole experiment: replay every agent under every seed, estimate, compare, and store the results."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from counterplay.errors import ConfigurationError, CounterplayError, FileError, WorkspaceError
from counterplay.logs.log import Choices, Log, digest_value
from counterplay.logs.reading import read_choices, read_log
from counterplay.logs.results import store_results
from counterplay.logs.workspace import Workspace, open_workspace
from counterplay.replay.estimation import estimate_policies
from counterplay.replay.evidence import with_outcomes
from counterplay.replay.experiment import Experiment, experiment_from, load_experiment
from counterplay.replay.parts import Parts, software
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.results import header
from counterplay.replay.sweep import Sweep
from counterplay.replay.tasks import Material

Progress = Callable[[int, int, str], None]


def run_experiment(
    experiment: Experiment | Mapping[str, Any] | str | Path,
    *,
    workspace: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run an experiment and store its results in the workspace.

    It can be stopped at any moment, by Ctrl-C or harder: finished replays are kept in ``<workspace>.sweep`` until the
    results are stored, and the same experiment goes on from there, to the same bytes. Memory does not grow with the
    number of replays. While it runs, others can read the workspace.

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
        WorkspaceBusyError: the same experiment is being run already, or another process writes to the workspace at the
            end. What is finished is kept.
        KeyboardInterrupt: says how much is finished, and where it is kept.
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
    run = _Run(settings, place, workers or os.cpu_count() or 1, progress or _silent)
    with threadpool_limits(1, user_api="blas"):
        return run.results()


def _silent(done: int, total: int, what: str) -> None:
    """No progress is shown."""
    del done, total, what


def _read(workspace: Workspace, settings: Experiment) -> tuple[Log, dict[str, Choices], Log | None]:
    log = read_log(workspace, settings.log)
    choices = {name: read_choices(workspace, settings.log, name) for name in settings.models}
    truth = None if settings.truth is None else with_outcomes(log, read_log(workspace, settings.truth))
    return log, choices, truth


class _Run:
    def __init__(self, settings: Experiment, place: str | Path, workers: int, tell: Progress) -> None:
        # Open for reading only, and closed before the work begins: meanwhile others can read the workspace.
        with open_workspace(place, read_only=True) as source:
            log, choices, truth = _read(source, settings)
        self.settings, self.place, self.workers, self._tell = settings, place, workers, tell
        self.prepared = PreparedLog(log, choices)
        self.truth = None if truth is None else PreparedLog(truth, choices)
        row = {
            "name": log.name,
            "regime": log.regime,
            "decisions": len(log.decision_ids),
            "actions": len(log.action_labels),
            "hash": log.fingerprint,
        }
        self.head = header(settings.name, settings.definition(), row, _outputs_hash(choices))
        self._done, self._steps = 0, 2 + len(settings.estimate.frozen) if settings.estimate else 0

    def results(self) -> dict[str, Any]:
        """Replay, estimate and store."""
        if self.settings.method == "none":
            return self._stored(None)
        origin = {"truth": None if self.truth is None else self.truth.log.fingerprint, "software": software()}
        with Parts(self.place, self.head["experiment"], origin) as parts:
            material = Material(settings=self.settings, prepared=self.prepared, truth=self.truth)
            sweep = Sweep(material, parts, self.workers, self._step)
            self._steps += sweep.replays
            try:
                sweep.run()
                results = self._stored(sweep)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"stopped; {sweep.kept():,} of {sweep.replays:,} replays are finished and kept in {parts.folder}. "
                    "Run the same experiment again: it goes on from there."
                ) from None
            except CounterplayError as error:
                # Whatever else is wrong would be wrong again; a disk can be freed, and a workspace be given up.
                if not isinstance(error, FileError | WorkspaceError):
                    parts.remove()
                raise
            parts.remove()
        return results

    def _stored(self, sweep: Sweep | None) -> dict[str, Any]:
        agents = [] if sweep is None else sweep.agents()
        estimates, differences = estimate_policies(self.settings, self.prepared, self.truth, self._estimated)
        results = {**self.head, "agents": agents, "estimates": estimates, "comparisons": differences}
        with open_workspace(self.place) as target:
            store_results(target, results, () if sweep is None else sweep.runs(self.head["experiment"]))
        return results

    def _step(self, steps: int, what: str) -> None:
        self._done += steps
        self._tell(self._done, self._steps, what)

    def _estimated(self, what: str) -> None:
        self._step(1, what)


def _outputs_hash(choices: Mapping[str, Choices]) -> str:
    digest = hashlib.sha256()
    for name, stored in sorted(choices.items()):
        digest_value(digest, name, stored)
    return digest.hexdigest()
