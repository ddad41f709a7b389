"""What doubly robust replay promises."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.estimators import evaluate
from counterplay.logs.chunks import Chunk, chunk_of
from counterplay.replay.agents import Bandit, BuiltIn, FixedPolicy, Hybrid, LinTS, LinUCB, Uniform
from counterplay.replay.doubly_robust import replay_doubly_robust
from counterplay.replay.doubly_robust_loops import Rule, replay_one_by_one
from counterplay.replay.evidence import evidence_of, exact_values
from counterplay.replay.freezing import policy_of
from counterplay.replay.history import empty_trace
from counterplay.replay.kernels.doubly_robust import ABOVE, BELOW, Progress, add_ratio
from counterplay.replay.plain import Decision
from counterplay.replay.players import player_of
from counterplay.replay.policies import allowed
from counterplay.replay.predictions import predicted_pieces
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.randomness import Purpose, uniforms
from counterplay.replay.reward_models import fit_rewards
from counterplay.replay.selectors import LogBarrier, Polynomial, Priced, Unsure
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.worlds import without_outcomes, world

BANDIT = Bandit(dimensions=6)
HYBRID = Hybrid(selector=LogBarrier(), bandit=BANDIT, budget=40)
TWO_BEST = FixedPolicy(name="two best", policy="two-best")
Floats = NDArray[np.float64]


def relogged(prepared: PreparedLog, seed: int) -> PreparedLog:
    """The same contexts, logged again, unevenly: candidate number s with probability (s + 1) / (1 + ... + S)."""
    log = prepared.log
    rows = np.arange(len(log.context))
    columns = allowed(log, rows)
    weights = np.arange(1, columns.shape[1] + 1) / sum(range(1, columns.shape[1] + 1))
    place = np.searchsorted(weights.cumsum(), uniforms(seed, Purpose.LOGGING, len(rows)), side="right")
    place = np.minimum(place, columns.shape[1] - 1)
    action = columns[rows, place]
    assert log.outcomes is not None
    reward = log.outcomes.reward(log.context, action)
    again = replace(log, action=action, reward=reward, propensity=weights[place], fingerprint="again")
    return PreparedLog(again, prepared._choices)


def wrong(log: Chunk, rows: NDArray[np.int64]) -> Floats:
    """A reward model that knows nothing, and says so differently everywhere."""
    columns = allowed(log, rows)
    return np.asarray(0.8 * np.sin(columns + 3.0 * rows[:, None]), np.float64)


def perfect(prepared: PreparedLog) -> Callable[[Chunk, NDArray[np.int64]], Floats]:
    outcomes = prepared.log.outcomes
    assert outcomes is not None
    return lambda log, rows: outcomes.reward(log.context[rows, None], allowed(log, rows))


# --- What is estimated


@pytest.fixture(scope="module")
def small() -> PreparedLog:
    return world(decisions=260, shortlist=3, skill=0.6)


@pytest.mark.parametrize("agent", [BANDIT, HYBRID, LinUCB(dimensions=3)], ids=["bandit", "hybrid", "linucb"])
def test_with_a_wrong_model_and_right_propensities_the_value_is_that_of_the_agent_on_line(
    small: PreparedLog, agent: BuiltIn
) -> None:
    # c = 1/6, so decision k (from 0) meets the agent after Binomial(k, c) rounds: on line, the same mean over rounds.
    c, count, longest = 1 / 6, len(small.log.context), 100
    chance, share = np.eye(longest)[0], np.zeros(longest)
    for _ in range(count):
        share += chance / count
        chance = chance * (1 - c) + np.concatenate(([0.0], chance[:-1])) * c
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    online = [share @ replay_exact(small, agent, seed=seed, horizon=longest, batch=8).reward for seed in range(800)]
    offline = [
        replay_doubly_robust(relogged(small, seed), agent, seed=seed, constant=c, batch=8, model=wrong).value
        for seed in range(400)
    ]
    error = math.hypot(np.std(offline, ddof=1) / math.sqrt(400), np.std(online) / math.sqrt(800))
    assert abs(np.mean(offline) - np.mean(online)) <= 3 * error


@pytest.mark.parametrize("agent", [BANDIT, HYBRID], ids=["bandit", "hybrid"])
def test_with_a_horizon_r_over_t_is_the_agents_mean_reward_over_its_first_rounds(
    small: PreparedLog, agent: BuiltIn
) -> None:
    horizon, runs = 20, 400
    online = [replay_exact(small, agent, seed=seed, horizon=horizon, batch=8).reward.mean() for seed in range(800)]
    found = [
        replay_doubly_robust(relogged(small, seed), agent, seed=seed + 9000, horizon=horizon, batch=8, model=wrong)
        for seed in range(runs)
    ]
    offline = [estimate.per_round for estimate in found]
    assert all(estimate.acceptance.violations == 0 for estimate in found)
    error = math.hypot(np.std(offline, ddof=1) / math.sqrt(runs), np.std(online) / math.sqrt(800))
    assert abs(np.mean(offline) - np.mean(online)) <= 3 * error


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "dm"])
def test_for_a_policy_that_does_not_learn_it_is_the_ordinary_estimate(small: PreparedLog, estimator: str) -> None:
    prepared = relogged(small, 5)
    chunk = chunk_of(prepared.log)
    rewards = fit_rewards(lambda: [chunk])
    (ordinary,) = evaluate(evidence_of(chunk, [policy_of(prepared, TWO_BEST)], rewards), estimator)
    model = rewards if estimator in ("dr", "dm") else None
    found = replay_doubly_robust(prepared, TWO_BEST, estimator=estimator, model=model)  # type: ignore[arg-type]
    assert found.value == pytest.approx(ordinary.value, rel=1e-12)
    assert found.std_error == pytest.approx((ordinary.high - ordinary.low) / 2 / 1.96, rel=0.05)
    assert found.decisions == len(prepared.log.context)


@pytest.mark.parametrize("estimator", ["ips", "snips", "dr", "dm"])
def test_decisions_that_share_a_cluster_are_one_unit(small: PreparedLog, estimator: str) -> None:
    prepared = relogged(small, 5)
    cluster = np.arange(len(prepared.log.context)) // 4
    # Decisions of a cluster earn alike, so that clusters matter.
    reward = 0.5 * prepared.log.reward + 0.5 * (np.random.default_rng(2).random(cluster.max() + 1) < 0.5)[cluster]
    log = replace(prepared.log, cluster=cluster, reward=reward, fingerprint="clustered")
    prepared = PreparedLog(log, prepared._choices)
    chunk = chunk_of(prepared.log)
    rewards = fit_rewards(lambda: [chunk])
    evidence = evidence_of(chunk, [policy_of(prepared, TWO_BEST)], rewards)
    (ordinary,) = evaluate(evidence, estimator)
    (as_if,) = evaluate(evidence.part(slice(None), clustered=False), estimator)
    model = rewards if estimator in ("dr", "dm") else None
    found = replay_doubly_robust(prepared, TWO_BEST, estimator=estimator, model=model)  # type: ignore[arg-type]
    assert found.units == 65
    assert found.value == pytest.approx(ordinary.value, rel=1e-12)
    assert found.std_error == pytest.approx(ordinary.std_error, rel=1e-9)
    assert found.std_error != pytest.approx(as_if.std_error, rel=0.01)


def test_with_a_perfect_model_the_estimate_of_a_policy_does_not_depend_on_what_was_logged(small: PreparedLog) -> None:
    exact = exact_values(small.log, [policy_of(small, TWO_BEST)])[0]
    for seed in range(5):
        found = replay_doubly_robust(relogged(small, seed), TWO_BEST, model=perfect(small))
        assert found.value == pytest.approx(exact.mean(), abs=1e-12)
        assert found.std_error == pytest.approx(exact.std(ddof=1) / math.sqrt(len(exact)))


def test_equal_rewards_leave_nothing_uncertain_in_self_normalised_and_perfectly_modelled_estimates() -> None:
    prepared = without_outcomes(world(decisions=300, shortlist=3))
    flat = PreparedLog(replace(prepared.log, reward=np.full(300, 0.4), fingerprint="flat"), prepared._choices)
    always: Any = lambda log, rows: np.full(allowed(log, rows).shape, 0.4)  # noqa: E731
    for found in (
        replay_doubly_robust(flat, BANDIT, estimator="snips"),
        replay_doubly_robust(flat, BANDIT, estimator="dr", model=always),
    ):
        assert found.value == pytest.approx(0.4)
        assert found.high - found.low < 1e-12


def test_intervals_of_a_policy_cover_its_value_in_19_of_20_logs() -> None:
    big = world(decisions=40_000, shortlist=3, skill=0.6)
    value = exact_values(big.log, [policy_of(big, TWO_BEST)])[0].mean()
    covered = []
    for seed in range(300):
        rows = np.floor(uniforms(seed, Purpose.PRETRAINING, 300) * 40_000).astype(np.int64)
        found = replay_doubly_robust(relogged(big.part(rows), seed), TWO_BEST, seed=seed, quantile=0.05)
        covered.append(found.low <= value <= found.high)
    assert 0.91 <= np.mean(covered) <= 0.985


# --- The history


@pytest.mark.parametrize("agent", [BANDIT, HYBRID, TWO_BEST, LinTS(dimensions=3)], ids=lambda agent: agent.name)
def test_with_one_constant_the_history_is_that_of_rejection_replay(agent: BuiltIn) -> None:
    prepared = world(decisions=1500, shortlist=4, uneven=True)
    plainly = replay_rejection(prepared, agent, seed=2)
    ours = replay_doubly_robust(prepared, agent, seed=2, estimator="ips").history
    assert (ours.decision == plainly.decision).all()
    assert (ours.base == plainly.base).all()
    assert ours.acceptance is not None
    assert plainly.acceptance is not None
    assert ours.acceptance.expected == pytest.approx(plainly.acceptance.expected)


def test_a_quantile_above_0_accepts_more_and_says_at_what_price() -> None:
    prepared = world(decisions=4000, shortlist=5)
    fair, quick = (replay_doubly_robust(prepared, BANDIT, quantile=q, estimator="ips") for q in (0.0, 0.05))
    assert quick.acceptance.accepted > 1.5 * fair.acceptance.accepted
    assert fair.acceptance.violations == 0
    assert fair.acceptance.first == fair.acceptance.last == fair.acceptance.least == pytest.approx(0.2)
    assert quick.acceptance.violations > 0
    assert quick.acceptance.excess > 0
    assert quick.acceptance.first == pytest.approx(0.2)
    assert quick.acceptance.last > 0.3
    assert quick.acceptance.least <= quick.acceptance.first


def test_a_constant_that_proves_too_great_falls_at_the_next_acceptance() -> None:
    prepared = world(decisions=2000, shortlist=4, uneven=True)
    found = replay_doubly_robust(prepared, TWO_BEST, constant=1.0, estimator="ips").acceptance
    ratio = prepared.log.propensity.min()
    assert found.first == found.constant == 1.0
    assert ratio <= found.last == found.least < 1.0


@pytest.mark.parametrize("quantile", [0.0, 0.01, 0.3, 0.97])
def test_the_quantile_of_what_was_seen_so_far_is_exact(quantile: float) -> None:
    values = np.random.default_rng(3).exponential(size=700).round(2)
    progress = Progress(
        counts=np.zeros(7, np.int64),
        acceptance=np.array([1.0, 1.0, np.inf, 0.0, 0.0]),
        moments=np.zeros(10),
        terms=np.empty((0, 2)),
        p=np.zeros(1),
        losses=np.zeros(1),
        below=np.zeros(702),
        above=np.zeros(702),
    )
    for n, value in enumerate(values, start=1):
        add_ratio(progress, quantile, value)
        seen = progress.acceptance[2] if quantile == 0 else -progress.below[0]
        assert seen == np.quantile(values[:n], quantile, method="lower")
    assert quantile == 0 or progress.counts[BELOW] + progress.counts[ABOVE] == 700


# --- Another way to the same numbers


def textbook(
    prepared: PreparedLog, agent: Any, seed: int, quantile: float, most: float, first: float, model: Any
) -> dict[str, float]:
    """DR-ns of a plain agent in plain numpy, as the paper lists it."""
    log, luck, state = prepared.log, prepared.luck(seed), agent.init(seed)
    terms, weights, ratios, c, accepted = [], [], [], first, 0
    for k in prepared.order(seed, True):
        columns = allowed(log, np.array([k]))[0]
        decision = Decision(features=log.context_features[log.context[k]], actions=columns, action_features=None)
        pi = agent.probabilities(state, decision)
        q = model(chunk_of(log), np.array([k]))[0]
        logged = int(np.flatnonzero(columns == log.action[k])[0])
        w = pi[logged] / log.propensity[k]
        terms.append(pi @ q + w * (log.reward[k] - q[logged]))
        weights.append(c)
        if w > 0:
            ratios.append(1 / w)
        if luck.accept[k] < c * w:
            state = agent.learn(state, decision, int(log.action[k]), float(log.reward[k]))
            c = min(most, np.quantile(ratios, quantile, method="lower"))
            accepted += 1
    terms, weights = np.array(terms), np.array(weights)
    value = weights @ terms / weights.sum()
    n = len(terms)
    error = math.sqrt(((weights * (terms - value)) ** 2).sum() * n / (n - 1)) / weights.sum()
    return {"value": value, "error": error, "accepted": accepted, "last": c}


class Counting:
    """Greedy for the action with the highest mean so far, or with probability 0.3 anything; some actions never."""

    name = "counting"

    def init(self, seed: int) -> dict[int, tuple[int, float]]:
        del seed
        return {}

    def probabilities(self, state: dict[int, tuple[int, float]], decision: Decision) -> Floats:
        means = np.array([(state[a][1] + 1) / (state[a][0] + 2) if a in state else 0.5 for a in decision.actions])
        means[decision.actions % 5 == 0] = -1.0
        open_ = means >= 0
        best = np.arange(len(means)) == int(means.argmax())
        return best.astype(float) if not open_.any() else 0.3 * open_ / open_.sum() + 0.7 * best

    def learn(self, state: Any, decision: Decision, action: int, reward: float) -> Any:
        del decision
        times, total = state.get(action, (0, 0.0))
        return {**state, action: (times + 1, total + reward)}


@pytest.mark.parametrize(("quantile", "constant"), [(0.0, None), (0.0, 0.6), (0.1, None), (0.1, 0.3)])
def test_a_users_agent_gets_what_the_paper_says(quantile: float, constant: float | None) -> None:
    prepared = world(decisions=500, shortlist=4, uneven=True)
    least = float(prepared.log.propensity.min())
    first, most = (constant, constant) if constant else (least, 1.0 if quantile else least)
    listed = textbook(prepared, Counting(), 4, quantile, most, first, wrong)
    found = replay_doubly_robust(
        prepared, Counting(), seed=4, quantile=quantile, constant=constant, model=wrong, estimator="dr"
    )
    assert found.value == pytest.approx(listed["value"], rel=1e-10)
    assert found.std_error == pytest.approx(listed["error"], rel=1e-10)
    assert found.acceptance.accepted == listed["accepted"] == len(found.history.reward)
    assert found.acceptance.last == pytest.approx(listed["last"])


MATRIX: list[BuiltIn] = [
    Uniform(),
    TWO_BEST,
    BANDIT,
    Bandit(name="epsilon", exploration="epsilon-greedy", dimensions=5, loss="squared"),
    Bandit(name="igw", exploration="igw", exploration_rate=20.0, dimensions=5),
    Bandit(name="softmax", exploration="softmax", exploration_rate=0.3, dimensions=5),
    Bandit(name="thompson", exploration="thompson", dimensions=5),
    LinUCB(dimensions=3),
    LinTS(name="lints shared", model="shared", dimensions=2),
    HYBRID,
    Hybrid(name="two", selector=Polynomial(scale=3.0), models=("llm", "two-best"), bandit=LinTS(dimensions=3)),
    Hybrid(name="unsure", selector=Unsure(threshold=0.2), bandit=BANDIT),
    Hybrid(name="priced", selector=Priced(price=0.1), bandit=LinUCB(dimensions=3)),
]


@pytest.mark.parametrize("agent", MATRIX, ids=lambda agent: agent.name)
@pytest.mark.parametrize("shortlist", [None, 4])
def test_the_compiled_loop_does_what_the_agent_does_one_decision_at_a_time(
    agent: BuiltIn, shortlist: int | None
) -> None:
    prepared = world(decisions=260, actions=8, dimensions=5, shortlist=shortlist, uneven=True)
    quick = replay_doubly_robust(prepared, agent, seed=1, quantile=0.02, batch=8, model=wrong)
    log = prepared.log
    order = prepared.order(1, True)
    trace = empty_trace(len(order), False)
    rule = Rule(estimator="dr", quantile=0.02, first=float(log.propensity.min()), most=1.0, batch=8)
    player = player_of(prepared, agent, 1, order, 8)
    slow = replay_one_by_one(player, prepared, 1, rule, predicted_pieces(log, order, wrong), trace, clustered=True)
    moments = slow.moments
    assert quick.acceptance.accepted == slow.counts[0] > 8
    assert (quick.history.decision == trace.decision[: slow.counts[0]]).all()
    assert (quick.history.base == trace.base[: slow.counts[0]]).all()
    assert quick.value == pytest.approx(moments[0] + moments[1] / moments[2], rel=1e-4)
    assert slow.terms[: quick.decisions].sum(axis=0) == pytest.approx(moments[1:3], rel=1e-9)
    assert quick.acceptance.excess == pytest.approx(slow.acceptance[3], rel=1e-3, abs=1e-6)


def told() -> dict[str, list[float]]:
    result = {}
    for shortlist in (None, 4):
        prepared = world(decisions=100, actions=8, dimensions=5, shortlist=shortlist, uneven=True)
        for agent in MATRIX:
            found = replay_doubly_robust(prepared, agent, seed=3, quantile=0.05, batch=4, model=wrong)
            result[f"{shortlist} {agent.name}"] = [
                *found.history.decision.tolist(),
                *found.history.base.tolist(),
                found.acceptance.violations,
                round(found.value, 4),
                round(found.std_error, 4),
            ]
    return result


def test_compiled_and_interpreted_runs_are_the_same() -> None:
    runs = []
    for environment in ({}, {"NUMBA_DISABLE_JIT": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", "from tests.replay import test_doubly_robust as t; print(t.json.dumps(t.told()))"],
            env={**os.environ, **environment},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout))
    assert len(runs[0]) == 2 * len(MATRIX)
    assert runs[0] == runs[1]


# --- The default model, and what is refused


def test_the_default_model_is_fitted_on_the_first_fifth_which_is_then_not_replayed() -> None:
    prepared = world(decisions=1000, shortlist=4)
    found = replay_doubly_robust(prepared, BANDIT)
    assert found.decisions == 800
    assert found.history.decision.min() >= 200
    shaken = replace(prepared.log, reward=np.where(np.arange(1000) < 200, 1 - prepared.log.reward, prepared.log.reward))
    other = replay_doubly_robust(PreparedLog(replace(shaken, fingerprint="x"), prepared._choices), BANDIT)
    assert (other.history.decision == found.history.decision).all()
    assert other.value != found.value


def test_pieces_of_any_size_give_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = world(decisions=900, shortlist=4)
    whole = replay_doubly_robust(prepared, HYBRID, model=wrong)
    monkeypatch.setattr("counterplay.replay.predictions.PIECE", 37)
    parts = replay_doubly_robust(prepared, HYBRID, model=wrong)
    assert (parts.history.decision == whole.history.decision).all()
    assert parts.value == pytest.approx(whole.value, rel=1e-12)


def test_every_decision_accepted_and_learned_from_at_once_is_no_accident() -> None:
    prepared = world(decisions=40, shortlist=1)
    found = replay_doubly_robust(prepared, Bandit(exploration="epsilon-greedy"), batch=1, estimator="ips")
    assert found.acceptance.accepted == 40
    assert found.value == pytest.approx(prepared.log.reward.mean())


def test_an_agent_that_the_log_never_agrees_with_gets_no_number() -> None:
    prepared = world(decisions=200, shortlist=4)
    stored = prepared._choices["llm"]
    log = prepared.log
    assert log.candidates is not None
    other = np.where(log.candidates[:, 0] == log.action, log.candidates[:, 1], log.candidates[:, 0])
    never = PreparedLog(log, {"llm": replace(stored, actions=other[:, None].astype(np.int32))})
    for estimator in ("ips", "snips", "dr"):
        with pytest.raises(UnsupportedError, match="could have taken"):
            replay_doubly_robust(
                never,
                FixedPolicy(policy="llm"),
                estimator=estimator,  # type: ignore[arg-type]
                model=wrong if estimator == "dr" else None,
            )


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"quantile": 1.0}, ConfigurationError, "quantile is 1.0"),
        ({"quantile": -0.1}, ConfigurationError, "quantile"),
        ({"constant": 0.0}, ConfigurationError, "constant c is 0.0"),
        ({"constant": 1.2}, ConfigurationError, "constant c is 1.2"),
        ({"estimator": "doubly"}, ConfigurationError, "no estimator 'doubly'"),
        ({"estimator": "ips", "model": wrong}, ConfigurationError, "uses no reward model"),
        ({"batch": 0}, ConfigurationError, "batch is 0"),
        ({"horizon": 0}, ConfigurationError, "horizon 0"),
        ({"horizon": 390}, HorizonError, "decisions would be needed"),
        ({"model": lambda *given: np.zeros((len(given[1]), 1))}, ConfigurationError, "a number for each"),
        ({"model": lambda log, rows: wrong(log, rows) * np.nan}, ConfigurationError, "not finite"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        replay_doubly_robust(world(shortlist=4), BANDIT, **change)


def test_a_log_without_propensities_is_refused() -> None:
    log = replace(world(shortlist=4).log, propensity=np.full(400, np.nan), regime="observed", fingerprint="")
    with pytest.raises(MissingEvidenceError, match="lacks them in 400 of 400"):
        replay_doubly_robust(PreparedLog(log), BANDIT)
