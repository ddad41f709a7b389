"""The dense formulation of off-policy estimators, as Open Bandit Pipeline (obp, `ope/estimators.py`) has it, in numpy.

A policy is an array (n, actions, 1) of probabilities and a reward model another of predictions. Each estimator makes
the estimated reward of every decision, (n,); obp's interval resamples these. The denominator of SNIPS stays as it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Codes = NDArray[np.int64]

RESAMPLES = 100
"""obp's `n_bootstrap_samples` where it evaluates several estimators."""


class Feedback(NamedTuple):
    """A log: action, reward and propensity of n decisions, and a model's predictions (n, actions, 1)."""

    action: Codes
    reward: Array
    pscore: Array
    predicted: Array


def check(log: Feedback, policy: Array) -> None:
    """What obp checks before each estimate."""
    if not np.allclose(policy.sum(axis=1), 1):
        raise ValueError("policy must be a probability distribution")
    if log.action.min() < 0 or log.action.max() >= policy.shape[1]:
        raise ValueError("action must be in the range of the policy's actions")
    if np.any(log.pscore <= 0):
        raise ValueError("pscore must be positive")


def ips(log: Feedback, policy: Array) -> Array:
    """Estimated rewards (n,)."""
    rows, position = np.arange(len(log.action)), np.zeros(len(log.action), dtype=int)
    weight = np.minimum(policy[rows, log.action, position] / log.pscore, np.inf)
    return np.asarray(log.reward * weight)


def snips(log: Feedback, policy: Array) -> Array:
    """Estimated rewards (n,)."""
    rows, position = np.arange(len(log.action)), np.zeros(len(log.action), dtype=int)
    weight = policy[rows, log.action, position] / log.pscore
    return np.asarray(log.reward * weight / weight.mean())


def dr(log: Feedback, policy: Array) -> Array:
    """Estimated rewards (n,)."""
    rows, position = np.arange(len(log.action)), np.zeros(len(log.action), dtype=int)
    weight = np.minimum(policy[rows, log.action, position] / log.pscore, np.inf)
    everywhere, factual = log.predicted[rows, :, position], log.predicted[rows, log.action, position]
    estimated = np.average(everywhere, weights=policy[rows, :, position], axis=1)
    estimated += weight * (log.reward - factual)
    return np.asarray(estimated)


ESTIMATORS = (ips, snips, dr)


def with_resampling(log: Feedback, policy: Array) -> list[tuple[float, float, float]]:
    """Value, low and high of each estimator as obp gives them: checked, the interval from resampled decisions."""
    found = []
    for estimator in ESTIMATORS:
        check(log, policy)
        samples, random = estimator(log, policy), np.random.RandomState(0)
        means = [np.mean(random.choice(samples, size=len(samples))) for _ in range(RESAMPLES)]
        found.append((float(samples.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))))
    return found


def with_deviation(log: Feedback, policy: Array) -> list[tuple[float, float, float]]:
    """The same at the least price: nothing checked, the interval from the standard deviation."""
    found = []
    for estimator in ESTIMATORS:
        samples = estimator(log, policy)
        value, half = float(samples.mean()), 1.96 * float(samples.std()) / len(samples) ** 0.5
        found.append((value, value - half, value + half))
    return found
