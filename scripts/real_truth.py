"""Estimates beside exact values: logs drawn from two full tables of outcomes, and every estimator on each.

    python scripts/real_truth.py            # all, into docs/real-truth.md and its figure; about 6 minutes on 2 cores
    python scripts/real_truth.py --quick    # a tenth of the logs, printed only; under 45 seconds

The data are found through COUNTERPLAY_DATA (`truth/worlds.py`). Every log has a seed of its own, so the tables are the
same byte for byte on the same machine, whatever the order of the work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import cache
from typing import NamedTuple

import numpy as np
from truth import page
from truth.draws import DEAR, draw_log, estimates, intervals, numbers
from truth.scores import Found, Setting
from truth.worlds import FILES, LOGGERS, Array, World, load

SEED = 2024

CHUNK = 5
"""Logs in one piece of work."""

INTERVALS_IN = Setting("BFCL", "uniform", 2_000)


class Size(NamedTuple):
    """How many logs of n decisions are drawn, and on how many of these the dear estimators are tried."""

    n: int
    logs: int
    dear: int


class Plan(NamedTuple):
    """The sizes, and on how many logs the intervals are compared."""

    sizes: tuple[Size, ...]
    interval_logs: int


FULL = Plan((Size(2_000, 150, 60), Size(20_000, 100, 12)), 200)
QUICK = Plan((Size(2_000, 10, 5), Size(20_000, 2, 1)), 5)


class Work(NamedTuple):
    """Some logs of one setting, numbered from `first`; `of_intervals`: intervals are compared, not estimators."""

    setting: Setting
    first: int
    logs: int
    dear: int
    of_intervals: bool = False


class Done(NamedTuple):
    """What a piece of work found: (logs, E, P, 4) numbers and their names."""

    numbers: Array
    estimators: tuple[str, ...]
    policies: tuple[str, ...]
    truth: Array
    supported: Array


def main() -> None:
    """Draw the logs, and write or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the logs, printed only")
    quick = parser.parse_args().quick
    absent = [path for path in FILES.values() if not path.exists()]
    if absent:
        sys.exit(f"The data are not at {absent[0]}; set COUNTERPLAY_DATA to their folder.")
    plan = QUICK if quick else FULL
    found, kinds = run(plan)
    if quick:
        print("\n".join(page.tables(found, kinds)))
    else:
        page.write(found, kinds)


def run(plan: Plan, worlds: tuple[str, ...] = tuple(FILES)) -> tuple[dict[Setting, Found], Found]:
    """What was found under each setting, and what intervals did under `INTERVALS_IN`."""
    from rich.console import Console
    from rich.progress import Progress

    work = list(_planned(plan, worlds))
    context = multiprocessing.get_context("spawn")
    # A process a world, as each would have to load both else.
    pools = {name: ProcessPoolExecutor(1, context) for name in worlds}
    done: dict[Work, Done] = {}
    try:
        futures: dict[Future[Done], Work] = {pools[own.setting.world].submit(do, own): own for own in work}
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("logs", total=sum(own.logs for own in work))
            for future in as_completed(futures):
                done[futures[future]] = future.result()
                progress.advance(bar, futures[future].logs)
    finally:
        for pool in pools.values():
            pool.shutdown(cancel_futures=True)
    settings = dict.fromkeys(own.setting for own in work)
    found = {
        one: _joined([done[own] for own in work if own.setting == one and not own.of_intervals]) for one in settings
    }
    return found, _joined([done[own] for own in work if own.of_intervals])


def _planned(plan: Plan, worlds: tuple[str, ...]) -> Iterator[Work]:
    for world in worlds:
        for logger in LOGGERS:
            for size in plan.sizes:
                setting = Setting(world, logger, size.n)
                for first in range(0, size.logs, CHUNK):
                    logs = min(CHUNK, size.logs - first)
                    yield Work(setting, first, logs, min(max(size.dear - first, 0), logs))
    for first in range(0, plan.interval_logs, CHUNK):
        yield Work(INTERVALS_IN, first, min(CHUNK, plan.interval_logs - first), 0, of_intervals=True)


def do(work: Work) -> Done:
    """Draw the logs of a piece of work, and estimate."""
    from threadpoolctl import threadpool_limits

    world, setting = _loaded(work.setting.world), work.setting
    seed = SEED, LOGGERS.index(setting.logger), setting.n
    rows = []
    # One thread: the last bits of a matrix product depend on their number, and the other world has the other core.
    with threadpool_limits(1):
        for i in range(work.logs):
            draw = draw_log(world, setting.logger, setting.n, (*seed, work.first + i))
            named = intervals(draw) if work.of_intervals else estimates(draw, dear=i < work.dear)
            rows.append({name: numbers(own) for name, own in named})
    nothing = np.full((len(world.policies), 4), np.nan)
    names = tuple(rows[0]) if work.of_intervals else tuple(dict.fromkeys((*rows[0], *DEAR)))
    stacked = np.stack([[row.get(name, nothing) for name in names] for row in rows])
    return Done(stacked, names, world.policies, world.truth, world.supported[setting.logger])


@cache
def _loaded(name: str) -> World:
    return load(name)


def _joined(parts: list[Done]) -> Found:
    first = parts[0]
    return Found.of(
        np.concatenate([part.numbers for part in parts]),
        estimators=first.estimators,
        policies=first.policies,
        truth=first.truth,
        supported=first.supported,
    )


if __name__ == "__main__":
    main()
