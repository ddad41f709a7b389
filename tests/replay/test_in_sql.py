"""The importance family summed inside the database gives what the compiled pass gives, or is not asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from counterplay.estimators import Estimate, statistic_of
from counterplay.estimators.intervals import INTERVALS, Bounds
from counterplay.estimators.intervals.table import RESAMPLED
from counterplay.estimators.table import resolve_all
from counterplay.logs import import_decisions, open_workspace
from counterplay.logs.chunks import stream_chunks
from counterplay.logs.survey import survey_log
from counterplay.replay.evaluation import evaluate_log
from counterplay.replay.evaluation.in_sql import can_be_summed, statistic_in_sql
from counterplay.replay.evidence import evidence_of
from counterplay.replay.named import policy_named

FAMILY = (
    "ips", "snips", "cressie_read", "clipped_ips(1.5)", "clipped_snips(1.5)", "clipped_ips(inf)",
    "subgaussian_ips(0.1)", "subgaussian_ips(1)",
)  # fmt: skip


def _place(folder: Path, n: int = 6000, *, candidates: bool = False, reward: Any = None, **more: Any) -> Path:
    rng = np.random.default_rng(4)
    action = rng.integers(0, 5, n)
    columns = {
        "action": [f"a{i}" for i in action],
        "propensity": rng.uniform(0.05, 1, n),
        "reward": np.round(rng.random(n) * (1 + action), 2) if reward is None else reward,
        **more,
    }
    if candidates:
        columns["candidates"] = [[f"a{j}" for j in range(5) if j == i or (j + i) % 2] for i in action]
    place = folder / "log.duckdb"
    import_decisions(polars.DataFrame(columns), place, "log")
    return place


def _both(place: Path, names: list[str], estimators: Any, **asked: Any) -> tuple[list[Estimate], list[Estimate]]:
    chosen = resolve_all(estimators)
    with open_workspace(place, read_only=True) as workspace:
        survey = survey_log(workspace, "log")
        policies = [policy_named(name, survey) for name in names]
        assert can_be_summed(survey, policies, chosen)
        summed = statistic_in_sql(workspace, survey, policies, chosen)
        assert summed is not None
        streamed = [evidence_of(chunk, policies, None) for chunk in stream_chunks(workspace, survey, batch=1000)]
    statistic = statistic_of(streamed[0], chosen)
    for part in streamed[1:]:
        statistic = statistic.add(part)
    return summed.estimate(**asked), statistic.estimate(**asked)


def _agree(ours: list[Estimate], theirs: list[Estimate]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert (one.policy, one.estimator, one.gate, one.n) == (other.policy, other.estimator, other.gate, other.n)
        for name in ("value", "std_error", "low", "high"):
            found, expected = getattr(one, name), getattr(other, name)
            assert found is expected is None or found == pytest.approx(expected, rel=1e-11), (name, one.estimator)
        for name, found in vars(one.diagnostics).items():
            expected = getattr(other.diagnostics, name)
            assert found == (expected if isinstance(expected, str | None) else pytest.approx(expected, rel=1e-9)), name


@pytest.mark.parametrize("interval", [name for name in INTERVALS if name not in RESAMPLED])
@pytest.mark.parametrize("candidates", [False, True])
def test_sums_of_the_database_are_those_of_the_compiled_pass(tmp_path: Path, interval: str, candidates: bool) -> None:
    names = ["uniform", "logging"] if candidates else ["uniform", "logging", "always=a3"]
    bounds = Bounds(reward=(0, 5), weight=20)
    _agree(*_both(_place(tmp_path, candidates=candidates), names, FAMILY, interval=interval, bounds=bounds))


def test_weights_that_only_shrunken_estimators_look_at(tmp_path: Path) -> None:
    _agree(*_both(_place(tmp_path), ["uniform", "always=a0"], ("clipped_ips(3)", "subgaussian_ips(0.3)")))


@pytest.mark.parametrize("offset", [0.3, 1e3, 1e6])
def test_rewards_that_hardly_vary_are_streamed(tmp_path: Path, offset: float) -> None:
    reward = offset + (0 if offset == 0.3 else 1) * np.random.default_rng(1).normal(size=6000)
    place = _place(tmp_path, reward=reward)
    asked = ["uniform", "logging", "always=a1"], ("snips", "clipped_snips(2)", "ips")
    found = evaluate_log(place, "log", *asked).estimates
    beside = evaluate_log(place, "log", asked[0], (*asked[1], "dm")).estimates  # a model: nothing is summed
    beside = [row for row in beside if row["estimator"] != "dm"]
    for one, other in zip(found, beside, strict=True):
        assert one["std_error"] == pytest.approx(other["std_error"], rel=1e-9)
        assert one["gate"] == other["gate"]
        if offset == 0.3 and one["estimator"] != "ips":
            assert one["low"] == one["value"] == one["high"] == pytest.approx(0.3, rel=1e-12)


def test_what_cannot_be_summed_is_streamed(tmp_path: Path) -> None:
    place = _place(tmp_path, candidates=True, cluster=[f"c{i // 2}" for i in range(6000)])
    with open_workspace(place, read_only=True) as workspace:
        survey = survey_log(workspace, "log")
        uniform, always = policy_named("uniform", survey), policy_named("always=a1", survey)
        assert not can_be_summed(survey, [uniform], resolve_all("ips"))  # clusters
    folder = tmp_path / "other"
    folder.mkdir()
    with open_workspace(_place(folder, candidates=True), read_only=True) as workspace:
        survey = survey_log(workspace, "log")
        assert can_be_summed(survey, [uniform], resolve_all("ips"))
        assert not can_be_summed(survey, [always], resolve_all("ips"))  # it depends on the candidates
        assert not can_be_summed(survey, [uniform], resolve_all(("ips", "dr")))
        assert not can_be_summed(survey, [uniform], resolve_all("clipped_ips(slope)"))
        assert not can_be_summed(survey, [uniform], resolve_all("on_policy"))
        assert not can_be_summed(survey, [uniform] * 61, resolve_all("ips"))


def test_an_evaluation_says_the_same_either_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = _place(tmp_path)
    summed = evaluate_log(place, "log", ["uniform", "always=a2"], ("ips", "snips")).estimates
    monkeypatch.setattr("counterplay.replay.evaluation.evaluate.can_be_summed", lambda *_: False)
    streamed = evaluate_log(place, "log", ["uniform", "always=a2"], ("ips", "snips")).estimates
    for one, other in zip(summed, streamed, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=1e-12)
        assert one["gate"] == other["gate"]
