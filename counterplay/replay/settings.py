"""From an agent's settings to the records that the kernels run on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import UnsupportedError
from counterplay.replay.agents import (
    Bandit,
    BuiltIn,
    Constant,
    Exponential,
    Fixed,
    FixedPolicy,
    Hybrid,
    LogBarrier,
    Polynomial,
    Selector,
    Uniform,
)
from counterplay.replay.kernels import records
from counterplay.replay.kernels.records import BanditSettings, Bases, SelectorSettings, State, Tape
from counterplay.replay.prepared import PreparedLog, Table


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An agent ready to run on a log, with its state before the first round."""

    tape: Tape
    bases: Bases
    bandit: BanditSettings
    selector: SelectorSettings
    state: State
    learns: bool


def machine(prepared: PreparedLog, agent: BuiltIn, order: NDArray[np.int64]) -> Machine:
    """Set an agent up on a log, to meet its decisions in the given order."""
    _check_rewards(prepared, agent)
    tables = _tables(prepared, agent)
    bandit = agent if isinstance(agent, Bandit) else agent.bandit if isinstance(agent, Hybrid) else None
    if bandit is None:
        tape, settings, state = prepared.tape(None, order), _no_bandit(), _state(np.zeros((0, 0), np.float32), 0.0, 1)
    else:
        vectors, explore = prepared.action_vectors(bandit)
        tape = prepared.tape(vectors, order)
        prior = bandit.start == "embedding-prior"
        shape = (tape.contexts.shape[1], vectors.shape[1])
        weights = prepared.prior_weights(bandit) if prior else np.zeros(shape, np.float32)
        settings = _bandit_settings(bandit, explore)
        state = _state(weights, bandit.prior_bias if prior else 0.0, len(tables) + 1)
    return Machine(
        tape=tape,
        bases=_bases(agent, tables, len(prepared.log.context), bandit is not None),
        bandit=settings,
        selector=_selector_settings(agent),
        state=state,
        learns=bandit is not None,
    )


def _check_rewards(prepared: PreparedLog, agent: BuiltIn) -> None:
    """A logistic loss and the log-barrier selector are made for rewards in [0, 1]; elsewhere they go quietly wrong."""
    low, high = prepared.reward_range
    if low >= 0 and high <= 1:
        return
    bandit = agent if isinstance(agent, Bandit) else agent.bandit if isinstance(agent, Hybrid) else None
    found = f"log '{prepared.log.name}' has rewards from {low:g} to {high:g}"
    if isinstance(agent, Hybrid) and isinstance(agent.selector, LogBarrier):
        raise UnsupportedError(
            f"the log-barrier selector of '{agent.name}' needs rewards in [0, 1]; {found}: rescale them."
        )
    if bandit is not None and bandit.loss == "logistic":
        raise UnsupportedError(
            f"the logistic loss of '{agent.name}' needs rewards in [0, 1]; {found}: rescale them, or set "
            f'loss = "squared".'
        )


def _tables(prepared: PreparedLog, agent: BuiltIn) -> list[Table]:
    if isinstance(agent, Uniform):
        count = len(prepared.log.context)
        return [(np.full((count, 1), -1, np.int32), np.ones((count, 1)))]
    if isinstance(agent, Constant):
        return [prepared.constant(agent.action)]
    if isinstance(agent, FixedPolicy):
        return [prepared.table(agent.policy, agent.missing)]
    if isinstance(agent, Hybrid):
        return [prepared.table(model, agent.missing) for model in agent.models]
    return []


def _bases(agent: BuiltIn, tables: list[Table], decisions: int, learns: bool) -> Bases:
    members = len(tables) + learns
    width = max((actions.shape[1] for actions, _ in tables), default=1)
    if len(tables) == 1 and not learns:
        actions, weights = tables[0]
        table, weight = actions[None], weights[None]
    else:
        table = np.full((members, decisions if tables else 0, width), -1, np.int32)
        weight = np.zeros(table.shape)
        for i, (actions, weights) in enumerate(tables, start=int(learns)):
            table[i, :, : actions.shape[1]] = actions
            weight[i, :, : actions.shape[1]] = weights
    kinds = [records.BANDIT] * learns + [records.TABLE] * len(tables)
    is_model = isinstance(agent, Hybrid) or (isinstance(agent, FixedPolicy) and agent.calls)
    calls = [False] * learns + [is_model] * len(tables)
    return Bases(kind=np.array(kinds, np.int64), calls=np.array(calls, np.bool_), table=table, weight=weight)


def _bandit_settings(bandit: Bandit, explore: NDArray[np.int32]) -> BanditSettings:
    return BanditSettings(
        explore=explore,
        exploration=float(bandit.exploration_rate),
        exploration_delay=float(bandit.exploration_delay),
        learning_rate=float(bandit.learning_rate),
        learning_delay=float(bandit.learning_delay),
        logistic=bandit.loss == "logistic",
        bias=bandit.bias,
    )


def _no_bandit() -> BanditSettings:
    return BanditSettings(
        explore=np.zeros(0, np.int32),
        exploration=0.0,
        exploration_delay=1.0,
        learning_rate=0.0,
        learning_delay=1.0,
        logistic=True,
        bias=False,
    )


def _state(weights: NDArray[np.float32], bias: float, members: int) -> State:
    return State(
        weights=weights,
        mean=np.zeros_like(weights),
        square=np.zeros_like(weights),
        bias=np.array([bias, 0, 0], np.float32),
        inverse=np.full(members, float(members)),
        counts=np.zeros(2, np.int64),
    )


def _selector_settings(agent: BuiltIn) -> SelectorSettings:
    if not isinstance(agent, Hybrid):
        return _selector(Fixed(share=0.0), records.NO_BUDGET, 0)
    rule = records.HARD_STOP if agent.budget_rule == "hard-stop" else records.LINEAR
    if agent.budget is None:
        return _selector(agent.selector, records.NO_BUDGET, 0)
    return _selector(agent.selector, rule, agent.budget)


def _selector(selector: Selector, budget_rule: int, budget: int) -> SelectorSettings:
    kind, scale, decay, least, most = records.FIXED, 0.0, 0.0, 0.0, 1.0
    step, offset, played, smoothing, amount = 0.0, 0.0, False, records.NO_SMOOTHING, 0.0
    if isinstance(selector, Fixed):
        scale = selector.share
    elif isinstance(selector, Polynomial):
        kind, scale, decay, least, most = (
            records.POLYNOMIAL,
            selector.scale,
            selector.power,
            selector.least,
            selector.most,
        )
    elif isinstance(selector, Exponential):
        kind, scale, decay, least, most = (
            records.EXPONENTIAL,
            selector.scale,
            selector.rate,
            selector.least,
            selector.most,
        )
    elif isinstance(selector, LogBarrier):
        kind, step, played = records.LOG_BARRIER, selector.step, selector.weight == "played"
        offset = 1.0 if selector.loss == "one-minus-reward" else 0.0
        if selector.clip is not None:
            smoothing, amount = records.CLIP, selector.clip
        elif selector.mix is not None:
            smoothing, amount = records.MIX, selector.mix
    return SelectorSettings(
        kind=kind,
        scale=float(scale),
        decay=float(decay),
        least=float(least),
        most=float(most),
        step=float(step),
        loss_offset=offset,
        played_weight=played,
        smoothing=smoothing,
        smoothing_amount=float(amount),
        budget_rule=budget_rule,
        budget=budget,
    )
