"""Which policy is best: how likely each is, what choosing it may cost, and which cannot be ruled out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from counterplay.estimators.comparison.joint import Joint, check_draws, joint_of, one_thread
from counterplay.estimators.comparison.simultaneous import critical_value, joint_draws, pair_scale
from counterplay.estimators.estimate import Estimate, Gate, plain
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.quantiles import half_width, t_quantile
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a policy stands among those that have a value and an error; None in what follows where it has none.

    - `value`, `std_error`, in units of reward; [`low_all`, `high_all`] covers the values of all policies together at
      confidence `level` (max-t).
    - `may_be_best`: not significantly worse than any other. The set of these policies contains the truly best one
      (where several are best, each of them) with confidence `level`: Gupta 1965, Hsu 1984.
    - [`best_rank`, `worst_rank`], 1 is best: one more than the policies that are significantly better in the
      simultaneous comparison of all pairs, and all but those that are significantly worse. They cover the ranks of all
      policies together at confidence `level` (Mogstad, Romano, Shaikh & Wilhelm 2024).
    - `probability_best`: the share of draws from the t distribution around the estimates in which the policy is the
      largest; policies that tie share a draw. `expected_regret` >= 0: by how much the largest exceeds it on average.

    `probability_best` is a posterior probability under a flat prior on all values, and about the share of bootstrap
    logs on which the policy would come first. It is no p-value and promises nothing about repeated logs. It does not
    hold where the estimates are biased or not nearly normal (see `gate`), and a flat prior lets the luckiest of many
    like policies look too good: with reason to think that policies differ little, believe less. `expected_regret`
    inherits all of that. `may_be_best` and the ranks need no prior.
    """

    policy: str
    estimator: str
    value: float | None
    std_error: float | None
    low_all: float | None
    high_all: float | None
    level: float
    n: int
    may_be_best: bool | None
    best_rank: int | None
    worst_rank: int | None
    probability_best: float | None
    expected_regret: float | None
    gate: Gate
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`."""
        return {key: plain(value) for key, value in asdict(self).items()}


def rank_policies(
    evidence: Evidence,
    estimator: str | Estimator = "snips",
    *,
    level: float = 0.95,
    seed: int = 0,
    draws: int = 20_000,
) -> list[Standing]:
    """The standing of every policy of the evidence, the highest value first, those without a number last.

    All from the same `draws` (decided by `seed` alone) of the joint distribution of the estimates: multivariate t with
    the covariance of the influences, units - 1 degrees of freedom, clusters as units. A probability has a Monte Carlo
    error of at most 0.5 / sqrt(draws). Holds where `Statistic.estimate` says that t intervals hold; what the
    probability means stands in `Standing`. Time: P^2 n. Memory: P numbers a draw and a cluster. Raises as `compare`.
    """
    check_draws(seed, draws)
    with one_thread():
        estimates, joint = joint_of(evidence, resolve(estimator), level)
        found = _standings(joint, level, seed, draws) if len(joint.place) else {}
    standings = [_standing(estimate, found.get(p, {}), level) for p, estimate in enumerate(estimates)]
    return sorted(
        standings, key=lambda s: -np.inf if s.may_be_best is None or s.value is None else s.value, reverse=True
    )


def _standing(estimate: Estimate, found: dict[str, Any], level: float) -> Standing:
    names = (
        "low_all", "high_all", "may_be_best", "best_rank", "worst_rank", "probability_best", "expected_regret",
    )  # fmt: skip
    return Standing(
        policy=estimate.policy,
        estimator=estimate.estimator,
        value=estimate.value,
        std_error=estimate.std_error,
        level=level,
        n=estimate.n,
        gate=estimate.gate,
        reason=estimate.reason,
        **{name: found.get(name) for name in names},
    )


def _standings(joint: Joint, level: float, seed: int, draws: int) -> dict[int, dict[str, Any]]:
    count, units = len(joint.place), joint.units
    drawn = _draw(joint, draws, seed)
    two_sided, one_sided = half_width(level, units), max(0.0, t_quantile(level, units - 1.0))
    gap = joint.gaps(*np.indices((count, count)))
    error = joint.error.copy()
    np.fill_diagonal(error, 0.0)
    # gap[j, i] is value j minus value i: i is worse than j where it exceeds what luck gives.
    many = critical_value(drawn.largest_pair, level, two_sided, int(np.count_nonzero(np.triu(error))))
    better = (gap > many * error).sum(axis=0)
    worse = (gap > many * error).sum(axis=1)
    rivals = [critical_value(drawn.rival[i], level, one_sided, int(np.count_nonzero(error[i]))) for i in range(count)]
    beaten = np.any(gap > np.array(rivals) * error, axis=0).tolist()
    all_values = critical_value(drawn.largest_value, level, two_sided, int(np.count_nonzero(joint.std_error)))
    return {
        int(place): {
            "low_all": float(joint.value[i] - all_values * joint.std_error[i]),
            "high_all": float(joint.value[i] + all_values * joint.std_error[i]),
            "may_be_best": not beaten[i],
            "best_rank": 1 + int(better[i]),
            "worst_rank": count - int(worse[i]),
            "probability_best": float(drawn.wins[i] / draws),
            "expected_regret": float(drawn.regret[i] / draws),
        }
        for i, place in enumerate(joint.place)
    }


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Of the draws: the largest |t| of a pair and of a value (draws,), the largest t of a rival over each policy
    (U, draws), and the sums of wins and of regret (U,)."""

    largest_pair: Array
    largest_value: Array
    rival: Array
    wins: Array
    regret: Array


def _draw(joint: Joint, draws: int, seed: int) -> _Drawn:
    count = len(joint.place)
    scale, twin = pair_scale(joint), _twins(joint)
    own = np.divide(1.0, joint.std_error, out=np.zeros(count), where=joint.std_error > 0)
    pair, value, rival = np.zeros(draws), np.zeros(draws), np.full((count, draws), -np.inf)
    wins, regret = np.zeros(count), np.zeros(count)
    start = 0
    for drawn in joint_draws(joint, draws, seed):
        # Policies that never differ are drawn once, or rounding would break their ties.
        errors, columns = drawn.normal[:-1][twin], slice(start, start + len(drawn.chi))
        start = columns.stop
        value[columns] = np.abs(drawn.studentised((errors + drawn.normal[-1]) * own[:, None])).max(axis=0)
        for first, others in joint.groups:
            t = drawn.studentised((errors[others] - errors[first]) * scale[first, others, None])
            np.maximum(rival[first, columns], t.max(axis=0), out=rival[first, columns])
            np.maximum(rival[others, columns], -t, out=rival[others, columns])
            np.maximum(pair[columns], np.abs(t, out=t).max(axis=0), out=pair[columns])
        sample = errors / drawn.chi + joint.value[_equals(joint, twin), None]
        best = sample.max(axis=0)
        won = sample == best
        wins += (won / won.sum(axis=0)).sum(axis=1)
        regret += (best - sample).sum(axis=1)
    return _Drawn(largest_pair=pair, largest_value=value, rival=rival, wins=wins, regret=regret)


def _twins(joint: Joint) -> Codes:
    """(U,) for each policy the first one from which its difference never varies: itself, mostly."""
    never = joint.error == 0
    np.fill_diagonal(never, True)
    return np.asarray(never.argmax(axis=1))


def _equals(joint: Joint, twin: Codes) -> Codes:
    """(U,) for each policy its twin where their values are the same too."""
    itself = np.arange(len(twin))
    return np.where(joint.gaps(itself, twin) == 0, twin, itself)
