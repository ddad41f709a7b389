"""Commands that look into a workspace or take something out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from counterplay.cli.screen import console


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
    console().print(table)
