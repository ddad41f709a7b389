"""Policies, evidence and exact values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import InputError, MissingEvidenceError
from counterplay.estimators import evaluate
from counterplay.logs.log import Outcomes
from counterplay.replay.agents import Bandit, BuiltIn, Constant, FixedPolicy, Hybrid, Uniform
from counterplay.replay.evidence import exact_values, gather_evidence, with_outcomes
from counterplay.replay.freezing import policy_of
from counterplay.replay.policies import allowed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import Fixed, LogBarrier
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.worlds import without_outcomes, world

AGENTS: list[BuiltIn] = [
    Uniform(),
    Constant(),
    FixedPolicy(name="model", policy="llm"),
    FixedPolicy(name="two best", policy="two-best"),
    Bandit(dimensions=6),
    Hybrid(selector=LogBarrier(), bandit=Bandit(dimensions=6)),
]


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("shortlist", [None, 4])
def test_the_probabilities_of_every_policy_sum_to_one(agent: BuiltIn, shortlist: int | None) -> None:
    prepared = world(shortlist=shortlist)
    learned = replay_exact(prepared, agent).state
    p = policy_of(prepared, agent, learned).probabilities(prepared.log, np.arange(400))
    np.testing.assert_allclose(p.sum(axis=1), 1.0, atol=1e-12)
    assert (p >= 0).all()


@pytest.mark.parametrize("shortlist", [None, 4])
def test_a_frozen_hybrid_plays_with_the_probabilities_that_rejection_replay_accepts_with(shortlist: int | None) -> None:
    # One decision of the log, no learning before it: the expected acceptance is c pi/mu.
    prepared = world(shortlist=shortlist)
    agent = Hybrid(
        selector=Fixed(share=0.4), bandit=Bandit(dimensions=6, start="embedding-prior", exploration_rate=0.3)
    )
    policy = policy_of(prepared, agent)
    columns = allowed(prepared.log, np.arange(400))
    p = policy.probabilities(prepared.log, np.arange(400))
    logged = (p * (columns == prepared.log.action[:, None])).sum(axis=1)
    for row in range(20):
        part = prepared.part(np.array([row]))
        acceptance = replay_rejection(part, agent, constant=0.05).acceptance
        assert acceptance is not None
        assert acceptance.expected == pytest.approx(0.05 * logged[row] / prepared.log.propensity[row], rel=1e-6)


def test_exact_values_are_the_sums_of_probability_times_reward() -> None:
    prepared = world(shortlist=4)
    policies = [policy_of(prepared, agent) for agent in AGENTS[:4]]
    values = exact_values(prepared.log, policies)
    assert prepared.log.outcomes is not None
    for i, policy in enumerate(policies):
        for row in range(0, 400, 57):
            p = policy.probabilities(prepared.log, np.array([row]))[0]
            actions = allowed(prepared.log, np.array([row]))[0]
            by_hand = sum(
                p[j] * prepared.log.outcomes.reward(prepared.log.context[row], a) for j, a in enumerate(actions)
            )
            assert values[i, row] == pytest.approx(float(by_hand))


def test_the_truth_of_a_log_is_found_by_context_and_label_in_whatever_order_they_stand() -> None:
    prepared = world(actions=7)
    log = prepared.log
    assert log.outcomes is not None
    back = np.arange(400)[::-1]
    relabelled = replace(
        log,
        context_ids=[log.context_ids[i] for i in back],
        context=np.argsort(back).astype(np.int32),
        context_features=log.context_features[back],  # type: ignore[index]
        action_labels=log.action_labels[::-1],
        action_features=None,
        action=6 - log.action,
        outcomes=None,
        fingerprint="",
    )
    found = with_outcomes(relabelled, log).outcomes
    assert found is not None
    for row in range(0, 400, 33):
        for action in range(7):
            assert found.reward(relabelled.context[row], 6 - action) == log.outcomes.reward(log.context[row], action)


def test_a_truth_that_does_not_know_a_context_is_refused() -> None:
    log = world().log
    stranger = replace(log, context_ids=["new", *log.context_ids[1:]], fingerprint="")
    with pytest.raises(InputError, match="does not know 'new'"):
        with_outcomes(stranger, log)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_evidence_of_the_logging_policy_weighs_every_decision_one(seed: int, shortlist: bool) -> None:
    prepared = without_outcomes(world(seed=seed, shortlist=4 if shortlist else None))
    evidence = gather_evidence(prepared.log, [policy_of(prepared, Uniform())])
    np.testing.assert_allclose(evidence.target[0], evidence.propensity)
    for estimate in evaluate(evidence, ("ips", "snips")):
        assert estimate.value == pytest.approx(prepared.log.reward.mean())


def test_a_reward_model_on_other_folds_narrows_the_interval_and_keeps_the_truth() -> None:
    prepared = world(decisions=4000, shortlist=4)
    policy = policy_of(prepared, FixedPolicy(name="model", policy="llm"))
    exact = exact_values(prepared.log, [policy]).mean()
    ips, dr = evaluate(gather_evidence(prepared.log, [policy]), ("ips", "dr"))
    assert dr.std_error is not None
    assert ips.std_error is not None
    assert dr.value is not None
    assert dr.std_error < ips.std_error
    assert abs(dr.value - exact) < 4 * dr.std_error


def test_decisions_without_a_reward_are_no_evidence() -> None:
    log = replace(world().log, reward=np.full(400, np.nan), fingerprint="")
    with pytest.raises(MissingEvidenceError, match="400 of 400"):
        gather_evidence(log, [policy_of(PreparedLog(log), Uniform())])


def table(prepared: PreparedLog, rewards: list[list[float]]) -> PreparedLog:
    """Three decisions and two actions with these rewards; an entry of infinity stands in no row of the table."""
    short = prepared.log.subset(np.arange(3))
    kept = [[action for action in (0, 1) if row[action] != np.inf] for row in rewards]
    outcomes = Outcomes(
        offsets=np.cumsum([0, *map(len, kept)] + [0] * (len(short.context_ids) - 3)),
        actions=np.array([action for actions in kept for action in actions], dtype=np.int32),
        rewards=np.array([row[action] for row, actions in zip(rewards, kept, strict=True) for action in actions]),
        default=np.nan,
    )
    return PreparedLog(
        replace(short, action_labels=["a0", "a1"], action_features=None, outcomes=outcomes, action=np.zeros(3)), {}
    )


def test_the_best_constant_action_is_one_whose_reward_is_known_in_every_decision() -> None:
    start = world(actions=2)
    better_but_not_known = table(start, [[1, 0], [np.inf, 1], [1, 0]])
    assert better_but_not_known.constant("best")[0][:, 0].tolist() == [1, 1, 1]
    stored_as_unknown = table(start, [[1, 0], [np.nan, 1], [1, 0]])
    assert stored_as_unknown.constant("best")[0][:, 0].tolist() == [1, 1, 1]
    with pytest.raises(MissingEvidenceError, match="knows no action's reward in every decision"):
        table(start, [[1, np.nan], [np.inf, 1], [1, 0]]).constant("best")
