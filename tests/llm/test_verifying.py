"""A model is asked again for what it said, and what changed is counted."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from counterplay.errors import InputError
from counterplay.llm.models import identify
from counterplay.llm.prompting.requests import Prompting, Request, generation_request, ranking_request
from counterplay.llm.prompting.templates import Template, load_template
from counterplay.llm.verifying import verify_live
from counterplay.logs import Workspace
from counterplay.logs.outputs import Output, put_outputs

module = importlib.import_module("counterplay.llm.verifying")


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "tiny-Q4_1.gguf").write_bytes(b"weights that nobody loads")
    return str(tmp_path / "tiny-Q4_1.gguf")


@pytest.fixture
def requests(model: str, workspace: Workspace) -> list[Request]:
    """Five rankings whose answers are stored."""
    made = [
        ranking_request(identify(model), Prompting(template=load_template("triage")), f"text {i}", ["a", "b"])
        for i in range(5)
    ]
    put_outputs(workspace.connection, [said(request, -1.0, -2.0) for request in made])
    return made


def said(request: Request, *scores: float) -> Output:
    return Output(request=request, response={"logprobs": list(scores)}, provenance={})


def answers(monkeypatch: pytest.MonkeyPatch, *scores: tuple[float, float]) -> list[Request]:
    """Let the model answer with these scores, one after the other; what it was asked."""
    asked: list[Request] = []

    def answer(_model: Any, requests: Sequence[Request], *, tick: Any) -> list[Output]:
        assert len(requests) == 1
        asked.extend(requests)
        if tick is not None:
            tick(1.0)
        return [said(requests[0], *scores[(len(asked) - 1) % len(scores)])]

    monkeypatch.setattr(module, "answer", answer)
    monkeypatch.setattr(module, "load_engine", lambda *_, **__: None)
    return asked


def test_a_model_that_says_the_same_has_changed_nothing(
    workspace: Workspace, model: str, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ticks = answers(monkeypatch, (-1.0, -2.0)), list[float]()
    report = verify_live(workspace, model=model, count=10, tick=ticks.append)
    assert (report.asked, report.changed, report.other_choice) == (5, 0, 0)
    assert (report.median_difference, report.largest_difference) == (0.0, 0.0)
    assert ticks == [1.0] * 5
    assert sorted(request["prompts"] for request in asked) == sorted(request["prompts"] for request in requests)


def test_it_is_counted_what_changed_and_by_how_much(
    workspace: Workspace, model: str, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, (-1.0, -2.0), (-1.25, -2.0), (-1.0, -2.0), (-1.0, -2.5), (-3.0, -2.0))
    report = verify_live(workspace, model=model, count=len(requests))
    assert (report.asked, report.changed, report.other_choice) == (5, 3, 1)
    assert (report.median_difference, report.largest_difference) == (0.25, 2.0)
    assert "3 changed, 1 of them to another choice" in str(report)
    assert "expected" in str(report)


def test_a_sample_is_the_same_each_time_and_stores_nothing(
    workspace: Workspace, model: str, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = workspace.connection.execute("SELECT * FROM outputs ORDER BY key").fetchall()
    asked = answers(monkeypatch, (-7.0, -7.0))
    assert verify_live(workspace, model=model, count=2).asked == 2
    verify_live(workspace, model=model, count=2)
    assert asked[:2] == asked[2:]
    assert all(request in requests for request in asked)
    assert workspace.connection.execute("SELECT * FROM outputs ORDER BY key").fetchall() == before


def test_texts_without_scores_that_fit_are_another_choice_and_no_number(
    workspace: Workspace, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(name="plain", source="{% block prompt %}{{ text }}{% endblock %}")
    request = generation_request(identify(model), Prompting(template=template), "text")
    response = {"texts": ["burns"], "logprobs": [-1.0], "tokens": [1]}
    put_outputs(workspace.connection, [Output(request=request, response=response, provenance={})])
    answers(monkeypatch, (-1.0, -2.0))
    report = verify_live(workspace, model=model, count=1)
    assert (report.changed, report.other_choice, report.median_difference) == (1, 1, None)
    assert "could be compared" in str(report)


@pytest.mark.usefixtures("requests")
def test_only_outputs_of_the_very_files_are_asked_again(workspace: Workspace, model: str) -> None:
    Path(model).write_bytes(b"other weights of that name")
    with pytest.raises(InputError, match=r"no outputs of tiny, revision .* It has those of: tiny, revision"):
        verify_live(workspace, model=model, count=1)
    with pytest.raises(InputError, match="0 outputs"):
        verify_live(workspace, model=model, count=0)
    workspace.connection.execute("DELETE FROM outputs")
    with pytest.raises(InputError, match="It is empty"):
        verify_live(workspace, model=model, count=1)
