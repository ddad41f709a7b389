"""Estimates from a log in chunks are those of the log in memory, and stand in the workspace with what they rest on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from counterplay.errors import (
    ConfigurationError,
    EvidenceError,
    InputError,
    MissingEvidenceError,
    MissingOutputError,
    UnsupportedError,
    WorkspaceError,
)
from counterplay.estimators import Evidence, compare, evaluate
from counterplay.estimators.intervals import Bounds
from counterplay.logs import (
    DecisionArrays,
    Log,
    Outcomes,
    Workspace,
    attach_decisions,
    import_decisions,
    open_workspace,
    read_choices,
    read_log,
    write_choices,
    write_log,
)
from counterplay.logs.chunks import chunk_of, stream_chunks
from counterplay.logs.formats.obd import import_obd
from counterplay.logs.results import read_experiments
from counterplay.logs.survey import survey_log
from counterplay.replay.evaluation import compare_log, evaluate_log
from counterplay.replay.evaluation.evaluate import statistic_of_log
from counterplay.replay.evaluation.prepare import prepare
from counterplay.replay.evaluation.question import Statement
from counterplay.replay.evidence import evidence_of, exact_values, gather_evidence
from counterplay.replay.named import StoredPolicy, UniformPolicy, policy_named
from counterplay.replay.policies import TablePolicy
from counterplay.replay.reward_models import FittedRewards, fit_rewards, folds_of

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
LABELS = ["a", "b", "c", "d", "e", "f"]
N = 1500


def decisions(*, shortlist: bool, clustered: bool, seed: int = 0) -> DecisionArrays:
    """Decisions logged unevenly; some in clusters, some in none."""
    rng = np.random.default_rng(seed)
    pool = np.tile(np.arange(6), (N, 1))
    if shortlist:
        pool = np.array([rng.permutation(6) for _ in range(N // 2)])[:, :4]
        pool[rng.random(N // 2) < 0.3, 3] = -1
        pool = np.repeat(pool, 2, axis=0)
    weights = np.where(pool >= 0, rng.random(pool.shape) + 0.3, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    place = (weights.cumsum(axis=1) < rng.random((N, 1))).sum(axis=1)
    action = pool[np.arange(N), place]
    groups = [None if rng.random() < 0.2 else f"customer {rng.integers(300)}" for _ in range(N)]
    return DecisionArrays(
        context=np.arange(N) // 2,
        candidates=pool if shortlist else None,
        action=action,
        propensity=weights[np.arange(N), place],
        reward=(rng.random(N) < 0.2 + 0.1 * action).astype(float),
        cluster=groups if clustered else None,
    )


def store(workspace: Workspace, name: str, given: DecisionArrays, *, features: bool) -> Log:
    rng = np.random.default_rng(3)
    contexts = N // 2
    write_log(
        workspace,
        log=name,
        regime="propensity",
        context_ids=[f"context {i}" for i in range(contexts)],
        action_labels=LABELS,
        context_features=rng.normal(size=(contexts, 3)).astype(np.float32) if features else None,
        action_features=rng.normal(size=(6, 3)).astype(np.float32) if features else None,
        decisions=given,
    )
    pool = given.candidates
    first = np.full(contexts, 2) if pool is None else pool[::2, 0]
    write_choices(workspace, name, "one", first)
    if pool is None:
        write_choices(workspace, name, "two", np.tile([1, 4], (contexts, 1)), np.tile([0.3, 0.7], (contexts, 1)))
    return read_log(workspace, name)


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    with open_workspace(tmp_path / "workspace.duckdb") as opened:
        yield opened


KINDS = [(shortlist, clustered, features) for shortlist in (0, 1) for clustered in (0, 1) for features in (0, 1)]


def in_memory(workspace: Workspace, log: Log, names: Sequence[str], *, reward_model: bool = True) -> Evidence:
    """The evidence of a whole log, by the policies that experiments use."""
    policies: list[Any] = []
    for name in names:
        if name == "uniform":
            policies.append(TablePolicy(name=name, actions=np.full((N, 1), -1, np.int32), weights=np.ones((N, 1))))
        elif name.startswith("always="):
            index = LABELS.index(name.removeprefix("always="))
            actions = np.full((N, 1), index, np.int32)
            if log.candidates is not None:
                actions[~(log.candidates == index).any(axis=1)] = -1
            policies.append(TablePolicy(name=name, actions=actions, weights=np.ones((N, 1))))
        else:
            stored = read_choices(workspace, log.name, name)
            policies.append(
                TablePolicy(name=name, actions=stored.actions[log.context], weights=stored.probabilities[log.context])
            )
    return gather_evidence(log, policies, reward_model=reward_model)


@pytest.mark.parametrize(("shortlist", "clustered", "features"), KINDS)
def test_evidence_in_chunks_is_that_of_the_whole_log(
    workspace: Workspace, shortlist: bool, clustered: bool, features: bool
) -> None:
    log = store(workspace, "l", decisions(shortlist=shortlist, clustered=clustered), features=features)
    names = ["uniform", "always=c", "one"]
    whole = in_memory(workspace, log, names)
    prepared = prepare(
        workspace, "l", names, ("ips", "dr"), Statement(), reward_model="ridge", truth=None, progress=None
    )
    for batch in (37, 512, 100_000):
        source = replace(prepared.source, batch=batch)
        rewards = fit_rewards(lambda source=source: source.chunks("model"))  # type: ignore[misc]
        parts = [evidence_of(chunk, source.policies, rewards) for chunk in source.chunks("evidence")]
        assert max(map(len, parts)) <= batch
        assert [part.start for part in parts] == [0, *np.cumsum([len(part) for part in parts])[:-1].tolist()]
        for field in ("reward", "propensity", "target", "q_logged", "q_target"):
            streamed = np.concatenate([getattr(part, field) for part in parts], axis=-1)
            np.testing.assert_allclose(streamed, getattr(whole, field), rtol=0, atol=1e-12, err_msg=field)
        if clustered:
            assert np.concatenate([part.cluster for part in parts]).tolist() == whole.cluster.tolist()  # type: ignore[union-attr]
        else:
            assert all(part.cluster is None for part in parts)


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
@pytest.mark.parametrize("clustered", [False, True])
def test_estimates_in_chunks_are_those_of_the_whole_log(workspace: Workspace, clustered: bool, kind: str) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=clustered), features=True)
    names, estimators = ["uniform", "two", "logging", "always=a"], ("ips", "snips", "dm", "dr", "sndr")
    found = []
    for batch in (100, 700, 100_000):
        prepared = prepare(workspace, "l", names, estimators, Statement(), reward_model=kind, truth=None, progress=None)
        source = replace(prepared.source, batch=batch)
        rewards = fit_rewards(lambda source=source: source.chunks("model"), kind)  # type: ignore[misc]
        found.append(statistic_of_log(replace(prepared, source=source, rewards=rewards), None).estimate())
    for first, *others in zip(*found, strict=True):
        for other in others:
            assert (other.value, other.low, other.high) == pytest.approx(
                (first.value, first.low, first.high), abs=1e-12
            )
            assert other.diagnostics.units == first.diagnostics.units
    assert [row["value"] for row in evaluate_log(workspace, "l", names, estimators, reward_model=kind).estimates] == (
        pytest.approx([one.value for one in found[0]], abs=1e-12)
    )


def test_the_mean_of_features_stands_for_the_mean_of_predictions_of_a_linear_model(workspace: Workspace) -> None:
    for shortlist in (False, True):
        name = f"l{shortlist}"
        log = store(workspace, name, decisions(shortlist=shortlist, clustered=False), features=True)
        whole = chunk_of(log, {"one": read_choices(workspace, name, "one")})
        short = fit_rewards(lambda whole=whole: [whole])  # type: ignore[misc]
        long = FittedRewards(features=short.features, model=short.model, linear=False)
        for policy in (UniformPolicy(), StoredPolicy(name="one", key="one")):
            quick, slow = (evidence_of(whole, [policy], rewards).q_target for rewards in (short, long))
            assert quick is not None
            np.testing.assert_allclose(quick, slow, atol=1e-12)


def test_by_ips_and_dr_the_logging_policy_earns_what_it_earned(workspace: Workspace) -> None:
    log = store(workspace, "l", decisions(shortlist=False, clustered=False), features=True)
    for row in evaluate_log(workspace, "l", "logging", ("ips", "dr")).estimates:
        assert row["value"] == pytest.approx(log.reward.mean(), abs=1e-12)


def test_a_logged_distribution_gives_the_logging_policy_its_whole_value(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        p = rng.dirichlet([3, 3, 3])
        action = rng.choice(3, p=p)
        rows.append((str(i), "xyz"[action], p[action], int(rng.random() < 0.2 + 0.3 * action), list("xyz"), p.tolist()))
    names = ["context_id", "action", "propensity", "reward", "candidates", "candidate_propensities"]
    import_decisions(pl.DataFrame(rows, schema=names, orient="row"), workspace, "l")
    survey = survey_log(workspace, "l")
    assert survey.distributions
    (chunk,) = stream_chunks(workspace, survey)
    rewards = fit_rewards(lambda: [chunk])
    evidence = evidence_of(chunk, [policy_named("logging", survey)], rewards)
    assert evidence.q_target is not None
    by_hand = np.zeros(400)
    for place in range(3):
        features = rewards.features.of(chunk, np.arange(400), np.full(400, place, np.int32))
        by_hand += np.array([row[5][place] for row in rows]) * rewards.model.predict(
            features, folds_of(chunk, np.arange(400))
        )
    np.testing.assert_allclose(evidence.q_target[0], by_hand, atol=1e-12)


def test_always_takes_one_action_and_where_it_is_not_allowed_any(workspace: Workspace) -> None:
    log = store(workspace, "l", decisions(shortlist=True, clustered=False), features=False)
    assert log.candidates is not None
    found = evaluate_log(workspace, "l", "always=b", "ips")
    has = (log.candidates == 1).any(axis=1)
    target = np.where(has, log.action == 1, 1 / (log.candidates >= 0).sum(axis=1))
    assert found.estimates[0]["value"] == pytest.approx(np.mean(target / log.propensity * log.reward))
    (note,) = found.results["notes"]
    assert f"not allowed in {int((~has).sum())} of {N:,} decisions" in note


def test_a_log_without_propensities_is_served_by_its_model_and_the_rest_is_left_out_with_the_reason(
    workspace: Workspace,
) -> None:
    given = decisions(shortlist=False, clustered=False)
    frame = pl.DataFrame({"context_id": given.context, "action": given.action, "reward": given.reward})
    import_decisions(frame, workspace, "blind")
    found = evaluate_log(workspace, "blind", ["uniform", "always=1"])
    assert {row["estimator"] for row in found.estimates} == {"dm"}
    reasons = {one["estimator"]: one["reason"] for one in found.results["left_out"]}
    assert "needs propensities" in reasons["snips"]
    assert "needs propensities" in reasons["dr"]
    with pytest.raises(MissingEvidenceError, match="SNIPS needs propensities"):
        evaluate_log(workspace, "blind", "uniform", ["all", "snips"])
    with pytest.raises(MissingEvidenceError, match="mean reward, which `counterplay check` prints"):
        evaluate_log(workspace, "blind", "logging")
    with pytest.raises(MissingEvidenceError, match="none of the estimators"):
        evaluate_log(workspace, "blind", "uniform", reward_model="none")


def test_some_missing_propensities_are_as_good_as_none(workspace: Workspace) -> None:
    given = decisions(shortlist=False, clustered=False)
    propensity = np.where(np.arange(N) == 700, np.nan, given.propensity)
    store(workspace, "l", replace(given, propensity=propensity), features=False)
    assert {row["estimator"] for row in evaluate_log(workspace, "l", "uniform").estimates} == {"dm"}


def test_decisions_without_a_reward_are_refused(workspace: Workspace) -> None:
    given = decisions(shortlist=False, clustered=False)
    store(workspace, "l", replace(given, reward=np.where(np.arange(N) < 7, np.nan, given.reward)), features=False)
    with pytest.raises(MissingEvidenceError, match="7 of 1,500 decisions of log 'l' have no logged action or reward"):
        evaluate_log(workspace, "l", "uniform")
    assert read_experiments(workspace) == []


def outcomes_of(log: Log) -> Outcomes:
    contexts = len(log.context_ids)
    rewards = np.random.default_rng(5).random((contexts, 6))
    return Outcomes(
        offsets=np.arange(contexts + 1) * 6,
        actions=np.tile(np.arange(6, dtype=np.int32), contexts),
        rewards=rewards.ravel(),
    )


def test_exact_values_stand_beside_estimates_and_differences(workspace: Workspace) -> None:
    log = store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    known = outcomes_of(log)
    write_log(workspace, log="full", regime="full", context_ids=log.context_ids, action_labels=LABELS, outcomes=known)
    mean = known.rewards.reshape(-1, 6)[log.context].mean(axis=0)
    found = evaluate_log(workspace, "l", ["always=b", "uniform", "two", "logging"], "snips", truth="full")
    exact = {row["policy"]: row["truth"] for row in found.estimates}
    assert exact["always=b"] == pytest.approx(mean[1])
    assert exact["uniform"] == pytest.approx(mean.mean())
    assert exact["two"] == pytest.approx(0.3 * mean[1] + 0.7 * mean[4])
    assert exact["logging"] is None
    assert any("exact value of 'logging' is not known" in note for note in found.results["notes"])
    (row,) = compare_log(workspace, "l", "always=b", "uniform", truth="full").comparisons
    assert row["truth"] == pytest.approx(mean[1] - mean.mean())
    assert row["covered"] == (row["low"] <= row["truth"] <= row["high"])
    with pytest.raises(MissingEvidenceError, match="no outcome table"):
        evaluate_log(workspace, "l", "uniform", truth="l")


def test_a_log_with_outcomes_is_its_own_truth(workspace: Workspace) -> None:
    log = store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    write_log(
        workspace,
        log="both",
        regime="propensity",
        context_ids=log.context_ids,
        action_labels=LABELS,
        outcomes=outcomes_of(log),
        decisions=decisions(shortlist=False, clustered=False),
    )
    both = read_log(workspace, "both")
    (row,) = evaluate_log(workspace, "both", "uniform", "ips").estimates
    assert row["truth"] == pytest.approx(exact_values(both, [UniformPolicy()]).mean())
    assert row["covered"] is not None


def test_differences_are_those_of_the_evidence_in_memory(workspace: Workspace) -> None:
    log = store(workspace, "l", decisions(shortlist=False, clustered=True), features=True)
    names = ["uniform", "always=c", "two"]
    found = compare_log(workspace, "l", names, "uniform", "dr", seed=4)
    theirs = compare(in_memory(workspace, log, names), "uniform", "dr", seed=4)
    for row, other in zip(found.comparisons, theirs, strict=True):
        for field in ("value", "std_error", "low_all", "high_all", "p_max_t"):
            assert row[field] == pytest.approx(getattr(other, field), abs=1e-10), field
    assert [row["policy"] for row in found.comparisons] == ["always=c", "two"]
    pairs = compare_log(workspace, "l", names, estimator="ips", all_pairs=True)
    assert {frozenset((row["policy"], row["baseline"])) for row in pairs.comparisons} == {
        frozenset(pair) for pair in (("uniform", "always=c"), ("uniform", "two"), ("always=c", "two"))
    }
    (against,) = compare_log(workspace, "l", "two").comparisons
    assert against["baseline"] == "logging"
    assert against["value"] == pytest.approx(
        evaluate(in_memory(workspace, log, ["two"]), "snips")[0].value - log.reward.mean()  # type: ignore[operator]
    )
    standings = pairs.results["standings"]
    assert sum(row["probability_best"] for row in standings) == pytest.approx(1)
    assert standings[0]["value"] == max(row["value"] for row in standings)


def test_a_comparison_that_does_not_fit_into_memory_is_refused_with_the_mend(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    monkeypatch.setattr("counterplay.replay.evaluation.compare.memory_limit", lambda: "20KB")
    with pytest.raises(UnsupportedError, match=r"2 policies on 1,500 decisions .*COUNTERPLAY_MEMORY=1GB"):
        compare_log(workspace, "l", "uniform")
    monkeypatch.setattr("counterplay.replay.evaluation.compare.memory_limit", lambda: "0.1 MiB")
    assert len(compare_log(workspace, "l", "uniform").comparisons) == 1


@pytest.mark.parametrize("amount", ["12XB", "10KB", "much", "1.2.3GB"])
def test_a_memory_that_is_none_is_blamed_on_the_variable(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, amount: str
) -> None:
    path = workspace.path
    monkeypatch.setenv("COUNTERPLAY_MEMORY", amount)
    with pytest.raises(ConfigurationError, match=f"COUNTERPLAY_MEMORY is '{amount}'"), open_workspace(path):
        pass


def test_nothing_to_compare_and_the_mean_of_the_log_are_refused(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    with pytest.raises(ConfigurationError, match="nothing to compare: 'logging' is the only policy"):
        compare_log(workspace, "l", "logging")
    with pytest.raises(ConfigurationError, match="nothing to compare: 'uniform'"):
        compare_log(workspace, "l", "uniform", all_pairs=True)
    with pytest.raises(ConfigurationError, match="says nothing of 'uniform'"):
        evaluate_log(workspace, "l", "uniform", "on_policy")
    (row,) = evaluate_log(workspace, "l", "logging", "on_policy").estimates
    assert row["gate"] == "ok"


def test_the_same_question_takes_the_place_of_its_answer_and_another_stands_beside_it(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    first = evaluate_log(workspace, "l", "one", "ips")
    again = evaluate_log(workspace, "l", ["one", "one"], ["ipw"])
    assert again.results == first.results
    assert read_experiments(workspace) == [first.results]
    evaluate_log(workspace, "l", "one", "ips", level=0.9)
    assert len(read_experiments(workspace)) == 2
    # Another policy under the same name is another question.
    write_choices(workspace, "l", "one", np.full(N // 2, 3))
    changed = evaluate_log(workspace, "l", "one", "ips")
    assert changed.results["outputs_hash"] != first.results["outputs_hash"]
    assert len(read_experiments(workspace)) == 3
    definition = first.results["definition"]
    assert (definition["policies"], definition["estimators"], definition["level"]) == (["one"], ["ips"], 0.95)
    assert json.loads(json.dumps(first.results, allow_nan=False)) == first.results


def test_a_log_that_has_grown_or_changed_has_another_hash(workspace: Workspace) -> None:
    rows = pl.DataFrame(
        {"id": range(6), "action": list("ababab"), "propensity": [0.5] * 6, "reward": [0, 1, 0, 1, 1, 0]}
    )
    import_decisions(rows[:5], workspace, "l")
    hashes = [survey_log(workspace, "l").hash]
    import_decisions(rows[:5], workspace, "l")
    assert survey_log(workspace, "l").hash == hashes[0]
    import_decisions(rows, workspace, "l")
    hashes.append(survey_log(workspace, "l").hash)
    import_decisions(rows.with_columns(reward=pl.lit(1)), workspace, "l", overwrite=True)
    hashes.append(survey_log(workspace, "l").hash)
    assert len(set(hashes)) == 3


def test_the_order_and_repetition_of_decisions_change_the_hash(workspace: Workspace) -> None:
    given = decisions(shortlist=False, clustered=False)
    hashes = set()
    for name, order in (("l", np.arange(N)), ("back", np.arange(N)[::-1])):
        some = {field: getattr(given, field)[order] for field in ("context", "action", "propensity", "reward")}
        store(workspace, name, DecisionArrays(**some), features=False)
        hashes.add(survey_log(workspace, name).hash)
    assert len(hashes) == 2


def test_a_log_attached_as_parquet_is_evaluated_where_it_lies(workspace: Workspace, tmp_path: Path) -> None:
    given = decisions(shortlist=False, clustered=True)
    frame = pl.DataFrame(
        {
            "context_id": [f"c{i}" for i in given.context],
            "action": given.action,
            "propensity": given.propensity,
            "reward": given.reward,
            "cluster": given.cluster,
            "x_0": np.random.default_rng(0).normal(size=N // 2)[given.context],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    attach_decisions(tmp_path / "log.parquet", workspace, "attached", columns={"features": "x_0"})
    import_decisions(frame, workspace, "copied", columns={"features": "x_0"})
    ours, theirs = (evaluate_log(workspace, name, ["uniform", "always=3"]) for name in ("attached", "copied"))
    for one, other in zip(ours.estimates, theirs.estimates, strict=True):
        assert one["value"] == pytest.approx(other["value"], abs=1e-12)
        assert one["std_error"] == pytest.approx(other["std_error"], abs=1e-12)


def test_policies_are_found_by_name_or_refused_with_the_nearest(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    for name in ("uniform", "always=a"):
        write_choices(workspace, "l", name, np.full(N // 2, 5))
    survey = survey_log(workspace, "l")
    assert policy_named("stored=uniform", survey) == StoredPolicy(name="stored=uniform", key="uniform")
    found = evaluate_log(workspace, "l", ["uniform", "stored=uniform", "always=f", "always=a"], "ips")
    values = {row["policy"]: row["value"] for row in found.estimates}
    assert values["stored=uniform"] == values["always=f"] != values["uniform"]
    assert [note.partition(":")[2] for note in found.results["notes"]] == [
        " ask for stored=uniform.",
        " ask for stored=always=a.",
    ]
    for name, message in (
        ("unifrom", "Did you mean 'uniform'"),
        ("tow", "Did you mean 'two'"),
        ("always=g", "no action 'g'"),
        ("f", "an action of log 'l', not a policy: say always=f"),
        ("stored=too", "no policy 'too'. Did you mean 'two'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            policy_named(name, survey)
    with pytest.raises(ConfigurationError, match="No policy was asked for"):
        evaluate_log(workspace, "l", [])


def test_what_is_asked_wrongly_is_refused_before_the_log_is_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    monkeypatch.setattr("counterplay.replay.evaluation.source.stream_chunks", None)
    for options, message in (
        ({"interval": "tt"}, "no interval 'tt'"),
        ({"level": 95}, "level is 95"),
        ({"reward_model": "rigde"}, "Did you mean 'ridge'"),
        ({"estimators": "ipss"}, "no estimator 'ipss'"),
        ({"log": "m"}, "no log 'm'"),
        ({"truth": "m"}, "no log 'm'"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_log(workspace, **{"log": "l", "policies": "uniform", **options})  # type: ignore[arg-type]
    with pytest.raises(MissingEvidenceError, match="DR needs a reward model, and none was asked for"):
        evaluate_log(workspace, "l", "uniform", "dr", reward_model="none")


def test_a_stored_policy_must_have_an_allowed_choice_in_every_decision(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=True, clustered=False), features=False)
    gaps = np.where(np.arange(N // 2) == 9, -1, 0)
    write_choices(workspace, "l", "gaps", gaps)
    with pytest.raises(MissingOutputError, match=r"no choice for 2 and a choice that is not allowed for \d+ of 1,500"):
        evaluate_log(workspace, "l", "gaps", "ips")


def test_intervals_that_resample_do_not_depend_on_chunks_and_bounds_are_passed_on(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    ends = set()
    for batch in (200, 100_000):
        statement = Statement(interval="percentile", seed=3)
        prepared = prepare(workspace, "l", "one", "snips", statement, reward_model=None, truth=None, progress=None)
        prepared = replace(prepared, source=replace(prepared.source, batch=batch))
        (estimate,) = statistic_of_log(prepared, statement.resampling).estimate(0.95, "percentile")
        ends.add((round(estimate.low or 0, 12), round(estimate.high or 0, 12)))
    assert len(ends) == 1
    (row,) = evaluate_log(workspace, "l", "one", "snips", interval="percentile", seed=3).estimates
    assert (round(row["low"], 12), round(row["high"], 12)) in ends
    bounds = Bounds(reward=(0, 1), weight=30)
    found = evaluate_log(workspace, "l", "uniform", "ips", interval="hoeffding", bounds=bounds)
    (plain,) = evaluate_log(workspace, "l", "uniform", "ips").estimates
    assert found.estimates[0]["high"] > plain["high"]
    assert found.results["definition"]["largest_weight"] == 30
    with pytest.raises(EvidenceError, match="outside the range"):
        evaluate_log(workspace, "l", "uniform", "ips", bounds=Bounds(reward=(0, 0.5)))


def test_a_log_too_short_for_a_reward_model_is_evaluated_without(workspace: Workspace) -> None:
    import_decisions(pl.DataFrame({"action": ["a"], "propensity": [0.5], "reward": [1]}), workspace, "one")
    found = evaluate_log(workspace, "one", "uniform")
    assert (
        "no row is left to fit its model on"
        in {one["estimator"]: one["reason"] for one in found.results["left_out"]}["dr"]
    )
    assert found.exit_code == 3
    assert found.unusable == ["uniform"]
    with pytest.raises(EvidenceError, match="no row is left"):
        evaluate_log(workspace, "one", "uniform", "dr")


def test_a_workspace_that_can_only_be_read_is_refused_at_once(tmp_path: Path) -> None:
    with open_workspace(tmp_path / "w.duckdb") as workspace:
        store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    with open_workspace(tmp_path / "w.duckdb", read_only=True) as closed:
        for ask in (evaluate_log, compare_log):
            with pytest.raises(WorkspaceError, match="can only be read"):
                ask(closed, "l", "uniform")
    assert evaluate_log(tmp_path / "w.duckdb", "l", "uniform", "ips").estimates


def test_a_log_without_decisions_is_refused(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    workspace.connection.execute("DELETE FROM decisions")
    with pytest.raises(MissingEvidenceError, match="log 'l' has no decisions"):
        evaluate_log(workspace, "l", "uniform")


def test_progress_counts_decisions(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    told: list[tuple[int, int, str]] = []
    evaluate_log(workspace, "l", "uniform", "dr", progress=lambda *state: told.append(state))
    assert [what for done, _, what in told if done == N] == ["reward model", "evidence"]
    assert {total for _, total, _ in told} == {N}


def test_candidates_that_were_not_read_are_not_taken_for_all_actions(workspace: Workspace) -> None:
    store(workspace, "l", decisions(shortlist=True, clustered=False), features=False)
    (chunk,) = stream_chunks(workspace, survey_log(workspace, "l"), candidates=False)
    with pytest.raises(InputError, match="read without their candidates"):
        UniformPolicy().probabilities(chunk, np.arange(N))


@pytest.mark.parametrize(
    ("policy", "target"),
    [("uniform", "1.0 / 6"), ("logging", "propensity"), ("always=c", "CAST(action = 2 AS DOUBLE)")],
)
def test_estimates_are_those_of_aggregates_written_by_hand(workspace: Workspace, policy: str, target: str) -> None:
    store(workspace, "l", decisions(shortlist=False, clustered=False), features=False)
    shrunk = {"ips": "w", "clipped_ips(1.5)": "least(w, 1.5)", "subgaussian_ips(0.1)": "w / (0.9 + 0.1 * w)"}
    for row in evaluate_log(workspace, "l", policy, tuple(shrunk), interval="normal").estimates:
        g = shrunk[row["estimator"]]
        by_hand = workspace.connection.execute(f"""
            SELECT avg(g * reward), stddev_samp(g * reward) / sqrt(count(*)), sum(g) ** 2 / sum(g * g), max(g),
                avg(CAST(g = 0 AS INT)), avg(abs(w - g))
            FROM (SELECT *, {g} AS g FROM (SELECT reward, {target} / propensity AS w FROM decisions))""").fetchone()
        names = "effective_sample_size", "largest_weight", "share_zero_weight", "moved_weight"
        found = [row["value"], row["std_error"], *(row["diagnostics"][name] for name in names)]
        assert found == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("campaign", ["all", "men", "women"])
def test_the_open_bandit_logs_give_the_golden_numbers(workspace: Workspace, campaign: str) -> None:
    path = DATA / "obd" / f"obd_{campaign}_bts.parquet"
    if not path.is_file():
        pytest.skip(f"the Open Bandit sample is not at {path}; set COUNTERPLAY_DATA")
    import_obd(path, workspace, "l")
    golden = json.loads((DATA / "obd" / "golden_obd.json").read_text())[f"bts/{campaign}"]["estimates"]
    found = evaluate_log(workspace, "l", "uniform", ("ips", "snips"), reward_model="none")
    values = {row["estimator"]: row["value"] for row in found.estimates}
    assert values["ips"] == pytest.approx(golden["ipw"], rel=1e-12)
    assert values["snips"] == pytest.approx(golden["snipw"], rel=1e-12)
