"""Slates: several items shown at once, in positions 1..K, and what each position or the whole slate earned.

There are too many slates for plain importance weights, so methods take something for granted about how people look at
a slate, and pay with bias where that is wrong:

| method | a position's reward depends on | weight | paper |
|---|---|---|---|
| `sips` | anything in the slate | product over all positions | slates as actions |
| `rips` | its item and those above (cascade) | product down to the position | McInerney et al. 2020 |
| `cascade_dr` | the same; a reward model takes out variance | the same | Kiyohara et al. 2022 |
| `iips` | its own item | the position's own | Li et al. 2018 |
| `pi` | (a slate's reward is a sum over positions) | 1 + sum of (w_k - 1) | Swaminathan et al. 2017 |

Each is ordinary evidence and an ordinary estimator; `evaluate_slates` puts the right two together. The value is always
what a whole slate earns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError, nearest
from counterplay.estimators.estimate import Estimate
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.problems.arrays import (
    FINITE,
    PROBABILITY,
    PROPENSITY,
    LargeSample,
    Rule,
    by_policy,
    check_interval,
    codes,
    numbers,
    within,
)
from counterplay.estimators.statistic import evaluate
from counterplay.estimators.table import resolve


@dataclass(frozen=True, kw_only=True, eq=False)
class Slates:
    """n slates of K positions, and P policies. Only the logged slates are described, never all that are possible.

    | field | shape | meaning |
    |---|---|---|
    | `reward` | (n, K) or (n,) | what each position earned, or the whole slate |
    | `propensity` | (n, K) | the logging policy's probability of each item given the items above it, in (0, 1] |
    | `target` | (P, n, K) | the same of each policy, in [0, 1]; (n, K) stands for one policy |
    | `marginal_propensity` | (n, K), None | the item's probability at its position, whatever stands above it |
    | `marginal_target` | (P, n, K), None | the same of each policy |
    | `q` | (P, n, K) or (n, K), None | a model of what is earned from this position down, given the items down to it |
    | `value` | (P, n, K), None | the mean of `q` over the items the policy may put there, given those above |
    | `pi_weights` | (P, n), None | pseudo-inverse weights where positions are not filled independently |
    | `importance` | (K,), None | factors of the positions' rewards; `q` and `value` have them in |
    | `present` | (n, K) bool, None | False where a shorter slate has no such position: what stands there is not read |
    | `cluster` | (n,) int, None | slates that are not independent of each other share a code |
    | `policies`, `start` | | as in `Evidence`; `start` counts slates |

    A slate's length must not depend on the policy. Where positions are filled independently of each other, marginal
    probabilities equal the others: give the same arrays, which says so.
    Raises `EvidenceError` with the first bad value and how many there are.
    """

    reward: Array
    propensity: Array
    target: Array
    marginal_propensity: Array | None = None
    marginal_target: Array | None = None
    q: Array | None = None
    value: Array | None = None
    pi_weights: Array | None = None
    importance: Array | None = None
    present: npt.NDArray[np.bool_] | None = None
    cluster: Codes | None = None
    policies: tuple[str, ...] = ()
    start: int = 0

    def __post_init__(self) -> None:
        propensity = numbers("propensity", self.propensity, (None, None), "(n, K), slates by positions,")
        n, k = propensity.shape
        object.__setattr__(self, "present", _present(self.present, (n, k)))
        self._put("propensity", propensity, PROPENSITY, 1.0)
        self._put("target", by_policy("target", self.target, None, (n, k)), PROBABILITY, 1.0)
        self._put_reward(n, k)
        count = len(self.target)
        if self.marginal_propensity is not None:
            array = numbers("marginal_propensity", self.marginal_propensity, (n, k), f"({n}, {k})")
            self._put("marginal_propensity", array, PROPENSITY, 1.0)
        if self.marginal_target is not None:
            array = by_policy("marginal_target", self.marginal_target, count, (n, k))
            self._put("marginal_target", array, PROBABILITY, 1.0)
        if self.q is not None:
            array = by_policy("q", self.q, 1 if np.ndim(self.q) == 2 else count, (n, k))
            self._put("q", array, FINITE, 0.0)
        if self.value is not None:
            self._put("value", by_policy("value", self.value, count, (n, k)), FINITE, 0.0)
        if self.pi_weights is not None:
            self._put("pi_weights", by_policy("pi_weights", self.pi_weights, count, (n,)), FINITE)
        if self.cluster is not None:
            object.__setattr__(self, "cluster", codes("cluster", self.cluster, n))

    def __len__(self) -> int:
        """The number of slates."""
        return len(self.reward)

    def _put_reward(self, n: int, k: int) -> None:
        if np.ndim(self.reward) == 1:
            self._put("reward", numbers("reward", self.reward, (n,), f"({n},), a number a slate,"), FINITE)
            if self.importance is not None:
                raise EvidenceError("importance weighs the rewards of positions; reward (n,) is that of whole slates.")
            return
        what = f"({n}, {k}) as propensity, or ({n},) for whole slates,"
        self._put("reward", numbers("reward", self.reward, (n, k), what), FINITE, 0.0)
        if self.importance is not None:
            self._put(
                "importance", numbers("importance", self.importance, (k,), f"({k},), a factor a position,"), FINITE
            )

    def _put(self, name: str, array: Array, rule: Rule, absent: float | None = None) -> None:
        # What stands at absent positions is replaced by what changes no product and no sum, so no method need ask.
        if absent is not None and self.present is not None and not self.present.all():
            array = np.where(self.present, array, absent)
        within(name, array, rule)
        object.__setattr__(self, name, array)


def standard_ips(slates: Slates) -> Evidence:
    """The slate as one action, weighed by the product over its positions: right whatever people look at.

    One decision a slate, for `ips`, `snips` and their like. The variance grows exponentially with K.
    """
    return Evidence(
        reward=_whole(slates),
        weights=_products(slates)[:, :, -1],
        target=np.ones(slates.target.shape[:2]),
        cluster=slates.cluster,
        policies=slates.policies,
        start=slates.start,
    )


def reward_interaction_ips(slates: Slates) -> Evidence:
    """Each position weighed by the items down to it (McInerney et al. 2020): right under the cascade assumption.

    A decision is a position, and the K positions of a slate are one cluster; rewards are K times larger, so that the
    mean over positions is the sum over a slate. For `ips`, `snips` and their like (these normalise all positions by
    one sum). The effective sample size counts positions, `units` slates. Biased where a reward depends on items further
    down.
    """
    return _by_position(slates, "rips", _products(slates), _CASCADE)


def cascade_doubly_robust(slates: Slates) -> Evidence:
    """The same with a reward model: w_1..k (r_k - q_k) + w_1..k-1 V_k, summed over a slate (Kiyohara et al. 2022).

    For `dr`, `sndr` and their shrunken forms; `ips` on it is `rips`. Under the cascade assumption unbiased with any
    model; the variance is least where `q` is right about all that is earned from the position down.
    """
    weights = _products(slates)
    plain = _by_position(slates, "cascade_dr", weights, _CASCADE)
    if slates.q is None or slates.value is None:
        raise MissingEvidenceError("CASCADE_DR needs a reward model: q and value of the slates. Or use 'rips'.")
    k = slates.propensity.shape[1]
    above = np.ones_like(weights)
    above[:, :, 1:] = weights[:, :, :-1]
    q = k * slates.q.reshape(len(slates.q), -1)
    value = k * (above * slates.value).reshape(len(weights), -1)
    return replace(plain, q_logged=q if len(q) > 1 else q[0], q_target=value)


def independent_ips(slates: Slates) -> Evidence:
    """Each position weighed by its own marginal probabilities (Li et al. 2018): right where no other item matters.

    Decisions, clusters and estimators as in `reward_interaction_ips`. Biased where the items around a position matter.
    """
    return _by_position(
        slates, "iips", _marginal_ratio(slates, "iips"), "a position's reward depends on its own item only"
    )


def pseudo_inverse(slates: Slates) -> Evidence:
    """The pseudo-inverse estimator (Swaminathan et al. 2017): right where a slate's reward is a sum over its positions.

    One decision a slate, for `dr` (the paper's) and `sndr` (a self-normalised form). The weights w are `pi_weights`,
    or, where positions are filled independently, 1 + sum_k (w_k - 1).

    They may be negative, which evidence refuses. With a constant b >= K - 1 such that u = (w + b) / (1 + b) >= 0,
    u is 1 on average and r w = (1 + b) u r - b r: the weights of the evidence are u, and its model carries the rest.
    Its rewards are 0, so that `ips` finds nothing in it, rather than a wrong number. Diagnostics are those of u, which
    deviates from 1 by 1 / (1 + b) of what w does. b is K - 1 unless `pi_weights` go below 1 - K: then it depends on the
    log, and shards merge for `dr` only.
    """
    shift = slates.propensity.shape[1] - 1.0
    if slates.pi_weights is not None:
        shift = max(shift, -float(slates.pi_weights.min()))
        weights = np.maximum((slates.pi_weights + shift) / (1 + shift), 0.0)
    else:
        weights = _marginal_ratio(slates, "pi").mean(axis=2)
        if not np.array_equal(slates.propensity, np.asarray(slates.marginal_propensity)):
            raise EvidenceError(
                "PI by sums of ratios holds where positions are filled independently, and there marginal_propensity "
                "equals propensity; here it differs. Give pi_weights: pseudo_inverse_weights makes them."
            )
    reward = _whole(slates)
    return Evidence(
        reward=np.zeros(len(slates)),
        weights=weights,
        target=np.ones(weights.shape),
        q_logged=-(1 + shift) * reward,
        q_target=np.broadcast_to(-shift * reward, weights.shape),
        cluster=slates.cluster,
        policies=slates.policies,
        start=slates.start,
        assumption=_granted(slates, "a slate's reward is a sum over its positions"),
    )


class Method(NamedTuple):
    """A builder of evidence, and the name of the estimator that is the method on it."""

    build: Callable[[Slates], Evidence]
    estimator: str


METHODS: dict[str, Method] = {
    "sips": Method(standard_ips, "ips"),
    "iips": Method(independent_ips, "ips"),
    "rips": Method(reward_interaction_ips, "ips"),
    "cascade_dr": Method(cascade_doubly_robust, "dr"),
    "pi": Method(pseudo_inverse, "dr"),
}


def evaluate_slates(
    slates: Slates, methods: str | Iterable[str] = ("sips", "rips"), level: float = 0.95, interval: LargeSample = "t"
) -> list[Estimate]:
    """Estimates of what a slate earns, for every policy by every method: policies first, methods in the order given.

    `estimator` of an estimate is the method's name. What takes something for granted never passes as `ok`.
    Raises `ConfigurationError` for an unknown method, `MissingEvidenceError` where it needs what the slates lack.
    """
    check_interval(interval)
    found = []
    for name in dict.fromkeys((methods,) if isinstance(methods, str) else methods):
        if name not in METHODS:
            raise ConfigurationError(f"There is no method '{name}' for slates. {nearest(name, METHODS)}")
        estimator = replace(resolve(METHODS[name].estimator), name=name, aliases=())
        found.append(evaluate(METHODS[name].build(slates), estimator, level, interval))
    if not found:
        raise ConfigurationError("No method was asked for: 'sips' and 'rips' are a good beginning.")
    return [estimate for policy in zip(*found, strict=True) for estimate in policy]


_CASCADE = "a position's reward depends on its item and those above it only"


def _granted(slates: Slates, what: str) -> str:
    # With one position nothing is taken for granted: every method is the plain one.
    return f"it is taken for granted that {what}" if slates.propensity.shape[1] > 1 else ""


def _present(value: npt.ArrayLike | None, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if value is None:
        return np.ones(shape, dtype=bool)
    present = np.asarray(value)
    if present.dtype != np.bool_ or present.shape != shape:
        raise EvidenceError(f"present is {present.dtype} of shape {present.shape}; {shape} of true or false is needed.")
    empty = np.flatnonzero(~present.any(axis=1))
    if len(empty):
        raise EvidenceError(f"The slate at row {empty[0]} has no position, and {len(empty) - 1} more have none.")
    return present


def _products(slates: Slates) -> Array:
    """(P, n, K) weights of the items down to each position: products of ratios, which do not underflow."""
    # What overflows is refused as evidence, by name.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.cumprod(slates.target / slates.propensity, axis=2), dtype=np.float64)


def _marginal_ratio(slates: Slates, method: str) -> Array:
    if slates.marginal_propensity is None or slates.marginal_target is None:
        raise MissingEvidenceError(
            f"{method.upper()} needs marginal_propensity and marginal_target: the probability of each item at its "
            "position, whatever stands above. Where positions are filled independently they equal propensity and "
            "target: give the same arrays."
        )
    return slates.marginal_target / slates.marginal_propensity


def _rewards(slates: Slates) -> Array:
    return slates.reward if slates.importance is None else slates.reward * slates.importance


def _whole(slates: Slates) -> Array:
    rewards = _rewards(slates)
    return rewards if rewards.ndim == 1 else np.asarray(rewards.sum(axis=1))


def _by_position(slates: Slates, method: str, weights: Array, granted: str) -> Evidence:
    if slates.reward.ndim == 1:
        raise MissingEvidenceError(
            f"{method.upper()} needs rewards of positions (n, K); these are of whole slates. Use 'sips' or 'pi'."
        )
    n, k = slates.propensity.shape
    cluster = np.arange(slates.start, slates.start + n) if slates.cluster is None else slates.cluster
    return Evidence(
        reward=k * _rewards(slates).reshape(-1),
        weights=weights.reshape(len(weights), -1),
        target=np.ones((len(weights), n * k)),
        cluster=np.repeat(cluster, k),
        policies=slates.policies,
        start=slates.start * k,
        assumption=_granted(slates, granted),
    )
