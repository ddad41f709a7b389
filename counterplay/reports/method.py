"""How an experiment was done, in a few sentences."""

from __future__ import annotations

from counterplay.reports.numbers import listed, percent, whole
from counterplay.reports.results import Result, estimator_name, estimators_of, method_of, replay_name

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
    how, seeds = method_of(result), agents[0]["seeds"]
    each = "1 seed" if seeds == 1 else f"{seeds} seeds"
    order = (
        "" if how in ("bootstrapped", "queues", "per-state") else f", decisions {definition.get('order', 'shuffled')}"
    )
    common = "" if how == "exact" else " (the common horizon)"
    often = f"{len(agents)} agents, {each} each, {whole(agents[0]['rounds'])} rounds{common}{order}"
    name = replay_name(result).capitalize()
    told = {"rejection": _rejection, "doubly-robust": _doubly_robust, "bootstrapped": _bootstrapped}.get(how)
    return f"{name}{told(result) if told else ''}: {often}.{_further(result)}"


def _rejection(result: Result) -> str:
    constant = f"{result['agents'][0]['acceptance']['constant']:.4g}".removeprefix("0")
    pilot = (result["definition"].get("rejection") or {}).get("pilot")
    found = f", found on {percent(pilot)} of the log and used on the rest" if pilot else ""
    return f" with one constant c = {constant}{found}"


def _doubly_robust(result: Result) -> str:
    settings = result["definition"].get("doubly_robust") or {}
    most = f"{result['agents'][0]['acceptance']['constant']:.4g}".removeprefix("0")
    quantile = settings.get("quantile") or 0
    path = f"c the {percent(quantile)} quantile of mu/pi so far" if quantile else "c the smallest mu/pi so far"
    return f" by {estimator_name(settings.get('estimator', 'dr'))}, {path}, at most {most}"


def _bootstrapped(result: Result) -> str:
    read = whole(result["agents"][0]["acceptance"]["read"])
    return f", each seed a replicate of {read} decisions drawn with replacement"


def _further(result: Result) -> str:
    """What a reader has to know of the method, or of its settings."""
    how, said = method_of(result), []
    if how == "doubly-robust":
        said.append("Values are from every decision read, curves and calls from those accepted.")
    if how == "bootstrapped":
        said.append("Decisions come again, so agents that remember look better than they are.")
    if how in ("queues", "per-state"):
        said.append("The horizon is what every run reached before a queue was empty.")
    uncertainty = result["definition"].get("uncertainty") or {}
    if uncertainty.get("subsamples"):
        share = percent(uncertainty["share"])
        said.append(f"{uncertainty['subsamples']} sub-samples of {share} of the log, each replayed twice.")
    return "".join(f" {sentence}" for sentence in said)


def _truth(result: Result) -> str:
    definition = result["definition"]
    if not definition.get("truth"):
        return ""
    known = f"Exact values from log “{definition['truth']}”"
    if method_of(result) in ("exact", "none"):
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
