"""Why propensities do not fit the actions: what the usual mistakes look like in a log, the most specific first.

With right propensities mu, 1 / mu summed over the decisions of an action is in expectation the number of decisions in
which it could be taken. Each mistake breaks this in its own way:

| cause | how it looks |
|---|---|
| `mean-propensity` | one propensity an action (or one for all), although actions depend on context or time |
| `other-probability` | with 1 - mu in place of mu everything fits |
| `scaled-propensities` | all actions are off by the same factor: positions, joint probabilities, percentages |
| `most-probable` | no propensity is below 1 / number of candidates, though other than the best actions were taken |
| `filtered-rows` | actions that earn more are there more often than they should: rows were left out by their reward |
| `support-holes` | some actions are there too rarely, none too often: they could not be taken everywhere |
| `other-rows` | 1 / mu has the same mean for all actions: the propensities belong to other rows or actions |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from counterplay.logs.health.actions import ActionTable, labels_of
from counterplay.logs.health.dependence import Dependence
from counterplay.logs.health.model import Finding, Propensities, Support
from counterplay.logs.health.scan import Array, Scan
from counterplay.logs.health.thresholds import ACTION_DECISIONS, NEARLY_ALL, ONE_VALUE
from counterplay.logs.health.words import amount, share

_SAME_FACTOR = 0.1
_SMALL_FACTOR = 1.5
_WHOLE_FACTOR = 0.03
_MOST_FACTOR = 20
_CORRELATED = 0.8
_FEWEST_ACTIONS = 5
_UNRELATED = 0.15
_KNOWN_TO = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Everything that the causes look at. `broken`: the mean weight or enough actions are off."""

    scan: Scan
    totals: Mapping[str, Any]
    table: ActionTable
    propensities: Propensities
    uniform: Support
    policy: Support | None
    dependence: Dependence | None
    broken: bool


_UNKNOWN = Finding(
    code="unknown-cause",
    level="caution",
    sentence=(
        "None of the usual mistakes explains why the propensities do not fit: look for rows left out by their action, "
        "estimated propensities, or those of another version of the policy."
    ),
)


def cause_of(case: Case) -> Finding | None:
    """The likeliest cause, or None when nothing is wrong or nothing fits."""
    mean = _mean_propensity(case)
    if mean is not None or not case.broken:
        return mean
    tests: tuple[Callable[[Case], Finding | None], ...]
    tests = (_other_probability, _scaled, _most_probable, _filtered, _other_rows, _holes)
    return next((found for found in (test(case) for test in tests) if found is not None), _UNKNOWN)


def _mean_propensity(case: Case) -> Finding | None:
    p, on = case.propensities, case.dependence
    if not p.one_per_action or case.table.action.size < 2:
        return None
    depends = on is not None and on.on != ""
    if not (case.broken or depends):
        return _untestable(case)
    # One factor for all actions says more: their shares are right, only their size is not.
    scaled = None if depends else _scaled(case)
    if scaled is not None:
        return scaled
    flat = case.totals["highest"] - case.totals["lowest"] <= 1e-9
    what = (
        f"Every decision has the same propensity, {amount(case.totals['lowest'])}"
        if flat
        else "Every action has one and the same propensity in all its decisions"
    )
    why = (
        f"the actions taken depend on the {_named(on.on)}"
        if on is not None and depends
        else "the actions were not taken as often as that says"
    )
    said = "a mean propensity was logged, not the probability of the action in its context"
    weights = ""
    if case.policy is not None and case.policy.mean is not None and abs(case.policy.mean - 1) > 0.1:
        weights = f" (for policy '{case.policy.policy}' the mean weight is {amount(case.policy.mean)}, not 1)"
    numbers = {
        "mean_weight": case.uniform.mean,
        "policy_mean_weight": None if case.policy is None else case.policy.mean,
        "depends_on": "" if on is None else on.on,
        "explained": None if on is None else on.share,
        "p_value": None if on is None else on.p_value,
    }
    return _found("mean-propensity", f"{what}, yet {why}: {said}{weights}.", numbers)


def _untestable(case: Case) -> Finding | None:
    """One propensity an action is right for a policy that ignores the context, which cannot always be seen."""
    even = bool((np.abs(case.table.mean_mu * case.scan.actions - 1) < ONE_VALUE).all())
    if even or (case.dependence is not None and {"feature", "context"} & set(case.dependence.tested)):
        return None
    said = "Every action has one and the same propensity in all its decisions: right if the logged policy ignored the"
    return Finding(
        code="one-propensity-per-action",
        level="caution",
        sentence=f"{said} context, a mean and wrong if it did not; no features or repeated contexts are there to tell.",
    )


def _named(what: str) -> str:
    return f"context ({what})" if what.startswith("feature") else what


def _other_probability(case: Case) -> Finding | None:
    found = case.scan.columns(
        f"""SELECT action, sum(1 / (1 - mu)) AS inverse FROM {case.scan.rows}
            WHERE mu < 1 GROUP BY action ORDER BY action"""
    )
    place = np.searchsorted(case.table.action, found["action"])
    ratio = np.zeros(len(case.table.action))
    ratio[place] = found["inverse"] / max(1, case.totals["known"])
    ratio = ratio / case.table.eligible
    before, after = _misfit(case.table, case.table.ratio), _misfit(case.table, ratio)
    if not (after < 0.1 and after < before / 4):
        return None
    said = "With 1 - propensity in place of the propensity every action fits: the probability of the other actions"
    return _found(
        "other-probability", f"{said} was logged, not that of the action taken.", {"misfit": before, "mended": after}
    )


def _misfit(table: ActionTable, ratio: Array) -> float:
    """Mean distance of the actions' ratios from 1, weighted by their decisions."""
    weight = table.decisions * (table.known > 0)
    return float((weight * np.abs(ratio - 1)).sum() / max(1.0, weight.sum()))


def _scaled(case: Case) -> Finding | None:
    table, chosen = case.table, case.table.tested > 0
    mean = case.uniform.mean
    if chosen.sum() < 2 or mean is None or abs(mean - 1) <= _SAME_FACTOR:
        return None
    weight = 1 / (table.error[chosen] / table.ratio[chosen]) ** 2
    factor = float((weight * table.ratio[chosen]).sum() / weight.sum())
    spread = np.abs(table.ratio[chosen] / factor - 1)
    noise = 4 * table.error[chosen] / table.ratio[chosen]
    if (spread > np.maximum(_SAME_FACTOR, noise)).any() or abs(factor - 1) <= _SAME_FACTOR:
        return None
    numbers = {"factor": factor, "actions": float(chosen.sum())}
    times = factor if factor > 1 else 1 / factor
    small = "small" if factor > 1 else "large"
    said = f"All propensities are too {small} by the same factor, {amount(times)}"
    return _found("scaled-propensities", f"{said}: {_factor_means(factor, times)}.", numbers)


def _factor_means(factor: float, times: float) -> str:
    if times < _SMALL_FACTOR:
        return "estimated or rounded propensities look like this"
    if 95 <= times <= 105:
        return "percentages were divided or multiplied by 100 once too often"
    whole = round(times)
    exact = 2 <= whole <= _MOST_FACTOR and abs(times - whole) < _WHOLE_FACTOR * whole
    if factor > 1:
        of = f"of one of {whole} positions" if exact else "of something besides the action"
        return f"they look like joint probabilities of the action and {of}, such as its place in a ranking"
    of = f"in any of {whole} positions" if exact else "in any of several positions"
    return (
        f"they look like the probability to show the action {of}, or only 1 in {amount(times)} actions could be taken "
        "in each decision and the candidates were not logged"
    )


def _most_probable(case: Case) -> Finding | None:
    if case.uniform.mean is None or case.uniform.mean > 1 or case.totals["lowest"] == case.totals["highest"]:
        return None
    low = case.scan.one(f"SELECT count(*) AS n FROM {case.scan.rows} WHERE mu * size < {1 - 1e-6}")["n"]
    if low > (1 - NEARLY_ALL) * case.totals["known"]:
        return None
    said = "No propensity is below 1 / number of candidates, although unlikely actions must have been taken at times"
    return _found(
        "most-probable",
        f"{said}: the probability of the most probable action was logged, or a mean over the chosen ones.",
        {"below": low / case.totals["known"], "mean_weight": case.uniform.mean},
    )


def _filtered(case: Case) -> Finding | None:
    table = case.table
    # How actions stand to each other can be seen before it is certain how each stands to 1.
    chosen = (table.known >= ACTION_DECISIONS) & (table.rewarded > 1) & (table.error < _KNOWN_TO * table.ratio)
    if chosen.sum() < _FEWEST_ACTIONS or case.totals["reward_low"] == case.totals["reward_high"]:
        return None
    rank = _ranks(table.ratio[chosen]), _ranks(table.reward[chosen])
    correlation = float(np.corrcoef(*rank)[0, 1])
    if not math.isfinite(correlation) or abs(correlation) < _CORRELATED:
        return None
    more, kept = ("more", "without") if correlation > 0 else ("less", "with")
    said = f"Actions that earn {more} are in the log too often for their propensities"
    return _found(
        "filtered-rows",
        f"{said}: rows {kept} reward were left out, so the log is no sample of what happened.",
        {"rank_correlation": correlation, "actions": float(chosen.sum())},
    )


def _ranks(values: Array) -> Array:
    return np.argsort(np.argsort(values)).astype(np.float64)


def _other_rows(case: Case) -> Finding | None:
    table, chosen = case.table, case.table.known >= 30
    if chosen.sum() < 2 or case.totals["lowest"] == case.totals["highest"]:
        return None
    weight, mean = table.known[chosen], table.inverse[chosen] / table.known[chosen]
    flat = float((weight * np.abs(mean / ((weight * mean).sum() / weight.sum()) - 1)).sum() / weight.sum())
    misfit = _misfit(table, table.ratio)
    if flat > _UNRELATED or flat > misfit / 2:
        return None
    said = "The propensities have nothing to do with the actions beside them"
    return _found(
        "other-rows",
        f"{said}: they belong to other rows or to another choice, or are a mean over actions.",
        {"spread": flat, "misfit": misfit},
    )


def _holes(case: Case) -> Finding | None:
    table, off = case.table, case.table.off > 0
    mean = case.uniform.mean
    above = off & (table.ratio > 1)
    unseen = 1 - len(table.action) / max(1, case.scan.actions)
    if mean is None or mean > 1 or above.any() or not (off.any() or unseen > 0):
        return None
    rare = sorted(np.flatnonzero(off), key=lambda i: float(table.ratio[i]))[:3]
    labels = labels_of(case.scan, [int(table.action[i]) for i in rare])
    names = ", ".join(f"'{labels[int(table.action[i])]}' ({share(float(table.ratio[i]))})" for i in rare)
    few = f"Some actions could be taken in a part of the decisions only, {names}" if names else ""
    never = f"{share(unseen)} of the actions were never taken" if unseen > 0 else ""
    said = "; ".join(part for part in (few, never) if part)
    return _found(
        "support-holes",
        f"{said}: log the candidates of each decision, or ask about policies that leave these actions out.",
        {"mean_weight": mean, "unseen": unseen, "actions_off": float(off.sum())},
    )


def _found(code: str, sentence: str, numbers: Mapping[str, float | str | None]) -> Finding:
    return Finding(code=code, level="unreliable", sentence=sentence, numbers=dict(numbers))
