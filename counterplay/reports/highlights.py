"""Which agents a figure shows in colour: enough to tell the story, few enough to read."""

from __future__ import annotations

from dataclasses import dataclass

from counterplay.reports.results import Result, agents_of, hybrids, kind_of


@dataclass(frozen=True, kw_only=True)
class Highlight:
    """An agent with its letter, its colour and its dashes: the same in every figure and table of an experiment."""

    agent: str
    key: str
    colour: str
    dash: tuple[float, ...]


def highlights(result: Result) -> list[Highlight]:
    """The highlighted agents, the best first. Hybrids have solid lines, all others dashes."""
    mixed = {agent["agent"] for agent in hybrids(result)}
    return [
        Highlight(agent=name, key=chr(65 + i), colour=f"s{i + 1}", dash=() if name in mixed else (4.0, 1.6))
        for i, name in enumerate(best_of_each_kind(result))
    ]


def best_of_each_kind(result: Result, most: int = 8) -> list[str]:
    """The agents to draw in colour: the best of each simpler kind, and the best hybrids of different selectors."""
    ranked = agents_of(result)
    kinds = ("prior bandit", "policy", "model", "bandit", "constant", "uniform")
    chosen = [next((a["agent"] for a in ranked if kind_of(a) == kind), None) for kind in kinds]
    selectors: dict[str, str] = {}
    for agent in hybrids(result):
        selectors.setdefault(str(agent["settings"].get("selector", {}).get("kind")), agent["agent"])
    wanted = {name for name in [*list(selectors.values())[:3], *chosen] if name is not None}
    for agent in ranked:
        if len(wanted) < min(most, 4):
            wanted.add(agent["agent"])
    return [agent["agent"] for agent in ranked if agent["agent"] in wanted][:most]
