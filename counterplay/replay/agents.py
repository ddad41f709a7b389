"""The agents, as settings: who they are, not how they run.

An agent is one of

- ``Uniform``: every allowed action with the same probability;
- ``Constant``: one action for everybody;
- ``FixedPolicy``: a policy that does not learn, stored in the workspace under a name (a language model's choices, say);
- ``Bandit``: learns from (context, action, reward);
- ``Hybrid``: a bandit and one or more stored policies, and a selector that says with what probability each acts.

Any object with the three methods of ``plain.Agent`` is an agent too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from counterplay.errors import ConfigurationError


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigurationError(message)


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """Every allowed action with the same probability."""

    name: str = "uniform"


@dataclass(frozen=True, kw_only=True)
class Constant:
    """One action for everybody; where it is not allowed, an allowed action at random."""

    name: str = "constant"
    action: str = "best"
    """The action's label, or ``best``: the one with the highest mean reward in hindsight (needs an outcome table)."""


@dataclass(frozen=True, kw_only=True)
class FixedPolicy:
    """A stored policy that does not learn."""

    policy: str
    """The name under which the workspace holds its choices."""
    name: str = ""
    missing: Literal["stop", "uniform"] = "stop"
    """What to do in a context without a choice, or whose choice is not allowed: stop and say how many, or play at
    random."""
    calls: bool = True
    """Whether each of its decisions costs a call of a model."""


@dataclass(frozen=True, kw_only=True)
class Bandit:
    """A bilinear contextual bandit: logit(x, a) = x W z_a + b, one Adam step for each batch.

    Zhu, Foster, Langford and Mineiro (ICML 2022), in the form that Chen, Zhang and Zhu (EMNLP 2024, appendix A.2)
    use. Their learning rate of 1/3 and their scale of 1e-4 belong to embeddings that are not normalised; the default
    here is for features of unit length. The exploration is (delay / (delay + t))^(1/3) times ``exploration_rate``,
    the learning rate decays with the square root of the same form, t in batches.
    """

    name: str = "bandit"
    exploration: Literal["spanner-greedy", "epsilon-greedy"] = "spanner-greedy"
    """Explore over a barycentric spanner of the action vectors (or all candidates, if they are no more than its
    dimensions), or over everything that is allowed."""
    start: Literal["zero", "embedding-prior"] = "zero"
    """W = 0, or W such that x W z_a = ``prior_scale`` times the inner product of context and action features."""
    dimensions: int = 50
    """Action vectors are reduced to this many dimensions (singular value decomposition, not centred)."""
    exploration_rate: float = 1.0
    exploration_delay: float = 10.0
    learning_rate: float = 0.1
    learning_delay: float = 1000.0
    loss: Literal["logistic", "squared"] = "logistic"
    bias: bool = True
    """Whether to learn the intercept b (the paper has none)."""
    prior_scale: float = 10.0
    prior_bias: float = -5.0
    """With ``start = "embedding-prior"``: the slope and the intercept of the first logits."""

    def __post_init__(self) -> None:
        _require(self.dimensions >= 1, f"dimensions is {self.dimensions}; at least 1 is needed.")
        rate = self.exploration_rate
        _require(0 <= rate <= 1, f"exploration_rate is {rate}; it is a probability: choose it in [0, 1].")
        _require(self.exploration_delay > 0, f"exploration_delay is {self.exploration_delay}; it must be above 0.")
        _require(self.learning_rate >= 0, f"learning_rate is {self.learning_rate}; it cannot be negative.")
        _require(self.learning_delay > 0, f"learning_delay is {self.learning_delay}; it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The models act with probability ``share``, always."""

    share: float = 0.5

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, f"share is {self.share}; it is a probability: choose it in [0, 1].")


@dataclass(frozen=True, kw_only=True)
class _Schedule:
    least: float = 0.0
    most: float = 0.8

    def __post_init__(self) -> None:
        _require(
            0 <= self.least <= self.most <= 1,
            f"least is {self.least} and most is {self.most}; they are probabilities: 0 <= least <= most <= 1.",
        )


@dataclass(frozen=True, kw_only=True)
class Polynomial(_Schedule):
    """p(models) = min(most, max(least, scale / t^power)), t in batches from 1 (Chen et al., section 3)."""

    scale: float = 100.0
    power: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.scale >= 0 and self.power >= 0, "scale and power of a polynomial decay cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class Exponential(_Schedule):
    """p(models) = min(most, max(least, scale exp(-rate t))), t in batches from 1 (Chen et al., section 3)."""

    scale: float = 100.0
    rate: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.scale >= 0 and self.rate >= 0, "scale and rate of an exponential decay cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class LogBarrier:
    """Online mirror descent with the log barrier over the bases (Chen et al., Algorithm 3).

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
        _require(self.step > 0, f"step is {self.step}; it must be above 0.")
        _require(self.clip is None or self.mix is None, "clip and mix exclude each other: set one of them to none.")
        for name, value in (("clip", self.clip), ("mix", self.mix)):
            _require(value is None or 0 <= value <= 1, f"{name} is {value}; choose it in [0, 1].")


Selector = Fixed | Polynomial | Exponential | LogBarrier


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """A bandit that learns from every decision whoever acted, models that never learn, and a selector (Chen et al.,
    Algorithm 2)."""

    selector: Selector
    name: str = "hybrid"
    models: tuple[str, ...] = ("llm",)
    """Stored policies, by name."""
    bandit: Bandit = field(default_factory=Bandit)
    budget: int | None = None
    """The most decisions in which a model may act."""
    budget_rule: Literal["hard-stop", "linear"] = "hard-stop"
    """Stop at the budget B, or scale p(models) by (B - calls) / B all along (Chen et al., equation 1)."""
    missing: Literal["stop", "uniform"] = "stop"
    """As in ``FixedPolicy``."""

    def __post_init__(self) -> None:
        _require(len(self.models) > 0, "a hybrid needs at least one model; a bandit alone is kind 'bandit'.")
        _require(self.budget is None or self.budget >= 0, f"budget is {self.budget}; it cannot be negative.")


BuiltIn = Uniform | Constant | FixedPolicy | Bandit | Hybrid
