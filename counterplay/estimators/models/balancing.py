"""Importance weights from a classifier, where propensities were not logged or actions are continuous.

Balanced off-policy evaluation (Sondhi, Arbour & Dimmery 2020): a classifier learns to tell pairs of a context and the
policy's own action from pairs of a context and the logged action. Its odds are the ratio of the two densities, that is
pi(a|x) / mu(a|x), for any kind of action.

    weights = balanced_weights(logged_features, target_features, fold)
    evidence = Evidence.of_weights(reward=reward, weights=weights, assumption=ASSUMPTION)
    evaluate(evidence, ("ips", "snips"))
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.models.features import Features, as_table, stacked
from counterplay.estimators.models.logistic import CrossFittedLogistic
from counterplay.estimators.models.training import Fit

ASSUMPTION = "the weights come from a classifier, not from logged propensities"


def balanced_weights(
    logged_features: Features, target_features: Features, fold: npt.ArrayLike, *, classifier: Fit = CrossFittedLogistic
) -> Array:
    """(n,) weights of one policy: the classifier's odds that a logged pair came from the policy.

    Args:
        logged_features: (n, p), of each context with its logged action.
        target_features: (n, p), of each context with an action drawn from the policy.
        fold: (n,) from `assign_folds`; the weight of a decision comes from a classifier that saw neither its logged
            nor its drawn pair.
        classifier: how the classifier is made; it must give calibrated probabilities of label 1 (the default does for
            features that are rich enough: products of context and action features, without which a linear classifier
            cannot see that the action depends on the context).

    The weights are not normalised. Their mean is 1 where the classifier is right, so the diagnostics' test of the mean
    weight still tells when it is not; normalised weights would pass it always, and would depend on all decisions at
    once. For the normalised estimate, ask for `snips`.

    Does not hold where something that was not logged drove both the action and the reward, where the policy takes
    actions that were never logged in such a context (the odds there are never looked at), or where the classifier is
    not calibrated. The interval does not contain the classifier's error.

    Raises `EvidenceError` where probabilities are not in [0, 1), naming how many.
    """
    logged, target, k = as_table(logged_features), as_table(target_features), np.asarray(fold)
    if len(logged) != len(target) or k.shape != (len(logged),):
        raise EvidenceError(
            f"logged_features has {len(logged)} rows, target_features {len(target)} and fold {k.shape}: "
            "one pair of each kind and one fold a decision are needed."
        )
    label = np.repeat([0.0, 1.0], len(logged))
    return _odds(classifier(stacked(logged, target), label, np.tile(k, 2)).predict(logged, k))


def _odds(probability: Array) -> Array:
    if probability.min() < 0 or probability.max() > 1:
        raise EvidenceError(
            f"The classifier says {probability.min():g} to {probability.max():g}; probabilities in [0, 1) are needed. "
            "A regressor does not give them."
        )
    certain = int((probability >= 1).sum())
    if certain:
        raise EvidenceError(
            f"The classifier is certain that {certain} of {len(probability)} logged pairs came from the policy, so "
            "their weights would be infinite; use one that is regularised or calibrated."
        )
    return np.asarray(probability / (1 - probability))
