"""What rejection replay reports of its own work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What rejection replay made of the log."""

    constant: float
    """c: a decision is accepted with probability c pi/mu."""
    read: int
    """Decisions read until the log ended or the horizon was reached."""
    accepted: int
    expected: float
    """The sum of the acceptance probabilities over the decisions read."""
    violations: int
    """Decisions with c pi/mu above 1: their acceptance was cut at 1, which biases the history."""
    excess: float
    """The sum of c pi/mu - 1 over the violations."""
