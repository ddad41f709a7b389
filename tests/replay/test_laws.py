"""Laws that every built-in agent keeps, whatever it explores with and whoever selects: all agents of ``twin.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from counterplay.logs.log import Choices, Outcomes
from counterplay.replay.agents import Bandit, BuiltIn, Hybrid, Learner
from counterplay.replay.history import Replay
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, uniforms
from counterplay.replay.selectors import Fixed, LogBarrier, Selector
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.twin import BANDITS, SELECTORS
from tests.replay.worlds import world

SMALL = Bandit(dimensions=5)
HYBRIDS = tuple(Hybrid(name=str(selector), selector=selector, bandit=SMALL, budget=90) for selector in SELECTORS)
NAMES = [str(i) + " " + type(agent).__name__ for i, agent in enumerate((*BANDITS, *HYBRIDS))]


def _redrawn(prepared: PreparedLog, seed: int) -> PreparedLog:
    """The same contexts, logged again: new actions, tried uniformly."""
    log = prepared.log
    columns = allowed(log, np.arange(len(log.context)))
    place = np.floor(uniforms(seed, Purpose.LOGGING, len(columns)) * columns.shape[1]).astype(int)
    action = columns[np.arange(len(columns)), place]
    assert log.outcomes is not None
    reward = log.outcomes.reward(log.context, action)
    propensity = np.full(len(columns), 1 / columns.shape[1])
    return PreparedLog(
        replace(log, action=action, reward=reward, propensity=propensity, fingerprint=""), prepared._choices
    )


MEASURES: dict[str, Callable[[Replay], float]] = {
    "reward": lambda replay: float(replay.reward.mean()),
    "late reward": lambda replay: float(replay.reward[-30:].mean()),
    "calls": lambda replay: float(replay.call.sum()),
    "last p of the bandit": lambda replay: float(replay.p_bandit[-1]),
    "different actions": lambda replay: float(len(np.unique(replay.action))),
}


@pytest.mark.parametrize("agent", [*BANDITS, *HYBRIDS], ids=NAMES)
def test_on_a_uniform_log_the_accepted_history_has_the_law_of_an_online_run(agent: BuiltIn) -> None:
    # Contexts are independent draws in both, so whole histories have one law: whatever is measured of them has too.
    prepared, horizon, runs = world(decisions=700, shortlist=3), 120, 150
    online = [replay_exact(prepared, agent, seed=seed, horizon=horizon, batch=8) for seed in range(runs)]
    offline = [
        replay_rejection(_redrawn(prepared, seed), agent, seed=10_000 + seed, horizon=horizon, batch=8)
        for seed in range(runs)
    ]
    for name, measure in MEASURES.items():
        ours, theirs = (np.array([measure(replay) for replay in group]) for group in (offline, online))
        error = math.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / runs)
        assert abs(ours.mean() - theirs.mean()) <= 4 * error + 1e-9, name
        assert ks_2samp(ours.round(9), theirs.round(9), method="asymp").pvalue > 1e-4, name


@pytest.mark.parametrize("bandit", BANDITS, ids=NAMES[: len(BANDITS)])
@pytest.mark.parametrize("play", [replay_exact, replay_rejection])
def test_a_hybrid_that_never_or_always_asks_is_its_base_byte_for_byte(
    bandit: Learner, play: Callable[..., Replay]
) -> None:
    prepared = world(decisions=300, shortlist=4)
    alone = play(prepared, bandit, seed=4, batch=8)
    for hybrid in (
        Hybrid(selector=Fixed(share=0.0), bandit=bandit),
        Hybrid(selector=LogBarrier(), bandit=bandit, budget=0),
        Hybrid(selector=LogBarrier(), bandit=bandit, money=0.0, prices=(1.0,)),
    ):
        within = play(prepared, hybrid, seed=4, batch=8)
        for field in ("decision", "action", "reward", "base", "p_bandit"):
            assert (getattr(within, field) == getattr(alone, field)).all(), field
    always = play(prepared, Hybrid(selector=Fixed(share=1.0), bandit=bandit), seed=4, batch=8)
    assert (always.base == 1).all()
    if play is replay_exact:
        assert (always.action == prepared.table("llm", "stop")[0][always.decision, 0]).all()


def _relabelled(prepared: PreparedLog, new: NDArray[np.int32]) -> PreparedLog:
    log, old = prepared.log, np.argsort(new)
    assert log.candidates is not None
    assert log.outcomes is not None
    assert log.action_features is not None
    outcomes = Outcomes(
        offsets=log.outcomes.offsets, actions=new[log.outcomes.actions], rewards=log.outcomes.rewards, default=0.0
    )
    again = replace(
        log,
        candidates=new[log.candidates],
        action=new[log.action],
        action_features=log.action_features[old],
        outcomes=outcomes,
        fingerprint="",
    )
    choices = {
        name: Choices(
            log=own.log,
            policy=name,
            actions=np.where(own.actions < 0, -1, new[own.actions]).astype(np.int32),
            probabilities=own.probabilities,
        )
        for name, own in prepared._choices.items()
    }
    return PreparedLog(again, choices)


@pytest.mark.parametrize("exploration", ["spanner-greedy", "epsilon-greedy", "softmax", "igw", "thompson"])
@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_relabelling_the_actions_changes_no_reward(exploration: str, selector: Selector) -> None:
    # Ties between equal scores go to the lowest action, so the bandit starts where no two scores are equal.
    prepared = world(actions=9, shortlist=5, decisions=150)
    new = np.random.default_rng(1).permutation(9).astype(np.int32)
    bandit = Bandit(dimensions=6, start="embedding-prior", exploration=exploration)  # type: ignore[arg-type]
    for agent in (bandit, Hybrid(selector=selector, bandit=bandit, models=("llm", "two-best"))):
        before = replay_exact(prepared, agent, batch=8)
        after = replay_exact(_relabelled(prepared, new), agent, batch=8)
        assert (before.reward == after.reward).all()
        assert (new[before.action] == after.action).all()
