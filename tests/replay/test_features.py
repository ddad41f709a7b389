"""What follows from an action set alone is worked out once, and not at all where the log has it already."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from counterplay.logs.log import Log, Outcomes
from counterplay.replay import features
from counterplay.replay.agents import Bandit
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.spanner import barycentric_spanner, reduced


def log_of(actions: Any, seed: int = 0) -> Log:
    count, size = 30, len(actions)
    random = np.random.default_rng(seed)
    return Log(
        name="made",
        regime="full",
        decision_ids=[str(i) for i in range(count)],
        context=np.arange(count, dtype=np.int32),
        context_ids=[str(i) for i in range(count)],
        context_features=random.normal(size=(count, 4)).astype(np.float32),
        action_labels=[str(i) for i in range(size)],
        action_features=np.asarray(actions, np.float32),
        candidates=None,
        action=np.full(count, -1, dtype=np.int32),
        propensity=np.full(count, np.nan),
        reward=np.full(count, np.nan),
        cost=np.full(count, np.nan),
        cluster=np.arange(count),
        outcomes=Outcomes(
            offsets=np.arange(count + 1),
            actions=random.integers(0, size, count).astype(np.int32),
            rewards=np.ones(count),
            default=0.0,
        ),
    )


def spread(seed: int, count: int = 40, width: int = 8) -> Any:
    return (np.random.default_rng(seed).normal(size=(count, width)) * np.linspace(1, 0.2, width)).astype(np.float32)


def test_one_sweep_takes_the_spanner_of_an_action_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> Any:
        plain = getattr(features, name)

        def call(*given: Any) -> Any:
            calls.append(name)
            return plain(*given)

        return call

    for name in ("reduced", "barycentric_spanner", "spanner_coefficients"):
        monkeypatch.setattr(features, name, counted(name))
    prepared = PreparedLog(log_of(spread(11)))
    bandits = [Bandit(dimensions=5, exploration=kind) for kind in ("spanner-greedy", "spanner-igw", "epsilon-greedy")]
    for part in (prepared, prepared.part(np.arange(10)), PreparedLog(log_of(spread(11), seed=1))):
        found = [part.features(bandit) for bandit in bandits]
        np.testing.assert_array_equal(found[0].explore, found[1].explore)
    assert sorted(calls) == ["barycentric_spanner", "reduced", "spanner_coefficients"]
    PreparedLog(log_of(spread(12))).features(bandits[0])
    PreparedLog(log_of(spread(11))).features(Bandit(dimensions=4))
    assert calls.count("barycentric_spanner") == 3


def test_no_more_is_remembered_than_so_much() -> None:
    for seed in range(2 * features.REMEMBERED):
        PreparedLog(log_of(spread(seed))).features(Bandit(dimensions=3))
    assert len(features._remembered) <= features.REMEMBERED


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dimensions", [1, 5, 8, 20])
@pytest.mark.parametrize("empty", [0, 3])
def test_actions_in_their_main_directions_are_taken_as_they_are(seed: int, dimensions: int, empty: int) -> None:
    turned = reduced(spread(seed), 8)
    rest = np.zeros((40, empty))
    padded = np.concatenate([turned * np.where(np.arange(8) % 2, -1, 1), rest], axis=1).astype(np.float32)
    padded.flags.writeable = False  # as arrays that come from a workspace are
    found = PreparedLog(log_of(padded)).features(Bandit(dimensions=dimensions))
    assert found.actions.flags.writeable
    assert found.actions.flags.c_contiguous
    np.testing.assert_array_equal(found.actions, padded[:, : min(dimensions, 8)])
    expected = reduced(padded, dimensions)
    np.testing.assert_allclose(np.abs(found.actions), np.abs(expected), atol=1e-5)
    np.testing.assert_array_equal(found.explore, barycentric_spanner(expected))


@pytest.mark.parametrize("case", ["anything", "wrong order", "gap", "equal sizes"])
def test_all_other_actions_are_reduced(case: str) -> None:
    turned = reduced(spread(3), 8)
    actions = {
        "anything": spread(3),
        "wrong order": np.ascontiguousarray(turned[:, ::-1]),
        "gap": np.insert(turned, 2, 0, axis=1),
        "equal sizes": np.eye(8, dtype=np.float32),
    }[case]
    found = PreparedLog(log_of(actions)).features(Bandit(dimensions=5))
    np.testing.assert_array_equal(found.actions, reduced(actions, 5))
