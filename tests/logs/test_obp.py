"""obp's bandit feedback: in, out, and the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from counterplay.errors import FileError, InputError
from counterplay.logs import ImportReport, Workspace, import_decisions, list_logs, read_log, read_quarantine
from counterplay.logs.formats.obp import import_obp, to_obp

Feedback = dict[str, Any]


def feedback(rounds: int = 40, positions: int = 1, **changes: Any) -> Feedback:
    """Made-up bandit feedback of 3 actions; numbers that single precision holds exactly."""
    rng = np.random.default_rng(0)
    pi_b = np.array([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]])[rng.integers(0, 2, (rounds, positions))]
    pi_b = pi_b.transpose(0, 2, 1).copy()
    position, action = rng.integers(0, positions, rounds), rng.integers(0, 3, rounds)
    made = {
        "n_rounds": rounds,
        "n_actions": 3,
        "context": rng.integers(-8, 8, (rounds, 2)) / 4,
        "action": action,
        "position": position if positions > 1 else None,
        "reward": rng.integers(0, 2, rounds),
        "expected_reward": rng.random((rounds, 3)),
        "pscore": pi_b[np.arange(rounds), action, position],
        "pi_b": pi_b,
        "action_context": np.arange(6).reshape(3, 2) / 2,
    }
    return made | changes


Bring = Callable[..., ImportReport]


@pytest.fixture
def bring(workspace: Workspace) -> Bring:
    def run(given: Any, log: str = "l", **options: Any) -> ImportReport:
        report = import_obp(given, workspace, log, **options)
        assert report.rows_read == report.rows_kept + report.rows_quarantined + report.rows_known
        assert sum(report.reasons.values()) == report.rows_quarantined
        return report

    return run


def reasons(workspace: Workspace) -> list[tuple[int, str]]:
    return [(row[1], row[2]) for row in read_quarantine(workspace, "l").rows()]


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("with_pi_b", [True, False])
def test_what_goes_in_comes_out(bring: Bring, workspace: Workspace, positions: int, with_pi_b: bool) -> None:
    given = feedback(positions=positions)
    if not with_pi_b:
        given["pi_b"] = None
    assert bring(given).rows_kept == 40
    out = to_obp(read_log(workspace, "l"), positions=positions)
    assert set(out) == set(given) - {"expected_reward"}
    assert (out["n_rounds"], out["n_actions"], out["pi_b"]) == (40, 3, None)
    for name in ("context", "action", "reward", "pscore", "action_context", "position"):
        if given[name] is None:
            assert out[name] is None
        else:
            np.testing.assert_array_equal(out[name], given[name])
    assert bring(out, "again").rows_kept == 40
    again = to_obp(read_log(workspace, "again"), positions=positions)
    np.testing.assert_array_equal(again["context"], out["context"])


@pytest.mark.parametrize("positions", [1, 3])
def test_the_whole_distribution_is_that_of_the_position(bring: Bring, workspace: Workspace, positions: int) -> None:
    given = feedback(positions=positions)
    bring(given)
    rows = workspace.connection.execute(
        "SELECT candidates, candidate_propensities FROM decisions ORDER BY position"
    ).fetchall()
    position = np.zeros(40, int) if given["position"] is None else given["position"]
    assert [row[0] for row in rows] == [[0, 1, 2]] * 40
    np.testing.assert_array_equal([row[1] for row in rows], given["pi_b"][np.arange(40), :, position])


def test_a_flat_pi_b_is_that_of_one_position_and_gives_a_missing_pscore(bring: Bring, workspace: Workspace) -> None:
    given = feedback()
    assert bring(feedback(pi_b=given["pi_b"][:, :, 0], pscore=None)).regime == "propensity"
    np.testing.assert_array_equal(read_log(workspace, "l").propensity, given["pscore"])


def test_without_pscore_and_pi_b_the_log_is_observed(bring: Bring, workspace: Workspace) -> None:
    assert bring(feedback(pscore=None, pi_b=None)).regime == "observed"
    log = read_log(workspace, "l")
    assert log.candidates is None
    assert to_obp(log)["pscore"] is None


def test_an_action_that_there_is_not_is_quarantined_without_a_distribution_too(
    bring: Bring, workspace: Workspace
) -> None:
    given = feedback(pi_b=None)
    given["action"][[2, 5]] = 3, -1
    bring(given)
    assert reasons(workspace) == [(3, "action is unknown: 3"), (6, "action is unknown: -1")]


def test_an_npz_file_is_the_dictionary_in_it(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "feedback.npz"
    np.savez(path, **{name: value for name, value in feedback().items() if value is not None})
    report = bring(path)
    assert (report.rows_kept, report.source) == (40, "feedback.npz")
    bring(feedback(), "dictionary")
    assert read_log(workspace, "l").reward.tolist() == read_log(workspace, "dictionary").reward.tolist()
    assert bring(path).rows_known == 40


def test_the_same_feedback_twice_adds_nothing(bring: Bring, workspace: Workspace) -> None:
    bring(feedback(positions=2))
    fingerprint = read_log(workspace, "l").fingerprint
    assert bring(feedback(positions=2)).rows_known == 40
    assert read_log(workspace, "l").fingerprint == fingerprint


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("action", 3, "action is not among the candidates: 3"),
        ("action", -1, "action is not among the candidates: -1"),
        ("action", 0.5, "action is not a whole number: 0.5"),
        ("action", np.nan, "action is missing"),
        ("reward", np.nan, "reward is not a number: nan"),
        ("reward", np.inf, "reward is infinite"),
        ("pscore", 0, "propensity is zero"),
        ("pscore", 1.5, "propensity is above 1: 1.5"),
        ("position", 2, "position is none of 0 to 1: 2.0"),
        ("position", -1, "position is none of 0 to 1: -1.0"),
        ("context", np.nan, "features hold something that is no finite number"),
        ("pi_b", 0.9, "candidate propensities do not sum to 1"),
    ],
)
def test_an_impossible_value_is_quarantined_with_its_round(
    bring: Bring, workspace: Workspace, name: str, value: float, reason: str
) -> None:
    given = feedback(positions=2)
    given[name] = given[name].astype(float)
    given[name][4] = value
    assert bring(given).rows_kept == 39
    ((line, found),) = reasons(workspace)
    assert line == 5
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": None}, r"no 'reward'\. Known: action, "),
        ({"n_actions": None}, "no 'n_actions'"),
        ({"n_actions": 0}, "whole number of at least 1, not 0"),
        ({"n_rounds": 7}, "n_rounds is 7, but there are 40 actions"),
        ({"reward": np.zeros(39)}, "reward has 39 rows; it needs 40"),
        ({"context": np.zeros(40)}, r"Use context\.reshape\(-1, 1\)"),
        ({"context": np.zeros((40, 0))}, "context has no columns"),
        ({"action": np.array(["a"] * 40)}, "action holds <U1, not numbers"),
        ({"pi_b": np.full((40, 2, 1), 0.5)}, r"pi_b has the shape \(40, 2, 1\); it needs \(40, 3, positions\)"),
        ({"pi_b": np.full((40, 3, 2), 1 / 3)}, "pi_b has 2 positions, and position is None"),
        ({"position": np.full(40, 1e12), "pi_b": None}, r"position goes up to 1e\+12"),
        ({"action_context": np.zeros((2, 2))}, "action_context has 2 rows; it needs 3"),
        ({"action_context": np.full((3, 1), np.nan)}, "must be finite numbers"),
        ({"action": np.zeros(0), "n_rounds": None}, "no rounds"),
    ],
)
def test_feedback_that_contradicts_itself_is_refused(
    bring: Bring, workspace: Workspace, changes: Feedback, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bring(feedback(**changes))
    assert list_logs(workspace) == []


def test_what_is_no_feedback_is_refused(bring: Bring, tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(FileError, match="no file"):
        bring(tmp_path / "none.npz")
    with pytest.raises(InputError, match="a dictionary or the path"):
        bring([1, 2])
    path = tmp_path / "feedback.npz"
    path.touch()
    with pytest.raises(FileError, match="is empty"):
        bring(path)
    path.write_text("text")
    with pytest.raises(FileError, match=r"no \.npz file"):
        bring(path)
    np.savez(path, action=np.array([None, 1], dtype=object))
    with pytest.raises(FileError, match="without the entries that are None"):
        bring(path)
    np.savez(path, **{name: value for name, value in feedback().items() if value is not None})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FileError, match="cut short"):
        bring(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(FileError, match="one array"):
        bring(tmp_path / "one.npy")
    assert list_logs(workspace) == []


def test_a_log_that_obp_cannot_hold_is_refused(workspace: Workspace) -> None:
    frame = pl.DataFrame({"action": ["a", "b"], "reward": [1, 0], "propensity": [0.5, 1], "candidates": ["a|b", "b"]})
    import_decisions(frame, workspace, "l")
    log = read_log(workspace, "l")
    with pytest.raises(InputError, match="allow only some actions"):
        to_obp(log)
    out = to_obp(log.subset([0]))
    assert out["context"].tolist() == [[1.0]]
    with pytest.raises(InputError, match="are not a position"):
        to_obp(log.subset([0]), positions=2)
