"""An experiment as one TOML file: the log, the agents, the method, the estimators.

    name = "triage desk"
    workspace = "triage.duckdb"       # beside this file
    log = "triage-logged"
    method = "rejection"              # or "exact", "doubly-robust", "bootstrapped", "queues", "per-state", "none"
    seeds = 5
    order = "shuffled"                # or "logged"
    horizon = 3000                    # default: the whole log, or what every run reached
    truth = "triage"                  # optional: a full-information log of the same contexts
    alone = true                      # exact only: also what the bandit's own choices would have earned

    [rejection]
    constant = 0.1                    # default: the smallest propensity of the log; or pilot = 0.2: find it

    [doubly_robust]                   # of that method only
    estimator = "dr"
    quantile = 0.0
    constant = 0.1

    [bootstrapped]
    jitter = 0.05                     # default: 1 / sqrt(decisions)

    [uncertainty]                     # exact, rejection and doubly-robust
    subsamples = 100                  # default: 0
    share = 0.5

    [estimate]
    estimators = ["ips", "snips", "dr"]
    level = 0.95
    frozen = ["bandit"]               # agents that learn, frozen after the first half of the log
    baseline = "uniform"

    [[agents]]
    kind = "hybrid"
    name = "log-barrier"
    models = ["llm"]
    budget = ["none", 1000, 3000]     # a list is a grid
    selector = {kind = "log-barrier", clip = 0.2}

Unknown keys are refused with the nearest right one.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from counterplay.errors import ConfigurationError, FileError, nearest
from counterplay.estimators.table import resolve_all
from counterplay.logs.outputs import canonical_json
from counterplay.replay.agents import Bandit, BuiltIn, FixedPolicy, Hybrid, learner_of
from counterplay.replay.grid import agents_from, settings_of, structured
from counterplay.replay.methods import (
    OPEN_ENDED,
    TABLES,
    UNORDERED,
    BootstrappedSettings,
    DoublyRobustSettings,
    Method,
    RejectionSettings,
    UncertaintySettings,
)

DEFAULT_ESTIMATORS = ("ips", "snips", "dr")
_DEFAULTS = {
    "rejection": RejectionSettings,
    "doubly_robust": DoublyRobustSettings,
    "bootstrapped": BootstrappedSettings,
    "uncertainty": UncertaintySettings,
}


@dataclass(frozen=True, kw_only=True)
class EstimateSettings:
    estimators: tuple[str, ...] = DEFAULT_ESTIMATORS
    level: float = 0.95
    frozen: tuple[str, ...] = ()
    """Agents that learn: each learns by rejection replay on the first half of the decisions, and stops."""
    baseline: str | None = None
    """The policy that the others are compared with, pair by pair; default: the first."""

    def __post_init__(self) -> None:
        resolve_all(self.estimators)
        if not 0 < self.level < 1:
            raise ConfigurationError(f"level is {self.level}; it must lie between 0 and 1, 0.95 for 95 % intervals.")


@dataclass(frozen=True, kw_only=True)
class _Header:
    log: str
    name: str = "experiment"
    workspace: str | None = None
    method: Method = "exact"
    seeds: int = 5
    first_seed: int = 0
    order: Literal["shuffled", "logged"] = "shuffled"
    horizon: int | None = None
    batch: int = 32
    truth: str | None = None
    truth_seeds: int = 40
    alone: bool = False
    rejection: RejectionSettings | None = None
    doubly_robust: DoublyRobustSettings | None = None
    bootstrapped: BootstrappedSettings | None = None
    uncertainty: UncertaintySettings | None = None
    estimate: EstimateSettings | None = None

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("first_seed", 0), ("batch", 1), ("truth_seeds", 2)):
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.method == "none" and self.estimate is None:
            raise ConfigurationError('with method = "none" and no [estimate] there is nothing to do: add [estimate].')
        if self.horizon is not None and self.horizon < 1:
            raise ConfigurationError(f"horizon is {self.horizon}; it must be at least 1.")
        self._check_method()

    def _check_method(self) -> None:
        """Refuse settings that the method has no use for, and spell the defaults of the others out."""
        if self.alone and self.method != "exact":
            raise ConfigurationError(
                f'alone asks what other actions would have earned, which only method = "exact" knows; here method is '
                f'"{self.method}": leave alone out.'
            )
        if self.order == "logged" and self.method in UNORDERED:
            raise ConfigurationError(
                f'order = "logged" means nothing with method = "{self.method}", which draws decisions: leave it out.'
            )
        sampled = self.uncertainty is not None and self.uncertainty.subsamples > 0
        if self.method == "doubly-robust" and self.horizon is not None and sampled:
            raise ConfigurationError(
                "[uncertainty] with doubly robust replay is of all decisions, and horizon stops before: leave one out."
            )
        for name, methods in TABLES.items():
            if self.method in methods or (name == "rejection" and self.estimate and self.estimate.frozen):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, _DEFAULTS[name]())
            elif getattr(self, name) is not None:
                wanted = " or ".join(f'"{method}"' for method in methods)
                raise ConfigurationError(
                    f'the table [{name}] belongs to method = {wanted}; here method is "{self.method}": leave the table '
                    "out, or change the method."
                )


@dataclass(frozen=True, kw_only=True)
class Experiment(_Header):
    """What to replay and what to estimate. Fields as in the TOML file above; ``agents`` in order, names all
    different."""

    agents: tuple[BuiltIn, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [agent.name for agent in self.agents]
        if not names:
            raise ConfigurationError("an experiment needs at least one agent: add an [[agents]] table.")
        wanted = [] if self.estimate is None else [*self.estimate.frozen, *filter(None, [self.estimate.baseline])]
        for name in wanted:
            if name not in names:
                raise ConfigurationError(f"[estimate] names the agent '{name}', which is none. {nearest(name, names)}")

    @property
    def open_ended(self) -> bool:
        """Whether the common horizon is known only when every replay has been played."""
        return self.horizon is None and self.method in OPEN_ENDED

    @property
    def models(self) -> tuple[str, ...]:
        """The stored policies that the agents use, each once, in order."""
        used: dict[str, None] = {}
        for agent in self.agents:
            learner = learner_of(agent)
            named = agent.models if isinstance(agent, Hybrid) else ()
            named += (agent.policy,) if isinstance(agent, FixedPolicy) else ()
            asked = (learner.pretrain_on, learner.answers) if isinstance(learner, Bandit) else ()
            used.update(dict.fromkeys([*named, *filter(None, asked)]))
        return tuple(used)

    def definition(self) -> dict[str, Any]:
        """The whole experiment as plain values, defaults spelled out; without the place of the workspace."""
        values = {name: getattr(self, name) for name in _Header.__dataclass_fields__ if name != "workspace"}
        for name in (*TABLES, "estimate"):
            record = values[name]
            values[name] = None if record is None else {key: _plain(item) for key, item in vars(record).items()}
        return {**values, "agents": [settings_of(agent) for agent in self.agents]}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def canonical_hash(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment from a TOML file; its workspace is taken relative to the file.

    Raises:
        FileError: the file is absent or no TOML.
        ConfigurationError: an unknown key (with the nearest right one), a missing one, a value that makes no sense.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f"{path} is no TOML file: {error}.") from error
    experiment = experiment_from(table, where=str(path))
    if experiment.workspace is None:
        return experiment
    return replace(experiment, workspace=str(path.parent / experiment.workspace))


def experiment_from(table: Mapping[str, Any], *, where: str = "experiment") -> Experiment:
    """An experiment from a table of plain values, as a TOML file gives it."""
    agents = table.get("agents", [])
    if not isinstance(agents, list):
        raise ConfigurationError(f"{where}: agents must be a list of tables: write [[agents]].")
    for name in (*TABLES, "estimate"):
        if not isinstance(table.get(name, {}), Mapping | None):
            raise ConfigurationError(
                f"{where}: {name} is {table[name]!r}, but has settings of its own: write [{name}]."
            )
    header = structured({key: value for key, value in table.items() if key != "agents"}, _Header, where)
    values = {name: getattr(header, name) for name in _Header.__dataclass_fields__}
    try:
        return Experiment(**values, agents=agents_from(agents))
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
