"""Which configuration of a sweep is best, corrected for having looked at many: the winner's curse.

The highest of many averages is too high: it was chosen for its luck too. Three answers, all from sums that the results
hold for every agent, seed and group of decisions (``parts``), so that nothing is replayed:

- which configurations cannot be told from the best: paired differences on the same seeds and the same decisions,
  corrected for the number of rivals (Bonferroni);
- what the winner earns: chosen on half of the seeds and half of the decisions, judged on the other half of both, in all
  four ways;
- the same in sentences, with what they take for granted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from counterplay.errors import ConfigurationError, InputError, UnsupportedError
from counterplay.estimators.comparison.two_way import Sums, choose_by_halves, may_be_highest, spread_of
from counterplay.estimators.quantiles import t_quantile

FEW_SEEDS = 5
LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One configuration.

    - ``behind`` >= 0: by how much its average reward is below that of the best, and the ``std_error`` of that paired
      difference; None for the best itself.
    - ``may_be_best``: not significantly worse than any other. These configurations together hold the truly best one
      (where several are best, each of them) with the confidence of the whole.
    """

    agent: str
    average_reward: float
    behind: float | None
    std_error: float | None
    may_be_best: bool


@dataclass(frozen=True, kw_only=True)
class Half:
    """One way to choose on one half and judge on the other: the agent chosen, its average reward in the half where it
    was chosen, and in the other."""

    agent: str
    where_chosen: float
    elsewhere: float


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best configuration of a sweep; values in units of reward a round.

    - ``average_reward``, [``low``, ``high``]: the naive value of the winner, as if nothing had been searched.
    - ``corrected``, [``corrected_low``, ``corrected_high``]: the average over ``halves`` of what was chosen on one half
      and judged on the other; ``optimism`` is how much higher the naive value is. It is the value of choosing in this
      way from half as many seeds and decisions, so it errs on the low side where less data choose worse. None where a
      half has no rounds.
    - ``candidates``: every configuration, the highest first.
    - ``sentences``: all of it for people, with what it takes for granted.
    """

    agent: str
    average_reward: float
    low: float
    high: float
    corrected: float | None
    corrected_low: float | None
    corrected_high: float | None
    optimism: float | None
    level: float
    seeds: int
    rounds: int
    halves: tuple[Half, ...]
    candidates: tuple[Candidate, ...]
    sentences: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def best_of(results: Mapping[str, Any], *, level: float = 0.95) -> Best:
    """The best configuration of an experiment, and how sure that is.

    Args:
        results: what ``run_experiment`` returned, or ``read_experiments`` read.
        level: of the intervals and of the set of those that may be best.

    Of every method of replay but doubly robust: its values are estimates from all decisions, which its rounds do not
    add up to.

    Holds where seeds are exchangeable and groups of decisions (whole clusters, dealt out at random) are like
    independent draws: not for a log whose rewards drift while its order is kept, nor where rejection replay counted
    violations. Between S seeds there are S - 1 degrees of freedom: with 2 or 3 hardly anything can be told apart.

    Raises:
        UnsupportedError: the results have no agents, are of doubly robust replay, or come from a version that stored no
            sums.
        ConfigurationError: a level outside (0, 1).
        InputError: agents that were replayed under different numbers of seeds.
    """
    if not 0 < level < 1:
        raise ConfigurationError(f"level is {level}; it must lie between 0 and 1, 0.95 for 95 % intervals.")
    sums, names = _sums(results), [str(agent["agent"]) for agent in results["agents"]]
    top = int(np.argmax(sums.values()))
    candidates = _candidates(sums, names, top, may_be_highest(sums, level).tolist())
    value, low, high = _interval(Sums(sums.rewards[top : top + 1], sums.rounds[top : top + 1]), level)
    halved = choose_by_halves(sums)
    choices, judged = ([], None) if halved is None else halved
    corrected = (None, None, None) if judged is None else _interval(judged, level)
    found = {
        "agent": names[top],
        "average_reward": value,
        "low": low,
        "high": high,
        "corrected": corrected[0],
        "corrected_low": corrected[1],
        "corrected_high": corrected[2],
        "optimism": None if corrected[0] is None else value - corrected[0],
        "level": level,
        "seeds": sums.rewards.shape[1],
        "rounds": round(float(sums.rounds[top].sum()) / sums.rewards.shape[1]),
        "halves": tuple(Half(agent=names[one.agent], **_without_agent(one._asdict())) for one in choices),
        "candidates": candidates,
    }
    bare = Best(**found, sentences=())
    return Best(**found, sentences=tuple(_sentences(bare, results)))


def _without_agent(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choice.items() if key != "agent"}


def _sums(results: Mapping[str, Any]) -> Sums:
    agents = results.get("agents", ())
    if not agents:
        raise UnsupportedError(
            "these results have no agents, so there is none to be best: replay agents with `counterplay run`, or rank "
            "policies with `counterplay compare --all-pairs`."
        )
    if results["definition"].get("method") == "doubly-robust":
        raise UnsupportedError(
            "the values of doubly robust replay are estimates from all decisions, and rounds do not add up to them: "
            'none can be chosen on one half and judged on the other. Run the agents with method = "rejection" too.'
        )
    lacking = [agent["agent"] for agent in agents if "parts" not in agent]
    if lacking:
        raise UnsupportedError(
            f"these results hold no sums by seed and group of decisions for '{lacking[0]}': an earlier version stored "
            "them. Run the experiment again."
        )
    shapes = {np.shape(agent["parts"]["rewards"]) for agent in agents}
    shapes |= {np.shape(agent["parts"]["rounds"]) for agent in agents}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 2 or 0 in shape:
        raise InputError("the agents of these results were not replayed under the same seeds: they cannot be paired.")
    sums = Sums(*(np.array([agent["parts"][name] for agent in agents], np.float64) for name in Sums._fields))
    if not sums.rounds.sum(axis=(1, 2)).all():
        raise InputError("an agent of these results has no rounds: nothing can be said of it.")
    return sums


def _interval(one: Sums, level: float) -> tuple[float, float, float]:
    """The value of a single agent `(1, S, G)` with its interval."""
    value, (error, freedom) = float(one.values()[0]), spread_of(one.errors())
    margin = t_quantile(0.5 + level / 2, float(freedom[0])) * float(error[0])
    return value, value - margin, value + margin


def _candidates(sums: Sums, names: list[str], top: int, may_be_best: list[bool]) -> tuple[Candidate, ...]:
    values, errors = sums.values(), sums.errors()
    error, _ = spread_of(errors - errors[top])
    order = sorted(range(len(names)), key=lambda i: (-values[i], i != top, i))
    return tuple(
        Candidate(
            agent=names[i],
            average_reward=float(values[i]),
            behind=None if i == top else float(values[top] - values[i]),
            std_error=None if i == top else float(error[i]),
            may_be_best=may_be_best[i],
        )
        for i in order
    )


def _sentences(best: Best, results: Mapping[str, Any]) -> Iterator[str]:
    count, level = len(best.candidates), f"{best.level:.0%}"
    yield (
        f"'{best.agent}' has the highest average reward of {count:,} configurations: {best.average_reward:.4f}, "
        f"{level} interval {best.low:.4f} to {best.high:.4f}, over {best.seeds} seeds of {best.rounds:,} rounds."
    )
    yield _on_the_set([one.agent for one in best.candidates if one.may_be_best], count, level)
    yield from _on_the_search(best, level)
    if best.seeds == 1:
        yield "One seed: its luck is in every number above and in no interval. Run at least 5."
    elif best.seeds < FEW_SEEDS:
        yield (
            f"{best.seeds} seeds leave {best.seeds - 1} degrees of freedom between seeds: intervals are wide and few "
            "configurations are ruled out. Run more."
        )
    yield from _on_the_method(str(results["definition"].get("method")))
    violations = max((agent["acceptance"] or {}).get("violations", 0) for agent in results["agents"])
    if violations:
        yield (
            f"Rejection replay counted up to {violations:,.0f} violations a run: its constant is too large for some "
            "agents, whose averages are biased by more than these intervals know."
        )
    if results["definition"].get("order") == "logged":
        yield "The decisions were met in the order of the log: where its rewards drift, none of this holds."


def _on_the_method(method: str) -> Iterator[str]:
    if method == "bootstrapped":
        yield (
            "Bootstrapped replay shows each decision several times: agents that remember look better than they are, "
            "and are the likelier to be chosen."
        )
    if method in ("queues", "per-state"):
        yield (
            "All agents are judged on the rounds that every run of every agent survived: what they would have learned "
            "later is not in it."
        )


def _on_the_set(names: list[str], count: int, level: str) -> str:
    if count == 1:
        return "It was the only configuration: nothing was searched, and there is nothing to correct."
    if len(names) == 1:
        return f"It is better than every other, for all {count - 1:,} comparisons together at {level}."
    shown = ", ".join(f"'{name}'" for name in names[:LISTED])
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{len(names):,} of {count:,} cannot be told from the best at {level}, all together: {shown}{more}."


def _on_the_search(best: Best, level: str) -> Iterator[str]:
    if len(best.candidates) == 1:
        return
    if best.corrected is None or best.optimism is None:
        yield "There are too few rounds to choose on one half and judge on the other."
        return
    halved = "decisions" if best.seeds == 1 else "seeds and decisions"
    yield (
        f"Chosen on one half of the {halved} and judged on the other, the choice earns {best.corrected:.4f} ({level} "
        f"interval {best.corrected_low:.4f} to {best.corrected_high:.4f}): {_optimism(best.optimism)}."
    )
    chosen = Counter(half.agent for half in best.halves)
    if len(chosen) == 1:
        yield f"Every half chose '{best.halves[0].agent}'."
    else:
        told = ", ".join(f"'{name}' {times} of {len(best.halves)} times" for name, times in chosen.most_common())
        yield f"The halves did not agree on one: {told}."


def _optimism(optimism: float) -> str:
    if optimism <= 0:
        return "the luck of the search does not show"
    return f"{optimism:.4f} of the highest average is likely to be the luck of the search"
