"""What a reward model predicts for every allowed action of some decisions at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, MissingEvidenceError
from counterplay.logs.chunks import Chunk, chunk_of
from counterplay.logs.log import Log
from counterplay.replay.policies import allowed
from counterplay.replay.reward_models import PAIRS, FittedRewards, fit_rewards, folds_of

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Predictions = Callable[[Chunk, Rows], Floats]
"""Predicted rewards `(b, S)` of the allowed actions (``policies.allowed``) of b decisions of a log."""

PIECE = 8192
"""The most decisions that are predicted at a time."""


def fitted_on(log: Log, rows: Rows) -> FittedRewards:
    """A ridge model of the reward, fitted on some decisions of a log."""
    part = chunk_of(log.subset(rows))
    return fit_rewards(lambda: [part])


def predictions_of(rewards: FittedRewards) -> Predictions:
    """What a fitted model predicts for every allowed action, each decision by the folds that it is not in."""

    def predictions(log: Chunk, rows: Rows) -> Floats:
        columns = allowed(log, rows)
        folds, result = folds_of(log, rows), np.zeros(columns.shape)
        step = max(1, PAIRS // (columns.shape[1] * rewards.features.numbers))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            at, place = np.nonzero(columns[part] >= 0)
            features = rewards.features.of(log, rows[part][at], columns[part][at, place])
            result[part][at, place] = rewards.model.predict(features, folds[part][at])
        return result

    return predictions


def predicted_pieces(log: Log, rounds: Rows, predictions: Predictions | None) -> Iterator[tuple[Rows, Floats]]:
    """The decisions ``rounds`` in their order, some at a time, with what the model predicts for each allowed action
    `(b, S)`; `(0, 0)` without a model.

    Raises:
        ConfigurationError: the predictions are not one finite number for each allowed action.
        MissingEvidenceError: a logged action is not among its candidates.
    """
    chunk = chunk_of(log)
    width = len(log.action_labels) if chunk.candidates is None else chunk.candidates.shape[1]
    size = PIECE if predictions is None else max(1, min(PIECE, PAIRS // max(1, width)))
    for start in range(0, len(rounds), size):
        rows = rounds[start : start + size]
        yield rows, np.zeros((0, 0)) if predictions is None else _checked(chunk, rows, predictions(chunk, rows))


def _checked(log: Chunk, rows: Rows, predicted: Floats) -> Floats:
    columns = allowed(log, rows)
    predicted = np.require(predicted, np.float64, ["C", "W"])
    if predicted.shape != columns.shape or not np.isfinite(predicted[columns >= 0]).all():
        raise ConfigurationError(
            f"the reward model gave predictions of shape {predicted.shape}, or some that are not finite, for "
            f"{columns.shape} decisions and allowed actions; it must give a number for each."
        )
    stray = ~(columns == log.action[rows, None]).any(axis=1)
    if stray.any():
        raise MissingEvidenceError(
            f"the logged action of decision {rows[stray][0]} of log '{log.name}' is not among its candidates."
        )
    return predicted
