"""What a policy is worth, from evidence: arrays over decisions, and nothing about databases, models or agents."""

from counterplay.estimators.compare import Difference, compare
from counterplay.estimators.estimate import Diagnostics, Estimate
from counterplay.estimators.evidence import Evidence
from counterplay.estimators.reward_model import CrossFittedRidge, NormalEquations, assign_folds
from counterplay.estimators.statistic import Statistic, evaluate, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator, Terms

__all__ = [
    "CrossFittedRidge",
    "Diagnostics",
    "Difference",
    "Estimate",
    "Estimator",
    "Evidence",
    "NormalEquations",
    "Statistic",
    "Terms",
    "assign_folds",
    "compare",
    "evaluate",
    "resolve",
    "statistic_of",
]
