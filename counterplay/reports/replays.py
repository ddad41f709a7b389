"""What only some methods of replay, or some settings, have to say of an agent: further columns of its table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from counterplay.reports.grid import Cell, Column, missing
from counterplay.reports.numbers import Scale, decimal, percent, significant, whole
from counterplay.reports.results import Result, Row


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A column, and what it says of an agent."""

    column: Column
    cell: Callable[[Row], Cell]


def extras(result: Result, unit: Scale) -> list[Extra]:
    """The further columns of the agents of one experiment; those that none of them needs are left out."""
    agents = result["agents"]
    found = []
    if any(agent.get("alone") for agent in agents):
        found.append(_alone(unit))
    if any(agent.get("std_error_log_subsampled") is not None for agent in agents):
        found.append(_subsampled(unit))
    if any(agent.get("replicates") for agent in agents):
        found.append(_replicates(unit))
    if any(agent.get("survival") for agent in agents):
        found += [_SURVIVED, _UNSUPPORTED]
    if any(agent["acceptance"] is not None for agent in agents):
        found += [_ACCEPTED, _VIOLATIONS]
    if any("effective_sample_size" in (agent["acceptance"] or {}) for agent in agents):
        found += [_EFFECTIVE, _MEAN_WEIGHT]
    return found


def _alone(unit: Scale) -> Extra:
    def cell(agent: Row) -> Cell:
        alone = agent.get("alone")
        if not alone:
            return missing("it has no bandit")
        error = alone["std_error_seeds"]
        note = "one seed" if error is None else f"standard error over seeds {unit.error(error)}"
        return Cell(text=unit.value(alone["average_reward"]), note=note)

    about = (
        "What the choices of its bandit would have earned in every round, whoever acted. The bandit learned from what "
        "was played, so this is not what it would earn without the models."
    )
    return Extra(column=Column(name="bandit's choices", about=about, rank=1), cell=cell)


def _subsampled(unit: Scale) -> Extra:
    def cell(agent: Row) -> Cell:
        error = agent.get("std_error_log_subsampled")
        return missing("a sub-sample had no rounds") if error is None else Cell(text=unit.error(error))

    about = (
        "The same as s.e. log, from replays on sub-samples of the log, where the agent learns from other decisions. 0: "
        "too small to be told from the luck of seeds."
    )
    return Extra(column=Column(name="s.e. sub-samples", about=about), cell=cell)


def _replicates(unit: Scale) -> Extra:
    def cell(agent: Row) -> Cell:
        found = agent.get("replicates")
        if not found:
            return missing("there are no two replicates")
        note = f"standard deviation {unit.error(found['std_error'])}"
        return Cell(text=unit.interval(found["low"], found["high"]), note=note)

    about = "The 2.5 % and 97.5 % quantiles of the replicates. Too narrow for an interval: all are drawn from one log."
    return Extra(column=Column(name="replicates", about=about), cell=cell)


def _lengths(agent: Row) -> Cell:
    survival = agent.get("survival")
    if not survival:
        return missing("its length is not known")
    note = f"on average {whole(survival['mean'])}, at most {whole(survival['longest'])}"
    return Cell(text=whole(survival["shortest"]), note=note)


def _unsupported(agent: Row) -> Cell:
    survival = agent.get("survival")
    return Cell(text=percent(survival["unsupported"])) if survival else missing("it is not known")


def _accepted(agent: Row) -> Cell:
    acceptance = agent["acceptance"]
    if acceptance is None:
        return missing("nothing is rejected")
    note = f"of {whole(acceptance['read'])} read; expected {whole(acceptance['expected'])}"
    return Cell(text=whole(acceptance["accepted"]), note=note)


def _violations(agent: Row) -> Cell:
    acceptance = agent["acceptance"]
    if acceptance is None:
        return missing("nothing is rejected")
    bad = acceptance["violations"] > 0
    return Cell(
        text=whole(acceptance["violations"]) if acceptance["violations"] >= 0.5 or not bad else "< 1",
        tone="missed" if bad else "",
        note=f"cut probability in all: {significant(acceptance['excess'])}" if bad else "",
    )


def _effective(agent: Row) -> Cell:
    found = (agent["acceptance"] or {}).get("effective_sample_size")
    return missing("it has no weights") if found is None else Cell(text=whole(found))


def _mean_weight(agent: Row) -> Cell:
    found = (agent["acceptance"] or {}).get("mean_weight")
    return missing("it has no weights") if found is None else Cell(text=decimal(found, 3))


_SURVIVED = Extra(
    column=Column(
        name="shortest run",
        about="Rounds until the first of its runs came to an empty queue. All agents are compared over the shortest "
        "run of all.",
    ),
    cell=_lengths,
)
_UNSUPPORTED = Extra(
    column=Column(
        name="never logged",
        about="Mean probability of actions that were never logged in the context at hand: they end a run.",
    ),
    cell=_unsupported,
)
_ACCEPTED = Extra(
    column=Column(
        name="accepted",
        about="Logged decisions that the agent could use, mean over seeds. Hold the pointer over a number for how many "
        "were read.",
    ),
    cell=_accepted,
)
_VIOLATIONS = Extra(
    column=Column(
        name="violations",
        about="Decisions with c pi/mu above 1, whose acceptance was cut: above 0 the replay is biased.",
    ),
    cell=_violations,
)
_EFFECTIVE = Extra(
    column=Column(
        name="effective n", about="So many unweighted decisions would know as much about a mean; mean over seeds."
    ),
    cell=_effective,
)
_MEAN_WEIGHT = Extra(
    column=Column(name="mean weight", about="1 in expectation where propensities are right; mean over seeds."),
    cell=_mean_weight,
)
