"""Comparison: policies against a baseline, against each other, which is best, and what an answer would take.

joint         how the estimates vary together, from one pass over their influences
simultaneous  intervals and p-values that hold for many differences at once
difference    `compare`, `compare_all`
standing      `rank_policies`
planning      `decisions_needed`, `minimal_detectable_effect`, `two_sample_error`
"""

from counterplay.estimators.comparison.difference import Difference, compare, compare_all
from counterplay.estimators.comparison.planning import decisions_needed, minimal_detectable_effect, two_sample_error
from counterplay.estimators.comparison.standing import Standing, rank_policies

__all__ = [
    "Difference",
    "Standing",
    "compare",
    "compare_all",
    "decisions_needed",
    "minimal_detectable_effect",
    "rank_policies",
    "two_sample_error",
]
