"""Continuous actions: the bias is the formula's, intervals cover the smoothed value, bounds take no mass away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import evaluate
from counterplay.estimators.problems.continuous import ContinuousLog, sweep_bandwidths
from counterplay.estimators.problems.smoothing import KERNELS, kernel_named

Array = np.ndarray

SECOND_MOMENT = {
    "epanechnikov": 1 / 5,
    "triangular": 1 / 6,
    "uniform": 1 / 3,
    "cosine": 1 - 8 / np.pi**2,
    "gaussian": 1,
}


def _even(n: int, low: float, high: float) -> Array:
    """n actions spread evenly, as uniform logging would spread infinitely many: means over them are integrals."""
    return low + (high - low) * (np.arange(n) + 0.5) / n


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_symmetric_densities_and_know_their_mass(name: str) -> None:
    kernel, u = kernel_named(name), _even(400_000, -8, 8)
    step = 16 / len(u)
    density = kernel.density(u)
    assert density.min() >= 0
    assert np.allclose(density, density[::-1], rtol=1e-9, atol=1e-15)
    assert density.sum() * step == pytest.approx(1, abs=1e-5)
    assert density @ u**2 * step == pytest.approx(SECOND_MOMENT[name], abs=1e-4)
    assert np.allclose(kernel.below(u), density.cumsum() * step, atol=1e-4)
    if name != "gaussian":
        assert kernel.density(np.array([-7.0, -1.001, 1.001, 1e300])).tolist() == [0, 0, 0, 0]
    assert kernel.below(np.array([-np.inf, np.inf])).tolist() == [0, 1]


@pytest.mark.parametrize("name", KERNELS)
def test_bias_on_a_parabola_is_the_bandwidth_squared(name: str) -> None:
    """Reward a^2: smoothed around d it is d^2 + h^2 times the kernel's second moment, exactly."""
    action = _even(200_000, -5, 5)
    log = ContinuousLog(reward=action**2, action=action, density=np.full(len(action), 0.1), decision=action * 0 + 0.3)
    for bandwidth in (0.1, 0.2, 0.4):
        value = evaluate(log.at_bandwidth(bandwidth, name), "ips")[0].value
        assert value is not None
        assert (value - 0.09) / bandwidth**2 == pytest.approx(SECOND_MOMENT[name], rel=0.02)


def test_the_density_of_the_logging_policy_cancels() -> None:
    from scipy.special import ndtri

    action = ndtri(_even(400_000, 0, 1))
    density = np.exp(-(action**2) / 2) / np.sqrt(2 * np.pi)
    log = ContinuousLog(reward=action**2, action=action, density=density, decision=action * 0 + 0.3)
    for estimate in evaluate(log.at_bandwidth(0.4), ("ips", "snips")):
        assert estimate.value == pytest.approx(0.09 + 0.4**2 / 5, rel=1e-3)
        assert estimate.diagnostics.mean_weight == pytest.approx(1, abs=1e-3)


def _random(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    fields = {"reward": rng.random(n), "action": rng.normal(size=n), "density": rng.uniform(0.1, 2, n)}
    return fields | {"decision": rng.normal(size=n), "q_logged": rng.random(n), "q_target": rng.random(n)}


@pytest.mark.parametrize("name", ["epanechnikov", "triangular", "gaussian", "cosine"])
def test_formulas_of_open_bandit_pipeline(name: str) -> None:
    """Its KernelizedIPW, KernelizedSelfNormalizedIPW and KernelizedDR, written out."""
    fields, h = _random(500), 0.7
    u = (fields["decision"] - fields["action"]) / h
    clipped = np.clip(u, -1, 1)
    kernel = {
        "gaussian": np.exp(-(u**2) / 2) / np.sqrt(2 * np.pi),
        "triangular": 1 - np.abs(clipped),
        "epanechnikov": 0.75 * (1 - clipped**2),
        "cosine": (np.pi / 4) * np.cos(clipped * np.pi / 2),
    }[name]
    reward, q = fields["reward"], fields["q_target"]
    ratio = kernel / fields["density"]
    theirs = ContinuousLog(**(fields | {"q_logged": q[None]}))
    ips, snips, dr = evaluate(theirs.at_bandwidth(h, name), ("ips", "snips", "dr"))
    assert ips.value == pytest.approx((ratio * reward / h).mean(), rel=1e-12)
    assert snips.value == pytest.approx((ratio * reward / ratio.mean()).mean(), rel=1e-12)
    assert dr.value == pytest.approx((ratio * (reward - q) / h + q).mean(), rel=1e-12)


def test_exact_model_at_the_logged_action_takes_the_bias_away() -> None:
    action = _even(2000, -1, 1)
    fields: dict[str, Any] = {"reward": action**2, "action": action, "density": np.full(2000, 0.5)}
    decision, at_decision = np.full(2000, 0.2), np.full(2000, 0.04)
    ours = ContinuousLog(**fields, decision=decision, q_logged=action**2, q_target=at_decision)
    estimate = evaluate(ours.at_bandwidth(0.5), "dr")[0]
    assert (estimate.value, estimate.std_error) == (pytest.approx(0.04, rel=1e-12), pytest.approx(0, abs=1e-12))
    theirs = ContinuousLog(**fields, decision=decision, q_logged=at_decision[None], q_target=at_decision)
    assert evaluate(theirs.at_bandwidth(0.5), "dr")[0].value == pytest.approx(0.04 + 0.25 / 5, rel=1e-3)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("decision", [0.0, 0.1, 0.5, 1.0])
def test_bounds_take_no_mass_away(name: str, decision: float) -> None:
    action = _even(100_000, 0, 1)
    fields: dict[str, Any] = {"reward": np.full(len(action), 0.3), "action": action, "density": np.ones(len(action))}
    for bandwidth in (0.05, 0.3, 2.0):
        log = ContinuousLog(**fields, decision=np.full(len(action), decision), bounds=(0, 1))
        assert evaluate(log.at_bandwidth(bandwidth, name), "ips")[0].value == pytest.approx(0.3, rel=2e-3)


def test_without_bounds_a_policy_at_the_edge_loses_half_and_is_flagged() -> None:
    action = np.random.default_rng(0).random(20_000)
    log = ContinuousLog(reward=np.ones(20_000), action=action, density=np.ones(20_000), decision=np.zeros(20_000))
    estimate = evaluate(log.at_bandwidth(0.2), "ips")[0]
    assert estimate.value == pytest.approx(0.5, abs=0.02)
    assert estimate.gate == "unreliable"
    assert "mean weight" in estimate.reason


def test_at_a_bound_the_bias_is_of_the_order_of_the_bandwidth() -> None:
    action = _even(200_000, 0, 1)
    fields: dict[str, Any] = {"reward": action, "action": action, "density": np.ones(len(action))}
    log = ContinuousLog(**fields, decision=np.zeros(len(action)), bounds=(0, np.inf))
    for bandwidth in (0.1, 0.2):
        # Half an epanechnikov kernel has its mean at 3 / 8.
        assert evaluate(log.at_bandwidth(bandwidth), "ips")[0].value == pytest.approx(bandwidth * 3 / 8, rel=1e-3)


def _dose(n: int, rng: np.random.Generator, curvature: float = 1.0) -> ContinuousLog:
    """Two kinds of context; the reward falls off with the square of the distance from the best action.

    The policy stays 0.1 away from the best action, so its value is 0.5 - 0.01 curvature, and smoothed by the
    epanechnikov kernel 0.5 - curvature (0.01 + h^2 / 5).
    """
    best = rng.choice([0.3, 0.7], n)
    action = rng.random(n)
    chance = 0.5 - curvature * (action - best) ** 2
    return ContinuousLog(
        reward=(rng.random(n) < chance).astype(float),
        action=action,
        density=np.ones(n),
        decision=np.where(best < 0.5, 0.4, 0.6),
        bounds=(0, 1),
    )


def test_intervals_cover_the_smoothed_value() -> None:
    rng, draws, hits = np.random.default_rng(1), 400, {"ips": 0, "snips": 0}
    for _ in range(draws):
        for estimate in evaluate(_dose(1500, rng).at_bandwidth(0.2), hits):
            assert estimate.low is not None
            assert estimate.high is not None
            hits[estimate.estimator] += estimate.low <= 0.49 - 0.2**2 / 5 <= estimate.high
    # Four standard errors of a binomial share of 0.95.
    assert all(abs(hit / draws - 0.95) < 4 * np.sqrt(0.95 * 0.05 / draws) for hit in hits.values()), hits


def test_error_goes_to_zero_with_more_decisions() -> None:
    """With h = n^(-1/5) / 2 the error falls as n^(-2/5): sixfold for a hundred times as many decisions."""
    rng = np.random.default_rng(2)

    def error(n: int) -> float:
        values = [evaluate(_dose(n, rng).at_bandwidth(n**-0.2 / 2), "ips")[0].value for _ in range(60)]
        return float(np.sqrt(np.mean((np.array(values, dtype=float) - 0.49) ** 2)))

    assert 4 < error(500) / error(50_000) < 10


def test_sweep_chooses_wide_where_flat_and_narrower_where_curved() -> None:
    bandwidths = (0.4, 0.025, 0.05, 0.1, 0.2, 0.8)
    flat = sweep_bandwidths(_dose(20_000, np.random.default_rng(3), 0.0), bandwidths)
    curved = sweep_bandwidths(_dose(200_000, np.random.default_rng(3), 1.0), bandwidths)
    assert flat.bandwidths == (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    assert flat.chosen_bandwidth == (0.8,)
    assert curved.chosen_bandwidth[0] < 0.4
    assert [row[0].estimator for row in curved.table] == [f"snips, bandwidth {h:g}" for h in curved.bandwidths]
    place = curved.bandwidths.index(curved.chosen_bandwidth[0])
    assert curved.chosen[0].value == curved.table[place][0].value
    assert curved.chosen[0].gate == "caution"
    assert "chosen from 6 on the same decisions" in curved.chosen[0].reason


def test_sweep_is_nearly_as_good_as_the_best_bandwidth() -> None:
    rng, bandwidths = np.random.default_rng(4), (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
    errors = []
    for _ in range(60):
        found = sweep_bandwidths(_dose(4000, rng), bandwidths)
        row = [found.chosen[0].value, *(estimates[0].value for estimates in found.table)]
        errors.append(np.array(row, dtype=float) - 0.49)
    root = np.sqrt(np.mean(np.square(errors), axis=0))
    assert root[0] < 2 * root[1:].min()
    assert root[0] < root[1:].max() / 2


def test_each_policy_gets_its_own_bandwidth() -> None:
    rng, n = np.random.default_rng(5), 50_000
    action = rng.random(n)
    reward = np.where(action < 0.5, 0.5, np.abs(action - 0.75) * 4) + rng.normal(0, 0.1, n)
    decision = np.array([[0.25], [0.75]]) * np.ones(n)
    log = ContinuousLog(reward=reward, action=action, density=np.ones(n), decision=decision, policies=("flat", "steep"))
    found = sweep_bandwidths(log, (0.01, 0.03, 0.1, 0.24), "ips")
    assert found.chosen_bandwidth[0] == 0.24
    assert found.chosen_bandwidth[1] < 0.1
    assert [e.policy for e in found.chosen] == ["flat", "steep"]


def test_bandwidth_too_narrow_for_any_decision_is_passed_over() -> None:
    log = _dose(300, np.random.default_rng(6))
    found = sweep_bandwidths(log, (1e-9, 0.2))
    assert found.table[0][0].value is None
    assert found.chosen_bandwidth == (0.2,)
    nothing = sweep_bandwidths(log, (1e-9, 1e-8))
    assert nothing.chosen[0].value is None
    assert "no logged decision" in nothing.chosen[0].reason


def test_evidence_says_that_it_is_smoothed_and_keeps_its_place() -> None:
    fields = _random(20)
    log = ContinuousLog(**fields, cluster=np.arange(20) // 2, start=7, policies=("new",))
    evidence = log.at_bandwidth(0.25, "gaussian")
    assert evidence.assumption == "the value is smoothed over actions by the gaussian kernel with bandwidth 0.25"
    assert (evidence.start, evidence.policies, len(log)) == (7, ("new",), 20)
    assert evaluate(evidence, "snips")[0].diagnostics.units == 10


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": []}, "reward has shape .* nothing is in it"),
        ({"reward": [NAN, 1.0]}, "reward at row 0 is nan"),
        ({"reward": ["a", "b"]}, "numbers are needed"),
        ({"action": [1.0]}, "action has shape"),
        ({"action": [1.0, np.inf]}, "action at row 1 is inf"),
        ({"density": [1.0, 0.0]}, "density at row 1 is 0"),
        ({"density": [-1.0, 1.0]}, "density at row 0 is -1"),
        ({"density": [1.0, np.inf]}, "density at row 1 is inf"),
        ({"density": [1.0, 1e-200]}, "density at row 1 is 1e-200"),
        ({"decision": [1.0, 1.0, 1.0]}, "decision has shape"),
        ({"decision": [1.0, NAN]}, r"decision at place \(0, 1\) is nan"),
        ({"q_logged": [1.0]}, "q_logged has shape"),
        ({"q_logged": [[1.0, 1.0], [1.0, 1.0]]}, "q_logged has shape"),
        ({"q_target": [1.0, NAN]}, "q_target at place"),
        ({"bounds": (1, 1)}, "the lower must be below the upper"),
        ({"bounds": (NAN, 1)}, "the lower must be below the upper"),
        ({"bounds": (0, 0.5)}, "1 of 2 values of action lie outside bounds"),
        ({"decision": [3.0, 4.0], "bounds": (0, 1)}, "2 of 2 values of decision lie outside bounds"),
        ({"cluster": [0.5, 1.0]}, "cluster is float64"),
    ],
)
def test_bad_logs_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    fields = {"reward": [1.0, 0.0], "action": [0.2, 0.9], "density": [1.0, 2.0], "decision": [0.1, 0.4]}
    with pytest.raises(EvidenceError, match=message):
        ContinuousLog(**(fields | changes))


def test_bad_choices_are_refused_by_name() -> None:
    log = _dose(50, np.random.default_rng(7))
    for bandwidth in (0.0, -1.0, NAN, np.inf):
        with pytest.raises(ConfigurationError, match="bandwidth is"):
            log.at_bandwidth(bandwidth)
    with pytest.raises(ConfigurationError, match="Did you mean 'gaussian'"):
        log.at_bandwidth(0.1, "gausian")
    with pytest.raises(ConfigurationError, match="No bandwidth was given"):
        sweep_bandwidths(log, ())
    with pytest.raises(MissingEvidenceError, match="a reward model's prediction"):
        sweep_bandwidths(log, (0.1, 0.2), "dr")
