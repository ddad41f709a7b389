"""`counterplay embed`, as a person would use it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from counterplay.logs import read_log
from tests.command import counterplay
from tests.llm.made_embedders import static_folder


@pytest.mark.slow
def test_a_log_of_texts_gets_features_that_agents_can_use(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    rows = {
        "text": ["broken arm", "cold", "burn"],
        "action": ["b", "a", "a"],
        "propensity": [0.5] * 3,
        "reward": [1] * 3,
    }
    pl.DataFrame(rows).write_csv(tmp_path / "rows.csv")
    pl.DataFrame({"action": ["a", "b"], "text": ["infections", "limbs"]}).write_csv(tmp_path / "actions.csv")
    done = counterplay(
        tmp_path, "import", "table", "rows.csv", "--into", "desk.duckdb", "--log", "m", "--actions", "actions.csv"
    )
    assert done.returncode == 0, done.stderr
    static_folder(tmp_path / "words")
    done = counterplay(tmp_path, "embed", "desk.duckdb", "--log", "m", "--embedder", "words", "--dimensions", "2")
    assert done.returncode == 0, done.stderr
    assert "'m' by words@" in done.stdout
    assert "5 texts, 0 with vectors already, 5 embedded" in done.stdout
    log = read_log(tmp_path / "desk.duckdb", "m")
    assert log.context_features is not None
    assert log.context_features.shape == (3, 2)


def test_what_cannot_be_embedded_is_refused_with_a_reason(tmp_path: Path) -> None:
    done = counterplay(tmp_path, "embed", "absent.duckdb", "--log", "m", "--embedder", "words")
    assert (done.returncode, "There is no workspace at absent.duckdb" in done.stderr) == (2, True)
    assert not (tmp_path / "absent.duckdb").exists()
