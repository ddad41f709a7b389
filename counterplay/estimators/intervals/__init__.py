"""Intervals: from what remains of the terms to [low, high], or to the reason why there is none."""

from counterplay.estimators.intervals.bootstrap import Resampling
from counterplay.estimators.intervals.bounds import Bounds
from counterplay.estimators.intervals.table import INTERVALS, Interval, check_interval

__all__ = ["INTERVALS", "Bounds", "Interval", "Resampling", "check_interval"]
