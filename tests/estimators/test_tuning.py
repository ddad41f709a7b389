"""Parameters chosen by rules, Lepski's and least error: for each policy by itself, on other decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, EvidenceError
from counterplay.estimators import Evidence, evaluate, resolve, statistic_of
from counterplay.estimators.lepski import lepski
from counterplay.estimators.table import WITH_PARAMETER
from counterplay.estimators.tuning import LIMITS, SHARES, Tuned, halves_of


@pytest.mark.parametrize(
    ("values", "half_widths", "chosen"),
    [
        ([1.0], [0.5], 0),
        ([1.0, 1.1, 1.2], [0.4, 0.2, 0.1], 2),
        # 1 +- 0.4 meets 1.5 +- 0.2, and 2.1 +- 0.1 meets neither.
        ([1.0, 1.5, 2.1], [0.4, 0.2, 0.1], 1),
        # The third is apart from the first; that the fourth is near it again does not help.
        ([1.0, 1.1, 3.0, 1.0], [0.4, 0.3, 0.2, 0.1], 1),
        # Each meets its neighbour, but the last does not meet the first.
        ([0.0, 0.9, 1.8], [0.5, 0.5, 0.5], 1),
        ([np.nan, 1.0, np.nan, 1.1], [0.1, 0.4, np.nan, 0.1], 3),
        ([0.3, 0.1 + 0.2, 0.3], [0.0, 0.0, 0.0], 2),
        ([0.3, 0.4], [0.0, 0.0], 0),
        ([5.0, 1.0], [np.inf, 0.1], 1),
        ([np.nan, np.nan], [0.1, np.nan], -1),
    ],
)
def test_lepski_by_hand(values: list[float], half_widths: list[float], chosen: int) -> None:
    column = np.array(values)[:, None], np.array(half_widths)[:, None]
    assert lepski(*column).tolist() == [chosen]


def test_lepski_refuses_what_is_no_list_of_intervals() -> None:
    with pytest.raises(EvidenceError, match="must not be negative"):
        lepski([[1.0], [2.0]], [[0.1], [-0.1]])
    with pytest.raises(EvidenceError, match="do not fit"):
        lepski([[1.0], [2.0]], [[0.1]])


def _log(seed: int, n: int = 4000, least: float = 0.02) -> Evidence:
    """Rewards of 0 and 1, whatever is done; two actions, logged with chances from `least` on. Both policies earn 0.4.

    The first policy's weights are about even; the second always takes the first action.
    """
    rng = np.random.default_rng(seed)
    chance = rng.uniform(least, 1 - least, n)
    first = rng.random(n) < chance
    propensity = np.where(first, chance, 1 - chance)
    return Evidence(
        reward=(rng.random(n) < 0.4).astype(float),
        propensity=propensity,
        target=np.stack([propensity, first.astype(float)]),
        q_logged=np.full(n, 0.3),
        q_target=np.full((2, n), 0.3),
        policies=("even", "uneven"),
    )


@pytest.mark.parametrize("rule", ["slope", "mse"])
@pytest.mark.parametrize("name", WITH_PARAMETER)
def test_a_policy_does_not_inherit_the_choice_of_another(name: str, rule: str) -> None:
    # obp keeps the parameter of the first policy that it was tuned for.
    evidence = _log(1)
    together = evaluate(evidence, f"{name}({rule})")
    alone = [evaluate(evidence.part(slice(None), slice(p, p + 1)), f"{name}({rule})")[0] for p in (0, 1)]
    assert together == alone


def test_each_half_uses_what_the_other_half_chose() -> None:
    evidence = _log(2)
    statistic = statistic_of(evidence, "clipped_ips(mse)")
    tuned = resolve("clipped_ips(mse)")
    assert isinstance(tuned, Tuned)
    half = halves_of(evidence)
    grid = [evaluate(evidence.chosen(np.flatnonzero(half == own)), tuned.grid) for own in (0, 1)]
    for p, found in enumerate(statistic.estimate()):
        total = 0.0
        for own in (0, 1):
            other = grid[1 - own][p * len(LIMITS) : (p + 1) * len(LIMITS)]
            error = [(e.value - other[0].value) ** 2 + e.std_error**2 for e in other]
            used = grid[own][p * len(LIMITS) + int(np.argmin(error))]
            total += used.value * (half == own).sum()
        assert found.value == pytest.approx(total / len(evidence), rel=1e-12)


@pytest.mark.parametrize("rule", ["slope", "mse"])
def test_of_equal_estimates_the_weakest_shrinkage_is_chosen(rule: str) -> None:
    # On a uniform log of 10 actions the weights are 0 or 10: no limit changes the ratio of their sums.
    rng = np.random.default_rng(6)
    for n in (500, 5000):
        target = (rng.random((4, n)) < 0.1).astype(float)
        evidence = Evidence(reward=rng.random(n), propensity=np.full(n, 0.1), target=target)
        plain, tuned = evaluate(evidence, "snips"), evaluate(evidence, f"clipped_snips({rule})")
        assert {found.diagnostics.chosen for found in tuned} == {"inf"}
        assert [found.gate for found in tuned] == [found.gate for found in plain]


@pytest.mark.parametrize("rule", ["slope", "mse"])
def test_tuned_estimators_err_no_more_than_plain_ones(rule: str) -> None:
    names = ("ips", f"clipped_ips({rule})", f"subgaussian_ips({rule})", "dr", f"drps({rule})")
    found = [evaluate(_log(seed, 1000, least=0.001), names) for seed in range(300)]
    square = np.mean([[(e.value - 0.4) ** 2 for e in row] for row in found], axis=0).reshape(2, len(names))
    for tuned, plain in ((1, 0), (2, 0), (4, 3)):
        assert square[0, tuned] <= 1.05 * square[0, plain], names[tuned]
        assert square[1, tuned] <= 1.1 * square[1, plain], names[tuned]
    if rule == "slope":
        assert square[1, 4] < 0.8 * square[1, 3]


def test_a_settled_estimator_gives_the_terms_of_what_was_chosen() -> None:
    evidence = _log(3)
    for name in ("clipped_snips(mse)", "dros(slope)", "subgaussian_ips(mse)"):
        statistic = statistic_of(evidence, name)
        settled = statistic.settled(statistic.estimators[0])
        for ours, theirs in zip(evaluate(evidence, settled), statistic.estimate(), strict=True):
            assert ours.value == pytest.approx(theirs.value, rel=1e-12)
            # Their bias is hidden from an interval, so it is no shorter than without shrinkage.
            assert ours.std_error <= theirs.std_error * (1 + 1e-10)


def test_a_shard_with_decisions_of_one_half_only() -> None:
    evidence = _log(4)
    one = evidence.chosen(np.flatnonzero(halves_of(evidence) == 0)[:50])
    found = evaluate(one, "clipped_ips(slope)")[0]
    assert found.value is not None
    assert found.diagnostics.chosen.startswith("inf")


def test_clusters_stay_in_one_half() -> None:
    cluster = np.random.default_rng(0).integers(0, 100, 4000)
    half = halves_of(replace(_log(5), cluster=cluster))
    for code in range(100):
        assert len(np.unique(half[cluster == code])) == 1
    assert 30 <= np.bincount(half[np.unique(cluster, return_index=True)[1]])[0] <= 70


def test_grids_run_from_no_shrinkage_to_all() -> None:
    assert LIMITS[0] == np.inf
    assert LIMITS[-1] == 1
    assert SHARES[0] == 0
    assert SHARES[-1] == 1
    assert list(LIMITS) == sorted(LIMITS, reverse=True)
    assert list(SHARES) == sorted(SHARES)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"write 'dros\(0.5\)' or 'dros\(slope\)'"):
        resolve("dros(best)")
