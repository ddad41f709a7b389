"""The table of estimators. One formula covers the importance family:

    value = mean(q_target) + sum(g(w) (r - q_logged)) / (n or sum(g(w))),    w = target / propensity

without a model q = 0; g is the identity, or shrinks large weights at the price of bias.

| name | model | g(w) | divided by | paper |
|---|---|---|---|---|
| `ips` | - | w | n | Horvitz & Thompson 1952; Dudík et al. 2014 |
| `snips` | - | w | sum g(w) | Hájek 1971; Swaminathan & Joachims 2015 |
| `clipped_ips(c)` | - | min(w, c) | n | Ionides 2008; Bottou et al. 2013 |
| `clipped_snips(c)` | - | min(w, c) | sum g(w) | the two above |
| `subgaussian_ips(l)` | - | w / (1 - l + l w) | n | Metelli, Russo & Restelli 2021, power mean with s = -1 |
| `dm` | q | 0 | n | Dudík et al. 2014 |
| `dr` | q | w | n | Robins et al. 1994; Dudík et al. 2014 |
| `sndr` | q | w | sum g(w) | Thomas & Brunskill 2016 |
| `switch_dr(c)` | q | w if w <= c else 0 | n | Wang, Agarwal & Dudík 2017 |
| `dros(l)` | q | l w / (w^2 + l) | n | Su et al. 2020 (optimistic shrinkage) |
| `subgaussian_dr(l)` | q | w / (1 - l + l w) | n | Metelli et al. 2021 |
| `on_policy` | - | 1 | n | the mean of what was seen |
| `replay` | - | target in {0, 1} | sum g(w) | Li et al. 2011 |

Unbiased where propensities are right and every action the policy may take could have been logged: `ips`, `dr`. `dr`
also stands when propensities are wrong and the model is right. `snips`, `sndr` have a bias of order 1/n. Shrunken
ones are biased towards 0 (or towards the model) by what they cut off. `dm` is as wrong as its model. `replay` holds
only where the logging policy was uniform over candidates, or where rejection already corrected for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from counterplay.errors import ConfigurationError, EvidenceError, nearest
from counterplay.estimators.evidence import Array, Evidence
from counterplay.estimators.terms import Estimator, Terms

Shrink = Callable[[Array], Array]

MODEL = ("q_logged", "q_target")


# Partials of functions at module level, not closures: statistics travel between processes with their estimators.


def _importance(evidence: Evidence, *, shrink: Shrink | None = None, normalise: bool = False) -> Terms:
    weight = evidence.weight if shrink is None else shrink(evidence.weight)
    return Terms(weight * evidence.reward, weight if normalise else 1.0, 0.0, weight)


def _doubly_robust(evidence: Evidence, *, shrink: Shrink | None = None, normalise: bool = False) -> Terms:
    assert evidence.q_logged is not None
    assert evidence.q_target is not None
    weight = evidence.weight if shrink is None else shrink(evidence.weight)
    correction = weight * (evidence.reward - evidence.q_logged)
    if normalise:
        return Terms(correction, weight, evidence.q_target, weight)
    return Terms(evidence.q_target + correction, 1.0, 0.0, weight)


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


def _clip(weight: Array, limit: float) -> Array:
    return np.minimum(weight, limit)


def _subgaussian(weight: Array, share: float) -> Array:
    return weight / (1 - share + share * weight)


def _switch(weight: Array, limit: float) -> Array:
    return np.where(weight <= limit, weight, 0.0)


def _optimistic(weight: Array, size: float) -> Array:
    # size * w / (w^2 + size), written so that neither 1e12 weights nor size = inf overflow.
    return weight / (weight * (weight / size) + 1.0)


_DM_CAUTION = "the interval holds the spread of the model's predictions, not the model's error"

FIXED: tuple[Estimator, ...] = (
    Estimator(
        name="ips",
        aliases=("ipw", "iw", "importance_sampling", "inverse_propensity_score"),
        paper="Horvitz & Thompson 1952; Dudík et al. 2014",
        terms=_importance,
    ),
    Estimator(
        name="snips",
        aliases=("snipw", "wis", "sn_ips", "self_normalized_ips", "hajek"),
        paper="Hájek 1971; Swaminathan & Joachims 2015",
        terms=partial(_importance, normalise=True),
        normalised=True,
    ),
    Estimator(
        name="dm",
        aliases=("direct", "direct_method", "regression"),
        paper="Dudík et al. 2014",
        needs=("q_target",),
        terms=_model_terms,
        weight_mean="free",
        caution=_DM_CAUTION,
    ),
    Estimator(
        name="dr",
        aliases=("doubly_robust", "aipw"),
        paper="Robins et al. 1994; Dudík et al. 2014",
        needs=("propensity", *MODEL),
        terms=_doubly_robust,
    ),
    Estimator(
        name="sndr",
        aliases=("sn_dr", "wdr", "self_normalized_dr"),
        paper="Thomas & Brunskill 2016",
        needs=("propensity", *MODEL),
        terms=partial(_doubly_robust, normalise=True),
        normalised=True,
    ),
    Estimator(
        name="on_policy",
        aliases=("mean", "logged", "on_policy_mean", "exact"),
        paper="the mean of the rewards seen; target is not looked at",
        needs=(),
        terms=_on_policy_terms,
        normalised=True,
    ),
    Estimator(
        name="replay",
        aliases=("rm", "replay_method", "matching"),
        paper="Li et al. 2011",
        needs=(),
        terms=_replay_terms,
        weight_mean="free",
        normalised=True,
    ),
)


def clipped_ips(limit: float) -> Estimator:
    """IPS with weights cut at `limit` > 0 (Bottou et al. 2013); biased towards 0 by what is cut. inf: IPS."""
    return _with_parameter(
        "clipped_ips", "limit", limit, np.inf, partial(_importance, shrink=partial(_clip, limit=limit))
    )


def clipped_snips(limit: float) -> Estimator:
    """SNIPS with weights cut at `limit` > 0. inf: SNIPS."""
    terms = partial(_importance, shrink=partial(_clip, limit=limit), normalise=True)
    return _with_parameter("clipped_snips", "limit", limit, np.inf, terms, normalised=True)


def subgaussian_ips(share: float) -> Estimator:
    """IPS with weights w / (1 - share + share w), share in [0, 1] (Metelli et al. 2021). 0: IPS; 1: every weight 1."""
    return _with_parameter(
        "subgaussian_ips", "share", share, 1.0, partial(_importance, shrink=partial(_subgaussian, share=share))
    )


def switch_dr(limit: float) -> Estimator:
    """DR where w <= limit, the model elsewhere (Wang et al. 2017). inf: DR."""
    return _with_parameter(
        "switch_dr", "limit", limit, np.inf, partial(_doubly_robust, shrink=partial(_switch, limit=limit))
    )


def dros(size: float) -> Estimator:
    """DR with optimistic shrinkage, size > 0 (Su et al. 2020). inf: DR. There is no default: 0 would be DM unsaid."""
    return _with_parameter(
        "dros", "size", size, np.inf, partial(_doubly_robust, shrink=partial(_optimistic, size=size))
    )


def subgaussian_dr(share: float) -> Estimator:
    """DR with weights w / (1 - share + share w), share in [0, 1] (Metelli et al. 2021). 0: DR."""
    return _with_parameter(
        "subgaussian_dr", "share", share, 1.0, partial(_doubly_robust, shrink=partial(_subgaussian, share=share))
    )


def _with_parameter(
    name: str, parameter: str, value: float, most: float, terms: Callable[[Evidence], Terms], normalised: bool = False
) -> Estimator:
    least_is_allowed = parameter == "share"
    if not (value > 0 or (least_is_allowed and value == 0)) or value > most:
        bounds = "in [0, 1]" if least_is_allowed else "above 0"
        raise ConfigurationError(f"{name}: {parameter} is {value:g}; it must be {bounds}.")
    return Estimator(
        name=f"{name}({value:.12g})",
        terms=terms,
        needs=("propensity", *MODEL) if name.endswith(("dr", "dros")) else ("propensity",),
        weight_mean="shrunk",
        normalised=normalised,
        paper=str(WITH_PARAMETER[name].__doc__),
    )


WITH_PARAMETER: dict[str, Callable[[float], Estimator]] = {
    "clipped_ips": clipped_ips,
    "clipped_snips": clipped_snips,
    "subgaussian_ips": subgaussian_ips,
    "switch_dr": switch_dr,
    "dros": dros,
    "subgaussian_dr": subgaussian_dr,
}

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
    try:
        parameter = float(found[2])
    except (TypeError, ValueError):
        raise ConfigurationError(f"Estimator '{known}' needs a number: write '{known}(0.5)' for example.") from None
    return WITH_PARAMETER[known](parameter)


def _proposal(word: str) -> str:
    proper = nearest(word, {*_ALIASES.values()})
    alias = nearest(word, _ALIASES)
    return alias if proper.startswith("Known") and not alias.startswith("Known") else proper


def resolve_all(names: str | Estimator | Iterable[str | Estimator]) -> tuple[Estimator, ...]:
    """Estimators by name; one that is asked for twice (under an alias) is answered once."""
    if isinstance(names, str | Estimator):
        names = (names,)
    found = {estimator.name: estimator for estimator in map(resolve, names)}
    if not found:
        raise ConfigurationError("No estimator was asked for: 'ips', 'snips' and 'dr' are a good beginning.")
    return tuple(found.values())
