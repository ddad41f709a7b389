"""Opening a workspace for as long as something is committed, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from counterplay.logs import Workspace, open_workspace
from counterplay.logs.reading import Place

PATIENCE = 3600.0
"""Seconds that what a model has made waits for another process that holds the workspace; then it is lost."""


@contextmanager
def opened_for_writing(workspace: Place) -> Iterator[Workspace]:
    """The workspace, open for writing; one that is given by its path is closed again, for others to write to."""
    if isinstance(workspace, Workspace):
        yield workspace
        return
    with open_workspace(workspace, wait=PATIENCE) as opened:
        yield opened
