"""Every error that Counterplay raises on purpose.

    CounterplayError
    ├── InputError                 something given to us is wrong; the message names it and the nearest mend
    │   ├── ColumnError            a column is missing or has the wrong name
    │   ├── FileError              a file is absent, empty, cut short, or not of the kind it claims to be
    │   ├── ConfigurationError     an experiment or an agent is described wrongly
    │   └── EvidenceError          arrays that are no evidence: lengths, NaN, impossible propensities
    ├── UnsupportedError           the request is understood, but this log cannot answer it
    │   ├── MissingEvidenceError   an estimator needs something that the log does not have
    │   ├── MissingOutputError     model outputs are not in the cache
    │   └── HorizonError           the log is too short for the horizon asked for
    ├── WorkspaceError             the workspace file itself
    │   ├── NotAWorkspaceError     a file that is no Counterplay workspace
    │   ├── NewerWorkspaceError    a workspace that a newer version has written
    │   └── WorkspaceBusyError     another process holds the workspace for writing
    └── MissingExtraError          an optional dependency is not installed; the message names the extra

Messages say what was wrong and the nearest thing that would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CounterplayError(Exception):
    """The root: catch this to catch everything that Counterplay raises on purpose."""


class InputError(CounterplayError):
    """Something given to us is wrong."""


class ColumnError(InputError):
    """A column is missing or has the wrong name."""


class FileError(InputError):
    """A file is absent, empty, cut short, or not of the kind it claims to be."""


class ConfigurationError(InputError):
    """An experiment or an agent is described wrongly."""


class EvidenceError(InputError):
    """Arrays that are no evidence."""


class UnsupportedError(CounterplayError):
    """The request is understood, but this log cannot answer it."""


class MissingEvidenceError(UnsupportedError):
    """An estimator needs something that the log does not have."""


class MissingOutputError(UnsupportedError):
    """Model outputs are not in the cache."""


class HorizonError(UnsupportedError):
    """The log is too short for the horizon asked for."""


class WorkspaceError(CounterplayError):
    """The workspace file itself."""


class NotAWorkspaceError(WorkspaceError):
    """A file that is no Counterplay workspace."""


class NewerWorkspaceError(WorkspaceError):
    """A workspace that a newer version has written."""


class WorkspaceBusyError(WorkspaceError):
    """Another process holds the workspace for writing."""


class MissingExtraError(CounterplayError):
    """An optional dependency is not installed."""


_LISTED = 40


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that proposes the nearest known name, or lists the first of them: for the end of a message."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean '{close[0]}'?"
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return f"Known: {', '.join(names[:_LISTED])}{more}." if names else "None are known."
