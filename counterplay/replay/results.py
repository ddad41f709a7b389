"""The head of a result: what was asked, of which log, and the one name that both have together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay.replay.experiment import canonical_hash


def header(name: str, definition: Mapping[str, Any], log: Mapping[str, Any], outputs_hash: str) -> dict[str, Any]:
    """The fields of a result that come before its numbers (`docs/contracts.md`).

    Args:
        name: what a report calls it.
        definition: all settings, defaults spelled out.
        log: name, regime, decisions, actions, hash.
        outputs_hash: of the stored policies that were used.
    """
    identity = canonical_hash({"definition": definition, "log": log["hash"], "outputs": outputs_hash})
    return {
        "experiment": identity,
        "name": name,
        "definition": dict(definition),
        "log": dict(log),
        "outputs_hash": outputs_hash,
    }
