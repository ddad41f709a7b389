"""What a log can answer and what not, in plain sentences, and the verdict over all findings."""

from __future__ import annotations

from collections.abc import Sequence

from counterplay.logs.health import thresholds as t
from counterplay.logs.health.model import Actions, Finding, Level, Outcomes, Propensities, Rewards, Support
from counterplay.logs.health.words import amount, count

_ORDER: tuple[Level, ...] = ("ok", "caution", "unreliable")
# What comes first explains what comes after it.
_FIRST = (
    "few-decisions",
    "no-rewards",
    "no-propensities",
    "mean-propensity",
    "other-probability",
    "scaled-propensities",
    "most-probable",
    "filtered-rows",
    "other-rows",
    "support-holes",
    "unknown-cause",
    "deterministic-logging",
    "one-action",
    "rewards-equal",
    "policy-support",
    "policy-misses",
    "mean-weight",
    "action-calibration",
    "uniform-support",
)


def by_weight(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first; among equals, what explains the rest."""

    def place(finding: Finding) -> tuple[int, int]:
        rank = _FIRST.index(finding.code) if finding.code in _FIRST else len(_FIRST)
        return -_ORDER.index(level_for_log(finding)), rank

    return tuple(sorted(findings, key=place))


def level_for_log(finding: Finding) -> Level:
    """Uniform choice is the hardest question; a log that cannot answer it may answer nearer ones."""
    return "caution" if finding.scope == "uniform" and finding.level == "unreliable" else finding.level


def verdict_of(findings: Sequence[Finding]) -> Level:
    """The worst level of all findings."""
    return max((level_for_log(one) for one in findings), key=_ORDER.index, default="ok")


def headline(verdict: Level, findings: Sequence[Finding]) -> str:
    """The verdict in one sentence, with its first reason."""
    if verdict == "ok":
        return "This log is fit for counterfactual questions."
    worst = [one for one in findings if level_for_log(one) == verdict]
    more = f" ({count(len(worst) - 1, 'more finding')} below)" if len(worst) > 1 else ""
    start = "Usable with care" if verdict == "caution" else "Not fit for counterfactual questions"
    return f"{start}: {worst[0].sentence.rstrip('.')}{more}."


def answers(
    decisions: int,
    actions: Actions,
    propensities: Propensities,
    uniform: Support | None,
    policy: Support | None,
    rewards: Rewards,
    outcomes: Outcomes | None,
    findings: Sequence[Finding],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what the log can answer, what it cannot)."""
    can: list[str] = []
    cannot: list[str] = []
    if decisions == 0:
        return (), ("Anything: it has no decisions.",)
    if rewards.known and rewards.kind != "equal":
        can.append(f"What the logged system earned: {amount(rewards.mean)} a decision.")
    if outcomes is not None:
        _on_outcomes(outcomes, can, cannot)
        return tuple(can), tuple(cannot)
    if propensities.known == 0:
        cannot.append("What another policy would have earned: without propensities nothing corrects for who chose.")
        can.append("What matching or a reward model says of another policy, labelled as an assumption.")
        return tuple(can), tuple(cannot)
    wrong = [one for one in findings if one.scope == "log" and one.level == "unreliable" and one.code in _BLOCKING]
    if wrong:
        cannot.append(f"What another policy would have earned, until this is mended: {wrong[0].sentence}")
        return tuple(can), tuple(cannot)
    _on_supports(uniform, policy, can, cannot)
    never = actions.known - actions.seen
    if never:
        cannot.append(f"What {count(never, 'action')} would have earned that nobody ever took.")
    if actions.candidates is None:
        cannot.append(
            "Whether an action was allowed in a decision: no candidates were logged, so every action counts as one."
        )
    if propensities.sums is None:
        cannot.append("Whether the probabilities of a decision sum to 1: only that of the action taken is known.")
    return tuple(can), tuple(cannot)


_BLOCKING = (*_FIRST[:14], "mean-weight", "action-calibration", "missing-propensities", "candidate-sums")


def _on_outcomes(outcomes: Outcomes, can: list[str], cannot: list[str]) -> None:
    if outcomes.known >= outcomes.pairs:
        can.append("What any policy or learning agent would have earned, exactly, by replay on the outcome table.")
        return
    can.append("Bounds, from pessimistic to optimistic, on what any policy would have earned.")
    cannot.append("One number for a policy that takes actions whose outcomes are unknown.")


def _on_supports(uniform: Support | None, policy: Support | None, can: list[str], cannot: list[str]) -> None:
    can.append("What policies close to the logged one would have earned, each with its own weights checked.")
    for support, name in ((uniform, "uniform choice"), (policy, f"policy '{policy.policy}'" if policy else "")):
        if support is None:
            continue
        size = support.effective_sample_size
        poor = size < t.POOR_SAMPLE or (support.largest_share or 0) > t.HEAVY_DECISION
        if poor:
            cannot.append(
                f"What {name} would have earned: the effective sample is {amount(size)} of "
                f"{count(support.decisions, 'decision')}."
            )
            continue
        can.append(f"What {name} would have earned, as from {amount(size)} decisions of its own.")
        rounds = support.accepted or 0.0
        if rounds >= t.POOR_SAMPLE:
            can.append(f"How {name} would have gone round by round, for about {count(rounds, 'round')} of replay.")
        else:
            cannot.append(f"How {name} would have gone for more than {count(rounds, 'round')} of rejection replay.")
