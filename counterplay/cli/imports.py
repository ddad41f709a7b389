"""`counterplay import KIND`: one command for each kind of log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from counterplay.errors import InputError

import_app = App(
    name="import", help="Bring decisions, or a policy's choices, into a workspace.", help_format="markdown"
)


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


def _pair(item: str) -> tuple[str, str]:
    word, sign, column = item.partition("=")
    if not (word and sign and column):
        raise InputError(f"--map takes word=column, such as propensity=pscore, not '{item}'.")
    return word, column
