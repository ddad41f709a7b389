"""Which column is which word."""

from __future__ import annotations

import pytest

from counterplay.errors import ColumnError
from counterplay.logs.decisions.columns import SYNONYMS, resolve

PROPENSITIES = (
    *("pscore", "propensity_score", "propensity", "action_prob", "probability", "prob", "p_log", "p"),
    *("_label_probability", "action_probability", "logging_prob"),
)


def found(*names: str, **explicit: str) -> dict[str, str]:
    return {word: str(column) for word, column in resolve(dict.fromkeys(names, "VARCHAR"), explicit).items()}


@pytest.mark.parametrize("name", [*PROPENSITIES, "PScore"])
def test_every_name_of_the_field_for_a_propensity_is_understood(name: str) -> None:
    assert found(name, "unrelated") == {"propensity": name}


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("reward", "reward"),
        ("r", "reward"),
        ("click", "reward"),
        ("clicks", "reward"),
        ("label", "reward"),
        ("action", "action"),
        ("a", "action"),
        ("item_id", "action"),
        ("arm", "action"),
        ("decision", "action"),
        ("chosen", "action"),
        ("_label_Action", "action"),
        ("actions", "candidates"),
        ("user_id", "cluster"),
        ("ts", "timestamp"),
        ("prompt", "text"),
    ],
)
def test_other_names_of_the_field_are_understood(name: str, word: str) -> None:
    assert found(name) == {word: name}


def test_a_label_cost_becomes_a_reward_with_its_sign_turned() -> None:
    assert found("_label_cost") == {"reward": "-_label_cost"}
    assert found("loss", reward="-loss") == {"reward": "-loss"}
    assert found("cost", reward="-cost") == {"reward": "-cost"}


def test_no_name_stands_for_two_words() -> None:
    names = [name.lstrip("-") for synonyms in SYNONYMS.values() for name in synonyms]
    assert len(names) == len(set(names))


def test_an_explicit_column_wins_over_synonyms() -> None:
    assert found("pscore", "p", "other", propensity="other") == {"propensity": "other"}


def test_a_word_mapped_to_nothing_is_left_out() -> None:
    assert found("user_id", "reward", cluster="") == {"reward": "reward"}


def test_a_mapped_column_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(ColumnError, match=r"no column 'pscor' .*Did you mean 'pscore'\?"):
        found("pscore", "reward", propensity="pscor")


def test_a_word_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ColumnError, match=r"Did you mean 'propensity'\?"):
        found("pscore", propensty="pscore")


def test_two_names_for_one_word_are_refused_with_the_way_to_choose() -> None:
    with pytest.raises(ColumnError, match=r"'pscore' and 'p' .*columns=\{'propensity': 'pscore'\}"):
        found("p", "pscore", "action", "reward")


def test_a_required_word_without_a_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(ColumnError, match=r"No column is the reward\. Did you mean 'rewrd'\?"):
        resolve({"action": "VARCHAR", "rewrd": "DOUBLE"}, None, ("action", "reward"))
    with pytest.raises(ColumnError, match=r"columns=\{'reward': '-loss'\}"):
        resolve({"action": "VARCHAR", "loss": "DOUBLE"}, None, ("action", "reward"))


def test_numbered_columns_are_features_in_the_order_of_their_numbers() -> None:
    assert found("x_10", "x_2", "x_0") == {"features": "x_0,x_2,x_10"}
    assert found("z9", "z10", "zebra", features="z*") == {"features": "z9,z10,zebra"}
    assert found("b", "age", features="age, b") == {"features": "age,b"}


def test_a_column_named_context_is_features_or_text_by_its_type() -> None:
    assert set(resolve({"context": "DOUBLE[]"}, None)) == {"features"}
    assert set(resolve({"context": "VARCHAR"}, None)) == {"text"}


def test_only_numbers_can_have_their_sign_turned() -> None:
    with pytest.raises(ColumnError, match="sign turned"):
        found("label2", action="-label2")
