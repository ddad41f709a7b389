"""Doubly robust replay of an agent that learns: every decision of the log counts, not only those accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError, UnsupportedError, nearest
from counterplay.estimators.evidence import distinct
from counterplay.replay import plain
from counterplay.replay.acceptance import Acceptance
from counterplay.replay.agents import BuiltIn
from counterplay.replay.doubly_robust_loops import ESTIMATORS, Rule, replay_compiled, replay_one_by_one
from counterplay.replay.history import (
    BATCH,
    Order,
    Replay,
    check_reached,
    empty_trace,
    expected_rounds,
    plain_replay_of,
    replay_of,
)
from counterplay.replay.kernels import doubly_robust as kernel
from counterplay.replay.kernels.doubly_robust import Progress
from counterplay.replay.kernels.records import Trace
from counterplay.replay.methods import Estimator
from counterplay.replay.one_thread import one_thread
from counterplay.replay.players import player_of
from counterplay.replay.predictions import Predictions, fitted_on, predicted_pieces, predictions_of
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.reward_models import FittedRewards
from counterplay.replay.settings import machine

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

FITTED_SHARE = 0.2
"""The part of the log, from its first decision on, that the default reward model is fitted on."""
NORMAL = 1.959963984540054
"""The 97.5% quantile of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class AdaptiveAcceptance(Acceptance):
    """What doubly robust replay made of the log; ``constant`` is the greatest c allowed.

    ``violations`` and their mass ``excess`` are where c pi/mu exceeded 1: each such acceptance was cut at 1, so the
    accepted history is off the law of an on-line run by about ``excess / read`` a decision.
    """

    first: float
    """c until the first acceptance."""
    last: float
    least: float


@dataclass(frozen=True, kw_only=True)
class DoublyRobustReplay:
    """The value of an agent from one replay, and the history it was estimated along."""

    agent: str
    seed: int
    estimator: Estimator
    value: float
    """R / C: the mean of the decisions' terms, each counted c times."""
    std_error: float
    """Of R / C about the mean value of the policies that the agent went through in this history: the square root of the
    sum of the squared terms c (V_k - value), over C; where decisions share clusters, of the squared sums of each
    cluster's terms. It leaves out the luck of which history the agent went through."""
    low: float
    high: float
    """The 95% interval, normal."""
    per_round: float | None
    """R / T over the T accepted rounds; None for ``snips`` or without rounds. With a horizon and without violations it
    is exactly unbiased, where R / C is off by about 1/T of itself; but it is noisier."""
    decisions: int
    """How many decisions were counted."""
    units: int
    """In how many independent clusters these are; as many as decisions where none share one."""
    effective: float
    """The effective sample size (sum c w)^2 / sum (c w)^2 of the weights w = pi/mu."""
    largest_share: float
    """The largest share of one decision in the sum of c w."""
    mean_weight: float
    """The mean of w, each counted c times: near 1 where propensities are right."""
    acceptance: AdaptiveAcceptance
    history: Replay


def replay_doubly_robust(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    seed: int = 0,
    quantile: float = 0.0,
    constant: float | None = None,
    horizon: int | None = None,
    order: Order = "shuffled",
    batch: int = BATCH,
    estimator: Estimator = "dr",
    model: FittedRewards | Predictions | None = None,
) -> DoublyRobustReplay:
    """Estimate what an agent that learns would earn, from every decision of a log (Dudik, Erhan, Langford and Li, UAI
    2012; Statistical Science 2014: DR-ns).

    The agent's history grows by rejection, as in ``replay_rejection``: decision k is accepted with probability
    c pi/mu. Its term V_k = sum_a pi(a) q(a) + pi/mu (r - q) counts whether it is accepted or not, with the weight c,
    so that each history counts for about one round. After an acceptance c becomes the ``quantile`` of the ratios
    mu/pi seen so far, at most ``constant``.

    With ``quantile = 0`` and no violations the history has the on-line law. Then V_k has, given the history, the mean
    of the agent's value at that moment, whatever the model predicts: without a horizon R / C is an unbiased estimate
    of the agent's mean value along its way through the log. A quantile above 0 buys a longer history with a bias, which
    ``acceptance`` reports. Needs exact propensities and decisions that are independent and of one law. Where decisions
    share clusters, the interval takes clusters as units; but an agent that has learned from one decision of a cluster
    meets the others as no new user would, and no interval covers that.

    Args:
        prepared: a log with propensities.
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent`` (which
            runs in plain Python).
        seed: of the order, of the acceptance and of who acted; the same history as ``replay_rejection`` with the same
            decisions and c.
        quantile: in [0, 1), of the ratios mu/pi of the decisions that the agent could have met (pi > 0), the lower one
            where it falls between two. It takes log(n) steps a decision, and 8 bytes of memory.
        constant: the greatest c, which is also the first. Default: the smallest propensity of the log, which no agent
            can violate; with a quantile above 0 that is the first c, and 1 the greatest.
        horizon: stop after so many accepted rounds; default: when the log ends. Agents are comparable at one horizon.
        order: ``shuffled`` by the seed or as ``logged``.
        batch: accepted decisions between two updates.
        estimator: ``dr``; ``ips``: q = 0; ``snips``: IPS divided by the mean weight; ``dm``: the model alone.
        model: of the reward, for ``dr`` and ``dm``: a ``FittedRewards``, cross-fitted or of other decisions, or a
            function that gives predictions `(b, S)` of the allowed actions of some decisions. Default: a ridge
            model fitted on the first fifth of the log, which is then not replayed.

    Raises:
        MissingEvidenceError: an action, a propensity or a reward is not known.
        HorizonError: the log was at its end before the horizon.
        ConfigurationError: a setting is out of its range, or the model's predictions are not what they should be.
        UnsupportedError: nothing in the log has any weight.
    """
    _check(prepared, quantile, constant, horizon, batch, estimator, model)
    rounds = prepared.order(seed, order == "shuffled")
    predictions = None
    if estimator in ("dr", "dm"):
        if model is None:
            cut = int(len(rounds) * FITTED_SHARE)
            model, rounds = fitted_on(prepared.log, np.arange(cut)), rounds[rounds >= cut]
        predictions = predictions_of(model) if isinstance(model, FittedRewards) else model
    smallest = float(prepared.log.propensity.min())
    rule = Rule(
        estimator=estimator,
        quantile=quantile,
        first=smallest if constant is None else constant,
        most=(smallest if quantile == 0 else 1.0) if constant is None else constant,
        batch=batch,
    )
    cluster = prepared.log.cluster[rounds]
    clustered = len(distinct(cluster)) < len(cluster)
    trace = empty_trace(len(rounds) if horizon is None else min(horizon, len(rounds)), False)
    pieces = predicted_pieces(prepared.log, rounds, predictions)
    if isinstance(agent, BuiltIn):
        engine = machine(prepared, agent, rounds, batch, expected_rounds(rule.first, len(rounds), horizon))
        with one_thread():
            progress = replay_compiled(engine, prepared.luck(seed), rule, pieces, trace, clustered)
        accepted, report = _reported(prepared, agent.name, rule, progress, horizon)
        history = replay_of(agent, seed, engine, trace, accepted, report)
    else:
        player = player_of(prepared, agent, seed, rounds, batch)
        progress = replay_one_by_one(player, prepared, seed, rule, pieces, trace, clustered)
        accepted, report = _reported(prepared, agent.name, rule, progress, horizon)
        history = plain_replay_of(agent, seed, _first(trace, accepted), report)
    return _estimated(rule, progress, report, history, cluster[: report.read])


def _check(
    prepared: PreparedLog,
    quantile: float,
    constant: float | None,
    horizon: int | None,
    batch: int,
    estimator: str,
    model: object,
) -> None:
    log = prepared.log
    if estimator not in ESTIMATORS:
        raise ConfigurationError(f"there is no estimator '{estimator}' here. {nearest(estimator, ESTIMATORS)}")
    if not 0 <= quantile < 1:
        raise ConfigurationError(f"quantile is {quantile}; choose it from 0 (no bias) to below 1.")
    if constant is not None and not 0 < constant <= 1:
        raise ConfigurationError(f"the constant c is {constant}; it must be above 0 and at most 1.")
    if batch < 1 or (horizon is not None and horizon < 1):
        raise ConfigurationError(f"batch is {batch} and horizon {horizon}; both must be at least 1.")
    if model is not None and estimator in ("ips", "snips"):
        raise ConfigurationError(f"'{estimator}' uses no reward model: leave model out, or take estimator = \"dr\".")
    known = np.isfinite(log.propensity) & (log.propensity > 0) & (log.action >= 0) & np.isfinite(log.reward)
    if not known.all() or len(known) == 0:
        raise MissingEvidenceError(
            f"doubly robust replay needs action, propensity and reward of every decision; log '{log.name}' lacks them "
            f"in {int((~known).sum()):,} of {len(known):,} (regime '{log.regime}')."
        )


def _first(trace: Trace, rounds: int) -> Trace:
    return Trace(
        decision=trace.decision[:rounds],
        action=trace.action[:rounds],
        reward=trace.reward[:rounds],
        base=trace.base[:rounds],
        p_bandit=trace.p_bandit[:rounds],
        alone=trace.alone,
    )


def _reported(
    prepared: PreparedLog, agent: str, rule: Rule, progress: Progress, horizon: int | None
) -> tuple[int, AdaptiveAcceptance]:
    counts, acceptance = progress.counts.tolist(), progress.acceptance.tolist()
    accepted, read = counts[kernel.ACCEPTED], counts[kernel.READ]
    expected = acceptance[kernel.EXPECTED]
    check_reached(prepared.log.name, agent, accepted, read, expected, horizon)
    report = AdaptiveAcceptance(
        constant=rule.most,
        read=read,
        accepted=accepted,
        expected=expected,
        violations=counts[kernel.VIOLATIONS],
        excess=acceptance[kernel.EXCESS],
        first=rule.first,
        last=acceptance[kernel.CONSTANT],
        least=acceptance[kernel.LEAST],
    )
    return accepted, report


def _estimated(
    rule: Rule, progress: Progress, report: AdaptiveAcceptance, history: Replay, cluster: Rows
) -> DoublyRobustReplay:
    moments = progress.moments.tolist()
    total, unit, weight = moments[kernel.TOTAL], moments[kernel.UNIT], moments[kernel.WEIGHT]
    if report.read < 2 or unit == 0 or (weight == 0 and rule.estimator != "dm"):
        raise UnsupportedError(
            f"none of the {report.read:,} decisions read has a logged action that '{history.agent}' could have taken, "
            "so the log says nothing about it."
            if report.read > 1
            else f"{report.read} decision was read; an estimate with an interval needs two or more."
        )
    ratio, offset = total / unit, moments[kernel.OFFSET]
    units = report.read
    squared = moments[kernel.TOTAL_SQUARED] - 2 * ratio * moments[kernel.CROSSED]
    squared += ratio**2 * moments[kernel.UNIT_SQUARED]
    if len(progress.terms):
        terms = progress.terms[: report.read]
        codes, inverse = np.unique(cluster, return_inverse=True)
        units = len(codes)
        squared = float((np.bincount(inverse, weights=terms[:, 0] - ratio * terms[:, 1]) ** 2).sum())
    if units < 2:
        raise UnsupportedError(
            f"all {report.read:,} decisions read are of one cluster; an interval needs two independent ones or more."
        )
    std_error = math.sqrt(max(0.0, squared) * units / (units - 1)) / abs(unit)
    value, half = offset + ratio, NORMAL * std_error
    rounds = len(history.reward)
    whole = total + offset * unit
    return DoublyRobustReplay(
        agent=history.agent,
        seed=history.seed,
        estimator=rule.estimator,
        value=value,
        std_error=std_error,
        low=value - half,
        high=value + half,
        per_round=None if rule.estimator == "snips" or rounds == 0 else whole / rounds,
        decisions=report.read,
        units=units,
        effective=weight**2 / moments[kernel.WEIGHT_SQUARED] if weight > 0 else 0.0,
        largest_share=moments[kernel.LARGEST] / weight if weight > 0 else 0.0,
        mean_weight=weight / moments[kernel.MULTIPLIER],
        acceptance=report,
        history=history,
    )
