"""From scores to probabilities to a draw. Run as a script, this file prints results for comparison with itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import special, stats

from counterplay.replay.kernels.exploring import (
    SpannerScratch,
    best_place,
    drawn_place,
    inverse_gap_probabilities,
    inverse_gap_probability,
    softmax_probabilities,
    spanner_inverse_gap,
    spanner_scratch,
    values_of,
)
from counterplay.replay.randomness import Purpose, uniforms
from counterplay.replay.spanner import barycentric_spanner, spanner_coefficients

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Design = NDArray[np.int32]


def softmax(values: Singles, temperature: float, count: int | None = None) -> Floats:
    out = np.full(len(values), 7.0)
    softmax_probabilities(values, len(values) if count is None else count, temperature, out)
    return out


def inverse_gap(values: Singles, gamma: float, *, extra: float = 0.0, count: int | None = None) -> Floats:
    out = np.full(len(values), 7.0)
    count = len(values) if count is None else count
    inverse_gap_probabilities(values, count, count + extra, gamma, out)
    return out


def spanner_law(values: Singles, vectors: Singles, iota: float) -> tuple[Floats, SpannerScratch, Design, int]:
    """The probabilities, the scratch that was used, the static spanner and the number of swaps."""
    static = barycentric_spanner(vectors)
    scratch, out = spanner_scratch(len(static), len(values)), np.full(len(values), 7.0)
    swaps = spanner_inverse_gap(values, iota, 2.0, static, spanner_coefficients(vectors, static), scratch, out)
    return out, scratch, static, swaps


def problem(seed: int, actions: int, dimensions: int) -> tuple[Singles, Singles]:
    """Values in (0, 1), of which more or fewer are near the highest, and vectors of full rank."""
    rng = np.random.default_rng(seed)
    values = rng.random(actions) ** (1.0, 8.0, 0.2)[seed % 3]
    return values.astype(np.float32), rng.standard_normal((actions, dimensions)).astype(np.float32)


def denominators(values: Singles, dimensions: int, iota: float) -> Floats:
    return np.sqrt(1 + dimensions + iota * (float(values.max()) - values.astype(float)))


def textbook_design(vectors: Floats, start: Design) -> Design:
    """Awerbuch and Kleinberg's swaps from a starting basis, the largest coefficient first, solving afresh each time."""
    design = start.copy()
    while True:
        coefficients = np.abs(np.linalg.solve(vectors[design].T, vectors.T))
        row, action = np.unravel_index(np.argmax(coefficients), coefficients.shape)
        if coefficients[row, action] < 2.0:
            return design
        design[row] = action


def textbook_law(values: Singles, design: Design, iota: float) -> Floats:
    """One of the design uniformly, played with probability D / (1 + D + iota gap), else the best: by enumeration."""
    p, best, dimensions = np.zeros(len(values)), int(np.argmax(values)), len(design)
    for action in design:
        played = dimensions / (1 + dimensions + iota * (float(values[best]) - float(values[action])))
        p[action] += played / dimensions
        p[best] += (1 - played) / dimensions
    return p


problems = given(
    st.integers(0, 100_000), st.integers(2, 40), st.integers(1, 10), st.sampled_from([0.0, 30.0, 2250.8, 1e5, 1e8])
)


def test_values_are_sigmoids_of_the_scores_with_their_intercept_or_the_scores() -> None:
    scores = np.linspace(-60, 60, 10_001).astype(np.float32)
    out = np.empty_like(scores)
    values_of(scores, 0.5, True, out)
    assert np.allclose(out, special.expit(scores.astype(float) + 0.5), rtol=3e-7, atol=0)
    assert (np.diff(out) >= 0).all()
    values_of(scores, 0.5, False, out)
    assert np.array_equal(out, scores + np.float32(0.5))


def test_scores_beyond_all_bounds_have_values_within_0_and_1() -> None:
    out = np.empty(4, np.float32)
    values_of(np.array([-np.inf, -1e30, 1e30, np.inf], np.float32), 0.0, True, out)
    assert (out[:2] < 1e-27).all()
    assert (out[2:] == 1).all()


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32) | st.sampled_from([0.0, -0.0, 1.0]), min_size=1, max_size=40))
def test_the_best_place_is_the_first_of_the_highest(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert best_place(array, len(array)) == int(np.argmax(array))
    padded = np.append(array, np.float32(2.0**100))
    assert best_place(padded, len(array)) == int(np.argmax(array))


@given(st.integers(0, 100_000), st.integers(1, 60), st.floats(1e-3, 1e3), st.floats(0, 1e6))
@settings(deadline=None)
def test_softmax_and_inverse_gap_are_their_formulas_and_sum_to_one(
    seed: int, count: int, temperature: float, gamma: float
) -> None:
    values = np.random.default_rng(seed).random(count + 3).astype(np.float32)
    allowed, best = values[:count].astype(float), int(np.argmax(values[:count]))
    soft = softmax(values, temperature, count)
    expected = special.softmax(allowed / temperature)
    assert np.allclose(soft[:count], np.maximum(expected, expected.max() * np.exp(-64.0)), rtol=1e-7, atol=0)
    for extra in (0.0, 1.0):
        gap = inverse_gap(values, gamma, extra=extra, count=count)
        formula = 1 / (count + extra + gamma * (allowed.max() - allowed))
        formula[best] = 1 - np.delete(formula, best).sum()
        assert np.allclose(gap[:count], formula, rtol=1e-12, atol=1e-14)
        for action in range(count):
            alone = inverse_gap_probability(values, count, count + extra, gamma, action)
            assert alone == pytest.approx(gap[action], rel=1e-12, abs=1e-14)
        assert gap.sum() == pytest.approx(1, abs=1e-12)
        assert (gap >= 0).all()
        assert (gap[count:] == 0).all()
    assert soft.sum() == pytest.approx(1, abs=1e-12)
    assert (soft[:count] > 0).all()
    assert (soft[count:] == 0).all()


def test_inverse_gap_is_the_draw_and_reject_of_squarecb() -> None:
    values, _ = problem(1, 9, 2)
    p = np.zeros(9)
    for action in range(9):
        played = 9 / (9 + 50.0 * (float(values.max()) - float(values[action])))
        p[action] += played / 9
        p[np.argmax(values)] += (1 - played) / 9
    assert np.allclose(inverse_gap(values, 50.0), p, atol=1e-12)
    all_are_the_spanner = textbook_law(values, np.arange(9, dtype=np.int32), 50.0)
    assert np.allclose(inverse_gap(values, 50.0, extra=1.0), all_are_the_spanner, atol=1e-12)


def test_the_limits_of_exploration_are_uniform_and_greedy() -> None:
    values, _ = problem(2, 7, 2)
    greedy = np.eye(7)[np.argmax(values)]
    assert np.allclose(inverse_gap(values, 0.0), 1 / 7, atol=1e-15)
    assert np.allclose(inverse_gap(values, 1e12), greedy, atol=1e-9)
    assert np.allclose(softmax(values, 1e300), 1 / 7, atol=1e-15)
    assert np.allclose(softmax(values, 1e-300), greedy, atol=1e-25)


def test_the_lowest_of_several_best_actions_is_the_greedy_one() -> None:
    tied = np.array([0.2, 0.9, 0.1, 0.9], np.float32)
    assert inverse_gap(tied, 1e12)[1] == pytest.approx(0.75)
    assert inverse_gap(tied, 1e12)[3] == pytest.approx(0.25)
    vectors = np.array([[1, 0], [0, 1], [1, 1], [1, -1]], np.float32)
    p, scratch, _, _ = spanner_law(tied, vectors, 1e9)
    assert set(scratch.members.tolist()) == {1, 3}
    assert np.allclose(p, [0, 2 / 3, 0, 1 / 3], atol=1e-6)


@problems
@settings(deadline=None, max_examples=150)
def test_the_design_is_a_spanner_of_the_reweighted_vectors(seed: int, more: int, dimensions: int, iota: float) -> None:
    values, vectors = problem(seed, dimensions + more, dimensions)
    p, scratch, static, swaps = spanner_law(values, vectors, iota)
    reweighted = vectors.astype(float) / denominators(values, dimensions, iota)[:, None]
    fresh = np.linalg.solve(reweighted[scratch.members].T, reweighted.T)
    assert np.abs(fresh).max() <= 2 + 1e-5
    assert len(set(scratch.members.tolist())) == dimensions
    assert np.array_equal(scratch.members, textbook_design(reweighted, static))
    assert swaps > 0 or np.array_equal(scratch.members, static)
    assert np.allclose(p, textbook_law(values, scratch.members, iota), atol=1e-12)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()


@pytest.mark.parametrize("iota", [1e2, 1e4, 1e7, 1e10])
def test_coefficients_do_not_drift_over_many_swaps(iota: float) -> None:
    values, vectors = problem(3, 311, 50)
    most = 0
    for seed in range(5):
        values = np.random.default_rng(seed).random(311).astype(np.float32)
        _, scratch, _, swaps = spanner_law(values, vectors, iota)
        most = max(most, swaps)
        if swaps > 0:
            shares = denominators(values, 50, iota)
            fresh = np.linalg.solve(vectors[scratch.members].T.astype(float), vectors.T.astype(float))
            drift = np.abs(scratch.table - fresh) * shares[scratch.members][:, None] / shares
            assert drift.max() < 1e-5
    assert most >= (15 if iota > 1e3 else 0)


@problems
@settings(deadline=None, max_examples=60)
def test_relabelling_the_actions_relabels_their_probabilities(
    seed: int, more: int, dimensions: int, iota: float
) -> None:
    values, vectors = problem(seed, dimensions + more, dimensions)
    order = np.random.default_rng(seed).permutation(len(values))
    moved_values, moved_vectors = values[order], vectors[order]
    assert np.allclose(softmax(moved_values, 0.1), softmax(values, 0.1)[order], atol=1e-12)
    assert np.allclose(inverse_gap(moved_values, iota), inverse_gap(values, iota)[order], atol=1e-12)
    moved, here = spanner_law(moved_values, moved_vectors, iota)[0], spanner_law(values, vectors, iota)[0]
    assert np.allclose(moved, here[order], atol=1e-12)


def test_a_context_has_the_same_law_whatever_came_before() -> None:
    _, vectors = problem(0, 60, 8)
    static = barycentric_spanner(vectors)
    coefficients = spanner_coefficients(vectors, static)
    before = coefficients.copy()
    shared, laws = spanner_scratch(8, 60), []
    contexts = [np.random.default_rng(seed).random(60).astype(np.float32) for seed in range(12)]
    for values in contexts:
        laws.append(np.empty(60))
        spanner_inverse_gap(values, 3000.0, 2.0, static, coefficients, shared, laws[-1])
    for values, law in zip(reversed(contexts), reversed(laws), strict=True):
        again = np.empty(60)
        swaps = spanner_inverse_gap(values, 3000.0, 2.0, static, coefficients, shared, again)
        assert swaps > 0
        assert np.array_equal(again, law)
    assert np.array_equal(coefficients, before)


def test_without_iota_the_static_spanner_is_explored_evenly() -> None:
    values, vectors = problem(4, 30, 6)
    p, _, static, swaps = spanner_law(values, vectors, 0.0)
    assert swaps == 0
    best = int(np.argmax(values))
    others = [a for a in static if a != best]
    assert np.allclose(p[others], 1 / 7)
    assert p[best] == pytest.approx(1 - len(others) / 7)
    assert np.count_nonzero(p) == len({*static.tolist(), best})


def test_with_a_huge_iota_the_best_action_is_played() -> None:
    values, vectors = problem(5, 30, 6)
    p, scratch, _, _ = spanner_law(values, vectors, 1e10)
    assert p[np.argmax(values)] > 1 - 1e-6
    assert np.argmax(values) in scratch.members


@pytest.mark.parametrize("repeated", [0, 7, 19])
def test_a_thousand_duplicates_of_an_action_are_not_explored_more_than_it(repeated: int) -> None:
    values, vectors = problem(6, 20, 6)
    many, copies = np.append(values, [values[repeated]] * 1024), np.append(vectors, [vectors[repeated]] * 1024, axis=0)
    p, scratch, _, _ = spanner_law(many, copies, 2250.8)
    alone, _, _, _ = spanner_law(values, vectors, 2250.8)
    assert np.count_nonzero(p) <= 7
    assert len(set(scratch.members.tolist())) == 6
    assert np.count_nonzero(p[20:]) <= 1
    assert p[repeated] + p[20:].sum() == pytest.approx(alone[repeated], abs=1e-9)
    assert np.allclose(np.delete(p[:20], repeated), np.delete(alone, repeated), atol=1e-9)


def test_a_value_that_is_no_number_shows_in_the_probabilities() -> None:
    for sign in (1.0, -1.0):
        values, vectors = problem(7, 12, 3)
        values[5] = np.copysign(np.nan, sign)
        assert np.isnan(softmax(values, 1.0)).any()
        assert np.isnan(inverse_gap(values, 10.0)).any()
        p, _, _, swaps = spanner_law(values, vectors, 10.0)
        assert np.isnan(p).any()
        assert swaps == -1


def test_actions_are_drawn_with_their_probabilities() -> None:
    values, vectors = problem(9, 12, 4)
    luck = uniforms(11, Purpose.ACTION, 40_000)
    for p in (softmax(values, 0.3), inverse_gap(values, 20.0), spanner_law(values, vectors, 20.0)[0]):
        drawn = np.bincount([drawn_place(p, 12, u) for u in luck], minlength=12)
        assert (drawn[p == 0] == 0).all()
        assert stats.chisquare(drawn[p > 0], 40_000 * p[p > 0]).pvalue > 1e-3


def test_a_draw_never_leaves_what_is_possible() -> None:
    short = np.array([0.0, 0.3, 0.0, 0.7 - 1e-9, 0.0, 5.0])
    assert drawn_place(short, 5, 0.0) == 1
    assert drawn_place(short, 5, 0.3) == 3
    assert drawn_place(short, 5, np.nextafter(1.0, 0.0)) == 3


def results() -> dict[str, list[object]]:
    told: dict[str, list[object]] = {}
    for seed in range(6):
        values, vectors = problem(seed, 25, 6)
        scores = np.log(values / (1 - values)).astype(np.float32)
        values_of(scores, 0.25, True, values)
        p, scratch, _, swaps = spanner_law(values, vectors, 2250.8)
        alone = [inverse_gap_probability(values, 25, 25.0, 90.0, a) for a in range(25)]
        laws = (softmax(values, 0.2), inverse_gap(values, 90.0), p)
        numbers = [values.astype(float).tolist(), alone, *(law.tolist() for law in laws)]
        draws = [[int(drawn_place(law, 25, u)) for u in uniforms(seed, Purpose.ACTION, 50)] for law in laws]
        told[str(seed)] = [numbers, [int(swaps), best_place(values, 25), scratch.members.tolist(), draws]]
    return told


def test_compiled_and_interpreted_are_the_same() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, check=True)
    interpreted = json.loads(done.stdout)
    compiled = json.loads(json.dumps(results()))
    assert sum(run[1][0] for run in compiled.values()) > 5
    for seed, (numbers, exact) in compiled.items():
        assert exact == interpreted[seed][1]
        for ours, theirs in zip(numbers, interpreted[seed][0], strict=True):
            assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-12)


if __name__ == "__main__":
    json.dump(results(), sys.stdout)
