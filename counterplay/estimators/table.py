"""The table of estimators. One formula covers the importance family (`weighted.py`):

    value = mean(q_target) + sum(g(w) (r - q_logged)) / (n or sum(g(w))),    w = target / propensity

without a model q = 0; g is the identity, or shrinks large weights at the price of bias.

| name | model | g(w) | divided by | paper |
|---|---|---|---|---|
| `ips` | - | w | n | Horvitz & Thompson 1952; Dudík et al. 2014 |
| `snips` | - | w | sum g(w) | Hájek 1971; Swaminathan & Joachims 2015 |
| `clipped_ips(c)` | - | min(w, c) | n | Ionides 2008; Bottou et al. 2013 |
| `clipped_snips(c)` | - | min(w, c) | sum g(w) | the two above |
| `subgaussian_ips(l)` | - | w / (1 - l + l w) | n | Metelli, Russo & Restelli 2021, power mean with s = -1 |
| `cressie_read` | - | w | see `moments.control_variate` | Karampatziakis, Langford & Mineiro 2020 |
| `dm` | q | 0 | n | Dudík et al. 2014 |
| `dr` | q | w | n | Robins et al. 1994; Dudík et al. 2014 |
| `sndr` | q | w | sum g(w) | Thomas & Brunskill 2016 |
| `switch_dr(c)` | q | w if w <= c else 0 | n | Wang, Agarwal & Dudík 2017 |
| `dros(l)` | q | l w / (w^2 + l) | n | Su et al. 2020 (optimistic shrinkage) |
| `drps(c)` | q | min(w, c) | n | Su et al. 2020 (pessimistic shrinkage) |
| `subgaussian_dr(l)` | q | w / (1 - l + l w) | n | Metelli et al. 2021 |
| `on_policy` | - | 1 | n | the mean of what was seen |
| `replay` | - | target in {0, 1} | sum g(w) | Li et al. 2011 |

In place of a number may stand `slope` or `mse`: the parameter is then chosen from a grid, for each policy by itself
(`tuning.py`). MRDR (Farajtabar et al. 2018) is `dr` with the reward model that its paper fits, balanced IPS `ips` with
weights from a classifier (`models/`), MIPS and OffCEM are `ips` and `dr` on marginal evidence (`problems/`).

Unbiased where propensities are right and every action the policy may take could have been logged: `ips`, `dr`. `dr`
also stands when propensities are wrong and the model is right. `snips`, `sndr`, `cressie_read` are biased by order 1/n.
Shrunken ones are biased towards 0 (or towards the model) by what they cut off. `dm` is as wrong as its model.
`replay` holds only where the logging policy was uniform over candidates, or where rejection already corrected for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError, nearest
from counterplay.estimators.evidence import Evidence
from counterplay.estimators.terms import Estimator, Terms
from counterplay.estimators.tuning import LIMITS, RULES, SHARES, Rule, Tuned, tuned_estimator
from counterplay.estimators.weighted import Kind, Shrinkage, Weighted

MODEL = ("q_logged", "q_target")


# Functions at module level, not closures: statistics travel between processes with their estimators.


def _model_terms(evidence: Evidence) -> Terms:
    assert evidence.q_target is not None
    return Terms(evidence.q_target)


def _on_policy_terms(evidence: Evidence) -> Terms:
    return Terms(evidence.reward, weight=np.ones((1, len(evidence))))


def _replay_terms(evidence: Evidence) -> Terms:
    target = evidence.target
    if not np.all((target == 0) | (target == 1)):
        raise EvidenceError(
            "REPLAY keeps or drops a decision, so target must be 0 or 1; weighting by a fractional target without "
            "propensities is no estimate. Use 'ips' or 'snips', or draw the accepted decisions first."
        )
    return Terms(target * evidence.reward, target, 0.0, target)


def _reward_width(reward: tuple[float, float], _weight: float) -> float:
    return reward[1] - reward[0]


def _member(name: str, member: Weighted, **fields: Any) -> Estimator:
    return Estimator(
        name=name,
        terms=member,
        needs=("propensity", *MODEL) if member.baseline == "model" else ("propensity",),
        normalised=member.normalised,
        width=member.width,
        **fields,
    )


_DM_CAUTION = "the interval holds the spread of the model's predictions, not the model's error"

FIXED: tuple[Estimator, ...] = (
    _member(
        "ips",
        Weighted(),
        aliases=("ipw", "iw", "importance_sampling", "inverse_propensity_score"),
        paper="Horvitz & Thompson 1952; Dudík et al. 2014",
    ),
    _member(
        "snips",
        Weighted(normalised=True),
        aliases=("snipw", "wis", "sn_ips", "self_normalized_ips", "hajek"),
        paper="Hájek 1971; Swaminathan & Joachims 2015",
    ),
    _member(
        "cressie_read",
        Weighted(baseline="reward", normalised=True),
        aliases=("cressieread", "empirical_likelihood", "cr"),
        paper="Karampatziakis, Langford & Mineiro 2020",
        form="control",
    ),
    Estimator(
        name="dm",
        aliases=("direct", "direct_method", "regression"),
        paper="Dudík et al. 2014",
        needs=("q_target",),
        terms=_model_terms,
        weight_mean="free",
        caution=_DM_CAUTION,
        width=_reward_width,
    ),
    _member(
        "dr",
        Weighted(baseline="model"),
        aliases=("doubly_robust", "aipw"),
        paper="Robins et al. 1994; Dudík et al. 2014",
    ),
    _member(
        "sndr",
        Weighted(baseline="model", normalised=True),
        aliases=("sn_dr", "wdr", "self_normalized_dr"),
        paper="Thomas & Brunskill 2016",
    ),
    Estimator(
        name="on_policy",
        aliases=("mean", "logged", "on_policy_mean", "exact"),
        paper="the mean of the rewards seen; target is not looked at",
        needs=(),
        terms=_on_policy_terms,
        normalised=True,
        width=_reward_width,
    ),
    Estimator(
        name="replay",
        aliases=("rm", "replay_method", "matching"),
        paper="Li et al. 2011",
        needs=(),
        terms=_replay_terms,
        weight_mean="free",
        normalised=True,
        width=_reward_width,
    ),
)


def clipped_ips(limit: float) -> Estimator:
    """IPS with weights cut at `limit` > 0 (Bottou et al. 2013); biased towards 0 by what is cut. inf: IPS."""
    return _shrunk("clipped_ips", limit)


def clipped_snips(limit: float) -> Estimator:
    """SNIPS with weights cut at `limit` > 0. inf: SNIPS."""
    return _shrunk("clipped_snips", limit)


def subgaussian_ips(share: float) -> Estimator:
    """IPS with weights w / (1 - share + share w), share in [0, 1] (Metelli et al. 2021). 0: IPS; 1: every weight 1."""
    return _shrunk("subgaussian_ips", share)


def switch_dr(limit: float) -> Estimator:
    """DR where w <= limit, the model elsewhere (Wang et al. 2017). inf: DR."""
    return _shrunk("switch_dr", limit)


def dros(size: float) -> Estimator:
    """DR with optimistic shrinkage, size > 0 (Su et al. 2020). inf: DR. There is no default: 0 would be DM unsaid."""
    return _shrunk("dros", size)


def drps(limit: float) -> Estimator:
    """DR with pessimistic shrinkage: weights cut at `limit` > 0 (Su et al. 2020). inf: DR."""
    return _shrunk("drps", limit)


def subgaussian_dr(share: float) -> Estimator:
    """DR with weights w / (1 - share + share w), share in [0, 1] (Metelli et al. 2021). 0: DR."""
    return _shrunk("subgaussian_dr", share)


SHRINKING: dict[str, tuple[Kind, Weighted]] = {
    "clipped_ips": ("clip", Weighted()),
    "clipped_snips": ("clip", Weighted(normalised=True)),
    "subgaussian_ips": ("subgaussian", Weighted()),
    "switch_dr": ("switch", Weighted(baseline="model")),
    "dros": ("optimistic", Weighted(baseline="model")),
    "drps": ("clip", Weighted(baseline="model")),
    "subgaussian_dr": ("subgaussian", Weighted(baseline="model")),
}


def _shrunk(name: str, value: float) -> Estimator:
    kind, member = SHRINKING[name]
    share = kind == "subgaussian"
    if not (0 <= value <= 1 if share else value > 0):
        raise ConfigurationError(
            f"{name}: the parameter is {value:g}; it must be {'in [0, 1]' if share else 'above 0'}."
        )
    shrinkage = Shrinkage(kind=kind, parameter=float(value))
    member = Weighted(shrinkage=shrinkage, baseline=member.baseline, normalised=member.normalised)
    return _member(f"{name}({value:.12g})", member, weight_mean="shrunk", paper=str(WITH_PARAMETER[name].__doc__))


WITH_PARAMETER: dict[str, Callable[[float], Estimator]] = {
    "clipped_ips": clipped_ips,
    "clipped_snips": clipped_snips,
    "subgaussian_ips": subgaussian_ips,
    "switch_dr": switch_dr,
    "dros": dros,
    "drps": drps,
    "subgaussian_dr": subgaussian_dr,
}

ALL: tuple[str, ...] = (
    "ips",
    "snips",
    "cressie_read",
    "clipped_ips(slope)",
    "clipped_snips(slope)",
    "subgaussian_ips(slope)",
    "dm",
    "dr",
    "sndr",
    "switch_dr(slope)",
    "dros(slope)",
    "drps(slope)",
    "subgaussian_dr(slope)",
)
"""What `all` asks for. Not `on_policy`, which looks at no policy, and not `replay`, which needs a uniform log."""

_ALIASES = {
    **{alias: estimator.name for estimator in FIXED for alias in (estimator.name, *estimator.aliases)},
    **{name: name for name in WITH_PARAMETER},
    "clipped_ipw": "clipped_ips",
    "cips": "clipped_ips",
    "clipped_snipw": "clipped_snips",
    "sgips": "subgaussian_ips",
    "sgipw": "subgaussian_ips",
    "switch": "switch_dr",
    "dr_os": "dros",
    "dr_ps": "drps",
    "sgdr": "subgaussian_dr",
}


def resolve(name: str | Estimator) -> Estimator:
    """An estimator by its name or alias ('ips', 'SNIPW', 'dr-os(10)'); an `Estimator` passes through.

    Raises `ConfigurationError` with the nearest known name, or where a parameter is missing or not wanted.
    """
    if isinstance(name, Estimator):
        return name
    found = re.fullmatch(r"\s*([\w\s-]+?)\s*(?:\(\s*([^()]*)\s*\))?\s*", name)
    word = re.sub(r"[\s-]+", "_", found[1].lower()) if found else name
    known = _ALIASES.get(word)
    if found is None or known is None:
        raise ConfigurationError(f"There is no estimator '{name}'. {_proposal(word)}")
    if known not in WITH_PARAMETER:
        if found[2] is not None:
            raise ConfigurationError(f"Estimator '{known}' takes no parameter: write '{known}'.")
        return next(estimator for estimator in FIXED if estimator.name == known)
    if str(found[2]).lower() in RULES:
        return tuned(known, cast(Rule, found[2].lower()))
    try:
        parameter = float(found[2])
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"Estimator '{known}' needs a number, or a rule that chooses one: write '{known}(0.5)' or '{known}(slope)'."
        ) from None
    return WITH_PARAMETER[known](parameter)


def tuned(name: str, rule: Rule) -> Tuned:
    """An estimator with a parameter that `rule` chooses for each policy: 'clipped_ips', 'slope'."""
    share = SHRINKING[name][0] == "subgaussian"
    grid = tuple(WITH_PARAMETER[name](value) for value in (SHARES if share else LIMITS))
    return tuned_estimator(f"{name}({rule})", grid, rule)


def _proposal(word: str) -> str:
    proper = nearest(word, {*_ALIASES.values()})
    alias = nearest(word, _ALIASES)
    return alias if proper.startswith("Known") and not alias.startswith("Known") else proper


def resolve_all(names: str | Estimator | Iterable[str | Estimator]) -> tuple[Estimator, ...]:
    """Estimators by name; `all` stands for those in `ALL`; one asked for twice (under an alias) is answered once."""
    if isinstance(names, str | Estimator):
        names = (names,)
    names = [own for name in names for own in (ALL if name == "all" else (name,))]
    found = {estimator.name: estimator for estimator in map(resolve, names)}
    if not found:
        raise ConfigurationError("No estimator was asked for: 'ips', 'snips' and 'dr' are a good beginning.")
    return tuple(found.values())
