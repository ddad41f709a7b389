"""The methods of replay that an experiment can name, and the settings that belong to some of them only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from counterplay.errors import ConfigurationError

Method = Literal["exact", "rejection", "doubly-robust", "bootstrapped", "queues", "per-state", "none"]
Estimator = Literal["dr", "ips", "snips", "dm"]

LEAST_SUBSAMPLES = 10
OPEN_ENDED = ("rejection", "doubly-robust", "bootstrapped", "queues", "per-state")
"""How many rounds a replay has is known when it has been played."""
UNORDERED = ("bootstrapped", "queues", "per-state")
"""Decisions are drawn, so that the order of the log plays no part."""
TABLES: dict[str, tuple[str, ...]] = {
    "rejection": ("rejection",),
    "doubly_robust": ("doubly-robust",),
    "bootstrapped": ("bootstrapped",),
    "uncertainty": ("exact", "rejection", "doubly-robust"),
}
"""The methods that each table of settings belongs to."""


@dataclass(frozen=True, kw_only=True)
class RejectionSettings:
    """``constant``: c; default: the smallest propensity of the log. ``pilot``: find c on this share of the log instead,
    and replay the other decisions (``pilots.pilot_constant``)."""

    constant: float | None = None
    pilot: float | None = None

    def __post_init__(self) -> None:
        _check_constant("rejection", self.constant)
        if self.pilot is not None and not 0 < self.pilot < 1:
            raise ConfigurationError(f"[rejection] pilot is {self.pilot}; it is a share of the log between 0 and 1.")
        if self.pilot is not None and self.constant is not None:
            raise ConfigurationError(
                "[rejection] has both constant and pilot, which finds the constant: leave one out."
            )


@dataclass(frozen=True, kw_only=True)
class DoublyRobustSettings:
    """The settings of ``replay_doubly_robust``."""

    estimator: Estimator = "dr"
    quantile: float = 0.0
    constant: float | None = None

    def __post_init__(self) -> None:
        _check_constant("doubly_robust", self.constant)
        if not 0 <= self.quantile < 1:
            raise ConfigurationError(
                f"[doubly_robust] quantile is {self.quantile}; choose it in [0, 1), 0 for no bias."
            )


@dataclass(frozen=True, kw_only=True)
class BootstrappedSettings:
    """``jitter``: the bandwidth, in standard deviations of each feature; default: 1 / sqrt(decisions)."""

    jitter: float | None = None

    def __post_init__(self) -> None:
        if self.jitter is not None and not 0 <= self.jitter < float("inf"):
            raise ConfigurationError(f"[bootstrapped] jitter is {self.jitter}; it must be 0 or more, and finite.")


@dataclass(frozen=True, kw_only=True)
class UncertaintySettings:
    """``subsamples``: how many sub-samples of the log each agent is replayed on, twice each; 0: none. ``share``: of the
    log's clusters in each of them. See ``subsampling``."""

    subsamples: int = 0
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.subsamples != 0 and self.subsamples < LEAST_SUBSAMPLES:
            raise ConfigurationError(
                f"[uncertainty] subsamples is {self.subsamples}; take at least {LEAST_SUBSAMPLES}, about 100 for a "
                "standard error good to 10 %, or 0 for none."
            )
        if not 0 < self.share < 1:
            raise ConfigurationError(f"[uncertainty] share is {self.share}; it must lie between 0 and 1.")


def _check_constant(table: str, constant: float | None) -> None:
    if constant is not None and not 0 < constant <= 1:
        raise ConfigurationError(f"[{table}] constant is {constant}; it must be above 0 and at most 1.")
