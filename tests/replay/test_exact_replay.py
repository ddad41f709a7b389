"""What exact replay promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from counterplay.errors import HorizonError, InputError, MissingEvidenceError, MissingOutputError, UnsupportedError
from counterplay.logs.log import Choices
from counterplay.replay.agents import Bandit, BuiltIn, Constant, FixedPolicy, Hybrid, Uniform
from counterplay.replay.evidence import exact_values
from counterplay.replay.freezing import policy_of
from counterplay.replay.kernels.records import SelectorSettings
from counterplay.replay.kernels.selection import base_probabilities, selector_step
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import Exponential, Fixed, LogBarrier, Polynomial, Selector
from counterplay.replay.settings import machine
from counterplay.replay.single import replay_exact
from counterplay.replay.spanner import barycentric_spanner, reduced
from tests.replay.worlds import without_outcomes, world

BANDIT = Bandit(dimensions=6)
SELECTORS: Sequence[Selector] = (Fixed(share=0.4), Polynomial(scale=5), Exponential(scale=2, rate=0.1), LogBarrier())


def test_a_hybrid_whose_models_always_act_is_the_model_byte_for_byte() -> None:
    prepared = world()
    model = replay_exact(prepared, FixedPolicy(policy="llm"))
    hybrid = replay_exact(prepared, Hybrid(selector=Fixed(share=1.0), bandit=BANDIT))
    assert (hybrid.action == model.action).all()
    assert (hybrid.reward == model.reward).all()
    assert hybrid.call.all()


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("rule", ["hard-stop", "linear"])
def test_a_hybrid_with_a_budget_of_nothing_is_the_bandit_byte_for_byte(selector: Selector, rule: str) -> None:
    prepared = world()
    alone = replay_exact(prepared, BANDIT)
    hybrid = replay_exact(prepared, Hybrid(selector=selector, bandit=BANDIT, budget=0, budget_rule=rule))  # type: ignore[arg-type]
    assert (hybrid.action == alone.action).all()
    assert hybrid.state is not None
    assert alone.state is not None
    assert (hybrid.state.weights == alone.state.weights).all()


@settings(max_examples=30, deadline=None)
@given(
    budget=st.integers(0, 500),
    selector=st.sampled_from(SELECTORS),
    rule=st.sampled_from(["hard-stop", "linear"]),
    seed=st.integers(0, 100),
    shortlist=st.sampled_from([None, 4]),
)
def test_a_budget_is_never_overrun(
    budget: int, selector: Selector, rule: str, seed: int, shortlist: int | None
) -> None:
    agent = Hybrid(selector=selector, bandit=BANDIT, budget=budget, budget_rule=rule)  # type: ignore[arg-type]
    replay = replay_exact(world(shortlist=shortlist), agent, seed=seed)
    assert replay.call.sum() <= budget


def test_the_calls_counted_are_the_decisions_in_which_a_model_acted() -> None:
    replay = replay_exact(world(), Hybrid(selector=Fixed(share=0.3), bandit=BANDIT))
    assert (replay.call == (replay.base == 1)).all()
    assert 0.2 < replay.call.mean() < 0.4


def test_an_agent_does_the_same_whatever_else_is_replayed_on_the_same_log() -> None:
    agents = [BANDIT, Hybrid(selector=LogBarrier(), bandit=BANDIT), Uniform()]
    together = world()
    for agent in agents:
        first = replay_exact(together, agent, seed=2)
        alone = replay_exact(world(), agent, seed=2)
        assert (first.action == alone.action).all()


def test_the_best_constant_is_the_most_frequent_right_action() -> None:
    prepared = world(actions=5)
    assert prepared.log.outcomes is not None
    counts = np.bincount(prepared.log.outcomes.actions)
    replay = replay_exact(prepared, Constant())
    assert replay.reward.mean() == pytest.approx(counts.max() / 400)


@pytest.mark.parametrize(
    "agent", [Uniform(), FixedPolicy(name="m", policy="llm"), FixedPolicy(name="2", policy="two-best")]
)
def test_replay_of_a_fixed_policy_averages_to_its_exact_value(agent: BuiltIn) -> None:
    prepared = world(shortlist=5)
    exact = exact_values(prepared.log, [policy_of(prepared, agent)]).mean()
    means = [replay_exact(prepared, agent, seed=seed).reward.mean() for seed in range(300)]
    error = np.std(means, ddof=1) / math.sqrt(len(means))
    assert abs(np.mean(means) - exact) <= 4 * error + 1e-12


def test_a_bandit_learns_and_a_hybrid_with_a_good_model_beats_it_early_on() -> None:
    prepared = world(decisions=3000, skill=0.6)
    bandit = replay_exact(prepared, BANDIT).reward
    hybrid = replay_exact(prepared, Hybrid(selector=Polynomial(scale=20), bandit=BANDIT)).reward
    uniform = replay_exact(prepared, Uniform()).reward
    assert bandit[-500:].mean() > bandit[:500].mean() + 0.1
    assert bandit.mean() > uniform.mean() + 0.1
    assert hybrid[:500].mean() > bandit[:500].mean() + 0.1


def test_a_start_from_the_embedding_prior_plays_the_nearest_action_at_first() -> None:
    prepared = world(actions=8)
    log = prepared.log
    assert log.context_features is not None
    assert log.action_features is not None
    agent = Bandit(dimensions=6, start="embedding-prior", exploration_rate=0.0)
    replay = replay_exact(prepared, agent, horizon=32, order="logged")
    assert (replay.action == (log.context_features[:32] @ log.action_features.T).argmax(axis=1)).all()


def test_a_log_without_outcomes_is_refused() -> None:
    with pytest.raises(MissingEvidenceError, match="rejection replay"):
        replay_exact(without_outcomes(world()), Uniform())


def test_an_outcome_that_nobody_knows_stops_the_replay() -> None:
    prepared = world()
    assert prepared.log.outcomes is not None
    partial = replace(prepared.log.outcomes, default=float("nan"))
    with pytest.raises(MissingEvidenceError, match="does not know"):
        replay_exact(PreparedLog(replace(prepared.log, outcomes=partial, fingerprint="")), Uniform())


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (BANDIT, 'from 0 to 5: rescale them, or set loss = "squared"'),
        (Hybrid(selector=LogBarrier(), bandit=Bandit(dimensions=6, loss="squared")), "log-barrier selector"),
    ],
)
def test_rewards_outside_0_to_1_are_refused_where_an_agent_would_go_quietly_wrong(agent: BuiltIn, message: str) -> None:
    prepared = world()
    outcomes = prepared.log.outcomes
    assert outcomes is not None
    richer = replace(prepared.log, outcomes=replace(outcomes, rewards=outcomes.rewards * 5), fingerprint="")
    stretched = PreparedLog(richer, prepared._choices)
    with pytest.raises(UnsupportedError, match=message):
        replay_exact(stretched, agent)
    squared = Hybrid(selector=Polynomial(scale=5), bandit=Bandit(dimensions=6, loss="squared"))
    assert replay_exact(stretched, squared).reward.max() == 5


def test_a_horizon_beyond_the_log_is_refused() -> None:
    with pytest.raises(HorizonError, match="401"):
        replay_exact(world(), Uniform(), horizon=401)


def test_a_missing_choice_stops_the_replay_unless_the_miss_policy_says_otherwise() -> None:
    prepared = world()
    stored = prepared._choices["llm"]
    actions = stored.actions.copy()
    actions[:7] = -1
    holes = PreparedLog(prepared.log, {"llm": replace(stored, actions=actions)})
    with pytest.raises(MissingOutputError, match=r"no choice for 7 .*counterplay generate"):
        replay_exact(holes, FixedPolicy(policy="llm"))
    assert len(replay_exact(holes, FixedPolicy(policy="llm", missing="uniform")).reward) == 400


def test_a_choice_outside_the_candidates_counts_as_missing() -> None:
    prepared = world(shortlist=3)
    assert prepared.log.candidates is not None
    outside = np.array([next(a for a in range(12) if a not in row) for row in prepared.log.candidates], np.int32)
    wrong = Choices(log="world", policy="llm", actions=outside[:, None], probabilities=np.ones((400, 1)))
    with pytest.raises(MissingOutputError, match="not allowed for 400"):
        replay_exact(PreparedLog(prepared.log, {"llm": wrong}), FixedPolicy(policy="llm"))


def test_an_unknown_stored_policy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(InputError, match="Did you mean 'llm'"):
        replay_exact(world(), FixedPolicy(policy="lm"))


def _schedule(selector: Selector) -> SelectorSettings:
    prepared = world(decisions=10)
    return machine(prepared, Hybrid(selector=selector, bandit=BANDIT), np.arange(10)).selector


@pytest.mark.parametrize(
    ("selector", "calls"),
    [(Polynomial(scale=100, power=1), 19_337), (Exponential(scale=100, rate=0.01), 14_908)],
)
def test_the_papers_schedules_cost_the_expected_number_of_calls(selector: Selector, calls: int) -> None:
    # 622,000 rounds in batches of 32 (Chen et al., 2024, table 5 reports 19,419.8 and 14,943.6 from five runs).
    state = machine(world(decisions=10), BANDIT, np.arange(10)).state
    settings_, p, total = _schedule(selector), np.empty(2), 0.0
    left = 622_000
    for batch in range(1, 19_439):
        base_probabilities(settings_, state, batch, p)
        size = min(32, left)
        total += size * p[1]
        left -= size
    assert left == 0
    assert round(total) == calls


def _barrier(inverse: NDArray[np.float64], losses: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    prepared = world(decisions=10)
    engine = machine(prepared, Hybrid(selector=LogBarrier(step=step), bandit=BANDIT), np.arange(10), batch=1)
    state = engine.state._replace(inverse=inverse.copy())
    selector_step(engine.selector, state, losses.copy())
    return state.inverse


@given(
    p=st.floats(1e-3, 1 - 1e-3),
    losses=st.tuples(st.floats(-40, 40), st.floats(-40, 40)),
    step=st.floats(1e-3, 0.99),
)
@settings(deadline=None)
def test_the_log_barrier_step_for_two_bases_equals_its_closed_form(
    p: float, losses: tuple[float, float], step: float
) -> None:
    inverse = np.array([1 / p, 1 / (1 - p)])
    moved = inverse + step * np.array(losses)
    d = abs(moved[0] - moved[1])
    small = (2 - d + math.sqrt(d * d + 4)) / 2
    expected = (small, small + d) if moved[0] <= moved[1] else (small + d, small)
    np.testing.assert_allclose(_barrier(inverse, np.array(losses), step), expected, rtol=1e-8)


@given(st.lists(st.floats(-30, 30), min_size=3, max_size=6), st.integers(0, 1000))
@settings(deadline=None)
def test_the_log_barrier_step_gives_probabilities_for_any_number_of_bases(losses: list[float], seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(len(losses)))
    after = 1 / _barrier(1 / np.maximum(p, 1e-6), np.array(losses), 0.1)
    assert after.sum() == pytest.approx(1.0, abs=1e-9)
    assert (after > 0).all()


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 30))
@settings(deadline=None, max_examples=50)
def test_a_spanner_expresses_every_action_with_coefficients_of_at_most_two(seed: int, width: int, count: int) -> None:
    vectors = reduced(np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32), width)
    chosen = barycentric_spanner(vectors)
    assert len(set(chosen.tolist())) == min(count, vectors.shape[1])
    coefficients = np.linalg.lstsq(vectors[chosen].T.astype(float), vectors.T.astype(float), rcond=None)[0]
    assert np.abs(coefficients).max() <= 2 + 1e-4
