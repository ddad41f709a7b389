"""The selectors of a hybrid agent: with what probability do the models act, and when may they?

Rules that do not learn: ``Fixed``, ``Polynomial``, ``Exponential``, ``LinearDecay``. Rules that learn who earns more:
``LogBarrier``, ``Exp3``, ``Tsallis``. Rules that look at each decision: ``Unsure``, ``Priced``, ``Guarded``. Several
models share what the models get: equally, or, where the rule learns, each with a probability of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from counterplay.errors import ConfigurationError, UnsupportedError
from counterplay.replay.kernels import records
from counterplay.replay.kernels.records import SelectorSettings

# As in ``kernels.selection``, which is not imported here: settings are read without a compiler.
_NO_LIMIT = 2**63 - 1


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigurationError(message)


def _require_probability(name: str, value: float) -> None:
    _require(0 <= value <= 1, f"{name} is {value}; it is a probability: choose it in [0, 1].")


def _require_amount(name: str, value: float) -> None:
    _require(0 <= value < math.inf, f"{name} is {value}; choose a finite number that is not negative.")


def _require_positive(name: str, value: float) -> None:
    _require(0 < value < math.inf, f"{name} is {value}; it must be above 0, and finite.")


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The models act with probability ``share``, always."""

    share: float = 0.5

    def __post_init__(self) -> None:
        _require_probability("share", self.share)


@dataclass(frozen=True, kw_only=True)
class _Between:
    least: float = 0.0
    most: float = 0.8

    def __post_init__(self) -> None:
        _require(
            0 <= self.least <= self.most <= 1,
            f"least is {self.least} and most is {self.most}; they are probabilities: 0 <= least <= most <= 1.",
        )


@dataclass(frozen=True, kw_only=True)
class Polynomial(_Between):
    """p(models) = min(most, max(least, scale / t^power)), t in batches from 1 (Chen et al., section 3)."""

    scale: float = 100.0
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_amount("scale", self.scale)
        _require_amount("power", self.power)


@dataclass(frozen=True, kw_only=True)
class Exponential(_Between):
    """p(models) = min(most, max(least, scale exp(-rate t))), t in batches from 1 (Chen et al., section 3)."""

    scale: float = 100.0
    rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_amount("scale", self.scale)
        _require_amount("rate", self.rate)


@dataclass(frozen=True, kw_only=True)
class LinearDecay:
    """p(models) = most (1 - (t - 1) / batches), t in batches from 1: from ``most`` down to nearly nothing.

    In the released code of Chen et al., not in their paper. It has to know the horizon: replay by rejection without one
    takes c n, the rounds to expect.
    """

    most: float = 0.8

    def __post_init__(self) -> None:
        _require_probability("most", self.most)


@dataclass(frozen=True, kw_only=True)
class LogBarrier:
    """Online mirror descent with the log barrier over the bases (Chen et al., Algorithm 3; CORRAL of Agarwal et al.,
    COLT 2017, with a constant step). Rewards in [0, 1].

    The defaults are the rule of the authors' released code, which works: the loss is minus the reward, the importance
    weight is 1 over the raw probability. Algorithm 3 as printed (``loss = "one-minus-reward"``) together with clipping
    and the raw weight drives the bandit's probability to 0 and stays there.
    """

    step: float = 0.025
    """The step as it is applied. The paper says 0.05; the released code divides it by the number of bases."""
    loss: Literal["minus-reward", "one-minus-reward"] = "minus-reward"
    weight: Literal["raw", "played"] = "raw"
    """Divide by the probability before or after smoothing and budget."""
    clip: float | None = 0.2
    """The bandit acts at least with this probability."""
    mix: float | None = None
    """Instead of clipping: this much of a uniform distribution over the bases."""

    def __post_init__(self) -> None:
        _require_positive("step", self.step)
        _require(self.clip is None or self.mix is None, "clip and mix exclude each other: set one of them to none.")
        for name, value in (("clip", self.clip), ("mix", self.mix)):
            _require(value is None or 0 <= value <= 1, f"{name} is {value}; choose it in [0, 1].")

    def largest_step(self, *, batch: int, members: int = 2, highest: float = 1.0) -> float:
        """The largest step with which no batch can take a base's 1/p below 0 before p is made to sum to 1 again.

        A base that earns ``highest`` in all of ``batch`` rounds has 1/p multiplied by 1 - step batch gain ratio. The
        gain is ``highest``, less 1 where the loss is one minus the reward. The ratio is the most that the weight
        exceeds 1/p: 1 for raw weights, else 1 / (1 - clip), or 1 / (1 - mix + mix / M) with M ``members``. Where
        the gain is not positive every step is safe. A larger step does not break the arithmetic (p stays on the
        simplex); it overshoots: one lucky batch takes a base from nearly 0 to nearly 1. A linear budget with the
        ``played`` weight is not covered: it divides by a probability that falls to 0.
        """
        gain = highest - (1.0 if self.loss == "one-minus-reward" else 0.0)
        left = 1.0
        if self.weight == "played" and self.clip is not None and self.clip < 1:
            left = 1.0 - self.clip
        elif self.weight == "played" and self.mix is not None:
            left = 1.0 - self.mix + self.mix / members
        return left / (batch * gain) if gain > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class Exp3:
    """p = (1 - mix) softmax(-rate L) + mix / M, with L the importance-weighted losses 1 - reward so far.

    Auer, Cesa-Bianchi, Freund and Schapire (SIAM Journal on Computing, 2002), who write it with gains. Rewards in
    [0, 1]. It holds against any sequence of rewards; for a horizon of T rounds its theory asks for a ``rate`` of about
    sqrt(2 ln M / (T M)): 0.001 for 600,000 rounds of two bases, which is the default.
    """

    rate: float = 0.001
    mix: float = 0.05
    """This much of a uniform distribution over the bases: no base ever acts less than mix / M."""

    def __post_init__(self) -> None:
        _require_positive("rate", self.rate)
        _require_probability("mix", self.mix)


@dataclass(frozen=True, kw_only=True)
class Tsallis:
    """p_i = 4 / (eta (L_i - x))^2 with x such that p sums to 1, L as in ``Exp3`` and eta = rate / sqrt(rounds).

    Tsallis-INF with alpha = 1/2 (Zimmert and Seldin, JMLR 2021); their rate for these losses is 2. Best of both
    worlds: optimal against any sequence of rewards and where each base's mean reward stays what it is; it needs no
    horizon. Rewards in [0, 1]. Within a batch p stays the same, so eta is that of the batch's last round.
    """

    rate: float = 2.0

    def __post_init__(self) -> None:
        _require_positive("rate", self.rate)


@dataclass(frozen=True, kw_only=True)
class Unsure:
    """The models act with probability ``most`` where the bandit's uncertainty exceeds ``threshold``, else ``least``.

    The uncertainty is in [0, 1]: the width of the posterior where the bandit has one, else 1 minus the margin between
    its two highest predicted rewards. It says how sure the bandit is, not whether it is right, nor whether the
    models know better. Not in Chen et al.
    """

    threshold: float
    most: float = 1.0
    least: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.threshold <= 1, f"threshold is {self.threshold}; uncertainty is in [0, 1]: choose it there.")
        _require(self.most > 0, f"most is {self.most}; models that never act are a bandit alone: kind 'bandit'.")
        _require(
            0 <= self.least <= self.most <= 1,
            f"least is {self.least} and most is {self.most}; they are probabilities: 0 <= least <= most <= 1.",
        )


@dataclass(frozen=True, kw_only=True)
class Priced:
    """The models act where their mean reward so far exceeds the bandit's predicted reward by more than ``price``.

    ``price`` is in units of reward for each call. Models are seen only when they act, so their mean starts
    optimistic: as if they had earned the highest reward, 1, in ``optimism`` rounds before the first. Rewards in
    [0, 1]. What it does not see: the mean is one number for all models and all contexts, taken where the models
    were asked; and once it has fallen below what the bandit predicts everywhere, nobody asks again. The bandit's
    prediction must be on the scale of rewards; one that promises too much silences the models. Not in Chen et al.
    """

    price: float
    optimism: float = 10.0

    def __post_init__(self) -> None:
        _require(
            0 <= self.price < 1,
            f"price is {self.price}; no call can gain more than the highest reward, 1: choose it in [0, 1).",
        )
        _require_positive("optimism", self.optimism)


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The models act, with probability ``most``, only while they cannot have cost more than ``allowance`` a round.

    The shortfall S is the sum of 1 - reward over the rounds in which a model acted, 1 being the highest reward. A
    model may act after T rounds only if S + 1 <= allowance (T + 1).

    So S <= allowance T after every round T, on every path: it holds at 0; a round of the bandit leaves S as it is; a
    round of a model adds at most 1 to it, and was allowed only if that fits. In a round of the bandit the hybrid
    earns what the bandit's own choice earns. In a round of a model that choice would have earned at most 1, so at
    most 1 - reward more. Hence over T rounds the hybrid earns at least what its bandit's own choices would have
    earned in the same rounds, minus allowance T. Rewards that come late (a batch) count as lost until they are known.

    What this does not cover: a bandit that had been alone would have learned from other rounds, and chosen otherwise;
    and the shortfall is counted against the highest reward, not against the bandit, so where even good choices
    mostly earn nothing the models act in little more than ``allowance`` of the rounds. Rewards in [0, 1]. Not in Chen
    et al.; conservative bandits (Wu, Shariff, Lattimore and Szepesvari, ICML 2016) guard a known baseline alike.
    """

    allowance: float
    most: float = 0.8

    def __post_init__(self) -> None:
        _require(
            0 <= self.allowance <= 1,
            f"allowance is {self.allowance}; it is reward lost in a round: choose it in [0, 1].",
        )
        _require_probability("most", self.most)


Selector = Fixed | Polynomial | Exponential | LinearDecay | LogBarrier | Exp3 | Tsallis | Unsure | Priced | Guarded

SELECTORS: Mapping[str, type[Any]] = {
    "fixed": Fixed,
    "polynomial": Polynomial,
    "exponential": Exponential,
    "linear-decay": LinearDecay,
    "log-barrier": LogBarrier,
    "exp3": Exp3,
    "tsallis": Tsallis,
    "unsure": Unsure,
    "priced": Priced,
    "guarded": Guarded,
}
"""The selectors by the names that experiments use."""

_NAMES = {kind: name for name, kind in SELECTORS.items()}
_NEEDS_UNIT_REWARDS = (LogBarrier, Exp3, Tsallis, Priced, Guarded)


def check_selector(
    selector: Selector, members: int, *, batch: int, rewards: tuple[float, float], where: str = "this agent"
) -> None:
    """Refuse a selector that would quietly go wrong on a log.

    Args:
        members: how many bases the hybrid has, its bandit included. batch: rounds between two updates.
        rewards: the lowest and the highest reward of the log.
        where: the name of agent and log, for the message.

    Raises:
        UnsupportedError: the selector needs rewards in [0, 1], and the log has others.
        ConfigurationError: the log-barrier step is too large for the batch.
    """
    low, high = rewards
    if isinstance(selector, _NEEDS_UNIT_REWARDS) and (low < 0 or high > 1):
        raise UnsupportedError(
            f"the {_NAMES[type(selector)]} selector of {where} needs rewards in [0, 1]; they go from {low:g} to "
            f"{high:g}: rescale them."
        )
    if isinstance(selector, LogBarrier):
        largest = selector.largest_step(batch=batch, members=members, highest=high)
        _require(
            selector.step <= largest * (1 + 1e-9),
            f"the log-barrier step of {where} is {selector.step:g}; with batches of {batch} and rewards up to {high:g} "
            f"it may be at most {largest:.4g}, or one batch could throw all probability from one base to another: "
            f"choose a smaller step or batch.",
        )


def selector_settings(
    selector: Selector,
    members: int,
    *,
    batch: int,
    batches: int,
    budget: int | None = None,
    money: float | None = None,
    prices: Sequence[float] = (),
    budget_rule: Literal["hard-stop", "linear"] = "hard-stop",
) -> SelectorSettings:
    """A selector and its budget as the kernels read them.

    Args:
        members: how many bases there are, base 0 included. batch: rounds between two updates. batches: how many
            batches the horizon holds.
        budget: the most calls. money: the most that they may cost, in the unit of ``prices``. None: no limit; where
            both are given, both hold.
        prices: what a call of each base but the first costs; empty: 1 each.
        budget_rule: stop where the next call would overrun, or scale p(models) by what is left of the budget all
            along (Chen et al., equation 1).

    Raises:
        ConfigurationError: a budget, a price, or a number of batches that makes no sense.
    """
    _require(batch >= 1 and batches >= 1, f"batch is {batch} and batches is {batches}; at least 1 each is needed.")
    _require(budget is None or budget >= 0, f"budget is {budget}; it cannot be negative.")
    _require(money is None or 0 <= money < math.inf, f"money is {money}; choose a finite amount, or none.")
    models = members - 1
    _require(
        len(prices) in (0, models), f"there are {len(prices)} prices for {models} models: give one for each, or none."
    )
    for price in prices:
        _require_amount("a price", price)
    rule = {"hard-stop": records.HARD_STOP, "linear": records.LINEAR}[budget_rule]
    fields = {
        "least": getattr(selector, "least", 0.0),
        "most": getattr(selector, "most", 1.0),
        **_own(selector, batch),
        **_smoothing(selector),
        "batches": batches,
        "budget_rule": records.NO_BUDGET if budget is None and money is None else rule,
        "budget": _NO_LIMIT if budget is None else budget,
        "money": math.inf if money is None else money,
    }
    # A kernel is compiled for the types of its record: 1 and 1.0 would be two kernels.
    typed = {name: type(getattr(_NOTHING, name))(value) for name, value in fields.items()}
    charged = prices if len(prices) else [1.0] * models
    return _NOTHING._replace(**typed, prices=np.array([0.0, *charged]))


_NOTHING = SelectorSettings(
    kind=records.FIXED,
    scale=0.0,
    decay=0.0,
    least=0.0,
    most=1.0,
    batches=1,
    step=0.0,
    loss_offset=1.0,
    played_weight=True,
    threshold=0.0,
    price=0.0,
    allowance=0.0,
    smoothing=records.NO_SMOOTHING,
    smoothing_amount=0.0,
    budget_rule=records.NO_BUDGET,
    budget=_NO_LIMIT,
    money=math.inf,
    prices=np.zeros(1),
)


def _own(selector: Selector, batch: int) -> dict[str, Any]:
    """The fields of the record that belong to one kind."""
    match selector:
        case Fixed():
            return {"kind": records.FIXED, "most": selector.share}
        case Polynomial():
            return {"kind": records.POLYNOMIAL, "scale": selector.scale, "decay": selector.power}
        case Exponential():
            return {"kind": records.EXPONENTIAL, "scale": selector.scale, "decay": selector.rate}
        case LinearDecay():
            return {"kind": records.LINEAR_DECAY}
        case LogBarrier():
            offset = 1.0 if selector.loss == "one-minus-reward" else 0.0
            played = selector.weight == "played"
            return {"kind": records.LOG_BARRIER, "step": selector.step, "loss_offset": offset, "played_weight": played}
        case Exp3():
            return {"kind": records.EXP3, "step": selector.rate}
        case Tsallis():
            # The kernels count batches, the rule counts rounds.
            return {"kind": records.TSALLIS, "step": selector.rate / math.sqrt(batch)}
        case Unsure():
            return {"kind": records.UNSURE, "threshold": selector.threshold}
        case Priced():
            return {"kind": records.PRICED, "price": selector.price, "scale": selector.optimism}
        case Guarded():
            return {"kind": records.GUARDED, "allowance": selector.allowance}


def _smoothing(selector: Selector) -> dict[str, Any]:
    clip, mix = getattr(selector, "clip", None), getattr(selector, "mix", None)
    if clip is not None:
        return {"smoothing": records.CLIP, "smoothing_amount": clip}
    if mix is not None:
        return {"smoothing": records.MIX, "smoothing_amount": mix}
    return {}
