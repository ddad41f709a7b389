"""Logs in which several policies took the decisions: what is the propensity then, and how are they put together?

| way | propensity of a decision | right where |
|---|---|---|
| `naive` | its own logger's | every logger could have taken every action of the policy |
| `balanced` | the mixture of all loggers, by their shares of the log | some logger could, for every action |
| `weighted` | each logger evaluated alone, combined by inverse variance | as `naive` |

`balanced` is never worse than `naive` for `ips` (Agarwal, Basu, Schnabel & Joachims 2017), and with a good model `dr`
on it is efficient (Kallus, Saito & Uehara 2021); it needs every logger's probability of every logged action. `weighted`
needs only each logger's own, and keeps a logger that is unlike the policy from spoiling the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from counterplay.errors import EvidenceError, MissingEvidenceError
from counterplay.estimators.estimate import GATES, Diagnostics, Estimate, number
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.problems.arrays import (
    FINITE,
    PROBABILITY,
    PROPENSITY,
    LargeSample,
    by_policy,
    check_interval,
    codes,
    numbers,
    within,
)
from counterplay.estimators.quantiles import t_quantile
from counterplay.estimators.statistic import evaluate
from counterplay.estimators.terms import Estimator


@dataclass(frozen=True, kw_only=True, eq=False)
class SeveralLoggers:
    """n decisions that L loggers took, and P policies.

    | field | shape | meaning |
    |---|---|---|
    | `reward` | (n,) | what the logged action earned |
    | `logger` | (n,) int | who took the decision: a place in `loggers`, 0..L-1 |
    | `propensity` | (L, n) or (n,) | each logger's probability of the logged action; (n,): only the logger's own |
    | `target` | (P, n) | each policy's probability of the logged action; (n,) stands for one policy |
    | `q_logged`, `q_target` | (n,) or (P, n); (P, n) | a reward model, as in `Evidence` |
    | `loggers` | L names | "logger 0", ... where none are given |
    | `cluster`, `policies`, `start` | | as in `Evidence` |

    A logger's own probability of what it did is above 0; another's may be 0.
    Raises `EvidenceError` with the first bad value and how many there are.
    """

    reward: Array
    logger: Codes
    propensity: Array
    target: Array
    q_logged: Array | None = None
    q_target: Array | None = None
    loggers: tuple[str, ...] = ()
    cluster: Codes | None = None
    policies: tuple[str, ...] = ()
    start: int = 0

    def __post_init__(self) -> None:
        reward = numbers("reward", self.reward, (None,), "(n,), a number a decision,")
        within("reward", reward, FINITE)
        n = len(reward)
        logger = codes("logger", self.logger, n)
        wide = np.ndim(self.propensity) == 2
        count = len(self.propensity) if wide else len(self.loggers) or int(logger.max()) + 1
        shape, what = ((count, n), f"(L, {n})") if wide else ((n,), f"({n},) or (L, {n})")
        propensity = numbers("propensity", self.propensity, shape, what)
        within("propensity", propensity, PROBABILITY if wide else PROPENSITY)
        if int(logger.min()) < 0 or int(logger.max()) >= count:
            raise EvidenceError(
                f"logger must hold places from 0 to {count - 1}; it holds {logger.min()}..{logger.max()}."
            )
        if len(self.loggers) not in (0, count):
            raise EvidenceError(f"There are {len(self.loggers)} names in loggers for {count} loggers.")
        names = tuple(self.loggers) or tuple(f"logger {i}" for i in range(count))
        if wide:
            within("propensity of the decision's own logger", propensity[logger, np.arange(n)], PROPENSITY)
        target = by_policy("target", self.target, None, (n,))
        for name, value in (("reward", reward), ("logger", logger), ("propensity", propensity), ("target", target)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "loggers", names)

    def __len__(self) -> int:
        """The number of decisions."""
        return len(self.reward)

    def naive(self) -> Evidence:
        """Evidence with each decision's own logger's propensity: for every estimator.

        Unbiased for `ips` and `dr` where every logger could have taken every action of the policy. One logger unlike
        the policy spoils the whole: leaving it out may be better.
        """
        own = self.propensity if self.propensity.ndim == 1 else self.propensity[self.logger, np.arange(len(self))]
        return self._evidence(own, slice(None), self.start)

    def balanced(self) -> Evidence:
        """Evidence with the propensity sum_l (n_l / n) mu_l(a): for every estimator.

        Unbiased for `ips` and `dr` where for every action of the policy some logger could have taken it. Intervals are
        not too short, but too wide where loggers are unlike each other: they count the difference of the loggers'
        means, which is no luck. A model (`dr`) takes that away as far as it is right.
        Raises `MissingEvidenceError` where only the loggers' own probabilities are known.
        """
        if self.propensity.ndim == 1:
            raise MissingEvidenceError(
                "BALANCED needs every logger's probability of every logged action, propensity (L, n); these are the "
                "loggers' own, (n,). Use naive() or weighted()."
            )
        shares = np.bincount(self.logger, minlength=len(self.propensity)) / len(self)
        return self._evidence(shares @ self.propensity, slice(None), self.start)

    def weighted(
        self,
        estimators: str | Estimator | Iterable[str | Estimator] = ("ips", "snips"),
        level: float = 0.95,
        interval: LargeSample = "t",
    ) -> list[Estimate]:
        """Each logger's decisions evaluated alone, and combined with weights 1 / std_error^2: "weighted_ips" and so on.

        Policies first, estimators in the order given. The interval has Welch's degrees of freedom. The gate is the
        worst of the loggers', with its reason. A logger without any decision of the policy is left out, and its gate
        stays; one whose decisions show no variation gets the error that `naive` would have with as many units.

        A logger's error is estimated from the same decisions as its value: where few of them tell, both are small
        together, and the combination is too low. It wants tens of rewards from decisions of the policy, of each logger.
        Raises `EvidenceError` where a cluster has several loggers.
        """
        chosen = tuple((estimators,) if isinstance(estimators, str | Estimator) else estimators)
        check_interval(interval)
        self._check_clusters()
        evidence = self.naive()
        assert evidence.propensity is not None
        present = [i for i in range(len(self.loggers)) if np.any(self.logger == i)]
        parts = [
            evaluate(self._evidence(evidence.propensity, np.flatnonzero(self.logger == i), 0), chosen, level, interval)
            for i in present
        ]
        names = [self.loggers[i] for i in present]
        together = evaluate(evidence, chosen, level, interval)
        return [_combined(names, list(group), whole, interval) for whole, *group in zip(together, *parts, strict=True)]

    def _evidence(self, propensity: Array, rows: Any, start: int) -> Evidence:
        def some(value: Any) -> Any:
            return None if value is None else np.asarray(value)[..., rows]

        return Evidence(
            reward=self.reward[rows],
            propensity=propensity[rows],
            target=self.target[:, rows],
            q_logged=some(self.q_logged),
            q_target=some(self.q_target),
            cluster=some(self.cluster),
            policies=self.policies,
            start=start,
        )

    def _check_clusters(self) -> None:
        if self.cluster is None:
            return
        cluster = codes("cluster", self.cluster, len(self))
        pairs = np.unique(np.stack([cluster, self.logger]), axis=1)[0]
        straddling = np.unique(pairs[1:][pairs[1:] == pairs[:-1]])
        if len(straddling):
            raise EvidenceError(
                f"Cluster {straddling[0]} has decisions of several loggers, and so have {len(straddling) - 1} more: "
                "the loggers' estimates are not independent, so their errors do not combine. Use naive() or balanced()."
            )


def _combined(names: list[str], parts: list[Estimate], whole: Estimate, interval: LargeSample) -> Estimate:
    """One estimate from those of independent parts; `whole` is the naive estimate of all of them."""
    name = f"weighted_{whole.estimator}"
    places = [i for i, part in enumerate(parts) if part.value is not None]
    worst = max(range(len(parts)), key=lambda i: GATES.index(parts[i].gate))
    reason = f"{names[worst]}: {parts[worst].reason}" if parts[worst].reason else ""
    verdict = parts[worst].gate
    if not places:
        return replace(
            whole, estimator=name, value=None, std_error=None, low=None, high=None, gate=verdict, reason=reason
        )
    used = [parts[i] for i in places]
    values = np.array([part.value for part in used], dtype=np.float64)
    error = _errors(used, whole)
    precision = 1 / error**2 if np.all(error > 0) else np.array([float(part.n) for part in used])
    share = precision / precision.sum()
    value, std_error = float(share @ values), float(np.sqrt(share**2 @ error**2))
    half = _quantile(whole.level, share * error, [part.diagnostics.units for part in used], interval) * std_error
    return replace(
        whole,
        estimator=name,
        value=number(value),
        std_error=number(std_error),
        low=number(value - half),
        high=number(value + half),
        diagnostics=_diagnostics(used, share, whole),
        gate=verdict,
        reason=reason,
    )


def _errors(used: list[Estimate], whole: Estimate) -> Array:
    # No variation is no certainty: a handful of decisions without a reward would get all of the weight.
    pooled = math.nan if whole.std_error is None else whole.std_error
    units = whole.diagnostics.units
    return np.array([part.std_error or pooled * math.sqrt(units / part.diagnostics.units) for part in used])


def _quantile(level: float, errors: Array, units: list[int], interval: LargeSample) -> float:
    from scipy.special import ndtri

    freedom = np.maximum(np.array(units) - 1.0, 1.0)
    spread = float((errors**4 / freedom).sum())
    if interval == "normal" or spread == 0:
        return float(ndtri(0.5 + level / 2))
    return t_quantile(0.5 + level / 2, float((errors**2).sum()) ** 2 / spread)


def _diagnostics(used: list[Estimate], share: Array, whole: Estimate) -> Diagnostics:
    """Those of the weights share_l / n_l w: what each decision counts in the combination."""
    own = [part.diagnostics for part in used]
    plain = Diagnostics(n=whole.n, units=whole.diagnostics.units, note="combined from the loggers'")
    if any(d.mean_weight is None or not d.effective_sample_size for d in own):
        return plain
    means = share * np.array([d.mean_weight for d in own])
    size = np.array([d.effective_sample_size for d in own])
    return replace(
        plain,
        mean_weight=number(means.sum()),
        effective_sample_size=number(means.sum() ** 2 / float((means**2 / size).sum())),
    )
