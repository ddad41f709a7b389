"""The sentences say what the numbers say."""

from __future__ import annotations

from typing import Any

import pytest

from counterplay.reports.contrast import contrast, rivals
from counterplay.reports.coverage import coverage, points
from counterplay.reports.findings import findings
from counterplay.reports.grid import ruler
from counterplay.reports.highlights import highlights
from counterplay.reports.method import method
from counterplay.reports.numbers import Scale, decimal, listed, percent, probability, scale_of, significant

Results = list[dict[str, Any]]


def test_the_winner_is_named_with_those_who_cannot_be_told_apart(results: Results) -> None:
    said = findings(results[0])[0]
    assert said.startswith("“prior bandit” earned the most: .410 [.390, .430] a decision.")
    assert "cannot tell it apart from “embedding prior”" in said


def test_hybrids_that_do_not_pay_are_told_so(results: Results) -> None:
    said = " ".join(findings(results[0]))
    assert "clearly more than every one of the 6 hybrids. Here the hybrids do not pay." in said
    assert "clearly more than “LLM alone” (.210) and “bandit” (.070)" in said
    assert "clearly less than “embedding prior” (.400) and “prior bandit” (.410)" in said


def test_hybrids_that_pay_are_told_so_too(results: Results) -> None:
    for agent in results[0]["agents"]:
        if agent["settings"]["kind"] == "hybrid":
            agent["average_reward"] += 0.5
    assert "clearly less than every one of the 6 hybrids." in " ".join(findings(results[0]))


def test_coverage_is_counted_from_the_points(results: Results) -> None:
    said = " ".join(findings(results[1]))
    assert "13 of 15 intervals from the logged data held the exact value" in said
    assert "rejection replay 10 of 11, IPS 1 of 2, DR 2 of 2" in said
    counts = {one.estimator: (one.held, one.count, one.excusable) for one in coverage(points(results[1]))}
    assert counts == {"rejection replay": (10, 11, 0), "ips": (1, 2, 0), "dr": (2, 2, 0)}


def test_a_miss_within_the_error_of_the_exact_value_is_called_that(results: Results) -> None:
    results[1]["agents"][0]["truth"]["std_error"] = 0.02
    assert "One of the misses lies within the error of the exact value itself" in " ".join(findings(results[1]))


def test_warnings_are_counted(results: Results) -> None:
    assert "Of 6 estimates 1 asks for caution and 1 is unreliable" in " ".join(findings(results[1]))


def test_a_difference_allows_for_the_number_of_comparisons(results: Results) -> None:
    first, second = results[0]["agents"][1:3]
    one, many = contrast(first, second, 1), contrast(first, second, 100)
    assert one.value == pytest.approx(0.19)
    assert one.high - one.value == pytest.approx(1.959964 * 0.01 * 2**0.5)
    assert many.low < one.low < one.high < many.high


def test_every_hybrid_is_counted_once_against_each_rival(results: Results) -> None:
    for rival in rivals(results[0]):
        assert len(rival.more) + len(rival.open) + len(rival.less) == 6


def test_highlights_are_few_and_hold_the_winner(results: Results) -> None:
    found = highlights(results[0])
    assert found[0].agent == "prior bandit"
    assert len(found) <= 8
    assert len({one.colour for one in found}) == len(found)


def test_method_is_told(results: Results) -> None:
    said = " ".join(method(results[1]))
    for part in (
        "2,000 decisions, 30 actions",
        "c = .1",
        "11 agents, 3 seeds each, 200 rounds",
        "IPS and DR",
        "40 runs on line",
    ):
        assert part in said


def test_numbers_for_people() -> None:
    assert [decimal(x, 3) for x in (0.3712, -0.0124, 12.5, -0.0001)] == [".371", "−.012", "12.500", ".000"]
    assert scale_of([0.3712, 0.02]).places == 3
    assert scale_of([1234.0]).value(1234.2) == "1,234"
    assert [Scale(places=3).error(x) for x in (0.0, 0.00001, 0.0123)] == ["0", "<\u00a0.0001", ".0123"]
    assert [percent(x) for x in (0, 0.001, 0.0153, 0.14, 0.999, 1)] == [
        "0", ".10\u00a0%", "1.5\u00a0%", "14\u00a0%", "99.9\u00a0%", "100\u00a0%",
    ]  # fmt: skip
    assert probability(0.0002) == "<\u00a0.001"
    assert [significant(x) for x in (0, 4.125, 0.01234, 1e-9)] == ["0", "4.12", ".0123", "1.00e−09"]
    assert [listed(list("abcde")[:i]) for i in range(5)] == ["", "a", "a and b", "a, b and c", "a, b and 2 others"]


@pytest.mark.parametrize("values", [[0.1, 0.5], [0.0, 0.0], [-3e9, 5e9], [1e-8, 2e-8], [7.0]])
def test_a_ruler_has_a_few_marks_inside(values: list[float]) -> None:
    measure = ruler(values)
    assert 2 <= len(measure.marks()) <= 7
    assert all(0 <= measure.at(mark) <= 100 for mark in measure.marks())
    assert all(0 < measure.at(value) < 100 for value in values)
