"""Linear models learned by recursive least squares, and exploring with their uncertainty.

One model an action ("disjoint": Li, Chu, Langford and Schapire, WWW 2010, LinUCB) or one for all actions on the
products x_j z_k of context and action features ("shared"). Each keeps A^-1 (``covariance``), b (``response``) and
theta = A^-1 b, where A = ridge I + sum x x' and b = sum reward x: start at ``covariance`` = I / ridge (not ridge I),
``response`` = ``theta`` = 0. Optimistic: the highest theta x + amount sqrt(x' A^-1 x). Thompson sampling (Agrawal and
Goyal, ICML 2013): the highest score under a draw from N(theta, amount^2 A^-1).

Arrays are C-contiguous: x `(D,)` float64 or float32; ``arms`` `(S,)` int32, the allowed actions in any order, then -1;
``theta`` `(K, D)` and ``covariance`` `(K, D, D)` float64. ``amount`` is at least 0. Nothing here checks them. Of equal
scores the lowest action wins; without an allowed action the answer is -1.

When it does not hold: A^-1 is updated and never inverted again, so it loses digits as the sum of |x|^2 grows against
the ridge: some 11 are right where their quotient is 10^10, and 6 at 10^16.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import borrowing, compiled, compiled_sums
from counterplay.replay.kernels.draws import normal_at, write_normals

Vector = NDArray[np.float64] | NDArray[np.float32]


@compiled_sums
def product(left: Vector, right: NDArray[np.float64]) -> float:
    """The inner product."""
    total = 0.0
    for j in range(right.shape[0]):
        total += left[j] * right[j]
    return total


@compiled_sums
def mean_of(x: Vector, theta: NDArray[np.float64], a: int) -> float:
    """theta_a x."""
    total = 0.0
    for j in range(x.shape[0]):
        total += x[j] * theta[a, j]
    return total


@compiled_sums
def width_of(x: Vector, covariance: NDArray[np.float64], a: int) -> float:
    """x' A_a^-1 x, never negative."""
    size, total = x.shape[0], 0.0
    fours = size - size % 4
    # Four rows at a time: the partial sums of a vector register are added up once for the four.
    for i in range(0, fours, 4):
        for j in range(size):
            row = x[i] * covariance[a, i, j] + x[i + 1] * covariance[a, i + 1, j]
            total += (row + x[i + 2] * covariance[a, i + 2, j] + x[i + 3] * covariance[a, i + 3, j]) * x[j]
    for i in range(fours, size):
        for j in range(size):
            total += x[i] * covariance[a, i, j] * x[j]
    return max(total, 0.0)


@compiled
def width(x: Vector, covariance: NDArray[np.float64]) -> float:
    """x' A^-1 x, never negative; its root times the noise is the standard error of theta x."""
    return float(width_of(x, covariance.reshape(1, covariance.shape[0], covariance.shape[1]), 0))


@borrowing
def learn_ridge(
    x: Vector,
    reward: float,
    covariance: NDArray[np.float64],
    response: NDArray[np.float64],
    theta: NDArray[np.float64],
) -> None:
    """One update of one model, in place: ``covariance`` `(D, D)`, ``response`` and ``theta`` `(D,)`.

    Sherman and Morrison: A^-1 - h h' with h = A^-1 x / sqrt(1 + x' A^-1 x). Each h_i h_j is rounded as h_j h_i is, so
    A^-1 stays exactly symmetric.
    """
    h = theta  # overwritten before it is computed anew
    for i in range(x.shape[0]):
        h[i] = product(x, covariance[i])
    shrink = 1.0 / math.sqrt(1.0 + max(product(x, h), 0.0))
    for i in range(x.shape[0]):
        response[i] += reward * x[i]
        h[i] *= shrink
    for i in range(x.shape[0]):
        for j in range(x.shape[0]):
            covariance[i, j] -= h[i] * h[j]
    for i in range(x.shape[0]):
        theta[i] = product(response, covariance[i])


@borrowing
def scores_ridge(x: Vector, arms: NDArray[np.int32], theta: NDArray[np.float64], out: NDArray[np.float64]) -> int:
    """Write theta_a x of each allowed action, in the order of ``arms``, into ``out`` `(S,)`; give how many."""
    count = 0
    for s in range(arms.shape[0]):
        if arms[s] < 0:
            break
        out[s] = mean_of(x, theta, arms[s])
        count += 1
    return count


@borrowing
def best_scored(arms: NDArray[np.int32], scores: NDArray[np.float64]) -> int:
    """The allowed action with the highest of ``scores``, which are in the order of ``arms``."""
    best, highest = -1, -math.inf
    for s in range(arms.shape[0]):
        a = arms[s]
        if a < 0:
            break
        if best < 0 or scores[s] > highest or (scores[s] == highest and a < best):
            best, highest = int(a), scores[s]
    return best


@borrowing
def best_optimistic(
    x: Vector, arms: NDArray[np.int32], theta: NDArray[np.float64], covariance: NDArray[np.float64], amount: float
) -> int:
    """The allowed action with the highest theta_a x + amount sqrt(x' A_a^-1 x), of disjoint models."""
    best, highest = -1, -math.inf
    for s in range(arms.shape[0]):
        a = arms[s]
        if a < 0:
            break
        score = mean_of(x, theta, a) + amount * math.sqrt(width_of(x, covariance, a))
        if best < 0 or score > highest or (score == highest and a < best):
            best, highest = int(a), score
    return best


@borrowing
def best_sampled(
    x: Vector,
    arms: NDArray[np.int32],
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    amount: float,
    key: int,
) -> int:
    """The allowed action with the highest score under one draw of every disjoint model; ``key``: the decision's.

    A score theta~_a x with theta~_a ~ N(theta_a, amount^2 A_a^-1) has the law N(theta_a x, amount^2 x' A_a^-1 x), and
    models of different actions are independent. So a normal number an action is the whole law of the scores of one
    decision: no D numbers an action, no Cholesky factor. The normal number of action a is at the place a of the key,
    whatever else is allowed.
    """
    best, highest = -1, -math.inf
    for s in range(arms.shape[0]):
        a = arms[s]
        if a < 0:
            break
        score = mean_of(x, theta, a) + amount * math.sqrt(width_of(x, covariance, a)) * normal_at(key, a)
        if best < 0 or score > highest or (score == highest and a < best):
            best, highest = int(a), score
    return best


@borrowing
def is_sampled(
    x: Vector,
    arms: NDArray[np.int32],
    logged: int,
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    amount: float,
    key: int,
) -> bool:
    """Whether ``best_sampled`` would be ``logged``, one of ``arms``: stops at the first arm that beats it."""
    highest = -math.inf
    for s in range(-1, arms.shape[0]):
        a = logged if s < 0 else arms[s]
        if a < 0:
            break
        mean, normal = mean_of(x, theta, a), normal_at(key, a)
        # An arm below its own mean needs no width where the mean is too low already.
        if normal < 0.0 and mean < highest:
            continue
        score = mean + amount * math.sqrt(width_of(x, covariance, a)) * normal
        if s < 0:
            highest = score
        elif score > highest or (score == highest and a < logged):
            return False
    return True


@borrowing
def joint(x: Vector, z: Vector, out: NDArray[np.float64]) -> None:
    """Write the features of the shared model, x_j z_k at the place j m + k, into ``out`` `(d m,)`."""
    for j in range(x.shape[0]):
        for k in range(z.shape[0]):
            out[j * z.shape[0] + k] = np.float64(x[j]) * z[k]


@borrowing
def _narrow(x: Vector, theta: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Write x' Theta, with ``theta`` read as `(d, m)`, into ``out`` `(m,)`."""
    out[:] = 0.0
    for j in range(x.shape[0]):
        for k in range(out.shape[0]):
            out[k] += x[j] * theta[j * out.shape[0] + k]


@compiled
def scores_shared(
    x: Vector,
    actions: NDArray[np.float32] | NDArray[np.float64],
    arms: NDArray[np.int32],
    theta: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    """Write x' Theta z_a of each allowed action, in the order of ``arms``, into ``out`` `(S,)`; give how many.

    ``actions`` `(K, m)`: z. ``theta`` `(d m,)`: the shared model's, or a draw of it.
    """
    mean = np.empty(actions.shape[1])
    _narrow(x, theta, mean)
    count = 0
    for s in range(arms.shape[0]):
        if arms[s] < 0:
            break
        out[s] = product(actions[arms[s]], mean)
        count += 1
    return count


@compiled
def best_optimistic_shared(
    x: Vector,
    actions: NDArray[np.float32] | NDArray[np.float64],
    arms: NDArray[np.int32],
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    amount: float,
) -> int:
    """The allowed action with the highest optimistic score of the shared model: ``theta`` `(d m,)`, ``covariance``
    `(d m, d m)`.

    Given x the shared model is a model of the m action features, whose mean and covariance are made once for all arms.
    """
    d, m = x.shape[0], actions.shape[1]
    mean, half, narrow = np.empty(m), np.empty(m * d * m), np.zeros((m, m))
    _narrow(x, theta, mean)
    _narrow(x, covariance.ravel(), half)
    for k in range(m):
        _narrow(x, half[k * d * m : (k + 1) * d * m], narrow[k])
    best, highest = -1, -math.inf
    for s in range(arms.shape[0]):
        a = arms[s]
        if a < 0:
            break
        score = product(actions[a], mean) + amount * math.sqrt(width(actions[a], narrow))
        if best < 0 or score > highest or (score == highest and a < best):
            best, highest = int(a), score
    return best


@compiled
def draw_shared(
    theta: NDArray[np.float64],
    covariance: NDArray[np.float64],
    amount: float,
    key: int,
    out: NDArray[np.float64],
) -> None:
    """Write one draw from N(theta, amount^2 A^-1) into ``out`` `(D,)`: theta + amount L normals, L L' = A^-1.

    Once a batch: D^3 / 6 multiplications. A direction whose variance rounding has made zero or negative is not drawn,
    so this cannot fail.
    """
    size = theta.shape[0]
    normals, lower = np.empty(size), np.zeros((size, size))
    write_normals(key, normals)
    for i in range(size):
        for j in range(i):
            if lower[j, j] > 0.0:
                lower[i, j] = (covariance[i, j] - product(lower[i, :j], lower[j, :j])) / lower[j, j]
        lower[i, i] = math.sqrt(max(covariance[i, i] - product(lower[i, :i], lower[i, :i]), 0.0))
        out[i] = theta[i] + amount * product(lower[i, : i + 1], normals[: i + 1])
