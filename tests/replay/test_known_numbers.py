"""Numbers that other libraries publish for their rejection replay, from their rules in plain Python; and where ours
agrees with them.

All three accept a decision where a uniform draw is below c pi(a|x) / mu(a|x), a the logged action. They differ in c:

- ours is one constant for the whole run, so that the chance of being accepted depends on neither context nor history;
  ratios above 1 are counted as violations;
- coba's `RejectionCB` sets c, at each acceptance, to a low quantile of the mu/pi met so far (Dudik, Erhan, Langford
  and Li, UAI 2012, with their q as `cpct`); the mean of the estimates of a block of decisions is its reward;
- Vowpal Wabbit's `--explore_eval` sets c to the smallest mu/pi met so far, the present decision's included (or to
  `--multiplier`), and reports the IPS loss of all decisions. Until 2022 it compared the draw with pi/mu itself, which
  is what its published example with one violation shows; it now compares it with c pi/mu.

Where c does not move the three are one rule: with the same c and the same draws they accept the same decisions. Where
it moves, theirs accept more, and coba's accepts decisions whose ratio is above 1.
"""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.estimators import Evidence, evaluate
from counterplay.logs.log import Log
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.agents import BuiltIn, Uniform
from counterplay.replay.history import Replay
from counterplay.replay.kernels.records import Luck
from counterplay.replay.plain import Agent, Decision
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_rejection
from tests.replay.worlds import without_outcomes, world

EPSILON = 0.2


def coba_draws(seed: int) -> Iterator[float]:
    """`CobaRandom`: a linear congruential generator modulo 2^30 (L'Ecuyer, 1999)."""
    state = seed
    while True:
        state = (state * 116646453 + 9) % 2**30
        yield state / 2**30


def vw_draws() -> Iterator[float]:
    """`merand48` of Vowpal Wabbit from its default seed 0: 23 bits of a linear congruential generator modulo 2^64."""
    state = 0
    while True:
        state = (state * 0xEECE66D5DEECE66D + 2147483647) % 2**64
        yield ((state >> 25) & 0x7FFFFF) / 2**23


@dataclass(frozen=True, kw_only=True)
class Logged:
    """One decision: what ``Learner`` needs to know of it, the logged action among its own, and what was logged."""

    decision: Decision
    action: int
    reward: float
    propensity: float


@dataclass
class Learner:
    """An agent of ours, held by others: they ask for one probability and tell one reward."""

    agent: Agent
    state: Any

    def score(self, logged: Logged) -> float:
        actions = logged.decision.actions
        return float(self.agent.probabilities(self.state, logged.decision)[actions == logged.action].sum())

    def learn(self, logged: Logged) -> None:
        self.state = self.agent.learn(self.state, logged.decision, logged.action, logged.reward)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What a peer's rule makes of a log: places of the accepted decisions, what it reports, c at the end, and how many
    ratios were above 1."""

    places: list[int]
    rewards: list[float]
    constant: float
    violations: int


def quantile(ordered: Sequence[float], share: float) -> float:
    """Between the two values around the place ``share`` (n - 1)."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return (1 - (place - low)) * ordered[low] + (place - low) * ordered[high]


def coba_rejection(
    log: Sequence[Logged],
    learner: Learner,
    draws: Iterator[float],
    *,
    ips: bool = False,
    cpct: float = 0.005,
    cmax: float = 1.0,
    cinit: float | None = None,
) -> Accepted:
    """`coba.evaluators.RejectionCB.evaluate` (coba 8.1.0)."""
    first = [each.propensity for each in log[:100]]
    others = [(1 - each.propensity) / (len(each.decision.actions) - 1) for each in log[:100]]
    c = cinit or min([p for p in first + others if p] + [cmax])
    seen: list[float] = []
    block: list[float] = []
    places, rewards, violations = [], [], 0
    for place, each in enumerate(log):
        score = learner.score(each)
        if ips:
            block.append(score * each.reward / each.propensity)
        if score:
            insort(seen, each.propensity / score)
        ratio = c * score / each.propensity
        violations += ratio > 1 + 1e-9
        if next(draws) <= ratio:
            block = [*block[:-1], each.reward]
            learner.learn(each)
            places.append(place)
            rewards.append(mean(block))
            block = []
            c = min(quantile(seen, cpct), cmax)
    return Accepted(places=places, rewards=rewards, constant=c, violations=violations)


def explore_eval(
    log: Sequence[Logged],
    learner: Learner,
    draws: Iterator[float],
    *,
    multiplier: float | None = None,
    scaled: bool = True,
) -> tuple[Accepted, float]:
    """`explore_eval.cc` of Vowpal Wabbit 9.11 (``scaled``), or as it was until 2022; and its average loss."""
    c, places, rewards, violations, losses = multiplier or 1.0, [], [], 0, []
    for place, each in enumerate(log):
        score = learner.score(each)
        ratio = score / each.propensity
        losses.append(-each.reward * ratio)
        if multiplier is None and ratio > 0:
            c = min(c, 1 / ratio)
        if scaled or multiplier is not None:
            ratio *= c
        violations += ratio > 1 + 1e-6
        if next(draws) < ratio:
            places.append(place)
            rewards.append(each.reward)
            learner.learn(each)
    return Accepted(places=places, rewards=rewards, constant=c, violations=violations), mean(losses)


class WithDraws(PreparedLog):
    """A log whose acceptance draws are given: those of a peer, in the order of the log."""

    def __init__(self, log: Log, draws: Iterator[float]) -> None:
        super().__init__(log)
        self.draws = np.fromiter(islice(draws, len(log.context)), np.float64)

    def luck(self, seed: int) -> Luck:
        return super().luck(seed)._replace(accept=self.draws)


def ours(log: Log, agent: BuiltIn | Agent, draws: Iterator[float], constant: float) -> tuple[Replay, Acceptance]:
    replay = replay_rejection(WithDraws(log, draws), agent, constant=constant, order="logged", batch=1)
    assert replay.acceptance is not None
    return replay, replay.acceptance


def decisions_of(log: Log) -> list[Logged]:
    assert log.context_features is not None
    everything = np.arange(len(log.action_labels), dtype=np.int32)
    result = []
    for i in range(len(log.context)):
        actions = everything if log.candidates is None else log.candidates[i][log.candidates[i] >= 0]
        features = None if log.action_features is None else log.action_features[actions]
        decision = Decision(features=log.context_features[log.context[i]], actions=actions, action_features=features)
        result.append(
            Logged(
                decision=decision,
                action=int(log.action[i]),
                reward=float(log.reward[i]),
                propensity=float(log.propensity[i]),
            )
        )
    return result


def small_log(
    *,
    contexts: NDArray[np.float64],
    actions: NDArray[np.float64],
    candidates: Sequence[Sequence[int]] | None,
    logged: Sequence[int],
    rewards: Sequence[float],
    propensity: float,
) -> Log:
    count, names = len(logged), [str(i) for i in range(len(logged))]
    return Log(
        name="small", regime="propensity", decision_ids=names, context=np.arange(count, dtype=np.int32),
        context_ids=names, context_features=contexts.astype(np.float32),
        action_labels=[f"a{k}" for k in range(len(actions))], action_features=actions.astype(np.float32),
        candidates=None if candidates is None else np.array(candidates, np.int32),
        action=np.array(logged, np.int32), propensity=np.full(count, propensity),
        reward=np.array(rewards, np.float64), cost=np.full(count, np.nan), cluster=np.arange(count), outcomes=None,
    )  # fmt: skip


class Told:
    """Plays action 0 with the probability that the context names, the others alike, and learns nothing."""

    name = "told"

    def init(self, seed: int) -> None:
        del seed

    def probabilities(self, state: None, decision: Decision) -> NDArray[np.float64]:
        del state
        assert decision.features is not None
        p = float(decision.features[0])
        others = len(decision.actions) - 1
        return np.array([p] + [(1 - p) / others] * others)

    def learn(self, state: None, decision: Decision, action: int, reward: float) -> None:
        del state, decision, action, reward


def greedy(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Epsilon-greedy probabilities; equal best actions share."""
    best = values == values.max()
    return np.asarray(EPSILON / len(values) + (1 - EPSILON) * best / best.sum())


class Even:
    """Every action with the same probability."""

    name = "even"

    def init(self, seed: int) -> None:
        del seed

    def probabilities(self, state: None, decision: Decision) -> NDArray[np.float64]:
        del state
        return np.full(len(decision.actions), 1 / len(decision.actions))

    def learn(self, state: None, decision: Decision, action: int, reward: float) -> None:
        del state, decision, action, reward


class WordLearner:
    """Epsilon-greedy on a linear model of the action's words, by gradient steps on the squared error."""

    name = "words"

    def init(self, seed: int) -> NDArray[np.float64]:
        del seed
        return np.zeros(8)

    def probabilities(self, state: NDArray[np.float64], decision: Decision) -> NDArray[np.float64]:
        assert decision.action_features is not None
        return greedy(decision.action_features @ state)

    def learn(self, state: NDArray[np.float64], decision: Decision, action: int, reward: float) -> NDArray[np.float64]:
        assert decision.action_features is not None
        words = decision.action_features[decision.actions == action][0]
        return np.asarray(state + 0.1 * (reward - words @ state) * words)


class MeanLearner:
    """Epsilon-greedy on the mean reward of each action so far."""

    name = "means"

    def init(self, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        del seed
        return np.zeros(6), np.ones(6)

    def probabilities(
        self, state: tuple[NDArray[np.float64], NDArray[np.float64]], decision: Decision
    ) -> NDArray[np.float64]:
        total, count = state
        return greedy((total / count)[decision.actions])

    def learn(
        self, state: tuple[NDArray[np.float64], NDArray[np.float64]], decision: Decision, action: int, reward: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        del decision
        here = np.arange(6) == action
        return state[0] + reward * here, state[1] + here


def learner(agent: Agent) -> Learner:
    return Learner(agent, agent.init(0))


def told_log(scores: Sequence[float], reward: float) -> Log:
    """Action 0 of three, logged with propensity 1/4, and what the agent shall think of it."""
    count = len(scores)
    return small_log(
        contexts=np.array(scores)[:, None], actions=np.eye(3), candidates=None, logged=[0] * count,
        rewards=[reward] * count, propensity=0.25,
    )  # fmt: skip


VW_WORDS = {"a1 b1 c1": 0, "a2 b2 c2": 1, "a3 b3 c3": 2, "b1 c1 d1": 3, "b2 c2 d2": 4}


def vw_log() -> Log:
    """The two labelled decisions of Vowpal Wabbit's test file `cb_test.ldf`; costs are minus our rewards."""
    vocabulary = sorted({word for words in VW_WORDS for word in words.split() if word not in ("d1", "d2", "a3")})
    actions = np.array([[float(word in words.split()) for word in vocabulary] for words in VW_WORDS])
    return small_log(
        contexts=np.zeros((2, 1)), actions=np.pad(actions, ((0, 0), (0, 8 - len(vocabulary)))),
        candidates=[[0, 1, 2], [3, 4, -1]], logged=[0, 4], rewards=[-1.0, -0.0], propensity=0.5,
    )  # fmt: skip


def test_cobas_example_reports_3_of_a_block_whose_accepted_reward_is_5() -> None:
    # Scores .05, .25, .05 at propensity .25: the second is accepted; with the IPS estimate 1 of the first its block
    # is worth (1 + 5) / 2. We accept the same decision, report its reward, and leave the others to the estimators.
    log = told_log([0.05, 0.25, 0.05], 5.0)
    peer = coba_rejection(decisions_of(log), learner(Told()), coba_draws(2), ips=True, cpct=1.0, cinit=1.0)
    assert peer.rewards == [pytest.approx(3.0)]
    assert peer.places == [1]
    replay, acceptance = ours(log, Told(), coba_draws(2), 1.0)
    assert replay.decision.tolist() == peer.places
    assert replay.reward.tolist() == [5.0]
    assert acceptance.expected == pytest.approx(0.2 + 1.0 + 0.2)
    assert acceptance.violations == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cobas_second_example_accepts_all_six_whatever_the_draws(seed: int) -> None:
    log = told_log([0.25] * 6, 3.0)
    peer = coba_rejection(decisions_of(log), learner(Told()), coba_draws(seed), cpct=1.0, cinit=1.0)
    replay, _ = ours(log, Told(), coba_draws(seed), 1.0)
    assert peer.rewards == replay.reward.tolist() == [3.0] * 6


def uneven() -> Log:
    return without_outcomes(world(decisions=2000, actions=6, uneven=True)).log


def test_where_cobas_c_cannot_move_it_accepts_what_we_accept_and_where_it_moves_it_violates() -> None:
    log = uneven()
    c = float(log.propensity.min())
    replay, acceptance = ours(log, MeanLearner(), coba_draws(7), c)
    # No mu/pi is below the smallest mu, so with cmax there the quantile never counts.
    still = coba_rejection(decisions_of(log), learner(MeanLearner()), coba_draws(7), cmax=c, cinit=c)
    assert len(still.places) > 50
    assert replay.decision.tolist() == still.places
    assert replay.reward.tolist() == still.rewards
    assert (acceptance.violations, still.violations) == (0, 0)
    moving = coba_rejection(decisions_of(log), learner(MeanLearner()), coba_draws(7))
    assert moving.constant > c
    assert len(moving.places) > len(still.places)
    assert moving.violations > 0


def test_the_draws_of_vowpal_wabbit_start_as_published() -> None:
    # Values of its generator from state 0 as another implementation of it quotes them: 7.51018524e-06.
    assert next(vw_draws()) == pytest.approx(7.51018524e-06, rel=1e-7)


@pytest.mark.parametrize(("scaled", "violations"), [(False, 1), (True, 0)])
def test_vowpal_wabbits_example_has_loss_one_third_two_updates_and_the_multiplier_five_ninths(
    scaled: bool, violations: int
) -> None:
    peer, loss = explore_eval(decisions_of(vw_log()), learner(WordLearner()), vw_draws(), scaled=scaled)
    assert loss == pytest.approx(0.333333, abs=5e-7)
    assert len(peer.places) == 2
    assert peer.constant == pytest.approx(0.555556, abs=5e-7)
    assert peer.violations == violations


def test_vowpal_wabbits_example_is_ours_with_its_first_and_with_its_last_multiplier() -> None:
    log = vw_log()
    for constant, violations, excess in ((1.0, 1, 0.8), (5 / 9, 0, 0.0)):
        replay, acceptance = ours(log, WordLearner(), vw_draws(), constant)
        assert replay.decision.tolist() == [0, 1]
        assert acceptance.violations == violations
        assert acceptance.excess == pytest.approx(excess)
    target = np.array([[1 / 3, 0.9]])
    (estimate,) = evaluate(Evidence(reward=log.reward, propensity=log.propensity, target=target), "ips")
    assert estimate.value == pytest.approx(-0.333333, abs=5e-7)


@pytest.mark.parametrize("constant", [0.05, 0.3, 1.0])
def test_with_a_fixed_multiplier_vowpal_wabbit_accepts_what_we_accept(constant: float) -> None:
    log = uneven()
    replay, acceptance = ours(log, MeanLearner(), vw_draws(), constant)
    peer, _ = explore_eval(decisions_of(log), learner(MeanLearner()), vw_draws(), multiplier=constant)
    assert replay.decision.tolist() == peer.places
    assert acceptance.violations == peer.violations
    assert (acceptance.violations > 0) == (constant > 0.05)


def test_an_adaptive_multiplier_accepts_early_decisions_more_often_than_late_ones() -> None:
    # Why c is one constant here: the same ratio meets another c at the start than at the end.
    propensity = np.repeat([1 / 6, 0.05], 1000)
    log = replace(uneven(), propensity=propensity, fingerprint="")
    moving, _ = explore_eval(decisions_of(log), learner(Even()), vw_draws())
    still, _ = explore_eval(decisions_of(log), learner(Even()), vw_draws(), multiplier=moving.constant)
    assert sum(place < 1000 for place in moving.places) == 1000
    assert sum(place < 1000 for place in still.places) < 400


def vw_says(flags: str, log: Log, folder: Path) -> dict[str, float]:
    """What Vowpal Wabbit itself prints at the end of `--explore_eval` on this log."""
    vowpalwabbit = pytest.importorskip("vowpalwabbit", reason="vowpalwabbit is not installed")
    text, count = folder / "log.vw", len(log.action_labels)
    with text.open("w") as file:
        for action, reward, p in zip(log.action, log.reward, log.propensity, strict=True):
            lines = [f"{f'0:{-reward}:{p:.9g} ' if k == action else ''}| a{k}" for k in range(count)]
            file.write("\n".join(lines) + "\n\n")
    workspace = vowpalwabbit.Workspace(f"--explore_eval {flags} -d {text}", enable_logging=True)
    workspace.finish()
    said = "\n".join(workspace.get_log())
    return {name: float(value) for name, value in re.findall(r"([a-z ]+) = (-?[\d.]+)$", said, re.MULTILINE)}


def test_vowpal_wabbit_itself_updates_as_often_as_we_accept(tmp_path: Path) -> None:
    # A uniform policy, so that its learner does not matter; no ratio above 1, so that no update has a weight.
    log, agent = uneven(), Uniform()
    c = float(6 * log.propensity.min() * 0.999)
    replay, acceptance = ours(log, agent, vw_draws(), c)
    said = vw_says(f"--epsilon 1.0 --multiplier {c:.9g}", log, tmp_path)
    assert acceptance.violations == 0
    assert said["weighted update count"] == len(replay.decision) > 100


def test_vowpal_wabbit_itself_has_the_losses_updates_and_multiplier_of_its_rule_in_plain_python(
    tmp_path: Path,
) -> None:
    log = uneven()
    peer, loss = explore_eval(decisions_of(log), learner(Even()), vw_draws())
    said = vw_says("--epsilon 1.0", log, tmp_path)
    assert said["average loss"] == pytest.approx(loss, abs=1e-5)
    assert said["weighted update count"] == len(peer.places)
    assert said["final multiplier"] == pytest.approx(peer.constant, abs=1e-5)
