"""Numbers that other packages publish: the Open Bandit Pipeline's README and logs, Vowpal Wabbit's tutorial."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from counterplay.estimators import CrossFittedLogistic, Evidence, assign_folds, evaluate

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
OBD = DATA / "obd"
needs_obd = pytest.mark.skipif(not OBD.is_dir(), reason=f"the Open Bandit sample is not at {OBD}; set COUNTERPLAY_DATA")


def _bernoulli_ts(campaign: str, draws: int = 100_000) -> np.ndarray[Any, Any]:
    """(actions, 3) how often production's Thompson sampling puts an action at a position, with obp's seed."""
    numbers: dict[str, dict[str, list[float]]] = {}
    section = values = None
    for line in (OBD / "prior_bts.yaml").read_text().splitlines():
        word = line.strip()
        if not line.startswith(" "):
            section = numbers.setdefault(word.rstrip(":"), {})
        elif word.startswith("- "):
            values.append(float(word[2:]))
        else:
            values = section.setdefault(word.rstrip(":"), [])
    alpha, beta = np.array(numbers[campaign]["alpha"]), np.array(numbers[campaign]["beta"])
    sampled = np.random.RandomState(12345).beta(alpha, beta, size=(draws, len(alpha)))
    best = np.argsort(-sampled, axis=1)[:, :3]
    return np.stack([np.bincount(best[:, i], minlength=len(alpha)) for i in range(3)], axis=1) / draws


@needs_obd
def test_thompson_sampling_earns_1_198_times_the_uniform_choice_as_in_obps_readme() -> None:
    log = polars.read_parquet(OBD / "obd_all_random.parquet")
    chance = _bernoulli_ts("all")
    evidence = Evidence(
        reward=log["click"].to_numpy(),
        propensity=log["propensity_score"].to_numpy(),
        target=chance[log["item_id"].to_numpy(), log["position"].to_numpy() - 1],
    )
    ips, mean = evaluate(evidence, ("ips", "on_policy"))
    assert ips.value is not None
    assert mean.value is not None
    assert ips.value / mean.value == pytest.approx(1.1981263157894735, rel=1e-12)
    golden = json.loads((OBD / "golden_obd.json").read_text())["random/all"]
    assert ips.diagnostics.effective_sample_size == pytest.approx(golden["ess"], rel=1e-12)
    for ours, theirs in {"snips": "snipw", "clipped_ips(5)": "ipw_clip5", "subgaussian_ips(0.1)": "sgipw_0.1"}.items():
        assert evaluate(evidence, ours)[0].value == pytest.approx(golden["estimates"][theirs], rel=1e-12)


@needs_obd
@pytest.mark.parametrize("campaign", ["all", "men"])
def test_estimates_with_a_model_are_obps_up_to_the_model(campaign: str) -> None:
    """Their model saw features of items that the logs do not have; two models move DR by chance alone.

    So each may differ by 1.5 standard errors of DR: measured 1.1 at most. The women's log is left out: one weight of
    21,739 makes DR -0.007 there, and any model something else.
    """
    log = polars.read_parquet(OBD / f"obd_{campaign}_bts.parquet")
    golden = json.loads((OBD / "golden_obd.json").read_text())[f"bts/{campaign}"]
    people = log.select(polars.col("^user_feature_.*$")).to_dummies(drop_first=True).to_numpy().astype(float)
    count, action, reward = golden["n_actions"], log["item_id"].to_numpy(), log["click"].to_numpy()
    fold = assign_folds(len(log), 3)
    model = CrossFittedLogistic(np.hstack([people, np.eye(count)[action]]), reward, fold)
    q = np.stack(
        [model.predict(np.hstack([people, np.tile(row, (len(log), 1))]), fold) for row in np.eye(count)], axis=1
    )
    evidence = Evidence(
        reward=reward,
        propensity=log["propensity_score"].to_numpy(),
        target=np.full(len(log), 1 / count),
        q_logged=q[np.arange(len(log)), action],
        q_target=q.mean(axis=1),
    )
    names = {
        "dr": "dr",
        "sndr": "sndr",
        "switch_dr(5)": "switch5",
        "dros(10)": "dros10",
        "subgaussian_dr(0.1)": "sgdr_0.1",
    }
    error = evaluate(evidence, "dr")[0].std_error
    assert error is not None
    for ours, theirs in names.items():
        assert abs(evaluate(evidence, ours)[0].value - golden["estimates"][theirs]) < 1.5 * error, ours


TUTORIAL = """
1:1 25, 2:0 25, 2:1 55, 2:1 56, 2:1 55, 2:1 56, 1:1 27, 2:0 21, 2:0 23, 2:0 56, 2:1 55, 2:1 36,
1:1 25, 2:0 25, 2:1 55, 2:1 56, 2:1 55, 2:1 56, 1:1 27, 2:0 21, 2:0 23, 2:0 56, 2:1 55, 2:1 36
"""


def test_progressive_validation_of_vowpal_wabbits_tutorial() -> None:
    """Average loss 0.416667: IPS of the actions that the learner would have taken, each before it learned from it."""
    vw = pytest.importorskip("vowpalwabbit")
    rows = [row.split() for row in TUTORIAL.split(",")]
    learner, predicted = vw.Workspace("--cb 2 --cb_type ips --quiet"), []
    for label, age in rows:
        example = learner.example(f"{label}:0.5 | user_age:{age}")
        learner.learn(example)
        predicted.append(example.get_prediction(vw.pyvw.PredictionType.MULTICLASS))
        learner.finish_example(example)
    logged, cost = zip(*(map(int, label.split(":")) for label, _ in rows), strict=True)
    agrees = np.array(predicted) == np.array(logged)
    ours = evaluate(Evidence(reward=-np.array(cost), propensity=np.full(24, 0.5), target=agrees.astype(float)), "ips")
    assert ours[0].value is not None
    assert -ours[0].value == pytest.approx(learner.get_sum_loss() / 24, rel=1e-6)
    assert -ours[0].value == pytest.approx(0.416667, abs=1e-6)
