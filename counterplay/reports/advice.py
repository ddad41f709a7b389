"""Which estimate to look at, policy by policy; said plainly where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from counterplay.reports.numbers import listed, percent, whole
from counterplay.reports.results import Result, Row, estimator_name, scale

MODEL_ONLY = "dm"
MEAN_OFF, MEAN_P = 0.1, 1e-4
"""Those of the gate."""


def advice(result: Result) -> list[str]:
    """One sentence or two about each policy of an evaluation, or each difference of a comparison; none for others."""
    kind = result["definition"].get("kind")
    if kind == "comparison":
        return [*(_on_difference(row) for row in result["comparisons"]), *_on_standings(result)]
    if kind != "evaluation":
        return []
    policies = dict.fromkeys(row["policy"] for row in result["estimates"])
    own = {policy: [row for row in result["estimates"] if row["policy"] == policy] for policy in policies}
    return [sentence for policy, rows in own.items() for sentence in _on_policy(result, policy, rows)]


def left_out(result: Result) -> list[str]:
    """Which estimators were left out, those with the same reason together."""
    groups: dict[str, list[str]] = {}
    for one in result.get("left_out", ()):
        reason = one["reason"].removeprefix(f"{one['estimator'].upper()} ")
        groups.setdefault(reason, []).append(estimator_name(one["estimator"]))
    return [
        f"Left out: {listed(names, 99)}; {'each ' if len(names) > 1 else 'it '}{reason}"
        if reason.startswith("needs ")
        else f"Left out: {listed(names, 99)}. {reason}"
        for reason, names in groups.items()
    ]


def _on_policy(result: Result, policy: str, rows: Sequence[Row]) -> list[str]:
    usable = [row for row in rows if row["value"] is not None and row["gate"] != "unreliable"]
    name = f"“{policy}”"
    if not usable:
        why = "; ".join(dict.fromkeys(row["reason"] for row in rows))
        return [f"{name}: every gate is unreliable ({why}). This log cannot say what it would have earned."]
    wrong = next(filter(_weights_are_off, rows), None)
    if wrong is not None:
        return [
            f"{name}: {wrong['reason']}. Shrinking the weights only hides that: see what `counterplay check` says of "
            "the propensities before any of these numbers is used."
        ]
    best = min(usable, key=_rank)
    shown = f"{estimator_name(best['estimator'])}, {_value(result, best)}"
    if best["estimator"] == MODEL_ONLY:
        return [f"{name}: nothing but the reward model speaks for it ({shown}), and DM is as wrong as its model."]
    if best["gate"] == "caution":
        return [f"{name}: look at {shown}, but with caution: {best['reason']}."]
    peers = [row for row in usable if row["gate"] == "ok" and _shrunk(row) == _shrunk(best)]
    why = "of those that raise no warning it has the smallest error" if len(peers) > 1 else "it alone raises no warning"
    return [f"{name}: look at {shown}: {why}.", *_disagreement(name, peers)]


def _on_standings(result: Result) -> list[str]:
    """How likely each policy is the best of all, where all were compared with each other."""
    known = [row for row in result.get("standings", ()) if row["probability_best"] is not None]
    if not known:
        return []
    shares = [f"“{row['policy']}” {percent(row['probability_best'])}" for row in known]
    kept = [f"“{row['policy']}”" for row in known if row["may_be_best"]]
    rest = "only it can be" if len(kept) == 1 else f"{listed(kept, 99)} can be"
    return [f"Best of all, with a flat prior: {listed(shares, 99)}. At {percent(known[0]['level'])} confidence {rest}."]


def _rank(row: Row) -> tuple[bool, bool, bool, float]:
    """What is not wrong on purpose first: an interval knows nothing of a bias. Then the gate, then the error."""
    error = row["std_error"]
    return row["estimator"] == MODEL_ONLY, row["gate"] != "ok", _shrunk(row), float("inf") if error is None else error


def _weights_are_off(row: Row) -> bool:
    """Whether the gate closed over the mean weight: the log is then at fault, not the estimator."""
    mean, p = row["diagnostics"].get("mean_weight"), row["diagnostics"].get("mean_weight_p")
    known = mean is not None and p is not None and row["gate"] == "unreliable"
    return known and abs(mean - 1) > MEAN_OFF and p < MEAN_P


def _shrunk(row: Row) -> bool:
    return "(" in row["estimator"]


def _value(result: Result, row: Row) -> str:
    unit = scale(result)
    interval = "" if row["low"] is None or row["high"] is None else f" {unit.interval(row['low'], row['high'])}"
    return f"{unit.value(row['value'])}{interval}"


def _disagreement(name: str, rows: Sequence[Row]) -> list[str]:
    known = [row for row in rows if row["low"] is not None and row["high"] is not None]
    for one, other in combinations(known, 2):
        if one["low"] > other["high"] or other["low"] > one["high"]:
            pair = f"{estimator_name(one['estimator'])} and {estimator_name(other['estimator'])}"
            return [
                f"{name}: the intervals of {pair} do not meet, so one of them is wrong: see what `counterplay check` "
                "says of the propensities."
            ]
    return []


def _on_difference(row: Row) -> str:
    ours, base = f"“{row['policy']}”", f"“{row['baseline']}”"
    if row["value"] is None or row["low_all"] is None:
        return f"{ours} and {base}: no difference is known{': ' + row['reason'] if row['reason'] else ''}."
    if row["gate"] == "unreliable":
        return f"{ours} and {base}: the difference cannot be relied on; {row['reason']}."
    if row["low_all"] > 0 or row["high_all"] < 0:
        return f"{ours} earns {'more' if row['value'] > 0 else 'less'} than {base}: settled."
    more = row["decisions_to_settle"]
    if not more:
        return f"{ours} and {base} cannot be told apart."
    return (
        f"{ours} and {base} cannot be told apart yet. About {_about(more)} more decisions like these would do it if "
        "the difference is as large as it looks now; one that was picked for its size is mostly smaller."
    )


def _about(count: int) -> str:
    """Two digits are all that a plan is worth."""
    return whole(round(count, -max(0, len(str(count)) - 2)))
