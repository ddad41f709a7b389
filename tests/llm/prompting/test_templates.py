"""Templates: rendered exactly, sandboxed, and strict about names."""

from __future__ import annotations

from pathlib import Path

import pytest

from counterplay.errors import ConfigurationError, FileError
from counterplay.llm.prompting.templates import Template, load_template


def template(source: str) -> Template:
    return Template(name="t", source=source)


def test_the_demo_template_asks_for_the_text_given_the_action() -> None:
    shipped = load_template("triage")
    assert shipped.ranks
    assert shipped.render("preamble").startswith("Each diagnosis belongs to one category of ICD-10-CM.\n\nCategory: ")
    assert shipped.render("preamble").endswith("\n\n")
    assert shipped.render("prompt", text="T", action="A") == "Category: A\nDiagnosis:"
    assert shipped.render("continuation", text="T", action="A") == " T"


def test_texts_are_put_in_as_they_are() -> None:
    made = template("{% block prompt %}{{ text }}{% endblock %}")
    assert made.render("prompt", text="a < b & {{ c }} {% x %}\n") == "a < b & {{ c }} {% x %}\n"
    assert made.render("preamble") == ""
    assert not made.ranks


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"'label' is undefined. Available here: action, text"):
        template("{% block prompt %}{{ label }}{% endblock %}").render("prompt", text="", action="")


def test_a_template_cannot_reach_out_of_its_sandbox() -> None:
    made = template("{% block prompt %}{{ text.__class__.__mro__[1].__subclasses__() }}{% endblock %}")
    with pytest.raises(ConfigurationError, match="template 't'"):
        made.render("prompt", text="x")


def test_a_template_without_a_prompt_or_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no block 'prompt'"):
        template("hello")
    with pytest.raises(ConfigurationError, match="line 1"):
        template("{% block prompt %}")


def test_a_template_is_found_by_name_or_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.j2"
    path.write_text("{% block prompt %}x{% endblock %}", encoding="utf-8")
    assert load_template(path).name == "mine"
    with pytest.raises(FileError, match="Did you mean 'triage'"):
        load_template("triag")


def test_another_word_is_another_hash() -> None:
    one, two = (template(f"{{% block prompt %}}{word}{{% endblock %}}") for word in ("a", "b"))
    assert one.sha256 != two.sha256
