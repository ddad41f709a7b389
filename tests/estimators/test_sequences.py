"""Confidence sequences: the martingale over every possible log, coverage at every step, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import Evidence, evaluate
from counterplay.estimators.sequence_kernel import BETS, LOG_SHARE, least_mean, log_growth, log_wealth
from counterplay.estimators.sequence_plan import Plan
from counterplay.estimators.sequences import ConfidenceSequence, path_of

Array = NDArray[np.float64]

PLANS: dict[str, dict[str, Any]] = {
    "value": {},
    "value, largest weight": {"largest_weight": 8.0},
    "value, model": {"largest_weight": 8.0, "estimator": "dr"},
    "difference": {"baseline": "b"},
    "difference, largest weight": {"baseline": "b", "largest_weight": 8.0},
    "difference, model": {"baseline": "b", "largest_weight": 8.0, "estimator": "dr"},
}


def _plan(**options: Any) -> Plan:
    return ConfidenceSequence.start(("a", "b"), reward_range=(-1.0, 3.0), **options).plan


def _every_log(steps: int) -> Any:
    """(probability, evidence) of every log that a logger which learns can write in a world that drifts.

    Two actions, two rewards; the logger prefers what has paid so far, and policy b does too. Also yields the policies'
    expected rewards (P, n), given all that came before.
    """
    rewards, lift = np.array([-1.0, 3.0]), np.array([0.2, 0.5])
    for path in product(range(2), range(2), repeat=steps):
        pairs = np.array(path).reshape(steps, 2)
        chance, earned = 1.0, np.zeros(2)
        columns: dict[str, list[Any]] = {"propensity": [], "reward": [], "q_logged": []}
        target, q_target, value = (np.zeros((2, steps)) for _ in range(3))
        for t, (action, outcome) in enumerate(pairs):
            first = 0.125 + 0.75 / (1 + np.exp(earned[1] - earned[0]))
            logging = np.array([first, 1 - first])
            policy = np.array([[0.9, 0.1], [1 - first, first]])
            pays = lift + 0.1 * t
            model = np.array([0.5, -0.3]) + 0.2 * earned.clip(-1, 1)
            chance *= logging[action] * (pays[action] if outcome else 1 - pays[action])
            columns["propensity"].append(logging[action])
            columns["reward"].append(rewards[outcome])
            columns["q_logged"].append(model[action])
            target[:, t], q_target[:, t] = policy[:, action], policy @ model
            value[:, t] = policy @ (pays * rewards[1] + (1 - pays) * rewards[0])
            earned[action] += rewards[outcome]
        yield chance, Evidence(target=target, q_target=q_target, policies=("a", "b"), **columns), value


def _average_gain(options: dict[str, Any], share: float = 1.0, unseen: float = 0.0) -> tuple[Array, Array, float]:
    """(F, 2, D, K) what each bet makes of 1 on average over all logs of 3 decisions, and the probability of them all.

    First against each decision's own mean, then against their running mean. Policy a takes the actions of the log
    with the probability `share`, and else an action that is never logged and earns `unseen`, of [0, 1].
    """
    plan = _plan(**options)
    part, lift = np.array([[share], [1.0]]), np.array([[(1 - share) * unseen], [0.0]])
    own, running, total = np.zeros(1), np.zeros(1), 0.0
    for chance, evidence, value in _every_log(3):
        v = (value + 1) / 4 * part + lift
        mean = np.stack([v, 1 - v] if plan.baseline is None else [v[:1] - v[1:], v[1:] - v[:1]])
        mean = (mean + plan.offset[:, None, None, None])[..., None]
        _, outcomes = plan.outcomes(replace(evidence, target=evidence.target * part))
        assert (outcomes >= 0).all()
        gain = np.prod(1 + BETS * outcomes[..., None], axis=3)
        own = own + chance * gain / np.prod(1 + BETS * mean, axis=3)
        running = running + chance * gain / (1 + BETS * mean.mean(axis=3)) ** 3
        total += chance
    return own, running, total


@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS)
def test_every_bet_is_fair_on_average_over_all_possible_logs(options: dict[str, Any]) -> None:
    own, running, total = _average_gain(options)
    assert total == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(own, 1.0, rtol=1e-9)
    assert running.max() <= 1 + 1e-12


@pytest.mark.parametrize("unseen", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ["value", "difference"])
def test_actions_that_are_never_logged_make_no_bet_gain(name: str, unseen: float) -> None:
    own, running, _ = _average_gain(PLANS[name], share=0.5, unseen=unseen)
    assert own.max() <= 1 + 1e-12
    assert running.max() <= 1 + 1e-12
    assert own.min() < 0.9


def test_with_a_largest_weight_they_do() -> None:
    own, _, _ = _average_gain(PLANS["value, largest weight"], share=0.5, unseen=0.4)
    assert own.max() > 1.1


def test_wealth_is_the_mixture_of_the_bets() -> None:
    rng = np.random.default_rng(0)
    outcome, mean = rng.exponential(size=(2, 3, 40)), np.array([0.7, 0.9, 1.3])
    offset = np.array([0.0, 0.5])
    growth = log_growth(outcome.reshape(6, 40), BETS).reshape(2, 3, len(BETS)).transpose(1, 0, 2)
    bets = np.prod((1 + BETS * outcome[..., None]) / (1 + BETS * (mean + offset[:, None])[..., None, None]), axis=2)
    expected = (bets.mean(axis=0) * np.exp(LOG_SHARE)).sum(axis=1)
    np.testing.assert_allclose(log_wealth(growth, offset, 40, mean), np.log(expected), rtol=1e-12)
    assert np.exp(LOG_SHARE).sum() == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 300.0, 1e12, 1e60])
def test_growth_is_the_sum_of_logarithms(scale: float) -> None:
    rng = np.random.default_rng(1)
    outcome = rng.exponential(size=(3, 500)) * scale * (rng.random((3, 500)) < 0.5)
    expected = np.log1p(BETS * outcome[..., None]).sum(axis=1)
    np.testing.assert_allclose(log_growth(outcome, BETS), expected, rtol=1e-12, atol=500 * np.finfo(float).eps)
    interpreted = getattr(log_growth, "py_func", log_growth)
    np.testing.assert_array_equal(interpreted(outcome, BETS), log_growth(outcome, BETS))


def test_growth_survives_the_end_of_the_floating_point_numbers() -> None:
    outcome = np.full((1, 400), 1e100)
    outcome[0, ::2] = 1e308
    expected = 200 * (2 * np.log(BETS) + 100 * np.log(10) + 308 * np.log(10))
    np.testing.assert_allclose(log_growth(outcome, BETS)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("needed", [0.7, 3.7, 40.0])
@pytest.mark.parametrize("n", [1, 30, 3000])
def test_the_bound_is_where_the_wealth_is_reached(n: int, needed: float) -> None:
    rng = np.random.default_rng(n)
    offset = np.array([0.0, 9.0])
    base = rng.exponential(size=(4, n)) * np.array([[1e-4], [0.3], [1.0], [50.0]])
    growth = log_growth(np.concatenate([base, base + 9]), BETS).reshape(2, 4, -1).transpose(1, 0, 2)
    least = least_mean(growth, offset, n, needed, 0.0)
    reached = log_wealth(growth, offset, n, least)
    assert np.all((least == 0) | (np.abs(reached - needed) < 1e-7))
    assert np.all((least > 0) | (reached <= needed))
    assert np.all(least < base.mean(axis=1))
    assert np.all(
        np.diff([log_wealth(growth, offset, n, least * factor) for factor in (0.5, 0.9, 1.0, 1.1, 2.0)], axis=0) <= 0
    )


World = Callable[[np.random.Generator, int, int], tuple[dict[str, Array], Array]]
"""(columns (runs, n) of the evidence of one policy, its expected reward (n,) in each decision), for runs and n."""


def _ten_actions(rng: np.random.Generator, runs: int, n: int, rate: float = 0.3) -> tuple[dict[str, Array], Array]:
    target, reward = rng.random((runs, n)) < 0.1, rng.random((runs, n)) < rate
    return {"reward": reward, "propensity": np.full((runs, n), 0.1), "target": target}, np.full(n, rate)


def _rare_rewards(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    return _ten_actions(rng, runs, n, rate=0.005)


def _ends_of_the_range(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    half = np.full((runs, n), 0.5)
    return {"reward": rng.random((runs, n)) < 0.98, "propensity": half, "target": half}, np.full(n, 0.98)


def _heavy_weights(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    # The policy's action is logged with probability u^2, u uniform: the mean of w^2, that of 1 / u^2, is infinite.
    chance = np.maximum(rng.random((runs, n)) ** 2, 1e-9)
    takes = rng.random((runs, n)) < chance
    propensity = np.where(takes, chance, np.maximum(1 - chance, 1e-9))
    return {"reward": rng.random((runs, n)) < 0.4, "propensity": propensity, "target": takes}, np.full(n, 0.4)


def _learning_logger(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    rates, row = np.array([0.5, 0.4, 0.6]), np.arange(runs)
    earned, tries = np.ones((runs, 3)), np.full((runs, 3), 2.0)
    propensity, reward, target = np.zeros((3, runs, n))
    for t in range(n):
        greedy = np.argmax(earned / tries, axis=1)
        action = np.where(rng.random(runs) < 0.7, greedy, rng.integers(3, size=runs))
        propensity[:, t] = 0.1 + 0.7 * (action == greedy)
        reward[:, t] = rng.random(runs) < rates[action]
        target[:, t] = action == 1
        earned[row, action] += reward[:, t]
        tries[row, action] += 1
    return {"reward": reward, "propensity": propensity, "target": target}, np.full(n, 0.4)


def _drift(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    rate = 0.5 + 0.4 * np.sin(np.arange(n) / 40)
    takes = rng.random((runs, n)) < 0.25
    reward = rng.random((runs, n)) < rate
    return {"reward": reward, "propensity": np.where(takes, 0.25, 0.75), "target": takes}, rate


def _half_without_support(rng: np.random.Generator, runs: int, n: int) -> tuple[dict[str, Array], Array]:
    # Half of the time the policy takes an action that is never logged, and always pays.
    columns, value = _ten_actions(rng, runs, n)
    return columns | {"target": columns["target"] * 0.5}, value * 0.5 + 0.5


WORLDS: dict[str, World] = {
    "ten actions": _ten_actions,
    "rare rewards": _rare_rewards,
    "ends of the range": _ends_of_the_range,
    "heavy weights": _heavy_weights,
    "learning logger": _learning_logger,
    "drift": _drift,
    "half without support": _half_without_support,
}


def _miss_rates(world: World, runs: int, steps: int, level: float = 0.95, **options: Any) -> tuple[float, float]:
    """Share of runs in which the sequence, or the t interval of IPS from step 30 on, ever misses the running mean."""
    plan = ConfidenceSequence.start(("p",), level=level, **options).plan
    outcomes = np.empty((len(plan.offset), 2, runs, steps))
    gains = np.empty((runs, steps))
    columns, value = world(np.random.default_rng(0), runs, steps)
    for run in range(runs):
        evidence = Evidence(policies=("p",), **{name: column[run] for name, column in columns.items()})
        gain, outcome = plan.outcomes(evidence)
        gains[run], outcomes[:, :, run] = gain[0], outcome[:, :, 0]
    n = np.arange(1, steps + 1)
    value = value.cumsum() / n
    growth = np.zeros((*outcomes.shape[:3], len(BETS)))
    missed, needed = np.zeros(runs, dtype=bool), np.log(2 / (1 - level))
    for t in range(steps):
        growth += np.log1p(BETS * outcomes[..., t, None])
        truth = np.array([[value[t]], [1 - value[t]]])
        missed |= np.any(log_wealth(growth.transpose(1, 2, 0, 3), plan.offset, t + 1, truth) > needed, axis=0)
    means = gains.cumsum(axis=1) / n
    error = np.sqrt(np.maximum((gains**2).cumsum(axis=1) / n - means**2, 0) / np.maximum(n - 1, 1))
    t_missed = (np.abs(means - value) > 1.96 * error)[:, 29:].any(axis=1)
    return float(missed.mean()), float(t_missed.mean())


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_at_most_a_twentieth_of_the_runs_ever_miss(world: World) -> None:
    missed, t_missed = _miss_rates(world, 400, 250)
    assert missed <= 0.05
    assert t_missed > 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "largest_weight"),
    [(name, None) for name in WORLDS] + [(name, 10.0) for name in ("ten actions", "learning logger", "drift")],
)
def test_at_most_a_twentieth_of_2000_runs_ever_miss(name: str, largest_weight: float | None) -> None:
    missed, _ = _miss_rates(WORLDS[name], 2000, 2000, largest_weight=largest_weight)
    assert missed <= 0.05


def test_a_lower_level_misses_more_often_and_keeps_its_word() -> None:
    missed, _ = _miss_rates(_ten_actions, 400, 300, level=0.5)
    assert 0.1 < missed <= 0.5


def _example(seed: int = 0, n: int = 3000, **columns: Any) -> Evidence:
    """Three policies on a log of four actions; the rewards lie in [-1, 3]."""
    rng = np.random.default_rng(seed)
    logging = 0.05 + 0.8 * rng.dirichlet(np.ones(4), size=n)
    action = (logging.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    target = rng.dirichlet(np.ones(4), size=(3, n))
    model = rng.uniform(-1, 3, size=4)
    rows = np.arange(n)
    ours: dict[str, Any] = {
        "reward": rng.beta(1 + action, 2) * 4 - 1, "propensity": logging[rows, action],
        "target": target[:, rows, action], "q_logged": model[action], "q_target": target @ model,
        "policies": ("a", "b", "c"),
    }  # fmt: skip
    return Evidence(**(ours | columns))


def _start(**options: Any) -> ConfidenceSequence:
    return ConfidenceSequence.start(**({"policies": ("a", "b", "c"), "reward_range": (-1.0, 3.0)} | options))


FORMS = {name: options | {key: 20.0 for key in options if key == "largest_weight"} for name, options in PLANS.items()}


def _limits(sequence: ConfidenceSequence) -> Array:
    found = [(e.low, e.high, e.value) for e in sequence.interval()]
    assert None not in sum(found, ())
    return np.array(found)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_an_interval_ends_where_the_wealth_is_two_over_what_the_level_leaves(
    options: dict[str, Any], level: float
) -> None:
    sequence = _start(**options, level=level).add(_example())
    low, high, _ = _limits(sequence).T / 4 + (0.0 if "baseline" in options else 0.25)
    means = np.stack([low, -high if "baseline" in options else 1 - high])
    wealth = log_wealth(sequence.growth.transpose(1, 2, 0, 3), sequence.plan.offset, sequence.n, means)
    np.testing.assert_allclose(wealth, np.log(2 / (1 - level)), rtol=1e-6)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_tomorrow_goes_on_where_today_ended(options: dict[str, Any]) -> None:
    evidence = _example()
    once = _start(**options).add(evidence)
    sequence = _start(**options)
    for first, last in ((0, 1), (1, 700), (700, 701), (701, 3000)):
        stored = json.dumps(sequence.to_json(), allow_nan=False)
        sequence = ConfidenceSequence.from_json(json.loads(stored)).add(evidence.part(slice(first, last)))
        assert sequence.place == sequence.n == last
    np.testing.assert_allclose(_limits(sequence), _limits(once), rtol=1e-12)
    assert sequence.interval()[0].diagnostics.effective_sample_size == pytest.approx(
        evaluate(evidence, "ips")[0].diagnostics.effective_sample_size, rel=1e-12
    )


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_what_is_stored_is_read_to_the_last_bit(options: dict[str, Any]) -> None:
    sequence = _start(**options).add(replace(_example(), assumption="weights are right"))
    again = ConfidenceSequence.from_json(json.loads(json.dumps(sequence.to_json(), allow_nan=False)))
    assert again.interval() == sequence.interval()
    assert again.to_json() == sequence.to_json()
    assert again.plan == sequence.plan


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_path_passes_through_the_intervals(options: dict[str, Any]) -> None:
    evidence, at = _example(n=500), np.array([1, 2, 60, 499, 500])
    path = path_of(_start(**options), evidence, at)
    for time, bounds in zip(at, path, strict=True):
        now = _start(**options).add(evidence.part(slice(0, int(time)))).interval()
        np.testing.assert_allclose(bounds, [(e.low, e.high) for e in now], rtol=1e-10)
    assert path.shape == (5, len(now), 2)


def test_policies_do_not_meet() -> None:
    evidence = _example(n=20_000)
    for p, together in enumerate(_start().add(evidence).interval()):
        (alone,) = _start(policies=evidence.policies[p]).add(evidence.part(slice(None), slice(p, p + 1))).interval()
        assert alone == together


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_rewards_in_other_units_and_the_other_way_round(options: dict[str, Any]) -> None:
    evidence = _example()
    limits = _limits(_start(**options).add(evidence))
    shift = 0.0 if "baseline" in options else 5.0

    def change(factor: float) -> Array:
        columns = {name: factor * getattr(evidence, name) + 5 for name in ("reward", "q_logged", "q_target")}
        ends = sorted((5 - factor, 5 + 3 * factor))
        return _limits(_start(**options, reward_range=tuple(ends)).add(replace(evidence, **columns)))

    np.testing.assert_allclose(change(100.0), 100 * limits + shift, rtol=1e-9)
    np.testing.assert_allclose(change(-1.0), -limits[:, [1, 0, 2]] + shift, rtol=1e-9)


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_a_higher_level_and_fewer_decisions_are_wider(options: dict[str, Any]) -> None:
    evidence = _example(n=8000)
    narrow = _limits(_start(**options, level=0.8).add(evidence))
    wide = _limits(_start(**options, level=0.99).add(evidence))
    few = _limits(_start(**options, level=0.8).add(evidence.part(slice(0, 1000))))
    assert np.all(wide[:, 0] < narrow[:, 0])
    assert np.all(wide[:, 1] > narrow[:, 1])
    assert np.all(np.diff(few[:, :2], axis=1) > 1.5 * np.diff(narrow[:, :2], axis=1))


@pytest.mark.parametrize("name", [name for name in FORMS if name.startswith("difference")])
def test_a_difference_turned_round_is_its_mirror_image(name: str) -> None:
    evidence = _example().part(slice(None), slice(0, 2))
    ahead, behind = (
        _start(**(FORMS[name] | {"policies": ("a", "b"), "baseline": base})).add(evidence).interval()[0]
        for base in ("b", "a")
    )
    assert (ahead.policy, behind.policy) == ("a minus b", "b minus a")
    assert ahead.low is not None
    assert behind.high is not None
    assert ahead.low == pytest.approx(-behind.high, rel=1e-9)
    assert ahead.value == pytest.approx(-behind.value, rel=1e-9)  # type: ignore[operator]


def test_a_policy_that_always_agrees_with_the_baseline_differs_by_little() -> None:
    # A union of two intervals would add their widths; with a known largest weight only disagreement costs.
    evidence = _example(n=20_000)
    same = replace(evidence, target=np.stack([evidence.target[0]] * 2), q_target=None, policies=("a", "b"))
    own = _limits(_start(policies=("a", "b"), largest_weight=20).add(same))[0]
    apart = _limits(_start(policies=("a", "b"), baseline="b", largest_weight=20).add(same))[0]
    assert apart[0] < 0 < apart[1]
    assert apart[1] - apart[0] < 0.5 * (own[1] - own[0])


def _peers_sequence(n: int) -> Evidence:
    even = np.arange(n) % 2 == 0
    return Evidence(reward=even, propensity=np.full(n, 0.5), target=np.where(even, 0.2, 0.8))


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(100, 0.10378655, 0.50911656), (1000, 0.17572450, 0.29635523), (10000, 0.19245581, 0.23191418)],
)
def test_within_the_sequence_of_vw_estimators(n: int, low: float, high: float) -> None:
    (ours,) = ConfidenceSequence.start(("policy 0",)).add(_peers_sequence(n)).interval()
    assert ours.low is not None
    assert ours.high is not None
    assert low < ours.low < 0.2 < ours.high < high


@pytest.mark.parametrize(("world", "factor"), [(_ten_actions, 2.5), (_ends_of_the_range, 2.0), (_drift, 2.6)])
def test_no_more_than_two_and_a_half_times_the_t_interval(world: World, factor: float) -> None:
    columns, _ = world(np.random.default_rng(3), 20, 10_000)
    widths = np.zeros((20, 2))
    for run in range(20):
        evidence = Evidence(policies=("p",), **{name: column[run] for name, column in columns.items()})
        for place, e in enumerate(
            (ConfidenceSequence.start(("p",)).add(evidence).interval()[0], evaluate(evidence, "ips")[0])
        ):
            assert e.low is not None
            assert e.high is not None
            widths[run, place] = e.high - e.low
    ratio = widths[:, 0].mean() / widths[:, 1].mean()
    assert 1.2 < ratio < factor


def test_a_largest_weight_saves_most_where_rewards_are_rare() -> None:
    columns, _ = _ten_actions(np.random.default_rng(4), 1, 10_000, rate=0.01)
    evidence = Evidence(policies=("p",), **{name: column[0] for name, column in columns.items()})
    wide, narrow = (_limits(ConfidenceSequence.start(("p",), largest_weight=k).add(evidence))[0] for k in (None, 10.0))
    assert narrow[1] - narrow[0] < 0.4 * (wide[1] - wide[0])


def test_a_good_model_narrows_and_a_bad_one_costs() -> None:
    evidence = _example(n=20_000)
    good = replace(evidence, q_logged=evidence.reward, q_target=np.full((3, len(evidence)), evidence.reward.mean()))
    bad = replace(evidence, q_logged=2 - evidence.reward)
    widths = [
        float(np.diff(_limits(_start(estimator="dr", largest_weight=20.0).add(e))[0, :2])[0])
        for e in (good, evidence, bad)
    ]
    assert widths[0] < widths[1] < widths[2]


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_wrong_propensities_never_turn_an_interval_round(factor: float, options: dict[str, Any]) -> None:
    evidence = _example(n=5000)
    wrong = replace(evidence, propensity=np.minimum(evidence.propensity / factor, 1.0))
    sequence, done = _start(**(options | ({"largest_weight": 40.0} if "largest_weight" in options else {}))), 0
    for stop in (1, 2, 5, 20, 100, 500, 2000, 5000):
        sequence = sequence.add(wrong.part(slice(done, stop)))
        done = stop
        for estimate in sequence.interval():
            if estimate.value is None:
                assert (estimate.low, estimate.high) == (None, None)
                assert "mean weight" in estimate.reason
            else:
                assert estimate.low is not None
                assert estimate.high is not None
                assert estimate.low <= estimate.value <= estimate.high
    assert {e.gate for e in sequence.interval()} == {"unreliable"}
    assert all("mean weight is" in e.reason for e in sequence.interval())


def test_weights_twice_too_large_leave_no_number() -> None:
    # vw-estimators answers [0.856, 0.447] to such a log.
    evidence = _example(n=5000)
    twice = replace(evidence, propensity=evidence.propensity / 2)
    for estimate in _start().add(twice).interval():
        assert (estimate.value, estimate.low, estimate.high) == (None, None, None)
        assert "the lower bound lies above the upper one" in estimate.reason
    assert np.isnan(path_of(_start(), twice, [5000])).all()


def test_diagnostics_are_those_of_other_estimates() -> None:
    evidence = _example(n=10_000)
    order = np.argsort(-evidence.weight[0], kind="stable")
    falling = replace(
        evidence, reward=evidence.reward[order], propensity=np.asarray(evidence.propensity)[order],
        target=evidence.target[:, order], q_logged=None, q_target=None,
    )  # fmt: skip
    for ours, theirs in zip(_start().add(falling).interval(), evaluate(falling, "snips"), strict=True):
        assert ours.value == pytest.approx(theirs.value, rel=1e-12)
        for name in ("n", "units", "effective_sample_size", "largest_weight", "largest_weight_share", "mean_weight",
                     "mean_weight_p", "share_zero_weight"):  # fmt: skip
            assert getattr(ours.diagnostics, name) == pytest.approx(getattr(theirs.diagnostics, name), rel=1e-9), name


@pytest.mark.parametrize(
    ("factor", "n", "gate", "reason"),
    [(1.04, 4000, "caution", "1.04, a little off 1"), (1.2, 200, "unreliable", "1.2, not 1"), (1.0, 4000, "ok", "")],
)
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_mean_weight_opens_the_gate(factor: float, n: int, gate: str, reason: str, spread: float) -> None:
    weights = factor * np.tile([1 - spread, 1 + spread], n // 2)
    evidence = Evidence.of_weights(reward=np.tile([0.0, 0.0, 1.0, 1.0], n // 4), weights=weights)
    (found,) = ConfidenceSequence.start(evidence.policies).add(evidence).interval()
    assert found.value is not None
    assert found.gate == gate
    assert reason in found.reason


def test_a_constant_reward_is_found_from_one_side() -> None:
    evidence = _example(n=20_000)
    for reward in (-1.0, 3.0):
        for estimate in _start().add(replace(evidence, reward=np.full(20_000, reward))).interval():
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.value == pytest.approx(reward)
            assert estimate.low - 1e-12 <= reward <= estimate.high + 1e-12
            assert estimate.high - estimate.low < 0.2


def test_little_evidence_says_little_and_nothing_says_nothing() -> None:
    one = _example(n=1)
    for estimate in _start().add(one).interval():
        assert (estimate.low, estimate.high) == (-1.0, 3.0)
    for estimate in _start().interval():
        assert (estimate.value, estimate.gate, estimate.reason) == (None, "unreliable", "no decision has been added")
        json.dumps(estimate.to_json(), allow_nan=False)
    for estimate in _start(baseline="b").add(replace(one, target=np.array([[0.5], [0.0], [0.5]]))).interval():
        assert estimate.value is None
        assert estimate.reason == "no logged decision has an action of policy 'b'"


def test_an_assumption_is_a_caution_for_good() -> None:
    evidence = _example(n=500)
    sequence = _start().add(replace(evidence.part(slice(0, 200)), assumption="cloned propensities"))
    sequence = sequence.add(evidence.part(slice(200, 500)))
    assert {(e.gate, e.reason) for e in sequence.interval()} == {("caution", "cloned propensities")}
    assert {e.gate for e in _start().add(evidence).interval()} == {"ok"}


def test_weights_may_come_without_propensities() -> None:
    evidence = _example(n=900)
    given = Evidence.of_weights(reward=evidence.reward, weights=evidence.weight, policies=evidence.policies)
    np.testing.assert_array_equal(_limits(_start().add(given)), _limits(_start().add(evidence)))


def test_a_gap_in_the_log_is_no_overlap() -> None:
    evidence = replace(_example(n=50), start=1000)
    sequence = _start().add(evidence)
    assert (sequence.n, sequence.place) == (50, 1050)
    with pytest.raises(EvidenceError, match=r"starts at decision 1049.*Evidence\(start=1050\)"):
        sequence.add(replace(evidence, start=1049))


def test_chosen_decisions_are_added_in_order_of_time() -> None:
    evidence = _example(n=50)
    sequence = _start().add(evidence.chosen(np.array([3, 7, 20])))
    assert (sequence.n, sequence.place) == (3, 21)
    with pytest.raises(EvidenceError, match="starts at decision 20"):
        sequence.add(evidence.chosen(np.array([20, 21])))
    with pytest.raises(EvidenceError, match="Row 2 has place 30 in its log, and the row before it 40"):
        sequence.add(evidence.chosen(np.array([30, 40, 30])))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"reward": [0.0, 0.5, 3.5, 4.0]},
            EvidenceError,
            r"reward at row 2 is 3\.5, and so are 1 more of 4.*\[-1, 3\]",
        ),
        ({"policies": ("a", "c", "b")}, EvidenceError, "same order"),
        ({"propensity": None}, MissingEvidenceError, "propensities"),
        ({"cluster": [4, 1, 9, 1]}, EvidenceError, "Rows 1 and 3 share cluster 1"),
        ({"propensity": [0.5, 0.5, 0.001, 0.5]}, EvidenceError, "weight at row 2 .* at most 20, the largest weight"),
        ({"q_logged": [0.0, -2.0, 0.0, 0.0]}, EvidenceError, "q_logged at row 1 is -2"),
        ({"q_target": None}, MissingEvidenceError, "q_target"),
    ],
)
def test_evidence_that_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    evidence = replace(_example(n=4, target=np.full((3, 4), 0.5)), propensity=np.full(4, 0.5))
    sequence = _start(largest_weight=20.0, estimator="dr").add(replace(evidence, cluster=[3, 2, 1, 7]))
    with pytest.raises(error, match=message):
        sequence.add(replace(evidence, start=4, **change))


def test_a_weight_that_would_overflow_is_refused() -> None:
    evidence = Evidence.of_weights(reward=[0.0, 1.0], weights=[1.0, 1e200])
    with pytest.raises(EvidenceError, match=r"weight at row 1 is 1e\+200"):
        ConfidenceSequence.start(evidence.policies).add(evidence)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policies": ()}, "no policy"),
        ({"policies": ("a", "b", "a")}, "'a' is named more than once"),
        ({"level": 1.0}, "level is 1"),
        ({"level": float("nan")}, "level is nan"),
        ({"reward_range": (1.0, 1.0)}, "reward_range is"),
        ({"reward_range": (0.0, float("inf"))}, "reward_range is"),
        ({"baseline": "aa"}, "Did you mean 'a'"),
        ({"policies": ("a",), "baseline": "a"}, "two policies"),
        ({"estimator": "snips"}, "Known: dr, ips"),
        ({"estimator": "dr"}, "needs largest_weight"),
        ({"largest_weight": 0.5}, "largest_weight is 0.5"),
        ({"largest_weight": float("nan")}, "largest_weight is nan"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _start(**options)


def test_a_cluster_that_lies_across_two_times_is_seen() -> None:
    evidence = replace(_example(n=4), cluster=np.array([0, 1, 1, 2]))
    with pytest.raises(EvidenceError, match="Rows 1 and 2 share cluster 1"):
        path_of(_start(), evidence, [2, 4])


@pytest.mark.parametrize("at", [[], [0, 5], [5, 5], [7, 6], [51], [1.5], [[1, 2]]])
def test_times_that_are_refused(at: Any) -> None:
    with pytest.raises(ConfigurationError, match="at must"):
        path_of(_start(), _example(n=50), at)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 0},
        {"growth": [1.0]},
        {"largest": [1.0, 2.0, float("nan")]},
        {"totals": "sums"},
        {"n": None},
        {"n": 11},
        {"plan": {}},
    ],
)
def test_a_damaged_store_is_refused(damage: dict[str, Any]) -> None:
    stored = _start().add(_example(n=10)).to_json()
    with pytest.raises(EvidenceError, match="stored confidence sequence"):
        ConfidenceSequence.from_json(stored | damage)
    with pytest.raises(EvidenceError, match="stored confidence sequence"):
        ConfidenceSequence.from_json({name: value for name, value in stored.items() if name not in damage})
