"""What came out, in a few plain sentences made from the numbers: whatever they say."""

from __future__ import annotations

from collections.abc import Sequence

from counterplay.reports.advice import advice, left_out
from counterplay.reports.contrast import Rival, not_apart_from_best, rivals
from counterplay.reports.coverage import coverage, points
from counterplay.reports.numbers import listed, percent, whole
from counterplay.reports.results import (
    Result,
    Row,
    agents_of,
    estimator_name,
    estimators_of,
    hybrids,
    method_of,
    scale,
)


def quoted(name: str) -> str:
    """A name in a sentence; names hold commas."""
    return f"“{name}”"


def findings(result: Result) -> list[str]:
    """The sentences about one experiment."""
    said = []
    if result["agents"]:
        said.append(_winner(result))
        said += _hybrids(result)
    if result["comparisons"]:
        said += _comparisons(result)
    said += _covered(result)
    said += _gates(result)
    return [*said, *left_out(result), *result.get("notes", ()), *advice(result)]


def _worth(result: Result, agent: Row) -> str:
    unit = scale(result)
    value = unit.value(agent["average_reward"])
    return value if agent["low"] is None else f"{value} {unit.interval(agent['low'], agent['high'])}"


def _winner(result: Result) -> str:
    best, *rest = agents_of(result)
    how = "earned" if method_of(result) == "exact" else "was estimated to earn"
    said = f"{quoted(best['agent'])} {how} the most: {_worth(result, best)} a decision"
    if not rest:
        return f"{said}. It was the only agent."
    close = not_apart_from_best(result)
    if close:
        names = listed(quoted(agent["agent"]) for agent in close)
        return f"{said}. The data cannot tell it apart from {names}."
    second = rest[0]
    return f"{said}, clearly ahead of {quoted(second['agent'])} with {scale(result).value(second['average_reward'])}."


def _hybrids(result: Result) -> list[str]:
    mixed, against = hybrids(result), rivals(result)
    if not mixed or not against:
        return []
    best = mixed[0]
    said = [
        f"The best of {len(mixed)} hybrids, {quoted(best['agent'])}, earned {_worth(result, best)} and asked a model "
        f"in {percent(best['model_share'])} of its {whole(best['rounds'])} rounds. {_against(result, against)}"
    ]
    return said + [_plain_rival(result, rival, len(mixed)) for rival in against if rival.role == "policy"]


def _against(result: Result, against: list[Rival]) -> str:
    words = {"more": "clearly more than", "open": "neither clearly more nor less than", "less": "clearly less than"}
    unit = scale(result)
    groups: dict[str, list[str]] = {}
    for rival in against:
        name = f"{quoted(rival.agent['agent'])} ({unit.value(rival.agent['average_reward'])})"
        groups.setdefault(rival.against_best.verdict, []).append(name)
    parts = [
        f"{words[verdict]} {listed(groups[verdict], 4)}" for verdict in ("more", "open", "less") if verdict in groups
    ]
    return f"That is {', and '.join(parts)}."


def _plain_rival(result: Result, rival: Rival, count: int) -> str:
    name, value = quoted(rival.agent["agent"]), scale(result).value(rival.agent["average_reward"])
    start = f"{name}, which asks no model and never learns, earned {value}:"
    if len(rival.less) == count:
        return f"{start} clearly more than every one of the {count} hybrids. Here the hybrids do not pay."
    if len(rival.more) == count:
        return f"{start} clearly less than every one of the {count} hybrids."
    return (
        f"{start} {len(rival.more)} of {count} hybrids earned clearly more, {len(rival.less)} clearly less, "
        f"{len(rival.open)} cannot be told apart from it."
    )


def _comparisons(result: Result) -> list[str]:
    rows = result["comparisons"]
    if len({row["baseline"] for row in rows}) > 1:
        return [_pairs(rows)]
    baseline = quoted(rows[0]["baseline"])
    parts = []
    for name in estimators_of(result):
        own = [row for row in rows if row["estimator"] == name and row["low_all"] is not None]
        if own:
            more = sum(row["low_all"] > 0 for row in own)
            less = sum(row["high_all"] < 0 for row in own)
            parts.append((estimator_name(name), more, less, len(own)))
    if not parts:
        return [f"No estimator could compare the policies with {baseline}; the reasons stand in the table."]
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, *counts in parts:
        alike.setdefault(tuple(counts), []).append(name)
    words = "; ".join(
        f"by {listed(names, 9)} {more} {'is' if more == 1 else 'are'} clearly better and {less} clearly worse, of {n}"
        for (more, less, n), names in alike.items()
    )
    together = f"all intervals of an estimator together at {percent(rows[0]['level'])}"
    return [f"Policies against {baseline} on the same logged decisions, {together}: {words}."]


def _pairs(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row["low_all"] is not None]
    apart = sum(row["low_all"] > 0 or row["high_all"] < 0 for row in known)
    return (
        f"Of {len(rows)} pairs on the same logged decisions {apart} {'is' if apart == 1 else 'are'} clearly apart, all "
        f"intervals together at {percent(rows[0]['level'])}."
    )


def _covered(result: Result) -> list[str]:
    found = coverage(points(result))
    if not found:
        return []
    held, count = sum(one.held for one in found), sum(one.count for one in found)
    parts = ", ".join(f"{estimator_name(one.estimator)} {one.held} of {one.count}" for one in found)
    said = f"{held} of {count} intervals from the logged data held the exact value ({parts})."
    excusable = sum(one.excusable for one in found)
    if excusable:
        misses = f"{excusable} of the {count - held} misses lie" if excusable > 1 else "One of the misses lies"
        said += f" {misses} within the error of the exact value itself, which is a mean over runs on line."
    return [f"{said} All estimates come from one log, so they tend to hold or miss together."]


def _gates(result: Result) -> list[str]:
    rows = result["estimates"]
    if not rows:
        return []
    counts = {gate: sum(row["gate"] == gate for row in rows) for gate in ("caution", "unreliable")}
    if not any(counts.values()):
        if len(rows) == 1:
            return ["The estimate raised no warning."]
        return [f"None of the {len(rows)} estimates raised a warning."]
    parts = [f"{count} {'asks' if count == 1 else 'ask'} for caution" for count in [counts["caution"]] if count]
    parts += [f"{count} {'is' if count == 1 else 'are'} unreliable" for count in [counts["unreliable"]] if count]
    of = "The estimate" if len(rows) == 1 else f"Of {len(rows)} estimates"
    told = " and ".join(parts).removeprefix("1 ") if len(rows) == 1 else " and ".join(parts)
    return [f"{of} {told}; the reason stands beside {'it' if len(rows) == 1 else 'each'}."]
