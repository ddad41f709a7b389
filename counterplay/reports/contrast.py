"""Which of two replayed agents earned more: a verdict that allows for luck and for the number of agents compared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

from counterplay.reports.results import Result, Row, agents_of, hybrids, kind_of

Verdict = Literal["more", "less", "open"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One agent minus another, with the interval of the difference."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether the first earned more or less, or the interval holds 0."""
        return "more" if self.low > 0 else "less" if self.high < 0 else "open"


def contrast(first: Row, second: Row, comparisons: int) -> Contrast:
    """The difference of two agents, at 95 % for so many comparisons together (Bonferroni).

    The two errors are added as if they were independent. Both agents met the same decisions, so their errors mostly
    go the same way and the interval is rather too wide than too narrow.
    """
    quantile = NormalDist().inv_cdf(1 - 0.025 / max(1, comparisons))
    half = quantile * math.hypot(_error(first), _error(second))
    value = first["average_reward"] - second["average_reward"]
    return Contrast(value=value, low=value - half, high=value + half)


def _error(agent: Row) -> float:
    error: Any = agent["std_error"]
    return 0.0 if error is None else float(error)


def not_apart_from_best(result: Result) -> list[Row]:
    """The agents that cannot be told apart from the one that earned most."""
    best, *rest = agents_of(result)
    return [agent for agent in rest if contrast(best, agent, len(rest)).verdict == "open"]


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A simpler agent, and which hybrids earned more, less, or too nearly the same to tell."""

    role: str
    agent: Row
    more: tuple[str, ...]
    open: tuple[str, ...]
    less: tuple[str, ...]
    against_best: Contrast


ROLES = {
    "policy": "asks no model, never learns",
    "model": "a language model alone",
    "bandit": "a bandit alone, from zero",
    "prior bandit": "a bandit alone, from the embedding prior",
}


def rivals(result: Result) -> list[Rival]:
    """The best agent of each simpler kind against every hybrid; none without hybrids."""
    mixed = hybrids(result)
    simple = {role: _best(result, role) for role in ROLES}
    if not mixed:
        return []
    count = len(mixed) * sum(agent is not None for agent in simple.values())
    return [_rival(role, agent, mixed, count) for role, agent in simple.items() if agent is not None]


def _best(result: Result, role: str) -> Row | None:
    return next((agent for agent in agents_of(result) if kind_of(agent) == role), None)


def _rival(role: str, agent: Row, mixed: list[Row], count: int) -> Rival:
    names: dict[Verdict, list[str]] = {"more": [], "open": [], "less": []}
    for hybrid in mixed:
        names[contrast(hybrid, agent, count).verdict].append(hybrid["agent"])
    return Rival(
        role=role,
        agent=agent,
        more=tuple(names["more"]),
        open=tuple(names["open"]),
        less=tuple(names["less"]),
        against_best=contrast(mixed[0], agent, count),
    )
