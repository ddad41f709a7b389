"""Replay: agents against logs, experiments, and the evidence that estimators need."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterplay.replay.best import best_of
    from counterplay.replay.bootstrapped import bootstrap_replicate, replay_bootstrapped
    from counterplay.replay.doubly_robust import replay_doubly_robust
    from counterplay.replay.evaluation import Evaluation, compare_log, evaluate_log
    from counterplay.replay.evidence import exact_values, gather_evidence
    from counterplay.replay.experiment import Experiment, load_experiment
    from counterplay.replay.freezing import policy_of
    from counterplay.replay.history import Replay
    from counterplay.replay.pilots import pilot_constant
    from counterplay.replay.prepared import PreparedLog
    from counterplay.replay.queues import replay_per_state, replay_queues
    from counterplay.replay.run import run_experiment
    from counterplay.replay.single import replay_exact, replay_rejection

_HOMES = {
    "Evaluation": "evaluation",
    "Experiment": "experiment",
    "PreparedLog": "prepared",
    "Replay": "history",
    "best_of": "best",
    "bootstrap_replicate": "bootstrapped",
    "compare_log": "evaluation",
    "evaluate_log": "evaluation",
    "exact_values": "evidence",
    "gather_evidence": "evidence",
    "load_experiment": "experiment",
    "pilot_constant": "pilots",
    "policy_of": "freezing",
    "replay_bootstrapped": "bootstrapped",
    "replay_doubly_robust": "doubly_robust",
    "replay_exact": "single",
    "replay_per_state": "queues",
    "replay_queues": "queues",
    "replay_rejection": "single",
    "run_experiment": "run",
}
__all__ = [
    "Evaluation",
    "Experiment",
    "PreparedLog",
    "Replay",
    "best_of",
    "bootstrap_replicate",
    "compare_log",
    "evaluate_log",
    "exact_values",
    "gather_evidence",
    "load_experiment",
    "pilot_constant",
    "policy_of",
    "replay_bootstrapped",
    "replay_doubly_robust",
    "replay_exact",
    "replay_per_state",
    "replay_queues",
    "replay_rejection",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    # The compiler behind the kernels takes half a second to import: only when replay is asked for.
    if name in _HOMES:
        return getattr(importlib.import_module(f"counterplay.replay.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'counterplay.replay' has no attribute '{name}'")
