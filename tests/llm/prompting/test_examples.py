"""Examples: drawn once, from a log of their own, and written word by word into the request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, InputError, UnsupportedError
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.examples import Example, draw_examples
from counterplay.llm.prompting.requests import Prompting, generation_request
from counterplay.llm.prompting.templates import Template
from counterplay.logs import DecisionArrays, Outcomes, Workspace, write_log
from tests.command import counterplay

IDENTITY = ModelIdentity(model="toy", revision="r", quantisation="none", dtype="float32", tokenizer="t")
SHOWING = Template(
    name="showing",
    source="{% block preamble %}{% for example in examples %}{{ example.text }} -> {{ example.action }}\n{% endfor %}"
    "{% endblock %}{% block prompt %}{{ text }} ->{% endblock %}",
)
TEXTS = ["t0", "t1", "t2", "", "t4", "t5"]
LABELS = ["a0", "a1", "a2"]


def full_log(workspace: Workspace, log: str = "shown", default: float = 0.0) -> None:
    """Best: 1 | 0 and 2 tie | nothing above the default | 1, without a text | nothing stored | 2."""
    entries = [{0: 0.2, 1: 0.9}, {0: 0.7, 1: 0.1, 2: 0.7}, {1: -1.0}, {1: 1.0}, {}, {0: 0.1, 2: 0.3}]
    write_log(
        workspace,
        log=log,
        regime="full",
        context_ids=[f"c{i}" for i in range(len(TEXTS))],
        context_texts=TEXTS,
        action_labels=LABELS,
        action_texts=[f"do {label}" for label in LABELS],
        outcomes=Outcomes(
            offsets=np.cumsum([0, *map(len, entries)]),
            actions=np.array([action for row in entries for action in row], dtype=np.int32),
            rewards=np.array([reward for row in entries for reward in row.values()]),
            default=default,
        ),
    )


def logged(workspace: Workspace, rewards: list[float], log: str = "logged") -> None:
    """Two decisions of context 0, one of each other; the action is the number of the decision, modulo 3."""
    context = np.array([0, 0, 1, 2, 3, 4, 5], dtype=np.int32)
    write_log(
        workspace,
        log=log,
        regime="propensity",
        context_ids=[f"c{i}" for i in range(len(TEXTS))],
        context_texts=TEXTS,
        action_labels=LABELS,
        action_texts=[f"do {label}" for label in LABELS],
        decisions=DecisionArrays(
            context=context,
            action=np.arange(7, dtype=np.int32) % 3,
            propensity=np.full(7, 0.5),
            reward=np.array(rewards),
        ),
    )


def test_a_full_log_shows_its_best_actions(workspace: Workspace) -> None:
    full_log(workspace)
    drawn = draw_examples(workspace, "shown", 3)
    assert {(example.text, example.action) for example in drawn} == {("t0", "do a1"), ("t1", "do a0"), ("t5", "do a2")}
    with pytest.raises(InputError, match=r"'shown' has 3 contexts .*; 4 examples were asked for"):
        draw_examples(workspace, "shown", 4)


def test_where_the_default_is_unknown_what_is_stored_is_compared(workspace: Workspace) -> None:
    full_log(workspace, default=float("nan"))
    assert ("t2", "do a1") in {(example.text, example.action) for example in draw_examples(workspace, "shown", 4)}


def test_another_log_shows_what_earned_most(workspace: Workspace) -> None:
    logged(workspace, [0.0, 1.0, 1.0, 0.5, 1.0, np.nan, 1.0])
    drawn = {(example.text, example.action) for example in draw_examples(workspace, "logged", 3)}
    assert drawn == {("t0", "do a1"), ("t1", "do a2"), ("t5", "do a0")}, "c2 earned less, c3 has no text, c4 no reward"
    with pytest.raises(InputError, match="has 3 contexts"):
        draw_examples(workspace, "logged", 4)


def test_the_seed_draws(workspace: Workspace) -> None:
    full_log(workspace)
    orders = {draw_examples(workspace, "shown", 2, seed=seed) for seed in range(20)}
    assert len(orders) > 3
    assert draw_examples(workspace, "shown", 2, seed=7) == draw_examples(workspace, "shown", 2, seed=7)
    assert all(len({example.text for example in drawn}) == 2 for drawn in orders), "no context stands twice"


def test_what_cannot_be_drawn_is_refused_by_name(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="0 examples"):
        draw_examples(workspace, "desk", 0)
    with pytest.raises(InputError, match="nowhere"):
        draw_examples(workspace, "nowhere", 1)
    logged(workspace, [np.nan] * 7)
    with pytest.raises(UnsupportedError, match="'logged' has no rewards"):
        draw_examples(workspace, "logged", 1)
    logged(workspace, [1.0] * 7, log="mute")
    workspace.connection.execute("UPDATE contexts SET text = NULL WHERE log = 'mute'")
    with pytest.raises(InputError, match="'mute' has 0 contexts with a text"):
        draw_examples(workspace, "mute", 1)


def test_examples_stand_in_the_request_word_by_word() -> None:
    prompting = Prompting(
        template=SHOWING, examples=(Example(text="<b>ü</b>", action="x"), Example(text="c", action="y"))
    )
    request = generation_request(IDENTITY, prompting, "d")
    assert request["preamble"] == "<b>ü</b> -> x\nc -> y\n"
    assert request["prompt"] == "d ->"
    other = Prompting(template=SHOWING, examples=prompting.examples[::-1])
    assert generation_request(IDENTITY, other, "d") != request


def test_a_template_and_its_examples_need_each_other() -> None:
    plain = Template(name="plain", source="{% block prompt %}{{ text }}{% endblock %}")
    with pytest.raises(ConfigurationError, match="'plain' does not use the examples"):
        Prompting(template=plain, examples=(Example(text="a", action="b"),))
    with pytest.raises(ConfigurationError, match="'showing' shows examples, and none are given"):
        Prompting(template=SHOWING)


def test_the_command_draws_no_examples_out_of_the_log_itself(workspace: Workspace, tmp_path: Path) -> None:
    place = str(workspace.path)
    workspace.close()
    template = tmp_path / "showing.j2"
    template.write_text(SHOWING.source)
    common = ("generate", place, "--log", "desk", "--model", str(tmp_path), "--prompt", str(template))
    own = counterplay(tmp_path, *common, "--examples", "2", "--examples-from", "desk")
    assert own.returncode != 0
    assert "Examples out of 'desk' itself" in own.stderr + own.stdout
    half = counterplay(tmp_path, *common, "--examples", "2")
    assert half.returncode != 0
    assert "--examples-from" in half.stderr + half.stdout
