"""Several processes fill one cache; some are killed. What is stored is never asked for again, and nothing is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from counterplay.logs import DecisionArrays, Workspace, open_workspace, read_choices, write_log
from counterplay.logs.outputs import remove_outputs, served_keys
from tests.command import counterplay
from tests.logs.filling import Filling

CONTEXTS = 60
ACTIONS = ("limbs", "infections", "burns")


@pytest.fixture
def place(tmp_path: Path, workspace: Workspace) -> Path:
    """A workspace with a log, and a model whose files are there and that could never run."""
    candidates = np.tile(np.arange(3, dtype=np.int32), (CONTEXTS, 1))
    write_log(
        workspace,
        log="desk",
        regime="propensity",
        context_ids=[f"c{i}" for i in range(CONTEXTS)],
        context_texts=[f"complaint {i}" for i in range(CONTEXTS)],
        action_labels=["a", "b", "c"],
        action_texts=ACTIONS,
        decisions=DecisionArrays(
            context=np.arange(CONTEXTS, dtype=np.int32),
            candidates=candidates,
            action=candidates[:, 0],
            propensity=np.full(CONTEXTS, 0.5),
            reward=np.ones(CONTEXTS),
        ),
    )
    workspace.close()
    (tmp_path / "tiny-Q4_1.gguf").write_bytes(b"weights that nobody loads")
    return workspace.path


def stored(place: Path) -> set[str]:
    with open_workspace(place, read_only=True) as opened:
        return {key for (key,) in opened.connection.execute("SELECT key FROM outputs").fetchall()}


def test_a_run_asks_only_for_what_no_other_run_has_stored(place: Path) -> None:
    first = Filling(place, "first", 15, steps=True)
    assert [first.said(), first.go(), first.go()] == [15, 15, 15]
    before = stored(place)
    assert len(before) == 30
    second = Filling(place, "second", 15, steps=True)
    assert [second.said(), second.go()] == [15, 15]
    assert "60 requests, 30 in the cache, 30 answered" in second.go()
    # The third chunk of the first run was on its way while the second stored it; the fourth is not asked for again.
    assert "60 requests, 15 in the cache, 45 answered" in first.go()
    assert not set(second.asked) & before
    assert len(first.asked) == len(set(first.asked)) == 45
    assert len(stored(place)) == CONTEXTS


def test_an_answer_that_came_second_is_dropped_and_the_first_is_kept(place: Path) -> None:
    first, second = (Filling(place, name, CONTEXTS, steps=True) for name in ("first", "second"))
    assert [first.said(), second.said()] == [CONTEXTS, CONTEXTS]
    assert "60 choices" in second.go()
    assert "60 choices" in first.go()
    with open_workspace(place, read_only=True) as opened:
        makers = opened.connection.execute("SELECT DISTINCT provenance ->> '/process' FROM outputs").fetchall()
    assert makers == [(str(second.number),)]


def test_runs_at_the_same_time_share_the_work(place: Path) -> None:
    runs = [Filling(place, name, 6, 0.02) for name in ("first", "second")]
    assert all("60 choices" in run.said() for run in runs)
    first, second = (run.asked for run in runs)
    assert {*first, *second} == stored(place)
    assert len(stored(place)) == CONTEXTS
    assert (len(first), len(second)) == (len(set(first)), len(set(second)))
    # Ten chunks by chance: the same one at the same moment a few times, never all of them.
    assert len(first) + len(second) < 2 * CONTEXTS


def kill_until_full(place: Path, kills: int, chunk: int) -> None:
    rng, known = random.Random(kills), stored(place)
    for number in range(kills):
        run = Filling(place, f"run-{number}", chunk, 0.01)
        time.sleep(rng.uniform(0, 0.5))
        run.kill()
        now = stored(place)
        assert now >= known
        assert not set(run.asked) & known
        # All but the chunk that was on its way when the process died.
        assert len(set(run.asked) - now) <= chunk
        known = now
    last = Filling(place, "last", 10)
    assert "60 choices" in last.said()
    assert not set(last.asked) & known
    assert len(stored(place)) == CONTEXTS
    again = Filling(place, "again", 10)
    assert "60 in the cache, 0 answered" in again.said()
    assert again.asked == []


def test_runs_that_are_killed_lose_nothing_committed_and_repeat_nothing(place: Path) -> None:
    kill_until_full(place, 5, 3)


@pytest.mark.slow
def test_thirty_runs_that_are_killed_lose_nothing_committed_and_repeat_nothing(place: Path) -> None:
    kill_until_full(place, 30, 1)


def test_what_was_deleted_is_asked_for_again_and_nothing_else(place: Path) -> None:
    Filling(place, "all").said()
    keys = sorted(stored(place))
    gone = set(random.Random(0).sample(keys, len(keys) // 10))
    with open_workspace(place) as opened:
        before = read_choices(opened, "desk", "llm").actions
        assert remove_outputs(opened.connection, sorted(gone)) == 6
        assert served_keys(opened.connection, keys) == set(keys) - gone
    rest = Filling(place, "rest")
    assert "60 requests, 54 in the cache, 6 answered" in rest.said()
    assert sorted(rest.asked) == sorted(gone)
    assert sorted(stored(place)) == keys
    np.testing.assert_array_equal(read_choices(place, "desk", "llm").actions, before)


EXPERIMENT = """
workspace = "workspace.duckdb"
log = "desk"
method = "none"
[estimate]
estimators = ["ips"]
[[agents]]
kind = "policy"
policy = "llm"
"""

WITHOUT_TORCH = """
import sys
from counterplay.cli import main
for words in (
    ["generate", "workspace.duckdb", "--log", "desk", "--model", "tiny-Q4_1.gguf"],
    ["cache", "explain", "workspace.duckdb", "--log", "desk", "--model", "tiny-Q4_1.gguf"],
    ["run", "experiment.toml"],
):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, words
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
"""


def test_over_a_complete_cache_nothing_loads_torch(place: Path) -> None:
    Filling(place, "all").said()
    (place.parent / "experiment.toml").write_text(EXPERIMENT)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=place.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "60 in the cache, 0 answered" in done.stdout
    assert "60 requests: 60 stored, 0 are not" in done.stdout


def test_misses_of_a_log_are_explained_before_a_model_is_run(place: Path) -> None:
    Filling(place, "all").said()
    (place.parent / "tiny-Q4_1.gguf").write_bytes(b"other weights of that name")
    words = ("explain", place.name, "--log", "desk", "--model", "tiny-Q4_1.gguf")
    done = counterplay(place.parent, "cache", *words)
    assert done.returncode == 1, done.stderr
    assert "60 requests: 0 stored, 60 are not" in done.stdout
    assert "differs in revision: asked" in done.stdout
    assert "tokenizer" in done.stdout
    assert "prompts" not in done.stdout
    assert "... and 55 misses more" in done.stdout
