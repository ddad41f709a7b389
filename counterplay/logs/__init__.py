"""The store: logs of decisions in one DuckDB file, how they come in, and how they are read."""

from __future__ import annotations

from counterplay.logs.choices import import_choices
from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.logs.material import DecisionArrays
from counterplay.logs.reading import list_logs, read_choices, read_log, read_quarantine, read_texts
from counterplay.logs.streaming import stream_decisions
from counterplay.logs.table import ImportReport, attach_decisions, import_decisions
from counterplay.logs.workspace import Workspace, open_workspace
from counterplay.logs.writing import write_choices, write_log

__all__ = [
    "Choices",
    "DecisionArrays",
    "ImportReport",
    "Log",
    "Outcomes",
    "Workspace",
    "attach_decisions",
    "import_choices",
    "import_decisions",
    "list_logs",
    "open_workspace",
    "read_choices",
    "read_log",
    "read_quarantine",
    "read_texts",
    "stream_decisions",
    "write_choices",
    "write_log",
]
