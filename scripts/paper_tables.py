"""The tables and figures of Chen, Zhang and Zhu (EMNLP 2024) in their form, on text tasks at hand.

    python scripts/paper_tables.py                # every task whose data and models are here, into docs/paper.md
    python scripts/paper_tables.py --task icd     # the one that ships; about a minute
    python scripts/paper_tables.py --quick        # a tenth of the rounds and two seeds, printed only

Tasks: icd, cities, clinc, codes (`paper/tasks.py` says what each needs). Vectors and completions are kept in --cache,
so a run that was stopped goes on where it was. Seeds are fixed: the same machine writes the same rewards and calls.
Only the sections of the tasks that ran are written anew, and what is said of all of them together, from
`paper/results.json`: what every seed of every agent earned.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from paper import across, figures, tasks
from paper.comparisons import comparisons
from paper.published import SEEDS
from paper.runs import Run, run_all
from paper.tables import tables
from paper.tasks import AbsentError, Task
from paper.timing import Timing, time_llm

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
RESULTS = Path(__file__).parent / "paper" / "results.json"

FIGURES = {
    "1": ("Figure 1", figures.rewards_and_calls),
    "2": ("Figures 2 and 3", figures.by_model),
    "4": ("Figure 4", figures.over_time),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks, and write or print their sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, two seeds, printed only")
    parser.add_argument("--task", choices=tasks.KEYS, action="append", help="only this one; may be given again")
    parser.add_argument("--cache", type=Path, default=tasks.CACHE, help="the folder of vectors and completions")
    chosen = parser.parse_args(arguments)
    for key in chosen.task or tasks.KEYS:
        try:
            task = tasks.load(key, chosen.cache, tell)
        except AbsentError as absent:
            tell(f"{key} is left out: {absent}")
            if chosen.task:
                sys.exit(1)
            continue
        if chosen.quick:
            task = task.part(task.rounds // 10)
            print(f"## {task.title}\n\n{section(task, run_all(task, 2, tell))}")
        else:
            timing = time_llm() if key == "icd" else None
            write(task, run_all(task, SEEDS, tell), PAGE, RESULTS, timing)


def tell(what: str) -> None:
    """Progress, on stderr."""
    print(what, file=sys.stderr, flush=True)


def section(task: Task, runs: dict[str, Run], timing: Timing | None = None) -> str:
    """The tables of a task as Markdown."""
    return "\n".join(table.markdown() for table in (*tables(task, runs, timing), *comparisons(task, runs)))


def write(task: Task, runs: dict[str, Run], page: Path, results: Path, timing: Timing | None = None) -> None:
    """Put a task's tables between its marks on the page, its figures beside it, and all tasks side by side."""
    images = page.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    shown = []
    for number, (name, draw) in FIGURES.items():
        # Figures 2 and 3 compare language models.
        if number != "2" or task.llm:
            (images / f"paper-{task.key}-{number}.svg").write_bytes(figures.svg(draw(task, runs)))
            shown.append(f"![{name} on {task.title}](images/paper-{task.key}-{number}.svg)")
    found = across.read(results) | {task.key: across.result(task, runs)}
    across.write(results, found)
    # Read again, for the order of the tasks.
    found = across.read(results)
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    text = put(text, "across", "Across the tasks", "\n".join(across.section(found)))
    title = task.title[0].upper() + task.title[1:]
    text = put(text, task.key, title, "\n\n".join([section(task, runs, timing).strip(), *shown]))
    page.write_text(text, encoding="utf-8")
    tell(f"{task.key}: written to {page}")


def put(text: str, key: str, title: str, body: str) -> str:
    """The text with a body between the marks of that key; at its end, under a title, where it has no such marks."""
    opened, closed = f"<!-- {key}: written by scripts/paper_tables.py -->", f"<!-- end of {key} -->"
    if opened not in text:
        text += f"\n## {title}\n\n{opened}\n{closed}\n"
    before, rest = text.split(opened)
    after = rest.split(closed)[1]
    return before + "\n\n".join([opened, body.strip(), closed]) + after


if __name__ == "__main__":
    main()
