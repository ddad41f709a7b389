"""What another log would change in a value, found by replaying an agent on parts of the one there is.

The standard error that the rewards themselves give takes the agent's path as given: had the log held other decisions,
the agent would have learned other things. Sub-samples show that too. Each is a share of the log's clusters, drawn
without replacement: a bootstrap would hold decisions twice, and an agent would be paid for remembering them.

Of m clusters b are drawn. For a mean of independent clusters with variance v, the mean of a sub-sample varies around
that of the log with variance v (1/b - 1/m), the finite-population law: not with v / b, since a sub-sample of the whole
log is the log. The log's own mean has variance v / m, which is that times b / (m - b). A value that is not a mean
behaves like one to first order in its clusters, so the same factor serves (Shao and Wu, Annals of Statistics 1989:
delete-d jackknife); with a share of one half the factor is 1.

The value of a replay has the luck of its seed too. So each sub-sample is replayed under two seeds of its own, and a
one-way analysis of variance takes the luck of seeds out: half of the mean square between sub-samples less that within.
What is left is the variance between the sub-samples' values over all seeds, unbiased. It is noisy: where seeds matter
little, about 1 / sqrt(2 B) of itself for the standard error from B sub-samples, and more where they matter much; below
0 it counts as 0.

Where a sub-sample has fewer rounds than the log it says what moves a shorter run of the agent. Not for logs whose
rewards drift while their order is kept.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.portions import clusters_in, first_clusters

FIRST_SEED = 2_000_000
"""The first seed of the replays on sub-samples: far from the seeds of other replays."""
DRAWS = 2**61
"""The first seed of the draws of sub-samples."""
EACH = 2
"""Replays on a sub-sample."""


def subsample(cluster: NDArray[np.int64], share: float, log: str, number: int) -> NDArray[np.int64]:
    """The decisions of sub-sample ``number``: a share of the log's clusters ``cluster`` `(n,)`, whole ones.

    Raises:
        UnsupportedError: there is one cluster only.
    """
    return first_clusters(cluster, share, log, DRAWS + number)


def std_error_subsampled(values: NDArray[np.float64], clusters: int, share: float) -> float:
    """The standard error over logs of the value of the whole log.

    Args:
        values: `(B, 2)` the value of each of B >= 2 sub-samples, under two seeds.
        clusters: how many the log has, 2 or more.
        share: of them in each sub-sample.
    """
    within = float(((values[:, 0] - values[:, 1]) ** 2).mean() / 2)
    between = float(EACH * values.mean(axis=1).var(ddof=1))
    drawn = clusters_in(clusters, share)
    return math.sqrt(max(0.0, (between - within) / EACH) * drawn / (clusters - drawn))
