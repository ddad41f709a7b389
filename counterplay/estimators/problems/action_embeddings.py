"""Categories of actions, and what they make of a block of probabilities: weights of categories.

`combine_categories` and `cluster_actions` give each action its category; the rest is the arithmetic behind
`large_action_sets.marginalise`.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import ROUNDING, SMALLEST_PROPENSITY, Array, Codes
from counterplay.estimators.problems.arrays import FINITE, Rule, codes, numbers, within

ROW_SUM = 1e-6
"""How far the probabilities of a row may add up to something else than 1: float32 softmaxes end there."""

PROBABILITY = Rule(lambda p: (p >= 0) & (p <= 1 + ROW_SUM), "in [0, 1]")
TAKEN = Rule(lambda p: p >= SMALLEST_PROPENSITY, f"at least {SMALLEST_PROPENSITY:g}: the action was taken")
WHOLE = Rule(lambda p: np.abs(p - 1) <= ROW_SUM, "1")

ITERATIONS = 25

PLACEBOS = 8

Flags = npt.NDArray[np.bool_]


def combine_categories(dimensions: npt.ArrayLike) -> Codes:
    """(K,) one category for each action from its values in several dimensions, (K, D): equal rows, equal category.

    More dimensions make smaller categories: less is taken for granted, and the weights vary more. Which to keep is
    chosen before the rewards are looked at, or on another log: intervals do not know of a choice made on this one.
    """
    rows = np.asarray(dimensions)
    if rows.ndim != 2 or not rows.size:
        raise EvidenceError(f"dimensions has shape {rows.shape}; (K, D), the values of each action, are needed.")
    if rows.dtype.kind == "f" and np.isnan(rows).any():
        raise EvidenceError("dimensions holds NaN, which equals nothing: give what is missing a value of its own.")
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def cluster_actions(embeddings: npt.ArrayLike, clusters: int, seed: int = 0) -> Codes:
    """(K,) the cluster of each action, from 0 on, by k-means on its vector, (K, d).

    k-means++ starts (Arthur & Vassilvitskii 2007), then 25 steps of Lloyd 1982. A cluster that loses all its actions
    is dropped. Distances are Euclidean: columns of other units should be scaled, and directions normalised, before.
    Embeddings must not be learned from the rewards of the log that is evaluated.
    """
    vectors = numbers("embeddings", embeddings, (None, None), "(K, d), a vector for each action,")
    within("embeddings", vectors, FINITE)
    distinct = len(np.unique(vectors, axis=0))
    if not 1 <= clusters <= distinct:
        raise ConfigurationError(
            f"clusters is {clusters}; from 1 to {distinct} are possible: so many different vectors the actions have."
        )
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        _, cluster = kmeans2(vectors, clusters, iter=ITERATIONS, minit="++", rng=np.random.default_rng(seed))
    return np.unique(cluster, return_inverse=True)[1].astype(np.int64)


class Block(NamedTuple):
    """n decisions with S candidates: `columns` (n, S) holds actions or -1, `place` (n,) is the logged one's column."""

    action: Codes
    columns: npt.NDArray[np.integer]
    logging: Array
    rows: Codes
    place: Codes


class Embedding(NamedTuple):
    """How candidates count towards the weight of what was seen of the logged action.

    The weight is sum(pi share) / propensity. For categories `share` (n, S) tells which candidates are of the logged
    action's category, and `propensity` (n,) is that of the category; for a posterior `share` is posterior / logging and
    `propensity` None. `supported` (n, S) is the share of candidates that the logging policy may take, `within` (n,) the
    probability of the logged action given what was seen of it, and `unreachable` (n, S) marks candidates that no
    weight can stand for.
    """

    share: Array | Flags
    supported: Array | Flags
    unreachable: Flags
    within: Array
    propensity: Array | None
    categories: Codes | None


class Weighed(NamedTuple):
    """One policy's marginal target or weight (n,), and what `Marginalised` says of it."""

    marginal: Array
    difference: Array
    q_target: Array | None
    unsupported: float
    out_of_reach: float


def block_of(action: npt.ArrayLike, logging: npt.ArrayLike, candidates: npt.ArrayLike | None) -> Block:
    """The block, checked."""
    given = numbers("logging", logging, (None, None), "(n, S), a probability for each candidate of each decision,")
    logged = codes("action", action, len(given))
    columns: npt.NDArray[np.integer] = np.broadcast_to(np.arange(given.shape[1]), given.shape)
    if candidates is not None:
        columns = np.asarray(candidates)
        if columns.dtype.kind not in "iu" or columns.shape != given.shape:
            raise EvidenceError(
                f"candidates is {columns.dtype} of shape {columns.shape}; "
                f"the actions behind the columns of logging, integers of shape {given.shape}, are needed."
            )
    chosen = (columns == logged[:, None]) & (columns >= 0)
    times = chosen.sum(axis=1)
    if (times != 1).any():
        row = int(np.argmax(times != 1))
        raise EvidenceError(
            f"action at row {row} is {logged[row]}, which stands {times[row]} times among the candidates, not once."
        )
    block = Block(logged, columns, given, np.arange(len(logged)), chosen.argmax(axis=1))
    _check_distribution("logging", given, block)
    taken = given[block.rows, block.place]
    within("logging's probability of the logged action", taken, TAKEN)
    return block


def predictions_of(q: npt.ArrayLike, block: Block) -> Array:
    """(n, S) predictions, 0 where there is no candidate: what stands there is nobody's prediction, and often NaN."""
    given = numbers("q", q, block.columns.shape, f"{block.columns.shape}, a prediction for each candidate,")
    return np.where(block.columns < 0, 0.0, given)


def of_categories(block: Block, categories: npt.ArrayLike) -> Embedding:
    """Candidates count where they are of the logged action's category."""
    category = codes("categories", categories, np.size(categories))
    if not len(category) or category.min() < 0 or category.max() >= len(category):
        raise EvidenceError(
            f"categories of {len(category)} actions must be codes from 0 to {len(category) - 1}, and some are not; "
            "combine_categories makes them of any values."
        )
    if block.columns.max() >= len(category):
        raise EvidenceError(
            f"categories has {len(category)} rows and the candidates go up to action {block.columns.max()}; "
            "each action needs a category."
        )
    present = block.columns >= 0
    of_columns = category[block.columns]
    same = (of_columns == of_columns[block.rows, block.place][:, None]) & present
    propensity = (block.logging * same).sum(axis=1)
    missing = present & (block.logging == 0)
    unreachable, supported = missing, same
    if missing.any():
        cells = block.rows[:, None] * (int(category.max()) + 1) + of_columns
        unreachable = missing.copy()
        unreachable[missing] = ~np.isin(cells[missing], cells[present & ~missing])
        supported = same & ~missing
    share = np.minimum(block.logging[block.rows, block.place] / propensity, 1.0)
    return Embedding(same, supported, unreachable, share, np.minimum(propensity, 1.0), category)


def of_posterior(block: Block, posterior: npt.ArrayLike | None) -> Embedding:
    """Candidates count with their probability under the logging policy, given what was seen."""
    assert posterior is not None
    given = numbers("posterior", posterior, block.columns.shape, f"{block.columns.shape}, as that of logging,")
    _check_distribution("posterior", given, block)
    missing = (block.columns >= 0) & (block.logging == 0)
    if given[missing].any():
        raise EvidenceError("posterior gives probability to actions that logging never takes; there it must be 0.")
    share = np.divide(given, block.logging, out=np.zeros_like(given), where=block.logging > 0)
    return Embedding(share, share, missing, given[block.rows, block.place], None, None)


def weigh(target: npt.ArrayLike, block: Block, embedding: Embedding, predicted: Array | None) -> Weighed:
    """One policy's weights of categories, and how its weights of actions differ from them."""
    pi = numbers("target", target, block.columns.shape, f"{block.columns.shape} for each policy, as that of logging,")
    _check_distribution("target", pi, block)
    logged = block.rows, block.place
    marginal = (pi * embedding.share).sum(axis=1)
    supported = marginal if embedding.supported is embedding.share else (pi * embedding.supported).sum(axis=1)
    if embedding.propensity is not None:
        marginal, supported = np.minimum(marginal, 1.0), supported / embedding.propensity
    weight = pi[logged] / block.logging[logged]
    difference = weight - supported
    return Weighed(
        marginal=marginal,
        # The rounding error of equal weights would be tested as if it were a difference.
        difference=np.where(np.abs(difference) <= ROUNDING * weight, 0.0, difference),
        q_target=None if predicted is None else (pi * predicted).sum(axis=1),
        unsupported=float(pi[block.logging == 0].sum()),
        out_of_reach=float(pi[embedding.unreachable].sum()),
    )


def draw_placebos(block: Block, embedding: Embedding, start: int, seed: int) -> npt.NDArray[np.int32]:
    """(PLACEBOS, n) actions drawn from p(a|x, e) of the logging policy.

    Systematic draws (Madow & Madow 1944): one uniform number a decision, and equal steps from it, so that each action
    comes up as often as its probability says, to within one.
    """
    given = block.logging * embedding.supported
    ends = np.cumsum(given, axis=1)
    ends /= ends[:, -1:]
    last = (ends < 1).sum(axis=1)
    generator = np.random.Generator(np.random.Philox(seed).advance(start // 4))
    # Philox makes four numbers at a time.
    first = generator.random(len(given) + start % 4)[start % 4 :]
    draws = (np.arange(PLACEBOS)[:, None] + first) / PLACEBOS
    # Rows side by side on one line: row i holds what lies between i and i + 1.
    found = np.searchsorted((ends + block.rows[:, None]).ravel(), block.rows + draws, side="right")
    place = np.clip(found - block.rows * given.shape[1], 0, last)
    return np.asarray(block.columns[block.rows, place], dtype=np.int32)


def _check_distribution(name: str, probabilities: Array, block: Block) -> None:
    within(name, probabilities, PROBABILITY)
    if probabilities[block.columns < 0].any():
        raise EvidenceError(f"{name} gives probability to a place without a candidate (-1); it must be 0 there.")
    within(f"the sum of {name}", probabilities.sum(axis=1), WHOLE)
