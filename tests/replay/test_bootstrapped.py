"""What bootstrapped replay promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError, UnsupportedError
from counterplay.replay.agents import Bandit, FixedPolicy, LinUCB, Uniform
from counterplay.replay.bootstrapped import replay_bootstrapped
from counterplay.replay.plain import Decision
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.worlds import without_outcomes, world

LENGTH = 400


@pytest.fixture(scope="module")
def logs() -> tuple[PreparedLog, list[PreparedLog]]:
    """A world of five actions, and eight uniform logs of it."""
    whole = world(decisions=8 * LENGTH, actions=5, seed=1)
    parts = [whole.part(np.arange(i * LENGTH, (i + 1) * LENGTH)) for i in range(8)]
    return whole, [without_outcomes(part) for part in parts]


@pytest.mark.parametrize(
    "agent", [LinUCB(dimensions=6), Bandit(exploration="igw", dimensions=6)], ids=["linucb", "igw"]
)
def test_it_is_nearer_to_the_agent_on_line_over_l_rounds_than_plain_replay_over_a_fifth_of_them(
    logs: tuple[PreparedLog, list[PreparedLog]], agent: Any
) -> None:
    whole, parts = logs
    online = np.mean([replay_exact(whole, agent, seed=seed, horizon=LENGTH).reward.mean() for seed in range(60)])
    plainly = np.mean([replay_rejection(part, agent, seed=seed).reward.mean() for part in parts for seed in range(5)])
    ours = np.mean([replay_bootstrapped(part, agent, replicates=10, seed=3).value for part in parts])
    assert online - plainly > 0.1
    assert abs(ours - online) < 0.5 * (online - plainly)


def test_a_replicate_has_about_as_many_rounds_as_the_log_has_decisions(
    logs: tuple[PreparedLog, list[PreparedLog]],
) -> None:
    found = replay_bootstrapped(logs[1][0], LinUCB(dimensions=6), replicates=20)
    assert found.decisions == LENGTH
    assert found.actions == 5
    assert (np.abs(found.rounds - LENGTH) < 5 * LENGTH**0.5).all()
    assert found.jitter == pytest.approx(LENGTH**-0.5)


def test_of_a_policy_that_does_not_learn_it_is_the_bootstrap_of_plain_replay(
    logs: tuple[PreparedLog, list[PreparedLog]],
) -> None:
    # Every logged decision that the policy agrees with is accepted, so the mean over them is the bootstrap's centre.
    log, policy = logs[1][0], FixedPolicy(policy="llm")
    plainly = replay_rejection(log, policy)
    found = replay_bootstrapped(log, policy, replicates=200)
    assert found.value == pytest.approx(plainly.reward.mean(), abs=4 * found.std_error / 200**0.5)
    # It draws L rounds where the log has a fifth: its spread is that of L draws of these rewards.
    assert found.std_error == pytest.approx(plainly.reward.std() / LENGTH**0.5, rel=0.25)
    assert found.low < found.value < found.high
    assert found.value == found.values.mean()


class Memory:
    """Plays what earned a reward in a context that looks exactly like this one, else anything."""

    name = "memory"

    def init(self, seed: int) -> dict[bytes, int]:
        del seed
        return {}

    def probabilities(self, state: dict[bytes, int], decision: Decision) -> NDArray[np.float64]:
        assert decision.features is not None
        known = state.get(decision.features.tobytes(), -1)
        hit = (decision.actions == known).astype(float)
        return hit if hit.any() else np.full(len(hit), 1 / len(hit))

    def learn(self, state: dict[bytes, int], decision: Decision, action: int, reward: float) -> dict[bytes, int]:
        assert decision.features is not None
        return {**state, decision.features.tobytes(): action} if reward > 0.5 else state


def test_without_noise_an_agent_that_remembers_is_rewarded_for_it_and_with_noise_it_is_not() -> None:
    prepared = without_outcomes(world(decisions=120, actions=5, seed=2))
    still, moved = (replay_bootstrapped(prepared, Memory(), replicates=6, jitter=jitter) for jitter in (0.0, None))
    assert still.value > 0.3
    assert abs(moved.value - 0.2) < 0.06


def test_the_same_seed_gives_the_same_replicates_and_another_seed_others() -> None:
    prepared = without_outcomes(world(decisions=150, shortlist=4))
    first, again, other = (replay_bootstrapped(prepared, Bandit(), replicates=4, seed=seed) for seed in (1, 1, 2))
    assert (first.values == again.values).all()
    assert (first.values != other.values).any()
    more = replay_bootstrapped(prepared, Bandit(), replicates=6, seed=1)
    assert (more.values[:4] == first.values).all()


def test_a_log_without_features_has_nothing_to_move() -> None:
    prepared = without_outcomes(world(decisions=150, shortlist=4))
    bare = PreparedLog(replace(prepared.log, context_features=None, fingerprint="bare"))
    assert replay_bootstrapped(bare, Uniform(), replicates=3).jitter == 0.0
    with pytest.raises(ConfigurationError, match="nothing to move"):
        replay_bootstrapped(bare, Uniform(), replicates=3, jitter=0.1)


def test_logs_that_are_not_uniform_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"needs a uniform log; in .* of 400 decisions of log 'world'"):
        replay_bootstrapped(world(shortlist=4, uneven=True), Uniform())
    unknown = replace(world().log, propensity=np.full(400, np.nan), fingerprint="unknown")
    with pytest.raises(MissingEvidenceError, match="lacks them in 400 of 400"):
        replay_bootstrapped(PreparedLog(unknown), Uniform())


@pytest.mark.parametrize("change", [{"replicates": 1}, {"jitter": -0.1}, {"jitter": float("nan")}, {"seed": -1}])
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        replay_bootstrapped(world(shortlist=4), Uniform(), **change)
