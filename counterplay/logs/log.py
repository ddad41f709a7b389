"""A log in memory: plain arrays, read-only by convention, with one hash over all of them."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from counterplay.errors import InputError

REGIMES = ("full", "partial", "propensity", "observed")

Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Singles: TypeAlias = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """What actions would have earned in each of C contexts; sparse, in compressed rows.

    `offsets` (C+1,) int64: the entries of context c are offsets[c] to offsets[c+1]. `actions` int32, rising within a
    context; `rewards` float64 beside them. `default`: the reward of an action without an entry; NaN when it is unknown.
    """

    offsets: Longs
    actions: Ints
    rewards: Floats
    default: float = float("nan")

    def __post_init__(self) -> None:
        set_array(self, "offsets", np.int64, 1)
        set_array(self, "actions", np.int32, 1)
        set_array(self, "rewards", np.float64, 1)
        entries = len(self.actions)
        if (
            len(self.offsets) == 0
            or self.offsets[0] != 0
            or self.offsets[-1] != entries
            or np.any(np.diff(self.offsets) < 0)
        ):
            raise InputError(f"Outcome offsets must rise from 0 to the number of entries, {entries}.")
        if len(self.rewards) != entries:
            raise InputError(f"There are {entries} outcome actions but {len(self.rewards)} rewards; give one for each.")
        rising = np.diff(self.actions) > 0
        rising[self.offsets[(self.offsets > 0) & (self.offsets < entries)] - 1] = True
        if not rising.all():
            raise InputError("Outcome actions must rise within a context, each at most once: sort them first.")

    def reward(self, context: npt.ArrayLike, action: npt.ArrayLike) -> Floats:
        """The reward of each pair (arrays that broadcast against each other); NaN where it is unknown."""
        pairs = np.broadcast_arrays(np.asarray(context, np.int64), np.asarray(action, np.int64))
        rows, wanted = (np.atleast_1d(array) for array in pairs)
        low, high = self.offsets[rows], self.offsets[rows + 1]
        end = high
        # All pairs are searched at once: as many steps as the longest context needs, usually very few.
        while (open_ := low < high).any():
            middle = (low + high) // 2
            before = open_ & (self.actions[np.where(open_, middle, 0)] < wanted)
            low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
        found = low < end
        found[found] = self.actions[low[found]] == wanted[found]
        reward = np.full(rows.shape, self.default)
        reward[found] = self.rewards[low[found]]
        return reward.reshape(pairs[0].shape)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Choices:
    """What a policy that does not learn would do in each of C contexts.

    `actions` (C, k) int32 padded with -1; `probabilities` (C, k) float64 padded with 0. A context without a row is a
    miss: -1 in the first column.
    """

    log: str
    policy: str
    actions: Ints
    probabilities: Floats


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Log:
    """One log: n decisions in order, C contexts, K actions. Shapes and meanings: docs/contracts.md.

    `fingerprint` is a SHA-256 over all other fields; it is computed when it is not given.
    """

    name: str
    regime: str
    decision_ids: list[str]
    context: Ints
    context_ids: list[str]
    context_features: Singles | None
    action_labels: list[str]
    action_features: Singles | None
    candidates: Ints | None
    action: Ints
    propensity: Floats
    reward: Floats
    cost: Floats
    cluster: Longs
    outcomes: Outcomes | None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        set_array(self, "context", np.int32, 1)
        set_array(self, "action", np.int32, 1)
        set_array(self, "cluster", np.int64, 1)
        for name in ("propensity", "reward", "cost"):
            set_array(self, name, np.float64, 1)
        for name, kind in (("context_features", np.float32), ("action_features", np.float32), ("candidates", np.int32)):
            if getattr(self, name) is not None:
                set_array(self, name, kind, 2)
        self._check()
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", _fingerprint(self))

    def _check(self) -> None:
        n, contexts, actions = len(self.decision_ids), len(self.context_ids), len(self.action_labels)
        for name, length in (
            *((name, n) for name in ("context", "candidates", "action", "propensity", "reward", "cost", "cluster")),
            ("context_features", contexts),
            ("action_features", actions),
        ):
            value = getattr(self, name)
            if value is not None and len(value) != length:
                raise InputError(f"{name} of log '{self.name}' has {len(value)} rows; it needs {length}.")
        if self.regime not in REGIMES:
            raise InputError(f"'{self.regime}' is no regime of evidence. Known: {', '.join(REGIMES)}.")
        if self.outcomes is not None and len(self.outcomes.offsets) != contexts + 1:
            raise InputError(f"The outcomes of log '{self.name}' must cover its {contexts} contexts.")
        check_range("context", self.context, 0, contexts)
        check_range("action", self.action, -1, actions)
        if self.candidates is not None:
            check_range("candidates", self.candidates, -1, actions)

    def subset(self, rows: npt.ArrayLike) -> Log:
        """The decisions at these positions (n',) int, in this order; contexts, actions and outcomes stay whole.

        Its fingerprint is a hash of this log's and of the positions.
        """
        index = np.asarray(rows)
        if index.dtype == np.bool_:
            raise InputError("Positions are needed, not a mask: pass np.flatnonzero(mask).")
        index = index.astype(np.int64)
        digest = hashlib.sha256(self.fingerprint.encode() + index.astype("<i8").tobytes()).hexdigest()
        return dataclasses.replace(
            self,
            decision_ids=np.array(self.decision_ids, dtype=object)[index].tolist(),
            candidates=None if self.candidates is None else self.candidates[index],
            fingerprint=digest,
            **{
                name: getattr(self, name)[index]
                for name in ("context", "action", "propensity", "reward", "cost", "cluster")
            },
        )


def set_array(record: Any, name: str, kind: npt.DTypeLike, dimensions: int) -> None:
    """Put a field of a frozen record into its type, without a copy where it has it already."""
    value = np.ascontiguousarray(getattr(record, name), dtype=kind)
    if value.ndim != dimensions:
        raise InputError(f"{name} must have {dimensions} dimension{'s' if dimensions > 1 else ''}, not {value.ndim}.")
    object.__setattr__(record, name, value)


def check_range(name: str, values: npt.NDArray[Any], low: int, end: int) -> None:
    """Refuse indices outside low..end-1, naming the first."""
    wrong = (values < low) | (values >= end)
    if wrong.any():
        place = np.argwhere(wrong)[0]
        raise InputError(f"{name} {values[tuple(place)]} at row {place[0]} is outside {low} to {end - 1}.")


def _fingerprint(log: Log) -> str:
    digest = hashlib.sha256()
    for field in dataclasses.fields(log):
        if field.name != "fingerprint":
            digest_value(digest, field.name, getattr(log, field.name))
    return digest.hexdigest()


def digest_value(digest: Any, name: str, value: Any) -> None:
    """Add one named value to a hash: text, a list of texts, an array, a record of these, or None.

    Type and shape go in before the bytes, so that no two different values can look the same.
    """
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            digest_value(digest, f"{name}.{field.name}", getattr(value, field.name))
        return
    if isinstance(value, (list, tuple)):
        texts = [("" if text is None else text).encode() for text in value]
        sizes = [-1 if text is None else len(encoded) for text, encoded in zip(value, texts, strict=True)]
        digest_value(digest, f"{name}.sizes", np.array(sizes, dtype=np.int64))
        digest.update(b"".join(texts))
        return
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        digest.update(f"{name}:{data.dtype.str}{data.shape};".encode())
        digest.update(data.data)
        return
    digest.update(f"{name}={value!r};".encode())
