"""Lepski's rule: the most biased of a list of estimates that the less biased ones do not contradict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError
from counterplay.estimators.evidence import Array, Codes

SAME = 1e-12


def lepski(values: npt.ArrayLike, half_widths: npt.ArrayLike) -> Codes:
    """(P,) places in lists of M estimates, each the last whose interval meets those of all before it; -1 for none.

    `values` (M, P) and `half_widths` (M, P) of their intervals, from the least bias and the largest variance to the
    opposite (Lepski & Spokoiny 1997; for off-policy evaluation, as SLOPE, Su, Srinath & Krishnamurthy 2020). Estimates
    that are NaN are passed over. For half widths twice those of intervals that hold together, and that do not grow
    along the list, Su et al. bound the error of the choice by a constant times the best of the list; in practice these
    choose too late, with too much bias. It says nothing where the first of the list is biased already.
    """
    value, half = np.asarray(values, dtype=np.float64), np.asarray(half_widths, dtype=np.float64)
    if value.ndim != 2 or value.shape != half.shape:
        raise EvidenceError(f"values {value.shape} and half_widths {half.shape} do not fit: (M, P) and (M, P).")
    if np.any(half < 0):
        raise EvidenceError("half_widths must not be negative: give distances from value to the end of its interval.")
    known = np.isfinite(value) & ~np.isnan(half)
    low = np.maximum.accumulate(np.where(known, value - half, -np.inf), axis=0)
    high = np.minimum.accumulate(np.where(known, value + half, np.inf), axis=0)
    # Intervals without any width meet where their ends differ in the last bits only.
    meet = np.logical_and.accumulate(low <= high + SAME * np.where(np.isinf(high), 0.0, np.abs(high)), axis=0) & known
    last = len(value) - 1 - meet[::-1].argmax(axis=0)
    return np.where(meet.any(axis=0), last, -1)


def choose_by_error(values: npt.ArrayLike, std_errors: npt.ArrayLike, widths: float) -> Codes:
    """`lepski` with half widths of `widths` standard errors, none shorter than that of a later estimate.

    A few decisions may agree by luck: what a smoother estimate does not know, a rougher one does not know either.
    """
    errors: Array = np.asarray(std_errors, dtype=np.float64)
    return lepski(values, widths * np.fmax.accumulate(errors[::-1], axis=0)[::-1])
