"""The demo's data, read once; and a small workspace whose log has texts and candidates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from counterplay.demo.data import DemoData, load_demo
from counterplay.logs import DecisionArrays, Workspace, open_workspace, write_log

TEXTS = ("a broken arm", "a cold", "a burn of the hand", "a sprained ankle", "a fever", "a bruise")
ACTIONS = ("injuries of limbs", "infections", "burns", "other")


@pytest.fixture(scope="session")
def demo() -> DemoData:
    pytest.importorskip("simple_icd_10_cm", reason="the demo's texts need the extra 'demo'")
    return load_demo()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    count = len(TEXTS)
    candidates = np.array([[0, 2, 1], [1, 0, 3], [2, 0, 1], [0, 1, 2], [1, 3, -1], [0, 3, -1]], dtype=np.int32)
    with open_workspace(tmp_path / "workspace.duckdb") as opened:
        write_log(
            opened,
            log="desk",
            regime="propensity",
            context_ids=[f"c{i}" for i in range(count)],
            context_texts=TEXTS,
            action_labels=[f"a{i}" for i in range(len(ACTIONS))],
            action_texts=ACTIONS,
            decisions=DecisionArrays(
                context=np.arange(count, dtype=np.int32),
                candidates=candidates,
                action=candidates[:, 0],
                propensity=np.full(count, 0.5),
                reward=np.ones(count),
            ),
        )
        yield opened
