"""The public laws, on every estimator; and that they catch estimators that break them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterplay.errors import ConfigurationError
from counterplay.estimators import Estimator, Evidence, Terms, evaluate, resolve
from counterplay.estimators.checks import check_estimator, estimator_laws
from counterplay.estimators.table import FIXED, WITH_PARAMETER

PARAMETERS = {
    "clipped_ips": ("2", "inf"),
    "clipped_snips": ("2", "inf"),
    "subgaussian_ips": ("0.1", "0"),
    "switch_dr": ("2", "inf"),
    "dros": ("10", "inf"),
    "subgaussian_dr": ("0.1", "0"),
}
EVERY = [e.name for e in FIXED] + [f"{name}({value})" for name in WITH_PARAMETER for value in PARAMETERS[name]]
LAWS = [(name, law) for name in EVERY for law, _ in estimator_laws(name)]


@pytest.mark.parametrize(("estimator", "law"), LAWS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_law(estimator: str, law: str, seed: int) -> None:
    dict(estimator_laws(estimator, seed))[law]()


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


def test_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "estimators.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.S):
        exec(compile(block, "docs/estimators.md", "exec"), names)  # noqa: S102
    assert "snips" in capsys.readouterr().out
    assert np.isfinite(names["q_logged"]).all()
