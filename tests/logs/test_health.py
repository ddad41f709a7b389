"""A check says whether a log is any good, names what is wrong with it, and computes what numpy computes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from counterplay.errors import InputError
from counterplay.logs import (
    DecisionArrays,
    Outcomes,
    Workspace,
    import_decisions,
    open_workspace,
    write_choices,
    write_log,
)
from counterplay.logs.health import Health, check_log, repeats, weights

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
N, K = 12_000, 8


class World:
    """A softmax policy that depends on five features; better actions have larger numbers."""

    def __init__(self, seed: int = 0, holes: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.features = rng.normal(size=(N, 5)).astype(np.float32)
        scores = self.features @ rng.normal(size=(5, K))
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        self.chances = 0.9 * odds / odds.sum(axis=1, keepdims=True) + 0.1 / K
        if holes:
            self.chances[np.ix_(self.features[:, 0] > 0, [0, 1])] = 0
            self.chances /= self.chances.sum(axis=1, keepdims=True)
        self.action = (self.chances.cumsum(axis=1) < rng.random((N, 1))).sum(axis=1).clip(max=K - 1)
        self.mu = self.chances[np.arange(N), self.action]
        self.reward = (rng.random(N) < np.linspace(0.1, 0.6, K)[self.action]).astype(np.float64)
        self.rng = rng


def write(workspace: Workspace, **more: Any) -> None:
    """Write the log 'l' with one context a decision."""
    n = len(more["action"])
    features = more.pop("features", None)
    arrays = {name: np.asarray(value, np.float64) for name, value in more.items() if name in ("propensity", "reward")}
    decisions = DecisionArrays(
        context=np.arange(n, dtype=np.int32),
        action=np.asarray(more["action"], np.int32),
        candidates=more.get("candidates"),
        cluster=more.get("cluster"),
        **arrays,
    )
    write_log(
        workspace,
        log="l",
        regime=more.get("regime", "propensity"),
        context_ids=[str(i) for i in range(n)],
        context_features=features,
        action_labels=[f"action {i}" for i in range(more.get("actions", K))],
        decisions=decisions,
    )


def write_world(workspace: Workspace, world: World, propensity: Any, keep: Any = slice(None)) -> None:
    write(
        workspace,
        features=world.features[keep],
        action=world.action[keep],
        propensity=np.asarray(propensity)[keep],
        reward=world.reward[keep],
    )


def codes(health: Health, level: str) -> set[str]:
    return {finding.code for finding in health.findings if finding.level == level}


@pytest.mark.parametrize("seed", range(4))
def test_a_log_with_right_propensities_is_fit(workspace: Workspace, seed: int) -> None:
    world = World(seed)
    write_world(workspace, world, world.mu)
    health = check_log(workspace, "l")
    assert health.exit_code == 0, health.headline
    assert codes(health, "unreliable") == codes(health, "caution") == set()
    assert any("uniform choice" in sentence for sentence in health.can)


@pytest.mark.parametrize("seed", range(4))
def test_right_propensities_without_a_floor_are_not_called_wrong(workspace: Workspace, seed: int) -> None:
    world = World(seed)
    world.chances = (world.chances - 0.1 / K).clip(min=1e-12) ** 1.5
    world.chances /= world.chances.sum(axis=1, keepdims=True)
    world.action = (world.chances.cumsum(axis=1) < world.rng.random((N, 1))).sum(axis=1).clip(max=K - 1)
    write_world(workspace, world, world.chances[np.arange(N), world.action])
    health = check_log(workspace, "l")
    assert {finding.scope for finding in health.findings if finding.level == "unreliable"} <= {"uniform"}
    assert health.actions.off == 0
    assert health.exit_code == 1


def test_the_weights_are_those_of_numpy(workspace: Workspace) -> None:
    world = World()
    write_world(workspace, world, world.mu)
    support = check_log(workspace, "l").uniform
    assert support is not None
    w = 1 / (K * world.mu)
    assert support.mean == pytest.approx(w.mean())
    assert support.std_error == pytest.approx(w.std(ddof=1) / math.sqrt(N))
    assert support.z == pytest.approx((w.mean() - 1) / (w.std(ddof=1) / math.sqrt(N)))
    assert support.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert support.largest == pytest.approx(w.max())
    assert support.largest_share == pytest.approx(w.max() / w.sum())
    assert support.constant == pytest.approx(min(1.0, (K * world.mu).min()))
    assert support.accepted == pytest.approx(min(1.0, (K * world.mu).min()) * w.sum())


def test_propensities_and_rewards_are_those_of_numpy(workspace: Workspace) -> None:
    world = World()
    write_world(workspace, world, world.mu)
    health = check_log(workspace, "l")
    for level, value in health.propensities.quantiles:
        assert value == pytest.approx(np.quantile(world.mu, level))
    assert sum(n for _, _, n in health.propensities.histogram) == N
    assert [one.propensity for one in health.propensities.smallest] == pytest.approx(np.sort(world.mu)[:5])
    for row in health.actions.shown:
        taken = world.action == row.action
        assert row.decisions == taken.sum()
        assert row.reward == pytest.approx(world.reward[taken].mean())
        assert row.calibration == pytest.approx((1 / world.mu[taken]).sum() / N)
    assert health.rewards.mean == pytest.approx(world.reward.mean())
    assert health.rewards.std == pytest.approx(world.reward.std(ddof=1))
    parts = health.rewards.over_time
    assert sum(part.decisions for part in parts) == N
    assert parts[0].reward == pytest.approx(world.reward[: parts[0].decisions].mean())


def test_wilsons_interval_is_the_published_one(workspace: Workspace) -> None:
    write(workspace, action=[0] * 6 + [1] * 6, propensity=[0.5] * 12, reward=[1, 1, 1, 0, 0, 0] + [0] * 6, actions=2)
    first, second = check_log(workspace, "l").actions.shown
    # 3 of 6: the Wilson interval that coba's tests hold.
    assert (first.reward_low, first.reward_high) == pytest.approx((0.18761, 0.81238), abs=1e-5)
    assert second.reward_low == 0


def _geometric(world: World) -> Any:
    return np.exp(np.log(world.chances).mean(axis=0))[world.action]


def _of_chosen(world: World) -> Any:
    return np.array([world.mu[world.action == k].mean() for k in range(K)])[world.action]


@pytest.mark.parametrize(
    ("logged", "cause", "says"),
    [
        (lambda world: world.chances.mean(axis=0)[world.action], "mean-propensity", "a mean propensity was logged"),
        (_geometric, "mean-propensity", "depend on the context"),
        (_of_chosen, "mean-propensity", "a mean propensity was logged"),
        (lambda _: np.full(N, 1 / (2.5 * K)), "mean-propensity", "Every decision has the same propensity"),
        (lambda world: 1 - world.mu, "other-probability", "1 - propensity"),
        (lambda world: world.mu / 3, "scaled-propensities", "of one of 3 positions"),
        (lambda world: world.mu / 100, "scaled-propensities", "percentages"),
        (lambda world: world.chances.max(axis=1), "most-probable", "most probable action"),
        (lambda world: world.rng.permutation(world.mu), "other-rows", "nothing to do with the actions"),
    ],
)
def test_wrong_propensities_are_named_by_their_cause(
    workspace: Workspace, logged: Callable[[World], Any], cause: str, says: str
) -> None:
    world = World()
    write_world(workspace, world, logged(world))
    health = check_log(workspace, "l")
    assert health.exit_code == 3
    assert health.findings[0].code == cause
    assert says in health.headline
    assert any("until this is mended" in sentence for sentence in health.cannot)


def test_with_mean_propensities_the_mean_weight_is_far_from_1_and_the_check_says_why(workspace: Workspace) -> None:
    world = World()
    factor = (1 / (K * _geometric(world))).mean() / 2.5
    write_world(workspace, world, _geometric(world) * factor)
    health = check_log(workspace, "l")
    assert health.uniform is not None
    assert health.uniform.mean == pytest.approx(2.5, abs=0.01)
    assert "a mean propensity was logged, not the probability of the action in its context" in health.headline


def test_mean_propensities_that_average_out_for_uniform_choice_show_with_a_policy(workspace: Workspace) -> None:
    world = World()
    mean = world.chances.mean(axis=0)[world.action]
    write_world(workspace, world, mean)
    write_choices(workspace, "l", "greedy", world.chances.argmax(axis=1).astype(np.int32))
    health = check_log(workspace, "l", policy="greedy")
    assert health.uniform is not None
    assert health.policy is not None
    assert health.uniform.mean == pytest.approx(1.0, abs=0.02)
    assert health.policy.mean is not None
    assert health.policy.mean > 2
    assert "for policy 'greedy' the mean weight is" in health.headline


def test_rows_left_out_by_their_reward_are_named(workspace: Workspace) -> None:
    world = World()
    write_world(workspace, world, world.mu, (world.reward > 0) | (world.rng.random(N) < 0.2))
    assert check_log(workspace, "l").findings[0].code == "filtered-rows"


def test_actions_that_could_not_be_taken_everywhere_are_named(workspace: Workspace) -> None:
    world = World(holes=True)
    write_world(workspace, world, world.mu)
    health = check_log(workspace, "l")
    assert health.findings[0].code == "support-holes"
    assert "'action 0'" in health.headline
    assert "'action 1'" in health.headline


def test_one_propensity_an_action_is_right_for_a_policy_that_ignores_the_context(workspace: Workspace) -> None:
    world = World()
    share = np.arange(1, K + 1) / np.arange(1, K + 1).sum()
    action = world.rng.choice(K, size=N, p=share)
    write(workspace, features=world.features, action=action, propensity=share[action], reward=world.reward)
    assert check_log(workspace, "l").exit_code == 0


def test_without_contexts_to_look_at_one_propensity_an_action_is_a_caution(workspace: Workspace) -> None:
    world = World()
    mean = world.chances.mean(axis=0)[world.action]
    write(workspace, action=world.action, propensity=mean, reward=world.reward)
    health = check_log(workspace, "l")
    assert health.exit_code == 1
    assert codes(health, "caution") == {"one-propensity-per-action"}


def test_candidates_decide_what_uniform_choice_is_and_what_an_action_may_count(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, K + 1, size=N)
    candidates = np.full((N, K), -1, np.int32)
    action = np.empty(N, np.int64)
    for i, size in enumerate(sizes):
        candidates[i, :size] = rng.permutation(K)[:size]
        action[i] = candidates[i, 0]
    write(workspace, action=action, propensity=1 / sizes, reward=rng.integers(0, 2, N), candidates=candidates)
    health = check_log(workspace, "l")
    assert health.exit_code == 0
    assert health.uniform is not None
    assert health.uniform.mean == pytest.approx(1.0)
    assert health.actions.candidates == (sizes.min(), pytest.approx(sizes.mean()), sizes.max())
    for row in health.actions.shown:
        allowed = (candidates == row.action).any(axis=1)
        assert row.calibration == pytest.approx(sizes[action == row.action].sum() / allowed.sum())


def test_the_support_of_a_policy_counts_what_it_would_have_taken_and_its_misses(workspace: Workspace) -> None:
    world = World()
    write_world(workspace, world, world.mu)
    chosen = np.stack([world.chances.argmax(axis=1), (world.chances.argmax(axis=1) + 1) % K], axis=1).astype(np.int32)
    chosen[:100] = -1
    write_choices(workspace, "l", "mixed", chosen, np.tile([0.75, 0.25], (N, 1)))
    health = check_log(workspace, "l", policy="mixed")
    pi = 0.75 * (world.action == chosen[:, 0]) + 0.25 * (world.action == chosen[:, 1])
    w = (pi / world.mu)[100:]
    assert health.policy is not None
    assert health.policy.misses == 100
    assert health.policy.decisions == N - 100
    assert health.policy.mean == pytest.approx(w.mean())
    assert health.policy.effective_sample_size == pytest.approx(w.sum() ** 2 / (w**2).sum())
    assert health.policy.accepted == pytest.approx(min(1.0, 1 / w.max()) * w.sum())
    assert "policy-misses" in codes(health, "caution")


def test_a_policy_that_takes_what_was_never_logged_is_not_covered(workspace: Workspace) -> None:
    world = World()
    write_world(workspace, world, world.mu)
    write_choices(workspace, "l", "other", ((world.action + 1) % K).astype(np.int32))
    health = check_log(workspace, "l", policy="other")
    assert health.exit_code == 3
    assert "no decision took an action that it would take" in health.headline


def test_an_unknown_log_or_policy_is_named_with_the_nearest(workspace: Workspace) -> None:
    write(workspace, action=[0, 1], propensity=[0.5, 0.5], reward=[0, 1])
    write_choices(workspace, "l", "greedy", np.zeros(2, np.int32))
    with pytest.raises(InputError, match="no log 'm'"):
        check_log(workspace, "m")
    with pytest.raises(InputError, match="Did you mean 'greedy'"):
        check_log(workspace, "l", policy="greed")


@pytest.mark.parametrize(
    ("log", "code", "exit_code"),
    [
        ({"action": [], "propensity": [], "reward": []}, "few-decisions", 3),
        ({"action": [0], "propensity": [0.5], "reward": [1]}, "few-decisions", 3),
        ({"action": [0, 1] * 200, "propensity": [0.5] * 400, "reward": [1] * 400}, "rewards-equal", 3),
        ({"action": [0, 1] * 200, "propensity": [1.0] * 400, "reward": [0, 1, 1, 0] * 100}, "deterministic-logging", 3),
        ({"action": [0, 1] * 200, "reward": [0, 1, 1, 0] * 100, "regime": "observed"}, "no-propensities", 3),
        ({"action": [0] * 400, "propensity": [0.5] * 400, "reward": [0, 1] * 200}, "one-action", 3),
        ({"action": [0, 1] * 200, "propensity": [0.5] * 400, "reward": [math.nan] * 400}, "no-rewards", 3),
        ({"action": [0, 1] * 10, "propensity": [0.5] * 20, "reward": [0, 1, 1, 0] * 5}, "few-decisions", 1),
        ({"action": [0, 1] * 400, "propensity": [0.5] * 800, "reward": [1] + [0] * 799}, "few-rewards", 3),
        (
            {"action": [0, 1] * 400, "propensity": [math.nan] * 80 + [0.5] * 720, "reward": [0, 1, 1, 0] * 200},
            "missing-propensities",
            1,
        ),
    ],
)
def test_every_log_gets_a_page_and_its_main_fault_a_name(
    workspace: Workspace, log: dict[str, Any], code: str, exit_code: int
) -> None:
    write(workspace, actions=2, **log)
    health = check_log(workspace, "l")
    assert health.exit_code == exit_code, health.headline
    assert health.finding(code) is not None
    assert json.loads(json.dumps(health.to_json(), allow_nan=False))["exit_code"] == exit_code


def test_a_hundred_thousand_actions_are_no_trouble(workspace: Workspace) -> None:
    many, n = 100_000, 20_000
    action = np.random.default_rng(0).integers(0, many, n)
    write(workspace, action=action, propensity=np.full(n, 1 / many), reward=np.arange(n) % 2, actions=many)
    health = check_log(workspace, "l")
    assert health.exit_code == 1
    assert health.actions.seen == len(set(action))
    assert len(health.actions.unseen) == 5
    assert health.uniform is not None
    assert health.uniform.mean == pytest.approx(1.0)


def test_full_information_is_fit_and_its_best_action_known(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    table = rng.random((50, 4))
    outcomes = Outcomes(
        offsets=np.arange(51) * 4, actions=np.tile(np.arange(4, dtype=np.int32), 50), rewards=table.ravel()
    )
    ids = [str(i) for i in range(50)]
    write_log(workspace, log="l", regime="full", context_ids=ids, action_labels=list("abcd"), outcomes=outcomes)
    health = check_log(workspace, "l")
    assert health.exit_code == 0
    assert health.outcomes is not None
    assert dict(health.outcomes.means) == pytest.approx(dict(zip("abcd", table.mean(axis=0), strict=True)))
    assert health.outcomes.best == "abcd"[table.mean(axis=0).argmax()]
    assert health.outcomes.oracle == pytest.approx(table.max(axis=1).mean())


def test_outcomes_that_are_not_stored_have_the_default_reward(workspace: Workspace) -> None:
    right = np.random.default_rng(0).integers(0, 4, 50).astype(np.int32)
    outcomes = Outcomes(offsets=np.arange(51), actions=right, rewards=np.ones(50), default=0.0)
    ids = [str(i) for i in range(50)]
    write_log(workspace, log="l", regime="full", context_ids=ids, action_labels=list("abcd"), outcomes=outcomes)
    found = check_log(workspace, "l").outcomes
    assert found is not None
    assert (found.share, found.oracle) == (1.0, 1.0)
    assert dict(found.means) == pytest.approx({name: (right == i).mean() for i, name in enumerate("abcd")})


def test_partial_information_is_a_caution_with_the_share_that_is_known(workspace: Workspace) -> None:
    outcomes = Outcomes(
        offsets=np.arange(41) * 2, actions=np.tile(np.array([0, 2], np.int32), 40), rewards=np.linspace(0, 1, 80)
    )
    ids = [str(i) for i in range(40)]
    write_log(workspace, log="l", regime="partial", context_ids=ids, action_labels=list("abcd"), outcomes=outcomes)
    health = check_log(workspace, "l")
    assert health.exit_code == 1
    assert health.outcomes is not None
    assert (health.outcomes.share, health.outcomes.complete_contexts) == (0.5, 0)


def _frame(n: int = 2000) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "action": rng.integers(0, 3, n),
            "propensity": np.full(n, 1 / 3),
            "reward": rng.integers(0, 2, n),
            "timestamp": 1_700_000_000 + 60 * np.arange(n),
        }
    )


def test_rows_logged_twice_are_counted(workspace: Workspace) -> None:
    frame = _frame()
    import_decisions(pl.concat([frame, frame[:100]]), workspace, "l")
    health = check_log(workspace, "l")
    assert health.repeats.rows.repeated == 200
    assert health.repeats.occasions is not None
    assert health.repeats.occasions.repeated == 200
    assert {"equal-rows", "times-out-of-order"} <= codes(health, "caution")
    assert health.times.out_of_order == 100


def test_rewards_that_change_over_time_are_a_caution(workspace: Workspace) -> None:
    frame = _frame().with_columns(reward=(pl.int_range(2000) % pl.when(pl.int_range(2000) < 1000).then(2).otherwise(5) == 0).cast(pl.Int64))  # fmt: skip # noqa: E501
    import_decisions(frame, workspace, "l")
    health = check_log(workspace, "l")
    assert health.rewards.by == "time"
    assert "reward-drift" in codes(health, "caution")
    assert (health.times.first, health.times.last) == ("2023-11-14 22:13:20", "2023-11-16 07:32:20")


def test_rows_in_quarantine_are_told_with_their_reasons(workspace: Workspace) -> None:
    frame = _frame().with_columns(propensity=pl.when(pl.int_range(2000) < 500).then(33.3).otherwise(1 / 3))
    import_decisions(frame, workspace, "l")
    health = check_log(workspace, "l")
    assert health.rows.reasons == (("propensity is above 1", 500),)
    finding = health.finding("quarantine")
    assert finding is not None
    assert finding.level == "unreliable"
    assert "percentages" in finding.sentence


def test_clusters_widen_the_interval_by_the_design_effect_of_numpy(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 200, 4000)
    reward = (rng.random(200)[cluster] + 0.1 * rng.random(4000)).round(6)
    write(
        workspace,
        action=rng.integers(0, 2, 4000),
        propensity=np.full(4000, 0.5),
        reward=reward,
        cluster=[f"user {c}" for c in cluster],
        actions=2,
    )
    health = check_log(workspace, "l")
    residual = np.bincount(cluster, reward - reward.mean())
    groups = health.repeats.clusters
    assert groups is not None
    assert groups.groups == len(set(cluster))
    assert groups.largest == np.bincount(cluster).max()
    assert groups.design_effect == pytest.approx((residual**2).sum() / 4000 / reward.var(ddof=1))
    assert "clusters" in codes(health, "caution")


def test_large_logs_are_counted_by_groups_drawn_by_hash(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = _frame(6000).with_columns(cluster=pl.int_range(6000) // 3)
    import_decisions(pl.concat([frame, frame[:3000]]), workspace, "l")
    exact = check_log(workspace, "l").repeats
    monkeypatch.setattr(repeats, "EXACT_ROWS", 1000)
    monkeypatch.setattr(weights, "EXACT_ROWS", 1000)
    about = check_log(workspace, "l").repeats
    assert exact.rows.repeated == 6000
    assert about.rows.one_in == 9
    assert about.rows.repeated == pytest.approx(6000, rel=0.15)
    assert about.clusters is not None
    assert exact.clusters is not None
    assert about.clusters.groups == pytest.approx(exact.clusters.groups, rel=0.2)


def test_decisions_without_ids_and_contexts_that_are_not_stored_are_read_too(workspace: Workspace) -> None:
    connection = workspace.connection
    connection.execute(
        "INSERT INTO logs (log, regime, created_at, stores_contexts) VALUES ('l', 'propensity', now(), false)"
    )
    connection.execute("INSERT INTO actions (log, action, label) SELECT 'l', i, 'a' || i FROM range(4) t(i)")
    connection.execute(
        """INSERT INTO decisions (log, position, context_id, action, propensity, reward)
           SELECT 'l', i, 'c' || i // 2, hash(i) % 4, 0.25, hash(i, 'r') % 2 FROM range(4000) t(i)"""
    )  # fmt: skip
    health = check_log(workspace, "l")
    assert health.exit_code == 0, health.headline
    assert health.repeats.contexts.groups == 2000
    assert health.repeats.contexts.repeated == 4000
    assert health.propensities.smallest[0].decision is None


def test_whole_distributions_must_sum_to_1(workspace: Workspace) -> None:
    connection = workspace.connection
    connection.execute("INSERT INTO logs (log, regime, created_at) VALUES ('l', 'propensity', now())")
    connection.execute("INSERT INTO actions (log, action, label) SELECT 'l', i, 'a' || i FROM range(2) t(i)")
    connection.execute(
        """INSERT INTO decisions (log, position, context_id, action, propensity, reward, candidate_propensities)
           SELECT 'l', i, 'c', i % 2, 0.5, i % 3 % 2, CASE WHEN i < 30 THEN [0.5, 0.7] ELSE [0.5, 0.5] END
           FROM range(1000) t(i)"""
    )
    health = check_log(workspace, "l")
    assert health.propensities.sums == (1000, 1.0, 1.2, 30, 15)
    assert "candidate-sums" in codes(health, "unreliable")


def test_progress_runs_from_the_first_step_to_the_last(workspace: Workspace) -> None:
    write(workspace, action=[0, 1], propensity=[0.5, 0.5], reward=[0, 1])
    steps: list[tuple[int, int]] = []
    check_log(workspace, "l", progress=lambda done, total, _: steps.append((done, total)))
    assert [done for done, _ in steps] == list(range(steps[0][1] + 1))


@pytest.fixture
def obd(workspace: Workspace) -> Callable[[str], Health]:
    def run(name: str) -> Health:
        path = DATA / "obd" / f"obd_{name}.parquet"
        if not path.exists():
            pytest.skip(f"the Open Bandit Dataset is not at {path}; set COUNTERPLAY_DATA")
        import_decisions(path, workspace, name)
        return check_log(workspace, name)

    return run


def test_of_thompson_sampling_on_the_womens_page_it_says_why_uniform_choice_cannot_be_evaluated(
    obd: Callable[[str], Health],
) -> None:
    health = obd("women_bts")
    assert health.uniform is not None
    assert health.uniform.mean == pytest.approx(3.134190, abs=1e-6)
    assert health.uniform.largest == pytest.approx(21739.13, abs=0.01)
    assert health.uniform.effective_sample_size == pytest.approx(2.078, abs=1e-3)
    finding = health.finding("uniform-support")
    assert finding is not None
    assert finding.sentence == (
        "Uniform choice cannot be evaluated: one decision has weight 21,739, 69 % of all weight, which leaves an "
        "effective sample of 2.08 of 10,000 decisions."
    )
    assert health.exit_code == 1
    assert finding.sentence.rstrip(".") in health.headline


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("all_random", 10_000),
        ("men_random", 10_000),
        ("women_random", 10_000),
        ("all_bts", 340.38),
        ("men_bts", 655.71),
    ],
)
def test_on_real_logs_no_propensity_is_called_wrong(obd: Callable[[str], Health], name: str, size: float) -> None:
    health = obd(name)
    assert health.uniform is not None
    assert health.uniform.effective_sample_size == pytest.approx(size, abs=0.01)
    assert health.actions.off == 0
    assert codes(health, "unreliable") == set()
    assert health.exit_code == 1


def broken_desk(rows: int, broken: int) -> str:
    lines = [f"{i},{'ab'[i % 2]},{'0.5' if i >= broken else ''},{i % 3 % 2},{1_700_000_000 + i}" for i in range(rows)]
    return "\n".join(["id,action,p,reward,timestamp", *lines])


def test_rows_in_quarantine_weigh_the_same_however_often_their_file_comes(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(broken_desk(1000, 250))
    with open_workspace(tmp_path / "w.duckdb") as workspace:
        for _ in range(3):
            import_decisions(path, workspace, "l")
            finding = check_log(workspace, "l").finding("quarantine")
            assert finding is not None
            assert (finding.level, finding.numbers["share"]) == ("unreliable", 0.25)


def test_rows_that_came_again_sound_are_no_longer_held_against_the_log(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text(broken_desk(1000, 250))
    (tmp_path / "mended.csv").write_text(broken_desk(1000, 10))
    with open_workspace(tmp_path / "w.duckdb") as workspace:
        for name in ("broken.csv", "mended.csv"):
            import_decisions(tmp_path / name, workspace, "l")
        rows = check_log(workspace, "l").rows
        # The ten stand there from both files.
        assert (rows.read, rows.kept, rows.quarantined) == (1010, 990, 20)
