"""What a policy is worth, from evidence: arrays over decisions, and nothing about databases, models or agents."""

from counterplay.estimators.comparison import (
    Difference,
    Standing,
    compare,
    compare_all,
    decisions_needed,
    minimal_detectable_effect,
    rank_policies,
    two_sample_error,
)
from counterplay.estimators.estimate import Diagnostics, Estimate
from counterplay.estimators.evidence import Evidence
from counterplay.estimators.models import (
    CrossFitted,
    CrossFittedAdaGrad,
    CrossFittedLogistic,
    CrossFittedRidge,
    HashedFeatures,
    NormalEquations,
    RewardModel,
    assign_folds,
    balanced_weights,
    fit_mrdr,
    hash_features,
    mrdr_weights,
)
from counterplay.estimators.statistic import Statistic, evaluate, fold_shards, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator, Terms

__all__ = [
    "CrossFitted",
    "CrossFittedAdaGrad",
    "CrossFittedLogistic",
    "CrossFittedRidge",
    "Diagnostics",
    "Difference",
    "Estimate",
    "Estimator",
    "Evidence",
    "HashedFeatures",
    "NormalEquations",
    "RewardModel",
    "Standing",
    "Statistic",
    "Terms",
    "assign_folds",
    "balanced_weights",
    "compare",
    "compare_all",
    "decisions_needed",
    "evaluate",
    "fit_mrdr",
    "fold_shards",
    "hash_features",
    "minimal_detectable_effect",
    "mrdr_weights",
    "rank_policies",
    "resolve",
    "statistic_of",
    "two_sample_error",
]
