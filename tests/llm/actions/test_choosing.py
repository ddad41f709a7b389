"""From outputs to choices: numbers worked out by hand, and Algorithm 1 written out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.actions.choosing import (
    MISS,
    Actions,
    AnswerRule,
    Chosen,
    as_arrays,
    choose_by_rank,
    choose_by_text,
)
from counterplay.llm.vectors.embedding import nearest_actions

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]

WORDS = {
    "burns": (1.0, 0.0, 0.0),
    "colds": (0.0, 1.0, 0.0),
    "other": (0.0, 0.0, 1.0),
    "scald": (0.9, 0.1, 0.0),
    "chill": (0.2, 0.8, 0.0),
    "both": (0.6, 0.6, 0.1),
    "noise": (0.0, 0.0, 0.0),
}
ACTIONS = Actions(texts=("burns", "colds", "other"), labels=("T20", "J00", "X"))


def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.array([WORDS[text] for text in texts], dtype=np.float32)


def never(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    raise AssertionError(f"{texts} were embedded")


def said(*pairs: tuple[str, float]) -> dict[str, Any]:
    """A response of texts with their likelihoods."""
    return {"texts": [text for text, _ in pairs], "logprobs": [math.log(q) if q else -math.inf for _, q in pairs]}


def choose(*responses: Any, best: int = 9, actions: Actions = ACTIONS, by: Encode = encode, **rule: Any) -> Chosen:
    return choose_by_text(list(responses), actions, AnswerRule(**rule), by, best=best)


def rows(chosen: Chosen) -> list[dict[int, float]]:
    pairs = zip(chosen.actions, chosen.probabilities, strict=True)
    return [
        {int(action): round(float(share), 6) for action, share in zip(*pair, strict=True) if action >= 0}
        for pair in pairs
    ]


# Ranking


def test_the_candidate_of_highest_likelihood_is_chosen() -> None:
    assert choose_by_rank({"logprobs": [-3.0, -1.0, -2.0]}, [7, 4, 9]) == ([4], [1.0])


def test_a_tie_goes_to_the_lowest_action() -> None:
    assert choose_by_rank({"logprobs": [-1.0, -1.0, -1.0]}, [7, 4, 9]) == ([4], [1.0])


def test_several_share_by_likelihood_however_small_it_is() -> None:
    actions, shares = choose_by_rank({"logprobs": [-5000.0, -5000.0 + math.log(3.0), -9000.0]}, [0, 1, 2], best=2)
    assert actions == [1, 0]
    assert shares == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("logprobs", [[math.nan, -1.0], [None, -1.0], [-math.inf, -math.inf], [-1.0], [math.inf, 0.0]])
def test_log_likelihoods_that_rank_nothing_are_refused(logprobs: list[Any]) -> None:
    with pytest.raises(InputError, match="2 candidates"):
        choose_by_rank({"logprobs": logprobs}, [0, 1])


def test_the_nearest_actions_come_nearest_first_and_ties_lowest_first() -> None:
    actions = np.array([[0, 1], [2, 0], [1, 0], [1, 1]], dtype=np.float32)
    assert nearest_actions(np.array([[3, 0]], dtype=np.float32), actions, 4).tolist() == [[1, 2, 3, 0]]


def test_choices_of_different_length_are_padded_and_a_miss_stays_one() -> None:
    actions, probabilities = as_arrays([([2, 0], [0.5, 0.5]), MISS, ([1], [1.0])])
    assert actions.tolist() == [[2, 0], [-1, -1], [1, -1]]
    assert probabilities.tolist() == [[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]]


# Algorithm 1


def algorithm_1(
    response: dict[str, Any], vectors: dict[str, npt.NDArray[np.float64]], actions: npt.NDArray[np.float64], k: int
) -> npt.NDArray[np.float64]:
    """The paper's, as probabilities of all actions: one output after the other."""
    order = sorted(range(len(response["texts"])), key=lambda i: -response["logprobs"][i])[:k]
    q = np.array([math.exp(response["logprobs"][i]) for i in order])
    result = np.zeros(len(actions))
    for i, share in zip(order, q / q.sum(), strict=True):
        g = vectors[response["texts"][i]]
        cosines = [g @ a / math.sqrt((g @ g) * (a @ a)) for a in actions]
        result[cosines.index(max(cosines))] += share
    return result


@pytest.mark.parametrize("k", [1, 2, 5])
def test_algorithm_1_is_what_the_paper_says(k: int) -> None:
    generator = np.random.default_rng(1)
    names, labels = [f"text {i}" for i in range(30)], [f"action {i}" for i in range(11)]
    known = {name: generator.normal(size=6) for name in names + labels}
    responses = []
    for _ in range(50):
        texts = [str(name) for name in generator.choice(names, size=5, replace=False)]
        responses.append({"texts": texts, "logprobs": generator.normal(-8, 2, size=5).tolist()})
    chosen = choose_by_text(
        responses,
        Actions(texts=labels),
        AnswerRule(),
        lambda texts: np.array([known[text] for text in texts], dtype=np.float32),
        best=k,
    )
    matrix = np.array([known[label] for label in labels])
    for row, response in zip(rows(chosen), responses, strict=True):
        expected = algorithm_1(response, known, matrix, k)
        assert row == {i: round(p, 6) for i, p in enumerate(expected.tolist()) if p > 0}


def test_outputs_with_the_same_nearest_action_add_up_and_the_likeliest_action_comes_first() -> None:
    chosen = choose(said(("colds", 0.3), ("burns", 0.2), ("scald", 0.2), ("chill", 0.05)))
    assert chosen.actions.tolist() == [[0, 1]]
    assert chosen.probabilities[0] == pytest.approx([0.4 / 0.75, 0.35 / 0.75])


def test_an_output_said_twice_is_one_with_both_likelihoods() -> None:
    twice, once = said(("burns", 0.2), ("other", 0.3), (" burns ", 0.2)), said(("burns", 0.4), ("other", 0.3))
    assert rows(choose(twice, best=1)) == rows(choose(once, best=1)) == [{0: 1.0}]
    assert rows(choose(twice)) == rows(choose(once))


def test_equal_actions_tie_to_the_lowest_and_equal_shares_are_ordered_by_action() -> None:
    doubled = Actions(texts=("colds", "burns", "burns", "colds"))
    chosen = choose(said(("scald", 0.5), ("chill", 0.5)), actions=doubled)
    assert chosen.actions.tolist() == [[0, 1]]


def test_one_output_needs_no_likelihood() -> None:
    assert rows(choose({"texts": ["scald"]}, {"texts": ["chill"], "logprobs": [None]})) == [{0: 1.0}, {1: 1.0}]


def test_one_action_is_all_that_can_be_done() -> None:
    assert rows(choose(said(("chill", 0.5), ("other", 0.5)), actions=Actions(texts=("burns",)))) == [{0: 1.0}]


# Candidates


def test_outputs_act_among_the_candidates_of_their_context() -> None:
    lists = np.array([[1, 2, -1], [2, 0, -1], [0, 1, 2]], dtype=np.int32)
    listed = Actions(texts=ACTIONS.texts, lists=lists)
    responses = [said(("scald", 1.0))] * 3
    assert rows(choose(*responses, actions=listed)) == [{1: 1.0}, {0: 1.0}, {0: 1.0}]
    assert rows(choose(*responses, actions=listed, among="actions")) == [{0: 1.0}] * 3


def test_a_name_outside_of_the_candidates_falls_back() -> None:
    listed = Actions(texts=ACTIONS.texts, lists=np.array([[1, 2], [0, 1]], dtype=np.int32))
    responses = [said(("Burns", 1.0))] * 2
    missed = choose(*responses, actions=listed, names=True, fallback="abstain", by=never)
    assert rows(missed) == [{}, {0: 1.0}]
    assert (missed.tally.named, missed.tally.unnamed, missed.tally.abstained) == (1, 1, 1)
    # Nothing it may do is like burns at all: the lowest of the two.
    lower = [said(("burns", 1.0))] * 2
    assert rows(choose(*lower, actions=listed, names=True)) == [{1: 1.0}, {0: 1.0}]


def test_a_context_without_candidates_is_a_miss() -> None:
    listed = Actions(texts=ACTIONS.texts, lists=np.array([[-1, -1]], dtype=np.int32))
    chosen = choose(said(("burns", 1.0)), actions=listed)
    assert rows(chosen) == [{}]
    assert chosen.tally.unlike == 1


def test_lists_that_do_not_fit_are_refused() -> None:
    listed = Actions(texts=ACTIONS.texts, lists=np.array([[0], [1]], dtype=np.int32))
    with pytest.raises(InputError, match="2 lists of candidates do not fit 1 contexts"):
        choose(said(("burns", 1.0)), actions=listed)


# Temperature


def test_a_temperature_spreads_an_output_over_its_most_similar_actions() -> None:
    cosines = np.array([0.6, 0.6, 0.1]) / math.sqrt(0.73)
    weights = np.exp(cosines / 0.2)
    assert rows(choose(said(("both", 1.0)), temperature=0.2)) == [
        {i: pytest.approx(p, abs=2e-6) for i, p in enumerate(weights / weights.sum())}
    ]
    assert rows(choose(said(("both", 1.0)), temperature=0.2, kept=2)) == [{0: 0.5, 1: 0.5}]
    assert rows(choose(said(("both", 1.0)), temperature=0.2, kept=1)) == [{0: 1.0}]


def test_towards_temperature_0_is_the_nearest_and_towards_infinity_is_uniform() -> None:
    assert rows(choose(said(("scald", 0.5), ("chill", 0.5)), temperature=1e-300)) == [{0: 0.5, 1: 0.5}]
    assert rows(choose(said(("scald", 1.0)), temperature=1e9)) == [{0: 0.333333, 1: 0.333333, 2: 0.333333}]


def test_spread_outputs_mix_by_likelihood() -> None:
    one, two = choose(said(("scald", 1.0)), temperature=0.3), choose(said(("chill", 1.0)), temperature=0.3)
    (mixed,) = rows(choose(said(("scald", 0.75), ("chill", 0.25)), temperature=0.3))
    for action in range(3):
        expected = 0.75 * rows(one)[0][action] + 0.25 * rows(two)[0][action]
        assert mixed[action] == pytest.approx(expected, abs=2e-6)


def test_candidates_fewer_than_kept_share_all_of_it() -> None:
    listed = Actions(texts=ACTIONS.texts, lists=np.array([[0, 1, -1], [2, -1, -1]], dtype=np.int32))
    chosen = choose(said(("both", 1.0)), said(("both", 1.0)), actions=listed, temperature=0.5)
    assert rows(chosen) == [{0: 0.5, 1: 0.5}, {2: 1.0}]


# Names


def test_named_outputs_are_not_embedded() -> None:
    chosen = choose(said(("**Burns**.", 0.6), ("j00", 0.4)), names=True, by=never)
    assert rows(chosen) == [{0: 0.6, 1: 0.4}]
    assert (chosen.tally.outputs, chosen.tally.named) == (2, 2)


def test_an_output_that_names_nothing_falls_back_or_is_left_out() -> None:
    response = said(("Burns!", 0.25), ("chill", 0.75))
    assert rows(choose(response, names=True)) == [{0: 0.25, 1: 0.75}]
    left = choose(response, said(("chill", 1.0)), names=True, fallback="abstain", by=never)
    assert rows(left) == [{0: 1.0}, {}]
    assert (left.tally.unnamed, left.tally.abstained) == (2, 1)


def test_a_pattern_finds_the_name_and_what_it_finds_is_embedded_else() -> None:
    pattern = r"answer: (?P<action>\w+)"
    responses = [said((text, 1.0)) for text in ("I think... answer: Burns", "so answer: chill", "scald", "answer: ")]
    with pytest.raises(KeyError):
        choose(responses[3], pattern=pattern)
    assert rows(choose(*responses[:3], pattern=pattern)) == [{0: 1.0}, {1: 1.0}, {0: 1.0}]
    assert rows(choose(*responses, pattern=pattern, fallback="abstain", by=never)) == [{0: 1.0}, {}, {}, {}]


# Abstention


def test_an_output_unlike_every_action_is_left_out() -> None:
    response = said(("burns", 0.2), ("both", 0.8))
    chosen = choose(response, said(("both", 1.0)), least_similarity=0.9)
    assert rows(chosen) == [{0: 1.0}, {}]
    assert (chosen.tally.unlike, chosen.tally.abstained) == (2, 1)
    assert rows(choose(response, least_similarity=0.7)) == [{0: 1.0}]


def test_a_context_in_which_no_action_has_the_share_asked_for_is_a_miss() -> None:
    response = said(("burns", 0.4), ("colds", 0.3), ("other", 0.3))
    assert rows(choose(response, least_share=0.39)) == [{0: 0.4, 1: 0.3, 2: 0.3}]
    undecided = choose(response, least_share=0.41)
    assert rows(undecided) == [{}]
    assert undecided.tally.abstained == 1


def test_what_is_left_out_still_counts_against_the_best() -> None:
    response = said(("burns", 0.3), ("both", 0.7))
    assert rows(choose(response, least_similarity=0.9, least_share=0.25)) == [{0: 1.0}]
    assert rows(choose(response, least_similarity=0.9, least_share=0.35)) == [{}]


def test_a_text_that_the_embedder_does_not_know_is_left_out() -> None:
    chosen = choose(said(("noise", 1.0)), said(("noise", 0.5), ("chill", 0.5)))
    assert rows(chosen) == [{}, {1: 1.0}]
    assert chosen.tally.unlike == 2


# What may be missing


def test_misses_are_counted_by_their_reason() -> None:
    empty = [{"texts": []}, {"texts": ["  "], "logprobs": [-1.0]}, {"logprobs": [-1.0]}, {"texts": [None]}]
    chosen = choose(None, *empty, said(("scald", 1.0)))
    assert rows(chosen) == [{}, {}, {}, {}, {}, {0: 1.0}]
    assert (chosen.tally.without_output, chosen.tally.without_text, chosen.tally.abstained) == (1, 4, 0)


def test_no_context_and_no_answer_give_no_choice() -> None:
    assert choose(by=never).actions.shape == (0, 1)
    assert choose(None, by=never).actions.tolist() == [[-1]]


def test_an_empty_text_among_others_takes_no_share() -> None:
    assert rows(choose(said(("", 0.5), ("burns", 0.3), ("colds", 0.2)))) == [{0: 0.6, 1: 0.4}]


def test_an_impossible_output_takes_no_share() -> None:
    assert rows(choose(said(("burns", 0.0), ("colds", 0.2)))) == [{1: 1.0}]


@pytest.mark.parametrize(
    "logprobs", [[math.nan, -1.0], [None, -1.0], [-1.0], [], None, [math.inf, -1.0], [-math.inf, -math.inf]]
)
def test_several_outputs_without_likelihoods_are_refused_by_their_context(logprobs: Any) -> None:
    with pytest.raises(InputError, match=r"(?i)context 1"):
        choose(None, {"texts": ["burns", "colds"], "logprobs": logprobs})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"fallback": "guess"}, "fallback 'guess'"),
        ({"among": "candidate"}, "Did you mean 'candidates'"),
        ({"fallback": "abstain"}, "nothing would ever act"),
        ({"temperature": 0.0}, "above 0"),
        ({"temperature": math.nan}, "above 0"),
        ({"kept": 257}, "1 to 256"),
        ({"least_similarity": 1.5}, "least_similarity = 1.5"),
        ({"least_share": -0.1}, "least_share = -0.1"),
        ({"least_share": math.nan}, "least_share = nan"),
        ({"pattern": "("}, "unclosed group"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_by_its_field(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AnswerRule(**rule)


def test_no_output_at_all_cannot_act() -> None:
    with pytest.raises(InputError, match="1 or more"):
        choose(said(("burns", 1.0)), best=0)


# Laws


@pytest.mark.parametrize(
    "rule",
    [{}, {"temperature": 0.3, "kept": 4}, {"least_similarity": 0.3, "least_share": 0.2}, {"among": "actions"}],
    ids=str,
)
def test_probabilities_add_up_contexts_do_not_meet_and_renumbering_actions_renumbers_choices(
    rule: dict[str, Any],
) -> None:
    generator = np.random.default_rng(2)
    names, labels = [f"text {i}" for i in range(40)], [f"action {i}" for i in range(17)]
    known = {name: generator.normal(size=5).astype(np.float32) for name in names + labels}
    responses = [
        said(*((str(generator.choice(names)), float(generator.uniform())) for _ in range(4))) for _ in range(60)
    ]
    lists = np.array([generator.permutation(17)[:6] for _ in responses], dtype=np.int32)

    def run(order: npt.NDArray[np.int64], mine: slice = slice(None)) -> Chosen:
        where = np.argsort(order).astype(np.int32)
        actions = Actions(texts=[labels[i] for i in order], lists=where[lists[mine]])
        return choose(
            *responses[mine], actions=actions, by=lambda texts: np.array([known[text] for text in texts]), **rule
        )

    plain, order = run(np.arange(17)), generator.permutation(17)
    total = plain.probabilities.sum(axis=1)
    np.testing.assert_allclose(total, plain.actions[:, 0] >= 0)
    assert rows(run(np.arange(17), slice(20, 31))) == rows(plain)[20:31]
    assert [{int(order[a]): p for a, p in row.items()} for row in rows(run(order))] == rows(plain)
    if "among" not in rule:
        assert all(set(row) <= set(allowed.tolist()) for row, allowed in zip(rows(plain), lists, strict=True))
