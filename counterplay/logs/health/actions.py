"""Each action: how often it was taken, what it earned, and whether that is as often as its propensities say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from counterplay.logs.health.model import ActionRow, Actions
from counterplay.logs.health.scan import Array, Scan, drawn, thin
from counterplay.logs.health.thresholds import (
    ACTION_DECISIONS,
    ACTION_OFF,
    ACTION_OFF_P,
    ACTION_SAMPLE,
    ONE_VALUE,
    UNNESTED_ROWS,
    WELL_DRAWN,
)

SHOWN, WORST, NAMED = 20, 10, 5
NORMAL_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ActionTable:
    """Arrays over the A actions that were taken, by index.

    `known`: decisions with a propensity; `ratio`: sum of 1 / mu over them, by the decisions in which the action was a
    candidate; `error` its standard error; `tested` where that error can be trusted; `z`: standard errors between the
    ratio and 1, 0 where not tested; `eligible`: share of all decisions
    in which the action was a candidate.
    """

    action: Array
    decisions: Array
    known: Array
    rewarded: Array
    reward: Array
    reward_var: Array
    inverse: Array
    lowest: Array
    highest: Array
    mean_mu: Array
    eligible: Array
    ratio: Array
    error: Array
    tested: Array
    z: Array

    @property
    def off(self) -> Array:
        """(A,) 1 where an action was taken more or less often than its propensities allow by chance."""
        z = self.z
        p = np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z])
        limit = ACTION_OFF_P / max(1.0, self.tested.sum())
        wrong: Array = ((self.tested > 0) & (p < limit) & (np.abs(self.ratio - 1) > ACTION_OFF)).astype(np.float64)
        return wrong

    @property
    def one_value(self) -> Array:
        """(A,) 1 where all decisions of an action have one propensity."""
        same: Array = ((self.highest - self.lowest) <= ONE_VALUE * self.highest).astype(np.float64)
        return same


def action_table(scan: Scan, totals: Mapping[str, Any]) -> ActionTable:
    """One scan, and one more over the candidates where the log has them."""
    found = scan.columns(
        f"""SELECT action, count(*) AS decisions, count(mu) AS known, count(reward) AS rewarded,
            avg(reward) AS reward, var_samp(reward) AS reward_var, coalesce(sum(1 / mu), 0) AS inverse,
            coalesce(sum(1 / mu / mu), 0) AS square, min(mu) AS lowest, max(mu) AS highest, avg(mu) AS mean_mu
            FROM {scan.rows} WHERE action IS NOT NULL GROUP BY action ORDER BY action"""
    )
    n = max(1, totals["known"])
    share = _eligible(scan, totals, found["action"])
    square = found.pop("square")
    with np.errstate(all="ignore"):
        ratio, error = _ratio(found["inverse"], square, n, share)
        sample = found["inverse"] ** 2 / square
        z = (ratio - 1) / error
    # Where propensities go down to what is hardly ever drawn, smaller ones were never drawn at all: their part of the
    # sum is missing, and nobody can tell that from an action that could not be taken.
    reached = (ratio > 1) | (found["lowest"] * n * share >= WELL_DRAWN)
    sound = (found["known"] >= ACTION_DECISIONS) & (sample >= ACTION_SAMPLE) & (error > 0) & reached & np.isfinite(z)
    return ActionTable(
        **found,
        eligible=share,
        ratio=ratio,
        error=error,
        tested=sound.astype(np.float64),
        z=np.where(sound, z, 0.0),
    )


def _ratio(inverse: Array, square: Array, n: int, share: Array) -> tuple[Array, Array]:
    """(A,) ratios and their standard errors, from the variance of 1[A = a] / mu - 1[a is a candidate], of mean 0."""
    rate = inverse / n
    variance = square / n - 2 * rate + share - (rate - share) ** 2
    return rate / share, np.sqrt(np.maximum(variance, 0) / n) / share


def _eligible(scan: Scan, totals: Mapping[str, Any], actions: Array) -> Array:
    """(A,) in which share of the decisions with a propensity each action was a candidate."""
    share = np.ones(len(actions))
    if not totals["listed"] or not totals["known"]:
        return share
    one_in = thin(math.ceil(totals["listed"] * totals["size_mean"]), UNNESTED_ROWS)
    where = f"mu IS NOT NULL AND {drawn('position', one_in)}"
    seen = scan.one(f"SELECT count(*) AS n, count(*) - count(candidates) AS free FROM {scan.rows} WHERE {where}")
    found = scan.columns(
        f"""SELECT one AS action, count(*) AS decisions FROM
            (SELECT unnest(candidates) AS one FROM {scan.rows} WHERE {where}) GROUP BY one ORDER BY one"""
    )
    counted = dict(zip(found["action"], found["decisions"], strict=True))
    return np.array([(counted.get(a, 0.0) + seen["free"]) / max(1, seen["n"]) for a in actions])


def describe_actions(scan: Scan, totals: Mapping[str, Any], table: ActionTable) -> Actions:
    """What is told of the actions; labels are looked up for those named only."""
    order = np.lexsort((table.action, -table.decisions))
    off = table.off
    # The most decisions first among those that are off: a rare action that is wrong does little harm.
    worst = [i for i in np.lexsort((table.action, -np.abs(table.z))) if off[i] > 0][:WORST]
    shown = list(order[:SHOWN])
    labels = _labels(scan, [int(table.action[i]) for i in {*shown, *worst, *order[-1:]}])
    total = max(1.0, float(table.decisions.sum()))
    binary = totals["rewarded"] == totals["binary"]
    rows = {i: _row(table, int(i), labels, total, binary) for i in {*shown, *worst}}
    return Actions(
        known=scan.actions,
        seen=len(table.action),
        unseen=_unseen(scan, table),
        rarest=labels[int(table.action[order[-1]])] if len(order) else None,
        rarest_share=float(table.decisions[order[-1]]) / total if len(order) else None,
        tested=int(table.tested.sum()),
        off=int(off.sum()),
        off_share=float((off * table.decisions).sum() / total),
        shown=tuple(rows[i] for i in shown),
        worst=tuple(rows[i] for i in worst),
        candidates=(int(totals["size_low"]), float(totals["size_mean"]), int(totals["size_high"]))
        if totals["listed"]
        else None,
    )


def _row(table: ActionTable, i: int, labels: Mapping[int, str], total: float, binary: bool) -> ActionRow:
    rewarded = float(table.rewarded[i])
    mean = float(table.reward[i]) if rewarded else None
    low, high = interval(mean, float(table.reward_var[i]), rewarded, binary)
    known = bool(table.known[i])
    return ActionRow(
        action=int(table.action[i]),
        label=labels[int(table.action[i])],
        decisions=int(table.decisions[i]),
        share=float(table.decisions[i]) / total,
        reward=mean,
        reward_low=low,
        reward_high=high,
        propensity=float(table.mean_mu[i]) if known else None,
        calibration=float(table.ratio[i]) if known and math.isfinite(table.ratio[i]) else None,
        z=float(table.z[i]) if table.tested[i] else None,
    )


def interval(mean: float | None, variance: float, n: float, binary: bool) -> tuple[float | None, float | None]:
    """95 %: Wilson 1927 for rewards of 0 and 1, else normal; (None, None) without at least two rewards."""
    if mean is None or n < 1 or (not binary and n < 2):
        return None, None
    z2 = NORMAL_95**2
    if binary:
        centre = (mean + z2 / (2 * n)) / (1 + z2 / n)
        half = NORMAL_95 / (1 + z2 / n) * math.sqrt(max(0.0, mean * (1 - mean)) / n + z2 / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)
    half = NORMAL_95 * math.sqrt(max(0.0, variance) / n)
    return mean - half, mean + half


def _labels(scan: Scan, actions: list[int]) -> dict[int, str]:
    rows = scan.connection.execute(
        "SELECT action, label FROM actions WHERE log = ? AND action IN (SELECT unnest(?))", [scan.log, actions]
    ).fetchall()
    # Decisions may name an index that the table of actions does not have.
    return {action: f"#{action}" for action in actions} | dict(rows)


def labels_of(scan: Scan, actions: list[int]) -> dict[int, str]:
    """Labels of these actions; `#` and the index where there is none."""
    return _labels(scan, actions)


def _unseen(scan: Scan, table: ActionTable) -> tuple[str, ...]:
    if scan.actions <= len(table.action):
        return ()
    rows = scan.connection.execute(
        f"""SELECT label FROM actions WHERE log = ? AND action NOT IN
            (SELECT action FROM {scan.rows} WHERE action IS NOT NULL) ORDER BY action LIMIT {NAMED}""",
        [scan.log],
    ).fetchall()
    return tuple(label for (label,) in rows)
