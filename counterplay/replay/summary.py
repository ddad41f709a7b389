"""From the replays of one agent to its numbers: averages over seeds, uncertainty kept apart by its source, curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.playing import Played
from counterplay.replay.randomness import Purpose, uniforms

POINTS = 100
Z95 = 1.959963984540054
GROUPS = 40
"""The decisions of a log are dealt into so many groups at random; each replay leaves its sums in each of them."""
GROUP_SEED = 2**62
"""Far from any seed of a replay, so that the groups have nothing to do with the order in which one meets the log."""

Curves = dict[str, list[tuple[int, float]]]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What the numbers of a replay are made from. T rounds, in order.

    decision `(T,)` int32, reward `(T,)` float64, p_bandit `(T,)` float32, call `(T,)` bool, as in ``Replay``; alone
    `(T,)` float64, or `(0,)` where it was not asked for. length: how many rounds there were before ``cut``.
    acceptance, value (with its standard error), unsupported: as in ``Played``. prior_calls: made before the first
    round.
    """

    seed: int
    decision: NDArray[np.int32]
    reward: NDArray[np.float64]
    p_bandit: NDArray[np.float32]
    call: NDArray[np.bool_]
    alone: NDArray[np.float64]
    length: int
    acceptance: dict[str, float] | None
    value: tuple[float, float] | None
    unsupported: float | None
    prior_calls: int
    seconds: float

    def cut(self, rounds: int) -> Trace:
        """The first rounds only."""
        columns = {name: getattr(self, name)[:rounds] for name in COLUMNS}
        return Trace(**{**vars(self), **columns})


COLUMNS = ("decision", "reward", "p_bandit", "call", "alone")
KEPT = ("seed", "length", "acceptance", "value", "unsupported", "prior_calls", "seconds")


def trace_of(played: Played, seconds: float) -> Trace:
    """What to keep of a replay that took so many seconds."""
    replay = played.history
    return Trace(
        seed=replay.seed,
        decision=replay.decision.astype(np.int32),
        reward=replay.reward,
        p_bandit=replay.p_bandit,
        call=replay.call,
        alone=np.zeros(0) if replay.alone is None else replay.alone,
        length=len(replay.reward),
        acceptance=played.acceptance,
        value=played.value,
        unsupported=played.unsupported,
        prior_calls=replay.prior_calls,
        seconds=seconds,
    )


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One agent over S seeds at a common horizon of T rounds.

    ``average_reward`` is the mean over seeds of ``per_seed``: mean rewards or, in doubly robust replay, estimates.
    ``std_error_seeds`` is what other seeds (orders and draws) would change, ``std_error_log`` what other decisions
    (whole clusters of them) would change in all seeds together; ``std_error`` has both, and [``low``, ``high``] is
    value -+ 1.96 of it.
    ``prior_calls`` are calls made before the first round; ``model_calls`` does not count them.
    ``replicates``: of bootstrapped replay, their 2.5 % and 97.5 % quantiles and their standard deviation.
    ``survival``: of replay from queues, how long the runs were before they were cut at the common horizon, and the mean
    probability of actions never logged in the context at hand.
    ``alone``: the mean of what the bandit's own choices would have earned, and its standard error over seeds.
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
    prior_calls: float
    final_p_bandit: float
    per_seed: tuple[float, ...]
    acceptance: dict[str, float] | None
    replicates: dict[str, float] | None
    survival: dict[str, float] | None
    alone: dict[str, float | None] | None


def summarise(agent: str, traces: Sequence[Trace], cluster: NDArray[np.int64], *, replicates: bool = False) -> Summary:
    """The numbers of one agent from its replays, all of the same number of rounds; ``cluster`` `(n,)` numbers from 0
    the independent units that the n decisions of the log belong to. ``replicates``: whether the seeds are replicates of
    a bootstrap. Memory: one number a unit, beside the traces."""
    rounds = len(traces[0].reward)
    values = np.array([trace.reward.mean() if trace.value is None else trace.value[0] for trace in traces])
    value, std_error_seeds = float(values.mean()), _std_error(values)
    std_error_log = _std_error_log(traces, value, cluster)
    total = std_error_log if std_error_seeds is None else np.hypot(std_error_seeds, std_error_log)
    calls = float(np.mean([trace.call.sum() for trace in traces]))
    return Summary(
        agent=agent,
        seeds=len(traces),
        rounds=rounds,
        average_reward=value,
        std_error=float(total),
        std_error_seeds=std_error_seeds,
        std_error_log=std_error_log,
        low=float(value - Z95 * total),
        high=float(value + Z95 * total),
        model_calls=calls,
        model_share=calls / rounds,
        prior_calls=float(np.mean([trace.prior_calls for trace in traces])),
        final_p_bandit=float(np.mean([trace.p_bandit[-1] for trace in traces])),
        per_seed=tuple(float(one) for one in values),
        acceptance=_acceptance(traces),
        replicates=_replicates(values) if replicates else None,
        survival=_survival(traces),
        alone=_alone(traces),
    )


def _std_error(values: NDArray[np.float64]) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _std_error_log(traces: Sequence[Trace], value: float, cluster: NDArray[np.int64]) -> float:
    if traces[0].value is not None:
        # As if all seeds erred alike: they estimate from the same decisions.
        return float(np.mean([trace.value[1] for trace in traces if trace.value is not None]))
    shared, own = _log_variances(traces, value, cluster)
    # The spread between seeds holds the sampling of decisions too, but not what seeds have in common: the same log.
    return float(np.sqrt(shared if len(traces) == 1 else max(0.0, shared - own)))


def _replicates(values: NDArray[np.float64]) -> dict[str, float] | None:
    if len(values) < 2:
        return None
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return {"low": low, "high": high, "std_error": float(values.std(ddof=1))}


def _survival(traces: Sequence[Trace]) -> dict[str, float] | None:
    lacking = [trace.unsupported for trace in traces if trace.unsupported is not None]
    if not lacking:
        return None
    lengths = [trace.length for trace in traces]
    ends = {"shortest": float(min(lengths)), "mean": float(np.mean(lengths)), "longest": float(max(lengths))}
    return {**ends, "unsupported": float(np.mean(lacking))}


def _alone(traces: Sequence[Trace]) -> dict[str, float | None] | None:
    if not len(traces[0].alone):
        return None
    means = np.array([trace.alone.mean() for trace in traces])
    return {"average_reward": float(means.mean()), "std_error_seeds": _std_error(means)}


def _log_variances(traces: Sequence[Trace], value: float, cluster: NDArray[np.int64]) -> tuple[float, float]:
    """The variance of the mean with clusters over all seeds, and as if each seed had clusters of its own."""
    sums, squares = np.zeros(int(cluster.max()) + 1), 0.0
    for trace in traces:
        own = np.bincount(cluster[trace.decision], weights=trace.reward - value, minlength=len(sums))
        sums += own
        squares += float((own**2).sum())
    count = (len(traces) * len(traces[0].reward)) ** 2
    return float((sums**2).sum() / count), squares / count


def _acceptance(traces: Sequence[Trace]) -> dict[str, float] | None:
    reports = [trace.acceptance for trace in traces if trace.acceptance is not None]
    if not reports:
        return None
    return {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}


def groups_of(cluster: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of the ``GROUPS`` groups each decision `(n,)` belongs to: clusters are dealt out whole, in a random order
    that depends on nothing but their number."""
    codes, inverse = np.unique(cluster, return_inverse=True)
    place = np.empty(len(codes), np.int64)
    place[np.argsort(uniforms(GROUP_SEED, Purpose.ORDER, len(codes)), kind="stable")] = np.arange(len(codes)) % GROUPS
    return place[inverse]


def parts_of(traces: Sequence[Trace], group: NDArray[np.int64]) -> dict[str, list[list[float]]]:
    """The sum of rewards and the number of rounds of each seed in each group of decisions: what ``best_of`` needs."""
    places = [group[trace.decision] for trace in traces]
    sums = [
        np.bincount(place, weights=trace.reward, minlength=GROUPS) for place, trace in zip(places, traces, strict=True)
    ]
    return {
        "rewards": [own.tolist() for own in sums],
        "rounds": [np.bincount(place, minlength=GROUPS).tolist() for place in places],
    }


def curves(trace: Trace) -> Curves:
    """The run over time at up to 100 rounds: the average reward so far, the model calls so far, p of the bandit, and
    the average that the bandit alone would have earned so far where that was asked for."""
    rounds = len(trace.reward)
    at = np.unique(np.linspace(1, rounds, min(POINTS, rounds)).round().astype(np.int64))
    average = np.cumsum(trace.reward)[at - 1] / at
    calls = np.cumsum(trace.call)[at - 1].astype(np.float64)
    p_bandit = trace.p_bandit[at - 1].astype(np.float64)
    quantities = {"average_reward": average, "model_calls": calls, "p_bandit": p_bandit}
    if len(trace.alone):
        quantities["alone"] = np.cumsum(trace.alone)[at - 1] / at
    return {name: list(zip(at.tolist(), line.tolist(), strict=True)) for name, line in quantities.items()}


def mean_curves(lines: Sequence[Curves]) -> dict[str, list[list[float]]]:
    """Each curve averaged over the seeds, as [round, value] pairs."""
    result: dict[str, list[list[float]]] = {}
    for name, first in lines[0].items():
        values = np.mean([[value for _, value in line[name]] for line in lines], axis=0)
        result[name] = [[t, value] for (t, _), value in zip(first, values.tolist(), strict=True)]
    return result


def summary_json(summary: Summary) -> dict[str, Any]:
    """Plain values for JSON."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(summary).items()}


def beside_truth(summary: Summary, online: Sequence[float]) -> dict[str, Any] | None:
    """The true value with its own standard error, and whether the interval of the estimate holds it."""
    if not online:
        return None
    value = float(np.mean(online))
    return {
        "value": value,
        "std_error": float(np.std(online, ddof=1) / np.sqrt(len(online))),
        "seeds": len(online),
        "covered": bool(summary.low <= value <= summary.high),
    }
