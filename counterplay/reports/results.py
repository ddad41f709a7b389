"""What the results of one experiment are: checks at the door, and the few questions that all parts of a report ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from counterplay.errors import InputError, UnsupportedError
from counterplay.reports.numbers import Scale, scale_of

Result = Mapping[str, Any]
Row = Mapping[str, Any]

NEEDED = ("experiment", "name", "definition", "log", "outputs_hash", "agents", "estimates", "comparisons")
REPLAYS = {
    "exact": "exact replay",
    "rejection": "rejection replay",
    "doubly-robust": "doubly robust replay",
    "bootstrapped": "bootstrapped replay",
    "queues": "replay from queues",
    "per-state": "per-state replay",
}
"""What each method of replay is called."""


def checked(results: Sequence[Result]) -> list[Result]:
    """The results, if a report can be made of them.

    Raises:
        UnsupportedError: there are none.
        InputError: a part is missing, or a number is infinite or NaN.
    """
    if not results:
        raise UnsupportedError(
            "there are no results to report. Run an experiment first: counterplay run experiment.toml."
        )
    for result in results:
        absent = [name for name in NEEDED if name not in result]
        if absent:
            raise InputError(
                f"these results lack '{absent[0]}'. Pass what run_experiment returned, or what the workspace holds."
            )
        path = _not_finite(result, "")
        if path:
            raise InputError(f"{path} is no finite number. Write None where there is no number.")
    return list(results)


def _not_finite(value: Any, path: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return path
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{i}]", inner) for i, inner in enumerate(value)]
    else:
        return ""
    return next(filter(None, (_not_finite(inner, where) for where, inner in parts)), "")


def agents_of(result: Result) -> list[Row]:
    """The agents, the highest average reward first; equals in the order of the experiment."""
    return sorted(result["agents"], key=lambda agent: -agent["average_reward"])


def kind_of(agent: Row) -> str:
    """hybrid, bandit, bandit from the prior, model, policy, uniform or constant."""
    settings = agent["settings"]
    kind = str(settings.get("kind", "agent"))
    if kind == "bandit" and settings.get("start") == "embedding-prior":
        return "prior bandit"
    if kind == "policy" and settings.get("calls", True):
        return "model"
    return kind


def hybrids(result: Result) -> list[Row]:
    """The hybrid agents, the best first."""
    return [agent for agent in agents_of(result) if kind_of(agent) == "hybrid"]


def method_of(result: Result) -> str:
    """A method of replay, or none."""
    return str(result["definition"].get("method", "none"))


def replay_name(result: Result) -> str:
    """What people call the method of replay."""
    return REPLAYS.get(method_of(result), "replay")


def scale(result: Result) -> Scale:
    """The number of decimals of this experiment's rewards."""
    agents = [agent["average_reward"] for agent in result["agents"]]
    # One wild estimate must not take the digits of all others.
    rows = [row for row in result["estimates"] if row["gate"] != "unreliable"] or result["estimates"]
    return scale_of([*agents, *(row["value"] for row in rows)])


def estimators_of(result: Result) -> list[str]:
    """The estimators, in the order of the experiment."""
    return list(dict.fromkeys(row["estimator"] for row in result["estimates"]))


_PROPER = {"cressie_read": "Cressie-Read"}
_CAPITALS = {"ips", "snips", "dr", "dm", "sndr", "dros", "drps"}


def estimator_name(name: str) -> str:
    """As people write it: snips is SNIPS, switch_dr(0.5) is switch DR(0.5)."""
    head, sign, tail = name.partition("(")
    if head in _PROPER:
        return _PROPER[head] + sign + tail
    words = [word.upper() if word in _CAPITALS else word for word in head.split("_")]
    return " ".join(words) + sign + tail


_ESTIMATORS = {
    "ips": "weighs every logged reward by pi/mu; unbiased where the propensities are right",
    "snips": "IPS divided by the mean weight: steadier, with a bias that vanishes as the log grows",
    "dm": "the reward model alone, without weights: no better than the model",
    "dr": "a reward model, corrected by weighted residuals; the model is fitted on other folds than it is used on",
    "sndr": "DR with the correction divided by the mean weight",
    "cressie_read": "IPS, corrected by how far the mean weight is off 1",
    "replay": "the mean reward of the decisions in which policy and log agree",
    "on_policy": "the mean reward of the log itself",
    REPLAYS["rejection"]: "the agent meets the log, a decision is kept with probability c pi/mu, and it learns from "
    "those kept",
    REPLAYS["doubly-robust"]: "rejection replay, in which every decision adds what it says of the agent's value",
    REPLAYS["bootstrapped"]: "rejection replay of decisions drawn with replacement, as often as there are actions",
    REPLAYS["queues"]: "the agent's action takes the next reward logged in that context",
    REPLAYS["per-state"]: "rejection among the decisions logged in one context",
}


def estimator_about(name: str) -> str:
    """One plain sentence about an estimator; empty for one that brings its own name only."""
    return _ESTIMATORS.get(name, "")
