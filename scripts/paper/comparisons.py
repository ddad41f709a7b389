"""Tables that the paper does not have: the numbers of its figures, equal calls, and agents that it lacks."""

from __future__ import annotations

from paper import published
from paper.runs import mean
from paper.table import Table, decimals, signed, with_error
from paper.tables import Runs
from paper.tasks import Task


def comparisons(task: Task, runs: Runs) -> list[Table]:
    """All of them."""
    return [headlines(task, runs), inside(task, runs), equal_calls(runs), explorations(task, runs), lacking(runs)]


def headlines(task: Task, runs: Runs) -> Table:
    """The numbers of Figures 1 to 3: what the hybrid earns over the better of its parents."""
    rows = [
        (f"{own.model} on {own.data} (paper, Figure {own.figure})", decimals(own.reward), f"{own.times:.2f}",
         f"{100 * own.share:.2f}")
        for own in published.HEADLINES
    ]  # fmt: skip
    bandit = runs["SpannerGreedy"]
    for words in task.models.values():
        hybrid = runs[f"hybrid with {words}"]
        best = max(mean(bandit.reward), mean(runs[words].reward))
        rows.append(
            (f"{words} on {task.title} (here)", with_error(hybrid.reward), f"{mean(hybrid.reward) / best:.2f}",
             f"{100 * mean(hybrid.calls) / task.rounds:.2f}")
        )  # fmt: skip
    return Table(
        title="numbers of Figures 1 to 3: the hybrid over the better of bandit and model alone",
        head=("model and data", "reward", "times the better", "calls, % of T"),
        rows=tuple(rows),
        note="Under 1: the hybrid earns less than the better of the two. Rewards that the paper only draws are left "
        "empty; its row of Figure 2 is computed from its Table 4.",
    )


def inside(task: Task, runs: Runs) -> Table:
    """Figure 4's numbers: what a bandit's own choices earn, by what it learned from."""
    ours = {
        "bandit inside the hybrid": "log-barrier",
        "bandit alone": "SpannerGreedy",
        "bandit that learns from the LLM only": "LLM always",
    }
    rows = [
        (name, decimals(reward), with_error(runs[ours[name]].alone_so_far[:, -1]))
        for name, reward in published.INSIDE.items()
    ]
    return Table(
        title=f"numbers of Figure 4: what the bandit's own choices earn on {task.title}",
        head=("bandit", "reward, paper", "reward, here"),
        rows=tuple(rows),
    )


def equal_calls(runs: Runs) -> Table:
    """Each schedule of Table 5 beside log-barrier with its number of calls as budget."""
    rows = []
    for name in ("polynomial", "exponential", "polynomial, stretched", "exponential, stretched"):
        one, other = runs[name], runs[f"log-barrier, the calls of {name}"]
        rows.append(
            (
                name,
                f"{mean(one.calls):,.1f}",
                with_error(one.reward),
                f"{mean(other.calls):,.1f}",
                with_error(other.reward),
                signed(other.reward - one.reward),
            )
        )
    return Table(
        title="equal calls: each schedule, and log-barrier stopped when it has made as many",
        head=("schedule", "calls", "reward", "log-barrier, calls", "reward", "log-barrier less schedule, paired"),
        rows=tuple(rows),
        note="The budget is the schedule's expected number of calls; where log-barrier alone asks less, less are made.",
    )


def explorations(task: Task, runs: Runs) -> Table:
    """Bandits alone, beside what Zhu et al.'s notebooks say."""
    base = runs["SpannerGreedy"]
    rows = [
        (name, decimals(reward), with_error(runs[name].reward),
         "" if name == "SpannerGreedy" else signed(runs[name].reward - base.reward))
        for name, reward in published.NOTEBOOKS.items()
        if name in runs
    ]  # fmt: skip
    return Table(
        title="explorations of bandits alone",
        head=("bandit", "reward, notebooks", "reward, here", "here, less SpannerGreedy, paired"),
        rows=tuple(rows),
        note=f"Not Chen et al.: outputs of the public notebooks of Zhu, Foster, Langford and Mineiro (ICML 2022), "
        f"OneShotWikiLinks-311, one seed; ours on {task.title}. The numbers behind IGW and SpannerIGW are their rates.",
    )


REPEATED = ("log-barrier", "hybrid with ", "smoothing ", "Eq.", "early", "polynomial", "exponential", "LLM always")


def is_lacking(name: str) -> bool:
    """Whether an agent of that name is neither in the paper's tables nor one of their rows again."""
    return not name.startswith(REPEATED) or name.startswith("log-barrier over")


def lacking(runs: Runs) -> Table:
    """Every agent that the paper lacks, beside its choice and the parents."""
    names = sorted([*filter(is_lacking, runs), "log-barrier"], key=lambda name: -mean(runs[name].reward))
    titles = {
        "log-barrier": "log-barrier over SpannerGreedy (the paper's)",
        "best constant": "best constant, known in hindsight",
    }
    rows = [
        (titles.get(name, name), f"{mean(runs[name].calls):,.1f}" if runs[name].asked else "",
         with_error(runs[name].reward))
        for name in names
    ]  # fmt: skip
    return Table(
        title="what the paper lacks: other bandits, starts and selectors, highest reward first",
        head=("agent", "calls", "reward"),
        rows=tuple(rows),
        note="Exp3, Tsallis, Unsure, Priced and Guarded are selectors over SpannerGreedy and the main model.",
    )
