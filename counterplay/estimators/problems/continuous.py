"""Continuous actions: prices, doses, thresholds. No logged action is ever exactly the policy's, so near ones count.

A logged action a near the policy's action d counts with the weight K((a - d) / h) / (h f(a)), K a kernel, h the
bandwidth and f the logging policy's density at a (Kallus & Zhou 2018). What is estimated is the reward smoothed over
actions about h around the policy's: a bias of order h^2 where the reward is smooth in the action, and a variance of
order 1 / (n h). With these weights `ips`, `snips`, `dr` and their like are the kernel estimators of the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.lepski import choose_by_error
from counterplay.estimators.problems.arrays import (
    DENSITY,
    FINITE,
    LargeSample,
    by_policy,
    check_interval,
    codes,
    numbers,
    within,
)
from counterplay.estimators.problems.smoothing import kernel_named
from counterplay.estimators.statistic import evaluate
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator

WIDTHS = 1.5
"""Half widths in a sweep, in standard errors. Bandwidths share their decisions, so the difference of two estimates has
the standard error of the narrower at most, and pairs that estimate the same part at about the 5 % level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ContinuousLog:
    """n decisions with one continuous action each, and P policies that always take one action in a context.

    | field | shape | meaning |
    |---|---|---|
    | `reward` | (n,) | what the logged action earned |
    | `action` | (n,) | the logged action |
    | `density` | (n,) | the logging policy's density at the logged action, per unit of action; above 0, may exceed 1 |
    | `decision` | (P, n) | the policy's action; (n,) stands for one policy |
    | `q_logged` | (n,) or (P, n), None | a reward model's prediction for the logged action |
    | `q_target` | (P, n), None | its prediction for the policy's action |
    | `bounds` | (low, high) | where actions can lie; infinite where nothing bounds them |
    | `cluster`, `policies`, `start` | | as in `Evidence` |

    With `q_logged` at the logged action a perfect model removes the bias of smoothing too. Kallus & Zhou (and Open
    Bandit Pipeline) subtract the prediction at the policy's action instead: give `q_logged` = `q_target` for that.
    A policy that draws from a density of its own needs no kernel: `Evidence.of_weights` with the ratio of densities.
    Raises `EvidenceError` with the first bad value and how many there are.
    """

    reward: Array
    action: Array
    density: Array
    decision: Array
    q_logged: Array | None = None
    q_target: Array | None = None
    bounds: tuple[float, float] = (-np.inf, np.inf)
    cluster: Codes | None = None
    policies: tuple[str, ...] = ()
    start: int = 0

    def __post_init__(self) -> None:
        reward = numbers("reward", self.reward, (None,), "(n,), a number a decision,")
        n = len(reward)
        found = {
            "reward": reward,
            "action": numbers("action", self.action, (n,), f"({n},)"),
            "decision": by_policy("decision", self.decision, None, (n,)),
        }
        count = len(found["decision"])
        if self.q_logged is not None:
            found["q_logged"] = by_policy("q_logged", self.q_logged, 1 if np.ndim(self.q_logged) == 1 else count, (n,))
        if self.q_target is not None:
            found["q_target"] = by_policy("q_target", self.q_target, count, (n,))
        for name, array in found.items():
            within(name, array, FINITE)
            object.__setattr__(self, name, array)
        density = numbers("density", self.density, (n,), f"({n},)")
        within("density", density, DENSITY)
        object.__setattr__(self, "density", density)
        self._check_bounds()
        if self.cluster is not None:
            object.__setattr__(self, "cluster", codes("cluster", self.cluster, n))

    def __len__(self) -> int:
        """The number of decisions."""
        return len(self.reward)

    def at_bandwidth(self, bandwidth: float, kernel: str = "epanechnikov") -> Evidence:
        """Evidence with kernel weights, for `ips`, `snips`, `dr` and their like; `kernel` is one of `KERNELS`.

        `bandwidth` is in units of the action; a kernel reaches that far to each side, `gaussian` has it as its
        standard deviation. Where `bounds` cut a kernel off, it is scaled up to mass 1 again: without that, a policy at
        the bound would lose half of its value. The bias there is of order h, not h^2: the kernel is one-sided.

        The intervals are those of the smoothed value: they do not hold the bias. `sweep_bandwidths` looks at it.
        """
        if not (bandwidth > 0 and np.isfinite(bandwidth)):
            raise ConfigurationError(
                f"bandwidth is {bandwidth:g}; it must be a number above 0, in units of the action."
            )
        shape = kernel_named(kernel)
        low, high = self.bounds
        # What overflows is beyond the kernel's reach, or refused as evidence, by name.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            weights = shape.density((self.action - self.decision) / bandwidth) / (bandwidth * self.density)
            if np.isfinite(low) or np.isfinite(high):
                below_high, below_low = (shape.below((end - self.decision) / bandwidth) for end in (high, low))
                weights /= below_high - below_low
        shared = self.q_logged is not None and len(self.q_logged) == 1
        return Evidence(
            reward=self.reward,
            weights=weights,
            target=np.ones(weights.shape),
            q_logged=self.q_logged[0] if shared and self.q_logged is not None else self.q_logged,
            q_target=self.q_target,
            cluster=self.cluster,
            policies=self.policies,
            start=self.start,
            assumption=f"the value is smoothed over actions by the {kernel} kernel with bandwidth {bandwidth:g}",
        )

    def _check_bounds(self) -> None:
        low, high = (float(bound) for bound in self.bounds)
        if not low < high:
            raise EvidenceError(f"bounds are ({low:g}, {high:g}); the lower must be below the upper.")
        object.__setattr__(self, "bounds", (low, high))
        for name, array in (("action", self.action), ("decision", self.decision)):
            outside = int(np.count_nonzero((array < low) | (array > high)))
            if outside:
                raise EvidenceError(
                    f"{outside} of {array.size} values of {name} lie outside bounds ({low:g}, {high:g}): correct "
                    "the bounds, or clip the policy's actions as it would be clipped in use."
                )


@dataclass(frozen=True, kw_only=True)
class BandwidthSweep:
    """Estimates at every bandwidth, and the choice for each policy.

    `table` has a row for each of `bandwidths` (ascending), and in it an estimate for each policy; `chosen` and
    `chosen_bandwidth` have one for each policy.
    """

    bandwidths: tuple[float, ...]
    table: tuple[tuple[Estimate, ...], ...]
    chosen: tuple[Estimate, ...]
    chosen_bandwidth: tuple[float, ...]


def sweep_bandwidths(
    log: ContinuousLog,
    bandwidths: Iterable[float],
    estimator: str | Estimator = "snips",
    *,
    kernel: str = "epanechnikov",
    level: float = 0.95,
    interval: LargeSample = "t",
) -> BandwidthSweep:
    """`estimator` at every bandwidth, and for each policy the largest bandwidth that agrees with all smaller ones.

    The choice is that of `lepski.choose_by_error`.
    Chosen estimates are at most `caution`: the same decisions chose and estimate, and what bias is left may be as large
    as the interval is wide.
    """
    check_interval(interval)
    widths = sorted(set(bandwidths))
    if not widths:
        raise ConfigurationError("No bandwidth was given: five to ten that double, narrow to wide, are a good choice.")
    base = resolve(estimator)
    table = []
    for width in widths:
        named = replace(base, name=f"{base.name}, bandwidth {width:g}", aliases=())
        table.append(tuple(evaluate(log.at_bandwidth(width, kernel), named, level, interval)))
    places = [_choice([row[p] for row in table]) for p in range(len(table[0]))]
    return BandwidthSweep(
        bandwidths=tuple(widths),
        table=tuple(table),
        chosen=tuple(_chosen(table[i][p], len(widths)) for p, i in enumerate(places)),
        chosen_bandwidth=tuple(widths[i] for i in places),
    )


def _choice(row: list[Estimate]) -> int:
    values = [[np.nan if estimate.value is None else estimate.value] for estimate in row]
    errors = [[np.nan if estimate.std_error is None else estimate.std_error] for estimate in row]
    place = int(choose_by_error(values, errors, WIDTHS)[0])
    return len(row) - 1 if place < 0 else place


def _chosen(estimate: Estimate, count: int) -> Estimate:
    if estimate.value is None or count == 1:
        return estimate
    said = f"{estimate.reason}; " if estimate.reason else ""
    gate = "caution" if estimate.gate == "ok" else estimate.gate
    return replace(estimate, gate=gate, reason=f"{said}the bandwidth was chosen from {count} on the same decisions")
