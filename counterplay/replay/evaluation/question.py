"""What is asked of a log, and which part of it the log can answer; settled before its decisions are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from counterplay.errors import ConfigurationError, MissingEvidenceError, UnsupportedError, nearest
from counterplay.estimators import Estimator, Evidence, statistic_of
from counterplay.estimators.intervals import Bounds, Interval, Resampling, check_interval
from counterplay.estimators.intervals.table import RESAMPLED
from counterplay.estimators.table import resolve_all
from counterplay.logs.survey import Survey
from counterplay.replay.named import LOGGING, NamedPolicy, policy_named
from counterplay.replay.reward_models import KINDS

ALL = "all"
NO_MODEL = "none"
MEAN = "on_policy"
MODEL_FIELDS = ("q_logged", "q_target")

Names = str | Estimator | Iterable[str | Estimator]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An estimator among ``all`` that this log cannot serve, and why."""

    estimator: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The estimators to use, and those left out. ``named``: asked for by name, so never left out but refused."""

    estimators: tuple[Estimator, ...]
    left_out: tuple[LeftOut, ...] = ()
    named: frozenset[str] = frozenset()

    @property
    def needs_model(self) -> bool:
        """Whether any of them needs a reward model."""
        return any(needs_model(estimator) for estimator in self.estimators)

    def without_model(self, error: Exception) -> Choice:
        """This choice after a reward model could not be fitted; the error itself where nothing is left, or where an
        estimator was named."""
        lost = [estimator for estimator in self.estimators if needs_model(estimator)]
        if len(lost) == len(self.estimators) or any(estimator.name in self.named for estimator in lost):
            raise error
        return Choice(
            estimators=tuple(estimator for estimator in self.estimators if estimator not in lost),
            left_out=(*self.left_out, *(LeftOut(estimator=one.name, reason=str(error)) for one in lost)),
            named=self.named,
        )


@dataclass(frozen=True, kw_only=True)
class Statement:
    """How sure an interval is to be: its ``level`` and kind, and what is known beforehand."""

    level: float = 0.95
    interval: Interval = "t"
    bounds: Bounds | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_interval(self.interval, self.level)

    @property
    def resampling(self) -> Resampling | None:
        """How to resample, for the intervals that need it."""
        return Resampling(seed=self.seed) if self.interval in RESAMPLED else None


def needs_model(estimator: Estimator) -> bool:
    """Whether an estimator needs a reward model."""
    return any(need in MODEL_FIELDS for need in estimator.needs)


def choose_policies(texts: str | Sequence[str], survey: Survey) -> list[NamedPolicy]:
    """The policies by name, each once.

    Raises:
        ConfigurationError: none, or one that there is not.
    """
    texts = [texts] if isinstance(texts, str) else list(dict.fromkeys(texts))
    if not texts:
        raise ConfigurationError("No policy was asked for: 'uniform', always=LABEL, or one that the log stores.")
    return [policy_named(text, survey) for text in texts]


def choose_model(kind: str | None) -> str | None:
    """The reward model by name; None for ``none``."""
    if kind is None or kind == NO_MODEL:
        return None
    if kind not in KINDS:
        raise ConfigurationError(f"There is no reward model '{kind}'. {nearest(kind, (*KINDS, NO_MODEL))}")
    return kind


def choose_estimators(names: Names, survey: Survey, model: str | None, statement: Statement) -> Choice:
    """Those of the estimators that the log can serve, tried on a sample that has what the log has.

    Raises:
        MissingEvidenceError: an estimator that was asked for by name needs what the log lacks.
        ConfigurationError: an unknown estimator, interval or option.
    """
    asked = [names] if isinstance(names, str | Estimator) else list(names)
    own = [name for name in asked if name != ALL]
    named = frozenset(estimator.name for estimator in resolve_all(own)) if own else frozenset[str]()
    sample = _sample(survey.propensities == survey.decisions, model is not None, statement.bounds)
    kept, left_out = [], []
    for estimator in resolve_all(asked):
        try:
            _try(estimator, sample, model, statement)
        except UnsupportedError as error:
            if estimator.name in named:
                raise
            left_out.append(LeftOut(estimator=estimator.name, reason=str(error)))
        else:
            kept.append(estimator)
    if not kept:
        raise MissingEvidenceError(f"log '{survey.log}' can serve none of the estimators. {left_out[0].reason}")
    return Choice(estimators=tuple(kept), left_out=tuple(left_out), named=named)


def refuse_the_mean(choice: Choice, policies: Sequence[NamedPolicy]) -> None:
    """`on_policy` looks at no policy, so it answers for the log's own one only.

    Raises:
        ConfigurationError: it was asked of another.
    """
    other = next((policy.name for policy in policies if policy.name != LOGGING), None)
    if other is not None and any(estimator.name == MEAN for estimator in choice.estimators):
        raise ConfigurationError(
            f"'{MEAN}' is the mean reward of the log, whatever the policy, so it says nothing of '{other}'. Ask for "
            f"the policy '{LOGGING}', or for another estimator."
        )


def _try(estimator: Estimator, sample: Evidence, model: str | None, statement: Statement) -> None:
    if model is None and needs_model(estimator):
        raise MissingEvidenceError(
            f"{estimator.name.upper()} needs a reward model, and none was asked for: choose {' or '.join(KINDS)}."
        )
    statistic = statistic_of(sample, estimator, resampling=statement.resampling)
    statistic.estimate(statement.level, statement.interval, statement.bounds)


def _sample(propensities: bool, model: bool, bounds: Bounds | None) -> Evidence:
    """A few decisions that have what the log has, and contradict no bounds."""
    reward = np.array([0.0, 1.0] if bounds is None else bounds.reward)
    ones = np.ones(2)
    return Evidence(
        reward=reward,
        target=ones,
        propensity=ones if propensities else None,
        q_logged=reward if model else None,
        q_target=reward if model else None,
    )
