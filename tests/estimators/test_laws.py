"""The public laws, on every estimator; and that they catch estimators that break them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import ConfigurationError
from counterplay.estimators import Estimator, Evidence, Terms, evaluate, resolve
from counterplay.estimators.checks import check_estimator, estimator_laws
from counterplay.estimators.intervals import INTERVALS, Interval
from counterplay.estimators.table import FIXED, WITH_PARAMETER
from counterplay.estimators.tuning import RULES

PARAMETERS = {
    "clipped_ips": ("2", "inf"),
    "clipped_snips": ("2", "inf"),
    "subgaussian_ips": ("0.1", "0"),
    "switch_dr": ("2", "inf"),
    "dros": ("10", "inf"),
    "drps": ("2", "inf"),
    "subgaussian_dr": ("0.1", "0"),
}
EVERY = [e.name for e in FIXED] + [f"{name}({value})" for name in WITH_PARAMETER for value in PARAMETERS[name]]
TUNED = [f"{name}({rule})" for name in WITH_PARAMETER for rule in RULES]
LAWS = [(name, law) for name in EVERY + TUNED for law, _ in estimator_laws(name)]
OTHER_INTERVALS = [
    (name, interval, law)
    for name in ("ips", "snips", "cressie_read", "sndr", "clipped_ips(2)", "drps(slope)", "on_policy")
    for interval in INTERVALS
    if interval != "t"
    for law, _ in estimator_laws(name, interval=interval)
]


@pytest.mark.parametrize(("estimator", "law"), LAWS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_law(estimator: str, law: str, seed: int) -> None:
    dict(estimator_laws(estimator, seed))[law]()


@pytest.mark.parametrize(("estimator", "interval", "law"), OTHER_INTERVALS)
@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_law_of_intervals(estimator: str, interval: Interval, law: str, seed: int) -> None:
    dict(estimator_laws(estimator, seed, interval))[law]()


def _mean_of_shard(evidence: Evidence) -> Terms:
    return Terms(evidence.weight * (evidence.reward - evidence.reward.mean()), weight=evidence.weight)


def _first_policy_for_all(evidence: Evidence) -> Terms:
    weight = evidence.weight / evidence.weight[:1].max()
    return Terms(weight * evidence.reward, weight=weight)


def _frozen_denominator(evidence: Evidence) -> Terms:
    weight = evidence.weight / evidence.weight.mean(axis=1, keepdims=True)
    return Terms(weight * evidence.reward, weight=weight)


@pytest.mark.parametrize(
    ("terms", "law"),
    [
        (_mean_of_shard, "merges in any order"),
        (_first_policy_for_all, "policies do not meet"),
        (_frozen_denominator, "constant reward is certain"),
    ],
)
def test_laws_catch_the_defects_of_peers(terms, law) -> None:
    broken = Estimator(name="broken", terms=terms, normalised=True)
    with pytest.raises(AssertionError):
        dict(estimator_laws(broken))[law]()
    with pytest.raises(AssertionError, match="broken: '"):
        check_estimator(broken)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("ipw", "ips"),
        ("SNIPW", "snips"),
        ("rm", "replay"),
        ("Doubly Robust", "dr"),
        ("dr-os(10)", "dros(10)"),
        ("sgipw( .1 )", "subgaussian_ips(0.1)"),
        ("clipped_ips(inf)", "clipped_ips(inf)"),
    ],
)
def test_aliases_resolve(alias: str, name: str) -> None:
    assert resolve(alias).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("snisp", "Did you mean 'snips'"),
        ("clipped_ips", "needs a number"),
        ("clipped_ips(much)", "needs a number"),
        ("clipped_ips(0)", "above 0"),
        ("clipped_ips(nan)", "above 0"),
        ("subgaussian_ips(1.5)", r"in \[0, 1\]"),
        ("ips(3)", "takes no parameter"),
        ("", "no estimator"),
        ("ips(", "no estimator"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        resolve(name)


def test_no_estimator_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="No estimator"):
        evaluate(Evidence.of_rewards([1.0, 2.0]), ())
