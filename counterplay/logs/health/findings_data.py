"""Findings on rewards, repeats, times and outcomes: each a level, a code, and one sentence."""

from __future__ import annotations

from counterplay.logs.health import thresholds as t
from counterplay.logs.health.findings import finding_of
from counterplay.logs.health.model import Finding, Level, Outcomes, Repeats, Rewards, Times
from counterplay.logs.health.words import amount, count, share


def on_rewards(r: Rewards, decisions: int, exact: bool) -> list[Finding]:
    """Whether rewards are there, differ, and stay the same over time. `exact`: there is an outcome table."""
    if decisions == 0 or (exact and r.known == 0):
        return []
    if r.known == 0:
        return [finding_of("no-rewards", "unreliable", "No decision has a reward.")]
    found = []
    if r.missing:
        part = r.missing / decisions
        level: Level = "unreliable" if part > t.MOSTLY_MISSING else "caution"
        said = (
            f"{count(r.missing, 'decision')} ({share(part)}) without a reward: if that depends on what would have been"
        )
        found.append(
            finding_of("missing-rewards", level, f"{said} earned, every estimate is biased.", missing=r.missing)
        )
    if r.kind == "equal" and r.known > 1:
        said = f"All rewards are {amount(r.mean)}: no policy can be told from another; perhaps rows were left out by"
        found.append(finding_of("rewards-equal", "unreliable", f"{said} their reward.", reward=r.mean))
    if r.rarer is not None and r.rarer < t.FEW_REWARDS:
        level = "unreliable" if r.rarer < t.FEWEST_REWARDS else "caution"
        rare = 1 if (r.mean or 0) <= 0.5 else 0
        said = f"Only {count(r.rarer, 'decision')} of {r.known:,} have a reward of {rare}: intervals will be wide."
        found.append(finding_of("few-rewards", level, said, decisions=r.rarer))
    if r.kind == "real":
        said = f"Rewards lie outside 0 and 1, between {amount(r.smallest)} and {amount(r.largest)}; that is allowed."
        found.append(finding_of("reward-range", "ok", said, smallest=r.smallest, largest=r.largest))
    if r.drift is not None and r.drift_p is not None:
        found.append(_on_drift(r, r.drift, r.drift_p))
    return found


def _on_drift(r: Rewards, drift: float, p: float) -> Finding:
    means = [bucket.reward for bucket in r.over_time]
    over = "over time" if r.by == "time" else "along the log"
    if drift > t.DRIFT and p < t.DRIFT_P:
        said = (
            f"Rewards change {over}, from {amount(min(means))} to {amount(max(means))} between twentieths of the log: "
            "an estimate is about the whole period, not about today."
        )
        return finding_of("reward-drift", "caution", said, drift=drift, p_value=p)
    return finding_of("reward-drift", "ok", f"Rewards show no clear change {over}.", drift=drift, p_value=p)


def on_repeats(r: Repeats, times: Times, decisions: int) -> list[Finding]:
    """Rows that came twice, and decisions that are not independent."""
    found = []
    if decisions > 1 and times.known >= t.NEARLY_ALL * decisions:
        part = r.rows.repeated / decisions
        level: Level = "caution" if part > t.REPEATED else "ok"
        about = "About " if r.rows.one_in > 1 and r.rows.repeated else ""
        said = f"{about}{r.rows.repeated:,} decisions ({share(part)}) equal another one in everything that was logged"
        if not r.rows.repeated:
            said = "No two decisions are equal in everything that was logged"
        if level == "caution":
            said += ", the time included: perhaps rows were logged twice"
        found.append(finding_of("equal-rows", level, f"{said}.", decisions=r.rows.repeated, share=part))
    if r.clusters is not None:
        effect = r.clusters.design_effect
        wide = effect is not None and effect > t.DESIGN_EFFECT
        said = f"Decisions come in {count(r.clusters.groups, 'cluster')}, the largest of {r.clusters.largest:,}"
        if wide and effect is not None:
            said += f"; they widen intervals {amount(effect**0.5)} times, so estimate with clusters"
        found.append(finding_of("clusters", "caution" if wide else "ok", f"{said}.", design_effect=effect))
    return found


def on_times(times: Times, decisions: int) -> list[Finding]:
    """Whether times are there and rise."""
    if decisions == 0:
        return []
    if times.known == 0:
        said = "There are no times: drift is judged by the order of the rows, and rows logged twice cannot be told."
        return [finding_of("no-times", "ok", said)]
    found = []
    if times.missing:
        said = f"{count(times.missing, 'decision')} without a time."
        found.append(finding_of("missing-times", "caution", said, missing=times.missing))
    if times.out_of_order:
        part = times.out_of_order / max(1, times.stretches)
        what = "decision" if times.stretch == 1 else f"stretch of {times.stretch:,} decisions"
        many = "decisions" if times.stretch == 1 else f"stretches of {times.stretch:,} decisions"
        said = (
            f"{count(times.out_of_order, what, many)} ({share(part)}) stand later in the log than their time says: "
            "replay in the order of the log is not replay in time."
        )
        found.append(finding_of("times-out-of-order", "caution", said, share=part))
    return found


def on_outcomes(o: Outcomes) -> Finding:
    """How much of the outcome table is known."""
    if o.pairs and o.known >= o.pairs:
        said = (
            f"The outcome of every action is known in all {count(o.contexts, 'context')}: no propensities are needed."
        )
        if o.best is not None:
            said += f" The best single action, '{o.best}', earns {amount(o.best_mean)} a context; the best of each "
            said += f"context {amount(o.oracle)}."
        return finding_of("outcomes", "ok", said, share=1.0, best=o.best, best_mean=o.best_mean, oracle=o.oracle)
    said = f"{share(o.share)} of the outcomes are known, and all of them in {count(o.complete_contexts, 'context')} of"
    return finding_of("outcomes", "caution", f"{said} {o.contexts:,}.", share=o.share)
