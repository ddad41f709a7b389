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
    FixedPolicy,
    Hybrid,
    Learner,
    LinUCB,
    Uniform,
    learner_of,
)
from counterplay.replay.features import Features
from counterplay.replay.kernels import records
from counterplay.replay.kernels.records import BanditSettings, Bases, SelectorSettings, State, Tape
from counterplay.replay.prepared import PreparedLog, Table
from counterplay.replay.pretraining import pretrain
from counterplay.replay.selectors import Fixed, check_selector, selector_settings

_EXPLORING = {
    "spanner-greedy": records.GREEDY_MIX,
    "epsilon-greedy": records.GREEDY_MIX,
    "softmax": records.SOFTMAX,
    "igw": records.INVERSE_GAP,
    "spanner-igw": records.SPANNER_INVERSE_GAP,
    "thompson": records.THOMPSON,
}
_LEARNERS = {"adam": records.ADAM, "adagrad": records.ADAGRAD, "sgd": records.SGD}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """An agent ready to run on a log, with its state before the first round."""

    tape: Tape
    bases: Bases
    bandit: BanditSettings
    selector: SelectorSettings
    state: State
    learns: bool
    prior_calls: int
    """Calls made to pretrain the bandit."""


def machine(
    prepared: PreparedLog,
    agent: BuiltIn,
    order: NDArray[np.int64],
    batch: int = 32,
    rounds: int | None = None,
) -> Machine:
    """Set an agent up on a log, to meet its decisions in the given order, in batches of ``batch``.

    ``rounds``: how many rounds are expected, for selectors that have to know; default: one for each decision.
    """
    learner = learner_of(agent)
    _check_rewards(prepared, agent, learner, batch)
    tables = _tables(prepared, agent)
    features = None if learner is None else prepared.features(learner)
    tape = prepared.tape(features, order)
    settings = _no_bandit() if learner is None else _bandit_settings(learner, _of(features))
    state = _state(prepared, learner, features, len(tables) + (learner is not None))
    if isinstance(learner, Bandit) and learner.pretrain_on is not None:
        table = prepared.table(learner.pretrain_on, "uniform")
        pretrain(tape, settings, state, table, learner.pretrain_decisions, batch)
    return Machine(
        tape=tape,
        bases=_bases(agent, learner, tables, len(prepared.log.context)),
        bandit=settings,
        selector=_selector(agent, len(order) if rounds is None else rounds, batch),
        state=state,
        learns=learner is not None,
        prior_calls=int(state.counts[1]),
    )


def _of(features: Features | None) -> Features:
    assert features is not None
    return features


def _check_rewards(prepared: PreparedLog, agent: BuiltIn, learner: Learner | None, batch: int) -> None:
    """A logistic loss and some selectors are made for rewards in [0, 1]; elsewhere they go quietly wrong."""
    low, high = prepared.reward_range
    if isinstance(agent, Hybrid):
        where = f"'{agent.name}' on log '{prepared.log.name}'"
        check_selector(agent.selector, 1 + len(agent.models), batch=batch, rewards=(low, high), where=where)
    if (low < 0 or high > 1) and isinstance(learner, Bandit) and learner.loss == "logistic":
        raise UnsupportedError(
            f"the logistic loss of '{agent.name}' needs rewards in [0, 1]; log '{prepared.log.name}' has rewards from "
            f'{low:g} to {high:g}: rescale them, or set loss = "squared".'
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


def _bases(agent: BuiltIn, learner: Learner | None, tables: list[Table], decisions: int) -> Bases:
    learns = learner is not None
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
    asks = isinstance(learner, Bandit) and learner.answers is not None
    calls = [asks] * learns + [is_model] * len(tables)
    return Bases(kind=np.array(kinds, np.int64), calls=np.array(calls, np.bool_), table=table, weight=weight)


def _bandit_settings(learner: Learner, features: Features) -> BanditSettings:
    if isinstance(learner, Bandit):
        sampled = learner.exploration == "thompson"
        return BanditSettings(
            form=records.BILINEAR,
            learner=records.LAPLACE if sampled else _LEARNERS[learner.optimizer],
            exploring=_EXPLORING[learner.exploration],
            amount=float(learner.explored),
            delay=float(learner.exploration_delay),
            power=float(learner.decay),
            learning_rate=float(learner.learning_rate),
            learning_delay=float(learner.learning_delay),
            learning_power=0.5,
            logistic=learner.loss == "logistic",
            bias=learner.bias,
            shared=False,
            explore=features.explore,
            coefficients=features.coefficients,
        )
    optimistic = isinstance(learner, LinUCB)
    return _no_bandit()._replace(
        form=records.RIDGE,
        exploring=records.OPTIMISTIC if optimistic else records.THOMPSON,
        amount=float(learner.width if isinstance(learner, LinUCB) else learner.scale),
        shared=learner.model == "shared",
    )


def _no_bandit() -> BanditSettings:
    return BanditSettings(
        form=records.BILINEAR,
        learner=records.SGD,
        exploring=records.GREEDY_MIX,
        amount=0.0,
        delay=1.0,
        power=0.0,
        learning_rate=0.0,
        learning_delay=1.0,
        learning_power=0.0,
        logistic=True,
        bias=False,
        shared=False,
        explore=np.zeros(0, np.int32),
        coefficients=np.zeros((0, 0), np.float32),
    )


def _state(prepared: PreparedLog, learner: Learner | None, features: Features | None, members: int) -> State:
    weights, bias = np.zeros((0, 0), np.float32), 0.0
    models, width, ridge = 0, 0, 1.0
    if isinstance(learner, Bandit):
        shape = (_of(features).contexts.shape[1], _of(features).actions.shape[1])
        prior = learner.start == "embedding-prior"
        weights = prepared.prior_weights(learner) if prior else np.zeros(shape, np.float32)
        bias = learner.prior_bias if prior else 0.0
    elif learner is not None:
        d, shared, ridge = _of(features).contexts.shape[1], learner.model == "shared", learner.ridge
        width = d * _of(features).actions.shape[1] if shared else d
        models = 1 if shared else len(prepared.log.action_labels)
    sampled = isinstance(learner, Bandit) and learner.exploration == "thompson"
    return State(
        weights=weights,
        mean=np.zeros_like(weights),
        # The precision of a posterior begins at that of its prior.
        square=np.full_like(weights, 1.0 if sampled else 0.0),
        bias=np.array([bias, 0, 1.0 if sampled else 0.0], np.float32),
        covariance=np.broadcast_to(np.eye(width) / ridge, (models, width, width)).copy(),
        response=np.zeros((models, width)),
        theta=np.zeros((models, width)),
        inverse=np.full(members, float(members)),
        losses=np.zeros(members),
        counts=np.zeros(2, np.int64),
        ledger=np.zeros(4),
    )


def _selector(agent: BuiltIn, rounds: int, batch: int) -> SelectorSettings:
    batches = max(1, -(-rounds // batch))
    if not isinstance(agent, Hybrid):
        return selector_settings(Fixed(share=0.0), 1, batch=batch, batches=batches)
    return selector_settings(
        agent.selector,
        1 + len(agent.models),
        batch=batch,
        batches=batches,
        budget=agent.budget,
        money=agent.money,
        prices=agent.prices,
        budget_rule=agent.budget_rule,
    )
