"""Where a finding begins. Those on weights are the thresholds of the gate that stands beside every estimate."""

from __future__ import annotations

FEWEST_DECISIONS, FEW_DECISIONS = 2, 30
"""Below the first nothing has a spread; below the second no interval can be trusted."""

POOR_SAMPLE, SMALL_SAMPLE = 100.0, 400.0
"""Effective sample size: below the first an estimate is no better than one from 100 decisions."""

HEAVY_DECISION = 0.1
"""One decision with more than this share of all weight decides the estimate by itself."""

WEIGHT_OFF, WEIGHT_OFF_P = 0.1, 1e-4
"""Mean weight off 1 by more than 10 %, and not by chance: a bias of that size in every estimate."""

WEIGHT_DRIFT, WEIGHT_DRIFT_P = 0.02, 1e-3
"""The same, where it is worth a look."""

ACTION_DECISIONS, ACTION_SAMPLE = 10, 30.0
"""An action is tested against its propensities from so many decisions and so large an effective sample size on: below,
the spread of its weights is not known."""

WELL_DRAWN = 100
"""A propensity p is well drawn in n decisions when p n is at least this: a sum of 1 / p below what it should be is held
against the propensities only if the smallest one is."""

ACTION_OFF, ACTION_OFF_P = 0.1, 1e-4
"""An action taken 10 % more or less often than its propensities say; the p-value is shared by all actions tested."""

ACTIONS_OFF_SHARE = 0.1
"""When actions with this share of the decisions are off, the propensities are wrong and not merely noisy."""

ONE_VALUE = 1e-6
"""Propensities that differ by less than this share are one value, stored or computed twice."""

NEARLY_ALL = 0.99
"""A rule that holds for this share of the decisions is the rule by which the log was written."""

DEPENDS, DEPENDS_P = 0.005, 1e-6
"""Share of the spread of a feature (or of Cramer's V squared) that the action explains, and its p-value."""

MOSTLY_CERTAIN = 0.5
"""With more than half of the propensities at 1, most decisions say nothing about any other action."""

FLOORED = 0.05
"""So many decisions at exactly the smallest of many propensities are a floor, put there after the choice."""

BAD_ROWS, VERY_BAD_ROWS = 0.01, 0.2
"""Share of the rows in quarantine: 1 % can move a click rate; a fifth is another population."""

MISSING, MOSTLY_MISSING = 0.0, 0.5
"""Share of decisions without a number that an estimate needs: any is named, more than half is too many."""

FEWEST_REWARDS, FEW_REWARDS = 5, 100
"""Decisions with the rarer of two rewards: 100 give a click rate to about 10 %, 5 give none."""

DRIFT, DRIFT_P = 0.1, 1e-3
"""Rewards that move by more than 10 % of their mean over time, and not by chance."""

REPEATED = 0.01
"""Share of decisions that equal another one in everything: above 1 % something was logged twice."""

DESIGN_EFFECT = 1.5
"""Clusters that widen an interval by more than a fifth (its square root) must not be ignored."""

SUM_OFF = 1e-3
"""A distribution over candidates that sums to 1 within this was rounded; beyond, it is none."""

EXACT_ROWS = 5_000_000
"""Up to so many decisions, repeats are counted exactly. Beyond, one of several groups is counted, drawn by hash: five
million groups are as good as exact, and their hash table fits into 300 MB."""

QUANTILE_ROWS = 2_000_000
"""Up to so many decisions, quantiles are exact; beyond, they come from about so many, drawn by hash."""

UNNESTED_ROWS = 50_000_000
"""Up to so many candidates are counted one by one; beyond, those of a sample of decisions."""

STRETCHES = 100_000
"""The order of timestamps is looked at in so many stretches of decisions; up to so many decisions it is exact."""

BUCKETS = 20
"""Points of the reward over time."""
