"""Thompson sampling for the bilinear model: a Gaussian posterior with a diagonal precision.

Chapelle and Li (NIPS 2011, Algorithm 3, regularised logistic regression with batch updates), with the features
x_j z_k of the model logit(x, a) = x W z_a + b. Before a batch the weights are N(mean_i, 1 / precision_i), independent.
The new mean is the minimiser of the batch's regularised loss

    1/2 sum_i precision_i (w_i - mean_i)^2 + sum_r loss(logit_r, reward_r)

and each precision grows by sum_r p_r (1 - p_r) feature_ri^2 at that minimiser (by feature_ri^2 for the squared loss,
whose noise is taken to have variance 1). The minimiser is found, not approached: it is mean + (features' alpha) /
precision with one alpha a decision, so Newton's method works on B numbers instead of d m (Rasmussen and Williams,
Gaussian Processes for Machine Learning, 2006, Algorithm 3.1). A single step along the gradient over the new precision
is cheaper, but overshoots where the features are long, or alike, against the prior.

When it does not hold: a diagonal precision forgets how weights move together, so the spread of a score is only roughly
that of the posterior; the order of the batches matters; and single precision stops growing near 10^7 times what a
batch adds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.draws import write_normals

_BLOCK = 2048
_MOST_STEPS = 100
_CLOSE = 1e-9


@compiled
def learn_laplace(
    rows: NDArray[np.float32],
    vectors: NDArray[np.float32],
    rewards: NDArray[np.float64],
    weights: NDArray[np.float32],
    precision: NDArray[np.float32],
    bias: NDArray[np.float32],
    logistic: bool,
    intercept: bool,
) -> None:
    """One update from a batch of B decisions, in place.

    Args:
        rows: `(B, d)`, C-contiguous, the context features.
        vectors: `(B, m)`, C-contiguous, the features of the played actions.
        rewards: `(B,)`, in [0, 1] where the loss is logistic.
        weights: `(d, m)`, the mean of the posterior; start it at 0 or at a prior guess.
        precision: `(d, m)`, positive; start it at the regularisation lambda of the paper.
        bias: `(3,)`, the intercept, a number that is not used, and the precision of the intercept: positive if learned.
        logistic: cross-entropy of the logit; otherwise half the squared error.
        intercept: whether the intercept is learned.
    """
    size = rows.shape[0]
    prior = (np.dot(rows, weights) * vectors).sum(axis=1).astype(np.float64) + bias[0]
    kernel = np.full((size, size), 1.0 / bias[2] if intercept else 0.0)
    _add_covariances(rows, vectors, precision, kernel)
    alpha, values = _minimiser(kernel, prior, rewards, logistic)
    bend = np.empty(size)
    for r in range(size):
        bend[r] = _curvature(values[r], logistic)
    step = np.dot(rows.T, vectors * alpha.astype(np.float32).reshape(size, 1))
    growth = np.dot((rows * rows).T, vectors * vectors * bend.astype(np.float32).reshape(size, 1))
    weights += step / precision
    precision += growth
    if intercept:
        bias[0] += np.float32(alpha.sum() / bias[2])
        bias[2] += np.float32(bend.sum())


@compiled
def _add_covariances(
    rows: NDArray[np.float32],
    vectors: NDArray[np.float32],
    precision: NDArray[np.float32],
    kernel: NDArray[np.float64],
) -> None:
    """Add the covariances of the batch's logits, features diag(1 / precision) features', to ``kernel`` `(B, B)`.

    In blocks of rows of the weights that stay in a processor's cache: all features at once are B d m numbers.
    """
    size, width = vectors.shape
    most = max(1, _BLOCK // width)
    scratch = np.empty(size * most * width, np.float32)
    for first in range(0, precision.shape[0], most):
        count = min(most, precision.shape[0] - first)
        scaled = scratch[: size * count * width].reshape(size, count * width)
        spread = np.float32(1.0) / np.sqrt(precision[first : first + count])
        for r in range(size):
            for j in range(count):
                for k in range(width):
                    scaled[r, j * width + k] = rows[r, first + j] * vectors[r, k] * spread[j, k]
        kernel += np.dot(scaled, scaled.T)


@compiled
def _minimiser(
    kernel: NDArray[np.float64], prior: NDArray[np.float64], rewards: NDArray[np.float64], logistic: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give alpha `(B,)` and the logits ``prior + kernel alpha`` that minimise the regularised loss of a batch.

    Newton's method; where a step would raise the loss (of long features) it is halved until it does not.
    """
    size = prior.shape[0]
    alpha, values = np.zeros(size), prior.copy()
    loss = _regularised_loss(alpha, values, prior, rewards, logistic)
    system, target = np.empty((size, size)), np.empty(size)
    for _ in range(_MOST_STEPS):
        for r in range(size):
            bend = _curvature(values[r], logistic)
            target[r] = bend * (values[r] - prior[r]) + rewards[r] - _predicted(values[r], logistic)
            for s in range(size):
                system[r, s] = bend * kernel[r, s]
            system[r, r] += 1.0
        change = np.linalg.solve(system, target) - alpha
        moved = np.dot(kernel, change)
        share, tried = 1.0, _regularised_loss(alpha + change, values + moved, prior, rewards, logistic)
        while tried > loss and share > _CLOSE:
            share *= 0.5
            tried = _regularised_loss(alpha + share * change, values + share * moved, prior, rewards, logistic)
        if tried > loss:
            break
        alpha += share * change
        values += share * moved
        loss = tried
        if np.abs(change).max() < _CLOSE:
            break
    return alpha, values


@compiled
def _regularised_loss(
    alpha: NDArray[np.float64],
    values: NDArray[np.float64],
    prior: NDArray[np.float64],
    rewards: NDArray[np.float64],
    logistic: bool,
) -> float:
    loss = 0.0
    for r in range(values.shape[0]):
        value = values[r]
        loss += 0.5 * alpha[r] * (value - prior[r])
        if logistic:
            loss += max(value, 0.0) + math.log1p(math.exp(-abs(value))) - rewards[r] * value
        else:
            loss += 0.5 * (value - rewards[r]) ** 2
    return loss


@compiled
def _predicted(value: float, logistic: bool) -> float:
    if not logistic:
        return value
    shrunk = math.exp(-abs(value))
    return 1.0 / (1.0 + shrunk) if value >= 0.0 else shrunk / (1.0 + shrunk)


@compiled
def _curvature(value: float, logistic: bool) -> float:
    """The second derivative of the loss: p (1 - p)."""
    if not logistic:
        return 1.0
    shrunk = math.exp(-abs(value))
    return shrunk / (1.0 + shrunk) ** 2


@compiled
def draw_weights(
    weights: NDArray[np.float32], precision: NDArray[np.float32], scale: float, key: int, out: NDArray[np.float32]
) -> None:
    """Write one draw of the weights, N(weights, scale^2 / precision), into ``out`` `(d, m)`.

    One draw serves a batch. ``scale`` 1 is Thompson sampling, 0 is greedy. The intercept is the same for all actions,
    so it is not drawn.
    """
    normals = np.empty(out.size)
    write_normals(key, normals)
    mean, spread, drawn = weights.ravel(), precision.ravel(), out.ravel()
    for i in range(drawn.shape[0]):
        drawn[i] = mean[i] + scale * normals[i] / math.sqrt(spread[i])
