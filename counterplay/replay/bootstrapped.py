"""Bootstrapped replay: what an agent would earn over as many rounds as a uniform log has decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError, UnsupportedError
from counterplay.logs.log import Choices, Log
from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.history import BATCH, Replay
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_rejection

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BootstrappedReplay:
    """The mean reward of an agent over about L rounds, of a log of L decisions. B replicates."""

    agent: str
    seed: int
    value: float
    """The mean over the replicates."""
    low: float
    high: float
    """The 2.5% and 97.5% quantiles of the replicates."""
    std_error: float
    """The replicates' standard deviation: an estimate of how far ``value`` moves from log to log, not of the error that
    is left by a finite number of replicates (``std_error / sqrt(B)``)."""
    values: Floats
    """`(B,)` the mean reward of each replicate."""
    rounds: NDArray[np.int64]
    """`(B,)` how many rounds it was accepted for; about L each."""
    decisions: int
    """L."""
    actions: int
    """K, the most actions that a decision allows: a replicate reads K L decisions."""
    jitter: float
    """The bandwidth used, in standard deviations of each feature."""


def replay_bootstrapped(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    *,
    replicates: int = 100,
    jitter: float | None = None,
    seed: int = 0,
    batch: int = BATCH,
) -> BootstrappedReplay:
    """Estimate what an agent would earn over L rounds from a uniform log of L decisions: Bootstrapped Replay on
    Expanded Data (Mary, Preux and Nicol, ICML 2014).

    Rejection replay of a uniform log of L decisions and K actions ends after about L/K rounds, when an agent that
    learns is still at its beginning. Each replicate draws K L decisions from the log with replacement, moves every
    context feature by Gaussian noise, and replays: about L rounds are accepted. The result is asymptotic: not unbiased
    for any finite log.

    A replicate meets a decision of the log K times on average, and an agent that plays the logged action learns from
    each of them. Without noise (``jitter = 0``) one that can tell contexts apart recognises what it has seen and is
    rewarded for remembering: values are then too high, the more so the more actions there are and the noisier the
    rewards. Noise only helps where the agent sees the features: none helps against agents that know decisions by name,
    and stored policies answer as they did for the original context. Not for logs whose law changes with time.

    Args:
        prepared: a log with propensities, all of them 1 / (actions allowed).
        agent: settings from ``counterplay.replay.agents``, or any object with the methods of ``plain.Agent``.
        replicates: B, at least 2.
        jitter: the bandwidth, in standard deviations of each feature (in the log's decisions). Default: 1 / sqrt(L),
            the standard error of a feature's mean: it goes to 0 as the log grows, and blurs no more than the log's own
            luck does. 0 for logs without features, which have nothing to move.
        seed: of the draws and of the replays.
        batch: accepted decisions between two updates.

    Memory: one replicate at a time, K L decisions with d features of 4 bytes each.

    Raises:
        UnsupportedError: the log was not logged uniformly.
        MissingEvidenceError: an action, a propensity or a reward is not known.
        ConfigurationError: a setting is out of its range.
    """
    if replicates < 2:
        raise ConfigurationError(f"replicates is {replicates}; they must be at least 2.")
    values, rounds = np.zeros(replicates), np.zeros(replicates, np.int64)
    for b in range(replicates):
        replayed = bootstrap_replicate(prepared, agent, b, jitter=jitter, seed=seed, batch=batch)
        rounds[b], values[b] = len(replayed.reward), replayed.reward.mean()
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return BootstrappedReplay(
        agent=agent.name,
        seed=seed,
        value=float(values.mean()),
        low=low,
        high=high,
        std_error=float(values.std(ddof=1)),
        values=values,
        rounds=rounds,
        decisions=len(prepared.log.context),
        actions=_uniform_actions(prepared.log),
        jitter=_bandwidth(prepared.log, jitter),
    )


def bootstrap_replicate(
    prepared: PreparedLog,
    agent: BuiltIn | plain.Agent,
    number: int,
    *,
    jitter: float | None = None,
    horizon: int | None = None,
    seed: int = 0,
    batch: int = BATCH,
) -> Replay:
    """One replicate of ``replay_bootstrapped``: its decisions are those of the log that the rounds were drawn from.

    Args:
        prepared, agent, jitter, seed, batch: as there.
        number: which replicate, from 0; the result's ``seed``.
        horizon: stop after so many rounds; default: when the drawn decisions end.

    Raises:
        UnsupportedError: the log was not logged uniformly, or nothing was accepted.
        HorizonError: the replicate was at its end before the horizon.
        MissingEvidenceError, ConfigurationError: as there.
    """
    log = prepared.log
    most, width = _uniform_actions(log), _bandwidth(log, jitter)
    if number < 0 or seed < 0 or batch < 1:
        raise ConfigurationError(f"number is {number}, seed {seed}, batch {batch}; they must be at least 0, 0 and 1.")
    # The high half of the key's second word keeps these draws apart from those of any replay.
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, (number + 1) << 32], np.uint64)))
    expanded, rows = _expanded(prepared, most * len(log.context), width, rng)
    replayed = replay_rejection(
        expanded,
        agent,
        seed=int(rng.integers(2**62)),
        constant=1 / most,
        horizon=horizon,
        order="logged",
        batch=batch,
    )
    if len(replayed.reward) == 0:
        raise UnsupportedError(
            f"'{agent.name}' was not accepted once in the {len(rows):,} decisions of a replicate of log '{log.name}': "
            "the log is too short."
        )
    return replace(replayed, seed=number, decision=rows[replayed.decision])


def _bandwidth(log: Log, jitter: float | None) -> float:
    """How far features are moved, in their standard deviations."""
    featureless = log.context_features is None or log.context_features.shape[1] == 0
    width = (0.0 if featureless else len(log.context) ** -0.5) if jitter is None else jitter
    if not 0 <= width < np.inf or (featureless and width > 0):
        raise ConfigurationError(
            f"jitter is {width}; it must be 0 or more, and 0 for a log without context features, which has nothing to "
            "move."
        )
    return width


def _uniform_actions(log: Log) -> int:
    """The most actions that a decision of a uniform log allows."""
    known = np.isfinite(log.propensity) & (log.action >= 0) & np.isfinite(log.reward)
    if not known.all() or len(known) == 0:
        raise MissingEvidenceError(
            f"bootstrapped replay needs action, propensity and reward of every decision; log '{log.name}' lacks them "
            f"in {int((~known).sum()):,} of {len(known):,} (regime '{log.regime}')."
        )
    count = len(log.action_labels)
    allowed = np.full(len(known), count) if log.candidates is None else (log.candidates >= 0).sum(axis=1)
    uneven = np.abs(log.propensity * allowed - 1) > 1e-6
    if uneven.any():
        first = int(np.flatnonzero(uneven)[0])
        raise UnsupportedError(
            f"bootstrapped replay needs a uniform log; in {int(uneven.sum()):,} of {len(known):,} decisions of log "
            f"'{log.name}' the propensity is not 1 / (actions allowed), first in decision {first}: "
            f"{log.propensity[first]:.6g} with {allowed[first]} actions. Take doubly robust replay."
        )
    return int(allowed.max())


def _expanded(
    prepared: PreparedLog, count: int, jitter: float, rng: np.random.Generator
) -> tuple[PreparedLog, NDArray[np.int64]]:
    """``count`` decisions of a log, drawn with replacement, each with a context of its own; and which they are."""
    log = prepared.log
    rows = rng.integers(0, len(log.context), count)
    contexts, features = log.context[rows], log.context_features
    if features is not None:
        width = np.asarray(jitter * features[log.context].std(axis=0, dtype=np.float64), np.float32)
        features = features[contexts]
        if jitter > 0:
            features += width * rng.standard_normal(features.shape, dtype=np.float32)
    names = [""] * count
    drawn = replace(
        log,
        regime="propensity",
        outcomes=None,
        decision_ids=names,
        context=np.arange(count, dtype=np.int32),
        context_ids=names,
        context_features=features,
        candidates=None if log.candidates is None else log.candidates[rows],
        fingerprint="drawn",
        **{name: getattr(log, name)[rows] for name in ("action", "propensity", "reward", "cost", "cluster")},
    )
    return PreparedLog(drawn, {name: _moved(choices, contexts) for name, choices in prepared._choices.items()}), rows


def _moved(choices: Choices, contexts: NDArray[np.int32]) -> Choices:
    return replace(choices, actions=choices.actions[contexts], probabilities=choices.probabilities[contexts])
