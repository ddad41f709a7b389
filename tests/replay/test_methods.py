"""Every method of replay from an experiment: the same numbers as from Python, whatever agents it names."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from counterplay.errors import (
    ConfigurationError,
    CounterplayError,
    HorizonError,
    MissingEvidenceError,
    MissingOutputError,
    UnsupportedError,
)
from counterplay.logs import DecisionArrays, open_workspace, write_choices, write_log
from counterplay.logs.reading import read_choices, read_log
from counterplay.replay import (
    best_of,
    replay_doubly_robust,
    replay_exact,
    replay_per_state,
    replay_queues,
    replay_rejection,
    run_experiment,
)
from counterplay.replay import doubly_robust_loops as loops
from counterplay.replay.agents import Bandit, BuiltIn, FixedPolicy, LinUCB, Uniform
from counterplay.replay.bootstrapped import bootstrap_replicate
from counterplay.replay.evidence import with_outcomes
from counterplay.replay.experiment import experiment_from
from counterplay.replay.grid import AGENTS
from counterplay.replay.history import Replay
from counterplay.replay.methods import Estimator, Method
from counterplay.replay.pilots import pilot_constant
from counterplay.replay.players import player_of
from counterplay.replay.policies import allowed
from counterplay.replay.portions import Portion, first_clusters
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import SELECTORS
from counterplay.replay.subsampling import std_error_subsampled, subsample
from counterplay.reports import render_html, render_markdown
from counterplay.reports.results import REPLAYS
from tests.replay.worlds import world

LOGS = {
    "exact": "full",
    "rejection": "uneven",
    "doubly-robust": "uneven",
    "bootstrapped": "uniform",
    "queues": "again",
    "per-state": "again",
}
"""Each method, and a log that has what it needs."""
SEEDS, BATCH, ROUNDS = 2, 8, 12

MATRIX = """
[[agents]]
kind = "uniform"
[[agents]]
kind = "constant"
action = "a1"
[[agents]]
kind = "policy"
policy = "llm"
[[agents]]
kind = "bandit"
exploration = "epsilon-greedy"
dimensions = 3
[[agents]]
kind = "linucb"
dimensions = 3
[[agents]]
kind = "lints"
dimensions = 3
[[agents]]
kind = "hybrid"
name = "fixed"
selector = {kind = "fixed", share = 0.3}
bandit = {kind = "linucb", dimensions = 3}
[[agents]]
kind = "hybrid"
name = "polynomial"
selector = {kind = "polynomial", scale = 3}
budget = 4
[[agents]]
kind = "hybrid"
name = "exponential"
selector = {kind = "exponential", scale = 2, rate = 0.2}
[[agents]]
kind = "hybrid"
name = "linear-decay"
selector = {kind = "linear-decay"}
[[agents]]
kind = "hybrid"
name = "log-barrier"
selector = {kind = "log-barrier", clip = 0.2}
[[agents]]
kind = "hybrid"
name = "exp3"
selector = {kind = "exp3", rate = 0.1}
[[agents]]
kind = "hybrid"
name = "tsallis"
selector = {kind = "tsallis"}
[[agents]]
kind = "hybrid"
name = "unsure"
selector = {kind = "unsure", threshold = 0.7, most = 0.9, least = 0.1}
[[agents]]
kind = "hybrid"
name = "priced"
selector = {kind = "priced", price = 0.1}
[[agents]]
kind = "hybrid"
name = "guarded"
selector = {kind = "guarded", allowance = 0.4}
"""
FEW: list[dict[str, Any]] = [
    {"kind": "uniform"},
    {"kind": "linucb", "dimensions": 3},
    {"kind": "hybrid", "name": "hybrid", "selector": {"kind": "fixed", "share": 0.3}, "bandit": {"dimensions": 3}},
]


def settings(method: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": method,
        "log": LOGS[method],
        "method": method,
        "seeds": SEEDS,
        "batch": BATCH,
        "agents": FEW,
    } | changes


def again(prepared: PreparedLog, times: int) -> DecisionArrays:
    """Decisions in which each context comes so many times, and every action is taken in it equally often, in turn."""
    log = prepared.log
    actions, contexts = len(log.action_labels), len(log.context_ids)
    context = np.tile(np.arange(contexts), times)
    action = (context + np.repeat(np.arange(times), contexts)) % actions
    assert log.outcomes is not None
    return DecisionArrays(
        context=context.astype(np.int32),
        action=action.astype(np.int32),
        propensity=np.full(len(context), 1 / actions),
        reward=log.outcomes.reward(context, action),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full information, an uneven log of the same contexts, a uniform one, and one whose contexts repeat."""
    place = tmp_path_factory.mktemp("desk") / "desk.duckdb"
    uneven, uniform = world(decisions=300, actions=5, uneven=True), world(decisions=300, actions=5)
    few = world(decisions=8, actions=4, seed=1)
    with open_workspace(place) as workspace:
        for name, prepared in (("full", uneven), ("uneven", uneven), ("uniform", uniform), ("again", few)):
            log = prepared.log
            decisions = DecisionArrays(
                context=log.context, action=log.action, propensity=log.propensity, reward=log.reward
            )
            write_log(
                workspace,
                log=name,
                regime="full" if name == "full" else "propensity",
                context_ids=log.context_ids,
                action_labels=log.action_labels,
                context_features=log.context_features,
                action_features=log.action_features,
                outcomes=log.outcomes if name == "full" else None,
                decisions=again(few, 100) if name == "again" else None if name == "full" else decisions,
            )
            write_choices(workspace, name, "llm", prepared._choices["llm"].actions)
    return place


@pytest.fixture
def desk(built: Path, tmp_path: Path) -> Path:
    shutil.copy(built, tmp_path / "desk.duckdb")
    return tmp_path / "desk.duckdb"


def prepared_log(place: Path, name: str) -> PreparedLog:
    with open_workspace(place, read_only=True) as workspace:
        return PreparedLog(read_log(workspace, name), {"llm": read_choices(workspace, name, "llm")})


# The matrix ---------------------------------------------------------------------------------------------------------


def test_the_matrix_names_every_method_every_kind_of_agent_and_every_selector() -> None:
    tables = tomllib.loads(MATRIX)["agents"]
    assert {table["kind"] for table in tables} == set(AGENTS)
    assert {table["selector"]["kind"] for table in tables if "selector" in table} == set(SELECTORS)
    assert {*LOGS, "none"} == set(get_args(Method))
    assert get_args(Estimator) == get_args(loops.Estimator)


def directly(method: str, prepared: PreparedLog, agent: BuiltIn, seed: int) -> Replay:
    """The same replay from Python."""
    if method == "exact":
        return replay_exact(prepared, agent, seed=seed, batch=BATCH)
    if method == "rejection":
        return replay_rejection(prepared, agent, seed=seed, batch=BATCH)
    if method == "doubly-robust":
        return replay_doubly_robust(prepared, agent, seed=seed, batch=BATCH).history
    assert method == "bootstrapped"
    return bootstrap_replicate(prepared, agent, seed, batch=BATCH)


@pytest.mark.parametrize("method", LOGS)
def test_every_agent_under_every_method_has_the_numbers_of_the_python_functions(desk: Path, method: str) -> None:
    horizon = {"horizon": ROUNDS} if LOGS[method] == "again" else {}
    experiment = experiment_from(settings(method, agents=tomllib.loads(MATRIX)["agents"], **horizon))
    rows = run_experiment(experiment, workspace=desk)["agents"]
    assert len(rows) == len(experiment.agents) == 16
    prepared = prepared_log(desk, LOGS[method])
    if LOGS[method] == "again":
        replayed = replay_queues if method == "queues" else replay_per_state
        for agent, row in zip(experiment.agents, rows, strict=True):
            found = replayed(prepared, agent, runs=SEEDS, horizon=ROUNDS, batch=BATCH)
            assert row["average_reward"] == pytest.approx(found.value, abs=1e-12)
            assert row["std_error_seeds"] == pytest.approx(found.std_error, abs=1e-12)
            assert row["survival"]["unsupported"] == pytest.approx(found.unsupported, abs=1e-12)
        return
    replays = [[directly(method, prepared, agent, seed) for seed in range(SEEDS)] for agent in experiment.agents]
    common = min(len(one.reward) for own in replays for one in own)
    for agent, row, own in zip(experiment.agents, rows, replays, strict=True):
        assert row["rounds"] == common
        assert row["model_calls"] == np.mean([one.call[:common].sum() for one in own])
        values = [one.reward[:common].mean() for one in own]
        assert row["curves"]["average_reward"][-1] == [common, pytest.approx(np.mean(values), abs=1e-12)]
        if method == "doubly-robust":
            found_all = [replay_doubly_robust(prepared, agent, seed=seed, batch=BATCH) for seed in range(SEEDS)]
            values = [one.value for one in found_all]
            assert row["std_error_log"] == pytest.approx(np.mean([one.std_error for one in found_all]))
            report = row["acceptance"]
            assert report["effective_sample_size"] == pytest.approx(np.mean([one.effective for one in found_all]))
            assert report["mean_weight"] == pytest.approx(np.mean([one.mean_weight for one in found_all]))
            assert report["least"] == pytest.approx(np.mean([one.acceptance.least for one in found_all]))
        assert row["per_seed"] == pytest.approx(values, abs=1e-12)
        assert row["average_reward"] == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize("method", LOGS)
def test_the_bytes_do_not_depend_on_workers_nor_on_being_stopped(desk: Path, method: str) -> None:
    more: dict[str, Any] = {"uncertainty": {"subsamples": 10}} if method in ("exact", "doubly-robust") else {}
    if method == "rejection":
        more = {"rejection": {"pilot": 0.3}, "uncertainty": {"subsamples": 10}}
    if method == "exact":
        more["alone"] = True
    experiment = settings(method, **more)

    def press(done: int, _total: int, _what: str) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    texts = {json.dumps(run_experiment(experiment, workspace=desk, workers=n), allow_nan=False) for n in (1, 2)}
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, workspace=desk, workers=2, progress=press)
    texts.add(json.dumps(run_experiment(experiment, workspace=desk, workers=1), allow_nan=False))
    assert len(texts) == 1


def test_progress_counts_pilots_and_sub_samples_too(desk: Path) -> None:
    seen: list[tuple[int, int]] = []
    wanted = settings("rejection", rejection={"pilot": 0.3}, uncertainty={"subsamples": 10})
    run_experiment(wanted, workspace=desk, progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (3 * (2 * SEEDS + 20),) * 2


@pytest.mark.parametrize("method", ["rejection", "doubly-robust", "bootstrapped", "queues", "per-state"])
def test_the_agents_on_line_stand_beside_every_estimate(desk: Path, method: str) -> None:
    prepared = prepared_log(desk, LOGS[method])
    with open_workspace(desk) as workspace:
        source = world(decisions=8, actions=4, seed=1) if LOGS[method] == "again" else world(decisions=300, actions=5)
        log = source.log if method != "rejection" and method != "doubly-robust" else world(
            decisions=300, actions=5, uneven=True
        ).log  # fmt: skip
        write_log(
            workspace,
            log="known",
            regime="full",
            context_ids=log.context_ids,
            action_labels=log.action_labels,
            context_features=log.context_features,
            action_features=log.action_features,
            outcomes=log.outcomes,
        )
        known = read_log(workspace, "known")
    results = run_experiment(settings(method, truth="known", truth_seeds=3, seeds=4), workspace=desk)
    truth = PreparedLog(with_outcomes(prepared.log, known), prepared._choices)
    for agent, row in zip(experiment_from(settings(method)).agents, results["agents"], strict=True):
        rounds = min(row["rounds"], 300) if method != "doubly-robust" else round(row["acceptance"]["accepted"])
        online = [replay_exact(truth, agent, seed=1_000_000 + i, horizon=rounds, batch=BATCH) for i in range(3)]
        assert row["truth"]["value"] == pytest.approx(np.mean([one.reward.mean() for one in online]))


# What belongs to one method -----------------------------------------------------------------------------------------


def test_a_seed_of_a_bootstrapped_experiment_is_a_replicate_and_its_quantiles_stand_beside_the_interval(
    desk: Path,
) -> None:
    row = run_experiment(settings("bootstrapped", seeds=12), workspace=desk)["agents"][0]
    low, high = np.quantile(row["per_seed"], [0.025, 0.975])
    spread = np.std(row["per_seed"], ddof=1)
    assert row["replicates"] == pytest.approx({"low": low, "high": high, "std_error": spread})
    assert row["std_error_seeds"] == pytest.approx(spread / 12**0.5)
    replay = bootstrap_replicate(prepared_log(desk, "uniform"), Uniform(), 3)
    log = prepared_log(desk, "uniform").log
    assert (replay.reward == log.reward[replay.decision]).all()
    assert (replay.action == log.action[replay.decision]).all()


def test_of_a_policy_that_does_not_learn_the_error_over_the_log_is_that_of_the_decisions_it_agrees_with(
    desk: Path,
) -> None:
    # The replicates' own spread is that of as many draws as the log has decisions, and too small by sqrt(K).
    agents = [{"kind": "policy", "policy": "llm"}]
    row = run_experiment(settings("bootstrapped", seeds=60, agents=agents), workspace=desk)["agents"][0]
    log, policy = prepared_log(desk, "uniform"), FixedPolicy(policy="llm")
    agreed = replay_rejection(log, policy).reward
    assert row["std_error_log"] == pytest.approx(agreed.std() / len(agreed) ** 0.5, rel=0.1)
    assert row["replicates"]["std_error"] == pytest.approx(agreed.std() / 300**0.5, rel=0.25)


def test_alone_is_what_the_bandits_own_choices_would_have_earned(desk: Path) -> None:
    results = run_experiment(settings("exact", alone=True), workspace=desk)
    prepared = prepared_log(desk, "full")
    uniform, bandit, hybrid = results["agents"]
    assert uniform["alone"] is None
    assert "alone" not in uniform["curves"]
    agents = experiment_from(settings("exact")).agents
    for agent, row in zip(agents[1:], (bandit, hybrid), strict=True):
        own = [replay_exact(prepared, agent, seed=seed, batch=BATCH, alone=True).alone for seed in range(SEEDS)]
        means = [one.mean() for one in own if one is not None]
        assert row["alone"]["average_reward"] == pytest.approx(np.mean(means))
        assert row["alone"]["std_error_seeds"] == pytest.approx(np.std(means, ddof=1) / SEEDS**0.5)
        assert row["curves"]["alone"][-1] == [300, pytest.approx(np.mean(means))]
    assert bandit["alone"]["average_reward"] == bandit["average_reward"]
    assert run_experiment(settings("exact"), workspace=desk)["agents"][2]["alone"] is None


def test_survival_says_how_long_runs_from_queues_were_before_they_were_cut(desk: Path) -> None:
    rows = run_experiment(settings("queues", seeds=6), workspace=desk)["agents"]
    shortest = min(row["survival"]["shortest"] for row in rows)
    assert {row["rounds"] for row in rows} == {shortest}
    prepared = prepared_log(desk, "again")
    for agent, row in zip(experiment_from(settings("queues")).agents, rows, strict=True):
        lengths = replay_queues(prepared, agent, runs=6, batch=BATCH).lengths
        found = [row["survival"][name] for name in ("shortest", "mean", "longest")]
        assert found == [lengths.min(), lengths.mean(), lengths.max()]


@pytest.mark.parametrize("method", LOGS)
def test_the_best_is_found_under_every_method_whose_rounds_add_up_to_its_values(desk: Path, method: str) -> None:
    results = run_experiment(settings(method), workspace=desk)
    if method == "doubly-robust":
        with pytest.raises(UnsupportedError, match=r"doubly robust .* Run the agents with method = \"rejection\""):
            best_of(results)
        return
    found = best_of(results)
    assert found.average_reward == pytest.approx(max(row["average_reward"] for row in results["agents"]))
    text = " ".join(found.sentences)
    assert ("agents that remember" in text) == (method == "bootstrapped")
    assert ("every run of every agent survived" in text) == (LOGS[method] == "again")


# Pilots -------------------------------------------------------------------------------------------------------------


def textbook_constant(prepared: PreparedLog, agent: BuiltIn, rows: np.ndarray[Any, Any], seed: int) -> float:
    """The smallest mu/pi along a replay with the smallest ratio so far as c, one decision at a time."""
    log = prepared.log
    order = [row for row in prepared.order(seed, True) if row in set(rows.tolist())]
    player, luck = player_of(prepared, agent, seed, np.array(order), BATCH), prepared.luck(seed)
    constant, smallest = 1.0, np.inf
    for row in order:
        law = player.law(row, luck.explore[row])
        pi = float(law[allowed(log, np.array([row]))[0] == log.action[row]].sum())
        smallest = min(smallest, log.propensity[row] / pi if pi > 0 else np.inf)
        if luck.accept[row] < constant * pi / log.propensity[row]:
            player.learn(row, int(log.action[row]), float(log.reward[row]), luck.base[row])
            constant = min(1.0, smallest)
    return min(1.0, smallest)


@pytest.mark.parametrize(
    "agent",
    [Uniform(), FixedPolicy(policy="llm"), Bandit(dimensions=3, exploration="igw", exploration_rate=5.0), LinUCB()],
    ids=["uniform", "policy", "igw", "linucb"],
)
def test_the_constant_of_a_pilot_is_the_smallest_ratio_met_in_it(desk: Path, agent: BuiltIn) -> None:
    prepared, rows = prepared_log(desk, "uneven"), np.arange(20, 180)
    found = pilot_constant(prepared, agent, rows, seed=3, batch=BATCH)
    assert found == pytest.approx(textbook_constant(prepared, agent, rows, 3), rel=1e-6)
    if isinstance(agent, Uniform):
        assert found == pytest.approx(min(1.0, 5 * prepared.log.propensity[rows].min()))


def test_the_pilot_runs_on_other_decisions_than_the_replays_with_one_constant_for_all_agents(desk: Path) -> None:
    wanted = settings("rejection", rejection={"pilot": 0.3})
    results = run_experiment(wanted, workspace=desk)
    prepared, agents = prepared_log(desk, "uneven"), experiment_from(wanted).agents
    pilot = first_clusters(prepared.log.cluster, 0.3, "uneven", 2**60)
    assert len(pilot) == 90
    rest = Portion(prepared, np.setdiff1d(np.arange(300), pilot))
    constant = min(
        pilot_constant(prepared, agent, pilot, seed=seed, batch=BATCH) for agent in agents for seed in range(SEEDS)
    )
    assert constant > prepared.log.propensity.min()
    own = [
        [replay_rejection(rest, agent, seed=s, constant=constant, batch=BATCH) for s in range(SEEDS)]
        for agent in agents
    ]
    common = min(len(one.reward) for pair in own for one in pair)
    for row, pair in zip(results["agents"], own, strict=True):
        assert row["acceptance"]["constant"] == constant
        assert row["acceptance"]["read"] == 210
        assert row["per_seed"] == [one.reward[:common].mean() for one in pair]
        assert not {int(i) for one in pair for i in one.decision} & set(pilot.tolist())


def test_the_pilot_of_a_log_kept_in_order_is_its_beginning(desk: Path) -> None:
    wanted = settings("rejection", rejection={"pilot": 0.3}, order="logged", agents=[{"kind": "uniform"}])
    row = run_experiment(wanted, workspace=desk)["agents"][0]
    prepared = prepared_log(desk, "uneven")
    constant = min(
        pilot_constant(prepared, Uniform(), np.arange(90), seed=s, order="logged", batch=BATCH) for s in range(SEEDS)
    )
    assert row["acceptance"]["constant"] == constant


def test_near_what_logged_a_pilot_gives_many_times_the_rounds_and_cuts_nothing() -> None:
    known = world(decisions=2000, actions=10, seed=3)
    log, llm, rng = known.log, known._choices["llm"].actions[:, 0], np.random.default_rng(0)
    mu = np.full((2000, 10), 0.03)
    mu[np.arange(2000), llm] = 0.73
    action = (mu.cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1)
    assert log.outcomes is not None
    prepared = PreparedLog(
        replace(
            log,
            action=action.astype(np.int32),
            propensity=mu[np.arange(2000), action],
            reward=log.outcomes.reward(log.context, action),
            fingerprint="",
        ),
        known._choices,
    )
    model = FixedPolicy(policy="llm")
    constant = pilot_constant(prepared, model, np.arange(400))
    assert constant == pytest.approx(0.73)
    found = replay_rejection(Portion(prepared, np.arange(400, 2000)), model, constant=constant)
    assert found.acceptance is not None
    assert found.acceptance.violations == 0
    assert found.acceptance.accepted > 15 * len(replay_rejection(prepared, model).reward)


def test_a_pilot_that_says_nothing_is_refused(desk: Path) -> None:
    prepared = prepared_log(desk, "uneven")
    never = FixedPolicy(policy="never")
    stored = replace(prepared._choices["llm"], actions=((prepared.log.action + 1) % 5)[:, None].astype(np.int32))
    with pytest.raises(UnsupportedError, match=r"in none of the 50 decisions .* larger pilot"):
        pilot_constant(PreparedLog(prepared.log, {"never": stored}), never, np.arange(50))
    with pytest.raises(UnsupportedError, match="none of the 0 decisions"):
        pilot_constant(prepared, Uniform(), np.arange(0))
    lost = replace(prepared.log, propensity=np.full(300, np.nan), fingerprint="")
    with pytest.raises(MissingEvidenceError, match="lacks them in 50 of 50"):
        pilot_constant(PreparedLog(lost), Uniform(), np.arange(50))


def test_a_portion_is_met_in_the_order_of_the_whole_and_clusters_are_never_divided() -> None:
    prepared = world(decisions=60)
    rows = np.array([50, 3, 17, 4])
    portion = Portion(prepared, rows)
    whole = prepared.order(5, True)
    assert portion.order(5, True).tolist() == [row for row in whole.tolist() if row in rows]
    assert portion.order(5, False).tolist() == [3, 4, 17, 50]
    cluster = np.repeat([7, 3, 9, 1], [1, 5, 2, 4])
    for seed, share in itertools.product([None, 1, 2], [0.1, 0.5, 0.9]):
        chosen = np.zeros(12, bool)
        chosen[first_clusters(cluster, share, "log", seed)] = True
        assert all(len(set(chosen[cluster == code])) == 1 for code in (7, 3, 9, 1))
        assert 0 < chosen.sum() < 12
    assert first_clusters(cluster, 0.5, "log", None).tolist() == list(range(6))
    with pytest.raises(UnsupportedError, match="log 'one' has 1 cluster"):
        first_clusters(np.zeros(5, np.int64), 0.5, "one", 1)


# Uncertainty over the log, by sub-samples ---------------------------------------------------------------------------


def test_over_every_sub_sample_the_variance_of_a_mean_is_that_of_the_mean_of_the_log() -> None:
    rewards = np.random.default_rng(0).random(7)
    for drawn in range(1, 7):
        means = [np.mean(some) for some in itertools.combinations(rewards, drawn)]
        if len(means) > 1:
            found = std_error_subsampled(np.column_stack([means, means]), 7, drawn / 7)
            every = (len(means) - 1) / len(means)  # all sub-samples, not a sample of them
            assert found**2 * every == pytest.approx(rewards.var(ddof=1) / 7)


def test_the_luck_of_seeds_is_taken_out() -> None:
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 0.5, (20_000, 2))
    assert std_error_subsampled(rng.normal(0, 0.1, (20_000, 1)) + luck, 100, 0.5) == pytest.approx(0.1, rel=0.15)
    assert std_error_subsampled(np.array([[0.0, 1.0], [1.0, 0.0]]), 100, 0.5) == 0.0


@pytest.mark.parametrize(("size", "share"), [(1, 0.5), (1, 0.2), (6, 0.5)])
def test_of_independent_rewards_of_a_constant_policy_it_is_the_standard_error_of_the_mean(
    size: int, share: float
) -> None:
    # Decisions of one cluster are alike, so their number says nothing: the truth is the spread of cluster means.
    rng = np.random.default_rng(size)
    right = np.repeat(rng.random(300) < 0.3, size)
    cluster = np.repeat(np.arange(300), size)
    values = np.zeros((400, 2))
    for number in range(400):
        rows = subsample(cluster, share, "log", number)
        assert len(rows) == round(300 * share) * size
        values[number] = right[rows].mean()
    truth = right[::size].std(ddof=1) / 300**0.5
    # 400 sub-samples give the standard error to 1 / sqrt(800), 3.5 %.
    assert std_error_subsampled(values, 300, share) == pytest.approx(truth, rel=0.12)


@pytest.mark.parametrize("method", ["exact", "rejection", "doubly-robust"])
def test_sub_samples_agree_with_the_error_that_the_rewards_give_where_nothing_is_learned(
    desk: Path, method: str
) -> None:
    agents = [{"kind": "policy", "policy": "llm"}, {"kind": "constant", "action": "a2"}]
    log = "full" if method == "exact" else "uniform"
    # A reward model would be fitted on half as many decisions in a sub-sample, and so be another one.
    more = {"doubly_robust": {"estimator": "ips"}} if method == "doubly-robust" else {}
    wanted = settings(method, log=log, agents=agents, seeds=6, uncertainty={"subsamples": 50}, **more)
    for row in run_experiment(wanted, workspace=desk)["agents"]:
        assert row["std_error_log_subsampled"] == pytest.approx(row["std_error_log"], rel=0.3)
    assert run_experiment(settings(method), workspace=desk)["agents"][0]["std_error_log_subsampled"] is None


def test_where_a_sub_sample_has_no_rounds_there_is_no_number_and_the_others_stand(desk: Path) -> None:
    wanted = settings("rejection", log="uniform", rejection={"constant": 0.01}, uncertainty={"subsamples": 10})
    for row in run_experiment(wanted, workspace=desk)["agents"]:
        assert row["rounds"] >= 1
        assert row["std_error_log_subsampled"] is None


# Refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("rejection", {"method": "doubly_robust"}, "Did you mean 'doubly-robust'"),
        ("queues", {"method": "queue"}, "Did you mean 'queues'"),
        ("doubly-robust", {"doubly_robust": {"estimatr": "dr"}}, "no key 'doubly_robust.estimatr'.*'estimator'"),
        ("doubly-robust", {"doubly_robust": {"estimator": "sips"}}, "Did you mean '(ips|snips)'"),
        ("doubly-robust", {"doubly_robust": {"quantile": 1.0}}, r"quantile is 1\.0"),
        ("doubly-robust", {"doubly_robust": {"constant": 0.0}}, r"\[doubly_robust\] constant is 0\.0"),
        ("bootstrapped", {"bootstrapped": {"jiter": 0.1}}, "Did you mean 'jitter'"),
        ("bootstrapped", {"bootstrapped": {"jitter": -0.1}}, r"jitter is -0\.1"),
        ("rejection", {"rejection": {"constant": 1.5}}, r"\[rejection\] constant is 1\.5"),
        ("rejection", {"rejection": {"pilot": 1.0}}, r"pilot is 1\.0; it is a share"),
        ("rejection", {"rejection": {"pilot": 0.2, "constant": 0.1}}, "both constant and pilot"),
        ("exact", {"uncertainty": {"subsample": 10}}, "Did you mean 'subsamples'"),
        ("exact", {"uncertainty": {"subsamples": 3}}, "at least 10"),
        ("exact", {"uncertainty": {"share": 1.0}}, r"share is 1\.0"),
        ("exact", {"rejection": {}}, r"\[rejection\] belongs to method = \"rejection\"; here method is \"exact\""),
        ("queues", {"bootstrapped": {}}, r"\[bootstrapped\] belongs"),
        ("rejection", {"doubly_robust": {}}, r"\[doubly_robust\] belongs"),
        ("queues", {"uncertainty": {}}, r"\[uncertainty\] belongs to method = \"exact\" or \"rejection\" or"),
        ("rejection", {"rejection": 0.1}, r"rejection is 0\.1, .*write \[rejection\]"),
        ("rejection", {"alone": True}, r"alone asks .* method is \"rejection\""),
        ("per-state", {"order": "logged"}, "draws decisions"),
        ("doubly-robust", {"horizon": 5, "uncertainty": {"subsamples": 10}}, "leave one out"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_the_nearest_right_ones(
    method: str, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        experiment_from(settings(method) | change)


def test_the_table_of_rejection_belongs_to_frozen_agents_too() -> None:
    wanted = settings("exact", rejection={"constant": 0.1}, estimate={"frozen": ["linucb"]})
    assert experiment_from(wanted).definition()["rejection"] == {"constant": 0.1, "pilot": None}
    definition = experiment_from(settings("doubly-robust")).definition()
    assert definition["doubly_robust"] == {"estimator": "dr", "quantile": 0.0, "constant": None}
    assert definition["rejection"] is None
    assert definition["uncertainty"] == {"subsamples": 0, "share": 0.5}


@pytest.mark.parametrize("method", ["rejection", "doubly-robust"])
@pytest.mark.parametrize("horizon", [None, 40])
def test_too_small_a_constant_says_how_many_decisions_would_be_needed(
    desk: Path, method: str, horizon: int | None
) -> None:
    table = method.replace("-", "_")
    wanted = settings(method, horizon=horizon, agents=FEW[:1], **{table: {"constant": 1e-5}})
    with pytest.raises(HorizonError) as caught:
        run_experiment(wanted, workspace=desk)
    # Uniform on any log: pi/mu has mean 1, so a decision is accepted once in 1 / c of them.
    needed = int(str(caught.value).split(" decisions are needed")[0].split()[-1].replace(",", ""))
    assert needed == pytest.approx((horizon or 1) * 1e5, rel=0.35)
    assert "'uniform' was accepted 0 times" in str(caught.value)


def test_an_agent_that_never_does_what_was_logged_is_told_that_no_log_is_long_enough(desk: Path) -> None:
    prepared = prepared_log(desk, "uneven")
    with open_workspace(desk) as workspace:
        write_choices(workspace, "uneven", "never", ((prepared.log.action + 1) % 5)[:, None].astype(np.int32))
    agents = [{"kind": "policy", "policy": "never"}]
    with pytest.raises(HorizonError, match=r"'never' was accepted 0 times in 300 decisions.*no log of this kind"):
        run_experiment(settings("rejection", agents=agents), workspace=desk)


def test_an_agent_whose_queues_run_out_is_named_with_what_the_log_lacks(desk: Path) -> None:
    with pytest.raises(HorizonError, match=r"'uniform' came to an empty queue of log 'again' after [\d,]+ of 700 "):
        run_experiment(settings("queues", horizon=700), workspace=desk)
    with pytest.raises(HorizonError, match="log 'again' has 800 decisions, and each of their rewards is used once"):
        run_experiment(settings("queues", horizon=801), workspace=desk)
    lacking = {"kind": "constant", "action": "a3"}
    few = world(decisions=8, actions=4, seed=1)
    decisions = replace(again(few, 100), action=np.zeros(800, np.int32))
    log = few.log
    with open_workspace(desk) as workspace:
        write_log(
            workspace, log="one", regime="propensity", context_ids=log.context_ids, action_labels=log.action_labels,
            context_features=log.context_features, action_features=log.action_features, decisions=decisions,
        )  # fmt: skip
    with pytest.raises(HorizonError, match=r"before its first round .* 100\.0% of its probability to actions never"):
        run_experiment(settings("queues", log="one", agents=[lacking]), workspace=desk)


@pytest.mark.parametrize(
    ("method", "log", "message"),
    [
        ("exact", "uneven", "log 'uneven' is of the regime 'propensity'"),
        ("rejection", "full", "lacks them in 300 of 300"),
        ("doubly-robust", "full", "lacks them in 300 of 300"),
        ("bootstrapped", "full", "lacks them in 300 of 300"),
        ("bootstrapped", "uneven", "needs a uniform log.*Take doubly robust replay"),
        ("queues", "full", "lacks them in 300 of 300"),
        ("queues", "uniform", "contexts that repeat; in log 'uniform' 0 of 300"),
        ("per-state", "full", "log 'full' lacks it in 300 of 300"),
    ],
)
def test_a_log_without_what_a_method_needs_is_refused_by_name(desk: Path, method: str, log: str, message: str) -> None:
    with pytest.raises(CounterplayError, match=message):
        run_experiment(settings(method, log=log), workspace=desk)
    assert not Path(f"{desk}.sweep").exists()


@pytest.mark.parametrize("method", LOGS)
def test_missing_outputs_stop_every_method_and_say_how_to_fill_them(desk: Path, method: str) -> None:
    name = LOGS[method]
    actions = prepared_log(desk, name)._choices["llm"].actions.copy()
    actions[:2] = -1
    with open_workspace(desk) as workspace:
        write_choices(workspace, name, "gaps", actions)
    hybrid = {
        "kind": "hybrid",
        "models": ["gaps"],
        "selector": {"kind": "fixed", "share": 0.3},
        "bandit": {"dimensions": 3},
    }
    with pytest.raises(MissingOutputError, match=r"'gaps' has no choice for [\d,]+ .*`counterplay generate`"):
        run_experiment(settings(method, agents=[hybrid]), workspace=desk)
    filled = [{**hybrid, "missing": "uniform"}]
    assert run_experiment(settings(method, agents=filled), workspace=desk)["agents"][0]["rounds"] > 0


# What people read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LOGS)
def test_a_report_names_the_method_that_ran_and_no_other(desk: Path, method: str) -> None:
    more: dict[str, Any] = {"exact": {"alone": True}, "rejection": {"rejection": {"pilot": 0.3}}}.get(method, {})
    result = run_experiment(settings(method, **more), workspace=desk)
    text = render_markdown([result])
    assert REPLAYS[method].capitalize() in text
    assert not [name for name in REPLAYS.values() if name != REPLAYS[method] and name in text.lower()]
    shown = {
        "alone": "bandit's choices",
        "pilot": "found on 30",
        "acceptance": "| accepted |",
        "replicates": "| replicates |",
        "survival": "| shortest run |",
        "effective": "| effective n |",
    }
    wanted = {
        "exact": {"alone"},
        "rejection": {"pilot", "acceptance"},
        "doubly-robust": {"acceptance", "effective"},
        "bootstrapped": {"acceptance", "replicates"},
    }
    assert {what for what, words in shown.items() if words in text} == wanted.get(method, {"survival"})
    page = render_html([result])
    assert ("choices would have earned so far" in page) == (method == "exact")
    assert ("Of the accepted rounds alone" in page) == (method == "doubly-robust")


def test_the_experiments_of_the_documentation_are_experiments_one_for_each_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "replay-methods.md").read_text(encoding="utf-8")
    found = [
        experiment_from(tomllib.loads(block)).method for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    ]
    assert [*found, "per-state"] == list(LOGS)
