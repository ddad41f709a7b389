"""Decisions read a batch at a time are those of the log, in its order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from counterplay.errors import ColumnError, InputError
from counterplay.logs import ImportReport, Workspace, read_log, stream_decisions

Bring = Callable[..., ImportReport]


def decisions(rows: int, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "decision_id": [f"{seed}-{i}" for i in range(rows)],
            "action": rng.integers(0, 9, rows),
            "propensity": rng.uniform(0.1, 1, rows),
            "reward": rng.normal(size=rows),
            "candidates": [list(range(9))] * rows,
        }
    )


def test_batches_put_together_are_the_log(bring: Bring, workspace: Workspace) -> None:
    bring(decisions(1000))
    bring(decisions(700, seed=1), log="between")
    bring(decisions(500, seed=2))
    parts = list(stream_decisions(workspace, "l", ["action", "reward", "candidates"], batch=128))
    assert max(len(part) for part in parts) <= 128
    whole, log = pl.concat(parts), read_log(workspace, "l")
    assert whole["action"].to_list() == log.action.tolist()
    assert whole["reward"].to_list() == log.reward.tolist()
    assert whole["candidates"].to_list() == [list(range(9))] * 1500


def test_a_log_whose_rows_were_replaced_still_comes_in_order(bring: Bring, workspace: Workspace) -> None:
    frame = decisions(1000)
    bring(frame)
    bring(frame[100:200].with_columns(reward=pl.lit(0.5)), overwrite=True)
    whole = pl.concat(stream_decisions(workspace, "l"))
    assert whole["position"].is_sorted()
    assert whole["reward"].to_list() == read_log(workspace, "l").reward.tolist()


def test_the_workspace_can_be_asked_between_two_batches(bring: Bring, workspace: Workspace) -> None:
    bring(decisions(1000))
    counts = [
        (len(part), workspace.connection.execute("SELECT count(*) FROM decisions").fetchall())
        for part in stream_decisions(workspace, "l", batch=500)
    ]
    assert counts == [(500, [(1000,)])] * 2


def test_an_unknown_log_or_column_is_refused_with_the_nearest(bring: Bring, workspace: Workspace) -> None:
    bring(decisions(3))
    with pytest.raises(InputError, match="Did you mean 'l'"):
        next(stream_decisions(workspace, "ll"))
    with pytest.raises(ColumnError, match="Did you mean 'reward'"):
        next(stream_decisions(workspace, "l", ["rewards"]))
