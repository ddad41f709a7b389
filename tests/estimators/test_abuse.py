"""Bad evidence is refused by name, or answered with a reason instead of a number."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators import Evidence, evaluate, statistic_of


def _evidence(**changes: Any) -> Evidence:
    fields: dict[str, Any] = {
        "reward": [1.0, 0.0, 1.0, 0.0],
        "propensity": [0.5, 0.5, 0.25, 1.0],
        "target": [[0.5, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 1.0]],
        "q_logged": [0.5, 0.5, 0.5, 0.5],
        "q_target": [[0.5] * 4, [0.4] * 4],
        "cluster": [1, 1, 2, 3],
        "policies": ("a", "b"),
    }
    return Evidence(**(fields | changes))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": [1, NAN, NAN, 0]}, "reward at row 1 is nan, and so are 1 more of 4"),
        ({"reward": [1, 0, INF, 0]}, "reward at row 2 is inf"),
        ({"reward": ["1", "0", "1", "x"]}, "reward holds .* numbers are needed"),
        ({"reward": [1.0, 2.0]}, "has .* 4"),
        ({"reward": [[1.0, 2.0]]}, "reward has shape"),
        ({"reward": []}, "zero rows"),
        ({"propensity": [0.5, 0.0, 0.5, 0.5]}, "propensity at row 1 is 0"),
        ({"propensity": [0.5, 0.5, -0.1, 0.5]}, "propensity at row 2 is -0.1"),
        ({"propensity": [1.5, 0.5, 1.1, 0.5]}, "propensity at row 0 is 1.5, and so are 1 more of 4"),
        ({"propensity": [0.5, 0.5, NAN, 0.5]}, "propensity at row 2 is nan"),
        ({"propensity": [0.5, 0.5, 0.5, 1e-200]}, "propensity at row 3 is 1e-200.*overflow"),
        ({"propensity": [0.5, 0.5]}, "propensity has 2 rows and reward has 4"),
        ({"target": [[0.5] * 4, [1, 0, -1, 0]]}, r"target at row 2 \(policy 'b'\) is -1"),
        ({"target": [[0.5] * 4, [1, 0, 2, 0]]}, r"target at row 2 \(policy 'b'\) is 2"),
        ({"target": [[0.5] * 4, [1, 0, NAN, 0]]}, r"target at row 2 \(policy 'b'\) is nan"),
        ({"target": [[0.5] * 3, [1, 0, 0]]}, "target has shape"),
        ({"target": np.zeros((0, 4)), "policies": ()}, "target has shape"),
        ({"q_logged": [0.5, 0.5, 0.5, INF]}, "q_logged at row 3 is inf"),
        ({"q_logged": [0.5]}, "q_logged has 1 rows"),
        ({"q_target": [[0.5] * 4, [0.5, 0.5, NAN, 0.5]]}, r"q_target at row 2 \(policy 'b'\) is nan"),
        ({"q_target": [[0.5] * 4]}, "q_target has shape"),
        ({"cluster": [1, 1, 2]}, "cluster has shape"),
        ({"cluster": [1.0, 1.5, 2.0, 3.0]}, "integer codes"),
        ({"policies": ("a",)}, "1 policy names for 2 rows"),
        ({"policies": ("a", "a")}, "'a' is used more than once"),
    ],
)
def test_refused_when_made(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        _evidence(**changes)


def test_good_evidence_is_accepted() -> None:
    assert len(_evidence()) == 4
    assert Evidence(reward=[1, 0], target=[1, 1]).policies == ("policy 0",)
    # A softmax may end a few ulps above 1.
    _evidence(propensity=[1 + 1e-12, 1, 1, 1])


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr", "clipped_ips(3)"])
def test_importance_without_propensities_is_refused_by_name(name: str) -> None:
    with pytest.raises(MissingEvidenceError, match=r"needs propensities; this log has none.*'dm'"):
        evaluate(_evidence(propensity=None), name)


def test_doubly_robust_without_a_model_is_refused_by_name() -> None:
    with pytest.raises(MissingEvidenceError, match=r"DR needs a reward model.*CrossFittedRidge"):
        evaluate(_evidence(q_logged=None), "dr")


def test_replay_refuses_fractional_targets() -> None:
    with pytest.raises(EvidenceError, match="REPLAY keeps or drops"):
        evaluate(_evidence(), "replay")


def test_observed_log_still_has_what_needs_no_propensity() -> None:
    names = ("on_policy", "dm")
    assert {e.estimator for e in evaluate(_evidence(propensity=None), names)} == set(names)


def test_one_row() -> None:
    estimate = evaluate(_evidence().part(slice(0, 1)), "snips")[0]
    assert (estimate.value, estimate.std_error, estimate.low, estimate.gate) == (1.0, None, None, "unreliable")


def test_one_cluster() -> None:
    estimate = evaluate(_evidence(cluster=[7, 7, 7, 7]), "ips")[0]
    assert (estimate.low, estimate.gate) == (None, "unreliable")
    assert "1 independent unit" in estimate.reason


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr"])
def test_all_weights_zero(name: str) -> None:
    estimate = evaluate(_evidence(target=np.zeros((2, 4))), name)[0]
    assert (estimate.value, estimate.low, estimate.gate) == (None, None, "unreliable")
    assert "no logged decision" in estimate.reason


@pytest.mark.parametrize("name", ["ips", "snips", "dr", "sndr", "dros(1)", "subgaussian_ips(0.1)", "clipped_ips(10)"])
def test_huge_weights(name: str) -> None:
    n = 2000
    rng = np.random.default_rng(0)
    propensity = np.full(n, 0.5)
    propensity[:3] = 1e-12
    evidence = Evidence(
        reward=rng.random(n), propensity=propensity, target=np.full(n, 0.5), q_logged=np.zeros(n), q_target=np.zeros(n)
    )
    estimate = evaluate(evidence, name)[0]
    json.dumps(estimate.to_json(), allow_nan=False)
    assert estimate.diagnostics.largest_weight is not None
    if estimate.diagnostics.largest_weight > 1e6:
        assert estimate.gate == "unreliable"


def test_overflow_is_a_reason() -> None:
    evidence = Evidence(reward=[1e300, 1e308, 1.0], propensity=[1e-99, 1e-99, 1], target=[1, 1, 1])
    estimate = evaluate(evidence, "ips")[0]
    text = json.dumps(estimate.to_json(), allow_nan=False)
    assert '"value": null' in text
    assert "range of floating-point" in estimate.reason


@pytest.mark.parametrize("level", [0, 1, -0.5, 95, NAN])
def test_impossible_level(level: float) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        evaluate(_evidence(), "ips", level)


def test_unknown_interval() -> None:
    with pytest.raises(ConfigurationError, match="There is no interval 'bootstrap'"):
        evaluate(_evidence(), "ips", interval="bootstrap")  # type: ignore[arg-type]


def test_shards_that_do_not_belong_together() -> None:
    ours = statistic_of(_evidence(), "ips")
    with pytest.raises(EvidenceError, match="do not merge"):
        ours.merge(statistic_of(_evidence(policies=("a", "c")), "ips"))
    with pytest.raises(EvidenceError, match="do not merge"):
        ours.merge(statistic_of(_evidence(), "snips"))
    with pytest.raises(EvidenceError, match="One shard has clusters"):
        ours.merge(statistic_of(_evidence(cluster=None), "ips"))


def test_errors_that_overflow_are_a_reason() -> None:
    evidence = Evidence(reward=[5e153, 4e153, 3e153], propensity=[0.5] * 3, target=[1, 1, 1])
    estimate = evaluate(evidence, "ips")[0]
    assert (estimate.value, estimate.std_error) == (None, None)
    assert "range of floating-point" in estimate.reason
