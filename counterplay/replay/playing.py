"""How each method of replay plays one agent under one seed: every one of them leaves a history of rounds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.agents import BuiltIn
from counterplay.replay.bootstrapped import bootstrap_replicate
from counterplay.replay.doubly_robust import FITTED_SHARE, DoublyRobustReplay, replay_doubly_robust
from counterplay.replay.experiment import Experiment
from counterplay.replay.history import Replay
from counterplay.replay.methods import BootstrappedSettings, DoublyRobustSettings, RejectionSettings
from counterplay.replay.portions import Portion
from counterplay.replay.predictions import fitted_on
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.queue_runs import States, queue_run, states_of
from counterplay.replay.reward_models import FittedRewards
from counterplay.replay.single import replay_exact, replay_rejection

Found = TypeVar("Found")


class Value(NamedTuple):
    """A value that is not the mean reward of the history, with its standard error over decisions."""

    value: float
    std_error: float


@dataclass(frozen=True, kw_only=True)
class Played:
    """What was left of one replay.

    history: its rounds. value: None where it is their mean reward. acceptance: fields of the acceptance report, with
    ``effective_sample_size`` and ``mean_weight`` of a doubly robust replay. unsupported: of a run from queues, the mean
    probability of actions never logged in the context at hand.
    """

    history: Replay
    value: Value | None = None
    acceptance: dict[str, float] | None = None
    unsupported: float | None = None


class Ground:
    """What all replays of one method on one log share.

    Args:
        settings: the experiment; its agents play no part.
        prepared: the log.
        rows: `(n',)` the decisions to replay, by position; default: all.
        constant: c of rejection replay, where it is not the one that the settings name.
    """

    def __init__(
        self,
        settings: Experiment,
        prepared: PreparedLog,
        rows: NDArray[np.int64] | None = None,
        constant: float | None = None,
    ) -> None:
        self.settings, self.prepared = settings, prepared
        self.rows = np.arange(len(prepared.log.context)) if rows is None else rows
        self.portion = prepared if rows is None else Portion(prepared, rows)
        self.constant = constant
        _ = prepared._shared

    def play(self, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
        """Play an agent under a seed, for ``horizon`` rounds or, with None, as long as the method goes.

        Raises:
            HorizonError: it came to its end before; the message says how many decisions would be needed.
        """
        return _METHODS[self.settings.method](self, agent, seed, horizon)

    def warm(self, agent: BuiltIn) -> None:
        """Compile what an agent needs and derive what all replays share."""
        method = self.settings.method
        if method in ("rejection", "bootstrapped"):
            replay_rejection(self.portion, agent, horizon=0)
        else:
            with suppress(HorizonError, UnsupportedError):  # told when it is played
                self.play(agent, self.settings.first_seed, 1)

    @cached_property
    def states(self) -> States:
        """The states of the log, for queues."""
        return states_of(self.prepared.log, self.settings.method == "per-state")

    @cached_property
    def modelled(self) -> tuple[PreparedLog, FittedRewards | None]:
        """A reward model of the first fifth of the decisions, and the others: as ``replay_doubly_robust`` has it, but
        fitted once. Without a model where rewards are lacking, which the replay then says."""
        cut, log = int(len(self.rows) * FITTED_SHARE), self.prepared.log
        if not np.isfinite(log.reward).all():
            return self.portion, None
        return Portion(self.prepared, self.rows[cut:]), fitted_on(log, self.rows[:cut])


def _exact(ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
    settings = ground.settings
    history = replay_exact(
        ground.portion,
        agent,
        seed=seed,
        horizon=horizon,
        order=settings.order,
        batch=settings.batch,
        alone=settings.alone,
    )
    unknown = 0 if history.alone is None else int(np.isnan(history.alone).sum())
    if unknown:
        raise MissingEvidenceError(
            f"the outcome table of log '{ground.prepared.log.name}' does not know what the bandit of '{agent.name}' "
            f"would have earned alone in {unknown:,} of {len(history.reward):,} rounds: leave alone = true out."
        )
    return Played(history=history)


def _rejection(ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
    settings, own = ground.settings, ground.settings.rejection or RejectionSettings()
    constant = own.constant if ground.constant is None else ground.constant

    def replayed(rounds: int | None) -> Replay:
        return replay_rejection(
            ground.portion,
            agent,
            seed=seed,
            constant=constant,
            horizon=rounds,
            order=settings.order,
            batch=settings.batch,
        )

    def reported(history: Replay) -> Acceptance:
        assert history.acceptance is not None
        return history.acceptance

    history = _reached(replayed, reported, ground, agent, seed, horizon)
    return Played(history=history, acceptance=asdict(reported(history)))


def _doubly_robust(ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
    settings, own = ground.settings, ground.settings.doubly_robust or DoublyRobustSettings()
    portion, model = ground.modelled if own.estimator in ("dr", "dm") else (ground.portion, None)

    def replayed(rounds: int | None) -> DoublyRobustReplay:
        return replay_doubly_robust(
            portion,
            agent,
            seed=seed,
            quantile=own.quantile,
            constant=own.constant,
            horizon=rounds,
            order=settings.order,
            batch=settings.batch,
            estimator=own.estimator,
            model=model,
        )

    found = _reached(replayed, lambda one: one.acceptance, ground, agent, seed, horizon)
    weights = {"effective_sample_size": found.effective, "mean_weight": found.mean_weight}
    return Played(
        history=found.history,
        value=Value(found.value, found.std_error),
        acceptance={**asdict(found.acceptance), **weights},
    )


def _bootstrapped(ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
    own = ground.settings.bootstrapped or BootstrappedSettings()
    batch = ground.settings.batch
    history = bootstrap_replicate(ground.prepared, agent, seed, jitter=own.jitter, horizon=horizon, batch=batch)
    assert history.acceptance is not None
    return Played(history=history, acceptance=asdict(history.acceptance))


def _queues(ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> Played:
    settings, log = ground.settings, ground.prepared.log
    per_state = settings.method == "per-state"
    if horizon is not None and horizon > len(log.context):
        raise HorizonError(
            f"the horizon is {horizon:,}, but log '{log.name}' has {len(log.context):,} decisions, and each of "
            "their rewards is used once."
        )
    run = queue_run(
        ground.states, ground.prepared, agent, per_state=per_state, seed=seed, horizon=horizon, batch=settings.batch
    )
    rounds = len(run.replay.reward)
    if rounds == 0 or (horizon is not None and rounds < horizon):
        wanted = "before its first round" if horizon is None else f"after {rounds:,} of {horizon:,} rounds"
        support = f"it gave {run.unsupported:.1%} of its probability to actions never logged in the context at hand"
        raise HorizonError(
            f"'{agent.name}' came to an empty queue of log '{log.name}' {wanted} (seed {seed}); {support}. "
            f"{ground.states.count:,} contexts occur {len(log.context) / ground.states.count:.1f} times on average: "
            "take a log in which they repeat more often, a shorter horizon, or leave the agent out."
        )
    return Played(history=run.replay, unsupported=run.unsupported)


_METHODS: dict[str, Callable[[Ground, BuiltIn, int, int | None], Played]] = {
    "exact": _exact,
    "rejection": _rejection,
    "doubly-robust": _doubly_robust,
    "bootstrapped": _bootstrapped,
    "queues": _queues,
    "per-state": _queues,
}


def _reached(
    replayed: Callable[[int | None], Found],
    reported: Callable[[Found], Acceptance],
    ground: Ground,
    agent: BuiltIn,
    seed: int,
    horizon: int | None,
) -> Found:
    """A replay of so many rounds, at least one; where the log ends before, how long it would have to be."""
    try:
        found = replayed(horizon)
        report = reported(found)
    except HorizonError as error:
        raise HorizonError(_too_short(reported(replayed(None)), ground, agent, seed, horizon)) from error
    if report.accepted == 0:
        raise HorizonError(_too_short(report, ground, agent, seed, horizon))
    return found


def _too_short(report: Acceptance, ground: Ground, agent: BuiltIn, seed: int, horizon: int | None) -> str:
    """How many decisions would be needed, from the sum of the acceptance probabilities: it says something, with less
    luck in it than the rounds accepted, even where there are none."""
    wanted = horizon or 1
    rounds = "one round" if wanted == 1 else f"{wanted:,} rounds"
    start = (
        f"'{agent.name}' was accepted {report.accepted:,} times in {report.read:,} decisions of log "
        f"'{ground.prepared.log.name}' (seed {seed}, c at most {report.constant:.3g})"
    )
    if report.expected == 0:
        return f"{start}: it never does what was logged, so no log of this kind is long enough. Leave the agent out."
    needed = int(np.ceil(report.read * wanted / report.expected))
    return (
        f"{start}; {report.expected:.3g} were to be expected. For {rounds} about {needed:,} decisions are needed, or a "
        "larger c, as far as violations allow."
    )
