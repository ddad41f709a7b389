"""From the replays of one agent to its numbers: averages over seeds, uncertainty kept apart by its source, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.single import Replay

POINTS = 100
Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One agent over S seeds at a common horizon of T rounds.

    ``std_error_seeds`` is what other seeds (orders and draws) would change, ``std_error_log`` what other decisions
    would change in all seeds together; ``std_error`` has both, and [``low``, ``high``] is value -+ 1.96 of it.
    """

    agent: str
    seeds: int
    rounds: int
    average_reward: float
    std_error: float
    std_error_seeds: float | None
    std_error_log: float
    low: float
    high: float
    model_calls: float
    model_share: float
    final_p_bandit: float
    per_seed: tuple[float, ...]
    acceptance: dict[str, float] | None


def summarise(replays: Sequence[Replay], decisions: int, rounds: int) -> Summary:
    """The numbers of one agent from its replays, each cut at ``rounds``; ``decisions`` is the length of the log."""
    rewards = np.stack([replay.reward[:rounds] for replay in replays])
    means = rewards.mean(axis=1)
    seeds = len(replays)
    value = float(means.mean())
    std_error_seeds = float(means.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else None
    shared, own = _log_variances(replays, rewards - value, decisions)
    # The spread between seeds holds the sampling of decisions too, but not what seeds have in common: the same log.
    std_error_log = float(np.sqrt(max(0.0, shared - own)))
    total = np.sqrt(shared) if std_error_seeds is None else np.hypot(std_error_seeds, std_error_log)
    calls = float(np.mean([replay.call[:rounds].sum() for replay in replays]))
    return Summary(
        agent=replays[0].agent,
        seeds=seeds,
        rounds=rounds,
        average_reward=value,
        std_error=float(total),
        std_error_seeds=std_error_seeds,
        std_error_log=std_error_log,
        low=float(value - Z95 * total),
        high=float(value + Z95 * total),
        model_calls=calls,
        model_share=calls / rounds,
        final_p_bandit=float(np.mean([replay.p_bandit[rounds - 1] for replay in replays])),
        per_seed=tuple(float(mean) for mean in means),
        acceptance=_acceptance(replays),
    )


def _log_variances(replays: Sequence[Replay], errors: NDArray[np.float64], decisions: int) -> tuple[float, float]:
    """The variance of the mean with decisions as clusters over the seeds, and as if every round were independent."""
    seeds, rounds = errors.shape
    sums = np.zeros(decisions)
    for replay, error in zip(replays, errors, strict=True):
        sums[replay.decision[:rounds]] += error
    return float((sums**2).sum() / (seeds * rounds) ** 2), float((errors**2).sum() / (seeds * rounds) ** 2)


def _acceptance(replays: Sequence[Replay]) -> dict[str, float] | None:
    reports = [asdict(replay.acceptance) for replay in replays if replay.acceptance is not None]
    if not reports:
        return None
    return {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}


def curves(replay: Replay, rounds: int) -> dict[str, list[tuple[int, float]]]:
    """The run over time at up to 100 rounds: the average reward so far, the model calls so far, p of the bandit."""
    at = np.unique(np.linspace(1, rounds, min(POINTS, rounds)).round().astype(np.int64))
    average = np.cumsum(replay.reward[:rounds])[at - 1] / at
    calls = np.cumsum(replay.call[:rounds])[at - 1]
    quantities = {"average_reward": average, "model_calls": calls, "p_bandit": replay.p_bandit[at - 1]}
    return {name: [(int(t), float(v)) for t, v in zip(at, line, strict=True)] for name, line in quantities.items()}


def summary_json(summary: Summary) -> dict[str, Any]:
    """Plain values for JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(summary).items()}
