"""The most similar actions: exactly those that a full sort of all products gives, whatever the blocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from counterplay.errors import InputError
from counterplay.llm.actions import nearest
from counterplay.llm.actions.nearest import MOST, most_similar, most_similar_among

Singles = npt.NDArray[np.float32]


def vectors(seed: int, count: int, width: int = 24) -> Singles:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def unit(rows: Singles) -> npt.NDArray[np.float64]:
    """Of length 1 as far as single precision goes, and wide enough for exact products."""
    wide = rows.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)


def sorted_in_full(texts: Singles, actions: Singles, count: int) -> npt.NDArray[np.int64]:
    return np.argsort(-(unit(texts) @ unit(actions).T), axis=1, kind="stable")[:, :count]


@pytest.mark.parametrize("count", [1, 2, 7, 32, MOST])
def test_they_are_what_a_sort_of_all_products_gives(count: int) -> None:
    texts, actions = vectors(1, 70), vectors(2, 333)
    found = most_similar(texts, actions, count)
    np.testing.assert_array_equal(found.actions, sorted_in_full(texts, actions, count))
    expected = -np.sort(-(unit(texts) @ unit(actions).T), axis=1)[:, :count]
    np.testing.assert_allclose(found.similarity, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 50), (512, 333), (3, 1000)])
def test_blocks_change_no_bit(monkeypatch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    texts, actions = vectors(3, 20), vectors(4, 333)
    whole = most_similar(texts, actions, 5)
    monkeypatch.setattr(nearest, "TEXTS", rows)
    monkeypatch.setattr(nearest, "ACTIONS", columns)
    parts = most_similar(texts, actions, 5)
    np.testing.assert_array_equal(whole.actions, parts.actions)
    np.testing.assert_array_equal(whole.similarity, parts.similarity)


def test_memory_does_not_grow_with_texts_times_actions() -> None:
    texts, actions = vectors(33, 6_000, 8), vectors(34, 6_000, 8)
    most_similar(texts[:1], actions[:1])
    tracemalloc.start()
    most_similar(texts, actions)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6_000 * 6_000 * 4 / 15


def test_equal_actions_tie_and_the_lowest_wins_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "ACTIONS", 10)
    base = vectors(5, 9, 384)
    # Each of nine vectors 23 times, in other places and so in other corners of the products' blocks.
    actions = np.tile(base, (23, 1))[np.random.default_rng(6).permutation(9 * 23)]
    found = most_similar(vectors(7, 40, 384), actions, 3)
    for row, best in zip(found.actions, found.similarity, strict=True):
        same = np.flatnonzero((actions == actions[row[0]]).all(axis=1))
        np.testing.assert_array_equal(row, same[:3])
        assert best[0] == best[1] == best[2]


def test_products_in_single_precision_would_choose_wrongly_and_are_not_trusted() -> None:
    texts, base = vectors(30, 200, 384), vectors(31, 4, 384)
    # A hundred actions around each of four, as near to each other as single precision can tell numbers apart.
    noise = np.random.default_rng(32).integers(-1, 2, size=(100, 4, 384)) * 2.0**-23
    actions = (base * (1.0 + noise)).reshape(-1, 384).astype(np.float32)
    narrow = np.argmax(unit(texts).astype(np.float32) @ unit(actions).astype(np.float32).T, axis=1)
    exact = sorted_in_full(texts, actions, 1)[:, 0]
    assert (narrow != exact).mean() > 0.2
    np.testing.assert_array_equal(most_similar(texts, actions).actions[:, 0], exact)


def test_the_length_of_a_vector_does_not_matter() -> None:
    texts, actions = vectors(8, 30), vectors(9, 100)
    stretch = np.exp2(np.random.default_rng(10).integers(-20, 20, size=(100, 1))).astype(np.float32)
    plain, stretched = most_similar(texts, actions, 4), most_similar(texts * np.float32(0.25), actions * stretch, 4)
    np.testing.assert_array_equal(plain.actions, stretched.actions)
    np.testing.assert_array_equal(plain.similarity, stretched.similarity)


def test_renumbering_the_actions_renumbers_the_answer() -> None:
    texts, actions = vectors(11, 30), vectors(12, 100)
    order = np.random.default_rng(13).permutation(100)
    found = most_similar(texts, actions[order], 6)
    np.testing.assert_array_equal(order[found.actions], most_similar(texts, actions, 6).actions)


def test_one_action_is_the_nearest_to_everything_and_there_are_no_more_columns_than_actions() -> None:
    found = most_similar(vectors(14, 3), vectors(15, 1), 5)
    assert found.actions.tolist() == [[0], [0], [0]]


def test_a_vector_of_length_0_is_like_nothing_and_ties() -> None:
    found = most_similar(np.zeros((1, 24)), vectors(16, 5), 2)
    assert found.actions.tolist() == [[0, 1]]
    assert found.similarity.tolist() == [[0.0, 0.0]]


def test_no_text_gives_no_row() -> None:
    assert most_similar(np.empty((0, 24)), vectors(17, 5), 2).actions.shape == (0, 2)


def test_lists_restrict_what_is_looked_at() -> None:
    texts, actions = vectors(18, 6), vectors(19, 40)
    generator = np.random.default_rng(20)
    lists = np.array([generator.permutation(40)[:9] for _ in range(12)], dtype=np.int32)
    lists[::3, 5:] = -1
    text, row = generator.integers(0, 6, size=50), generator.integers(0, 12, size=50)
    found = most_similar_among(texts, actions, lists, text=text, row=row, count=7)
    cosines = unit(texts) @ unit(actions).T
    for i in range(50):
        allowed = np.sort(lists[row[i]][lists[row[i]] >= 0])
        expected = allowed[np.argsort(-cosines[text[i], allowed], kind="stable")][:7]
        np.testing.assert_array_equal(found.actions[i], np.pad(expected, (0, 7 - len(expected)), constant_values=-1))


def test_lists_of_all_actions_are_no_restriction() -> None:
    texts, actions = vectors(21, 15), vectors(22, 60)
    everything = np.array([np.random.default_rng(23).permutation(60)], dtype=np.int32)
    listed = most_similar_among(
        texts, actions, everything, text=np.arange(15), row=np.zeros(15, dtype=np.int64), count=9
    )
    free = most_similar(texts, actions, 9)
    np.testing.assert_array_equal(listed.actions, free.actions)
    np.testing.assert_array_equal(listed.similarity, free.similarity)


def test_an_empty_list_allows_nothing_and_an_action_listed_twice_is_one() -> None:
    lists = np.array([[-1, -1], [3, 3]], dtype=np.int32)
    found = most_similar_among(vectors(24, 1), vectors(25, 5), lists, text=[0, 0], row=[0, 1], count=2)
    assert found.actions.tolist() == [[-1, -1], [3, -1]]
    assert found.similarity[0].tolist() == [-np.inf, -np.inf]


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    texts, actions = vectors(26, 3), vectors(27, 4)
    broken = actions.copy()
    broken[2, 5] = np.nan
    for bad, message in ((broken, "row 2 of actions"), (vectors(28, 4, 7), "24 dimensions, those of actions 7")):
        with pytest.raises(InputError, match=message):
            most_similar(texts, bad)
    with pytest.raises(InputError, match="no action"):
        most_similar(texts, actions[:0])
    with pytest.raises(InputError, match="rows of numbers"):
        most_similar(texts[0], actions)
    for count in (0, 257):
        with pytest.raises(InputError, match="1 to 256"):
            most_similar(texts, actions, count)
    with pytest.raises(InputError, match="from 0 to 3"):
        most_similar_among(texts, actions, [[4]], text=[0], row=[0])
    with pytest.raises(InputError, match="a text that is not there"):
        most_similar_among(texts, actions, [[1]], text=[3], row=[0])
    with pytest.raises(InputError, match="a list that is not there"):
        most_similar_among(texts, actions, [[1]], text=[0], row=[1])


SMALL = """
import json, sys
import numpy as np
from counterplay.llm.actions.nearest import most_similar, most_similar_among
rng = np.random.default_rng(29)
texts, actions = rng.normal(size=(9, 13)).astype("f4"), rng.normal(size=(80, 13)).astype("f4")
actions[50:70] = actions[10:30]
free = most_similar(texts, actions, 6)
lists = np.array([[4, 70, 20, -1], [60, 20, 3, 1]])
listed = most_similar_among(texts, actions, lists, text=[0, 8, 3], row=[0, 1, 1], count=3)
json.dump([part.tolist() for one in (free, listed) for part in (one.actions, one.similarity)], sys.stdout)
"""


def test_interpreted_and_compiled_give_the_same_bits() -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", SMALL],
            env={**os.environ, "NUMBA_DISABLE_JIT": jit},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for jit in ("0", "1")
    ]
    assert json.loads(said[0]) == json.loads(said[1])
