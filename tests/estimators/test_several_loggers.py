"""Several loggers: unbiased by enumeration, balanced never worse than naive, a hopeless logger spoils naive only."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import compare, evaluate
from counterplay.estimators.problems.several_loggers import SeveralLoggers

Array = np.ndarray

LOGGER = np.array([0, 0, 1, 1])
RNG = np.random.default_rng(1)
MU = RNG.dirichlet(np.ones(3), (2, 2))[:, [0, 1, 0, 1]]
"""(loggers, decisions, actions): decisions 0 and 2 share a context, and so do 1 and 3; each logger meets both."""
PI = RNG.dirichlet(np.ones(3), 2)[[0, 1, 0, 1]]
OUTCOME = RNG.normal(size=(2, 3))[[0, 1, 0, 1]]
MODEL = np.arange(12.0).reshape(4, 3)[[0, 1, 0, 1]]
TRUTH = float((PI * OUTCOME).sum(axis=1).mean())


def _over_all_logs(way: str, estimator: str, mu: Array = MU) -> tuple[float, float]:
    """(mean, variance) of the estimate over every possible log of 4 decisions with 3 actions each."""
    rows = np.arange(4)
    chances, values = [], []
    for actions in product(range(3), repeat=4):
        a = np.array(actions)
        chance = float(mu[LOGGER, rows, a].prod())
        if chance == 0:
            continue
        log = SeveralLoggers(
            reward=OUTCOME[rows, a],
            logger=LOGGER,
            propensity=mu[:, rows, a],
            target=PI[rows, a],
            q_logged=MODEL[rows, a],
            q_target=(PI * MODEL).sum(axis=1),
        )
        value = evaluate(getattr(log, way)(), estimator)[0].value
        chances.append(chance)
        values.append(np.nan if value is None else value)
    mean = float(np.dot(chances, values))
    return mean, float(np.dot(chances, np.square(values)) - mean**2)


@pytest.mark.parametrize("estimator", ["ips", "dr"])
@pytest.mark.parametrize("way", ["naive", "balanced"])
def test_mean_over_all_logs_is_the_truth(way: str, estimator: str) -> None:
    assert _over_all_logs(way, estimator)[0] == pytest.approx(TRUTH, rel=1e-10)


def test_balanced_varies_less_than_naive() -> None:
    """For every pair of loggers, by enumeration (Agarwal et al. 2017 prove it)."""
    rng = np.random.default_rng(2)
    for _ in range(5):
        mu = rng.dirichlet(np.full(3, 0.5), (2, 2))[:, [0, 1, 0, 1]] * 0.99 + 0.01 / 3
        assert _over_all_logs("balanced", "ips", mu)[1] < _over_all_logs("naive", "ips", mu)[1]


def test_action_that_one_logger_never_takes() -> None:
    """The first logger never takes action 0: balanced does not mind, naive loses what it was worth there."""
    mu = MU.copy()
    mu[0, :, 0] = 0
    mu[0] /= mu[0].sum(axis=1, keepdims=True)
    assert _over_all_logs("balanced", "ips", mu)[0] == pytest.approx(TRUTH, rel=1e-10)
    lost = float((PI * OUTCOME)[LOGGER == 0, 0].sum() / 4)
    assert _over_all_logs("naive", "ips", mu)[0] == pytest.approx(TRUTH - lost, rel=1e-10)


def _log(
    n: tuple[int, ...], mu: Array, rng: np.random.Generator, pi: Array | None = None, **fields: Any
) -> SeveralLoggers:
    """A log without contexts: logger l takes n[l] decisions by mu[l]; action a earns 1 with chance (a + 1) / 10."""
    logger = np.repeat(np.arange(len(n)), n)
    action = (mu.cumsum(axis=1)[logger] < rng.random((len(logger), 1))).sum(axis=1)
    reward = (rng.random(len(logger)) < (action + 1) / 10).astype(float)
    target = (np.array([0.1, 0.2, 0.7]) if pi is None else pi)[action]
    return SeveralLoggers(reward=reward, logger=logger, propensity=mu[:, action], target=target, **fields)


VALUE = 0.1 * 0.1 + 0.2 * 0.2 + 0.7 * 0.3
LIKE, UNLIKE = [0.2, 0.2, 0.6], [0.79, 0.2, 0.01]
"""Loggers like the policy and unlike it."""


def test_one_logger_is_plain_evaluation() -> None:
    log = _log((500,), np.array([LIKE]), np.random.default_rng(3))
    naive, balanced = evaluate(log.naive(), ("ips", "snips")), evaluate(log.balanced(), ("ips", "snips"))
    assert naive == balanced
    for ours, plain in zip(log.weighted(("ips", "snips")), naive, strict=True):
        assert ours.estimator == f"weighted_{plain.estimator}"
        for name in ("value", "std_error", "low", "high"):
            assert getattr(ours, name) == pytest.approx(getattr(plain, name), rel=1e-12)
        assert ours.diagnostics.effective_sample_size == pytest.approx(
            plain.diagnostics.effective_sample_size, rel=1e-12
        )
        assert ours.gate == plain.gate


def test_formulas_of_open_bandit_pipeline() -> None:
    """Its MultiLoggers estimators, written out; its variances are divided by n_l, ours by n_l - 1."""
    log = _log((300, 200), np.array([LIKE, UNLIKE]), np.random.default_rng(4))
    n, shares = 500, np.array([0.6, 0.4])
    own = log.propensity[log.logger, np.arange(n)]
    term = log.reward * log.target[0] / own
    assert evaluate(log.naive(), "ips")[0].value == pytest.approx(term.mean(), rel=1e-12)
    average = shares @ log.propensity
    assert evaluate(log.balanced(), "ips")[0].value == pytest.approx((log.reward * log.target[0] / average).mean())
    variance = np.array([term[log.logger == i].var(ddof=1) for i in range(2)])
    size = np.array([300, 200])
    weight = size / (variance * (size / variance).sum())
    theirs = (term * weight[log.logger] / size[log.logger]).sum()
    combined = log.weighted("ips", interval="normal")[0]
    assert combined.value == pytest.approx(theirs, rel=1e-12)
    assert combined.std_error == pytest.approx(1 / np.sqrt((size / variance).sum()), rel=1e-9)
    assert combined.high is not None
    assert combined.high - theirs == pytest.approx(1.959963984540054 * combined.std_error, rel=1e-9)


def test_hopeless_logger_spoils_naive_only() -> None:
    """Squared errors over 200 logs, 2000 decisions by a logger like the policy and 8000 by one that is not."""
    rng, mu, draws = np.random.default_rng(5), np.array([LIKE, UNLIKE]), 200
    errors = []
    for _ in range(draws):
        log = _log((2000, 8000), mu, rng)
        alone = evaluate(SeveralLoggers(**_first(log, 2000)).naive(), "ips")[0].value
        found = (evaluate(log.naive(), "ips")[0].value, evaluate(log.balanced(), "ips")[0].value)
        errors.append(np.array([alone, *found, log.weighted("ips")[0].value], dtype=float) - VALUE)
    alone, naive, balanced, weighted = np.sqrt(np.mean(np.square(errors), axis=0))
    assert naive > 2 * alone
    assert weighted < 1.1 * alone
    assert balanced < alone
    # Weights that come from the same decisions leave weighted a bias, small beside its error.
    bias = np.abs(np.mean(errors, axis=0)) / np.std(errors, axis=0)
    assert np.all(bias[:3] < 4 / np.sqrt(draws))
    assert bias[3] < 0.3


def _first(log: SeveralLoggers, n: int) -> dict[str, Any]:
    names = ("reward", "logger", "propensity", "target")
    return {name: getattr(log, name)[..., :n] for name in names}


def test_intervals_cover() -> None:
    """95 % intervals over 400 logs of 1200 decisions; those of balanced are a little too wide."""
    rng, draws = np.random.default_rng(6), 400
    mu = np.array([LIKE, [0.3, 0.4, 0.3]])
    hits = dict.fromkeys(("naive", "balanced", "weighted"), 0)
    for _ in range(draws):
        log = _log((800, 400), mu, rng)
        found = {"naive": evaluate(log.naive(), "ips"), "balanced": evaluate(log.balanced(), "ips")}
        for name, estimates in (found | {"weighted": log.weighted("ips")}).items():
            assert estimates[0].low is not None
            assert estimates[0].high is not None
            hits[name] += estimates[0].low <= VALUE <= estimates[0].high
    # Four standard errors of a binomial share of 0.95.
    limit = 4 * np.sqrt(0.95 * 0.05 / draws)
    assert all(abs(hit / draws - 0.95) < limit for hit in hits.values()), hits


def test_balanced_intervals_are_too_wide_where_loggers_differ() -> None:
    """Two loggers that nearly always do the opposite: each mean is known almost surely, and the two are far apart.

    Terms are 2 or 0, with chances 0.95 and 0.05 by logger: 4 * 0.0475 varies by chance, (1.9 - 0.1)^2 / 4 between them.
    """
    rng, mu, pi = np.random.default_rng(7), np.array([[0.95, 0.05], [0.05, 0.95]]), np.array([1.0, 0.0])
    values, errors = [], []
    for _ in range(300):
        log = replace(_log((300, 300), mu, rng, pi), reward=np.ones(600))
        estimate = evaluate(log.balanced(), "ips")[0]
        values.append(estimate.value)
        errors.append(estimate.std_error)
    chance, between = 4 * 0.0475, 0.81
    assert np.std(np.array(values, dtype=float)) == pytest.approx(np.sqrt(chance / 600), rel=0.15)
    assert np.mean(errors) == pytest.approx(np.sqrt((chance + between) / 600), rel=0.02)


def test_gate_is_the_worst_of_the_loggers() -> None:
    rng = np.random.default_rng(8)
    log = _log((3000, 3000), np.array([LIKE, [0.5, 0.5, 0.0]]), rng, loggers=("good", "blind"))
    combined = log.weighted("ips")[0]
    assert combined.gate == "unreliable"
    assert combined.reason.startswith("blind: the mean weight is")
    assert evaluate(log.balanced(), "ips")[0].gate == "ok"
    fine = _log((3000, 3000), np.array([LIKE, LIKE]), rng).weighted("ips")[0]
    assert (fine.gate, fine.reason, fine.n) == ("ok", "", 6000)


def test_logger_that_never_acts_as_the_policy_is_left_out() -> None:
    rng, only = np.random.default_rng(9), np.array([0.0, 0.0, 1.0])
    log = _log((500, 500), np.array([LIKE, [0.5, 0.5, 0.0]]), rng, only)
    alone = evaluate(SeveralLoggers(**_first(log, 500)).naive(), "ips")[0]
    combined = log.weighted("ips")[0]
    assert combined.value == pytest.approx(alone.value, rel=1e-12)
    assert combined.gate == "unreliable"
    assert "logger 1: no logged decision has an action of this policy" in combined.reason
    nobody = _log((50, 50), np.array([[0.5, 0.5, 0.0]] * 2), rng, only).weighted("ips")[0]
    assert (nobody.value, nobody.low, nobody.gate) == (None, None, "unreliable")


def test_logger_without_variation_does_not_get_all_of_the_weight() -> None:
    log = _log((200, 200), np.array([LIKE, LIKE]), np.random.default_rng(10))
    # The second logger met no reward at all: its terms do not vary.
    reward = np.where(log.logger == 1, 0.0, log.reward)
    combined = replace(log, reward=reward).weighted("ips")[0]
    first = evaluate(SeveralLoggers(**_first(log, 200)).naive(), "ips")[0].value
    assert first is not None
    assert combined.value is not None
    assert 0.3 * first < combined.value < 0.7 * first
    assert combined.std_error is not None
    assert combined.std_error > 0


def test_constant_reward_is_certain() -> None:
    log = replace(_log((100, 50), np.array([LIKE, UNLIKE]), np.random.default_rng(11)), reward=np.full(150, 0.3))
    combined = log.weighted("snips")[0]
    assert combined.value == pytest.approx(0.3, rel=1e-12)
    assert combined.low == combined.high == combined.value
    assert combined.gate != "ok"


def test_one_decision_a_logger() -> None:
    single = SeveralLoggers(reward=[1.0], logger=[0], propensity=[0.5], target=[0.5]).weighted("ips")[0]
    assert (single.value, single.low, single.gate) == (1.0, None, "unreliable")
    pair = SeveralLoggers(reward=[1.0, 0.0], logger=[0, 1], propensity=[0.5, 0.5], target=[0.5, 0.5]).weighted("ips")[0]
    assert (pair.value, pair.gate) == (0.5, "unreliable")


def test_several_policies_keep_their_order() -> None:
    plain = _log((200, 100), np.array([LIKE, UNLIKE]), np.random.default_rng(12))
    target = np.stack([plain.target[0], plain.propensity[0]])
    both = replace(plain, target=target, policies=("new", "first logger"), start=5)
    names = [(e.policy, e.estimator) for e in both.weighted(("snips", "ips"))]
    assert names == [
        ("new", "weighted_snips"),
        ("new", "weighted_ips"),
        ("first logger", "weighted_snips"),
        ("first logger", "weighted_ips"),
    ]
    assert both.balanced().start == 5
    assert compare(both.balanced(), "first logger", "ips")[0].n == 300


def test_clusters() -> None:
    log = _log((60, 60), np.array([LIKE, LIKE]), np.random.default_rng(13))
    within = replace(log, cluster=np.arange(120) // 2)
    assert within.weighted("ips")[0].diagnostics.units == 60
    across = replace(log, cluster=np.arange(120) % 60)
    with pytest.raises(EvidenceError, match="Cluster 0 has decisions of several loggers, and so have 59 more"):
        across.weighted("ips")
    assert evaluate(across.balanced(), "ips")[0].diagnostics.units == 60


def test_own_propensities_are_enough_but_for_balanced() -> None:
    full = _log((60, 40), np.array([LIKE, UNLIKE]), np.random.default_rng(14))
    own = replace(full, propensity=full.propensity[full.logger, np.arange(100)], loggers=())
    assert evaluate(own.naive(), "ips") == evaluate(full.naive(), "ips")
    assert own.weighted("ips") == full.weighted("ips")
    with pytest.raises(MissingEvidenceError, match="BALANCED needs every logger's probability"):
        own.balanced()


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": []}, "reward has shape .* nothing is in it"),
        ({"reward": [NAN, 1.0]}, "reward at row 0 is nan"),
        ({"logger": [0.0, 1.0]}, "logger is float64"),
        ({"logger": [0]}, "2 integer codes"),
        ({"logger": [0, 2]}, r"logger must hold places from 0 to 1; it holds 0\.\.2"),
        ({"logger": [-1, 0]}, r"it holds -1\.\.0"),
        ({"propensity": [[0.5, 0.5]]}, "places from 0 to 0"),
        ({"propensity": [[0.5], [0.5]]}, "propensity has shape"),
        ({"propensity": [[0.5, 0.5], [0.5, 1.5]]}, r"propensity at place \(1, 1\) is 1.5"),
        ({"propensity": [[0.5, 0.5], [0.5, 0.0]]}, "own logger at row 1 is 0"),
        ({"propensity": [0.5, 0.0]}, "propensity at row 1 is 0"),
        ({"propensity": [0.5, 0.5, 0.5]}, "propensity has shape"),
        ({"target": [0.5]}, "target has shape"),
        ({"loggers": ("a", "b", "c")}, "3 names in loggers for 2 loggers"),
    ],
)
def test_bad_logs_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    fields = {"reward": [1.0, 0.0], "logger": [0, 1], "propensity": [[0.5, 0.5], [0.5, 0.5]], "target": [0.5, 0.5]}
    with pytest.raises(EvidenceError, match=message):
        SeveralLoggers(**(fields | changes))


def test_what_evidence_refuses_is_refused_here_too() -> None:
    fields: dict[str, Any] = {"reward": [1.0, 0.0], "logger": [0, 1], "propensity": [0.5, 0.5], "target": [0.5, 0.5]}
    for changes, message in (
        ({"target": [0.5, 1.5]}, "target at row 1 is 1.5"),
        ({"q_logged": [0.5, NAN]}, "q_logged at row 1 is nan"),
        ({"policies": ("a", "b")}, "2 policy names for 1"),
    ):
        log = SeveralLoggers(**(fields | changes))
        for way in (log.naive, log.weighted):
            with pytest.raises(EvidenceError, match=message):
                way()
    with pytest.raises(ConfigurationError, match="no interval 'bernstein'"):
        SeveralLoggers(**fields).weighted("ips", interval="bernstein")  # type: ignore[arg-type]
    with pytest.raises(MissingEvidenceError, match="reward model"):
        SeveralLoggers(**fields).weighted("dr")
