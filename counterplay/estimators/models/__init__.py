"""Reward models for DM and DR, cross-fitted, and importance weights from a classifier.

| model | features | fitted by | shards merge |
|---|---|---|---|
| `CrossFittedRidge` | dense; hashed up to 2,048 wide | normal equations, one pass | exactly |
| `fit_mrdr` | dense | the same, to make DR's variance small; one model a policy | exactly |
| `CrossFittedLogistic` | dense; hashed up to 2,048 wide | Newton's method, a pass a step | exactly, at each step |
| `CrossFittedAdaGrad` | dense; hashed of any width | AdaGrad, one pass | approximately |
| `CrossFitted` | what its estimator takes | scikit-learn, or one's own | no |

All are made by `Fit` (features, reward, fold, and options by keyword) and answer as a `RewardModel`.
"""

from counterplay.estimators.models.adagrad import AdaGradState, CrossFittedAdaGrad
from counterplay.estimators.models.balancing import ASSUMPTION, balanced_weights
from counterplay.estimators.models.crossfitted import CrossFitted
from counterplay.estimators.models.features import Features, HashedFeatures
from counterplay.estimators.models.folds import assign_folds
from counterplay.estimators.models.hashing import Collisions, TokenHashes, hash_features, hash_tokens
from counterplay.estimators.models.logistic import CrossFittedLogistic, LogisticSums
from counterplay.estimators.models.mrdr import MRDRSums, fit_mrdr, mrdr_weights
from counterplay.estimators.models.ridge import CrossFittedLinear, CrossFittedRidge, NormalEquations
from counterplay.estimators.models.training import Fit, RewardModel

__all__ = [
    "ASSUMPTION",
    "AdaGradState",
    "Collisions",
    "CrossFitted",
    "CrossFittedAdaGrad",
    "CrossFittedLinear",
    "CrossFittedLogistic",
    "CrossFittedRidge",
    "Features",
    "Fit",
    "HashedFeatures",
    "LogisticSums",
    "MRDRSums",
    "NormalEquations",
    "RewardModel",
    "TokenHashes",
    "assign_folds",
    "balanced_weights",
    "fit_mrdr",
    "hash_features",
    "hash_tokens",
    "mrdr_weights",
]
