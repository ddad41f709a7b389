"""The store: logs of decisions in one DuckDB file, how they come in, and how they are read."""

from __future__ import annotations

from counterplay.logs.choices import ChoicesReport, import_choices
from counterplay.logs.decisions.report import ImportReport
from counterplay.logs.decisions.table import attach_decisions, import_decisions
from counterplay.logs.export import export_table
from counterplay.logs.forget import ForgetReport, forget_contexts
from counterplay.logs.formats.coba import import_coba, read_interactions
from counterplay.logs.formats.dsjson import import_dsjson
from counterplay.logs.formats.obd import import_obd
from counterplay.logs.formats.obp import import_obp, to_obp
from counterplay.logs.full.labels import import_labels
from counterplay.logs.full.outcomes import import_outcomes
from counterplay.logs.full.public_labels import import_amazoncat, import_oneshotwiki
from counterplay.logs.full.run import FullReport
from counterplay.logs.health import Finding, Health, check_log
from counterplay.logs.log import Choices, Log, Outcomes
from counterplay.logs.material import DecisionArrays
from counterplay.logs.reading import list_logs, read_choices, read_log, read_quarantine, read_texts
from counterplay.logs.streaming import stream_decisions
from counterplay.logs.workspace import Workspace, open_workspace
from counterplay.logs.writing import write_choices, write_log

__all__ = [
    "Choices",
    "ChoicesReport",
    "DecisionArrays",
    "Finding",
    "ForgetReport",
    "FullReport",
    "Health",
    "ImportReport",
    "Log",
    "Outcomes",
    "Workspace",
    "attach_decisions",
    "check_log",
    "export_table",
    "forget_contexts",
    "import_amazoncat",
    "import_choices",
    "import_coba",
    "import_decisions",
    "import_dsjson",
    "import_labels",
    "import_obd",
    "import_obp",
    "import_oneshotwiki",
    "import_outcomes",
    "list_logs",
    "open_workspace",
    "read_choices",
    "read_interactions",
    "read_log",
    "read_quarantine",
    "read_texts",
    "stream_decisions",
    "to_obp",
    "write_choices",
    "write_log",
]
