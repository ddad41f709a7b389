"""Packing token sequences into prefix trees: every pair once, every token once, nobody sees a neighbour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from counterplay.llm.engines.beginnings import shared_length
from counterplay.llm.engines.scoring import Pair, pack

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6).map(tuple)
PAIRS = st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=12)


@given(PAIRS, st.integers(1, 30))
def test_a_tree_reads_for_each_pair_exactly_its_own_tokens(pairs: list[Pair], limit: int) -> None:
    seen = []
    for tree in pack(pairs, max_tokens=limit):
        mask = tree.mask()
        for index, terms in tree.terms.items():
            prompt, continuation = pairs[index]
            assert [token for _, token in terms] == list(continuation)
            for place, (node, _) in enumerate(terms):
                # The rows of a node are its ancestors in order, so its position is how many it has.
                assert [tree.ids[i] for i in tree.rows[node]] == list(prompt + continuation[:place])
                assert mask[node].nonzero()[0].tolist() == tree.rows[node]
            seen.append(index)
    assert sorted(seen) == list(range(len(pairs)))


@given(PAIRS, st.integers(1, 30))
def test_a_tree_is_larger_than_the_limit_only_for_one_sequence(pairs: list[Pair], limit: int) -> None:
    for tree in pack(pairs, max_tokens=limit):
        longest = max(len(row) for row in tree.rows)
        assert len(tree.ids) <= max(limit, longest)


@given(PAIRS)
def test_in_one_tree_no_token_stands_twice_in_its_place(pairs: list[Pair]) -> None:
    (tree,) = pack(pairs, max_tokens=10_000)
    places = [tuple(tree.ids[i] for i in row) for row in tree.rows]
    assert len(set(places)) == len(places)
    sequences = {(prompt + rest)[:-1][: i + 1] for prompt, rest in pairs for i in range(len(prompt + rest) - 1)}
    assert set(places) == sequences


@given(PAIRS)
def test_the_trunk_is_common_to_all_prompts_and_leaves_each_a_token(pairs: list[Pair]) -> None:
    size = shared_length([prompt for prompt, _ in pairs])
    assert len({prompt[:size] for prompt, _ in pairs}) == 1
    assert all(len(prompt) > size for prompt, _ in pairs)


def test_sibling_texts_share_their_beginning() -> None:
    stem = (1, 2, 3, 4, 5)
    (tree,) = pack([((0,), (*stem, last, 9)) for last in range(10, 20)])
    assert len(tree.ids) == 1 + len(stem) + 10
