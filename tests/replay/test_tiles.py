"""The best of all actions, found tile by tile, is numpy's argmax; and what kernels borrow they give back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from counterplay.replay.agents import Bandit, Hybrid, LinUCB
from counterplay.replay.kernels.tiles import STEP, best_actions, packed
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.selectors import LogBarrier
from counterplay.replay.single import replay_exact, replay_rejection
from tests.replay.worlds import world

Singles = NDArray[np.float32]


def _best(vectors: Singles, projected: Singles) -> NDArray[np.int64]:
    tiles, rows = packed(vectors, True), -(-len(projected) // STEP) * STEP
    picked = np.zeros((rows, tiles.shape[1]), np.float32)
    picked[: len(projected), : projected.shape[1]] = projected
    top, best = np.empty(rows, np.int32), np.empty(rows, np.int64)
    scores = np.empty((STEP, tiles.shape[2]), np.float32)
    best_actions(tiles, len(vectors), picked, len(projected), scores, top, best)
    return best[: len(projected)]


@pytest.mark.parametrize("actions", [1, 2, 15, 16, 17, 311, 511, 512, 513, 1100])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (4, 7), (5, 5), (32, 50)])
def test_the_best_action_is_the_one_with_the_largest_product(actions: int, rows: int, width: int) -> None:
    rng = np.random.default_rng(actions)
    vectors = rng.integers(-3, 4, (actions, width)).astype(np.float32)
    projected = rng.integers(-3, 4, (rows, width)).astype(np.float32)
    # Small whole numbers: no product is rounded, and there are many ties.
    np.testing.assert_array_equal(_best(vectors, projected), (projected @ vectors.T).argmax(axis=1))


def test_of_real_numbers_no_score_is_above_that_of_the_best() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1300, 50), dtype=np.float32)
    projected = rng.standard_normal((33, 50), dtype=np.float32)
    scores = projected.astype(np.float64) @ vectors.T.astype(np.float64)
    found = np.take_along_axis(scores, _best(vectors, projected)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(found, scores.max(axis=1), rtol=1e-5)


def test_where_all_scores_are_equal_the_first_action_wins_and_padding_never_does() -> None:
    vectors = np.full((700, 3), -1.0, np.float32)
    for value in (0.0, -0.0, 1.0, 2.0e-38):
        assert not _best(vectors, np.full((6, 3), value, np.float32)).any()


def test_a_row_has_the_same_best_action_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((600, 20), dtype=np.float32)
    projected = rng.standard_normal((32, 20), dtype=np.float32)
    together = _best(vectors, projected)
    assert [int(_best(vectors, projected[r : r + 1])[0]) for r in range(32)] == together.tolist()


def _counts(prepared: PreparedLog) -> list[int]:
    """References to every array that the kernels borrow."""
    features = prepared.features(Bandit(dimensions=5))
    arrays = [features.contexts, features.actions, features.explore, *prepared.luck(0)]
    arrays += [value for value in prepared._shared.values() if isinstance(value, np.ndarray)]
    return [sys.getrefcount(array) for array in arrays]


def test_replays_give_back_every_array_that_they_borrow() -> None:
    prepared = world(decisions=60, actions=8, dimensions=5)
    agents = (Hybrid(selector=LogBarrier(), bandit=Bandit(dimensions=5)), LinUCB(dimensions=3))

    def all_of_them() -> None:
        for agent in agents:
            replay_exact(prepared, agent, batch=8, alone=True)
            replay_rejection(prepared, agent, batch=4)

    all_of_them()
    before = _counts(prepared)
    for _ in range(5):
        all_of_them()
    assert _counts(prepared) == before


def _told() -> list[Any]:
    rng = np.random.default_rng(2)
    shapes = ((8, 5, 8), (33, 6, 3), (600, 2, 5))
    return [
        _best(rng.standard_normal((a, m), dtype=np.float32), rng.standard_normal((r, m), dtype=np.float32)).tolist()
        for a, m, r in shapes
    ]


def test_the_same_actions_compiled_and_interpreted() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-W", "error", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == _told()


if __name__ == "__main__":
    json.dump(_told(), sys.stdout)
