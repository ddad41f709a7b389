"""Filling a cache with a model that is a function: resumed, never asked twice, checked against itself."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from counterplay.errors import FileError, InputError
from counterplay.llm import CheckReport, GenerateReport, generate
from counterplay.llm.models import ModelIdentity, identify
from counterplay.llm.prompting.requests import Request
from counterplay.logs import Workspace, read_choices
from counterplay.logs.outputs import Output

module = importlib.import_module("counterplay.llm.generate")
IDENTITY = ModelIdentity(model="toy", revision="0" * 64, quantisation="none", dtype="float32", tokenizer="1" * 64)


class Toy:
    """Scores a pair by the length of its prompt; dies when told to; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.dies_after = 10**9
        self.shift = 0.0
        self.status = "ok"

    def answer(
        self, _model: Any, requests: Sequence[Request], *, tick: Callable[[float], None] | None = None
    ) -> list[Output]:
        outputs = []
        for request in requests:
            if len(self.asked) >= self.dies_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            scores = [-float(len(prompt)) + self.shift for prompt in request["prompts"]]
            outputs.append(
                Output(request=request, response={"logprobs": scores}, status=self.status, provenance={"date": "d"})
            )
            if tick is not None:
                tick(1.0)
        return outputs


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    made = Toy()
    monkeypatch.setattr(module, "answer", made.answer)
    monkeypatch.setattr(module, "load_engine", lambda *_, **__: SimpleNamespace(limit=None))
    monkeypatch.setattr(module, "model_identity", lambda *_, **__: IDENTITY)
    return made


def fill(workspace: Workspace, **options: Any) -> GenerateReport:
    report = generate(workspace, "desk", model="toy", **options)
    assert isinstance(report, GenerateReport)
    assert report.requests == report.cached + report.answered + report.failed
    return report


def check(workspace: Workspace, **options: Any) -> CheckReport:
    report = generate(workspace, "desk", model="toy", check=True, **options)
    assert isinstance(report, CheckReport)
    return report


def test_each_context_is_asked_about_once(workspace: Workspace, toy: Toy) -> None:
    report = fill(workspace)
    assert (report.requests, report.answered, report.cached, report.choices) == (6, 6, 0, 6)
    again = fill(workspace)
    assert (again.answered, again.cached, len(toy.asked)) == (0, 6, 6)


def test_the_choice_is_the_candidate_of_highest_score(workspace: Workspace, toy: Toy) -> None:
    fill(workspace)
    # The shortest text wins: "burns" (2), "other" (3), "infections" (1), "injuries of limbs" (0).
    choices = read_choices(workspace, "desk", "llm")
    assert choices.actions[:, 0].tolist() == [2, 3, 2, 2, 3, 3]
    assert toy.asked[0]["operation"] == "loglikelihood"


def test_only_the_first_candidates_are_asked_about_and_padding_is_not(workspace: Workspace, toy: Toy) -> None:
    fill(workspace, candidates=2)
    assert {len(request["prompts"]) for request in toy.asked} == {2}
    toy.asked.clear()
    fill(workspace, candidates=3)
    assert sorted(len(request["prompts"]) for request in toy.asked) == [3, 3, 3, 3]


def test_the_likelihoods_of_the_best_become_probabilities(workspace: Workspace, toy: Toy) -> None:
    assert toy.shift == 0.0
    fill(workspace, policy="llm-2", best=2)
    choices = read_choices(workspace, "desk", "llm-2")
    np.testing.assert_allclose(choices.probabilities.sum(axis=1), 1.0)
    assert (choices.probabilities[:, 0] > choices.probabilities[:, 1]).all()


def test_a_run_that_was_stopped_goes_on(workspace: Workspace, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    toy.dies_after = 5
    with pytest.raises(KeyboardInterrupt):
        fill(workspace)
    assert workspace.connection.execute("SELECT count(*) FROM outputs").fetchall() == [(4,)]
    toy.dies_after = 10**9
    report = fill(workspace)
    assert (report.cached, report.answered, report.choices) == (4, 2, 6)


def test_a_sample_fills_the_cache_and_leaves_the_choices_alone(workspace: Workspace, toy: Toy) -> None:
    report = fill(workspace, sample=2)
    assert (report.requests, report.choices, len(toy.asked)) == (2, 0, 2)
    with pytest.raises(InputError, match="no choices"):
        read_choices(workspace, "desk", "llm")
    with pytest.raises(InputError, match="sample of 0"):
        fill(workspace, sample=0)


def test_what_failed_is_a_miss_and_is_asked_again(workspace: Workspace, toy: Toy) -> None:
    toy.status = "error"
    report = fill(workspace)
    assert (report.failed, report.answered, report.choices) == (6, 0, 0)
    assert "6 failed" in str(report)
    with pytest.raises(InputError, match="no choices"):
        read_choices(workspace, "desk", "llm")
    toy.status = "ok"
    assert fill(workspace).choices == 6


def test_a_check_agrees_with_what_was_stored_and_stores_nothing(workspace: Workspace, toy: Toy) -> None:
    fill(workspace)
    report = check(workspace, sample=4)
    assert (report.compared, report.same_choice, report.largest_difference, report.missing) == (4, 4, 0.0, 0)
    assert "4 of 4" in str(report)
    assert len(toy.asked) == 10


def test_a_check_sees_a_difference(workspace: Workspace, toy: Toy) -> None:
    fill(workspace)
    toy.shift = 0.25
    report = check(workspace)
    assert (report.same_choice, report.largest_difference) == (6, 0.25)


def test_a_check_explains_what_is_not_there(workspace: Workspace, toy: Toy) -> None:
    fill(workspace, sample=2)
    report = check(workspace, candidates=2)
    assert (report.compared, report.missing) == (0, 6)
    assert report.explanation is not None
    assert "differs in" in report.explanation
    assert len(toy.asked) == 2


def test_progress_is_shown_where_it_is_asked_for(workspace: Workspace, toy: Toy) -> None:
    text = io.StringIO()
    fill(workspace, console=Console(file=text, force_terminal=True, width=100))
    assert "6/6" in text.getvalue()
    assert len(toy.asked) == 6


def test_a_log_without_texts_or_a_model_without_files_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no model"):
        generate(workspace, "desk", model=str(tmp_path))
    with pytest.raises(FileError, match="not installed"):
        generate(workspace, "desk", model="package:no-such-package-here")
    workspace.connection.execute("UPDATE contexts SET text = NULL")
    (tmp_path / "tiny-Q4_1.gguf").write_bytes(b"weights")
    with pytest.raises(InputError, match="without a text"):
        generate(workspace, "desk", model=str(tmp_path / "tiny-Q4_1.gguf"))


def test_a_models_identity_is_its_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "a-Q4_1.gguf", tmp_path / "b.Q8_0.gguf"
    one.write_bytes(b"weights")
    two.write_bytes(b"weights")
    assert identify(str(one)).revision == identify(str(two)).revision
    assert (identify(str(one)).model, identify(str(one)).quantisation) == ("a", "Q4_1")
    before = identify(str(one)).revision
    one.write_bytes(b"other weights")
    assert identify(str(one)).revision != before


def test_it_is_said_that_other_weights_of_the_same_name_are_stored(
    workspace: Workspace, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(workspace)
    others = replace(IDENTITY, revision="f" * 64)
    monkeypatch.setattr(module, "model_identity", lambda *_, **__: others)
    told = io.StringIO()
    report = fill(workspace, console=Console(file=told, width=500))
    assert (report.answered, len(toy.asked)) == (6, 12)
    assert "6 outputs of toy with other weights (revision 000000000000, none, float32)" in told.getvalue()
