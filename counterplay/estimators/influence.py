"""Influences: how far each unit pulls an estimate, the raw material of covariances, of jackknives and of comparisons.

A unit is a decision, or a cluster of decisions. To first order

    estimate - truth = mean over units of influence,     Var(estimate) = sum of influence^2 / (G (G - 1)), G units

so whatever two estimates share on a log stands in the products of their influences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from counterplay.estimators.evidence import Array, Evidence, distinct
from counterplay.estimators.moments import linearise
from counterplay.estimators.statistic import Statistic, statistic_of
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator, Terms

BLOCK = 4096
"""Units in a block: with 100 policies 3 MiB, about what a processor keeps at hand."""


def influences(evidence: Evidence, estimator: str | Estimator, statistic: Statistic | None = None) -> Iterator[Array]:
    """(P, units) influences on the P values, in units of reward, block by block of at most 4,096 units.

    From the linearisation that standard errors come from (infinitesimal jackknife; Efron 1982): the sum over all units
    is 0 up to rounding. Decisions come in their order, clusters in the order of their codes; a policy without a value
    has NaN everywhere. `statistic`, that of the same evidence, saves one pass.

    Memory: one block, and P numbers a cluster where clusters hold more than one decision. Raises `MissingEvidenceError`
    where the estimator needs what the evidence lacks. Says nothing about bias, and little where the estimate bends
    within its own error: a denominator that is close to 0.
    """
    evidence, chosen = without_lone_clusters(evidence), resolve(estimator)
    statistic = statistic_of(evidence, chosen) if statistic is None else statistic
    settled = statistic.settled(chosen)
    if settled.name not in statistic.folds:
        statistic = statistic_of(evidence, settled)
    gradient = linearise(statistic.folds[settled.name].moments(), settled.form).gradient
    if evidence.cluster is None:
        for block in _blocks(evidence):
            yield _pulls(settled.terms(block), gradient)
    else:
        yield from _clustered(evidence, settled, gradient)


def without_lone_clusters(evidence: Evidence) -> Evidence:
    """The same evidence; where no two decisions share a cluster, without the codes."""
    if evidence.cluster is not None and len(distinct(evidence.cluster)) == len(evidence):
        return evidence.part(slice(None), clustered=False)
    return evidence


def _clustered(evidence: Evidence, estimator: Estimator, gradient: Array) -> Iterator[Array]:
    codes = distinct(np.asarray(evidence.cluster))
    total = np.zeros((len(gradient), len(codes)))
    for block in _blocks(evidence):
        here, inverse = np.unique(np.asarray(block.cluster), return_inverse=True)
        place = np.searchsorted(codes, here)
        for p, pull in enumerate(_pulls(estimator.terms(block), gradient)):
            total[p, place] += np.bincount(inverse, weights=pull, minlength=len(here))
    for start in range(0, len(codes), BLOCK):
        yield total[:, start : start + BLOCK]


def _blocks(evidence: Evidence) -> Iterator[Evidence]:
    for start in range(0, len(evidence), BLOCK):
        yield evidence.part(slice(start, start + BLOCK))


def _pulls(terms: Terms, gradient: Array) -> Array:
    """(P, block) what each decision adds to the influence of its unit: gradient times its parts.

    Values do not change when all parts are scaled together, so the gradient is orthogonal to the means and nothing
    needs to be centred.
    """
    parts = terms.numerator, terms.denominator, terms.baseline, 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        pulls = [gradient[:, i : i + 1] * part for i, part in enumerate(parts)]
        return np.asarray(sum(pulls[1:], pulls[0]))
