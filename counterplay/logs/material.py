"""What a program hands over to be written as a log: arrays, checked against each other before anything is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from counterplay.errors import InputError, nearest
from counterplay.logs.log import REGIMES, Floats, Ints, Outcomes, Singles, check_range, set_array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class DecisionArrays:
    """n decisions as arrays, in order.

    `context` (n,) int: rows of the log's contexts. `ids`: n texts, or None for "0", "1", ... `candidates` (n, S) int
    padded with -1 at the end, or None when every action is allowed. `action` (n,) int, -1 unknown. `propensity`,
    `reward`, `cost` (n,) float, NaN unknown. `cluster`: n texts or None each. What is None is unknown in every
    decision.
    """

    context: Ints
    ids: Sequence[str] | None = None
    candidates: Ints | None = None
    action: Ints | None = None
    propensity: Floats | None = None
    reward: Floats | None = None
    cost: Floats | None = None
    cluster: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        set_array(self, "context", np.int32, 1)
        for name, kind, dimensions in (
            ("candidates", np.int32, 2),
            ("action", np.int32, 1),
            ("propensity", np.float64, 1),
            ("reward", np.float64, 1),
            ("cost", np.float64, 1),
        ):
            if getattr(self, name) is not None:
                set_array(self, name, kind, dimensions)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.context):
                raise InputError(f"decisions.{field.name} has {len(value)} rows; context has {len(self.context)}.")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Everything that `write_log` was given; hashed field by field."""

    regime: str
    description: str | None
    context_ids: Sequence[str]
    context_texts: Sequence[str] | None
    context_features: Singles | None
    action_labels: Sequence[str]
    action_texts: Sequence[str] | None
    action_features: Singles | None
    outcomes: Outcomes | None
    decisions: DecisionArrays

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise InputError(f"'{self.regime}' is no regime of evidence. {nearest(self.regime, REGIMES)}")
        contexts, actions = len(self.context_ids), len(self.action_labels)
        for what, names, length in (
            ("context", ("texts", "features"), contexts),
            ("action", ("texts", "features"), actions),
        ):
            for name in names:
                value = getattr(self, f"{what}_{name}")
                if value is not None and len(value) != length:
                    raise InputError(f"{what}_{name} has {len(value)} rows; there are {length} {what}s.")
        for what, values in (
            ("context_ids", self.context_ids),
            ("action_labels", self.action_labels),
            ("decisions.ids", self.decisions.ids or ()),
        ):
            if len(set(values)) < len(values):
                raise InputError(f"{what} holds a value twice; each must be there once.")
        if self.outcomes is not None:
            if len(self.outcomes.offsets) != contexts + 1:
                raise InputError(
                    f"The outcomes are of {len(self.outcomes.offsets) - 1} contexts; there are {contexts}."
                )
            check_range("outcomes.actions", self.outcomes.actions, 0, actions)
        check_range("decisions.context", self.decisions.context, 0, contexts)
        _check_decisions(self.decisions, actions)


def _check_decisions(decisions: DecisionArrays, actions: int) -> None:
    """What an import would quarantine is refused here: arrays come from a program, which can be mended."""
    action, candidates, propensity = decisions.action, decisions.candidates, decisions.propensity
    if action is not None:
        check_range("decisions.action", action, -1, actions)
    if candidates is not None:
        check_range("decisions.candidates", candidates, -1, actions)
        check_rows("decisions.candidates", candidates)
        if action is not None:
            outside = (action >= 0) & (candidates >= 0).any(axis=1) & ~(candidates == action[:, None]).any(axis=1)
            if outside.any():
                raise InputError(f"The action of decision {np.argmax(outside)} is not among its candidates.")
    if propensity is not None:
        wrong = ~np.isnan(propensity) & ~((propensity > 0) & (propensity <= 1))
        if wrong.any():
            raise InputError(
                f"The propensity of decision {np.argmax(wrong)} is {propensity[wrong][0]}; it must be in (0, 1]."
            )
    for name in ("reward", "cost"):
        values = getattr(decisions, name)
        if values is not None and np.isinf(values).any():
            raise InputError(f"The {name} of decision {np.argmax(np.isinf(values))} is infinite.")


def check_rows(name: str, rows: Ints) -> None:
    """Refuse rows of actions that are padded with -1 anywhere but at the end, or that name an action twice."""
    if ((rows[:, 1:] >= 0) & (rows[:, :-1] < 0)).any():
        raise InputError(f"{name} must be padded with -1 at the end of a row only.")
    ordered = np.sort(rows, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise InputError(f"{name} hold an action twice in a row; each must be there once.")
