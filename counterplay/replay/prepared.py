"""A log made ready for replay: whatever all configurations of a sweep have in common, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import (
    ConfigurationError,
    InputError,
    MissingEvidenceError,
    MissingOutputError,
    UnsupportedError,
    nearest,
)
from counterplay.logs.log import Choices, Log
from counterplay.replay.agents import Bandit, Learner, LinTS, LinUCB
from counterplay.replay.features import Features, features_of
from counterplay.replay.kernels.records import Luck, Tape
from counterplay.replay.randomness import Purpose, shuffled, uniforms

Table = tuple[NDArray[np.int32], NDArray[np.float64]]

# Settings that change nothing in what a bandit sees, so that configurations of a sweep share their features.
_IRRELEVANT: dict[type[Learner], dict[str, Any]] = {
    Bandit: {
        "exploration_rate": 1.0,
        "exploration_delay": 1.0,
        "exploration_power": 1.0,
        "start": "zero",
        "pretrain_on": None,
        "pretrain_decisions": 1,
        "optimizer": "adam",
        "learning_rate": 0.0,
        "learning_delay": 1.0,
        "loss": "logistic",
        "bias": True,
        "prior_scale": 1.0,
        "prior_bias": 0.0,
    },
    LinUCB: {"width": 1.0, "ridge": 1.0},
    LinTS: {"scale": 1.0, "ridge": 1.0},
}


class PreparedLog:
    """A log, the stored policies that agents may use on it, and what is derived from both.

    Args:
        log: the log.
        choices: stored policies by name, as ``counterplay.logs.log.read_choices`` gives them.
    """

    def __init__(self, log: Log, choices: Mapping[str, Choices] | None = None) -> None:
        self.log = log
        self._choices = dict(choices or {})
        self._tables: dict[tuple[str, str], Table] = {}
        self._features: dict[Learner, Features] = {}
        self._luck: dict[int, Luck] = {}
        self._orders: dict[int, NDArray[np.int64]] = {}

    def part(self, rows: NDArray[np.int64]) -> PreparedLog:
        """Some decisions of the log, by position."""
        return PreparedLog(self.log.subset(rows), self._choices)

    def table(self, policy: str, missing: str) -> Table:
        """The stored policy ``policy`` for each decision: actions `(n, k)` and probabilities `(n, k)`."""
        key = (policy, missing)
        if key not in self._tables:
            self._tables[key] = self._make_table(policy, missing)
        return self._tables[key]

    def choices(self, policy: str) -> Choices:
        """The choices of a stored policy in each context."""
        if policy not in self._choices:
            raise InputError(
                f"log '{self.log.name}' has no stored policy '{policy}'. {nearest(policy, self._choices)} "
                f"`counterplay generate` stores a model's choices under a name."
            )
        return self._choices[policy]

    def _make_table(self, policy: str, missing: str) -> Table:
        stored = self.choices(policy)
        actions = stored.actions[self.log.context]
        weights = stored.probabilities[self.log.context]
        absent = actions[:, 0] < 0
        outside = self._outside(actions) & ~absent
        if missing == "stop" and (absent.any() or outside.any()):
            raise MissingOutputError(
                f"policy '{policy}' has no choice for {int(absent.sum()):,} and a choice that is not allowed for "
                f"{int(outside.sum()):,} of {len(actions):,} decisions of log '{self.log.name}'. Fill them with "
                f'`counterplay generate`, or set missing = "uniform" to play at random there.'
            )
        actions = actions.copy()
        actions[absent | outside] = -1
        return np.ascontiguousarray(actions), np.ascontiguousarray(weights)

    def _outside(self, actions: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which decisions `(n,)` have a choice in ``actions`` `(n, k)` that is not among their candidates."""
        if self.log.candidates is None:
            return np.zeros(len(actions), dtype=bool)
        result = np.zeros(len(actions), dtype=bool)
        for j in range(actions.shape[1]):
            column = actions[:, j : j + 1]
            result |= (column[:, 0] >= 0) & ~(self.log.candidates == column).any(axis=1)
        return result

    def constant(self, action: str) -> Table:
        """The policy that always plays ``action`` (a label, or ``best`` in hindsight), as a table."""
        labels = list(self.log.action_labels)
        if action == "best":
            if np.isnan(self.action_means).all():
                raise MissingEvidenceError(
                    f"log '{self.log.name}' knows no action's reward in every decision, so the best constant action is "
                    "not known: name an action."
                )
            index = int(np.nanargmax(self.action_means))
        elif action in labels:
            index = labels.index(action)
        else:
            raise ConfigurationError(f"log '{self.log.name}' has no action '{action}'. {nearest(action, labels)}")
        actions = np.full((len(self.log.context), 1), index, dtype=np.int32)
        actions[self._outside(actions)] = -1
        return actions, np.ones(actions.shape)

    @cached_property
    def action_means(self) -> NDArray[np.float64]:
        """The mean reward of each action over all decisions `(K,)`; NaN where it is not known in every one of them."""
        outcomes = self.log.outcomes
        if outcomes is None:
            raise UnsupportedError(
                f"log '{self.log.name}' has no outcome table, so the best constant action is not known: name an action."
            )
        times = np.bincount(self.log.context, minlength=len(outcomes.offsets) - 1).astype(np.float64)
        weights, size = np.repeat(times, np.diff(outcomes.offsets)), len(self.log.action_labels)
        listed = np.bincount(outcomes.actions, weights=weights, minlength=size)
        # A context that no decision has may have an unknown reward.
        earned = np.where(weights > 0, weights * outcomes.rewards, 0.0)
        gains = np.bincount(outcomes.actions, weights=earned, minlength=size)
        left = times.sum() - listed
        gains[left > 0] += left[left > 0] * outcomes.default
        return np.asarray(gains / times.sum())

    @cached_property
    def reward_range(self) -> tuple[float, float]:
        """The smallest and the largest reward that the log or its outcome table holds; (0, 0) where there is none."""
        outcomes = self.log.outcomes
        known = [self.log.reward] if outcomes is None else [self.log.reward, outcomes.rewards, [outcomes.default]]
        values = np.concatenate([np.asarray(part, dtype=np.float64) for part in known])
        values = values[np.isfinite(values)]
        return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)

    def features(self, learner: Learner) -> Features:
        """What a bandit sees of contexts and actions."""
        shape = replace(learner, name="", **_IRRELEVANT[type(learner)])
        if shape not in self._features:
            answers = learner.answers if isinstance(learner, Bandit) else None
            joined = None if answers is None else self._answers(answers)
            self._features[shape] = features_of(self.log, self._contexts, learner, joined)
        return self._features[shape]

    def _answers(self, policy: str) -> NDArray[np.float32]:
        """The features of a stored policy's choice in each context `(C, j)`, averaged where it has several; 0 where it
        has none."""
        if self.log.action_features is None:
            raise UnsupportedError(
                f"the answers of '{policy}' join the contexts as action features, which log '{self.log.name}' does not "
                "have."
            )
        stored = self.choices(policy)
        present = (stored.actions >= 0)[:, :, None]
        vectors = self.log.action_features[np.maximum(stored.actions, 0)] * stored.probabilities[:, :, None] * present
        return np.asarray(vectors.sum(axis=1), np.float32)

    def prior_weights(self, bandit: Bandit) -> NDArray[np.float32]:
        """W `(d, m)` such that x W z_a is the inner product of the features of x and a, times ``prior_scale``."""
        contexts, actions = self.log.context_features, self.log.action_features
        features = self.features(bandit)
        assert contexts is not None
        assert actions is not None
        if contexts.shape[1] != actions.shape[1]:
            raise ConfigurationError(
                f"start = \"embedding-prior\" needs contexts and actions in one space; log '{self.log.name}' has "
                f'{contexts.shape[1]} and {actions.shape[1]} dimensions. Start from "zero".'
            )
        solved = np.linalg.lstsq(features.actions.astype(np.float64), actions.astype(np.float64), rcond=None)[0]
        weights = np.zeros((features.contexts.shape[1], features.actions.shape[1]), np.float32)
        weights[: contexts.shape[1]] = solved.T * bandit.prior_scale
        return weights

    def luck(self, seed: int) -> Luck:
        """The draws of one seed, shared by all agents."""
        if seed not in self._luck:
            count = len(self.log.context)
            purposes = (Purpose.BASE, Purpose.EXPLORE, Purpose.ACTION, Purpose.ACCEPT)
            self._luck[seed] = Luck(*(uniforms(seed, purpose, count) for purpose in purposes))
        return self._luck[seed]

    def order(self, seed: int, shuffle: bool) -> NDArray[np.int64]:
        """The order in which a seed meets the decisions `(n,)`."""
        count = len(self.log.context)
        if not shuffle:
            return np.arange(count)
        if seed not in self._orders:
            self._orders[seed] = shuffled(seed, count)
        return self._orders[seed]

    @cached_property
    def _shared(self) -> dict[str, NDArray[np.generic] | float]:
        # Arrays from Arrow are read-only, which would be another type to the compiled kernels.
        log, outcomes = self.log, self.log.outcomes
        none = np.zeros((0, 0))
        return {
            "context": _owned(log.context, np.int32),
            "candidates": _owned(none if log.candidates is None else log.candidates, np.int32),
            "outcome_offsets": _owned(np.zeros(1) if outcomes is None else outcomes.offsets, np.int64),
            "outcome_actions": _owned(np.zeros(0) if outcomes is None else outcomes.actions, np.int32),
            "outcome_rewards": _owned(np.zeros(0) if outcomes is None else outcomes.rewards, np.float64),
            "default_reward": float("nan") if outcomes is None else float(outcomes.default),
            "action": _owned(log.action, np.int32),
            "propensity": _owned(log.propensity, np.float64),
            "reward": _owned(log.reward, np.float64),
        }

    @cached_property
    def _contexts(self) -> NDArray[np.float32] | None:
        features = self.log.context_features
        return None if features is None else _owned(features, np.float32)

    def tape(self, features: Features | None, order: NDArray[np.int64]) -> Tape:
        """The log as the kernels read it; ``features`` are what the bandit sees, None without a bandit."""
        empty = np.zeros((len(self.log.action_labels), 0), np.float32)
        shared: dict[str, Any] = self._shared
        return Tape(
            order=order,
            contexts=empty if features is None else features.contexts,
            actions=empty if features is None else features.actions,
            **shared,
        )


def _owned(array: NDArray[Any], kind: type[np.generic]) -> NDArray[Any]:
    return np.require(array, kind, ["C", "W"])
