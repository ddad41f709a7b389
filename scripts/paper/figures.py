"""The paper's figures in its own form: curves over the rounds, means over seeds with bands of one standard error."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from paper.runs import WARM, Line, Run
from paper.tasks import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Runs = Mapping[str, Run]

SIZE = (9.6, 3.9)

EARLY = 0.01
"""Averages over a smaller share of the rounds are of a few rewards, and not drawn."""


class Curve(NamedTuple):
    """A line: its words, the run, its place among the colours, and whether it is dashed."""

    words: str
    run: Run
    colour: int
    dashed: bool = False


def rewards_and_calls(task: Task, runs: Runs) -> Figure:
    """Figure 1: average reward, and calls, of the hybrid beside its parents; and of a bandit that needs no LLM."""
    own = [
        Curve("log-barrier (Algorithm 2)", runs["log-barrier"], 0),
        Curve("SpannerGreedy", runs["SpannerGreedy"], 1),
        Curve("embedding prior, no LLM", runs["embedding prior"], 3, dashed=True),
        Curve("bandit from the embedding prior, no LLM", runs[WARM], 4, dashed=True),
    ]
    if task.llm:
        own.insert(2, Curve(f"{task.models[task.main]} alone", runs[task.models[task.main]], 2))
    return _pair(task, own, f"Figure 1 on {task.title}")


def by_model(task: Task, runs: Runs) -> Figure:
    """Figures 2 and 3: the hybrid with each model, and each model alone."""
    own = [Curve("SpannerGreedy", runs["SpannerGreedy"], 7)]
    for i, words in enumerate(task.models.values()):
        own.append(Curve(f"hybrid with {words}", runs[f"hybrid with {words}"], i))
        own.append(Curve(f"{words} alone", runs[words], i, dashed=True))
    return _pair(task, own, f"Figures 2 and 3 on {task.title}")


def over_time(task: Task, runs: Runs) -> Figure:
    """Figure 4: the probability that the bandit acts, and what its own choices earn by what it learned from."""
    from matplotlib.figure import Figure

    from counterplay.reports.svg import styled

    kinds = [
        Curve("inside the hybrid (log-barrier)", runs["log-barrier"], 0),
        Curve("alone", runs["SpannerGreedy"], 1),
        Curve("learning from the model's decisions only", runs["LLM always"], 2),
    ]
    with styled("paper"):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        shares = [
            Curve("clip .2 (the paper's)", runs["log-barrier"], 0),
            Curve("no smoothing", runs["smoothing none"], 5),
            Curve("mix .1", runs["smoothing mix .1"], 1),
        ]
        _draw(left, shares, lambda run: run.p_bandit, 0.0)
        left.set_ylim(-0.02, 1.02)
        left.set_ylabel("p(bandit) of the selector")
        _below(left, 1)
        _draw(right, kinds, lambda run: run.alone_so_far)
        right.set_ylabel("reward of the bandit's own choices")
        _from_nothing(right)
        _below(right, 1)
        _finish(figure, (left, right), f"Figure 4 on {task.title}", task.rounds)
    return figure


def svg(figure: Figure) -> bytes:
    """As SVG, the same bytes every time."""
    from counterplay.reports.svg import PAPER, styled

    target = io.BytesIO()
    with styled("paper"):
        figure.savefig(target, format="svg", facecolor=PAPER, metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _pair(task: Task, curves: Sequence[Curve], title: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from counterplay.reports.svg import styled

    with styled("paper"):
        figure = Figure(figsize=SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw(left, curves, lambda run: run.reward_so_far)
        left.set_ylabel("average reward so far")
        _from_nothing(left)
        _draw(right, [curve for curve in curves if curve.run.asked], lambda run: run.calls_so_far, 0.0)
        right.set_ylabel("calls of the model so far")
        right.set_ylim(0, 1.04 * task.rounds)
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False)
        _finish(figure, (left, right), title, task.rounds)
    return figure


def _draw(panel: Axes, curves: Sequence[Curve], what: Callable[[Run], Line], early: float = EARLY) -> None:
    from counterplay.reports.svg import SERIES

    for curve in curves:
        values, rounds = what(curve.run), curve.run.rounds
        late = rounds >= early * rounds[-1]
        middle = values.mean(axis=0)[late]
        spread = values.std(axis=0, ddof=1)[late] / np.sqrt(len(values)) if len(values) > 1 else np.zeros(len(middle))
        style: Any = {"linestyle": (0, (4, 2))} if curve.dashed else {}
        panel.plot(rounds[late], middle, color=SERIES[curve.colour], linewidth=1.8, label=curve.words, **style)
        panel.fill_between(
            rounds[late], middle - spread, middle + spread, color=SERIES[curve.colour], alpha=0.22, linewidth=0
        )


def _from_nothing(panel: Axes) -> None:
    # A little below, so that a curve at 0 is seen.
    top = panel.get_ylim()[1]
    panel.set_ylim(-0.015 * top, top)


def _below(panel: Axes, columns: int) -> None:
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, frameon=False)


def _finish(figure: Figure, panels: Sequence[Axes], title: str, rounds: int) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    for panel in panels:
        panel.set_xlabel("round")
        panel.set_xlim(0, rounds)
        panel.xaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        panel.tick_params(length=0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
