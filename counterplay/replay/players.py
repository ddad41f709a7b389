"""Agents one decision at a time, for replays that do not read a log from front to back: the built-in ones as well as
those in plain Python."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from counterplay.replay import plain
from counterplay.replay.agents import BuiltIn
from counterplay.replay.kernels.bandit import begin_batch, learn_batch, probabilities, project, score_block
from counterplay.replay.kernels.bilinear import allowed_count, exploration_rate
from counterplay.replay.kernels.records import BANDIT, BILINEAR, State
from counterplay.replay.kernels.selection import (
    base_probabilities,
    credit,
    drawn_base,
    engage,
    needs_uncertainty,
    selector_step,
    settle,
    shares_now,
)
from counterplay.replay.kernels.work import work_for
from counterplay.replay.policies import allowed, spread
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.settings import machine

Floats = NDArray[np.float64]


class Player(Protocol):
    """An agent on a log, with what it has learned."""

    def law(self, row: int, luck: float) -> Floats:
        """Its probability of each allowed action of decision ``row`` `(S,)`; ``luck`` in [0, 1): of its own draws."""
        ...

    def learn(self, row: int, action: int, reward: float, luck: float) -> tuple[int, float]:
        """Learn that ``action`` earned ``reward``, in the decision last asked for; ``luck``: of who acted.

        Returns:
            who acted, and the probability with which base 0 was to act.
        """
        ...

    @property
    def calls(self) -> NDArray[np.bool_]:
        """Whether each base costs a call of a model when it acts."""
        ...

    @property
    def prior_calls(self) -> int:
        """Calls made before the first round."""
        ...

    @property
    def state(self) -> State | None:
        """What a built-in agent has learned."""
        ...


def player_of(
    prepared: PreparedLog, agent: BuiltIn | plain.Agent, seed: int, order: NDArray[np.int64], batch: int
) -> Player:
    """An agent at its beginning, to meet decisions of a log in about the number of ``order``."""
    if isinstance(agent, BuiltIn):
        return _BuiltInPlayer(prepared, agent, order, batch, prepared.luck(seed).explore)
    return _PlainPlayer(prepared, agent, seed)


class _PlainPlayer:
    calls = np.zeros(1, np.bool_)
    prior_calls = 0
    state = None

    def __init__(self, prepared: PreparedLog, agent: plain.Agent, seed: int) -> None:
        self._prepared, self._agent = prepared, agent
        self._learned: Any = agent.init(seed)

    def law(self, row: int, luck: float) -> Floats:
        del luck
        decision = plain._decision(self._prepared, row)
        return plain._probabilities(self._agent, self._learned, decision)

    def learn(self, row: int, action: int, reward: float, luck: float) -> tuple[int, float]:
        del luck
        self._learned = self._agent.learn(self._learned, plain._decision(self._prepared, row), action, reward)
        return 0, 1.0


class _BuiltInPlayer:
    """The same functions as the compiled loops of replay, called in the same order."""

    def __init__(
        self, prepared: PreparedLog, agent: BuiltIn, order: NDArray[np.int64], batch: int, batch_luck: Floats
    ) -> None:
        self._log, self._batch, self._batch_luck = prepared.log, batch, batch_luck
        self._engine = engine = machine(prepared, agent, order, batch)
        self._learns = bool(engine.bases.kind[0] == BANDIT)
        self._uncertain = self._learns and bool(needs_uncertainty(engine.selector.kind))
        self._work = work_for(engine.tape, engine.bandit, engine.state, max(batch, 1))
        members = len(engine.bases.kind)
        self._p, self._kept, self._losses = np.zeros(members), np.zeros((1, members)), np.zeros(members)
        self._laws = np.zeros((members, 0))
        self._columns = np.zeros(0, np.int32)
        self._rows: list[int] = []
        self._actions: list[int] = []
        self._rewards: list[float] = []
        self._bases: list[int] = []
        self._rounds = self._batches = 0
        self._begin()

    @property
    def calls(self) -> NDArray[np.bool_]:
        return self._engine.bases.calls

    @property
    def prior_calls(self) -> int:
        return self._engine.prior_calls

    @property
    def state(self) -> State | None:
        return self._engine.state if self._learns else None

    def _begin(self) -> None:
        engine = self._engine
        base_probabilities(engine.selector, engine.state, self._batches + 1, self._p)
        self._exploration = exploration_rate(engine.bandit, self._batches)
        if self._learns:
            luck = self._batch_luck[self._batches % len(self._batch_luck)]
            begin_batch(engine.bandit, engine.state, self._exploration, luck, self._work)

    def law(self, row: int, luck: float) -> Floats:
        engine, work = self._engine, self._work
        tape, bases, bandit, state = engine.tape, engine.bases, engine.bandit, engine.state
        count = allowed_count(tape.candidates, len(self._log.action_labels), row)
        self._columns = allowed(self._log, np.array([row]))[0, :count]
        self._laws = np.zeros((len(bases.kind), count))
        unsure = best = 0.0
        if self._learns:
            score_block(tape, bandit, state, np.array([row]), self._uncertain, work)
            unsure, best = work.unsure[0], work.best[0]
            probabilities(tape, bandit, state, self._exploration, luck, row, 0, work)
            self._laws[0] = work.p[:count]
        for i in range(int(self._learns), len(bases.kind)):
            self._laws[i] = spread(self._columns[None], bases.table[i, row][None], bases.weight[i, row][None])[0]
        shares_now(
            engine.selector, bases.calls, state.counts, state.ledger, self._p, self._kept, 0, unsure, best, self._rounds
        )
        return np.asarray(self._kept[0] @ self._laws)

    def learn(self, row: int, action: int, reward: float, luck: float) -> tuple[int, float]:
        engine = self._engine
        selector, state, calls = engine.selector, engine.state, engine.bases.calls
        shares = self._kept * self._laws[:, self._columns == action].sum(axis=1)
        base = drawn_base(shares, 0, float(shares.sum()), luck)
        engage(calls, selector.prices, state.counts, state.ledger, base)
        credit(selector, state, self._kept, np.array([base], np.int8), np.array([reward]), self._losses)
        share, self._rounds = float(np.float32(self._kept[0, 0])), self._rounds + 1
        self._rows.append(row)
        self._actions.append(action)
        self._rewards.append(reward)
        self._bases.append(base)
        if len(self._rows) == self._batch:
            self._update()
        return base, share

    def _update(self) -> None:
        engine = self._engine
        for base, reward in zip(self._bases, self._rewards, strict=True):
            settle(engine.bases.calls, engine.state.ledger, base, reward)
        selector_step(engine.selector, engine.state, self._losses)
        if self._learns:
            rows, rewards = np.array(self._rows, np.int64), np.array(self._rewards)
            if engine.bandit.form == BILINEAR:
                project(engine.tape, engine.bandit, engine.state, rows, self._work)
            actions = np.array(self._actions, np.int32)
            learn_batch(engine.tape, engine.bandit, engine.state, rows, actions, rewards, self._work)
        self._rows, self._actions, self._rewards, self._bases = [], [], [], []
        self._batches += 1
        self._begin()
