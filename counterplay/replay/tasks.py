"""The single replays that an experiment is made of: which there are, and how each is played."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from counterplay.replay.agents import BuiltIn
from counterplay.replay.experiment import Experiment
from counterplay.replay.grid import settings_of
from counterplay.replay.history import Replay
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact, replay_rejection

TRUTH_SEED = 1_000_000
"""The first seed of the on-line runs that give the true value of an agent: far from any seed of a replay."""
REPLAY, ONLINE, AGENT = "replay", "online", "agent"


class Task(NamedTuple):
    """One replay to be played; of kind AGENT, only the summary of an agent whose replays are all there."""

    kind: str
    agent: int
    seed: int = 0

    @property
    def part(self) -> str:
        return f"{self.kind}-{self.agent}" if self.kind == AGENT else f"{self.kind}-{self.agent}-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a sweep runs on: the log and, where true values are asked for, a log of full information."""

    settings: Experiment
    prepared: PreparedLog
    truth: PreparedLog | None

    @property
    def online(self) -> PreparedLog | None:
        """The log on which the true values of agents that learn are found; None where that is not asked for."""
        return self.truth if self.settings.method == "rejection" else None

    def play(self, task: Task, rounds: int | None) -> Replay:
        """Play one replay; ``rounds`` is the horizon of those that give true values."""
        settings, agent = self.settings, self.settings.agents[task.agent]
        if task.kind == ONLINE:
            assert self.online is not None
            return replay_exact(self.online, agent, seed=task.seed, horizon=rounds, batch=settings.batch)
        if settings.method == "exact":
            return replay_exact(
                self.prepared,
                agent,
                seed=task.seed,
                horizon=settings.horizon,
                order=settings.order,
                batch=settings.batch,
            )
        return replay_rejection(
            self.prepared,
            agent,
            seed=task.seed,
            constant=settings.rejection.constant,
            horizon=settings.horizon,
            order=settings.order,
            batch=settings.batch,
        )

    def warm(self, agents: Iterable[BuiltIn]) -> None:
        """Compile what agents need and derive what they share, before workers start and clocks run."""
        kinds = {repr(_without_numbers(settings_of(agent))): agent for agent in agents}
        for agent in kinds.values():
            self._warm(agent)

    def _warm(self, agent: BuiltIn) -> None:
        if self.settings.method == "exact":
            replay_exact(self.prepared, agent, horizon=1)
        else:
            replay_rejection(self.prepared, agent, horizon=0)
        if self.online is not None:
            replay_exact(self.online, agent, horizon=1)


def _without_numbers(value: Any) -> Any:
    """Settings without the numbers in them, and without names: agents of one grid are then the same."""
    if isinstance(value, dict):
        return {key: _without_numbers(item) for key, item in value.items() if key != "name"}
    return None if isinstance(value, int | float) and not isinstance(value, bool) else value
