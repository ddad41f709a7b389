"""One pass of AdaGrad over decisions, for the models of all folds at once.

`coefficient`, `drift`, `square` and `scale` are (width, folds) and change in place, as do the arrays (folds,): see
`AdaGradState`. Row i has the values `values[i]` at the columns `indices[i]`; a value of 0 is no feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from counterplay.compiled import compiled


@compiled
def margin_of(
    i: int, k: int, indices: Any, values: Any, coefficient: Any, drift: Any, scale: Any, active: Any
) -> float:
    """x'b of row i for model k. A value larger than any before shrinks what was learnt at the smaller scale."""
    margin = 0.0
    for j in range(indices.shape[1]):
        x, f = values[i, j], indices[i, j]
        if x == 0.0:
            continue
        if abs(x) > scale[f, k]:
            shrink = scale[f, k] / abs(x)
            coefficient[f, k] *= shrink
            drift[f, k] *= shrink
            scale[f, k] = abs(x)
        margin += coefficient[f, k] * x
        active[k] += (x / scale[f, k]) ** 2
    return margin


@compiled
def move(
    i: int, k: int, indices: Any, values: Any, error: float, pace: float, late: float,
    coefficient: Any, drift: Any, square: Any, scale: Any,
) -> None:  # fmt: skip
    """One step of model k against the gradient of row i, `error` times x."""
    for j in range(indices.shape[1]):
        x, f = values[i, j], indices[i, j]
        if x == 0.0:
            continue
        square[f, k] += (error * x) ** 2
        step = pace * error * x / (scale[f, k] * np.sqrt(square[f, k]))
        coefficient[f, k] -= step
        drift[f, k] -= step * late


@compiled
def learn(
    indices: Any, values: Any, reward: Any, fold: Any, weight: Any, logistic: bool, rate: float,
    coefficient: Any, drift: Any, square: Any, scale: Any, steps: Any, active: Any, mass: Any, mean: Any, spread: Any,
) -> None:  # fmt: skip
    """Show every row with weight to the models of all folds but its own, in order."""
    for i in range(indices.shape[0]):
        if weight[i] == 0.0:
            continue
        for k in range(coefficient.shape[1]):
            if k == fold[i]:
                continue
            steps[k] += 1.0
            margin = margin_of(i, k, indices, values, coefficient, drift, scale, active)
            if logistic:
                error, unit = 1.0 / (1.0 + np.exp(-margin)) - reward[i], 1.0
            else:
                # Rewards are learnt as distances from their running mean, in units of their running deviation.
                error = margin - (reward[i] - mean[k]) if mass[k] > 0.0 else 0.0
                mass[k] += weight[i]
                off = reward[i] - mean[k]
                mean[k] += off * weight[i] / mass[k]
                spread[k] += weight[i] * off * (reward[i] - mean[k])
                unit = np.sqrt(spread[k] / mass[k])
            if error != 0.0:
                pace, late = rate * unit * np.sqrt(steps[k] / active[k]), steps[k] * (steps[k] - 1.0)
                move(
                    i, k, indices, values, weight[i] * error, pace, late,
                    coefficient, drift, square, scale,
                )  # fmt: skip
