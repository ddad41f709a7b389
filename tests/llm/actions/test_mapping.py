"""From the cache to a policy: worked out once, and again only when something has changed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from counterplay import llm
from counterplay.cli import main
from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.actions import mapping
from counterplay.llm.actions.choosing import AnswerRule
from counterplay.llm.actions.mapping import candidate_lists
from counterplay.llm.generate import GenerateReport, generate
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.requests import Prompting, Request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import load_template
from counterplay.llm.vectors import embedding
from counterplay.logs import DecisionArrays, Workspace, read_choices, write_log
from counterplay.logs.outputs import Output

generating = importlib.import_module("counterplay.llm.generate")
MODEL = ModelIdentity(model="toy", revision="0" * 64, quantisation="none", dtype="float32", tokenizer="1" * 64)
EMBEDDER = ModelIdentity(model="axes", revision="a" * 64, quantisation="none", dtype="float32", tokenizer="b" * 64)
PROMPT = "{% block prompt %}{{ text }} ->{% endblock %}"

# The actions of the log, one axis each, and what the model says beside them.
AXES = ("injuries of limbs", "infections", "burns", "other")
BETWEEN = {"a scald": (0.1, 0.0, 0.9, 0.2), "a sneeze": (0.0, 0.8, 0.3, 0.1), "hm": (0.5, 0.5, 0.4, 0.5)}


class Desk:
    """A model that says the same to everyone unless told otherwise, and an embedder that counts what it embeds."""

    def __init__(self) -> None:
        self.says: dict[str, dict[str, Any]] = {}
        self.embedded: list[str] = []
        self.embedder = EMBEDDER

    def answer(self, _model: Any, requests: Sequence[Request], *, tick: Callable[[float], None]) -> list[Output]:
        plain = {"texts": ["a scald"], "logprobs": [-1.0]}
        tick(float(len(requests)))
        return [
            Output(request=one, response=self.says.get(one["prompt"].removesuffix(" ->"), plain), provenance={})
            for one in requests
        ]

    def encode(self, _embedder: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.embedded += texts
        known = {**dict(zip(AXES, np.eye(4), strict=True)), **BETWEEN}
        rows = np.array([known[text] for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Desk:
    made = Desk()
    (tmp_path / "plain.j2").write_text(PROMPT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generating, "answer", made.answer)
    monkeypatch.setattr(generating, "load_engine", lambda *_, **__: SimpleNamespace(limit=None))
    monkeypatch.setattr(generating, "model_identity", lambda *_, **__: MODEL)
    for module in (embedding, mapping):
        monkeypatch.setattr(module, "identify_embedder", lambda *_: made.embedder)
    monkeypatch.setattr(embedding, "_encode", made.encode)
    return made


def fill(workspace: Workspace, **options: Any) -> GenerateReport:
    report = generate(workspace, "desk", model="toy", **{"prompt": "plain.j2", **options})
    assert isinstance(report, GenerateReport)
    return report


def chosen(workspace: Workspace) -> list[int]:
    return [int(action) for action in read_choices(workspace, "desk", "llm").actions[:, 0]]


def test_completions_act_as_the_nearest_candidate_of_their_context(workspace: Workspace, desk: Desk) -> None:
    report = fill(workspace)
    # "a scald" is nearest to burns (2), then other (3), limbs (0), infections (1); lists are those of the fixture.
    assert chosen(workspace) == [2, 3, 2, 2, 3, 3]
    assert report.choices == 6
    assert "6 choices." in str(report)
    assert sorted(desk.embedded) == sorted(["a scald", *AXES])


def test_a_second_run_with_everything_there_embeds_and_multiplies_nothing(
    workspace: Workspace, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.says["a cold"] = {"texts": ["a sneeze", "hm"], "logprobs": [-1.0, -2.0]}
    rule = AnswerRule(temperature=0.2, kept=3, least_similarity=0.1)
    first = fill(workspace, rule=rule, best=2)
    stored = read_choices(workspace, "desk", "llm")

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("worked out again")

    for module, name in ((mapping, "embed"), (mapping, "choose_by_text"), (embedding, "_encode")):
        monkeypatch.setattr(module, name, never)
    again = fill(workspace, rule=rule, best=2)
    after = read_choices(workspace, "desk", "llm")
    np.testing.assert_array_equal(after.actions, stored.actions)
    np.testing.assert_array_equal(after.probabilities, stored.probabilities)
    assert replace(again, answered=6, cached=0, seconds=first.seconds) == first
    # Under another name of a policy too, but not by another rule.
    fill(workspace, policy="other", rule=rule, best=2)
    with pytest.raises(AssertionError, match="worked out again"):
        fill(workspace, rule=AnswerRule(), best=2)


@pytest.mark.parametrize("change", ["rule", "best", "embedder", "action", "label", "candidates", "output"])
def test_whatever_the_choice_depends_on_it_is_worked_out_again(workspace: Workspace, desk: Desk, change: str) -> None:
    fill(workspace)
    count = "SELECT count(*) FROM outputs WHERE operation = 'choose'"
    assert workspace.connection.execute(count).fetchall() == [(1,)]
    options: dict[str, Any] = {}
    if change == "rule":
        options["rule"] = AnswerRule(among="actions")
    elif change == "best":
        options["best"] = 2
    elif change == "embedder":
        desk.embedder = replace(EMBEDDER, revision="c" * 64)
    elif change == "action":
        workspace.connection.execute("UPDATE actions SET text = 'a sneeze' WHERE action = 3")
    elif change == "label":
        workspace.connection.execute("UPDATE actions SET label = 'another' WHERE action = 3")
    elif change == "candidates":
        workspace.connection.execute("UPDATE decisions SET candidates = [0, 1] WHERE position = 0")
    else:
        workspace.connection.execute("""UPDATE outputs SET response = '{"logprobs":[-1],"texts":["hm"]}'
            WHERE operation = 'generate'""")
    fill(workspace, **options)
    assert workspace.connection.execute(count).fetchall() == [(2,)]


def test_names_alone_need_no_embedder(workspace: Workspace, desk: Desk) -> None:
    desk.says["a cold"] = {"texts": ["I say: INFECTIONS!"]}
    desk.says["a fever"] = {"texts": ["I say: a1"]}
    report = fill(workspace, rule=AnswerRule(pattern="I say: (?P<action>.*)", fallback="abstain"))
    assert chosen(workspace) == [-1, 1, -1, -1, 1, -1]
    assert desk.embedded == []
    assert report.tally is not None
    assert (report.choices, report.tally.abstained, report.tally.unnamed) == (2, 4, 4)
    assert "2 choices (contexts that abstain: 4; outputs that name no action: 4 of 6)." in str(report)
    again = fill(workspace, rule=AnswerRule(pattern="I say: (?P<action>.*)", fallback="abstain"))
    assert again.tally == report.tally


def test_an_action_outside_of_the_candidates_can_be_asked_for(workspace: Workspace, desk: Desk) -> None:
    fill(workspace, rule=AnswerRule(among="actions"))
    assert chosen(workspace) == [2] * 6
    assert desk.embedded.count("burns") == 1


def test_an_output_that_failed_is_a_miss_and_said_so(workspace: Workspace, desk: Desk) -> None:
    desk.says["a cold"] = {"texts": ["  "], "logprobs": [-1.0]}
    report = fill(workspace)
    assert report.tally is not None
    assert (report.choices, report.tally.without_text) == (5, 1)
    assert "5 choices (contexts without a text: 1)." in str(report)
    assert chosen(workspace)[1] == -1


def test_texts_of_any_language_are_read_and_kept(workspace: Workspace, desk: Desk) -> None:
    desk.says["a cold"] = {"texts": ["「ＢＵＲＮＳ」"], "logprobs": [-1.0]}
    desk.says["a burn of the hand"] = {"texts": ["Brûlures 🔥\u2028"], "logprobs": [-1.0]}
    fill(workspace, rule=AnswerRule(names=True, fallback="abstain", among="actions"))
    assert chosen(workspace) == [-1, 2, -1, -1, -1, -1]


def test_several_outputs_without_likelihoods_are_refused(workspace: Workspace, desk: Desk) -> None:
    desk.says["a cold"] = {"texts": ["hm", "a sneeze"], "logprobs": [None, None]}
    with pytest.raises(InputError, match="Context 1 has 2 outputs"):
        fill(workspace, best=2)


def test_texts_that_were_drawn_share_the_choice_as_often_as_they_were(workspace: Workspace, desk: Desk) -> None:
    desk.says["a cold"] = {"texts": ["a sneeze", "hm", "a sneeze ", ""], "logprobs": [-9.0, -0.1, None, -0.1]}
    drawn = Prompting(template=load_template("plain.j2"), sampling=Sampling(temperature=1.0))
    fill(workspace, best=4, prompt=drawn, rule=AnswerRule(among="actions"))
    choices = read_choices(workspace, "desk", "llm")
    # "a sneeze" was drawn twice of the three that say something, however unlikely it is said to be.
    assert choices.probabilities[1].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_no_output_at_all_cannot_act(workspace: Workspace, desk: Desk) -> None:
    with pytest.raises(InputError, match="0 most likely outputs"):
        fill(workspace, best=0)
    assert desk.embedded == []


def test_a_rule_for_texts_is_refused_where_candidates_are_ranked(workspace: Workspace, desk: Desk) -> None:
    with pytest.raises(ConfigurationError, match="'triage' ranks candidates"):
        generate(workspace, "desk", model="toy", rule=AnswerRule(names=True))
    assert desk.embedded == []


def test_the_options_of_the_command_are_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(llm, "generate", lambda *_, **options: seen.append(options))
    call = ["generate", "desk.duckdb", "--log", "desk", "--model", "toy"]
    with pytest.raises(SystemExit, match="0"):
        main(call)
    options = "--best 3 --pattern x(?P<action>y) --fallback abstain --among actions --similarity-temperature 0.1"
    options += " --kept 4 --least-similarity 0.2 --least-share 0.3 --embedder there --names"
    with pytest.raises(SystemExit, match="0"):
        main([*call, *options.split()])
    plain, full = seen
    assert (plain["rule"], plain["best"], plain["embedder"]) == (AnswerRule(), 1, embedding.EMBEDDER)
    assert (full["best"], full["embedder"]) == (3, "there")
    assert full["rule"] == AnswerRule(
        names=True,
        pattern="x(?P<action>y)",
        fallback="abstain",
        among="actions",
        temperature=0.1,
        kept=4,
        least_similarity=0.2,
        least_share=0.3,
    )


def test_a_rule_that_makes_no_sense_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "desk.duckdb", "--log", "desk", "--model", "toy", "--pattern", "("])
    assert ended.value.code == 2
    assert "unclosed group" in capsys.readouterr().err


def test_a_context_keeps_the_candidates_of_its_first_decision(workspace: Workspace) -> None:
    write_log(
        workspace,
        log="again",
        regime="propensity",
        context_ids=["x", "y", "z"],
        action_labels=["p", "q", "r"],
        decisions=DecisionArrays(
            context=np.array([2, 0, 2], dtype=np.int32),
            candidates=np.array([[0, 2], [1, -1], [1, 2]], dtype=np.int32),
            action=np.array([0, 1, 1], dtype=np.int32),
            propensity=np.full(3, 0.5),
            reward=np.ones(3),
        ),
    )
    lists = candidate_lists(workspace, "again")
    assert lists is not None
    assert lists.tolist() == [[1, -1], [-1, -1], [0, 2]]


def test_a_log_without_lists_has_no_candidates(workspace: Workspace) -> None:
    write_log(
        workspace,
        log="free",
        regime="propensity",
        context_ids=["x"],
        action_labels=["p", "q"],
        decisions=DecisionArrays(
            context=np.zeros(1, dtype=np.int32),
            action=np.zeros(1, dtype=np.int32),
            propensity=np.full(1, 0.5),
            reward=np.ones(1),
        ),
    )
    assert candidate_lists(workspace, "free") is None
