"""Tables 1 to 7 of the paper in its own form, each published number beside ours."""

from __future__ import annotations

from collections.abc import Mapping

from paper import published
from paper.runs import WARM, Run, mean
from paper.table import Table, decimals, with_error
from paper.tasks import Task
from paper.timing import Timing

Runs = Mapping[str, Run]


def tables(task: Task, runs: Runs, timing: Timing | None = None) -> list[Table]:
    """Tables 1 to 7.

    Args:
        task: on which the agents ran.
        runs: `runs.run_all` of it.
        timing: what one decision of the language model takes; None where it was not timed.
    """
    return [
        _data_sets(task),
        _times(task, runs, timing),
        _call_shares(task, runs),
        _budgets(task, runs),
        _strategies(task, runs),
        _smoothing(task, runs),
        _several(task, runs),
    ]


def _data_sets(task: Task) -> Table:
    rows = [(f"{name} (paper)", f"{t:,}", f"{k:,}") for name, (t, k) in published.DATA_SETS.items()]
    return Table(
        number=1,
        title="data sets",
        head=("data", "rounds T", "actions"),
        rows=(*rows, (f"{task.title} (here)", f"{task.rounds:,}", f"{task.actions:,}")),
        note=task.about[0].upper() + task.about[1:] + ".",
    )


def _times(task: Task, runs: Runs, timing: Timing | None) -> Table:
    rows = [(f"{name} (paper)", f"{ratio:.2f}") for name, ratio in published.TIME_RATIOS.items()]
    bandit = runs["SpannerGreedy"].seconds
    if not task.llm:
        note = "No language model was run on this task, so there is nothing to time."
    elif timing is None:
        rows.append((f"{task.models[task.main]} (here)", "not timed"))
        note = "The language model was run on this task, and not timed."
    else:
        rows.append((f"{task.models[task.main]}, one thread (here)", f"{timing.seconds / bandit:,.0f}"))
        note = (
            f"Ours: {1000 * timing.seconds:.0f} ms ({timing.words}) over {1e6 * bandit:.1f} µs (the fastest seed of "
            f"SpannerGreedy: {task.rounds:,} rounds in compiled code on one core, learning included). Theirs is on a "
            "GPU, in PyTorch, and leaves learning out. The ratio says as much about the bandit's code as about the "
            "model, and belongs to this machine."
        )
    return Table(
        number=2,
        title="time of one decision, LLM over SpannerGreedy",
        head=("LLM", "ratio"),
        rows=tuple(rows),
        note=note,
    )


def _call_shares(task: Task, runs: Runs) -> Table:
    rows = [(f"{name} (paper)", decimals(share)) for name, share in published.CALL_SHARES.items()]
    for words in task.models.values():
        calls = runs[f"hybrid with {words}"].calls / task.rounds
        rows.append((f"{words} (here)", with_error(calls)))
    return Table(number=3, title="fraction of LLM calls, Algorithm 2", head=("LLM", "fraction"), rows=tuple(rows))


_HEAD = ("calls, paper", "% of T", "reward, paper", "calls, here", "% of T", "reward, here")


def _row(task: Task, name: str, row: published.Row | None, run: Run | None) -> tuple[str, ...]:
    row = row or published.Row(None, None)
    share = "" if row.calls is None else f"{100 * row.calls / published.ROUNDS:.2f}"
    theirs = ("" if row.calls is None else f"{row.calls:,.1f}", share, decimals(row.reward))
    if run is None:
        return (name, *theirs, "", "", "")
    calls = mean(run.calls)
    asked = (f"{calls:,.1f}", f"{100 * calls / task.rounds:.2f}") if run.asked else ("", "")
    return (name, *theirs, *asked, with_error(run.reward))


def _budgets(task: Task, runs: Runs) -> Table:
    ours = dict.fromkeys(published.BUDGETS, "") | {
        "SpannerGreedy": "SpannerGreedy",
        "LLM alone": task.models[task.main],
        "log-barrier (Algorithm 2)": "log-barrier",
    }
    rows = [_row(task, name, row, runs[ours[name] or name]) for name, row in published.BUDGETS.items()]
    rows.append(_row(task, "embedding prior", None, runs["embedding prior"]))
    rows.append(_row(task, WARM, None, runs[WARM]))
    note = "B is the same share of T as in the paper: 1.61 % and 3.22 %. The last two rows are not in the paper."
    if not task.llm:
        note += " In the place of the LLM: the embedding prior; inside a hybrid each of its decisions counts as a call."
    return Table(number=4, title="budgets", head=("strategy", *_HEAD), rows=tuple(rows), note=note)


def _strategies(task: Task, runs: Runs) -> Table:
    rows = [_row(task, name, row, runs[name]) for name, row in published.STRATEGIES.items()]
    rows += [_row(task, name, None, runs[name]) for name in ("polynomial, stretched", "exponential, stretched")]
    note = (
        "Schedules as in the paper (100 / t and 100 exp(-.01 t), at most .8, t in batches of 32); stretched: t "
        "measured in shares of the run, so that they ask in the same share of it as in the paper."
    )
    return Table(number=5, title="strategies", head=("strategy", *_HEAD), rows=tuple(rows), note=note)


def _smoothing(task: Task, runs: Runs) -> Table:
    ours = {name: "log-barrier" if name == "clip .2" else f"smoothing {name}" for name in published.SMOOTHING}
    rows = [_row(task, name, row, runs[ours[name]]) for name, row in published.SMOOTHING.items()]
    return Table(number=6, title="smoothing of p", head=("smoothing", *_HEAD), rows=tuple(rows))


def _several(task: Task, runs: Runs) -> Table:
    rows = [_row(task, f"{name} (paper)", row, None) for name, row in published.SEVERAL.items()]
    note = (
        f"In the paper's first row {published.TOGETHER[0]:,.1f} calls went to the small model, "
        f"{published.TOGETHER[1]:,.1f} to the large one. "
    )
    together = runs.get("hybrid with all")
    if together is not None:
        rows.append(_row(task, " + ".join(task.models.values()), None, together))
        shared = ", ".join(
            f"{calls:,.1f} to {words}"
            for calls, words in zip(together.by_model.mean(axis=0), task.models.values(), strict=True)
        )
        note += f"In our row of several (step .05 / 3, as in the released code): {shared}. "
    rows += [_row(task, words, None, runs[f"hybrid with {words}"]) for words in task.models.values()]
    if "embedding prior" in task.models.values():
        note += "The embedding prior is no language model: asking it costs nothing, yet it is counted."
    return Table(number=7, title="several models", head=("models", *_HEAD), rows=tuple(rows), note=note.strip())
