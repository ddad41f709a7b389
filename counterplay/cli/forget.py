"""`counterplay forget`: what is known of some contexts is erased, what was decided and earned stays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from counterplay.cli.screen import console, progress


def forget(
    workspace: Path,
    *,
    log: str,
    contexts: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    keep_features: bool = False,
) -> None:
    """Erase the texts and features of contexts from a workspace; their decisions and rewards stay.

    The file is written anew, so that no block of it holds the texts. Cached outputs that quote them are removed,
    rejected rows of these contexts keep their line and the kind of fault. Exit code 1 if the log lacks one of them.

    Args:
        workspace: the workspace file.
        log: the log whose contexts they are.
        contexts: context ids, or files of them: one a line, or a table with the column context_id.
        keep_features: leave the features as they are; by default they become zeros, as vectors give texts away.
    """
    from counterplay.logs.forget import forget_contexts, read_context_ids

    ids: list[str] = []
    for item in contexts:
        ids += read_context_ids(item) if Path(item).is_file() else [item]
    with progress(console()) as tell:
        report = forget_contexts(workspace, log, ids, keep_features=keep_features, progress=tell)
    print(
        f"{report.contexts:,} contexts of log '{log}': {report.texts:,} texts and {report.features:,} vectors of "
        f"features erased, {report.quarantined:,} rejected rows emptied, {report.outputs:,} outputs and "
        f"{report.vectors:,} vectors of texts removed from the cache"
    )
    for place in report.elsewhere:
        print(f"  left alone: {place}")
    for name in report.unknown[:20]:
        print(f"  unknown: {name}")
    if len(report.unknown) > 20:
        print(f"  unknown: {len(report.unknown) - 20:,} more")
    if report.unknown:
        raise SystemExit(1)
