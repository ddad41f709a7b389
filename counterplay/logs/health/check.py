"""Checking a log: every number from SQL over its decisions, then findings, then the verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from counterplay.logs.health import findings as say
from counterplay.logs.health import findings_data as data
from counterplay.logs.health.actions import ActionTable, action_table, describe_actions
from counterplay.logs.health.answers import answers, by_weight, headline, verdict_of
from counterplay.logs.health.causes import Case, cause_of
from counterplay.logs.health.dependence import dependence
from counterplay.logs.health.model import (
    Actions,
    Finding,
    Health,
    Outcomes,
    Propensities,
    Repeats,
    Rewards,
    Rows,
    Support,
    Times,
)
from counterplay.logs.health.outcomes import describe_outcomes
from counterplay.logs.health.repeats import describe_repeats
from counterplay.logs.health.rewards import describe_rewards, describe_times
from counterplay.logs.health.scan import Scan, open_scan, totals_of
from counterplay.logs.health.thresholds import ACTIONS_OFF_SHARE
from counterplay.logs.health.weights import describe_propensities, policy_support, uniform_support
from counterplay.logs.reading import Place, require_log
from counterplay.logs.relations import decisions_of
from counterplay.logs.sources.source import json_pointer
from counterplay.logs.workspace import borrowed

Progress = Callable[[int, int, str], None]
_STEPS = 8


_MENDED = "counterplay_mended"


def check_log(workspace: Place, log: str, *, policy: str | None = None, progress: Progress | None = None) -> Health:
    """Say whether a log is fit for counterfactual questions, before anything is estimated from it.

    Args:
        workspace: an open workspace, or its path (opened for reading).
        log: the name of the log.
        policy: a policy whose choices are stored, whose support in the log is wanted; default: uniform choice only.
        progress: called with (steps done, steps in all, what comes next).

    Raises:
        InputError: there is no such log or policy.
    """
    tell = progress or (lambda *_: None)
    with borrowed(workspace) as opened:
        regime, _ = require_log(opened.connection, log)
        return _check(open_scan(opened.connection, log), regime, policy, tell)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """Everything that was counted, before it is judged."""

    totals: Mapping[str, Any]
    table: ActionTable
    rows: Rows
    actions: Actions
    propensities: Propensities
    uniform: Support | None
    policy: Support | None
    rewards: Rewards
    times: Times
    repeats: Repeats
    outcomes: Outcomes | None


def _measure(scan: Scan, policy: str | None, tell: Progress) -> _Measured:
    tell(0, _STEPS, "decisions")
    totals = totals_of(scan)
    tell(1, _STEPS, "actions")
    table = action_table(scan, totals)
    tell(2, _STEPS, "propensities")
    propensities = describe_propensities(scan, totals, table)
    tell(3, _STEPS, "weights")
    uniform = uniform_support(scan, totals) if propensities.known else None
    chosen = policy_support(scan, totals, policy) if policy is not None else None
    tell(4, _STEPS, "rewards")
    rewards, times = describe_rewards(scan, totals), describe_times(scan, totals)
    tell(5, _STEPS, "repeats")
    repeats = describe_repeats(scan, totals)
    tell(6, _STEPS, "outcomes")
    return _Measured(
        totals=totals,
        table=table,
        rows=_rows(scan, totals["n"]),
        actions=describe_actions(scan, totals, table),
        propensities=propensities,
        uniform=uniform,
        policy=chosen,
        rewards=rewards,
        times=times,
        repeats=repeats,
        outcomes=describe_outcomes(scan),
    )


def _check(scan: Scan, regime: str, policy: str | None, tell: Progress) -> Health:
    m = _measure(scan, policy, tell)
    n = m.totals["n"]
    tell(7, _STEPS, "causes")
    findings = by_weight(_findings(scan, m, n))
    verdict = verdict_of(findings)
    can, cannot = answers(n, m.actions, m.propensities, m.uniform, m.policy, m.rewards, m.outcomes, findings)
    tell(_STEPS, _STEPS, "done")
    return Health(
        log=scan.log,
        regime=regime,
        description=_description(scan),
        decisions=n,
        verdict=verdict,
        headline=headline(verdict, findings),
        can=can,
        cannot=cannot,
        findings=findings,
        rows=m.rows,
        actions=m.actions,
        propensities=m.propensities,
        uniform=m.uniform,
        policy=m.policy,
        rewards=m.rewards,
        repeats=m.repeats,
        times=m.times,
        outcomes=m.outcomes,
    )


def _findings(scan: Scan, m: _Measured, n: int) -> list[Finding]:
    found = [*say.on_rows(m.rows, n), *data.on_rewards(m.rewards, n, m.outcomes is not None)]
    if m.outcomes is not None:
        found.append(data.on_outcomes(m.outcomes))
    else:
        found += say.on_propensities(m.propensities, n)
        found += say.on_actions(m.actions, m.propensities.share_one >= 1)
        found += _on_weights(scan, m)
    return [*found, *data.on_repeats(m.repeats, m.times, n), *data.on_times(m.times, n)]


def _on_weights(scan: Scan, m: _Measured) -> list[Finding]:
    """Supports, mean weights, and the cause when they are not what they should be."""
    if m.uniform is None or m.propensities.share_one >= 1:
        return []
    means = [say.on_mean_weight(m.uniform, "uniform")]
    if m.policy is not None:
        means.append(say.on_mean_weight(m.policy, "policy"))
    # A policy below 1 takes what was never logged, which is no fault of the propensities.
    above = m.policy is not None and (m.policy.mean or 0) > 1
    off = any(one is not None and one.level == "unreliable" and (one.scope == "log" or above) for one in means)
    flat = m.propensities.one_per_action and len(m.table.action) > 1
    case = Case(
        scan=scan,
        totals=m.totals,
        table=m.table,
        propensities=m.propensities,
        uniform=m.uniform,
        policy=m.policy,
        dependence=dependence(scan, m.totals["n"], m.repeats) if flat else None,
        broken=off or m.actions.off_share > ACTIONS_OFF_SHARE,
    )
    cause = cause_of(case)
    trusted = not case.broken and (cause is None or cause.level != "unreliable")
    found = [say.on_support(m.uniform, "uniform", trusted)]
    if m.policy is not None:
        found.append(say.on_support(m.policy, "policy", trusted))
        means.append(say.on_misses(m.policy, m.totals["n"]))
    return [*found, *(one for one in (*means, cause) if one is not None)]


def _rows(scan: Scan, decisions: int) -> Rows:
    """What became of the rows, each counted once however often its file came: those in the log, and those that are
    still in the quarantine.
    """
    sums = scan.one("SELECT coalesce(sum(rows_known), 0) AS known FROM sources WHERE log = ?", [scan.log])
    _find_mended(scan)
    reasons = scan.connection.execute(
        f"""SELECT split_part(split_part(reason, '; ', 1), ':', 1) AS why, count(*) FROM quarantine
            ANTI JOIN {_MENDED} USING (source, line) WHERE log = ? GROUP BY why ORDER BY 2 DESC, 1""",
        [scan.log],
    ).fetchall()
    held = sum(number for _, number in reasons)
    return Rows(
        read=decisions + held,
        kept=decisions,
        known=int(sums["known"]),
        quarantined=held,
        reasons=tuple((why, int(number)) for why, number in reasons[:20]),
    )


def _find_mended(scan: Scan) -> None:
    """Rows in quarantine whose decision came later, sound: `_MENDED` (source, line)."""
    scan.connection.execute(f"CREATE OR REPLACE TEMP TABLE {_MENDED} (source VARCHAR, line BIGINT)")
    sources = scan.connection.execute(
        """SELECT source, json_extract_string(arg_max(mapping, imported_at), '/decision_id') FROM sources
           WHERE log = ? AND rows_quarantined > 0 GROUP BY source""",
        [scan.log],
    ).fetchall()
    for source, column in sources:
        if column is None:
            continue
        # A repeated or changed row has an id that is known, which does not mend it.
        scan.connection.execute(
            f"""WITH held AS (SELECT line, json_extract_string(row, $pointer) AS id FROM quarantine
                    WHERE log = $log AND source = $source AND NOT starts_with(reason, 'decision id'))
                INSERT INTO {_MENDED} SELECT $source, line FROM held WHERE id IN (
                    SELECT decision_id FROM {decisions_of(scan.connection, scan.log)}
                    WHERE decision_id IN (SELECT id FROM held))""",
            {"log": scan.log, "source": source, "pointer": json_pointer(column)},
        )


def _description(scan: Scan) -> str | None:
    text: str | None = scan.one("SELECT description FROM logs WHERE log = ?", [scan.log])["description"]
    return text
