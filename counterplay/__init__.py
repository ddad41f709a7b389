"""Counterplay: offline replay and off-policy evaluation of hybrid agents, a language model beside a contextual bandit.

    import_decisions   a file or frame of logged decisions into a workspace
    import_choices     what a policy of yours would have done, into the workspace
    generate           a language model's outputs for every context of a log, once (needs the extra ``llm``)
    evaluate_log       what other policies would have earned, with intervals and gates, stored
    compare_log        the paired differences between policies, stored
    run_experiment     replay agents, estimate policies, compare them, store the results
    write_report       the stored results as HTML, Markdown and JSON

Each is one call, on a path or a frame. The parts they are made of are in ``counterplay.logs``, ``counterplay.replay``,
``counterplay.estimators`` and ``counterplay.reports``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterplay.llm import generate
    from counterplay.logs import import_choices, import_decisions
    from counterplay.replay import compare_log, evaluate_log, run_experiment
    from counterplay.reports import write_report

__version__ = "0.1.0"
__all__ = [
    "compare_log",
    "evaluate_log",
    "generate",
    "import_choices",
    "import_decisions",
    "run_experiment",
    "write_report",
]

_HOMES = {
    "compare_log": "counterplay.replay",
    "evaluate_log": "counterplay.replay",
    "generate": "counterplay.llm",
    "import_choices": "counterplay.logs",
    "import_decisions": "counterplay.logs",
    "run_experiment": "counterplay.replay",
    "write_report": "counterplay.reports",
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for, so that `import counterplay` and the command line's help are quick.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'counterplay' has no attribute '{name}'")
