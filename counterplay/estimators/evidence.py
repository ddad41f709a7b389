"""Evidence: what replay leaves for each decision, checked once, when it is made.

Regimes. With known propensities every estimator of the importance family applies. Without them (`propensity=None`)
those estimators refuse by name, and only what needs no propensity is left. `Evidence.of_weights` takes weights that are
not a ratio of two probabilities as they are: kernels over continuous actions, weights from a classifier.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from counterplay.errors import EvidenceError

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Number = TypeVar("Number", bound=np.generic)

ROUNDING = 1e-9
"""How far above 1 a probability may stand: sums of softmax outputs end a few ulps above it."""

PARALLEL = 4_000_000
"""Values from which on threads cost less than they save."""

PIECE = 1 << 17
"""Values looked at together: 1 MiB, which the processor's second cache holds."""

SMALLEST_PROPENSITY = 1e-100
"""Below this a squared weight leaves the range of float64; no logging policy drew such an action."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Arrays over n decisions and P policies; never anything as wide as the number of actions.

    | field | shape | meaning |
    |---|---|---|
    | `reward` | (n,) | what the logged action earned |
    | `propensity` | (n,), None | the logging policy's probability of the logged action, in (0, 1] |
    | `target` | (P, n) | pi(logged action given context) of each policy, in [0, 1]; (n,) stands for one policy |
    | `q_logged` | (n,) or (P, n), None | a reward model's prediction for the logged action; (P, n): a model a policy |
    | `q_target` | (P, n), None | sum over candidates of pi times prediction |
    | `cluster` | (n,) int64, None | decisions that are not independent of each other share a code |
    | `policies` | P names | "policy 0", "policy 1", ... where none are given |
    | `start` | int, 0 | place of the first decision in its log; shards of one log say theirs |
    | `places` | (n,) int64, None | places of decisions that do not follow each other (see `chosen`) |
    | `weights` | (P, n), None | importance weights that stand in place of target / propensity (see `of_weights`) |
    | `assumption` | text, "" | what the evidence takes for granted; no estimate from it passes as `ok` |

    Arrays are kept as C-ordered float64 and must not be written to afterwards.
    Raises `EvidenceError` with the first bad row and how many there are.
    """

    reward: Array
    target: Array
    propensity: Array | None = None
    q_logged: Array | None = None
    q_target: Array | None = None
    cluster: Codes | None = None
    policies: tuple[str, ...] = ()
    start: int = 0
    places: Codes | None = None
    weights: Array | None = None
    assumption: str = ""

    def __post_init__(self) -> None:
        _put(self, "reward", _vector("reward", self.reward, None))
        n = len(self.reward)
        if n == 0:
            raise EvidenceError("The evidence has zero rows: nothing was logged, or a filter removed every decision.")
        _put(self, "target", _matrix("target", self.target, n, None))
        _put(self, "policies", _names(self.policies, len(self.target)))
        _finite("reward", self.reward, self.policies)
        _within("target", self.target, lambda a: (a >= 0) & (a <= 1 + ROUNDING), "in [0, 1]", self.policies)
        if self.propensity is not None:
            _put(self, "propensity", _vector("propensity", self.propensity, n))
            _check_propensity(self.propensity)
        if self.weights is not None:
            _put(self, "weights", _matrix("weights", self.weights, n, len(self.target)))
            _within("weights", self.weights, _is_weight, "a finite number, not negative", self.policies)
        if self.q_logged is not None:
            _put(self, "q_logged", _predictions(self.q_logged, n, len(self.target)))
            _finite("q_logged", self.q_logged, self.policies)
        if self.q_target is not None:
            _put(self, "q_target", _matrix("q_target", self.q_target, n, len(self.target)))
            _finite("q_target", self.q_target, self.policies)
        if self.cluster is not None:
            _put(self, "cluster", _codes("cluster", self.cluster, n))
        if self.places is not None:
            _put(self, "places", _codes("places", self.places, n))

    @classmethod
    def of_rewards(cls, reward: npt.ArrayLike, *, cluster: npt.ArrayLike | None = None, policy: str = "") -> Evidence:
        """Evidence of what one policy or agent earned where it acted itself: its accepted or its exact rewards (n,)."""
        rewards = _vector("reward", reward, None)
        codes = None if cluster is None else _codes("cluster", cluster, len(rewards))
        names = (policy,) if policy else ("logged",)
        return cls(reward=rewards, target=np.ones((1, len(rewards))), cluster=codes, policies=names)

    @classmethod
    def of_weights(
        cls,
        *,
        reward: npt.ArrayLike,
        weights: npt.ArrayLike,
        q_logged: npt.ArrayLike | None = None,
        q_target: npt.ArrayLike | None = None,
        cluster: npt.ArrayLike | None = None,
        policies: tuple[str, ...] = (),
        assumption: str = "",
    ) -> Evidence:
        """Evidence whose importance weights (P, n) are given: finite, not negative, 1 on average where they are right.

        For weights that are no ratio of two probabilities. `target` is taken to be 1 everywhere.
        """
        shape = np.shape(weights)
        fields: dict[str, Any] = {
            "reward": reward, "weights": weights, "q_logged": q_logged, "q_target": q_target, "cluster": cluster,
            "target": np.broadcast_to(1.0, shape if len(shape) == 2 else (1, *shape)),
        }  # fmt: skip
        return cls(**fields, policies=policies, assumption=assumption)

    def has(self, need: str) -> bool:
        """Whether a field is there; weights that were given stand for the propensity."""
        return getattr(self, need) is not None or (need == "propensity" and self.weights is not None)

    @cached_property
    def weight(self) -> Array:
        """(P, n) importance weights, target / propensity or those given: made once for all estimators that use them."""
        if self.weights is not None:
            return self.weights
        if self.propensity is None:
            raise EvidenceError("There are no weights without propensities.")
        return self.target / self.propensity

    def part(self, rows: slice, policies: slice = slice(None), *, clustered: bool = True) -> Evidence:
        """Decisions that follow each other and some policies, as views: nothing is copied and nothing is checked again.

        `clustered=False` leaves the clusters out.
        """
        part = self._select(rows, policies)
        _put(part, "start", self.start + rows.indices(len(self))[0])
        if not clustered:
            _put(part, "cluster", None)
        return part

    def chosen(self, rows: Codes) -> Evidence:
        """A copy of the decisions at `rows` (m,) of all policies; nothing is checked again."""
        part = self._select(rows, slice(None))
        _put(part, "places", self.position[rows])
        return part

    @property
    def position(self) -> Codes:
        """(n,) places of the decisions in their log."""
        return np.arange(self.start, self.start + len(self)) if self.places is None else self.places

    def _select(self, rows: slice | Codes, policies: slice) -> Evidence:
        part = object.__new__(Evidence)
        for field in fields(Evidence):
            value: Any = getattr(self, field.name)
            if field.name == "policies":
                value = value[policies]
            elif isinstance(value, np.ndarray):
                value = value[policies] if value.ndim == 2 else value
                # np.take keeps rows of policies in one piece, where indexing by an array may turn them over.
                value = value[..., rows] if isinstance(rows, slice) else np.take(value, rows, axis=-1)
            _put(part, field.name, value)
        return part

    def __len__(self) -> int:
        """The number of decisions."""
        return len(self.reward)


def distinct(codes: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """The different ones of some numbers (m,), ascending.

    What `np.unique` gives, sorted and not hashed: of a million different codes that takes 10 ms and not a second.
    """
    ordered = np.sort(codes)
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))] if len(ordered) else ordered


def _put(evidence: Evidence, name: str, value: Any) -> None:
    object.__setattr__(evidence, name, value)


def _floats(name: str, value: npt.ArrayLike) -> Array:
    if not isinstance(value, np.ndarray):
        value = np.asarray(value)
    if value.dtype.kind not in "fiub":
        raise EvidenceError(f"{name} holds {value.dtype} values; numbers are needed.")
    return np.ascontiguousarray(value, dtype=np.float64)


def _vector(name: str, value: npt.ArrayLike, n: int | None) -> Array:
    array = _floats(name, value)
    if array.ndim != 1:
        raise EvidenceError(f"{name} has shape {array.shape}; one number a decision is needed, shape (n,).")
    if n is not None and len(array) != n:
        raise EvidenceError(f"{name} has {len(array)} rows and reward has {n}; they describe the same decisions.")
    return array


def _predictions(value: npt.ArrayLike, n: int, policies: int) -> Array:
    if np.ndim(value) == 2:
        return _matrix("q_logged", value, n, policies)
    return _vector("q_logged", value, n)


def _is_weight(array: Any) -> Any:
    return (array >= 0) & np.isfinite(array)


def _matrix(name: str, value: npt.ArrayLike, n: int, policies: int | None) -> Array:
    array = _floats(name, value)
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] != n or (policies is not None and len(array) != policies) or not len(array):
        rows = "P" if policies is None else str(policies)
        raise EvidenceError(f"{name} has shape {array.shape}; ({rows}, {n}) is needed: policies by decisions.")
    return array


def _codes(name: str, value: npt.ArrayLike, n: int) -> Codes:
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise EvidenceError(f"{name} holds {array.dtype} values; integer codes are needed (np.unique gives them).")
    if array.shape != (n,):
        raise EvidenceError(f"{name} has shape {array.shape} and reward has {n} rows; one code a decision is needed.")
    return np.ascontiguousarray(array, dtype=np.int64)


def _names(policies: Sequence[str], count: int) -> tuple[str, ...]:
    if isinstance(policies, str):
        policies = (policies,)
    names = tuple(policies) or tuple(f"policy {i}" for i in range(count))
    if len(names) != count:
        raise EvidenceError(f"There are {len(names)} policy names for {count} rows of target; each row needs one.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvidenceError(f"Policy name '{twice[0]}' is used more than once; names tell the estimates apart.")
    return names


def _finite(name: str, array: Array, policies: tuple[str, ...]) -> None:
    _within(name, array, np.isfinite, "a finite number", policies)


def _within(name: str, array: Array, good: Callable[[Any], Any], what: str, policies: tuple[str, ...]) -> None:
    # The extremes decide (NaN propagates through both); only bad arrays pay for the search.
    if np.all(good(_extremes(array))):
        return
    bad = np.argwhere(~good(array))
    if not len(bad):
        return
    first = tuple(int(i) for i in bad[0])
    where = f"row {first[-1]}" + (f" (policy '{policies[first[0]]}')" if len(first) == 2 and len(policies) > 1 else "")
    more = f", and so are {len(bad) - 1} more" if len(bad) > 1 else ""
    raise EvidenceError(f"{name} at {where} is {array[first]:g}{more} of {array.size}; it must be {what}.")


def _extremes(array: Array) -> Array:
    """The least and the greatest value, NaN where any is: in one reading, by all processors where it is long."""
    flat = array.reshape(-1)
    if len(flat) < PARALLEL:
        return np.array([flat.min(), flat.max()])

    def of(values: Array) -> list[float]:
        pieces = [values[start : start + PIECE] for start in range(0, len(values), PIECE)]
        # The greatest is looked for while the piece is still in the cache.
        return [end for piece in pieces for end in (piece.min(), piece.max())]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ends = [end for found in pool.map(of, np.array_split(flat, os.cpu_count() or 1)) for end in found]
    return np.array([np.min(ends), np.max(ends)])


def _check_propensity(propensity: Array) -> None:
    low, high = _extremes(propensity)
    if low >= SMALLEST_PROPENSITY and high <= 1 + ROUNDING:
        return
    what = "in (0, 1]: a logged action has a positive probability"
    _within("propensity", propensity, lambda a: (a > 0) & (a <= 1 + ROUNDING), what, ())
    least = f"at least {SMALLEST_PROPENSITY:g}: its weight would overflow"
    _within("propensity", propensity, lambda a: a >= SMALLEST_PROPENSITY, least, ())
