"""What an evaluation and a comparison begin with: the log looked at, the question settled, the reward model fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from counterplay.errors import EvidenceError, MissingEvidenceError
from counterplay.logs.survey import Survey, count_not_allowed, survey_log
from counterplay.logs.workspace import Workspace
from counterplay.replay.evaluation.question import (
    Choice,
    Names,
    Statement,
    choose_estimators,
    choose_model,
    choose_policies,
    refuse_the_mean,
)
from counterplay.replay.evaluation.source import Progress, Source
from counterplay.replay.named import ConstantPolicy, shadowed
from counterplay.replay.reward_models import FittedRewards, fit_rewards


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The exact value of each policy where it is known, from which log, and why some are not known."""

    log: str | None = None
    hash: str | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A log ready to be folded: what is read of it, by which estimators, with which reward model."""

    source: Source
    choice: Choice
    rewards: FittedRewards | None
    model: str | None
    truth: Truth

    def notes(self) -> list[str]:
        """What should be known of the policies beside their values."""
        survey, policies = self.source.survey, self.source.policies
        found = [*self.truth.notes, *(sentence for policy in policies if (sentence := shadowed(policy.name, survey)))]
        for policy in policies:
            if isinstance(policy, ConstantPolicy) and survey.candidates:
                outside = count_not_allowed(self.source.workspace, survey.log, policy.action)
                if outside:
                    found.append(
                        f"'{policy.name}' is not allowed in {outside:,} of {survey.decisions:,} decisions: there it "
                        "takes an allowed action at random."
                    )
        return found

    def definition(self, kind: str, **more: Any) -> dict[str, Any]:
        """All settings as plain values, defaults spelled out."""
        survey = self.source.survey
        return {
            "kind": kind,
            "method": "none",
            "log": survey.log,
            "policies": [policy.name for policy in self.source.policies],
            "estimators": [estimator.name for estimator in self.choice.estimators],
            "reward_model": None if self.rewards is None else self.model,
            "truth": self.truth.log,
            "truth_hash": self.truth.hash,
            **more,
        }


def prepare(
    workspace: Workspace,
    log: str,
    policies: str | Sequence[str],
    estimators: Names,
    statement: Statement,
    *,
    reward_model: str | None,
    truth: str | None,
    progress: Progress | None,
    check: Callable[[Survey, int, bool], None] | None = None,
) -> Prepared:
    """Settle what is asked, and fit the reward model where an estimator needs one.

    ``check``: called with the survey, the number of policies and whether there is a reward model, before anything long.
    """
    survey = _complete(survey_log(workspace, log))
    chosen = choose_policies(policies, survey)
    model = choose_model(reward_model)
    choice = choose_estimators(estimators, survey, model, statement)
    refuse_the_mean(choice, chosen)
    if check is not None:
        check(survey, len(chosen), choice.needs_model)
    source = Source(
        workspace=workspace, survey=survey, policies=chosen, features=choice.needs_model, tell=progress or _silent
    )
    # Before the log is read in full, since a truth may not fit it.
    known = _truth(source, truth)
    rewards = None
    if model is not None and choice.needs_model:
        try:
            rewards = fit_rewards(lambda: source.chunks("reward model"), model)
        except EvidenceError as error:
            choice = choice.without_model(error)
    return Prepared(source=source, choice=choice, rewards=rewards, model=model, truth=known)


def _truth(source: Source, log: str | None) -> Truth:
    survey = source.survey
    if log is None and not survey.outcomes:
        return Truth()
    known = survey if log is None else survey_log(source.workspace, log)
    if not known.outcomes:
        raise MissingEvidenceError(f"log '{log}' has no outcome table, so it cannot be the truth of another.")
    values, notes = source.exact(known.log)
    return Truth(log=known.log, hash=known.hash, values=values, notes=tuple(notes))


def _complete(survey: Survey) -> Survey:
    known = min(survey.acted, survey.rewarded)
    if not survey.decisions:
        raise MissingEvidenceError(f"log '{survey.log}' has no decisions.")
    if known < survey.decisions:
        mend = "import them again with both"
        if survey.outcomes:
            mend = (
                "this log has an outcome table, so replay it exactly with `counterplay run`, or make it the truth of "
                "another log"
            )
        raise MissingEvidenceError(
            f"{survey.decisions - known:,} of {survey.decisions:,} decisions of log '{survey.log}' have no logged "
            f"action or reward; without them there is nothing to weigh: {mend}."
        )
    return survey


def _silent(done: int, total: int, what: str) -> None:
    """No progress is shown."""
    del done, total, what
