"""Hashed features: the same everywhere and always, collisions as expected, bad columns refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators import CrossFittedRidge, HashedFeatures, assign_folds, hash_features
from counterplay.estimators.models import hash_tokens


def _fnv_and_splitmix(text: str) -> int:
    """The documented hash, a byte at a time."""
    state = 0xCBF29CE484222325
    for byte in text.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return _splitmix(state)


def _splitmix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_the_hash_is_the_documented_one() -> None:
    words = ["", "a", "Zürich", "東京", "a longer one, with spaces"]
    found = hash_tokens(categories={"city": words}, numbers={"age": np.arange(5)}, crosses=[("city", "age")])
    for row, word in enumerate(words):
        city, age = _fnv_and_splitmix(f"city={word}"), _fnv_and_splitmix("age")
        assert found.hashes[row].tolist() == [city, age, _splitmix((_splitmix(city) + age) % 2**64)]
    assert found.values.tolist() == [[1, age, age] for age in range(5)]
    # FNV-1a-64 of "a", as its authors publish it.
    assert _splitmix(0xAF63DC4C8601EC8C) == _fnv_and_splitmix("a")


def test_hashed_columns_are_fixed_for_ever() -> None:
    # A stored model depends on these columns: whoever changes them changes what it says.
    found = hash_features(categories={"city": ["Rome", "Oslo"]}, width=1000)
    assert found.indices.tolist() == [[195], [177]]


def test_a_category_is_the_same_as_word_number_or_object() -> None:
    ways = [["3", "12"], [3, 12], np.array([3, 12], np.uint8), np.array(["3", "12"], object)]
    ways += [np.array(["3", "12"], np.dtypes.StringDType()), np.array(["3", "12", "a long word"])[:2]]
    found = [hash_features(categories={"arm": way}).indices.tolist() for way in ways]
    assert all(indices == found[0] for indices in found)


def test_tokens_are_ragged_and_cross_with_categories() -> None:
    found = hash_tokens(
        categories={"action": ["buy", "sell"]}, tokens={"text": [["up", "up"], []]}, crosses=[("action", "text")]
    )
    assert found.values.tolist() == [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]]
    assert found.hashes[0, 1] == found.hashes[0, 2] == _fnv_and_splitmix("text=up")
    swapped = hash_tokens(
        categories={"action": ["buy", "sell"]}, tokens={"text": [["up", "up"], []]}, crosses=[("text", "action")]
    )
    assert swapped.hashes[0, 3] != found.hashes[0, 3]


def test_collisions_are_counted_and_are_what_a_random_hash_would_have() -> None:
    words = np.array([f"word {i}" for i in range(5000)])
    found = hash_tokens(categories={"word": np.r_[words, words]})
    for width in (2**12, 2**14, 2**18):
        collisions = found.collisions(width)
        columns = found.features(width).indices[:5000, 0]
        assert collisions.tokens == 5000
        assert collisions.sharing == sum(np.count_nonzero(columns == c) > 1 for c in columns)
        assert abs(collisions.sharing - collisions.expected) < 5 * np.sqrt(2 * collisions.expected)


def test_an_effect_that_depends_on_the_context_is_learnt_from_a_cross() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    country, action = rng.integers(0, 5, n), rng.integers(0, 5, n)
    reward, fold = (country == action) + 0.1 * rng.normal(size=n), assign_folds(n, 4)
    errors = []
    for crosses in ([], [("country", "action")]):
        features = hash_features(categories={"country": country, "action": action}, crosses=crosses, width=1024)
        predicted = CrossFittedRidge(features, reward, fold).predict(features, fold)
        errors.append(np.mean((predicted - (country == action)) ** 2))
    assert errors[1] < 0.001 < 0.1 < errors[0]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({}, ConfigurationError, "No column was given"),
        ({"categories": {"a": [0.5, 1.5]}}, EvidenceError, "Column 'a' holds float64.*belong in numbers"),
        ({"categories": {"a": np.array(["x", None], object)}}, EvidenceError, "Column 'a' holds NoneType beside text"),
        ({"numbers": {"a": [1.0, np.nan]}}, EvidenceError, "Column 'a' is nan at row 1"),
        ({"numbers": {"a": [1.0, 1e39]}}, EvidenceError, "fit float32"),
        ({"numbers": {"a": ["x"]}}, EvidenceError, r"Column 'a' holds .* numbers are needed"),
        ({"tokens": {"a": ["one text"]}}, EvidenceError, r"text.split\(\)"),
        ({"tokens": {"a": np.array(["one text"])}}, EvidenceError, r"text.split\(\)"),
        ({"tokens": {"a": [[1, 2.5]]}}, EvidenceError, "Column 'a' holds float64"),
        ({"numbers": {"a": [1]}, "categories": {"a": ["x"]}}, ConfigurationError, "'a' is given twice"),
        (
            {"numbers": {"a": [1]}, "categories": {"b": ["x", "y"]}},
            EvidenceError,
            "'b' has 2 rows and 'a' has 1|1 rows",
        ),
        ({"numbers": {"age": [1]}, "crosses": [("age", "aeg")]}, ConfigurationError, "Did you mean 'age'"),
        ({"numbers": {"age": [1]}, "crosses": ["age"]}, ConfigurationError, "two or more columns"),
        ({"numbers": {"age": [1]}, "width": 0}, ConfigurationError, "width is 0"),
    ],
)
def test_bad_columns_are_refused_by_name(columns: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hash_features(**columns)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.full((2, 3), 9, np.int32)}, r"\[0, 9\)"),
        ({"indices": np.zeros((2, 2), np.int32)}, "one shape"),
        ({"values": np.ones((2, 3))}, "float32 values"),
        ({"indices": np.zeros((2, 3), np.int64)}, "int32 indices"),
    ],
)
def test_hashed_features_of_ones_own_are_checked(changes: dict[str, Any], message: str) -> None:
    good = {"indices": np.zeros((2, 3), np.int32), "values": np.ones((2, 3), np.float32), "width": 9}
    with pytest.raises(EvidenceError, match=message):
        HashedFeatures(**(good | changes))
