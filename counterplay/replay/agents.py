"""The agents, as settings: who they are, not how they run.

An agent is one of

- ``Uniform``: every allowed action with the same probability;
- ``Constant``: one action for everybody;
- ``FixedPolicy``: a policy that does not learn, stored in the workspace under a name (a language model's choices, say);
- ``Bandit``, ``LinUCB``, ``LinTS``: learn from (context, action, reward);
- ``Hybrid``: a bandit and one or more stored policies, and a selector that says with what probability each acts.

Any object with the three methods of ``plain.Agent`` is an agent too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from counterplay.errors import ConfigurationError
from counterplay.replay.selectors import Selector


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


Exploration = Literal["spanner-greedy", "epsilon-greedy", "softmax", "igw", "spanner-igw", "thompson"]

# Of each exploration: its rate where none is given, and the power of its decay.
EXPLORATIONS: dict[str, tuple[float, float]] = {
    "spanner-greedy": (1.0, 1 / 3),
    "epsilon-greedy": (1.0, 1 / 3),
    "softmax": (0.05, 0.0),
    "igw": (1000.0, 0.0),
    "spanner-igw": (1000.0, 0.0),
    "thompson": (1.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class Bandit:
    """A contextual bandit whose model learns by gradients: logit(x, a) = x W z_a + b, one step for each batch.

    Zhu, Foster, Langford and Mineiro (ICML 2022), in the form that Chen, Zhang and Zhu (EMNLP 2024, appendix A.2)
    use. Their learning rate of 1/3 and their scale of 1e-4 belong to embeddings that are not normalised; the default
    here is for features of unit length. Exploration in batch t (from 0) is ``exploration_rate`` times
    (delay / (delay + t))^power, the learning rate decays as the square root of the same form.
    """

    name: str = "bandit"
    model: Literal["bilinear", "disjoint"] = "bilinear"
    """``bilinear``: z_a are the features of the action; ``disjoint``: every action has weights of its own, and needs no
    features."""
    exploration: Exploration = "spanner-greedy"
    """``spanner-greedy``, ``epsilon-greedy``: with the probability ``exploration_rate`` an action at random, over a
    barycentric spanner of the action vectors (or all candidates, if they are no more than its dimensions) or over
    everything that is allowed. ``softmax``: probabilities exp(value / rate). ``igw``: inverse gap weighting (Foster and
    Rakhlin, ICML 2020; SquareCB), p = 1 / (K + rate gap). ``spanner-igw``: the same over a spanner of the vectors
    reweighted for each context (Zhu et al.). ``thompson``: greedy after one draw a batch from a diagonal Gaussian
    posterior of the weights, which then also is how the model learns (Chapelle and Li, NIPS 2011)."""
    exploration_rate: float | None = None
    """A probability (greedy kinds, default 1), a temperature in units of reward (softmax, 0.05), the inverse of a gap
    (igw, 1000: actions 0.001 K worse get half the probability of exploring), or a scale (thompson, 1)."""
    exploration_delay: float = 10.0
    exploration_power: float | None = None
    """Default: 1/3 for the greedy kinds, else 0; a negative power lets the rate grow."""
    start: Literal["zero", "embedding-prior", "pretrained"] = "zero"
    """W = 0; or W such that x W z_a = ``prior_scale`` times the inner product of context and action features; or
    learned beforehand from the choices of ``pretrain_on`` (the idea of Alamdari, Cao and Wilson, EMNLP 2024)."""
    pretrain_on: str | None = None
    """A stored policy: its choice counts as a reward of 1, a random other action as 0."""
    pretrain_decisions: int = 1000
    """So many contexts, drawn by the seed; each costs a call."""
    answers: str | None = None
    """A stored policy whose choice, as the features of the chosen action, joins the context; each decision of the
    bandit then costs a call."""
    dimensions: int = 50
    """Action vectors are reduced to this many dimensions (singular value decomposition, not centred)."""
    optimizer: Literal["adam", "adagrad", "sgd"] = "adam"
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
        rate, greedy = self.explored, self.exploration.endswith("-greedy")
        _require(not greedy or 0 <= rate <= 1, f"exploration_rate is {rate}; it is a probability: choose it in [0, 1].")
        _require(rate >= 0, f"exploration_rate is {rate}; it cannot be negative.")
        _require(rate > 0 or self.exploration != "softmax", "the temperature of softmax must be above 0.")
        _require(self.exploration_delay > 0, f"exploration_delay is {self.exploration_delay}; it must be above 0.")
        _require(self.learning_rate >= 0, f"learning_rate is {self.learning_rate}; it cannot be negative.")
        _require(self.learning_delay > 0, f"learning_delay is {self.learning_delay}; it must be above 0.")
        _require(self.pretrain_decisions >= 1, "pretrain_decisions must be at least 1.")
        wanted = self.start == "pretrained"
        _require(
            wanted == (self.pretrain_on is not None),
            'start = "pretrained" and pretrain_on, the name of a stored policy, go together: set both or neither.',
        )
        disjoint = self.model == "disjoint"
        _require(
            not disjoint or self.start != "embedding-prior",
            'a disjoint model has no action features to start from: set start = "zero", or model = "bilinear".',
        )
        _require(
            not disjoint or not self.exploration.startswith("spanner"),
            "a disjoint model has no action features to span: take epsilon-greedy or igw.",
        )

    @property
    def explored(self) -> float:
        """The exploration rate, the default of its kind where none is given."""
        return EXPLORATIONS[self.exploration][0] if self.exploration_rate is None else self.exploration_rate

    @property
    def decay(self) -> float:
        """The power of the exploration's decay, the default of its kind where none is given."""
        return EXPLORATIONS[self.exploration][1] if self.exploration_power is None else self.exploration_power


@dataclass(frozen=True, kw_only=True)
class _Ridge:
    model: Literal["disjoint", "shared"] = "disjoint"
    """One ridge regression for each action on the context's features, or one for all on the products of context and
    action features."""
    ridge: float = 1.0
    """The penalty on the squared weights: the precision of the prior."""
    dimensions: int = 32
    """Context features (and with ``shared`` action features) are reduced to so many main directions where they have
    more. Memory: actions x dimensions^2 x 8 bytes (disjoint), dimensions^4 x 8 bytes (shared, at most 512^2)."""
    intercept: bool = True
    """Whether contexts get a feature that is always 1."""

    def __post_init__(self) -> None:
        _require(self.ridge > 0, f"ridge is {self.ridge}; it must be above 0.")
        _require(self.dimensions >= 1, f"dimensions is {self.dimensions}; at least 1 is needed.")


@dataclass(frozen=True, kw_only=True)
class LinUCB(_Ridge):
    """Plays argmax x theta_a + ``width`` sqrt(x A_a^-1 x) (Li, Chu, Langford and Schapire, WWW 2010)."""

    name: str = "linucb"
    width: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.width >= 0, f"width is {self.width}; it cannot be negative.")


@dataclass(frozen=True, kw_only=True)
class LinTS(_Ridge):
    """Plays greedily after a draw of the weights from N(theta, ``scale``^2 A^-1) (Agrawal and Goyal, ICML 2013).

    Disjoint models are drawn for each decision, the shared one once a batch.
    """

    name: str = "lints"
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.scale >= 0, f"scale is {self.scale}; it cannot be negative.")


Learner = Bandit | LinUCB | LinTS


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """A bandit that learns from every decision whoever acted, models that never learn, and a selector (Chen et al.,
    Algorithm 2)."""

    selector: Selector
    name: str = "hybrid"
    models: tuple[str, ...] = ("llm",)
    """Stored policies, by name."""
    bandit: Learner = field(default_factory=Bandit)
    budget: int | None = None
    """The most decisions in which a model may act."""
    money: float | None = None
    """The most that all calls together may cost, in the unit of ``prices``."""
    prices: tuple[float, ...] = ()
    """What a call of each of ``models`` costs; default: 1 each."""
    budget_rule: Literal["hard-stop", "linear"] = "hard-stop"
    """Stop at the budget B, or scale p(models) by (B - calls) / B all along (Chen et al., equation 1)."""
    missing: Literal["stop", "uniform"] = "stop"
    """As in ``FixedPolicy``."""

    def __post_init__(self) -> None:
        _require(len(self.models) > 0, "a hybrid needs at least one model; a bandit alone is kind 'bandit'.")
        _require(self.budget is None or self.budget >= 0, f"budget is {self.budget}; it cannot be negative.")
        _require(self.money is None or self.money >= 0, f"money is {self.money}; it cannot be negative.")
        _require(
            len(self.prices) in (0, len(self.models)),
            f"prices has {len(self.prices)} entries for {len(self.models)} models: give one for each.",
        )
        _require(all(price >= 0 for price in self.prices), "prices cannot be negative.")
        _require(
            self.budget is None or self.money is None,
            "a budget in calls and one in money exclude each other: set one of them to none.",
        )


BuiltIn = Uniform | Constant | FixedPolicy | Bandit | LinUCB | LinTS | Hybrid


def learner_of(agent: BuiltIn) -> Learner | None:
    """The bandit in an agent, if it has one."""
    if isinstance(agent, Hybrid):
        return agent.bandit
    return agent if isinstance(agent, Learner) else None
