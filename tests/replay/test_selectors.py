"""Selectors: their probabilities, what they learn, their gates and their budgets."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq

from counterplay.errors import ConfigurationError, UnsupportedError
from counterplay.replay.kernels.records import SelectorSettings, State
from counterplay.replay.kernels.selection import (
    NO_LIMIT,
    base_probabilities,
    credit,
    drawn_base,
    engage,
    needs_uncertainty,
    selector_step,
    settle,
    shares_now,
)
from counterplay.replay.kernels.simplex import LARGEST, barrier_normalised, barrier_root, tsallis_probabilities
from counterplay.replay.selectors import (
    SELECTORS,
    Exp3,
    Exponential,
    Fixed,
    Guarded,
    LinearDecay,
    LogBarrier,
    Polynomial,
    Priced,
    Selector,
    Tsallis,
    Unsure,
    check_selector,
    selector_settings,
)

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import selector_simulation as simulation  # noqa: E402

Floats = NDArray[np.float64]
LEARNING: Sequence[Selector] = (
    LogBarrier(),
    LogBarrier(clip=None),
    LogBarrier(clip=None, mix=0.3),
    LogBarrier(loss="one-minus-reward", weight="played"),
    LogBarrier(loss="one-minus-reward"),
    LogBarrier(step=5.0, weight="played"),
    Exp3(),
    Exp3(rate=2.0, mix=0.0),
    Tsallis(),
    Tsallis(rate=50.0),
)
GATED: Sequence[Selector] = (
    Unsure(threshold=0.5, most=0.9, least=0.1),
    Priced(price=0.1),
    Guarded(allowance=0.3),
    Guarded(allowance=0.3, most=1.0),
)
ALL: Sequence[Selector] = (*LEARNING, *GATED, Fixed(), Polynomial(scale=5), Exponential(scale=2), LinearDecay())


def record(
    selector: Selector, members: int = 2, batch: int = 32, batches: int = 100, **budget: Any
) -> SelectorSettings:
    return selector_settings(selector, members, batch=batch, batches=batches, **budget)


def shares(selector: Selector, batch: int, state: State | None = None, members: int = 2, batches: int = 100) -> Floats:
    p = np.empty(members)
    begun = simulation.start(members) if state is None else state
    base_probabilities(record(selector, members, batches=batches), begun, batch, p)
    return p


class Game:
    """A hybrid's rounds, one at a time or in batches whose rewards are known at the end."""

    def __init__(self, selector: Selector, members: int = 2, batch: int = 1, batches: int = 100, **budget: Any) -> None:
        self.record = record(selector, members, batch, batches, **budget)
        self.state, self.members, self.batch, self.rounds, self.number = simulation.start(members), members, batch, 0, 0
        self.calls = np.arange(members) > 0
        self.losses = np.zeros(members)

    def play(
        self, luck: Floats, reward: Callable[[int, int], float], unsure: float = 1.0, value: float = 0.0
    ) -> tuple[NDArray[np.int8], Floats, Floats]:
        """One batch: who acted `(b,)`, what they earned `(b,)`, with what probabilities `(b, M)`."""
        p, kept, acted = np.empty(self.members), np.empty((len(luck), self.members)), np.empty(len(luck), np.int8)
        counts, ledger = self.state.counts, self.state.ledger
        base_probabilities(self.record, self.state, self.number + 1, p)
        for r in range(len(luck)):
            shares_now(self.record, self.calls, counts, ledger, p, kept, r, unsure, value, self.rounds + r)
            acted[r] = drawn_base(kept, r, 1.0, luck[r])
            engage(self.calls, self.record.prices, counts, ledger, acted[r])
        rewards = np.array([reward(self.rounds + r, int(acted[r])) for r in range(len(luck))])
        for base, earned in zip(acted, rewards, strict=True):
            settle(self.calls, ledger, base, earned)
        credit(self.record, self.state, kept, acted, rewards, self.losses)
        selector_step(self.record, self.state, self.losses)
        self.rounds, self.number = self.rounds + len(luck), self.number + 1
        return acted, rewards, kept


# Schedules


@pytest.mark.parametrize(
    ("selector", "calls"),
    [
        (Polynomial(scale=100), 19_337),
        (Polynomial(scale=10), 2_659),
        (Polynomial(scale=1), 328),
        (Exponential(scale=100, rate=0.01), 14_908),
        (Exponential(scale=10, rate=0.01), 9_013),
        (Exponential(scale=1, rate=0.01), 3_118),
        (Exponential(scale=100, rate=0.1), 1_479),
        (Exponential(scale=10, rate=0.1), 890),
        (Exponential(scale=1, rate=0.1), 300),
    ],
)
def test_the_papers_grid_of_schedules_costs_the_expected_number_of_calls(selector: Selector, calls: int) -> None:
    # 19,438 batches of 32: the paper's best of each, in five runs: 19,419.8 and 14,943.6 (table 5).
    total = sum(32 * shares(selector, batch)[1] for batch in range(1, 19_439))
    assert round(total) == calls


def test_linear_decay_over_the_papers_horizon_costs_two_fifths_of_all_rounds() -> None:
    calls = [32 * shares(LinearDecay(), batch, batches=19_438)[1] for batch in range(1, 19_439)]
    assert calls[0] == 32 * 0.8
    assert np.isclose(sum(calls), 0.8 * 32 * (19_438 + 1) / 2)
    assert round(sum(calls), -2) == 248_800


@given(st.sampled_from([Fixed(share=0.3), Polynomial(least=0.1), Exponential(most=0.6), LinearDecay(), *GATED]))
def test_a_schedule_stays_between_its_bounds_falls_and_shares_equally(selector: Selector) -> None:
    least, most = getattr(selector, "least", 0.0), getattr(selector, "most", getattr(selector, "share", 1.0))
    models = np.array([1 - shares(selector, batch, members=4)[0] for batch in (1, 10, 100, 1_000, 10_000)])
    assert np.all(models >= least - 1e-12)
    assert np.all(models <= most + 1e-12)
    assert np.all(np.diff(models) <= 1e-12)
    assert np.ptp(shares(selector, 20, members=4)[1:]) == 0


# What learns


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-3, 0.025, 1.0]),
)
def test_the_log_barrier_gives_probabilities_that_solve_its_equation(
    losses: list[float], seed: int, step: float
) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(len(losses)))
    moved, found = 1 / np.maximum(p, 1e-9) + step * np.array(losses), np.empty(len(losses))
    barrier_normalised(moved, found)
    assert np.all(found >= 1)
    assert abs((1 / found).sum() - 1) < 1e-12
    # The same number lambda for all; differences of large numbers keep fewer digits.
    np.testing.assert_allclose(found - found.min(), moved - moved.min(), rtol=1e-9, atol=1e-9)


@given(st.floats(0, 1e9))
def test_for_two_bases_the_closed_form_is_the_root_that_newton_and_brent_find(distance: float) -> None:
    found = np.empty(2)
    barrier_normalised(np.array([distance, 0.0]), found)
    assert math.isclose(barrier_root(np.array([distance, 0.0])), found[1], rel_tol=1e-12)
    brent = brentq(lambda u: 1 / u + 1 / (u + distance) - 1, 1 - 1e-12, 2 + 1e-12, xtol=1e-15, rtol=1e-14)
    assert math.isclose(brent, found[1], rel_tol=1e-12)


def test_for_many_bases_newton_finds_what_brent_finds() -> None:
    rng = np.random.default_rng(0)
    for members in (2, 3, 5, 20):
        excess = rng.exponential(10 ** rng.uniform(-3, 4), members)
        excess -= excess.min()
        brent = brentq(lambda u, e=excess: (1 / (u + e)).sum() - 1, 1 - 1e-9, members + 1e-9, xtol=1e-15, rtol=1e-14)
        assert math.isclose(barrier_root(excess), brent, rel_tol=1e-12)


@given(st.sampled_from(ALL), st.integers(2, 5), st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0, 1))
@settings(deadline=None, max_examples=150)
def test_probabilities_stay_probabilities_whatever_is_earned(
    selector: Selector, members: int, seed: int, batch: int, generous: float
) -> None:
    rng = np.random.default_rng(seed)
    game = Game(selector, members, batch)
    rewards = (rng.random((batch * 30, members)) < generous).astype(float)
    for _ in range(30):
        _, _, kept = game.play(rng.random(batch), lambda i, base: rewards[i, base], rng.random(), rng.random())
        assert np.all(kept >= 0)
        np.testing.assert_allclose(kept.sum(axis=1), 1, rtol=1e-12)
    assert np.all(game.state.inverse >= 1)
    assert np.all(game.state.inverse <= LARGEST)


@given(st.sampled_from([s for s in LEARNING if isinstance(s, Exp3 | Tsallis)]), st.floats(0.05, 0.95))
def test_played_weights_make_estimated_losses_right_on_average(selector: Selector, p_bandit: float) -> None:
    played, rewards, found = np.array([[p_bandit, 1 - p_bandit]]), np.array([0.3, 0.8]), np.zeros(2)
    for base in range(2):
        losses = np.zeros(2)
        acted = np.array([base], np.int8)
        credit(record(selector), simulation.start(2), played, acted, rewards[[base]], losses)
        found += played[0, base] * losses
    np.testing.assert_allclose(found, 1 - rewards)


@given(st.floats(0, 1), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_clip_leaves_the_bandit_enough_and_the_models_their_proportions(clip: float, members: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(members, 0.5)).clip(1e-6)
    p /= p.sum()
    state = simulation.start(members)._replace(inverse=1 / p)
    found = shares(LogBarrier(clip=clip), 1, state, members)
    assert math.isclose(found[0], max(p[0], clip), rel_tol=1e-9)
    np.testing.assert_allclose(found[1:] * (1 - p[0]), p[1:] * (1 - found[0]), rtol=1e-9, atol=1e-12)


@given(st.floats(0, 1), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_mix_leaves_every_base_its_share_of_the_uniform(mix: float, members: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(members)).clip(1e-6)
    p /= p.sum()
    found = shares(LogBarrier(clip=None, mix=mix), 1, simulation.start(members)._replace(inverse=1 / p), members)
    np.testing.assert_allclose(found, (1 - mix) * p + mix / members)
    assert np.all(found >= mix / members - 1e-12)


def textbook(selector: Selector, p_of: Callable[[Floats, int], Floats], members: int = 3) -> None:
    """Play 500 rounds against an independent version that keeps its own sum of losses."""
    rng = np.random.default_rng(5)
    luck, rewards = rng.random(500), rng.random((500, members))
    game, losses = Game(selector, members), np.zeros(members)
    for t in range(500):
        expected = p_of(losses, t + 1)
        acted, _, kept = game.play(luck[[t]], lambda i, base: rewards[i, base])
        np.testing.assert_allclose(kept[0], expected, rtol=1e-7)
        assert acted[0] == np.searchsorted(np.cumsum(expected), luck[t], side="right")
        losses[acted[0]] += (1 - rewards[t, acted[0]]) / expected[acted[0]]
    assert np.ptp(game.state.losses) > 10


def test_exp3_is_the_textbooks() -> None:
    def auer(losses: Floats, _: int) -> Floats:
        weights = np.exp(-0.05 * losses)
        return 0.9 * weights / weights.sum() + 0.1 / 3

    textbook(Exp3(rate=0.05, mix=0.1), auer)


def test_tsallis_is_the_textbooks() -> None:
    def zimmert_and_seldin(losses: Floats, t: int) -> Floats:
        rate = 2 / math.sqrt(t)
        x = brentq(
            lambda x: (4 / (rate * (losses - x)) ** 2).sum() - 1,
            losses.min() - 2 * math.sqrt(len(losses)) / rate - 1e-9,
            losses.min() - 2 / rate + 1e-9,
            xtol=1e-14,
            rtol=1e-14,
        )
        return 4 / (rate * (losses - x)) ** 2

    textbook(Tsallis(), zimmert_and_seldin)


def test_the_log_barrier_is_the_released_codes() -> None:
    # Inverse probabilities; weighted -reward, added up over a batch of 32, times 0.05 / 2; shifted until 1/p sum to 1.
    rng = np.random.default_rng(6)
    game, inverse = Game(LogBarrier(), batch=32), np.array([2.0, 2.0])
    for _ in range(300):
        luck, rewards = rng.random(32), (rng.random((32, 2)) < (0.2, 0.3)).astype(float)
        acted, earned, kept = game.play(luck, lambda i, base, rewards=rewards: rewards[i % 32, base])
        bandit = max(0.2, 1 / inverse[0])
        np.testing.assert_allclose(kept, np.tile([bandit, 1 - bandit], (32, 1)), rtol=1e-8)
        assert np.array_equal(acted == 0, luck < bandit)
        moved = inverse.copy()
        for base, reward in zip(acted, earned, strict=True):
            moved[base] += 0.05 / 2 * -reward * inverse[base]
        moved += 1 - moved.min()
        inverse = moved + brentq(lambda z, m=moved: 1 - (1 / (m + z)).sum(), 0, 1, xtol=1e-14)
        np.testing.assert_allclose(game.state.inverse, inverse, rtol=1e-8)


def test_a_batch_of_tsallis_takes_the_rate_of_its_last_round() -> None:
    losses, p, expected = np.array([3.0, 5.0]), np.empty(2), np.empty(2)
    state = simulation.start(2)._replace(losses=losses)
    base_probabilities(record(Tsallis(), batch=8), state, 5, p)
    tsallis_probabilities(losses, 2 / math.sqrt(40), expected)
    np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_the_regret_of_exp3_and_tsallis_grows_slower_than_time_and_that_of_tsallis_is_smaller() -> None:
    rounds, gap = 40_000, 0.2
    means = np.tile([0.4, 0.4 + gap], (rounds, 1))

    def regret(selector: Selector) -> Floats:
        paths = [np.cumsum(gap * (simulation.play(selector, means, seed, batch=1).acted == 0)) for seed in range(20)]
        mean: Floats = np.mean(paths, axis=0)[[rounds // 16 - 1, rounds - 1]]
        return mean

    exp3, tsallis = regret(Exp3(rate=math.sqrt(math.log(2) / rounds), mix=0.0)), regret(Tsallis())
    for early, late in (exp3, tsallis):
        assert late < 16 * early / 3
    assert tsallis[1] < exp3[1] / 2


# Gates


def test_only_gates_that_look_at_the_bandit_need_its_predictions() -> None:
    kinds = {name: needs_uncertainty(record(selector).kind) for name, selector in _one_of_each().items()}
    assert {name for name, needs in kinds.items() if needs} == {"unsure", "priced"}


def test_unsure_asks_the_models_where_the_bandit_is_unsure() -> None:
    game = Game(Unsure(threshold=0.4, most=0.9, least=0.1), members=3)
    for unsure, models in ((0.0, 0.1), (0.4, 0.1), (0.41, 0.9), (1.0, 0.9), (math.nan, 0.1)):
        _, _, kept = game.play(np.array([0.5]), lambda *_: 0.0, unsure)
        np.testing.assert_allclose(kept[0], [1 - models, models / 2, models / 2])


def test_priced_starts_hopeful_and_stops_where_a_call_is_not_worth_its_price() -> None:
    game = Game(Priced(price=0.11, optimism=2.0))
    asked = [game.play(np.array([0.5]), lambda *_: 0.0, value=0.3)[0][0] for _ in range(10)]
    # The mean after n empty calls is 2 / (2 + n); it exceeds 0.3 + 0.11 while n < 3.
    assert asked == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert game.play(np.array([0.5]), lambda *_: 0.0, value=0.28)[0][0] == 1


def test_priced_counts_only_what_models_earned() -> None:
    game = Game(Priced(price=0.0, optimism=1.0))
    game.play(np.full(4, 0.5), lambda *_: 1.0, value=1.0)
    assert game.state.ledger[1:3].tolist() == [0, 0]
    game.play(np.full(4, 0.5), lambda *_: 0.25, value=0.5)
    assert game.state.ledger[1:3].tolist() == [4, 1]


@given(
    allowance=st.floats(0, 1),
    most=st.floats(0.1, 1),
    members=st.integers(2, 4),
    batch=st.integers(1, 33),
    seed=st.integers(0, 2**32 - 1),
    wins=st.floats(0, 1),
    hateful=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_a_guarded_hybrid_never_falls_further_behind_its_bandit_than_allowed(
    allowance: float, most: float, members: int, batch: int, seed: int, wins: float, hateful: bool
) -> None:
    # An adversary who knows who acts: the bandit's choice would earn 1, the model's earns 0 or what the law gives.
    rng = np.random.default_rng(seed)
    game, behind = Game(Guarded(allowance=allowance, most=most), members, batch), 0.0
    for _ in range(20):
        own = np.ones(batch) if hateful else rng.random(batch)
        model = np.zeros(batch) if hateful else (rng.random(batch) < wins).astype(float)
        first = game.rounds
        _, earned, _ = game.play(
            rng.random(batch),
            lambda i, base, own=own, model=model, first=first: own[i - first] if base == 0 else model[i - first],
        )
        for r in range(batch):
            behind += own[r] - earned[r]
            assert behind <= allowance * (first + r + 1) + 1e-9
        assert math.isclose(game.state.ledger[3], game.state.ledger[1] - game.state.ledger[2], abs_tol=1e-9)


def test_a_guard_lets_models_act_as_soon_and_as_often_as_it_promises() -> None:
    game = Game(Guarded(allowance=0.1, most=1.0))
    acted = [game.play(np.array([0.5]), lambda *_: 0.0)[0][0] for _ in range(100)]
    assert [i + 1 for i, base in enumerate(acted) if base] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    game = Game(Guarded(allowance=0.1, most=1.0))
    acted = [game.play(np.array([0.5]), lambda *_: 1.0)[0][0] for _ in range(100)]
    assert acted == [0] * 9 + [1] * 91


# Budgets


@given(
    selector=st.sampled_from(ALL),
    budget=st.none() | st.integers(0, 60),
    money=st.none() | st.floats(0, 30),
    prices=st.none() | st.tuples(st.floats(0, 5), st.floats(0, 5)),
    rule=st.sampled_from(["hard-stop", "linear"]),
    batch=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=200)
def test_a_budget_is_never_overrun(
    selector: Selector,
    budget: int | None,
    money: float | None,
    prices: tuple[float, float] | None,
    rule: str,
    batch: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    game = Game(selector, 3, batch, budget=budget, money=money, prices=prices or (), budget_rule=rule)
    paid, called, price = 0.0, 0, np.array([0.0, *(prices or (1, 1))])
    for _ in range(20):
        acted, _, kept = game.play(rng.random(batch), lambda *_: rng.random())
        for base in acted:
            paid, called = paid + price[base], called + (base > 0)
            assert budget is None or called <= budget
            assert money is None or paid <= money
        np.testing.assert_allclose(kept.sum(axis=1), 1, rtol=1e-12)
    assert game.state.counts[1] == called
    assert game.state.ledger[0] == paid


def test_a_hard_stop_uses_the_whole_budget_and_leaves_the_rest_to_the_bandit() -> None:
    game = Game(Fixed(share=1.0), budget=7)
    acted = [game.play(np.array([0.5]), lambda *_: 0.0)[0][0] for _ in range(12)]
    assert acted == [1] * 7 + [0] * 5


def test_a_linear_budget_scales_the_models_by_what_is_left() -> None:
    for limits in ({"budget": 10}, {"money": 10.0}, {"budget": 20, "money": 10.0}):
        game = Game(Fixed(share=0.5), budget_rule="linear", **limits)
        found = []
        for _ in range(4):
            found.append(game.play(np.array([0.999]), lambda *_: 0.0)[2][0, 1])
        left = [(1 - n / 10) * (1 - n / 20 if "budget" in limits and "money" in limits else 1) for n in range(4)]
        np.testing.assert_allclose(found, 0.5 * np.array(left))


def test_money_stops_the_model_that_is_too_dear_and_not_the_other() -> None:
    game = Game(Fixed(share=1.0), 3, money=5.0, prices=(1.0, 4.0))
    _, _, kept = game.play(np.array([0.999, 0.999, 0.1, 0.5]), lambda *_: 0.0)
    # 4 paid, 1 left: the dear one is out, and its share goes to the bandit; then nothing is left.
    np.testing.assert_allclose(kept, [[0, 0.5, 0.5], [0.5, 0.5, 0], [1, 0, 0], [1, 0, 0]])
    assert game.state.ledger[0] == 5


def test_calls_without_a_price_cost_one_each_and_no_limit_is_no_limit() -> None:
    assert record(Fixed()).budget == NO_LIMIT
    game = Game(Fixed(share=1.0))
    game.play(np.full(50, 0.5), lambda *_: 0.0)
    assert game.state.ledger[0] == game.state.counts[1] == 50


# What is refused


def _one_of_each() -> dict[str, Selector]:
    needed = {Unsure: {"threshold": 0.5}, Priced: {"price": 0.1}, Guarded: {"allowance": 0.1}}
    return {name: kind(**needed.get(kind, {})) for name, kind in SELECTORS.items()}


BAD = [
    (Fixed, {"share": 1.1}, "share is 1.1; it is a probability"),
    (Fixed, {"share": math.nan}, "choose it in"),
    (Polynomial, {"least": 0.5, "most": 0.4}, "0 <= least <= most <= 1"),
    (Polynomial, {"scale": -1.0}, "scale is -1.0; choose a finite number"),
    (Polynomial, {"power": math.inf}, "power is inf"),
    (Exponential, {"rate": -0.1}, "rate is -0.1"),
    (Exponential, {"scale": math.inf}, "finite"),
    (LinearDecay, {"most": -0.1}, "most is -0.1"),
    (LogBarrier, {"step": 0.0}, "step is 0.0; it must be above 0"),
    (LogBarrier, {"step": math.inf}, "finite"),
    (LogBarrier, {"mix": 0.1}, "clip and mix exclude each other"),
    (LogBarrier, {"clip": 1.5}, "clip is 1.5"),
    (Exp3, {"rate": 0.0}, "rate is 0.0"),
    (Exp3, {"mix": -0.1}, "mix is -0.1"),
    (Tsallis, {"rate": -2.0}, "rate is -2.0"),
    (Unsure, {"threshold": 1.5}, "uncertainty is in"),
    (Unsure, {"threshold": 0.5, "most": 0.0}, "bandit alone"),
    (Unsure, {"threshold": 0.5, "least": 0.5, "most": 0.2}, "0 <= least <= most <= 1"),
    (Priced, {"price": 1.0}, "no call can gain more"),
    (Priced, {"price": -0.1}, "no call can gain more"),
    (Priced, {"price": 0.1, "optimism": 0.0}, "optimism is 0.0"),
    (Guarded, {"allowance": 1.1}, "reward lost in a round"),
    (Guarded, {"allowance": 0.1, "most": 2.0}, "most is 2.0"),
]


@pytest.mark.parametrize(("kind", "fields", "message"), BAD)
def test_settings_that_make_no_sense_are_refused(kind: type[Any], fields: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        kind(**fields)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"budget": -1}, "budget is -1"),
        ({"money": -1.0}, "money is -1.0"),
        ({"money": math.nan}, "choose a finite amount"),
        ({"money": 5.0, "prices": (1.0, 2.0)}, "2 prices for 1 models"),
        ({"prices": (-1.0,)}, "a price is -1.0"),
        ({"batch": 0}, "at least 1 each"),
        ({"batches": 0}, "at least 1 each"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        record(Fixed(), **limits)


@pytest.mark.parametrize("name", SELECTORS)
def test_rewards_outside_the_unit_interval_are_refused_where_they_would_go_wrong(name: str) -> None:
    selector = _one_of_each()[name]
    check_selector(selector, 2, batch=32, rewards=(0.0, 1.0))
    if name in ("log-barrier", "exp3", "tsallis", "priced", "guarded"):
        for rewards in ((-1.0, 1.0), (0.0, 5.0)):
            with pytest.raises(UnsupportedError, match=f"the {name} selector of 'x' needs rewards in"):
                check_selector(selector, 2, batch=32, rewards=rewards, where="'x'")
    else:
        check_selector(selector, 2, batch=32, rewards=(-1.0, 5.0))


@given(
    batch=st.integers(1, 100),
    members=st.integers(2, 4),
    highest=st.floats(0.1, 1),
    weight=st.sampled_from(["raw", "played"]),
    smoothing=st.sampled_from([(None, None), (0.2, None), (None, 0.3), (None, 1.0)]),
    rare=st.floats(1e-9, 1e-3),
)
@settings(deadline=None)
def test_the_largest_step_is_the_largest_that_keeps_inverse_probabilities_above_0(
    batch: int,
    members: int,
    highest: float,
    weight: Any,
    smoothing: tuple[float | None, float | None],
    rare: float,
) -> None:
    clip, mix = smoothing
    rule = LogBarrier(weight=weight, clip=clip, mix=mix)
    largest = rule.largest_step(batch=batch, members=members, highest=highest)
    # The worst batch: one model has nearly all the probability, acts in every round, and always earns the highest.
    p = np.full(members, rare)
    p[-1] = 1 - rare * (members - 1)
    state = simulation.start(members)._replace(inverse=1 / p)
    played = np.tile(shares(rule, 1, state, members), (batch, 1))
    losses = np.zeros(members)
    acted = np.full(batch, members - 1, np.int8)
    credit(record(rule, members, batch), state, played, acted, np.full(batch, highest), losses)
    assert np.all(state.inverse + largest * losses >= -1e-9)
    assert np.any(state.inverse + 1.01 * largest * losses < 0)


def test_a_step_that_is_too_large_for_the_batch_is_refused_with_the_largest_that_is_safe() -> None:
    check_selector(LogBarrier(), 2, batch=32, rewards=(0, 1))
    check_selector(LogBarrier(weight="played"), 2, batch=32, rewards=(0, 1))
    check_selector(LogBarrier(), 2, batch=64, rewards=(0, 0.5))
    check_selector(LogBarrier(loss="one-minus-reward", step=3.0), 2, batch=1000, rewards=(0, 1))
    with pytest.raises(ConfigurationError, match=r"batches of 64 and rewards up to 1 it may be at most 0\.01562"):
        check_selector(LogBarrier(), 2, batch=64, rewards=(0, 1))


# The simulation


@pytest.fixture(scope="module")
def simulated() -> dict[str, simulation.Played]:
    means = simulation.curves(100_000)
    return {name: simulation.play(selector, means, seed=1) for name, selector in simulation.SELECTORS.items()}


def test_in_the_simulation_the_released_rule_gives_the_work_back_to_the_bandit(
    simulated: dict[str, simulation.Played],
) -> None:
    run = simulated["log-barrier: -r, 1/p raw"]
    assert 0.005 < run.raw.min() < 0.2
    assert run.raw[-1] > 0.95
    alone = [simulated[f"fixed: share {who}"].rewards.mean() for who in ("0 (the bandit alone)", "1 (the model alone)")]
    assert run.rewards.mean() > max(alone)


def test_in_the_simulation_the_printed_rule_diverges(simulated: dict[str, simulation.Played]) -> None:
    run = simulated["log-barrier: 1 - r, 1/p raw (as printed)"]
    assert run.raw.min() < simulation.DIVERGED
    assert run.raw[-1] < simulation.DIVERGED
    assert np.count_nonzero(run.acted) > 0.75 * len(run.acted)
    others = [name for name in simulated if name.startswith("log-barrier") and "as printed" not in name]
    assert all(simulated[name].raw.min() > 1e-4 for name in others)


def test_the_simulation_runs_the_same_compiled_and_interpreted() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(SCRIPTS)!r}); import selector_simulation as s\n"
        "means = s.curves(1_500)\n"
        "runs = {n: s.play(k, means, 2) for n, k in s.SELECTORS.items()}\n"
        "told = {n: [r.acted.tolist(), r.rewards.tolist(), r.raw.round(9).tolist()] for n, r in runs.items()}\n"
        "print(json.dumps(told))"
    )
    told = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for disabled in ("0", "1")
    ]
    assert told[0] == told[1]
    assert len({tuple(acted) for acted, _, _ in told[0].values()}) > 10


def test_every_selector_has_a_record_of_its_own() -> None:
    records = [record(selector) for selector in _one_of_each().values()]
    assert len({found.kind for found in records}) == len(SELECTORS)
    for one, other in itertools.pairwise(records):
        assert [type(value) for value in one] == [type(value) for value in other]
