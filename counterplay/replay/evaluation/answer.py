"""The results of an evaluation or a comparison: stored like those of an experiment, and returned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from counterplay.errors import WorkspaceError
from counterplay.logs.reading import Place
from counterplay.logs.results import store_results
from counterplay.logs.survey import choices_hash
from counterplay.logs.workspace import Workspace, borrowed
from counterplay.replay.evaluation.prepare import Prepared
from counterplay.replay.evaluation.source import Source
from counterplay.replay.experiment import canonical_hash
from counterplay.replay.results import header
from counterplay.replay.rows import Row

USABLE, UNUSABLE = 0, 3
"""Exit codes, those of ``counterplay check``."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was found, as plain values: ``results`` is what the workspace holds and ``results.json`` shows
    (``docs/contracts.md``)."""

    results: Mapping[str, Any]

    @property
    def estimates(self) -> list[Row]:
        """One row for each policy and estimator, policies first."""
        return list(self.results["estimates"])

    @property
    def comparisons(self) -> list[Row]:
        """One row for each difference; none without a comparison."""
        return list(self.results["comparisons"])

    @property
    def unusable(self) -> list[str]:
        """The policies of which no estimate is better than ``unreliable``; of a comparison, the pairs of which the
        difference is not."""
        rows = self.comparisons or self.estimates
        usable: dict[str, bool] = {}
        for row in rows:
            name = f"{row['policy']} against {row['baseline']}" if self.comparisons else row["policy"]
            fine = row["value"] is not None and row["gate"] != "unreliable"
            usable[name] = usable.get(name, False) or fine
        return [name for name, fine in usable.items() if not fine]

    @property
    def exit_code(self) -> int:
        """0, or 3 where a policy is unusable."""
        return UNUSABLE if self.unusable else USABLE


def stored_answer(
    workspace: Place,
    prepared: Prepared,
    *,
    name: str,
    definition: Mapping[str, Any],
    outputs_hash: str,
    estimates: Sequence[Row],
    comparisons: Sequence[Row] = (),
    standings: Sequence[Row] = (),
    notes: Sequence[str],
) -> Evaluation:
    """Store the results in place of those of the same question on the same log, and return them."""
    survey = prepared.source.survey
    log = {
        "name": survey.log,
        "regime": survey.regime,
        "decisions": survey.decisions,
        "actions": len(survey.action_labels),
        "hash": survey.hash,
    }
    results = {
        **header(name, definition, log, outputs_hash),
        "agents": [],
        "estimates": list(estimates),
        "comparisons": list(comparisons),
        "standings": list(standings),
        "left_out": [asdict(one) for one in prepared.choice.left_out],
        "notes": list(notes),
    }
    with borrowed(workspace, read_only=False) as target:
        store_results(target, results)
    return Evaluation(results=results)


def check_writable(workspace: Place) -> None:
    """Refuse a workspace that cannot hold the results, before anything is computed.

    Raises:
        WorkspaceError: it is open, or may be opened, for reading only.
    """
    if isinstance(workspace, Workspace):
        query = "SELECT readonly FROM duckdb_databases() WHERE database_name = current_database()"
        closed = workspace.connection.execute(query).fetchall() == [(True,)]
        place = workspace.path
    else:
        place = Path(workspace)
        closed = place.exists() and not os.access(place, os.W_OK)
    if closed:
        raise WorkspaceError(
            f"{place} can only be read, and the results are stored in it: open it for writing, or evaluate a copy."
        )


def hash_of_outputs(source: Source) -> str:
    """A hash of what the stored policies would do."""
    return canonical_hash({key: choices_hash(source.workspace, source.survey.log, key) for key in source.stored})
