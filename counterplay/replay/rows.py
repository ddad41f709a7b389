"""Estimates and differences as plain rows, each beside the exact value where that is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from counterplay.estimators import Difference, Estimate

Row = dict[str, Any]
Exact = Mapping[str, float | None]
"""The exact value of each policy, by name; None where it is not known."""


def estimate_rows(estimates: Iterable[Estimate], exact: Exact) -> list[Row]:
    """The fields of each estimate, with `truth` and `covered`: whether the interval holds it."""
    return [_with_truth(estimate.to_json(), exact.get(estimate.policy)) for estimate in estimates]


def difference_rows(differences: Iterable[Difference], exact: Exact) -> list[Row]:
    """The fields of each difference, with `truth` and `covered`: whether the interval of this one alone holds it."""
    rows = []
    for difference in differences:
        ours, base = exact.get(difference.policy), exact.get(difference.baseline)
        rows.append(_with_truth(difference.to_json(), None if ours is None or base is None else ours - base))
    return rows


def _with_truth(row: Row, truth: float | None) -> Row:
    known = truth is not None and row["low"] is not None
    covered = bool(row["low"] <= truth <= row["high"]) if known else None
    return {**row, "truth": truth, "covered": covered}
