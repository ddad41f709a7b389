"""How well the logged data found the exact values: for each estimator, how often and how far it was off."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from counterplay.reports.results import Result, estimators_of, replay_name


@dataclass(frozen=True, kw_only=True)
class Point:
    """One estimate beside its exact value, which has an error of its own where it comes from runs on line."""

    policy: str
    estimator: str
    value: float
    low: float
    high: float
    truth: float
    truth_error: float
    covered: bool


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """All estimates of one estimator. `excusable`: misses within the error of the exact value itself."""

    estimator: str
    count: int
    held: int
    mean_error: float
    root_mean_square: float
    excusable: int


def points(result: Result) -> list[Point]:
    """Every estimate that has an exact value beside it: those of replay first, then the estimators."""
    replayed = [
        _point(agent["agent"], replay_name(result), agent["average_reward"], agent, agent["truth"])
        for agent in result["agents"]
        if agent["truth"] is not None and agent["low"] is not None
    ]
    estimated = [
        _point(row["policy"], row["estimator"], row["value"], row, {"value": row["truth"], "covered": row["covered"]})
        for name in estimators_of(result)
        for row in result["estimates"]
        if row["estimator"] == name and row["truth"] is not None and None not in (row["value"], row["low"])
    ]
    return replayed + estimated


def _point(policy: str, estimator: str, value: float, interval: Any, truth: Any) -> Point:
    return Point(
        policy=policy,
        estimator=estimator,
        value=value,
        low=interval["low"],
        high=interval["high"],
        truth=truth["value"],
        truth_error=truth.get("std_error") or 0.0,
        covered=bool(truth["covered"]),
    )


def coverage(found: Iterable[Point]) -> list[Coverage]:
    """One `Coverage` for each estimator."""
    groups: dict[str, list[Point]] = {}
    for point in found:
        groups.setdefault(point.estimator, []).append(point)
    return [_coverage(name, group) for name, group in groups.items()]


def _coverage(estimator: str, group: list[Point]) -> Coverage:
    errors = [point.value - point.truth for point in group]
    return Coverage(
        estimator=estimator,
        count=len(group),
        held=sum(point.covered for point in group),
        mean_error=sum(errors) / len(errors),
        root_mean_square=math.sqrt(sum(error**2 for error in errors) / len(errors)),
        excusable=sum(not point.covered and _near(point) for point in group),
    )


def _near(point: Point) -> bool:
    half = (point.high - point.low) / 2
    return abs(point.value - point.truth) <= math.hypot(half, 1.96 * point.truth_error)
