"""Findings on rows, propensities, actions and weights: each a level, a code, and one sentence."""

from __future__ import annotations

from typing import Any

from counterplay.logs.health import thresholds as t
from counterplay.logs.health.model import (
    Actions,
    Finding,
    Level,
    Propensities,
    Rows,
    Scope,
    Support,
)
from counterplay.logs.health.words import amount, count, share

Maybe = Finding | None


def finding_of(code: str, level: Level, sentence: str, **numbers: float | str | None) -> Finding:
    """A finding on the whole log."""
    return Finding(code=code, level=level, sentence=sentence, numbers=numbers)


def on_rows(rows: Rows, decisions: int) -> list[Finding]:
    """Enough decisions, and not too many rows in quarantine."""
    found = []
    if decisions < t.FEWEST_DECISIONS:
        said = "The log has no decisions" if decisions == 0 else "The log has one decision, which has no spread"
        found.append(finding_of("few-decisions", "unreliable", f"{said}: import more.", decisions=decisions))
    elif decisions < t.FEW_DECISIONS:
        said = f"{count(decisions, 'decision')} are too few for an interval that can be trusted."
        found.append(finding_of("few-decisions", "caution", said, decisions=decisions))
    if rows.quarantined == 0:
        if rows.read:
            found.append(finding_of("quarantine", "ok", f"Rows read: {rows.read:,}, and all of them sound."))
        return found
    part = rows.quarantined / max(1, rows.read)
    level: Level = "unreliable" if part > t.VERY_BAD_ROWS else "caution" if part > t.BAD_ROWS else "ok"
    said = f"{count(rows.quarantined, 'row')} of {rows.read:,} ({share(part)}) went into quarantine{_why(rows)}"
    hint = _unit_hint(rows, part)
    found.append(finding_of("quarantine", level, f"{said}{hint}.", rows=rows.quarantined, share=part))
    return found


def _why(rows: Rows) -> str:
    if not rows.reasons:
        return ", no reason is stored"
    (reason, number), *others = rows.reasons
    if not others:
        return f" because {reason}"
    return f", most because {reason}" if 2 * number > rows.quarantined else f" for {len(rows.reasons)} reasons"


def _unit_hint(rows: Rows, part: float) -> str:
    """Propensities that are no probabilities at all never get past the import; their reasons say what they are."""
    if part <= t.VERY_BAD_ROWS or not rows.reasons:
        return ""
    if rows.reasons[0][0].startswith("propensity is above 1"):
        return ": it looks like percentages, weights or odds"
    return ": it looks like logarithms" if rows.reasons[0][0].startswith("propensity is negative") else ""


def on_propensities(p: Propensities, decisions: int) -> list[Finding]:
    """Whether there are propensities, and whether they leave anything to chance."""
    if decisions == 0:
        return []
    if p.known == 0:
        said = "There are no propensities: what another policy would have earned cannot be said without assumptions."
        if p.invalid:
            said = "No propensity is between 0 and 1: log the probability of the action taken."
        return [finding_of("no-propensities", "unreliable", said, invalid=p.invalid)]
    found = []
    lost = (p.missing + p.invalid) / decisions
    if lost > t.MISSING:
        level: Level = "unreliable" if lost > t.MOSTLY_MISSING else "caution"
        said = f"{count(p.missing + p.invalid, 'decision')} ({share(lost)}) without a propensity between 0 and 1"
        found.append(
            finding_of("missing-propensities", level,
                     f"{said}: they cannot be weighed, and whom that leaves out matters.",
                     missing=p.missing, invalid=p.invalid)
        )  # fmt: skip
    if p.share_one >= 1:
        said = "Every action was taken with probability 1: the log says nothing about any other action"
        found.append(finding_of("deterministic-logging", "unreliable", f"{said}; log some exploration.", share=1.0))
    elif p.share_one > t.MOSTLY_CERTAIN:
        said = f"{share(p.share_one)} of the decisions were taken with probability 1 and tell of no other action."
        found.append(finding_of("little-exploration", "caution", said, share=p.share_one))
    if p.distinct > 50 and p.share_smallest > t.FLOORED:
        lowest = p.quantiles[0][1]
        said = f"{share(p.share_smallest)} of the propensities are exactly {amount(lowest)}, the smallest"
        found.append(
            finding_of("floored-propensities", "caution", f"{said}: if they were raised to a floor after the choice, "
                     "weights there are too small.", share=p.share_smallest, floor=lowest)
        )  # fmt: skip
    return found + _on_sums(p)


def _on_sums(p: Propensities) -> list[Finding]:
    if p.sums is None:
        return []
    known, low, high, off, other = p.sums
    if off == 0 and other == 0:
        said = f"The {count(known, 'known distribution')} over candidates sum to 1 and agree with the propensities."
        return [finding_of("candidate-sums", "ok", said, smallest=low, largest=high)]
    said = (
        f"{count(off, 'distribution')} over candidates do not sum to 1 (from {amount(low)} to {amount(high)}), and "
        f"{other:,} give the action taken another probability than its propensity."
    )
    level: Level = "unreliable" if off + other > 0.01 * known else "caution"
    return [finding_of("candidate-sums", level, said, off=off, other=other)]


def on_actions(actions: Actions, certain: bool) -> list[Finding]:
    """Actions that were never taken, or not as often as their propensities say; `certain`: all propensities are 1."""
    found = []
    if actions.seen == 1:
        said = "Only one action was ever taken: nothing can be said about another one."
        found.append(finding_of("one-action", "unreliable", said))
    never = actions.known - actions.seen
    if never and actions.seen:
        some = ", ".join(f"'{label}'" for label in actions.unseen[:3])
        said = f"{never:,} of {count(actions.known, 'action')} were never taken, such as {some}"
        found.append(
            finding_of(
                "unseen-actions", "caution", f"{said}: a policy that takes them is evaluated too low.", never=never
            )
        )
    if actions.off and actions.worst and not certain:
        worst = actions.worst[0]
        level: Level = "unreliable" if actions.off_share > t.ACTIONS_OFF_SHARE else "caution"
        said = (
            f"{actions.off:,} of {count(actions.tested, 'tested action')} were not taken as often as their "
            f"propensities say; '{worst.label}' {amount(worst.calibration)} times as often."
        )
        found.append(
            finding_of("action-calibration", level, said, off=actions.off, tested=actions.tested, z=worst.z,
                     share=actions.off_share)
        )  # fmt: skip
    elif actions.tested and not certain:
        said = (
            f"All {count(actions.tested, 'action')} that could be tested were taken as often as their propensities say."
        )
        found.append(finding_of("action-calibration", "ok", said, tested=actions.tested))
    return found


def on_mean_weight(s: Support, scope: Scope) -> Maybe:
    """The mean of the weights against 1."""
    if s.mean is None or s.p_value is None or s.std_error is None:
        return None
    who = "uniform choice" if scope == "uniform" else f"policy '{s.policy}'"
    numbers: dict[str, Any] = {"mean": s.mean, "std_error": s.std_error, "z": s.z, "p_value": s.p_value}
    code = "mean-weight" if scope == "uniform" else "policy-mean-weight"
    level: Level = "ok"
    said = f"The mean weight of {who} is {amount(s.mean)} (standard error {amount(s.std_error)})"
    # The log's fault, not only that of the question about uniform choice; unless what is missing was hardly ever drawn.
    rare = s.mean < 1 and (s.largest or 0) * t.WELL_DRAWN > s.decisions
    where: Scope = "log" if scope == "uniform" and not rare else scope
    if abs(s.mean - 1) > t.WEIGHT_OFF and s.p_value < t.WEIGHT_OFF_P and rare:
        level, said = "unreliable", f"{said}, not 1: some of what it would do was almost never logged."
    elif abs(s.mean - 1) > t.WEIGHT_OFF and s.p_value < t.WEIGHT_OFF_P:
        level, said = "unreliable", f"{said}, not 1: wrong propensities, or actions that were never logged."
    elif abs(s.mean - 1) > t.WEIGHT_DRIFT and s.p_value < t.WEIGHT_DRIFT_P:
        level, said = "caution", f"{said}, a little off 1: check the propensities."
    elif s.effective_sample_size < t.POOR_SAMPLE:
        said = f"{said}, so uncertain that it is no test of the propensities."
    else:
        said = f"{said}, as it should be."
    return Finding(code=code, level=level, sentence=said, scope=where, numbers=numbers)


def on_support(s: Support, scope: Scope, trusted: bool) -> Finding:
    """Whether the weights leave enough decisions to speak for the policy; `trusted`: the propensities fit the log."""
    who = "Uniform choice" if scope == "uniform" else f"Policy '{s.policy}'"
    n, size = s.decisions, s.effective_sample_size
    numbers: dict[str, Any] = {
        "effective_sample_size": size,
        "largest_weight": s.largest,
        "largest_share": s.largest_share,
        "covered": s.covered,
        "accepted": s.accepted,
    }
    of = f"an effective sample of {amount(size)} of {count(n, 'decision')}"
    level: Level = "ok"
    if s.covered == 0:
        level, said = "unreliable", f"{who} cannot be evaluated: no decision took an action that it would take."
    elif size < t.POOR_SAMPLE or (s.largest_share or 0) > t.HEAVY_DECISION:
        level = "unreliable"
        said = (
            f"{who} cannot be evaluated: one decision has weight {amount(s.largest)}, {share(s.largest_share or 0)} of "
            f"all weight, which leaves {of}."
        )
    elif size < t.SMALL_SAMPLE:
        level, said = "caution", f"{who} can be evaluated roughly, with {of}."
    elif not trusted:
        said = f"{who} would have {of}, were the propensities right."
    else:
        said = f"{who} can be evaluated, with {of}; the largest weight is {amount(s.largest)}."
    code = "uniform-support" if scope == "uniform" else "policy-support"
    return Finding(code=code, level=level, sentence=said, scope=scope, numbers=numbers)


def on_misses(s: Support, decisions: int) -> Maybe:
    """Decisions in whose context the policy has no choice."""
    if not s.misses:
        return None
    part = s.misses / max(1, decisions)
    level: Level = "unreliable" if part > t.MOSTLY_MISSING else "caution"
    said = f"Policy '{s.policy}' has no choice in the contexts of {count(s.misses, 'decision')} ({share(part)})."
    return Finding(code="policy-misses", level=level, sentence=said, scope="policy", numbers={"share": part})
