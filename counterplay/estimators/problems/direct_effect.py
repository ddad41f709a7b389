"""Do actions of one category earn the same? What MIPS and OffCEM take for granted, tested on the log itself.

Given the context x and the category e of the logged action, the logging policy drew the action with the known
probability p(a|x,e) = mu(a|x) / mu(e|x). Where rewards do not depend on the action beyond its category, they do not
know which one was drawn: (r - m_e) times anything with mean zero given x and e has mean zero, whatever the contexts
are and whatever m_e is (here the mean reward of the other decisions of the category). Two kinds of it are tested, each
with half of the error:

- every action that shares its category: (r - m_e) ([a was logged] - [a was drawn as placebo]), a placebo being drawn
  from p(.|x,e). Largest |t|, Bonferroni over the actions, which needs no covariance. (With p itself for the placebo
  each decision would have to keep a number for each action; with [a was logged] / p - 1 one action that is improbable
  in some context would drown all others.)
- every policy: (r - m_e) (w(x,a) - w(x,e)), whose mean is IPS minus MIPS (or DR minus OffCEM): the bias with its sign
  turned. It gathers effects that are too small to be seen in one action.

For OffCEM r is the residual of the reward model.

What makes the p-values honest where rewards are rare or actions are seldom stands in `category_statistics.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from counterplay.errors import ConfigurationError, MissingEvidenceError
from counterplay.estimators.estimate import number, plain
from counterplay.estimators.evidence import Array, Codes
from counterplay.estimators.problems.category_statistics import centred, mean_of, units_of_clusters, worst_action
from counterplay.estimators.problems.large_action_sets import GRANTED, Assumption, Marginalised

SUPPORT = 1e-6
"""Less of a policy's probability than this on actions that logging never takes is rounding."""


@dataclass(frozen=True, kw_only=True)
class PolicyBias:
    """How far category weights are estimated to be off for one policy, in units of reward.

    `value` estimates MIPS (or OffCEM) minus the truth, and [`low`, `high`] covers it with the level of the test; None
    where fewer than 30 decisions tell. It speaks of actions that the logging policy takes: `unsupported` is the share
    of the policy's probability on others, of which no log of this policy can tell. `p_value`: of no bias.
    """

    policy: str
    value: float | None
    std_error: float | None
    low: float | None
    high: float | None
    p_value: float | None
    unsupported: float


@dataclass(frozen=True, kw_only=True)
class DirectEffect:
    """What the log says of "no direct effect" (MIPS) or of "local correctness" (OffCEM).

    - `p_value`: that actions and policies together would look as bad by luck; None where nothing could be tested.
    - `action`: the action with the smallest p-value, and `effect`: by how much it earns more than its category (beyond
      what the reward model says), weighted to the category's contexts; None where no action could be tested.
    - `tested`, `left_out`: actions that share their category, and that were tested, or of which fewer than 30 decisions
      tell: they were logged too seldom, or nothing else of their category was.
    - `policies`: the bias of each policy. `sentence`: all of it in words.

    A large p-value proves nothing: it may be that the log is small. The policies' intervals say what it rules out.
    """

    assumption: Assumption
    n: int
    units: int
    level: float
    p_value: float | None
    action: int | None
    effect: float | None
    tested: int
    left_out: int
    policies: tuple[PolicyBias, ...]

    @property
    def refuted(self) -> bool:
        """Whether the assumption is refuted at 1 - level."""
        return self.p_value is not None and self.p_value < 1 - self.level

    @property
    def sentence(self) -> str:
        """The finding, and what was left out."""
        if self.p_value is None:
            return f"{self.assumption} could not be tested: {self._coverage()}"
        verdict = "is refuted" if self.refuted else "is not refuted"
        where = f"; {self._where()}" if self.refuted and self.effect is not None else ""
        known = [bias for bias in self.policies if bias.low is not None]
        bounds = "".join(f"; bias of '{b.policy}' in [{b.low:.3g}, {b.high:.3g}]" for b in known[:3])
        return f"{self.assumption} {verdict} (p = {self.p_value:.2g}; {self._coverage()}){where}{bounds}"

    @property
    def doubt(self) -> str:
        """Why estimates still rest on an assumption; "" where all was tested and nothing found."""
        if self.p_value is None or self.refuted or self.assumption == "local correctness":
            return f"{GRANTED[self.assumption]}; {self.sentence}"
        reasons = [f"'{b.policy}' could not be tested" for b in self.policies if b.low is None]
        reasons += [
            f"'{b.policy}' has {b.unsupported:.1%} of its probability on actions that logging never takes"
            for b in self.policies
            if b.unsupported > SUPPORT
        ]
        if self.left_out:
            reasons.insert(0, self._coverage())
        return f"{GRANTED[self.assumption]}; not all could be tested: {reasons[0]}" if reasons else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`."""
        return {key: plain(value) for key, value in asdict(self).items()} | {"sentence": self.sentence}

    def require(self, assumption: Assumption, n: int, policies: tuple[str, ...]) -> None:
        """Refuse a test of something else, or of another log."""
        if self.assumption != assumption:
            raise ConfigurationError(f"This is a test of {self.assumption}; one of {assumption} is needed.")
        if (self.n, tuple(bias.policy for bias in self.policies)) != (n, policies):
            raise ConfigurationError(f"This is a test of {self.n} decisions of another log, not of these {n}.")

    def _where(self) -> str:
        assert self.effect is not None
        size = f"{abs(self.effect):.3g}"
        if self.assumption == "no direct effect":
            more = "more" if self.effect > 0 else "less"
            return f"action {self.action} earns {size} {more} than the others of its category"
        low = "low" if self.effect > 0 else "high"
        return f"the model is {size} too {low} for action {self.action}, next to the others of its category"

    def _coverage(self) -> str:
        return f"{self.tested:,} actions tested, {self.left_out:,} left out as too few decisions tell"


def check_no_direct_effect(log: Marginalised, level: float = 0.95) -> DirectEffect:
    """The test of what MIPS takes for granted: E[r|x,a,e] = E[r|x,e] (Saito & Joachims 2022).

    Holds where propensities (and a posterior) are right, units are independent, and categories were not chosen by these
    rewards; wrong propensities are refuted as well. What the test cannot see: actions it leaves out or that were never
    logged, and effects that cancel over contexts. Memory: some numbers for each decision and action.

    Raises `ConfigurationError` for a level outside (0, 1).
    """
    return _check(log, log.evidence.reward, "no direct effect", level)


def check_local_correctness(log: Marginalised, level: float = 0.95) -> DirectEffect:
    """The test of what OffCEM takes for granted: E[r - q|x,a] is the same for all actions of a category.

    Saito, Ren & Joachims 2023. Holds where, further to `check_no_direct_effect`, the model was fitted on other
    decisions than those it predicts. Raises `MissingEvidenceError` where the blocks had no reward model.
    """
    if log.evidence.q_logged is None:
        raise MissingEvidenceError("Local correctness is a property of a reward model: give marginalise its q (n, S).")
    return _check(log, log.evidence.reward - log.evidence.q_logged, "local correctness", level)


def _check(log: Marginalised, outcome: Array, assumption: Assumption, level: float) -> DirectEffect:
    if not 0 < level < 1:
        raise ConfigurationError(f"level is {level:g}; it must lie between 0 and 1, for example 0.95.")
    categories = log.categories
    if categories is None:
        # With a posterior rewards are compared with those of all decisions; the placebos know what was seen.
        categories = np.zeros(int(max(log.action.max(), log.placebo.max())) + 1, dtype=np.int64)
    unit = units_of_clusters(log.evidence.cluster, len(outcome))
    residual = centred(outcome, categories[log.action])
    biases = tuple(_bias(log, p, residual, categories[log.action], unit, level) for p in range(len(log.difference)))
    worst = worst_action(log.action, log.placebo, log.within, residual, categories, unit)
    known = [bias.p_value for bias in biases if bias.p_value is not None]
    halves = [worst.p_value] if worst.p_value is not None else []
    halves += [min(1.0, len(known) * min(known))] if known else []
    return DirectEffect(
        assumption=assumption,
        n=len(outcome),
        units=int(unit.max()) + 1,
        level=level,
        p_value=min(1.0, len(halves) * min(halves)) if halves else None,
        action=worst.action,
        effect=worst.effect,
        tested=worst.tested,
        left_out=worst.left_out,
        policies=biases,
    )


def _bias(log: Marginalised, p: int, residual: Array, category: Codes, unit: Codes, level: float) -> PolicyBias:
    mean = mean_of(-log.difference[p], residual, category, unit)
    half = mean.half_width(level)
    return PolicyBias(
        policy=log.evidence.policies[p],
        value=number(mean.value),
        std_error=number(mean.std_error),
        low=number(mean.value - half),
        high=number(mean.value + half),
        p_value=number(mean.p_value),
        unsupported=float(log.unsupported[p]) / len(residual),
    )
