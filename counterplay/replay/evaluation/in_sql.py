"""The importance family folded inside DuckDB: one aggregate, and no decision leaves the database.

For policies whose probability of the logged action is an expression of the decision's own columns, estimators that
need no reward model, and logs without clusters. The sums are those of the compiled pass (`estimators/family.py`) and
give the same estimates to about 1e-12; whatever else is asked is streamed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from counterplay.estimators import Estimator, Statistic
from counterplay.estimators.answers import Rewards
from counterplay.estimators.evidence import Array
from counterplay.estimators.family import FamilySums, distinct_members
from counterplay.estimators.statistic import statistic_of_sums
from counterplay.estimators.tuning import Tuned
from counterplay.estimators.weighted import Shrinkage, Weighted
from counterplay.estimators.weights import TAIL
from counterplay.logs.relations import decisions_of
from counterplay.logs.survey import Survey
from counterplay.logs.workspace import Workspace
from counterplay.replay.named import ConstantPolicy, LoggingPolicy, NamedPolicy, UniformPolicy

MOST = 60
"""Policies times members in one aggregate; with more the compiled pass is as fast."""

SUMS = (
    "sum({g})", "sum({a})", "sum({a} * {a})", "sum({a} * {g})", "sum({g} * {g})", "sum({a} * {a} * {a})",
    "sum({a} * {a} * {a} * {a})", "sum(abs({w} - {g}))",
)  # fmt: skip
BESIDE = ("sum({a} * r)", "sum({g} * r)")
"""For members whose baseline is the reward."""

FALLING = ("count(*) FILTER ({g} = 0)", "max({g})")
"""For shrinkages that do not rise with the weight; of the others both follow from the weights."""

ROUNDING = 1e-12
"""The relative error of sums over a whole log, with room: what varies less than that does not vary."""

DIGITS = 1e-3
"""Spreads below this part of the raw sums have lost too many digits to them."""


def can_be_summed(survey: Survey, policies: Sequence[NamedPolicy], estimators: Sequence[Estimator]) -> bool:
    """Whether `statistic_in_sql` can answer."""
    members = [e.terms for e in estimators if isinstance(e.terms, Weighted)]
    return (
        len(members) == len(estimators)
        and not any(isinstance(e, Tuned) or "q_target" in e.needs for e in estimators)
        and not survey.grouped
        and survey.propensities == survey.decisions
        and all(_target(policy, survey) is not None for policy in policies)
        and len(policies) * len(distinct_members(members)) <= MOST
    )


def statistic_in_sql(
    workspace: Workspace, survey: Survey, policies: Sequence[NamedPolicy], estimators: Sequence[Estimator]
) -> Statistic | None:
    """The statistic of all decisions of a log, where `can_be_summed`.

    None where the sums are too large beside what varies in them: rewards far from 0, or nearly all the same. Folding
    the decisions block by block loses nothing then.
    """
    members = distinct_members([e.terms for e in estimators if isinstance(e.terms, Weighted)])
    count = len(policies)
    weights = [f"{_target(policy, survey)} / propensity AS w{p}" for p, policy in enumerate(policies)]
    shrunk = [f"{_shrink(m.shrinkage, f'w{p}')} AS g{p}_{i}" for p in range(count) for i, m in enumerate(members)]
    terms = [f"g{p}_{i} * r AS a{p}_{i}" for p in range(count) for i in range(len(members))]
    sums = [
        one.format(w=f"w{p}", g=f"g{p}_{i}", a=f"a{p}_{i}") if one in _wanted(m) else "0"
        for p in range(count)
        for i, m in enumerate(members)
        for one in (*SUMS, *BESIDE, *FALLING)
    ]
    whole = any(m.shrinkage.kind == "none" for m in members)
    asked = [
        "count(*)", "min(r)", "max(r)", "count(*) FILTER (r != 0 AND r != 1)", "sum(r)", "sum(r * r)",
        *(f"max(w{p}, {TAIL if whole else 1})" for p in range(count)),
        *(f"count(*) FILTER (w{p} = 0)" for p in range(count)), *sums,
    ]  # fmt: skip
    with workspace.connection.cursor() as connection:
        rows = decisions_of(connection, survey.log)
        query = f"""SELECT {", ".join(asked)} FROM (SELECT *, {", ".join(terms)} FROM (SELECT *, {", ".join(shrunk)}
            FROM (SELECT reward AS r, {", ".join(weights)} FROM {rows})))"""
        found = connection.execute(query).fetchall()[0]
    n, low, high, odd, r, rr = found[:6]
    tails = tuple(np.sort(np.array([w for w in tail if w > 0])) for tail in found[6 : 6 + count])
    zeros = np.array(found[6 + count : 6 + 2 * count], dtype=np.float64)
    folded = np.array(found[6 + 2 * count :], dtype=np.float64).reshape(count, len(members), -1)
    family = _family(n, members, folded, (r, rr), zeros, tails, whole)
    if not _has_digits(family):
        return None
    return statistic_of_sums(
        tuple(policy.name for policy in policies),
        estimators,
        family,
        Rewards(low=low, high=high, binary=odd == 0, predicted=(np.inf, -np.inf)),
    )


def _family(
    n: int,
    members: list[Weighted],
    sums: Array,
    reward: tuple[float, float],
    none: Array,
    tails: tuple[Array, ...],
    whole: bool,
) -> FamilySums:
    g, a, aa, ag, gg, a3, a4, moved, ar, gr, zeros, largest = np.moveaxis(sums, 2, 0).copy()
    beside = np.array([member.baseline == "reward" for member in members], dtype=np.float64)
    r, rr = reward[0] * beside + 0 * g, reward[1] * beside + 0 * g
    first = np.stack([a, g, r], axis=2) / n
    second = np.empty((*g.shape, 3, 3))
    for (i, j), raw in {
        (0, 0): aa,
        (0, 1): ag,
        (0, 2): ar * beside,
        (1, 1): gg,
        (1, 2): gr * beside,
        (2, 2): rr,
    }.items():
        second[..., i, j] = second[..., j, i] = raw
    spread = second - n * first[..., :, None] * first[..., None, :]
    # What does not vary leaves rounding of its square, of either sign, and of its products.
    still = np.einsum("...ii->...i", spread) <= ROUNDING * np.einsum("...ii->...i", second)
    spread[still[..., :, None] | still[..., None, :]] = 0.0
    heaviest = np.array([tail[-1] if len(tail) else 0.0 for tail in tails])
    for i, member in enumerate(members):
        if FALLING[0] not in _wanted(member):
            zeros[:, i], largest[:, i] = none, member.shrinkage.apply(heaviest)
    return FamilySums(
        n=n, members=members, mean=first, spread=spread, powers=np.stack([a3, a4], axis=2), zeros=zeros,
        largest=largest, moved=moved, heaviest=heaviest, tail=tails if whole else (),
    )  # fmt: skip


def _has_digits(sums: FamilySums) -> bool:
    mean, spread = sums.mean, sums.spread
    raw = spread[..., 0, 0] + sums.n * mean[..., 0] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.nan_to_num(mean[..., 0] / mean[..., 1])
    about = spread[..., 0, 0] - 2 * value * spread[..., 0, 1] + value**2 * spread[..., 1, 1]
    least = np.minimum(spread[..., 0, 0], about)
    return bool(np.isfinite(raw).all() and ((least > DIGITS * raw) | (raw == 0)).all())


def _wanted(member: Weighted) -> tuple[str, ...]:
    beside = BESIDE if member.baseline == "reward" else ()
    sums = SUMS[:-1] if member.shrinkage.kind == "none" else SUMS
    return (*sums, *beside, *(FALLING if member.shrinkage.kind in ("switch", "optimistic") else ()))


def _target(policy: NamedPolicy, survey: Survey) -> str | None:
    """The policy's probability of the logged action as SQL, or None where it is none of the decision's own columns."""
    if isinstance(policy, UniformPolicy):
        return "1.0 / len(candidates)" if survey.candidates else _double(1.0 / len(survey.action_labels))
    if isinstance(policy, LoggingPolicy):
        return "propensity"
    if isinstance(policy, ConstantPolicy) and not survey.candidates:
        return f"CAST(action = {policy.action} AS DOUBLE)"
    return None


def _shrink(shrinkage: Shrinkage, w: str) -> str:
    """g(w) as SQL: the table of `Shrinkage`."""
    at = _double(shrinkage.parameter)
    return {
        "none": w,
        "clip": f"least({w}, {at})",
        "subgaussian": f"CASE WHEN {w} > 0 THEN {w} / (1 - {at} + {at} * {w}) ELSE 0 END",
        "switch": f"CASE WHEN {w} <= {at} THEN {w} ELSE 0 END",
        "optimistic": f"{w} / ({w} * ({w} / {at}) + 1)",
    }[shrinkage.kind]


def _double(value: float) -> str:
    """Written as a text, since a bare number with a point is a decimal of few digits."""
    return f"CAST('{float(value)!r}' AS DOUBLE)"
