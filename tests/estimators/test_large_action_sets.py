"""MIPS and OffCEM by exact enumeration, and an honest test of what they take for granted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import Evidence, evaluate
from counterplay.estimators.problems import category_statistics
from counterplay.estimators.problems.action_embeddings import PLACEBOS, cluster_actions, combine_categories
from counterplay.estimators.problems.direct_effect import check_local_correctness, check_no_direct_effect
from counterplay.estimators.problems.large_action_sets import Marginalised, marginalise

CATEGORIES = np.array([0, 0, 1, 1])
ROWS = np.arange(3)


def _small(seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logging and target probabilities and outcomes of 3 decisions with 4 actions in 2 categories."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(4), size=3), rng.dirichlet(np.ones(4), size=3), rng.normal(size=(3, 4))


def _flat(outcome: np.ndarray) -> np.ndarray:
    """The same outcomes, without a direct effect: each action earns what the first of its category earns."""
    return outcome[:, [0, 0, 2, 2]]


def _every_log(mu: np.ndarray, outcome: np.ndarray, **given: Any) -> Iterator[tuple[float, Marginalised]]:
    """(probability, log) of every log that the logging policy may write."""
    for actions in product(range(4), repeat=3):
        a = np.array(actions)
        chance = mu[ROWS, a].prod()
        if chance > 0:
            yield chance, marginalise(action=a, reward=outcome[ROWS, a], logging=mu, categories=CATEGORIES, **given)


def _mean(values: Iterator[tuple[float, float | None]]) -> float:
    return float(sum(chance * value for chance, value in values))  # type: ignore[operator]


def _expected(mu: np.ndarray, pi: np.ndarray, outcome: np.ndarray, model: np.ndarray | None = None) -> float:
    """The mean of MIPS, or of OffCEM with a model, over every log."""
    logs = _every_log(mu, outcome, target=pi, q=model)
    if model is None:
        return _mean((chance, evaluate(log.mips(), "ips")[0].value) for chance, log in logs)
    return _mean((chance, evaluate(log.offcem(), "dr")[0].value) for chance, log in logs)


def _bias_of_mips(mu: np.ndarray, pi: np.ndarray, outcome: np.ndarray) -> float:
    """Saito & Joachims 2022: sum over pairs a < b of p(a|x,e) p(b|x,e) (q(a) - q(b)) (w(b) - w(a)), e drawn by mu."""
    total = 0.0
    for x in range(3):
        for e in (0, 1):
            members = np.flatnonzero(e == CATEGORIES)
            p, w = mu[x, members] / mu[x, members].sum(), pi[x, members] / mu[x, members]
            q = outcome[x, members]
            pairs = p[0] * p[1] * (q[0] - q[1]) * (w[1] - w[0])
            total += mu[x, members].sum() * pairs / 3
    return total


def _truth(pi: np.ndarray, outcome: np.ndarray) -> float:
    return float((pi * outcome).sum(axis=1).mean())


def test_mips_is_unbiased_without_a_direct_effect() -> None:
    mu, pi, outcome = _small()
    assert _expected(mu, pi, _flat(outcome)) == pytest.approx(_truth(pi, _flat(outcome)), rel=1e-12)


def test_mips_is_off_by_the_papers_formula_with_one() -> None:
    mu, pi, outcome = _small()
    bias = _bias_of_mips(mu, pi, outcome)
    assert abs(bias) > 0.1
    assert _expected(mu, pi, outcome) - _truth(pi, outcome) == pytest.approx(bias, rel=1e-12)


def test_offcem_needs_right_differences_only() -> None:
    mu, pi, outcome = _small()
    wrong_level = outcome + np.array([[3.0, 3.0, -7.0, -7.0]])
    assert _expected(mu, pi, outcome, wrong_level) == pytest.approx(_truth(pi, outcome), rel=1e-12)


def test_offcem_is_off_by_the_same_formula_in_the_residuals() -> None:
    mu, pi, outcome = _small()
    wrong = np.arange(12.0).reshape(3, 4) ** 1.5
    bias = _bias_of_mips(mu, pi, outcome - wrong)
    assert abs(bias) > 0.1
    assert _expected(mu, pi, outcome, wrong) - _truth(pi, outcome) == pytest.approx(bias, rel=1e-12)


def test_the_estimated_bias_is_the_bias_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(category_statistics, "LEAST", 0)
    mu, pi, outcome = _small()
    model = np.arange(12.0).reshape(3, 4) ** 1.5
    logs = list(_every_log(mu, outcome, target=pi, q=model))
    with np.errstate(all="ignore"):
        mips = _mean((chance, check_no_direct_effect(log).policies[0].value) for chance, log in logs)
        offcem = _mean((chance, check_local_correctness(log).policies[0].value) for chance, log in logs)
    assert mips == pytest.approx(_bias_of_mips(mu, pi, outcome), rel=1e-10)
    assert offcem == pytest.approx(_bias_of_mips(mu, pi, outcome - model), rel=1e-10)


def test_actions_that_were_never_logged_are_worth_what_their_category_is() -> None:
    mu, pi, outcome = _small()
    mu[:, 1] = 0
    mu /= mu.sum(axis=1, keepdims=True)
    assert _expected(mu, pi, _flat(outcome)) == pytest.approx(_truth(pi, _flat(outcome)), rel=1e-12)
    supported = pi * (mu > 0)
    ips = _mean((chance, _ips(log, mu, pi)) for chance, log in _every_log(mu, _flat(outcome), target=pi))
    assert ips == pytest.approx(_truth(supported, _flat(outcome)), rel=1e-12)
    assert abs(ips - _truth(pi, _flat(outcome))) > 0.05


def _ips(log: Marginalised, mu: np.ndarray, pi: np.ndarray) -> float | None:
    plain = Evidence(reward=log.evidence.reward, propensity=mu[ROWS, log.action], target=pi[ROWS, log.action])
    return evaluate(plain, "ips")[0].value


def test_lack_of_support_is_no_direct_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    # IPS misses a tenth here and MIPS nothing; their plain difference would be taken for a bias of MIPS.
    monkeypatch.setattr(category_statistics, "LEAST", 0)
    mu, pi, outcome = _small()
    mu[:, 1] = 0
    mu /= mu.sum(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        logs = [
            (chance, check_no_direct_effect(log).policies[0])
            for chance, log in _every_log(mu, _flat(outcome), target=pi)
        ]
    assert _mean((chance, bias.value) for chance, bias in logs) == pytest.approx(0, abs=1e-12)
    assert logs[0][1].unsupported == pytest.approx(pi[:, 1].mean(), rel=1e-12)
    assert all(log.out_of_reach[0] == 0 for _, log in _every_log(mu, outcome, target=pi))


def test_what_no_category_reaches_is_said_to_the_digit() -> None:
    mu, pi, outcome = _small()
    mu[:2, 2:] = 0
    mu /= mu.sum(axis=1, keepdims=True)
    a = np.array([0, 1, 2])
    log = marginalise(
        action=a, reward=outcome[ROWS, a], logging=mu, target=[pi, mu], categories=CATEGORIES, policies=("new", "old")
    )
    np.testing.assert_allclose(log.out_of_reach, [pi[:2, 2:].sum(), 0])
    np.testing.assert_allclose(log.unsupported, [pi[:2, 2:].sum(), 0])
    assert f"'new' has {pi[:2, 2:].sum() / 3:.1%} of its probability in categories" in log.mips().assumption


def _log(
    seed: int = 0,
    n: int = 2000,
    actions: int = 20,
    groups: int = 4,
    effect: float = 0.0,
    rewards: str = "normal",
    copies: int = 1,
    **given: Any,
) -> Marginalised:
    """A log of 20 contexts; `effect`: what action 0 earns beside what its category does."""
    rng = np.random.default_rng(seed)
    category = np.arange(actions) % groups
    mu = 0.8 * rng.dirichlet(np.ones(actions), size=20) + 0.2 / actions
    pi = rng.dirichlet(np.ones(actions), size=(2, 20))
    x = rng.integers(20, size=n)
    a = (mu.cumsum(axis=1)[x] < rng.random((n, 1))).sum(axis=1).clip(max=actions - 1)
    mean = rng.random((20, groups))[x, category[a]] + effect * (a == 0)
    drawn = {
        "normal": lambda: 5 + mean + rng.normal(size=n),
        "rare": lambda: (rng.random(n) < 0.02 * mean).astype(float),
        "heavy": lambda: mean * rng.lognormal(sigma=1.5, size=n),
    }
    r = drawn[rewards]()
    i = np.repeat(np.arange(n), copies)
    arrays: dict[str, Any] = {"action": a[i], "reward": r[i], "logging": mu[x[i]], "target": pi[:, x[i]]}
    if copies > 1:
        arrays["cluster"] = i
    return marginalise(**(arrays | {"categories": category} | given))


def test_an_action_a_category_is_plain_importance_weighting() -> None:
    rng = np.random.default_rng(0)
    n, mu, pi, q = 500, *rng.dirichlet(np.ones(6), size=(2, 500)), rng.normal(size=(500, 6))
    a, r = rng.integers(6, size=n), rng.normal(size=n)
    log = marginalise(action=a, reward=r, logging=mu, target=pi, categories=np.arange(6), q=q)
    rows = np.arange(n)
    plain = Evidence(
        reward=r,
        propensity=mu[rows, a],
        target=pi[rows, a],
        q_logged=q[rows, a],
        q_target=(pi * q).sum(axis=1),
    )
    for ours, theirs in (
        (evaluate(log.mips(), ("ips", "snips")), evaluate(plain, ("ips", "snips"))),
        (evaluate(log.offcem(), ("dr", "sndr")), evaluate(plain, ("dr", "sndr"))),
    ):
        assert [(e.value, e.std_error) for e in ours] == [(e.value, e.std_error) for e in theirs]
    test = check_no_direct_effect(log)
    assert (test.policies[0].low, test.policies[0].high, test.tested, test.left_out) == (0, 0, 0, 0)
    assert log.mips(test).assumption == ""


def test_one_category_for_all_is_the_logged_mean() -> None:
    log = _log(categories=np.zeros(20, dtype=int))
    for estimate in evaluate(log.mips(), ("ips", "snips")):
        assert estimate.value == pytest.approx(float(log.evidence.reward.mean()), rel=1e-12)


def test_blocks_join_to_the_whole_log() -> None:
    whole, parts = _log(copies=3), []
    rng = np.random.default_rng(0)
    category, n = np.arange(20) % 4, 2000
    mu, pi = 0.8 * rng.dirichlet(np.ones(20), size=20) + 0.01, rng.dirichlet(np.ones(20), size=(2, 20))
    x = np.repeat(rng.integers(20, size=n), 3)
    for start in range(0, 3 * n, 1237):
        rows = slice(start, start + 1237)
        parts.append(
            marginalise(
                action=whole.action[rows],
                reward=whole.evidence.reward[rows],
                logging=mu[x[rows]],
                target=(policy[x[rows]] for policy in pi),
                categories=category,
                cluster=np.repeat(np.arange(n), 3)[rows],
                start=start,
            )
        )
    joined = Marginalised.join(iter(parts))
    assert evaluate(joined.mips(), ("ips", "snips")) == evaluate(whole.mips(), ("ips", "snips"))
    assert check_no_direct_effect(joined) == check_no_direct_effect(whole)
    with pytest.raises(EvidenceError, match="comes a block with start 0"):
        Marginalised.join([parts[1], parts[0]])


def test_columns_may_stand_in_any_order_with_gaps() -> None:
    rng = np.random.default_rng(3)
    n, mu, pi = 300, *rng.dirichlet(np.ones(5), size=(2, 300))
    a, r, q = rng.integers(5, size=n), rng.normal(size=n), rng.normal(size=(n, 5))
    plain = marginalise(action=a, reward=r, logging=mu, target=pi, categories=[0, 1, 0, 1, 1], q=q)
    order = rng.permuted(np.tile(np.arange(7), (n, 1)), axis=1)
    columns = np.where(order < 5, order, -1)

    def shuffled(array: np.ndarray, gap: float) -> np.ndarray:
        padded = np.column_stack([array, np.full((n, 2), gap)])
        return np.take_along_axis(padded, order, axis=1)

    other = marginalise(
        action=a,
        reward=r,
        logging=shuffled(mu, 0),
        target=shuffled(pi, 0),
        q=shuffled(q, np.nan),
        candidates=columns,
        categories=[4, 0, 4, 0, 0],
    )
    for name in ("target", "propensity", "q_logged", "q_target"):
        np.testing.assert_allclose(getattr(other.evidence, name), getattr(plain.evidence, name), rtol=1e-12)
    np.testing.assert_allclose(other.difference, plain.difference, rtol=1e-9, atol=1e-12)


def test_a_thousand_actions() -> None:
    rng = np.random.default_rng(0)
    category = np.arange(1000) % 10
    mu, pi = rng.dirichlet(np.ones(1000), size=(2, 5))
    outcome = rng.random((5, 10))[:, category]
    ips, mips, truth = [], [], float((pi * outcome).sum(axis=1).mean())
    x = np.repeat(np.arange(5), 60)
    for seed in range(40):
        draw = np.random.default_rng(seed)
        a = (mu.cumsum(axis=1)[x] < draw.random((300, 1))).sum(axis=1).clip(max=999)
        r = (draw.random(300) < outcome[x, a]).astype(float)
        evidence = marginalise(action=a, reward=r, logging=mu[x], target=pi[x], categories=category).mips()
        plain = Evidence(reward=r, propensity=mu[x, a], target=pi[x, a])
        mips.append(evaluate(evidence, "ips")[0].value)
        ips.append(evaluate(plain, "ips")[0].value)
    assert np.mean(mips) == pytest.approx(truth, abs=4 * np.std(mips) / np.sqrt(40))
    assert np.std(ips) > 4 * np.std(mips)


def test_a_posterior_of_categories_is_the_same() -> None:
    rng = np.random.default_rng(4)
    n, mu, pi = 400, *rng.dirichlet(np.ones(6), size=(2, 400))
    category, a, r = np.array([0, 0, 1, 1, 1, 2]), rng.integers(6, size=n), rng.normal(size=n)
    same = category == category[a][:, None]
    posterior = mu * same / (mu * same).sum(axis=1, keepdims=True)
    of_categories = marginalise(action=a, reward=r, logging=mu, target=pi, categories=category)
    of_posterior = marginalise(action=a, reward=r, logging=mu, target=pi, posterior=posterior)
    np.testing.assert_allclose(of_posterior.evidence.weight, of_categories.evidence.weight, rtol=1e-12)
    np.testing.assert_allclose(of_posterior.difference, of_categories.difference, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(of_posterior.placebo, of_categories.placebo)


@pytest.mark.parametrize("direct", [False, True])
def test_embeddings_that_are_drawn(direct: bool) -> None:
    # An action draws a number around its own; the reward depends on that number only, or on the action as well.
    rng = np.random.default_rng(8)
    n, place = 20_000, np.linspace(-1, 1, 10)
    mu, pi = rng.dirichlet(np.ones(10) * 3, size=2)
    a = rng.choice(10, size=n, p=mu)
    e = place[a] + rng.normal(size=n)
    posterior = mu * np.exp(-((e[:, None] - place) ** 2) / 2)
    r = e + direct * (a == 9) + 0.1 * rng.normal(size=n)
    log = marginalise(
        action=a,
        reward=r,
        logging=np.broadcast_to(mu, (n, 10)),
        target=np.broadcast_to(pi, (n, 10)),
        posterior=posterior / posterior.sum(axis=1, keepdims=True),
    )
    mips = evaluate(log.mips(), "ips")[0]
    test = check_no_direct_effect(log)
    assert mips.low is not None
    assert mips.high is not None
    truth = float(pi @ (place + direct * (np.arange(10) == 9)))
    assert (mips.low < truth < mips.high) is not direct
    assert test.refuted is direct
    assert not direct or test.action == 9


def test_placebos_come_as_often_as_their_probability() -> None:
    mu = np.array([[0.3, 0.25, 0.1, 0.35]])
    action = np.zeros(4000, dtype=int)
    log = marginalise(
        action=action, reward=action, logging=mu.repeat(4000, 0), target=mu.repeat(4000, 0), categories=CATEGORIES
    )
    times = (log.placebo == 0).sum(axis=0)
    assert set(np.unique(log.placebo)) == {0, 1}
    assert set(np.unique(times)) == {4, 5}
    assert times.mean() / PLACEBOS == pytest.approx(0.3 / 0.55, abs=0.005)


def test_under_no_direct_effect_the_test_refutes_as_seldom_as_it_says() -> None:
    p = [check_no_direct_effect(_log(seed)).p_value for seed in range(400)]
    assert np.mean([value < 0.05 for value in p if value is not None]) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean([value < 0.5 for value in p if value is not None]) > 0.2


@pytest.mark.parametrize("rewards", ["rare", "heavy"])
def test_rare_and_heavy_rewards_make_no_effects(rewards: str) -> None:
    # With their own variance alone actions without a click look certainly bad: 171 and 54 of these logs are refuted.
    logs = [_log(seed, n=3000, groups=1, rewards=rewards) for seed in range(200)]
    assert sum(check_no_direct_effect(log).refuted for log in logs) <= 10


def test_half_of_the_error_is_for_actions_and_half_for_policies() -> None:
    tests = [check_no_direct_effect(_log(seed)) for seed in range(60)]
    times = [
        test.p_value / min(bias.p_value for bias in test.policies if bias.p_value is not None)
        for test in tests
        if test.p_value is not None and test.p_value < 1 and all(bias.p_value is not None for bias in test.policies)
    ]
    # Two policies of one half; less where an action stands out more than they do.
    assert max(times) == pytest.approx(4, rel=1e-12)
    assert min(times) < 3.9


def test_copies_in_a_cluster_are_no_evidence() -> None:
    logs = [_log(seed, n=700, copies=4) for seed in range(200)]
    assert sum(check_no_direct_effect(log).refuted for log in logs) <= 16
    alone = [replace(log, evidence=replace(log.evidence, cluster=None)) for log in logs]
    assert sum(check_no_direct_effect(log).refuted for log in alone) > 100


def _bias_of_log(seed: int, effect: float) -> np.ndarray:
    """What `_log` makes of MIPS for its two policies: the mean effect that mu has in each category, less that of pi."""
    rng = np.random.default_rng(seed)
    mu = 0.8 * rng.dirichlet(np.ones(20), size=20) + 0.2 / 20
    pi = rng.dirichlet(np.ones(20), size=(2, 20))
    of_zero = np.arange(20) % 4 == 0
    share = mu[:, 0] / mu[:, of_zero].sum(axis=1)
    return np.asarray(effect * (pi[:, :, of_zero].sum(axis=2) * share - pi[:, :, 0]).mean(axis=1))


@pytest.mark.parametrize("effect", [0.0, 2.0])
def test_intervals_of_the_bias_cover_it(effect: float) -> None:
    covered, known = 0, 0
    for seed in range(300):
        truth = _bias_of_log(seed, effect)
        for bias, true in zip(check_no_direct_effect(_log(seed, effect=effect)).policies, truth, strict=True):
            if bias.low is not None and bias.high is not None:
                known, covered = known + 1, covered + (bias.low <= true <= bias.high)
    assert known > 300
    assert covered / known > 0.93


def test_a_policy_that_chooses_categories_only_has_no_bias() -> None:
    # Within a category it does what the logging policy does, so both weights are the same but for rounding.
    mu = np.random.default_rng(0).dirichlet(np.ones(20), size=2000)
    pi = mu * np.array([1.0, 3.0, 0.1, 0.7])[np.arange(20) % 4]
    log = _log(logging=mu, target=pi / pi.sum(axis=1, keepdims=True))
    bias = check_no_direct_effect(log).policies[0]
    assert (bias.value, bias.low, bias.high, bias.p_value) == (0, 0, 0, 1)


def test_a_direct_effect_is_found_and_named() -> None:
    tests = [check_no_direct_effect(_log(seed, n=6000, effect=0.8)) for seed in range(40)]
    assert sum(test.refuted for test in tests) >= 36
    assert sum(test.action == 0 for test in tests) >= 36
    assert np.mean([test.effect for test in tests if test.action == 0 and test.effect]) == pytest.approx(0.8, abs=0.05)
    assert tests[0].sentence.startswith("no direct effect is refuted (p = ")
    assert f"action 0 earns {tests[0].effect:.3g} more than the others of its category" in tests[0].sentence


def test_actions_logged_too_seldom_are_left_out_and_counted() -> None:
    test = check_no_direct_effect(_log(n=300))
    assert test.tested + test.left_out == 20
    assert 0 < test.left_out < 20
    assert f"{test.left_out} left out as too few decisions tell" in test.sentence
    alone = check_no_direct_effect(_log(categories=[*range(19), 0]))
    assert alone.tested == 2
    assert alone.left_out == 0


def test_a_policy_gathers_effects_too_small_for_single_actions() -> None:
    rng = np.random.default_rng(0)
    n, actions = 10_000, 1000
    a = rng.integers(actions, size=n)
    good = np.arange(actions) % 2 == 0
    target = np.broadcast_to(good / good.sum(), (n, actions))
    r = 0.2 * good[a] + rng.normal(size=n)
    logging = np.broadcast_to(1 / actions, (n, actions))
    blocks = (
        marginalise(
            action=a[rows],
            reward=r[rows],
            logging=logging[rows],
            target=target[rows],
            categories=np.zeros(actions, dtype=int),
            start=rows.start,
        )
        for rows in (slice(i, i + 2000) for i in range(0, n, 2000))
    )
    test = check_no_direct_effect(Marginalised.join(blocks))
    assert test.tested == 0
    assert test.refuted
    low, high = test.policies[0].low, test.policies[0].high
    assert low is not None
    assert high is not None
    assert low < -0.1 < high


def test_constant_rewards_have_no_effect() -> None:
    log = _log()
    constant = replace(log, evidence=replace(log.evidence, reward=np.full(2000, 0.1)))
    test = check_no_direct_effect(constant)
    assert (test.p_value, test.effect) == (1, 0)
    assert [(bias.value, bias.low, bias.high) for bias in test.policies] == [(0, 0, 0), (0, 0, 0)]


def test_local_correctness_is_that_of_differences() -> None:
    rng = np.random.default_rng(3)
    n, mu, pi = 8000, *rng.dirichlet(np.full(8, 5.0), size=(2, 1)).repeat(8000, axis=1)
    a = (mu.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=7)
    outcome = np.broadcast_to(np.arange(8.0), (n, 8))
    r, category = outcome[np.arange(n), a] + rng.normal(size=n), np.arange(8) // 4
    given: dict[str, Any] = {"action": a, "reward": r, "logging": mu, "target": pi, "categories": category}
    right = marginalise(**given, q=outcome + np.where(np.arange(8) < 4, 10.0, -3.0))
    wrong = marginalise(**given, q=outcome * 0.9)
    assert check_no_direct_effect(right).refuted
    assert not check_local_correctness(right).refuted
    assert "the model is" in check_local_correctness(wrong).doubt
    assert check_local_correctness(wrong).refuted


def test_estimates_say_what_they_rest_on_until_it_is_tested() -> None:
    log = _log(n=6000)
    assert "no direct effect" in log.mips().assumption
    assert "not tested" in log.mips().assumption
    assert log.mips(check_no_direct_effect(log)).assumption == ""
    refuted = _log(n=6000, effect=1.0)
    assert "is refuted" in refuted.mips(check_no_direct_effect(refuted)).assumption
    few = _log(n=300)
    assert "not all could be tested" in few.mips(check_no_direct_effect(few)).assumption
    none = _log(n=20)
    assert "could not be tested" in none.mips(check_no_direct_effect(none)).assumption


def test_offcem_always_rests_on_its_model() -> None:
    log = _log(q=np.zeros((2000, 20)))
    assert "not tested" in log.offcem().assumption
    assert "local correctness is not refuted" in log.offcem(check_local_correctness(log)).assumption


def test_tests_belong_to_their_log() -> None:
    log = _log(q=np.zeros((2000, 20)))
    with pytest.raises(ConfigurationError, match="a test of no direct effect; one of local correctness is needed"):
        log.offcem(check_no_direct_effect(log))
    with pytest.raises(ConfigurationError, match="of another log"):
        log.mips(check_no_direct_effect(_log(n=500)))


@pytest.mark.parametrize("n", [1, 2, 40])
def test_short_logs_answer_in_json(n: int) -> None:
    test = check_no_direct_effect(_log(n=n, rewards="rare"))
    text = json.dumps(test.to_json(), allow_nan=False)
    assert json.loads(text)["n"] == n


THIRD = np.full((2, 3), 1 / 3)
GOOD: dict[str, Any] = {
    "action": [0, 1],
    "reward": [1.0, 0.0],
    "logging": THIRD,
    "target": THIRD,
    "categories": [0, 0, 1],
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"logging": None}, MissingEvidenceError, "every candidate, not only of the logged"),
        ({"posterior": THIRD}, ConfigurationError, "Give either the categories"),
        ({"categories": None}, ConfigurationError, "Give either the categories"),
        ({"logging": THIRD * 0.9}, EvidenceError, "sum of logging at row 0 is 0.9"),
        ({"logging": THIRD * np.nan}, EvidenceError, "logging at place .* is nan"),
        ({"logging": [[0, 1, 0], [0, 1, 0]]}, EvidenceError, "logged action at row 0 is 0"),
        ({"logging": THIRD[:, :0]}, EvidenceError, "logging has shape"),
        ({"target": -THIRD}, EvidenceError, "target at place"),
        ({"target": THIRD[:, :2]}, EvidenceError, "target has shape"),
        ({"target": []}, EvidenceError, "target is empty"),
        ({"action": [0, 3]}, EvidenceError, "action at row 1 is 3, which stands 0 times"),
        ({"action": [0.0, 1.0]}, EvidenceError, "integer codes"),
        ({"reward": [1.0, np.nan]}, EvidenceError, "reward at row 1 is nan"),
        ({"reward": [1.0]}, EvidenceError, "2"),
        ({"categories": [0, 1]}, EvidenceError, "categories has 2 rows"),
        ({"categories": [0, -1, 0]}, EvidenceError, "codes from 0 to 2"),
        ({"categories": [0, 10**12, 0]}, EvidenceError, "codes from 0 to 2, and some are not; combine_categories"),
        ({"candidates": [[0, 1, 1], [0, 1, 1]]}, EvidenceError, "action at row 1 is 1, which stands 2 times"),
        ({"candidates": [[0, 1, -1], [0, 1, 2]]}, EvidenceError, "logging gives probability to a place without"),
        ({"candidates": [[0, 1, 2]]}, EvidenceError, "candidates is int64 of shape"),
        ({"q": [[0, 0, np.inf], [0, 0, 0]]}, EvidenceError, "q_target"),
        ({"cluster": [0.5, 1]}, EvidenceError, "integer codes"),
        (
            {"categories": None, "logging": [[1, 0, 0], [0, 1, 0]], "posterior": THIRD},
            EvidenceError,
            "actions that logging never takes",
        ),
    ],
)
def test_refused_when_made(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    marginalise(**GOOD)
    with pytest.raises(error, match=message):
        marginalise(**(GOOD | changes))


def test_blocks_of_different_logs_are_refused() -> None:
    first = marginalise(**GOOD)
    for changes, message in (
        ({"policies": ("a",)}, "policies"),
        ({"q": THIRD}, "q_logged"),
        ({"cluster": [0, 1]}, "cluster"),
        ({"categories": [0, 1, 1]}, "different categories"),
    ):
        with pytest.raises(EvidenceError, match=message):
            Marginalised.join([first, marginalise(**(GOOD | changes), start=2)])
    with pytest.raises(EvidenceError, match="no blocks"):
        Marginalised.join([])


def test_what_needs_a_model_says_so() -> None:
    with pytest.raises(MissingEvidenceError, match="OffCEM needs a reward model"):
        _log().offcem()
    with pytest.raises(MissingEvidenceError, match="DR needs a reward model"):
        evaluate(_log(q=np.zeros((2000, 20))).mips(), "dr")
    with pytest.raises(MissingEvidenceError, match="property of a reward model"):
        check_local_correctness(_log())
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        check_no_direct_effect(_log(), level=95)


def test_float32_probabilities_are_probabilities() -> None:
    mu = np.random.default_rng(0).dirichlet(np.ones(500), size=50).astype(np.float32)
    action = mu.argmax(axis=1)
    log = marginalise(
        action=action, reward=np.ones(50), logging=mu, target=mu, categories=np.zeros(500, dtype=np.int32)
    )
    assert evaluate(log.mips(), "ips")[0].value == pytest.approx(1, abs=1e-6)


def test_dimensions_combine_to_one_category() -> None:
    codes = combine_categories([["red", "s"], ["red", "m"], ["blue", "s"], ["red", "s"]])
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 3
    with pytest.raises(EvidenceError, match="NaN"):
        combine_categories([[np.nan, 1.0]])
    with pytest.raises(EvidenceError, match="dimensions has shape"):
        combine_categories([1, 2])


def test_clusters_of_actions_are_those_that_were_put_there() -> None:
    rng = np.random.default_rng(0)
    place = rng.integers(6, size=300)
    vectors = 20 * np.eye(6)[place] + rng.normal(size=(300, 6))
    found = cluster_actions(vectors, 6, seed=1)
    assert len(set(zip(place.tolist(), found.tolist(), strict=True))) == 6
    np.testing.assert_array_equal(found, cluster_actions(vectors, 6, seed=1))
    assert sorted(set(cluster_actions(rng.normal(size=(40, 2)), 40).tolist())) == list(range(40))
    with pytest.raises(ConfigurationError, match="clusters is 3; from 1 to 2"):
        cluster_actions([[0.0], [0.0], [1.0]], 3)
    with pytest.raises(EvidenceError, match="finite"):
        cluster_actions([[0.0], [np.inf]], 1)
