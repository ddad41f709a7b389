"""The single replays that an experiment is made of: which there are, and how each is played."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from counterplay.replay.agents import BuiltIn
from counterplay.replay.experiment import Experiment
from counterplay.replay.grid import settings_of
from counterplay.replay.pilots import pilot_constant
from counterplay.replay.playing import Ground, Played
from counterplay.replay.portions import first_clusters
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact
from counterplay.replay.subsampling import EACH, subsample
from counterplay.replay.subsampling import FIRST_SEED as SUBSAMPLE_SEED

TRUTH_SEED = 1_000_000
"""The first seed of the on-line runs that give the true value of an agent: far from any seed of a replay."""
PILOT_SEED = 2**60
"""Of the draw of the clusters that a pilot runs on."""
PILOT, REPLAY, ONLINE, SUBSAMPLE, AGENT = "pilot", "replay", "online", "subsample", "agent"


class Task(NamedTuple):
    """One replay to be played; of kind AGENT, only the summary of an agent whose replays are all there."""

    kind: str
    agent: int
    seed: int = 0

    @property
    def part(self) -> str:
        return f"{self.kind}-{self.agent}" if self.kind == AGENT else f"{self.kind}-{self.agent}-{self.seed}"


class Material:
    """What a sweep runs on.

    Args:
        settings: the experiment.
        prepared: the log.
        truth: a log of full information with the same contexts, where true values are asked for.
    """

    def __init__(self, *, settings: Experiment, prepared: PreparedLog, truth: PreparedLog | None) -> None:
        self.settings, self.prepared, self.truth = settings, prepared, truth
        self.ground = Ground(settings, prepared)
        cluster = prepared.log.cluster
        share = self.pilot_share
        if share is not None:
            seed = PILOT_SEED if settings.order == "shuffled" else None
            self._pilot = first_clusters(cluster, share, prepared.log.name, seed)

    @property
    def pilot_share(self) -> float | None:
        """The share of the log that rejection replay finds its constant on; None where it is known."""
        return (
            self.settings.rejection.pilot if self.settings.method == "rejection" and self.settings.rejection else None
        )

    def use_constant(self, constant: float) -> None:
        """Replay what the pilot has left, with this constant."""
        others = np.setdiff1d(np.arange(len(self.prepared.log.context)), self._pilot, assume_unique=True)
        self.ground = Ground(self.settings, self.prepared, others, constant)

    def pilot(self, task: Task) -> float:
        """The constant that one replay of the pilot would have kept to."""
        return pilot_constant(
            self.prepared,
            self.settings.agents[task.agent],
            self._pilot,
            seed=task.seed,
            order=self.settings.order,
            batch=self.settings.batch,
        )

    @property
    def online(self) -> PreparedLog | None:
        """The log on which the true values of agents that learn are found; None where that is not asked for."""
        return None if self.settings.method == "exact" else self.truth

    @property
    def seeds(self) -> dict[str, range]:
        """The seeds of each kind of replay that the experiment asks for."""
        settings = self.settings
        own = range(settings.first_seed, settings.first_seed + settings.seeds)
        subsamples = settings.uncertainty.subsamples if settings.uncertainty else 0
        return {
            PILOT: own if self.pilot_share is not None else range(0),
            REPLAY: own,
            ONLINE: range(TRUTH_SEED, TRUTH_SEED + (settings.truth_seeds if self.online else 0)),
            SUBSAMPLE: range(SUBSAMPLE_SEED, SUBSAMPLE_SEED + EACH * subsamples),
        }

    def play(self, task: Task, rounds: int | None) -> Played:
        """Play one replay; ``rounds`` is the horizon of those that give true values, and the most of a sub-sample's."""
        settings, agent = self.settings, self.settings.agents[task.agent]
        if task.kind == REPLAY:
            return self.ground.play(agent, task.seed, settings.horizon)
        assert rounds is not None
        if task.kind == ONLINE:
            assert self.online is not None
            horizon = min(rounds, len(self.online.log.context))
            return Played(
                history=replay_exact(self.online, agent, seed=task.seed, horizon=horizon, batch=settings.batch)
            )
        ground = self._subsampled((task.seed - SUBSAMPLE_SEED) // EACH)
        return ground.play(agent, task.seed, min(rounds, len(ground.rows)) if settings.method == "exact" else None)

    def _subsampled(self, number: int) -> Ground:
        """A sub-sample of what is replayed."""
        assert self.settings.uncertainty is not None
        rows, log = self.ground.rows, self.prepared.log
        drawn = subsample(log.cluster[rows], self.settings.uncertainty.share, log.name, number)
        return Ground(self.settings, self.prepared, rows[drawn], self.ground.constant)

    def warm(self, agents: Iterable[BuiltIn]) -> None:
        """Compile what agents need and derive what they share, before workers start and clocks run."""
        kinds = {repr(_without_numbers(settings_of(agent))): agent for agent in agents}
        for agent in kinds.values():
            self.ground.warm(agent)
            if self.online is not None:
                replay_exact(self.online, agent, horizon=1)


def _without_numbers(value: Any) -> Any:
    """Settings without the numbers in them, and without names: agents of one grid are then the same."""
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items() if key != "name"}
    return None if isinstance(value, int | float) and not isinstance(value, bool) else value
