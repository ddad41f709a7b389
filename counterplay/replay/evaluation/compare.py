"""Differences between policies on the same decisions of a log.

A difference needs the influence of every decision on both values, and those are known only when the values are: a
second look at the evidence. It is held in memory for that, as (P, n) numbers, which is quicker than to make it twice
and has a limit: as much as DuckDB may take beside it (1 GB, or ``COUNTERPLAY_MEMORY``). Without a reward model that is
25 million decisions of three policies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from counterplay.errors import ConfigurationError, UnsupportedError
from counterplay.estimators import Evidence, Standing, compare, compare_all, evaluate, rank_policies
from counterplay.estimators.table import resolve
from counterplay.estimators.terms import Estimator
from counterplay.logs.reading import Place
from counterplay.logs.survey import Survey
from counterplay.logs.workspace import borrowed, memory_bytes, memory_limit
from counterplay.replay.evaluation.answer import Evaluation, check_writable, hash_of_outputs, stored_answer
from counterplay.replay.evaluation.prepare import Prepared, prepare
from counterplay.replay.evaluation.question import Statement
from counterplay.replay.evaluation.source import Progress
from counterplay.replay.evidence import evidence_of
from counterplay.replay.named import LOGGING
from counterplay.replay.rows import difference_rows, estimate_rows


def compare_log(
    workspace: Place,
    log: str,
    policies: str | Sequence[str],
    baseline: str = LOGGING,
    estimator: str | Estimator = "snips",
    *,
    all_pairs: bool = False,
    level: float = 0.95,
    reward_model: str | None = "ridge",
    truth: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Policies against a baseline, or all against each other, on the same decisions; the results are stored.

    Args:
        workspace, log, policies, reward_model, truth, progress: as for `evaluate_log`.
        baseline: the policy that the others are compared with; it need not be among them. With ``all_pairs`` none is.
        estimator: one that is given by name.
        all_pairs: every policy minus every earlier one; intervals and p-values hold for all pairs together.
        level: of the intervals.
        seed: of the draws from the joint distribution of the estimates.

    Raises:
        UnsupportedError: the evidence does not fit into memory; with the mend. Else as `evaluate_log`.
    """
    names = [policies] if isinstance(policies, str) else list(policies)
    if not all_pairs:
        names = [baseline, *(name for name in names if name != baseline)]
    if len(dict.fromkeys(names)) < 2:
        raise ConfigurationError(
            f"There is nothing to compare: '{names[0]}' is the only policy. Name another, or another baseline."
            if names
            else "No policy was asked for: name two, or one and a baseline."
        )
    chosen = resolve(estimator)
    check_writable(workspace)
    with borrowed(workspace) as opened:
        prepared = prepare(
            opened, log, names, [chosen], Statement(level=level, seed=seed),
            reward_model=reward_model, truth=truth, progress=progress, check=_check_room,
        )  # fmt: skip
        evidence = hold(prepared)
        estimates = evaluate(evidence, chosen, level)
        standings: list[Standing] = []
        if all_pairs:
            differences = compare_all(evidence, chosen, level=level, seed=seed)
            standings = rank_policies(evidence, chosen, level=level, seed=seed)
        else:
            differences = compare(evidence, baseline, chosen, level=level, seed=seed)
        definition = prepared.definition(
            "comparison", baseline=None if all_pairs else baseline, all_pairs=all_pairs, level=level, seed=seed
        )
        notes, outputs = prepared.notes(), hash_of_outputs(prepared.source)
    return stored_answer(
        workspace,
        prepared,
        name=f"{log}: {', '.join(names if all_pairs else names[1:])} against {'each other' if all_pairs else baseline}",
        definition=definition,
        outputs_hash=outputs,
        estimates=estimate_rows(estimates, prepared.truth.values),
        comparisons=difference_rows(differences, prepared.truth.values),
        standings=[standing.to_json() for standing in standings],
        notes=notes,
    )


def hold(prepared: Prepared) -> Evidence:
    """The evidence of all decisions, put together from that of the chunks."""
    source, rewards = prepared.source, prepared.rewards
    names = tuple(policy.name for policy in source.policies)
    n, held = source.survey.decisions, {}
    for chunk in source.chunks("evidence"):
        part = evidence_of(chunk, source.policies, rewards)
        for field in ("reward", "propensity", "target", "q_logged", "q_target", "cluster"):
            values: NDArray[np.generic] | None = getattr(part, field)
            if values is not None:
                if field not in held:
                    held[field] = np.empty((*values.shape[:-1], n), values.dtype)
                held[field][..., chunk.start : chunk.start + len(chunk)] = values
    return Evidence(**held, policies=names)  # type: ignore[arg-type]


def _check_room(survey: Survey, policies: int, model: bool) -> None:
    columns = 2 + policies + (1 + policies) * model + survey.grouped
    needed, room = 8.0 * columns * survey.decisions, memory_bytes(memory_limit())
    if needed > room:
        raise UnsupportedError(
            f"A comparison holds its evidence in memory: {policies} policies on {survey.decisions:,} decisions take "
            f"{needed / 1e9:.1f} GB, and {room / 1e9:.1f} GB are allowed. Set COUNTERPLAY_MEMORY="
            f"{int(needed / 1e9) + 1}GB in the environment, or compare fewer policies"
            f"{', or by an estimator without a reward model' if model else ''}."
        )
