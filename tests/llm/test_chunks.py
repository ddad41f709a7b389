"""Chunks between two commits: every request once, texts as many as some seconds allow."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest

from counterplay.llm.generate import CHUNK, COMMIT_SECONDS, FIRST_TEXTS, MOST_TEXTS, _Chunks
from counterplay.llm.prompting.requests import Request


def texts(count: int) -> dict[str, Request]:
    return {f"text {i}": {"prompt": "x" * (i * 7919 % 1_000)} for i in range(count)}


def rankings(count: int) -> dict[str, Request]:
    return {f"ranking {i}": {"continuations": [f"{i * 7919 % count}"]} for i in range(count)}


def drain(work: _Chunks, seconds_each: float) -> list[list[str]]:
    taken = []
    while chunk := work.next():
        taken.append(chunk)
        work.took(len(chunk), seconds_each * len(chunk))
    return taken


@pytest.mark.parametrize("seconds_each", [0.0, 0.001, 0.05, 10.0])
@pytest.mark.parametrize(("written", "ranked"), [(0, 0), (1, 0), (0, 1), (1_000, 3_000), (30_000, CHUNK), (64, 2_049)])
def test_every_request_is_in_one_chunk(written: int, ranked: int, seconds_each: float) -> None:
    requests = texts(written) | rankings(ranked)
    taken = drain(_Chunks(requests), seconds_each)
    assert Counter(key for chunk in taken for key in chunk) == Counter(list(requests))


def test_rankings_are_taken_in_chunks_of_neighbours_whatever_they_take() -> None:
    requests = rankings(3 * CHUNK + 5)
    taken = drain(_Chunks(requests), 10.0)
    assert sorted(map(len, taken)) == [5, CHUNK, CHUNK, CHUNK]
    for chunk in taken:
        said = [requests[key]["continuations"] for key in chunk]
        assert said == sorted(said)
    spans = sorted((requests[chunk[0]]["continuations"], requests[chunk[-1]]["continuations"]) for chunk in taken)
    assert all(one[1] < other[0] for one, other in pairwise(spans)), "chunks do not reach into each other"


@pytest.mark.parametrize(
    ("seconds_each", "wanted"), [(10.0, FIRST_TEXTS), (0.01, COMMIT_SECONDS / 0.01), (1e-9, MOST_TEXTS)]
)
def test_a_chunk_of_texts_takes_about_as_long_as_is_worth_losing(seconds_each: float, wanted: float) -> None:
    taken = drain(_Chunks(texts(4 * MOST_TEXTS)), seconds_each)
    assert len(taken[0]) == FIRST_TEXTS, "nothing is known of the first"
    # In whole runs of neighbours, so up to one run more than asked for; the last is what is left.
    assert all(wanted <= len(chunk) < wanted + FIRST_TEXTS for chunk in taken[1:-1])
    assert taken[1:-1]


def test_the_rate_of_the_last_chunk_counts() -> None:
    work = _Chunks(texts(20_000))
    work.took(100, 1.0)
    assert len(work.next()) == pytest.approx(100 * COMMIT_SECONDS, abs=FIRST_TEXTS)
    work.took(2_000, 400.0)
    assert len(work.next()) == pytest.approx(5 * COMMIT_SECONDS, abs=FIRST_TEXTS)


def test_texts_of_a_chunk_are_runs_of_about_one_length() -> None:
    requests = texts(150 * FIRST_TEXTS)
    for chunk in drain(_Chunks(requests), 0.02):
        for start in range(0, len(chunk), FIRST_TEXTS):
            lengths = [len(requests[key]["prompt"]) for key in chunk[start : start + FIRST_TEXTS]]
            assert max(lengths) - min(lengths) <= 10


def test_two_runs_go_in_different_orders() -> None:
    requests = texts(2_000) | rankings(20 * CHUNK)
    orders = set()
    for seed in range(4):
        random.seed(seed)
        orders.add(tuple(chunk[0] for chunk in drain(_Chunks(requests), 1.0)))
    assert len(orders) == 4
