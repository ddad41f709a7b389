"""`counterplay evaluate` and `counterplay compare`: what other policies would have earned, from a log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from counterplay.cli.screen import console, progress, wrote
from counterplay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from counterplay.replay.evaluation import Bounds, Evaluation, Interval

Policies = Annotated[list[str], Parameter(consume_multiple=True, negative="")]
Estimators = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Json = Annotated[bool, Parameter(name="--json")]


def evaluate(
    workspace: Path,
    *,
    log: str,
    policy: Policies,
    estimators: Estimators = None,
    level: float = 0.95,
    interval: str = "t",
    reward_model: str = "ridge",
    reward_range: Annotated[tuple[float, float] | None, Parameter(negative="")] = None,
    largest_weight: float | None = None,
    truth: str | None = None,
    out: Path | None = None,
    as_json: Json = False,
    seed: int = 0,
) -> None:
    """Say what policies would have earned a decision, had they acted instead of the one that made the log.

    Exit code 0: of every policy at least one estimate can be used. 3: of some policy none can. (2: an error.) The
    results are stored in the workspace, for `counterplay report`; the same question again takes their place.

    Args:
        workspace: the workspace file.
        log: the log that is evaluated.
        policy: `uniform`, `logging`, `always=LABEL`, or a stored policy; several, or the option several times.
        estimators: such as `ips snips dr`; default: `all` that the log can serve.
        level: confidence of the intervals.
        interval: t, normal, percentile, bca, hoeffding, bernstein, clopper_pearson or empirical_likelihood.
        reward_model: for DM, DR and the like: `ridge`, `logistic`, or `none`.
        reward_range: the least and the greatest possible reward, for the intervals that rest on it.
        largest_weight: the largest possible weight of a decision (policy / propensity), for the same.
        truth: a log of full information whose exact values stand beside the estimates.
        out: a folder for `report.html`, `report.md` and `results.json`.
        as_json: print JSON for a program instead of a table.
        seed: of the intervals that resample.
    """
    from counterplay.replay.evaluation import evaluate_log

    bounds = _bounds(reward_range, largest_weight)
    _answer(
        workspace,
        out,
        as_json,
        lambda tell: evaluate_log(
            workspace,
            log,
            policy,
            estimators or "all",
            level=level,
            interval=cast("Interval", interval),
            bounds=bounds,
            reward_model=reward_model,
            truth=truth,
            seed=seed,
            progress=tell,
        ),
    )


def compare(
    workspace: Path,
    *,
    log: str,
    policy: Policies,
    baseline: str = "logging",
    all_pairs: bool = False,
    estimator: str = "snips",
    level: float = 0.95,
    reward_model: str = "ridge",
    truth: str | None = None,
    out: Path | None = None,
    as_json: Json = False,
    seed: int = 0,
) -> None:
    """Say which policies would have earned more than another, on the same decisions, with what luck may have done.

    Exit code 0: every difference can be used. 3: some cannot. (2: an error.) The results are stored in the workspace.

    Args:
        workspace: the workspace file.
        log: the log that is evaluated.
        policy: `uniform`, `logging`, `always=LABEL`, or a stored policy; several, or the option several times.
        baseline: the policy that the others are compared with; default: `logging`, the one that made the log.
        all_pairs: compare every policy with every other instead.
        estimator: such as `ips`, `snips`, `dr`.
        level: confidence of the intervals; the simultaneous ones hold for all differences together.
        reward_model: for DM, DR and the like: `ridge`, `logistic`, or `none`.
        truth: a log of full information whose exact values stand beside the differences.
        out: a folder for `report.html`, `report.md` and `results.json`.
        as_json: print JSON for a program instead of a table.
        seed: of the draws behind the simultaneous intervals.
    """
    from counterplay.replay.evaluation import compare_log

    _answer(
        workspace,
        out,
        as_json,
        lambda tell: compare_log(
            workspace,
            log,
            policy,
            baseline,
            estimator,
            all_pairs=all_pairs,
            level=level,
            reward_model=reward_model,
            truth=truth,
            seed=seed,
            progress=tell,
        ),
    )


def _answer(
    workspace: Path,
    out: Path | None,
    as_json: bool,
    ask: Callable[[Callable[[int, int, str], None] | None], Evaluation],
) -> None:
    """Ask, print, write the report where one is wanted, and leave with the exit code of the answer."""
    from counterplay.reports import write_report
    from counterplay.reports.evaluation import print_evaluation

    terminal = console()
    if as_json:
        found = ask(None)
    else:
        with progress(terminal) as tell:
            found = ask(tell)
    files = [] if out is None else write_report(workspace, out, experiments=[found.results["experiment"]])
    if as_json:
        print(json.dumps(found.results, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False))
    else:
        print_evaluation(found.results, terminal)
        wrote(terminal, files)
    raise SystemExit(found.exit_code)


def _bounds(reward_range: tuple[float, float] | None, largest_weight: float | None) -> Bounds | None:
    from counterplay.replay.evaluation import Bounds

    if reward_range is None:
        if largest_weight is not None:
            raise ConfigurationError("--largest-weight bounds nothing without --reward-range LOW HIGH: add it.")
        return None
    return Bounds(reward=reward_range) if largest_weight is None else Bounds(reward=reward_range, weight=largest_weight)
