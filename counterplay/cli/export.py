"""`counterplay export`: a table of a workspace as one Parquet file."""

from __future__ import annotations

from pathlib import Path

from counterplay.cli.screen import console, progress


def export(workspace: Path, table: str, *, out: Path, log: str | None = None, overwrite: bool = False) -> None:
    """Write a table of a workspace to a Parquet file, which can be used, and imported again, without the workspace.

    Args:
        workspace: the workspace file.
        table: decisions, contexts, actions, outcomes, choices, quarantine, outputs, runs, estimates, ...
        out: the Parquet file.
        log: the rows of one log; default: those of all logs.
        overwrite: replace the file if it is there.
    """
    from counterplay.logs.export import export_table

    with progress(console()) as tell:
        rows = export_table(workspace, table, out, log=log, overwrite=overwrite, progress=tell)
    print(f"wrote {rows:,} rows of {table} to {out}")
