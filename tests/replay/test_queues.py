"""What replay from queues promises."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, HorizonError, MissingEvidenceError, UnsupportedError
from counterplay.logs.log import Log
from counterplay.replay.agents import Bandit, Hybrid, LinTS, LinUCB, Uniform
from counterplay.replay.plain import Decision
from counterplay.replay.players import player_of
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.queue_runs import States, _pop, _reject, _run
from counterplay.replay.queues import replay_per_state, replay_queues
from counterplay.replay.selectors import LogBarrier
from tests.replay.worlds import world

Floats = NDArray[np.float64]
CHANCE = np.array([[0.2, 0.7], [0.6, 0.5]])
"""P(reward = 1) of each action in each of two contexts."""


def tiny(rows: list[tuple[int, int, float]], mu: Floats) -> PreparedLog:
    """A log of (context, action, reward); mu `(contexts, actions)`: the logging policy."""
    context, action = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    contexts, actions = mu.shape
    return PreparedLog(
        Log(
            name="tiny",
            regime="propensity",
            decision_ids=[str(i) for i in range(len(rows))],
            context=context.astype(np.int32),
            context_ids=[str(i) for i in range(contexts)],
            context_features=np.eye(contexts, dtype=np.float32),
            action_labels=[str(i) for i in range(actions)],
            action_features=np.eye(actions, dtype=np.float32),
            candidates=None,
            action=action.astype(np.int32),
            propensity=mu[context, action],
            reward=np.array([row[2] for row in rows]),
            cost=np.full(len(rows), np.nan),
            cluster=np.arange(len(rows)),
            outcomes=None,
            fingerprint="tiny",
        )
    )


class Switching:
    """Stays with an action in a context while it earns, else takes the other; ``daring``: how surely."""

    name = "switching"

    def __init__(self, daring: float) -> None:
        self.daring = daring

    def init(self, seed: int) -> dict[int, int]:
        del seed
        return {}

    def probabilities(self, state: dict[int, int], decision: Decision) -> Floats:
        assert decision.features is not None
        wanted = state.get(int(decision.features.argmax()), 1)
        return np.where(decision.actions == wanted, self.daring, 1 - self.daring)

    def learn(self, state: dict[int, int], decision: Decision, action: int, reward: float) -> dict[int, int]:
        assert decision.features is not None
        return {**state, int(decision.features.argmax()): action if reward else 1 - action}


class Recording(Switching):
    """The same, and it keeps what it was taught."""

    def init(self, seed: int) -> dict[int, int]:
        self.history: list[tuple[int, int, float]] = []
        return super().init(seed)

    def learn(self, state: dict[int, int], decision: Decision, action: int, reward: float) -> dict[int, int]:
        assert decision.features is not None
        self.history.append((int(decision.features.argmax()), action, reward))
        return super().learn(state, decision, action, reward)


def every_log(length: int, mu: Floats, contexts: int) -> Iterator[tuple[float, list[tuple[int, int, float]]]]:
    """Every log of ``length`` decisions, with its probability."""
    single = [(x, a, float(r)) for x in range(contexts) for a in (0, 1) for r in (0, 1)]
    for rows in itertools.product(single, repeat=length):
        chance = 1.0
        for x, a, r in rows:
            chance *= mu[x, a] * (CHANCE[x, a] if r else 1 - CHANCE[x, a]) / contexts
        yield chance, list(rows)


def histories(
    draw: Callable[..., int | None], daring: float, mu: Floats, contexts: int, length: int, seeds: range
) -> dict[tuple[tuple[int, int, float], ...], float]:
    """The probability of each history of a run, over every log and the given seeds."""
    found: dict[tuple[tuple[int, int, float], ...], float] = defaultdict(float)
    for chance, rows in every_log(length, mu, contexts):
        prepared, agent = tiny(rows, mu), Recording(daring)
        states = States(prepared.log)
        for seed in seeds:
            player = player_of(prepared, agent, seed, np.arange(length), 1)
            _run(prepared, states, player, draw, seed, None)
            for t in range(len(agent.history) + 1):
                found[tuple(agent.history[:t])] += chance / len(seeds)
    return found


@pytest.mark.parametrize("draw", [_pop, _reject])
def test_over_every_log_a_reward_has_its_law_given_the_history_and_that_the_run_goes_on(
    draw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two contexts, two actions, four decisions; an agent that never plays at random: all is enumerated.
    monkeypatch.setattr("counterplay.replay.queue_runs.FEWEST", 0.0)
    mu = np.array([[0.5, 0.5], [0.25, 0.75]])
    found = histories(draw, 1.0, mu, 2, 4, range(2))
    checked = 0
    for history in found:
        if history and history[-1][2] == 1.0:
            other = (*history[:-1], (*history[-1][:2], 0.0))
            x, a, _ = history[-1]
            assert found[history] / (found[history] + found[other]) == pytest.approx(CHANCE[x, a], abs=1e-12)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("pi", [(0.3, 0.7), (0.5, 0.5), (0.9, 0.1)])
def test_over_every_uniform_queue_rejection_takes_each_action_with_the_agents_law(pi: tuple[float, float]) -> None:
    # One context, three decisions. Each is accepted with probability 1/M before its action is known, so action a is
    # taken with probability pi(a) (1 - (1 - 1/M)^3): with the agent's law, given that the queue is not empty.
    most = max(pi) / 0.5
    taken = np.zeros(2)
    for actions in itertools.product((0, 1), repeat=3):
        states = States(tiny([(0, a, 0.0) for a in actions], np.array([[0.5, 0.5]])).log)
        ratios = [pi[a] / (most * 0.5) for a in actions]
        for accepts in itertools.product((True, False), repeat=3):
            chance = math.prod(q if yes else 1 - q for q, yes in zip(ratios, accepts, strict=True))
            luck = np.where(accepts, 0.0, 1.0)
            item = _reject(states, {(0, -1): [2, 1, 0]}, 0, np.array(pi), luck, 0.5)
            if item is not None:
                taken[actions[item]] += chance / 8
    assert taken == pytest.approx(np.array(pi) * (1 - (1 - 1 / most) ** 3), abs=1e-12)


def repeating(decisions: int, seed: int, mu: Floats) -> PreparedLog:
    """A log of the two contexts, as ``CHANCE`` has them."""
    rng = np.random.default_rng(seed)
    context = rng.integers(0, 2, decisions)
    action = (rng.random(decisions) > mu[context, 0]).astype(int)
    reward = (rng.random(decisions) < CHANCE[context, action]).astype(float)
    return tiny(list(zip(context.tolist(), action.tolist(), reward.tolist(), strict=True)), mu)


def online(daring: float, rounds: int) -> float:
    """The exact mean reward of ``Switching`` over its first rounds: a Markov chain over what it wants next."""
    wanted = np.tile([0.0, 1.0], (2, 1))
    total = 0.0
    law = np.array([[daring, 1 - daring], [1 - daring, daring]])
    for _ in range(rounds):
        played = wanted @ law
        total += (played * CHANCE).sum() / 2 / rounds
        earns = played * CHANCE
        after = earns + (played - earns)[:, ::-1]
        # A context arrives every other round on average; otherwise what the agent wants there stays.
        wanted = 0.5 * wanted + 0.5 * after
    return total


@pytest.mark.parametrize(("method", "daring"), [(replay_queues, 0.8), (replay_per_state, 0.8), (replay_queues, 1.0)])
def test_where_every_run_survives_the_mean_is_the_agents_mean_on_line(method: Any, daring: float) -> None:
    mu = np.array([[0.5, 0.5], [0.3, 0.7]])
    found = [
        method(repeating(240, seed, mu), Switching(daring), runs=4, horizon=25, seed=50 * seed) for seed in range(90)
    ]
    values = np.array([estimate.value for estimate in found])
    assert all(estimate.survival[24] == 1.0 for estimate in found)
    assert abs(values.mean() - online(daring, 25)) <= 3.5 * values.std(ddof=1) / math.sqrt(len(values))


@pytest.mark.parametrize("method", [replay_queues, replay_per_state])
def test_survival_falls_and_the_value_is_of_rounds_that_every_run_reached(method: Any) -> None:
    found = method(repeating(120, 1, np.full((2, 2), 0.5)), Switching(0.9), runs=30)
    assert (np.diff(found.survival) <= 0).all()
    assert found.horizon == found.lengths.min() >= 1
    assert (found.survival[: found.horizon] == 1.0).all()
    assert found.survival[-1] > 0
    assert len(found.survival) == len(found.curve) == found.lengths.max()
    assert found.value == pytest.approx(found.curve[: found.horizon].mean())
    assert found.states == found.repeating == 2
    assert found.unsupported == 0.0


def test_queues_use_every_reward_once() -> None:
    prepared = repeating(60, 4, np.full((2, 2), 0.5))
    states = States(prepared.log)
    used: Counter[int] = Counter()

    def popping(*given: Any) -> int | None:
        item = _pop(*given)
        if item is not None:
            used[item] += 1
        return item

    trace, _ = _run(prepared, states, player_of(prepared, Uniform(), 2, np.arange(60), 4), popping, 2, None)
    assert len(trace.reward) == len(used) > 20
    assert set(trace.decision.tolist()) == set(used)
    assert (trace.reward == prepared.log.reward[trace.decision]).all()
    assert (trace.action == prepared.log.action[trace.decision]).all()
    assert max(used.values()) == 1


@pytest.mark.parametrize(
    "agent",
    [
        Bandit(exploration="epsilon-greedy"),
        Bandit(exploration="thompson"),
        LinUCB(),
        LinTS(model="shared"),
        Bandit(exploration="igw"),
    ],
    ids=lambda agent: f"{agent.name}",
)
@pytest.mark.parametrize("method", [replay_queues, replay_per_state])
def test_built_in_agents_learn_from_queues(agent: Any, method: Any) -> None:
    sure = np.array([[0.0, 1.0], [1.0, 0.0]])
    rng = np.random.default_rng(0)
    context, action = rng.integers(0, 2, 800), rng.integers(0, 2, 800)
    rows = list(zip(context.tolist(), action.tolist(), sure[context, action].tolist(), strict=True))
    found = method(tiny(rows, np.full((2, 2), 0.5)), agent, runs=4, horizon=150, batch=4)
    assert found.curve[100:].mean() > found.curve[:5].mean() - 0.05
    assert found.curve[100:].mean() > 0.6


def test_a_hybrid_can_be_replayed_from_queues() -> None:
    prepared = world(decisions=60, actions=3, seed=1)
    log = prepared.log
    rows = np.tile(np.arange(6), 60)
    rng = np.random.default_rng(1)
    action = rng.integers(0, 3, len(rows)).astype(np.int32)
    assert log.outcomes is not None
    again = replace(
        log.subset(rows),
        action=action,
        propensity=np.full(len(rows), 1 / 3),
        reward=log.outcomes.reward(log.context[rows], action),
        fingerprint="again",
    )
    hybrid = Hybrid(selector=LogBarrier(), bandit=Bandit(dimensions=3, exploration="epsilon-greedy"))
    found = replay_queues(PreparedLog(again, prepared._choices), hybrid, runs=3, horizon=40, batch=8)
    assert found.states == 6
    assert 0 < found.value < 1


def test_a_log_whose_contexts_do_not_repeat_is_refused_and_says_how_many_do() -> None:
    with pytest.raises(UnsupportedError, match=r"0 of 400 contexts occur more than once, 1\.00 times on average"):
        replay_queues(world(), Uniform())
    with pytest.raises(UnsupportedError, match="so that every run would stop"):
        replay_per_state(world(shortlist=4), Uniform())


def test_a_horizon_that_a_run_does_not_reach_is_an_error_that_says_how_many() -> None:
    with pytest.raises(HorizonError, match=r"before round 500 in 10 of 10 runs \(median length"):
        replay_queues(repeating(100, 0, np.full((2, 2), 0.5)), Uniform(), runs=10, horizon=500)
    lacking = tiny([(0, 0, 1.0)] * 10, np.full((1, 2), 0.5))
    with pytest.raises(HorizonError, match="before round 1"):
        replay_queues(lacking, Switching(1.0), runs=3)


def test_what_the_agent_would_do_and_the_log_never_did_is_reported() -> None:
    lacking = tiny([(0, 0, 1.0)] * 30, np.array([[0.5, 0.5]]))
    found = replay_per_state(lacking, Switching(0.5), runs=3, horizon=5)
    assert found.unsupported == pytest.approx(0.5)


def test_queues_need_no_propensities_and_rejection_does() -> None:
    prepared = repeating(100, 3, np.full((2, 2), 0.5))
    bare = PreparedLog(replace(prepared.log, propensity=np.full(100, np.nan), regime="observed", fingerprint="bare"))
    found = replay_queues(bare, Switching(0.9), runs=5)
    assert found.value == replay_queues(prepared, Switching(0.9), runs=5).value
    assert found.unsupported == 0.0
    with pytest.raises(MissingEvidenceError, match="Take replay_queues"):
        replay_per_state(bare, Switching(0.9))
    lost = PreparedLog(replace(prepared.log, reward=np.full(100, np.nan), fingerprint="lost"))
    with pytest.raises(MissingEvidenceError, match="100 of 100"):
        replay_queues(lost, Switching(0.9))


@pytest.mark.parametrize("change", [{"runs": 1}, {"horizon": 0}, {"batch": 0}])
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        replay_queues(repeating(50, 3, np.full((2, 2), 0.5)), Switching(0.9), **change)
