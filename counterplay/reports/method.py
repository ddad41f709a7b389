"""How an experiment was done, in a few sentences."""

from __future__ import annotations

from counterplay.reports.numbers import listed, whole
from counterplay.reports.results import Result, estimator_name, estimators_of

REGIMES = {
    "full": "the outcome of every action is known",
    "partial": "some outcomes are known",
    "propensity": "one action a decision, with known propensity",
    "observed": "one action a decision, propensity unknown",
}


def method(result: Result) -> list[str]:
    """The log, the replay, where exact values come from, the estimates."""
    log = result["log"]
    first = (
        f"Log “{log['name']}”: {whole(log['decisions'])} decisions, {whole(log['actions'])} actions; "
        f"{REGIMES.get(log['regime'], log['regime'])}."
    )
    return [first, *filter(None, [_replayed(result), _truth(result), _estimated(result)])]


def _replayed(result: Result) -> str:
    definition, agents = result["definition"], result["agents"]
    if not agents:
        return ""
    seeds = agents[0]["seeds"]
    each = "1 seed" if seeds == 1 else f"{seeds} seeds"
    often = f"{len(agents)} agents, {each} each, {whole(agents[0]['rounds'])} rounds"
    order = f"decisions {definition.get('order', 'shuffled')}"
    acceptance = agents[0]["acceptance"]
    if acceptance is None:
        return f"Exact replay: {often}, {order}."
    constant = f"{acceptance['constant']:.4g}".removeprefix("0")
    return f"Rejection replay with one constant c = {constant}: {often} (the common horizon), {order}."


def _truth(result: Result) -> str:
    definition = result["definition"]
    if not definition.get("truth"):
        return ""
    known = f"Exact values from log “{definition['truth']}”"
    if definition.get("method") != "rejection":
        return f"{known}."
    return f"{known}, those of agents from {definition.get('truth_seeds')} runs on line each."


def _estimated(result: Result) -> str:
    if not result["estimates"]:
        return ""
    row = result["estimates"][0]
    names = listed([estimator_name(name) for name in estimators_of(result)], 9)
    frozen = (result["definition"].get("estimate") or {}).get("frozen")
    half = ", the second half of the log; frozen agents had learned on the first" if frozen else ""
    model = result["definition"].get("reward_model")
    how = f", with a reward model by {model} regression that predicts no decision from itself" if model else ""
    return f"Estimates by {names} on {whole(row['n'])} decisions{half}{how}."
