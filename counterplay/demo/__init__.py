"""The demo: the whole way from a log to a report, on real clinical text and the outputs of a real language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterplay.errors import FileError

EXPERIMENTS = ("triage.toml", "triage-logged.toml")


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """The results of each experiment, and the files written."""

    results: list[dict[str, Any]]
    files: list[Path]


def run_demo(
    directory: str | Path = "demo-output",
    *,
    workers: int | None = None,
    experiment: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> DemoOutcome:
    """Build the demo's workspace in a folder, run its experiments, write the report.

    Args:
        directory: made if it is not there. Files of an earlier demo in it are replaced.
        workers: runs side by side; the results do not depend on it.
        experiment: the path of another experiment to run on this workspace instead.
        progress: called with (steps done, steps in all or 0, what is going on).
    """
    from counterplay.demo.build import build_demo
    from counterplay.logs.workspace import open_workspace
    from counterplay.replay.run import run_experiment
    from counterplay.reports import write_report

    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"cannot make the folder {folder}: {error.strerror}. Choose another.") from error
    place = folder / "triage.duckdb"
    tell = progress or (lambda _done, _total, _what: None)
    tell(0, 0, "building the workspace: 36,343 descriptions, 285 blocks, the model's cached outputs")
    with open_workspace(place) as workspace:
        build_demo(workspace)
    here = Path(__file__).parent
    wanted = [here / name for name in EXPERIMENTS] if experiment is None else [Path(experiment)]
    results = [run_experiment(path, workspace=place, workers=workers, progress=progress) for path in wanted]
    tell(0, 0, "drawing the report")
    files = write_report(place, folder, experiments=[result["experiment"] for result in results])
    return DemoOutcome(results=results, files=[place, *files])
