"""Estimates of policies from a log of any length: its chunks, folded one after another into a small statistic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from counterplay.estimators import Statistic, fold_shards
from counterplay.estimators.intervals import Bounds, Interval, Resampling
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed
from counterplay.replay.evaluation.answer import Evaluation, check_writable, hash_of_outputs, stored_answer
from counterplay.replay.evaluation.prepare import Prepared, prepare
from counterplay.replay.evaluation.question import ALL, Names, Statement
from counterplay.replay.evaluation.source import Progress
from counterplay.replay.evidence import evidence_of
from counterplay.replay.rows import estimate_rows


def evaluate_log(
    workspace: Place,
    log: str,
    policies: str | Sequence[str],
    estimators: Names = ALL,
    *,
    level: float = 0.95,
    interval: Interval = "t",
    bounds: Bounds | None = None,
    reward_model: str | None = "ridge",
    truth: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """What policies would have earned a decision, had they acted instead; the results are stored in the workspace.

    The log is read in chunks, once, and once more where a reward model is fitted (``logistic``: once more a step), so
    memory stays flat however long it is; with clusters it grows with their number. Decisions of one cluster count as
    one unit.

    Args:
        workspace: an open workspace, or its path.
        log: the log, with a logged action and a reward in every decision.
        policies: ``uniform``, ``logging``, ``always=LABEL``, or a stored policy; see ``replay/named.py``.
        estimators: names, or ``all``: what the log cannot serve is then left out, with the reason.
        level, interval, bounds: of the intervals, see ``estimators/intervals``.
        reward_model: for DM, DR and the like: ``ridge``, ``logistic`` (rewards in [0, 1] only), or ``none``;
            cross-fitted over 5 folds.
        truth: a log with an outcome table, whose exact values stand beside the estimates; default: the log itself, if
            it has one. Both are then read into memory.
        seed: of the intervals that resample.
        progress: called with (decisions done, decisions in all, what is being made of them).

    Raises:
        MissingEvidenceError: a decision has no logged action or reward; a named estimator needs what the log lacks.
        MissingOutputError: a stored policy has no choice, or one that is not allowed, in some decision.
        ConfigurationError: an unknown policy, action, estimator, interval or reward model.
        EvidenceError: the log shows that ``bounds`` are wrong. Nothing is stored then.
    """
    statement = Statement(level=level, interval=interval, bounds=bounds, seed=seed)
    check_writable(workspace)
    with borrowed(workspace) as opened:
        prepared = prepare(
            opened, log, policies, estimators, statement, reward_model=reward_model, truth=truth, progress=progress
        )
        statistic = statistic_of_log(prepared, statement.resampling)
        estimates = statistic.estimate(level, interval, bounds)
        definition = prepared.definition(
            "evaluation",
            level=level,
            interval=interval,
            reward_range=None if bounds is None else list(bounds.reward),
            largest_weight=None if bounds is None or math.isinf(bounds.weight) else bounds.weight,
            seed=seed,
        )
        notes, outputs = prepared.notes(), hash_of_outputs(prepared.source)
    return stored_answer(
        workspace,
        prepared,
        name=f"{log}: {', '.join(definition['policies'])}",
        definition=definition,
        outputs_hash=outputs,
        estimates=estimate_rows(estimates, prepared.truth.values),
        notes=notes,
    )


def statistic_of_log(prepared: Prepared, resampling: Resampling | None) -> Statistic:
    """The statistic of all decisions, from the evidence of one chunk after the other."""
    source, estimators = prepared.source, prepared.choice.estimators
    evidence = (evidence_of(chunk, source.policies, prepared.rewards) for chunk in source.chunks("evidence"))
    return fold_shards(evidence, estimators, resampling=resampling)
