"""What rejection replay promises."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.replay.agents import Bandit, FixedPolicy, Hybrid, Uniform
from counterplay.replay.evidence import exact_values
from counterplay.replay.freezing import policy_of
from counterplay.replay.plain import Decision
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, shuffled, uniforms
from counterplay.replay.selectors import LogBarrier, Polynomial
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.worlds import without_outcomes, world

BANDIT = Bandit(dimensions=6)
HYBRID = Hybrid(selector=LogBarrier(), bandit=BANDIT, budget=60)


class PlainBandit:
    """The built-in bandit again, in plain Python and as the paper writes it: logistic loss, Adam, batches of 32."""

    name = "plain bandit"

    def __init__(self, prepared: PreparedLog, batch: int = 32) -> None:
        self.vectors = prepared.features(BANDIT).actions
        assert prepared.log.context_features is not None
        self.shape = (prepared.log.context_features.shape[1], self.vectors.shape[1])
        self.batch = batch

    def init(self, seed: int) -> dict[str, Any]:
        del seed
        zero = np.zeros(self.shape)
        return {"W": zero, "b": 0.0, "m": zero, "v": zero, "mb": 0.0, "vb": 0.0, "t": 0, "seen": []}

    def probabilities(self, state: dict[str, Any], decision: Decision) -> NDArray[np.float64]:
        epsilon = (10 / (10 + state["t"])) ** (1 / 3)
        scores = decision.features @ state["W"].astype(np.float32) @ self.vectors[decision.actions].T
        best = min(decision.actions[scores == scores.max()])
        return epsilon / len(decision.actions) + (1 - epsilon) * (decision.actions == best)

    def learn(self, state: dict[str, Any], decision: Decision, action: int, reward: float) -> dict[str, Any]:
        seen = [*state["seen"], (decision.features, self.vectors[action], reward)]
        if len(seen) < self.batch:
            return {**state, "seen": seen}
        x, z, r = (np.array(column, dtype=np.float64) for column in zip(*seen, strict=True))
        logit = np.einsum("bd,dm,bm->b", x, state["W"], z) + state["b"]
        slope = (1 / (1 + np.exp(-logit)) - r) / self.batch
        t = state["t"] + 1
        rate = 0.1 * math.sqrt(1000 / (1000 + state["t"]))
        new: dict[str, Any] = {"t": t, "seen": []}
        for value, mean, square, gradient in (
            ("W", "m", "v", np.einsum("b,bd,bm->dm", slope, x, z)),
            ("b", "mb", "vb", slope.sum()),
        ):
            new[mean] = 0.9 * state[mean] + 0.1 * gradient
            new[square] = 0.999 * state[square] + 0.001 * gradient**2
            first, second = new[mean] / (1 - 0.9**t), new[square] / (1 - 0.999**t)
            new[value] = state[value] - rate * first / (np.sqrt(second) + 1e-8)
        return new


@pytest.mark.parametrize("uneven", [False, True])
def test_the_compiled_bandit_accepts_the_decisions_that_the_papers_bandit_in_plain_python_accepts(uneven: bool) -> None:
    prepared = world(decisions=3000, shortlist=5, uneven=uneven)
    compiled = replay_rejection(prepared, BANDIT, constant=0.1)
    plain = replay_rejection(prepared, PlainBandit(prepared), constant=0.1)
    assert compiled.acceptance is not None
    assert compiled.acceptance.accepted > 200
    assert (compiled.decision == plain.decision).all()
    assert compiled.acceptance.violations == plain.acceptance.violations  # type: ignore[union-attr]
    assert compiled.acceptance.expected == pytest.approx(plain.acceptance.expected)  # type: ignore[union-attr]


def test_who_acted_follows_the_posterior_given_the_logged_action() -> None:
    # The model and a uniform base at equal shares, 4 candidates: given the model's action, it was the model in 4 of 5.
    prepared = world(decisions=4000, shortlist=4)
    agent = Hybrid(
        selector=Polynomial(scale=1e9, most=0.5), bandit=Bandit(dimensions=6, learning_rate=0.0, exploration_delay=1e12)
    )
    replay = replay_rejection(prepared, agent)
    same = replay.action == prepared.table("llm", "stop")[0][replay.decision, 0]
    assert not replay.call[~same].any()
    assert replay.call[same].mean() == pytest.approx(0.8, abs=0.05)


def test_acceptance_is_counted_and_violations_are_reported() -> None:
    prepared = world(decisions=2000, shortlist=4, uneven=True)
    fair = replay_rejection(prepared, FixedPolicy(policy="llm")).acceptance
    greedy = replay_rejection(prepared, FixedPolicy(policy="llm"), constant=0.9).acceptance
    assert fair is not None
    assert greedy is not None
    assert fair.violations == 0
    assert fair.read == 2000
    assert abs(fair.accepted - fair.expected) < 5 * math.sqrt(fair.expected)
    assert greedy.violations > 100
    assert greedy.excess > 0
    assert greedy.expected < 2000


def test_the_mean_of_accepted_rewards_is_the_policys_value_whatever_the_propensities() -> None:
    prepared = world(decisions=1500, shortlist=4)
    policy = FixedPolicy(name="two best", policy="two-best")
    exact = exact_values(prepared.log, [policy_of(prepared, policy)]).mean()
    means = []
    for seed in range(120):
        uneven = world(decisions=1500, shortlist=4, uneven=True, seed=0)
        columns = allowed(uneven.log, np.arange(1500))
        weights = np.arange(1, 5) / 10
        place = np.searchsorted(weights.cumsum(), uniforms(seed, Purpose.LOGGING, 1500))
        action = columns[np.arange(1500), place]
        assert prepared.log.outcomes is not None
        log = replace(
            prepared.log,
            action=action,
            propensity=weights[place],
            reward=prepared.log.outcomes.reward(prepared.log.context, action),
            fingerprint="",
        )
        means.append(replay_rejection(PreparedLog(log, prepared._choices), policy, seed=seed).reward.mean())
    assert abs(np.mean(means) - exact) <= 3.5 * np.std(means, ddof=1) / math.sqrt(len(means))


def test_a_log_too_short_for_the_horizon_says_how_long_it_would_have_to_be() -> None:
    with pytest.raises(HorizonError, match=r"about .* decisions would be needed"):
        replay_rejection(without_outcomes(world(shortlist=4)), Uniform(), horizon=399)


def test_a_log_without_propensities_is_refused_by_name() -> None:
    prepared = world(shortlist=4)
    log = replace(prepared.log, propensity=np.full(400, np.nan), regime="observed", fingerprint="")
    with pytest.raises(MissingEvidenceError, match="lacks them in 400 of 400"):
        replay_rejection(PreparedLog(log), Uniform())


@pytest.mark.parametrize("constant", [0.0, -1.0, 1.5])
def test_a_constant_outside_its_range_is_refused(constant: float) -> None:
    with pytest.raises(UnsupportedError, match="constant c"):
        replay_rejection(world(), Uniform(), constant=constant)


def test_probabilities_of_a_users_agent_are_checked() -> None:
    class Careless:
        name = "careless"

        def init(self, seed: int) -> None: ...

        def probabilities(self, state: None, decision: Decision) -> NDArray[np.float64]:
            del state
            return np.ones(len(decision.actions))

        def learn(self, state: None, decision: Decision, action: int, reward: float) -> None: ...

    with pytest.raises(ConfigurationError, match="sum 12"):
        replay_exact(world(), Careless())


def test_luck_is_the_same_in_one_piece_and_in_many() -> None:
    whole = uniforms(7, Purpose.ACCEPT, 1000)
    pieces = [uniforms(7, Purpose.ACCEPT, min(37, 1000 - start), start=start) for start in range(0, 1000, 37)]
    assert (np.concatenate(pieces) == whole).all()
    assert not (uniforms(7, Purpose.BASE, 1000) == whole).any()
    assert not (uniforms(8, Purpose.ACCEPT, 1000) == whole).any()


def test_an_order_is_a_permutation_that_depends_on_the_seed_alone() -> None:
    assert sorted(shuffled(3, 500)) == list(range(500))
    assert (shuffled(3, 500) == shuffled(3, 500)).all()
    assert (shuffled(3, 500) != shuffled(4, 500)).any()
