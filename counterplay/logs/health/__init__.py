"""The health of a log: whether it can answer counterfactual questions, said before any estimate."""

from __future__ import annotations

from counterplay.logs.health.check import check_log
from counterplay.logs.health.model import Finding, Health

__all__ = ["Finding", "Health", "check_log"]
