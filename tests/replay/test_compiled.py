"""The compiled loops do what the same functions do interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TWIN = Path(__file__).parent / "twin.py"


def _outcome(**environment: str) -> dict[str, dict[str, list[object]]]:
    done = subprocess.run(
        [sys.executable, str(TWIN)], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    result: dict[str, dict[str, list[object]]] = json.loads(done.stdout)
    return result


def test_every_agent_selector_budget_and_method_runs_the_same_compiled_and_interpreted() -> None:
    compiled, interpreted = _outcome(), _outcome(NUMBA_DISABLE_JIT="1")
    assert len(compiled) > 2 * 3 * 700
    assert sum("refused" in run for run in compiled.values()) < len(compiled) / 20
    assert compiled.keys() == interpreted.keys()
    for name, run in compiled.items():
        for what in ("decision", "action", "base", "p", "alone", "estimate", "refused"):
            assert run.get(what) == interpreted[name].get(what), f"{what} of {name}"
