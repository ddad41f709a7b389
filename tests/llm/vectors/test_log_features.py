"""A log that has only texts gets features: stored once, resumed, refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from counterplay.errors import InputError, UnsupportedError
from counterplay.llm.vectors import log_features
from counterplay.llm.vectors.embedders import Embedder
from counterplay.llm.vectors.embedding import embed
from counterplay.llm.vectors.log_features import embed_log
from counterplay.logs import (
    Workspace,
    attach_decisions,
    open_workspace,
    read_choices,
    read_log,
    write_choices,
    write_log,
)
from counterplay.replay.run import run_experiment
from tests.llm.conftest import ACTIONS, TEXTS
from tests.llm.made_embedders import static_folder

pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers|sentence_transformers).*"),
]


@pytest.fixture
def words(tmp_path: Path) -> str:
    return str(static_folder(tmp_path / "words"))


@pytest.fixture
def desk(workspace: Workspace) -> Path:
    """The workspace as a path, closed."""
    workspace.close()
    return workspace.path


def change(desk: Path, statement: str) -> None:
    with open_workspace(desk) as opened:
        opened.connection.execute(statement)


def count(desk: Path, query: str) -> int:
    with open_workspace(desk, read_only=True) as opened:
        return int(opened.connection.execute(f"SELECT count(*) FROM {query}").fetchall()[0][0])


def test_inner_products_of_features_are_cosines_of_texts(desk: Path, words: str) -> None:
    report = embed_log(desk, "desk", embedder=words)
    log = read_log(desk, "desk")
    assert log.context_features is not None
    assert log.action_features is not None
    cosines = embed(TEXTS, embedder=words) @ embed(ACTIONS, embedder=words).T
    np.testing.assert_allclose(log.context_features @ log.action_features.T, cosines, atol=1e-5)
    assert (report.contexts, report.actions, report.texts, report.computed) == (6, 4, 10, 10)
    assert (report.stored, report.without_text, report.longer) == (True, 0, 0)
    # "a bruise" and "other"
    assert report.unknown == 2
    assert (report.contexts_kept, report.actions_kept) == pytest.approx((1, 1))


def test_the_prior_is_the_most_similar_candidate(desk: Path, words: str) -> None:
    assert embed_log(desk, "desk", embedder=words, dimensions=1).prior
    cosines = embed(TEXTS, embedder=words) @ embed(ACTIONS, embedder=words).T
    log = read_log(desk, "desk")
    assert log.candidates is not None
    allowed = [row[row >= 0] for row in log.candidates]
    expected = [row[cosine[row].argmax()] for row, cosine in zip(allowed, cosines, strict=True)]
    known = embed(TEXTS, embedder=words).any(axis=1)
    chosen = read_choices(desk, "desk", "embedding-prior").actions[:, 0]
    np.testing.assert_array_equal(chosen[known], np.array(expected)[known])
    # The embedder knows no word of "a bruise".
    assert known.tolist() == [True, True, True, True, True, False]
    assert chosen[-1] == -1


def test_without_lists_of_candidates_the_prior_looks_at_all_actions(tmp_path: Path, words: str) -> None:
    place = tmp_path / "open.duckdb"
    with open_workspace(place) as opened:
        write_log(
            opened,
            log="open",
            regime="observed",
            context_ids=["0", "1"],
            context_texts=["burn", "cold"],
            action_labels=["a", "b", "c"],
            action_texts=["limbs", "infections", "burns"],
        )
    embed_log(place, "open", embedder=words)
    assert read_choices(place, "open", "embedding-prior").actions[:, 0].tolist() == [2, 1]


@pytest.mark.slow
def test_agents_replay_what_was_embedded(desk: Path, words: str) -> None:
    embed_log(desk, "desk", embedder=words, dimensions=3)
    results = run_experiment(
        {
            "name": "embedded",
            "log": "desk",
            "method": "rejection",
            "seeds": 1,
            "agents": [
                {"kind": "policy", "name": "prior", "policy": "embedding-prior", "missing": "uniform"},
                {"kind": "bandit", "name": "from the prior", "start": "embedding-prior", "exploration": "igw"},
                {"kind": "linucb", "name": "linear"},
            ],
        },
        workspace=desk,
    )
    assert [agent["agent"] for agent in results["agents"]] == ["prior", "from the prior", "linear"]


def test_again_computes_and_stores_nothing(desk: Path, words: str) -> None:
    embed_log(desk, "desk", embedder=words)
    before = read_log(desk, "desk").fingerprint
    report = embed_log(desk, "desk", embedder=words)
    assert (report.computed, report.stored, report.prior) == (0, False, False)
    assert read_log(desk, "desk").fingerprint == before


def test_other_features_are_replaced_only_when_asked(desk: Path, words: str, tmp_path: Path) -> None:
    embed_log(desk, "desk", embedder=words, dimensions=2)
    wide = str(static_folder(tmp_path / "wide", width=9))
    before = read_log(desk, "desk").fingerprint
    for embedder, dimensions in ((words, 3), (wide, 2)):
        with pytest.raises(InputError, match=r"'desk' has features already.*contexts: 2 dimensions; actions: 2 dim"):
            embed_log(desk, "desk", embedder=embedder, dimensions=dimensions)
    assert read_log(desk, "desk").fingerprint == before
    assert embed_log(desk, "desk", embedder=wide, replace=True).width == 9
    assert read_log(desk, "desk").fingerprint != before


def test_a_policy_of_ones_own_under_the_name_of_the_prior_stays(desk: Path, words: str) -> None:
    with open_workspace(desk) as opened:
        write_choices(opened, "desk", "embedding-prior", np.full(6, 3))
    assert not embed_log(desk, "desk", embedder=words).prior
    assert read_choices(desk, "desk", "embedding-prior").actions[:, 0].tolist() == [3] * 6
    assert embed_log(desk, "desk", embedder=words, dimensions=2, replace=True).prior


def watched_encode(
    monkeypatch: pytest.MonkeyPatch, watch: Callable[[Sequence[str]], None]
) -> Callable[[Embedder, Sequence[str]], npt.NDArray[np.float32]]:
    plain = Embedder.encode

    def encode(self: Embedder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        watch(texts)
        return plain(self, texts)

    monkeypatch.setattr(Embedder, "encode", encode)
    return encode


def test_a_run_that_was_stopped_goes_on_where_it_was(desk: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_features, "CHUNK", 4)
    monkeypatch.setattr(log_features, "STEP", 2)
    asked: list[str] = []

    def stop_in_the_second_chunk(texts: Sequence[str]) -> None:
        if len(asked) == 6:
            raise KeyboardInterrupt
        asked.extend(texts)

    with monkeypatch.context() as stopped:
        watched_encode(stopped, stop_in_the_second_chunk)
        with pytest.raises(KeyboardInterrupt):
            embed_log(desk, "desk", embedder=words)
    assert count(desk, "vectors") == 4
    assert count(desk, "contexts WHERE features IS NOT NULL") == 0
    again: list[str] = []
    watched_encode(monkeypatch, again.extend)
    report = embed_log(desk, "desk", embedder=words)
    assert (report.computed, len(again)) == (6, 6)
    assert not set(again) & set(asked[:4])


def test_the_workspace_is_closed_while_the_embedder_works(
    desk: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone: list[int] = []

    def look(_texts: Sequence[str]) -> None:
        with open_workspace(desk, wait=0) as opened:
            alone.extend(opened.connection.execute("SELECT count FROM duckdb_connection_count()").fetchall()[0])

    monkeypatch.setattr(log_features, "STEP", 5)
    watched_encode(monkeypatch, look)
    embed_log(desk, "desk", embedder=words)
    assert alone == [1, 1]


def test_a_log_that_changes_meanwhile_is_left_alone(desk: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched_encode(monkeypatch, lambda _: change(desk, "UPDATE contexts SET text = 'fever' WHERE context_id = 'c0'"))
    with pytest.raises(InputError, match=r"'desk' was changed while it was embedded.*Run it again"):
        embed_log(desk, "desk", embedder=words)
    assert count(desk, "contexts WHERE features IS NOT NULL") == 0
    monkeypatch.undo()
    assert embed_log(desk, "desk", embedder=words).stored


def test_texts_that_are_cut_are_counted_also_when_their_vectors_are_there(desk: Path, tmp_path: Path) -> None:
    short = str(static_folder(tmp_path / "short", limit=3))
    longer = sum(len(text.split()) > 3 for text in (*TEXTS, *ACTIONS))
    assert embed_log(desk, "desk", embedder=short).longer == longer == 1
    again = embed_log(desk, "desk", embedder=short)
    assert (again.computed, again.longer) == (0, longer)
    assert f"{longer} texts are longer than the 3 word pieces" in str(again)


def test_a_forgotten_context_has_features_of_zero_and_no_choice(desk: Path, words: str) -> None:
    change(desk, "UPDATE contexts SET text = NULL WHERE context_id = 'c0'")
    report = embed_log(desk, "desk", embedder=words)
    features = read_log(desk, "desk").context_features
    assert features is not None
    assert (report.without_text, report.unknown) == (1, 2)
    assert "1 contexts have no text" in str(report)
    assert not features[0].any()
    assert features[1].any()
    assert read_choices(desk, "desk", "embedding-prior").actions[0, 0] == -1


def test_where_no_action_has_a_text_only_contexts_get_features(desk: Path, words: str) -> None:
    change(desk, "UPDATE actions SET text = NULL")
    report = embed_log(desk, "desk", embedder=words)
    log = read_log(desk, "desk")
    assert (report.actions, report.prior, log.action_features) == (0, False, None)
    assert log.context_features is not None
    assert not embed_log(desk, "desk", embedder=words).stored


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE contexts SET text = NULL", "contexts of log 'desk' have no texts"),
        ("UPDATE contexts SET text = ' ' WHERE context_id IN ('c1', 'c4')", "context 'c1' and 1 more of log 'desk' is"),
        ("UPDATE actions SET text = '' WHERE label = 'a2'", "action 'a2' of log 'desk' is empty"),
        ("UPDATE actions SET text = NULL WHERE label = 'a2'", "Action 'a2' of log 'desk' has no text"),
        ("UPDATE actions SET text = NULL, features = [1, 2]", "have features of 2 dimensions but no texts"),
        ("UPDATE actions SET features = [1, 2]", "contexts: none; actions: 2 dimensions"),
    ],
)
def test_what_cannot_be_embedded_is_refused_before_anything_is_computed(
    statement: str, says: str, desk: Path, words: str
) -> None:
    change(desk, statement)
    with pytest.raises(InputError, match=says):
        embed_log(desk, "desk", embedder=words)
    assert count(desk, "vectors") == 0


def test_rows_that_came_later_need_the_features_to_be_made_again(desk: Path, words: str) -> None:
    embed_log(desk, "desk", embedder=words)
    change(desk, "INSERT INTO contexts VALUES ('desk', 'late', 6, 'a broken hand', NULL)")
    with pytest.raises(InputError, match="contexts: 6 dimensions or none; actions: 6 dimensions"):
        embed_log(desk, "desk", embedder=words)
    assert embed_log(desk, "desk", embedder=words, replace=True).computed == 1


def test_an_attached_log_and_an_unknown_one_are_refused(tmp_path: Path, desk: Path, words: str) -> None:
    rows = {"text": ["a cold"], "action": ["a"], "propensity": [0.5], "reward": [1.0]}
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    attach_decisions(tmp_path / "rows.parquet", desk, "attached")
    with pytest.raises(UnsupportedError, match="'attached' are in files that stay where they are"):
        embed_log(desk, "attached", embedder=words)
    with pytest.raises(InputError, match=r"no log 'dusk'\. Did you mean 'desk'"):
        embed_log(desk, "dusk", embedder=words)
    with pytest.raises(InputError, match="dimensions is 0"):
        embed_log(desk, "desk", embedder=words, dimensions=0)
