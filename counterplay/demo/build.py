"""The demo's workspace: a triage desk with 36,343 clinical descriptions and 285 blocks to send them to.

Two logs are made from it. ``triage`` has full information: a description's own block earns 1, every other block 0.
``triage-logged`` is what a careful desk would have logged: for each description a shortlist of the ten nearest blocks,
one of them tried at random (propensity 0.1), its reward seen and the others not.
"""

from __future__ import annotations

import numpy as np

from counterplay.demo.data import DemoData, llm_choice, load_demo, store_outputs
from counterplay.logs.log import Outcomes
from counterplay.logs.material import DecisionArrays
from counterplay.logs.workspace import Workspace
from counterplay.logs.writing import write_choices, write_log
from counterplay.replay.randomness import Purpose, uniforms

FULL, LOGGED = "triage", "triage-logged"
LOGGING_SEED = 2026


def logged_places(count: int, shortlist: int, seed: int = LOGGING_SEED) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which place of its shortlist each decision tried: `(count,)`, uniform, a pure function of the seed."""
    return np.floor(uniforms(seed, Purpose.LOGGING, count) * shortlist).astype(np.int64)


def build_demo(workspace: Workspace) -> DemoData:
    """Write both logs, and the choices of the language model and of the embedding prior; again does nothing."""
    demo = load_demo()
    count = len(demo.labels)
    rows = np.arange(count)
    outcomes = Outcomes(offsets=np.arange(count + 1), actions=demo.labels, rewards=np.ones(count), default=0.0)
    action = demo.shortlist[rows, logged_places(count, demo.shortlist.shape[1])]
    decisions = DecisionArrays(
        context=rows.astype(np.int32),
        ids=demo.context_ids,
        candidates=demo.shortlist,
        action=action,
        propensity=np.full(count, 1.0 / demo.shortlist.shape[1]),
        reward=(action == demo.labels).astype(np.float64),
    )
    with workspace.transaction() as connection:
        fresh = _write(workspace, demo, FULL, "full", "every block's reward is known", outcomes, None)
        _write(workspace, demo, LOGGED, "propensity", "one of ten nearest blocks tried at random", None, decisions)
        if fresh:
            # Each output goes in under the key of its request, built again from template, text and shortlist.
            store_outputs(connection, demo)
        for log in (FULL, LOGGED):
            write_choices(workspace, log, "llm", llm_choice(demo))
            write_choices(workspace, log, "embedding-prior", demo.shortlist[:, 0])
    return demo


def _write(
    workspace: Workspace,
    demo: DemoData,
    log: str,
    regime: str,
    description: str,
    outcomes: Outcomes | None,
    decisions: DecisionArrays | None,
) -> bool:
    return write_log(
        workspace,
        log=log,
        regime=regime,
        description=f"ICD-10-CM descriptions to blocks; {description}",
        context_ids=demo.context_ids,
        context_texts=demo.texts,
        context_features=demo.features,
        action_labels=demo.action_labels,
        action_texts=demo.action_texts,
        action_features=demo.action_features,
        outcomes=outcomes,
        decisions=decisions,
        replace=True,
    )
