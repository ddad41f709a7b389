"""Any regressor or classifier with `fit` and `predict`, cross-fitted: scikit-learn's, or one of your own."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators.evidence import Array
from counterplay.estimators.models.features import Features, HashedFeatures, Table, as_table, check_fold, take, width_of
from counterplay.estimators.models.training import Training, no_row_left, training


class CrossFitted:
    """One copy of an estimator a fold, each fitted on the other folds.

    `estimator`: an object with `fit(x, y)` and `predict(x)`, deep-copied for each fold and never fitted itself, or a
    class or function without arguments that makes one. A classifier (it has `predict_proba`) needs rewards 0 and 1 and
    predicts the probability of 1; where the other folds hold one class only, that class. Hashed features reach the
    estimator as scipy CSR arrays. NaN features are refused: fill them first.
    """

    def __init__(
        self,
        features: Features,
        reward: npt.ArrayLike,
        fold: npt.ArrayLike,
        *,
        estimator: Any,
        weight: npt.ArrayLike | None = None,
    ) -> None:
        """Fit on features (n, p), reward (n,), fold (n,) and weight (n,), given on as `sample_weight`.

        Raises `ConfigurationError` where the estimator cannot do what is asked: no `fit` or `predict`, weights that its
        `fit` does not take, a classifier for rewards other than 0 and 1.
        """
        data = training(features, reward, fold, weight)
        self.name = getattr(estimator, "__name__", type(estimator).__name__)
        self._width = width_of(data.features)
        self.models = [_fitted(_new(estimator), data, k) for k in range(data.folds)]

    def predict(self, features: Features, fold: npt.ArrayLike) -> Array:
        """(m,) predictions for features (m, p) of any context and action; `fold` (m,) is that of the decision."""
        table, k = as_table(features), np.asarray(fold)
        if width_of(table) != self._width or k.shape != (len(table),):
            shape = (len(table), width_of(table))
            raise EvidenceError(f"features {shape} and fold {k.shape} do not fit: (m, {self._width}) and (m,).")
        check_fold(k, len(self.models))
        found = np.empty(len(table))
        for own in np.unique(k):
            chosen = np.flatnonzero(k == own)
            found[chosen] = self._say(self.models[own], _given(take(table, chosen)), len(chosen))
        return found

    def _say(self, model: Any, x: Any, count: int) -> Array:
        if isinstance(model, float):
            return np.full(count, model)
        said = np.asarray(_probability(model, x) if hasattr(model, "predict_proba") else model.predict(x))
        if said.size != count:
            raise EvidenceError(f"{self.name} predicts an array of shape {said.shape} for {count} rows.")
        said = said.reshape(count).astype(np.float64)
        if not np.isfinite(said).all():
            raise EvidenceError(f"{self.name} predicts NaN or infinity for {int((~np.isfinite(said)).sum())} rows.")
        return said


def _new(estimator: Any) -> Any:
    if hasattr(estimator, "fit") and not isinstance(estimator, type):
        made = copy.deepcopy(estimator)
    else:
        made = estimator() if callable(estimator) else estimator
    if not (hasattr(made, "fit") and hasattr(made, "predict")):
        raise ConfigurationError(
            f"{type(made).__name__} is no estimator: an object with fit(x, y) and predict(x) is needed, or a class or "
            "function without arguments that makes one."
        )
    return made


def _fitted(model: Any, data: Training, fold: int) -> Any:
    """The model after fitting, or the one class (0.0 or 1.0) that the other folds hold."""
    if data.weight is not None and "sample_weight" not in inspect.signature(model.fit).parameters:
        raise ConfigurationError(f"{type(model).__name__}.fit takes no sample_weight, and weights were given.")
    others = data.fold != fold
    if data.weight is not None:
        others &= data.weight > 0
    rows = np.flatnonzero(others)
    if not len(rows):
        raise no_row_left(fold)
    reward: npt.NDArray[Any] = data.reward[rows]
    if hasattr(model, "predict_proba"):
        if not np.isin(data.reward, (0.0, 1.0)).all():
            raise ConfigurationError(
                f"{type(model).__name__} is a classifier, and the rewards are not all 0 or 1; use a regressor."
            )
        if reward.min() == reward.max():
            return float(reward[0])
        reward = reward.astype(np.int64)
    if data.weight is None:
        model.fit(_given(take(data.features, rows)), reward)
        return model
    model.fit(_given(take(data.features, rows)), reward, sample_weight=data.weight[rows])
    return model


def _probability(model: Any, x: Any) -> Any:
    classes = list(getattr(model, "classes_", (0, 1)))
    return np.asarray(model.predict_proba(x))[:, classes.index(1)]


def _given(table: Table) -> Any:
    return table.to_sparse() if isinstance(table, HashedFeatures) else table
