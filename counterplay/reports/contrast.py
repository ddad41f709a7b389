"""Which of two replayed agents earned more: a verdict that allows for luck and for the number of agents compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from counterplay.reports.results import Result, Row, agents_of, hybrids, kind_of

if TYPE_CHECKING:
    from counterplay.estimators.comparison.two_way import Sums

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

    It is paired by seeds and groups of decisions where the results hold the sums of both. Else the two errors are added
    as if they were independent: both agents met the same decisions, so their errors mostly go the same way, and the
    interval is rather too wide than too narrow.
    """
    below = 1 - 0.025 / max(1, comparisons)
    value = first["average_reward"] - second["average_reward"]
    sums = _sums([first, second])
    if sums is None:
        half = NormalDist().inv_cdf(below) * math.hypot(_error(first), _error(second))
    else:
        from counterplay.estimators.comparison.two_way import spread_of
        from counterplay.estimators.quantiles import t_quantile

        errors = sums.errors()
        error, freedom = spread_of(errors[:1] - errors[1:])
        half = t_quantile(below, float(freedom[0])) * float(error[0])
    return Contrast(value=value, low=value - half, high=value + half)


def _sums(agents: Sequence[Row]) -> Sums | None:
    """The sums by seed and group of decisions; None where an agent has none, or others have other seeds."""
    if not all("parts" in agent for agent in agents):
        return None
    import numpy as np

    from counterplay.estimators.comparison.two_way import Sums

    rewards, rounds = ([np.array(agent["parts"][name], float) for agent in agents] for name in Sums._fields)
    if len({part.shape for part in (*rewards, *rounds)}) > 1 or not all(part.sum() > 0 for part in rounds):
        return None
    return Sums(np.stack(rewards), np.stack(rounds))


def _error(agent: Row) -> float:
    error: Any = agent["std_error"]
    return 0.0 if error is None else float(error)


def not_apart_from_best(result: Result) -> list[Row]:
    """The agents that cannot be told apart from the one that earned most: those that ``counterplay best`` names, where
    the results hold what it needs."""
    best, *rest = agents_of(result)
    sums = _sums([best, *rest])
    if sums is not None:
        from counterplay.estimators.comparison.two_way import may_be_highest

        may_be_best = may_be_highest(sums, 0.95)[1:]
        return [agent for agent, may in zip(rest, may_be_best, strict=True) if may]
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
