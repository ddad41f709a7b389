"""Two tables of outcomes as truth machines: what must hold of estimates there, in small; docs/real-truth.md in full."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from counterplay.estimators import evaluate

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from real_truth import Work, _joined, do
from truth import page
from truth.draws import FIXED, GATES, draw_log, estimates, numbers
from truth.page import GROUPS
from truth.scores import Found, Setting, failures, score, trust
from truth.worlds import FILES, World, load


def _world(name: str) -> World:
    if not FILES[name].exists():
        pytest.skip(f"{name} is not at {FILES[name]}; set COUNTERPLAY_DATA")
    return load(name)


@pytest.fixture(scope="module")
def bfcl() -> Iterator[World]:
    # Many small fits: a second thread costs more than it brings.
    with threadpool_limits(1):
        yield _world("BFCL")


def _numbers(world: World, logger: str, estimators: tuple[str, ...], logs: int, n: int) -> np.ndarray:
    """(logs, estimators, policies, 4), as `numbers` gives them."""
    found = []
    for i in range(logs):
        estimates = evaluate(draw_log(world, logger, n, (5, i)).evidence, estimators)
        found.append([numbers([e for e in estimates if e.estimator == name]) for name in estimators])
    return np.array(found)


@pytest.mark.parametrize("name", list(FILES))
def test_a_world_is_a_full_table_with_known_policies(name: str) -> None:
    world = _world(name)
    contexts, actions = {"BFCL": (1400, 71), "CLINC150": (19_500, 150)}[name]
    assert world.reward.shape == (contexts, actions)
    assert len(set(world.policies)) == 20
    np.testing.assert_allclose(world.target.sum(axis=1), 1.0, rtol=1e-12)
    for logging in world.logging.values():
        np.testing.assert_allclose(logging.sum(axis=1), 1.0, rtol=1e-12)
    assert world.truth[world.policies.index("uniform")] == pytest.approx(world.reward.mean(), rel=1e-12)
    # The truth in another way: one context after another.
    rows = np.arange(0, contexts, 97)
    by_hand = [(world.target[c, :, 3] * world.reward[c]).sum() for c in rows]
    np.testing.assert_allclose(by_hand, np.einsum("ck,ck->c", world.reward[rows], world.target[rows, :, 3]))
    assert world.truth[world.policies.index("greedy")] > world.truth[world.policies.index("uniform")]


def test_mean_features_are_the_features_averaged_over_a_policys_actions(bfcl: World) -> None:
    context, actions = np.full(71, 11), np.arange(71)
    by_hand = bfcl.target[11].T @ bfcl.features(context, actions)
    np.testing.assert_allclose(bfcl.mean_features[:, 11], by_hand, rtol=1e-12, atol=1e-15)


def test_actions_are_drawn_as_the_logging_policy_draws_them(bfcl: World) -> None:
    draw = draw_log(bfcl, "poor support", 40_000, (1,))
    propensity = bfcl.logging["poor support"]
    assert (propensity[draw.context, draw.action] > 0).all()
    expected = propensity.mean(axis=0)
    shares = np.bincount(draw.action, minlength=71) / 40_000
    assert (np.abs(shares - expected) <= 4.5 * np.sqrt(expected / 40_000)).all()


def test_ips_and_dr_are_right_on_average_under_uniform_logging(bfcl: World) -> None:
    found = _numbers(bfcl, "uniform", ("ips", "dr"), logs=150, n=600)[..., 0]
    error = found.mean(axis=0) - bfcl.truth
    assert (np.abs(error) < 4 * found.std(axis=0, ddof=1) / np.sqrt(150)).all()


def test_the_t_interval_of_ips_covers_as_often_as_it_says(bfcl: World) -> None:
    n, logs = 1000, 150
    squares = np.einsum("ckp->p", bfcl.target**2 / bfcl.logging["uniform"][:, :, None]) / len(bfcl.reward)
    enough = n / squares > 200  # effective decisions: below, the mean of the terms is not normal
    assert enough.sum() >= 5
    found = _numbers(bfcl, "uniform", ("ips",), logs, n)[:, 0, enough]
    covered = ((found[..., 1] <= bfcl.truth[enough]) & (bfcl.truth[enough] <= found[..., 2])).mean(axis=0)
    assert (np.abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / logs)).all()


@pytest.mark.parametrize(
    "names",
    [
        GROUPS["unshrunken"],
        (*GROUPS["chosen by `slope`"], *FIXED),
    ],
    ids=["unshrunken", "shrunken"],
)
def test_what_was_never_logged_is_never_ok(names: tuple[str, ...], bfcl: World) -> None:
    unsupported = bfcl.supported["poor support"] < 0.9
    assert unsupported.sum() >= 10
    gates = _numbers(bfcl, "poor support", names, logs=5, n=2000)[..., 3]
    assert (gates[:, :, unsupported] != GATES.index("ok")).all()


def test_the_same_seed_gives_the_same_table(bfcl: World) -> None:
    assert bfcl.name == "BFCL"
    setting = Setting("BFCL", "uniform", 300)
    first, second, other = (
        page.tables({setting: _joined([do(work)])}, _joined([do(work._replace(of_intervals=True))]))
        for work in (Work(setting, 0, 1, 1), Work(setting, 0, 1, 1), Work(setting, 1, 1, 1))
    )
    assert first == second
    assert first != other


def test_logs_do_not_depend_on_how_the_work_is_cut(bfcl: World) -> None:
    assert bfcl.name == "BFCL"
    setting = Setting("BFCL", "poor support", 300)
    whole = do(Work(setting, 0, 3, 1)).numbers
    parts = [do(Work(setting, 0, 2, 1)).numbers, do(Work(setting, 2, 1, 0)).numbers]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_every_estimator_answers(bfcl: World) -> None:
    named = dict(estimates(draw_log(bfcl, "softmax", 1000, (3,))))
    assert {"ips", "dr", "mrdr", "mips", "offcem", "dros(mse)", "switch_dr(10)"} <= set(named)
    assert [e.value for e in named["dr, same logs"]] == [e.value for e in named["dr"]]
    assert all([e.policy for e in found] == list(bfcl.policies) for found in named.values())
    # MRDR and OffCEM are not DR under another name.
    values = {name: [e.value for e in named[name]] for name in ("dr", "mrdr", "offcem")}
    assert len({tuple(own) for own in values.values()}) == 3


def _found(value: np.ndarray, half: float, gate: int) -> Found:
    numbers = np.stack([value, value - half, value + half, np.full(value.shape, gate)], axis=-1)
    truth = np.array([0.1, 0.2, 0.3])
    return Found.of(
        numbers, estimators=("e",), policies=("a", "b", "c"), truth=truth, supported=np.ones(3)
    )  # fmt: skip


def test_scores_of_estimates_whose_errors_are_known() -> None:
    # Two logs of three policies: errors +.1 and -.1 of the first, +.1 twice of the second, none of the third.
    value = np.array([[[0.2, 0.3, 0.3]], [[0.0, 0.3, 0.3]]])
    (own,) = score(_found(value, half=0.04, gate=0))
    assert own.bias == pytest.approx(0.1 / 3)
    assert own.rmse == pytest.approx(0.1 * np.sqrt(4 / 6))
    assert own.coverage == own.coverage_ok == pytest.approx(2 / 6)
    assert own.half == pytest.approx(0.04)
    assert (own.ok, own.caution, own.unreliable, own.no_value) == (1, 0, 0, 0)
    # Ranks 1, 2.5, 2.5 in both logs against 1, 2, 3.
    assert own.rank == pytest.approx(np.sqrt(3) / 2)
    ok, caution, _ = trust(_found(value, half=0.04, gate=0))
    assert (ok.share, ok.coverage, ok.far) == (1, pytest.approx(2 / 6), pytest.approx(4 / 6))
    assert caution.share == 0
    assert np.isnan(caution.coverage)


def test_the_worst_policy_of_an_estimator_is_found_and_missing_values_count_nowhere() -> None:
    value = np.tile([[[0.1, 0.5, np.nan]]], (30, 1, 1))
    (worst,) = failures(_found(value, half=0.01, gate=0))
    assert (worst.policy, worst.estimates, worst.coverage) == ("b", 30, 0)
    assert worst.bias == pytest.approx(0.3)
    assert not list(failures(_found(value, half=0.01, gate=1)))
    (own,) = score(_found(value, half=0.01, gate=0))
    assert own.no_value == pytest.approx(1 / 3)
    assert own.coverage == pytest.approx(1 / 2)


def test_the_tables_stand_between_their_marks_and_nothing_else_changes(
    bfcl: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bfcl.name == "BFCL"
    target, drawn = tmp_path / "page.md", tmp_path / "figure.svg"
    monkeypatch.setattr(page, "PAGE", target)
    monkeypatch.setattr(page, "FIGURE", drawn)
    target.write_text(f"before\n{page.OPEN}\nold\n{page.CLOSE}\nafter\n")
    settings = [Setting("BFCL", logger, 200) for logger in bfcl.logging]
    found = {setting: _joined([do(Work(setting, 0, 1, 1))]) for setting in settings}
    kinds = _joined([do(Work(settings[0], 0, 1, 0, of_intervals=True))])
    page.write(found, kinds)
    text, picture = target.read_text(), drawn.read_bytes()
    assert text.startswith(f"before\n{page.OPEN}\n")
    assert text.endswith(f"{page.CLOSE}\nafter\n")
    assert "old" not in text.splitlines()
    assert "nan" not in text
    page.write(found, kinds)
    assert (target.read_text(), drawn.read_bytes()) == (text, picture)
