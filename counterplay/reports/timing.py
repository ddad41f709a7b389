"""How long the replay of each agent took: the one thing in a report that another machine would change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All runs of one agent together: seconds of replay, and the decisions of the log that were read in them."""

    agent: str
    runs: int
    seconds: float
    decisions: int


def timings(runs: Iterable[Mapping[str, Any]]) -> tuple[Timing, ...]:
    """One `Timing` for each agent from the stored runs, in the order of first appearance."""
    found: dict[str, Timing] = {}
    for run in runs:
        result = run["result"]
        acceptance = result.get("acceptance")
        decisions = int(acceptance["read"] if acceptance else result["rounds"])
        known = found.get(run["agent"], Timing(agent=run["agent"], runs=0, seconds=0.0, decisions=0))
        found[run["agent"]] = Timing(
            agent=known.agent,
            runs=known.runs + 1,
            seconds=known.seconds + float(run["seconds"]),
            decisions=known.decisions + decisions,
        )
    return tuple(found.values())
