"""Which action an answer names."""

from __future__ import annotations

import pytest

from counterplay.errors import ConfigurationError
from counterplay.llm.actions.parsers import SEARCHED, Names, Pattern, bare, folded

NAMES = Names(["Burns", "Injuries of limbs", "Other", "École"], ["T20", "S40", "burns", "Z9"])


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("Burns", 0),
        ("  burns.", 0),
        ("**BURNS**", 0),
        ('"Burns"\n', 0),
        ("injuries\tof   limbs!", 1),
        ("t20", 0),
        ("(S40)", 1),
        ("e\u0301cole", 3),
        ("\u200bＢＵＲＮＳ\ufeff", 0),
        ("burn", -1),
        ("burns and other", -1),
        ("injuries-of-limbs", -1),
        ("", -1),
        ("...", -1),
    ],
)
def test_a_name_is_found_whatever_its_case_space_and_surroundings(answer: str, action: int) -> None:
    assert NAMES.action(answer) == action


def test_every_name_names_its_own_action() -> None:
    texts = ["C", "C++", "C#", "+", "...", "naïve", "STRASSE 1"]
    names = Names(texts)
    assert [names.action(text) for text in texts] == list(range(7))


def test_of_equal_names_the_lowest_action_is_meant_and_a_text_goes_before_a_label() -> None:
    names = Names(["same", "Same", "other"], ["other", "x", "y"])
    assert names.action("SAME.") == 0
    assert names.action("other") == 2


def test_names_that_differ_in_their_surroundings_only_are_told_apart_or_not_named() -> None:
    names = Names(["C", "C++", "Ada"])
    assert [names.action(answer) for answer in ("c++", "c", "C++.", "*C*", "Ada.")] == [1, 0, -1, -1, 2]


def test_folding_and_baring_twice_changes_nothing() -> None:
    for text in ("  Ｓtraße!! ", "ﬁ", "İstanbul", "\u0345A", "«x y»", "½"):
        assert folded(folded(text)) == folded(text)
        assert bare(bare(folded(text))) == bare(folded(text))


def test_a_pattern_reads_its_group_where_it_first_matches() -> None:
    pattern = Pattern(r"(?i)answer:\s*(?P<action>[^\n]*)")
    assert pattern.read(["Let me think.\nAnswer: Burns\nAnswer: Other", "no", "ANSWER:"]) == ["Burns", None, ""]
    assert pattern.read([]) == []


def test_a_group_that_takes_no_part_in_the_match_is_not_read() -> None:
    assert Pattern(r"(?:a(?P<action>b)|c)").read(["ab", "c"]) == ["b", None]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(", "unclosed group"),
        ("abc", "no group 'action'"),
        ("(?P<act>a)", "no group 'action'"),
        (r"(?P<action>a)\1", "backreferences are not supported"),
        ("(?=x)(?P<action>a)", "look-around"),
        ("(?P<action>(a{1000}){1000})", "size limit"),
        ("", "no group 'action'"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_refused_with_the_reason(expression: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Pattern(expression)


def test_a_pattern_that_backtracks_for_ever_elsewhere_ends() -> None:
    pattern = Pattern(r"(?P<action>(a|aa|a*)*)b$")
    # By backtracking this would take longer than the age of the universe.
    assert pattern.read(["a" * SEARCHED] * 3) == [None] * 3


def test_only_the_beginning_of_a_very_long_answer_is_searched() -> None:
    pattern = Pattern(r"(?P<action>needle)")
    hay = "x" * (SEARCHED - 6)
    assert pattern.read([hay + "needle", hay + "xneedle"]) == ["needle", None]
