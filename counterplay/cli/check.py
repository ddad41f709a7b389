"""`counterplay check`: whether a log is any good, said before any estimate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from counterplay.cli.screen import console, progress, wrote


def check(
    workspace: Path,
    *,
    log: str,
    policy: str | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Say whether a log is fit for counterfactual questions: propensities, support, rewards, and what is wrong.

    Exit code 0: fit. 1: usable, with the cautions that are named. 3: not fit, for the reason that is named. (2: an
    error.)

    Args:
        workspace: the workspace file.
        log: the log to look at.
        policy: a policy whose choices are stored: can the log speak for it?
        out: a folder for `health.html` and `health.json`.
        as_json: print JSON for a program instead of tables.
    """
    from counterplay.logs.health import check_log
    from counterplay.reports.health import health_json, print_health, write_health

    terminal = console()
    if as_json:
        health = check_log(workspace, log, policy=policy)
        if out is not None:
            write_health(health, out)
        print(health_json(health), end="")
    else:
        with progress(terminal) as tell:
            health = check_log(workspace, log, policy=policy, progress=tell)
        files = write_health(health, out) if out is not None else []
        print_health(health, terminal)
        wrote(terminal, files)
    raise SystemExit(health.exit_code)
