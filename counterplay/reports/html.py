"""The report as one HTML file: no scripts, nothing fetched, light and dark, screen and paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from counterplay.reports.agents import agents_grid, rivals_grid, timing_grid
from counterplay.reports.estimates import comparisons_grid, coverage_grid, estimates_grid, traces
from counterplay.reports.figures import Picture, pictures_over_time
from counterplay.reports.findings import findings
from counterplay.reports.grid import Grid
from counterplay.reports.highlights import highlights
from counterplay.reports.method import method
from counterplay.reports.results import Result, checked
from counterplay.reports.svg import SERIES, SERIES_DARK
from counterplay.reports.timing import Timing
from counterplay.reports.truth import picture_of_truth

TITLE = "What other agents would have earned"


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything that the template shows of one experiment."""

    anchor: str
    name: str
    findings: tuple[str, ...]
    method: tuple[str, ...]
    agents: Grid | None
    rivals: Grid | None
    over_time: tuple[Picture, ...]
    truth: Picture | None
    coverage: Grid | None
    estimates: Grid | None
    comparisons: Grid | None
    timing: Grid | None
    traces: tuple[tuple[str, str], ...]
    definition: str
    colours: Mapping[str, str]


def render_html(
    results: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, Sequence[Timing]] | None = None,
    *,
    title: str = TITLE,
    notes: Sequence[str] = (),
) -> str:
    """The report of these experiments, in their order.

    Args:
        results: what `run_experiment` returned, or what a workspace holds.
        seconds: the timings of each experiment, by its id.
        title: the headline.
        notes: sentences of your own, shown below the headline.

    Returns:
        The same text for the same arguments, byte for byte.

    Raises:
        UnsupportedError: there are no results.
        InputError: a part of the results is missing, or a number is not finite.
    """
    known = checked(results)
    timing = seconds or {}
    sections = [
        _section(result, f"e{i}", timing.get(result["experiment"], ())) for i, result in enumerate(known, start=1)
    ]
    text: str = _template().render(
        title=title, notes=list(notes), sections=sections, series=SERIES, series_dark=SERIES_DARK
    )
    return text


def _section(result: Result, anchor: str, seconds: Sequence[Timing]) -> Section:
    return Section(
        anchor=anchor,
        name=result["name"],
        findings=tuple(findings(result)),
        method=tuple(method(result)),
        agents=agents_grid(result) if result["agents"] else None,
        rivals=rivals_grid(result),
        over_time=tuple(pictures_over_time(result, anchor)),
        truth=picture_of_truth(result, f"{anchor}-truth"),
        coverage=coverage_grid(result),
        estimates=estimates_grid(result),
        comparisons=comparisons_grid(result),
        timing=timing_grid(_in_order(result, seconds)) if seconds else None,
        traces=tuple(traces(result)),
        definition=json.dumps(result["definition"], indent=1, sort_keys=True, ensure_ascii=False),
        colours={one.key: one.colour for one in highlights(result)},
    )


def _in_order(result: Result, seconds: Sequence[Timing]) -> list[Timing]:
    names = [agent["agent"] for agent in result["agents"]]
    return sorted(seconds, key=lambda one: names.index(one.agent) if one.agent in names else len(names))


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("counterplay.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
