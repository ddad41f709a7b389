"""The HTML report: safe, whole, the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from counterplay.errors import InputError, UnsupportedError
from counterplay.reports import Timing, render_html

Results = list[dict[str, Any]]
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, text and ids, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def test_report_is_the_same_byte_for_byte_and_small(results: Results) -> None:
    first = render_html(results)
    assert first == render_html(results)
    assert len(first.encode()) < 2_000_000


def test_page_is_well_formed_with_unique_ids_and_nothing_from_outside(results: Results) -> None:
    text = render_html(results, {"1" * 64: [Timing(agent="uniform", runs=3, seconds=0.5, decisions=600)]})
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "img", "object"}
        assert not any(name.startswith("on") for name in attributes)
        for name in ("href", "src", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)", text)
    assert "@import" not in text


def test_references_inside_figures_point_to_ids_of_the_page(results: Results) -> None:
    text = render_html(results)
    ids = set(re.findall(r'\bid="([^"]+)"', text))
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', text)) <= ids


@pytest.mark.parametrize(
    "bad", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "$x$ & _y_"]
)
def test_names_are_text_everywhere(results: Results, bad: str) -> None:
    for result in results:
        result["name"] = result["log"]["name"] = bad
        result["definition"]["name"] = bad
        for row in (*result["agents"], *result["estimates"], *result["comparisons"]):
            key = "agent" if "agent" in row else "policy"
            if row[key] == "embedding prior":
                row[key] = bad
            if "settings" in row:
                row["settings"]["policy"] = bad
            if row.get("reason"):
                row["reason"] = bad
    seconds = {"1" * 64: [Timing(agent=bad, runs=1, seconds=0.1, decisions=10)]}
    page = Page(render_html(results, seconds, title=bad, notes=[bad]))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert sum(bad in part for part in page.text) > 10
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_no_python_or_float_words_reach_the_reader(results: Results) -> None:
    for result in results:
        result["definition"] = {key: value for key, value in result["definition"].items() if value is not None}
    page = Page(render_html(results))
    shown = " ".join([*page.text, *(value or "" for _, attributes in page.tags for value in attributes.values())])
    assert not re.search(r"\b(nan|None|inf|undefined|NaN)\b", shown)


def test_every_figure_has_a_name_and_words(results: Results) -> None:
    text = render_html(results)
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == 7
    for figure in figures:
        assert re.search(r'<svg class="plot" role="img" aria-label="[^"]{20,}"', figure)
        assert "<figcaption><b>" in figure


def test_missing_numbers_are_dashes_with_the_reason(results: Results) -> None:
    text = render_html(results)
    assert re.search(r'title="the log has no propensities"[^>]*><span>–<', text)
    assert re.search(r'title="one seed says nothing about other seeds"[^>]*><span>–<', text)


def test_misses_are_marked(results: Results) -> None:
    text = render_html(results)
    assert text.count('<span class="chip missed">no</span>') == 2
    assert text.count('class="ring"') == 2


def test_a_bad_result_is_refused_by_name(results: Results) -> None:
    with pytest.raises(UnsupportedError, match="counterplay run"):
        render_html([])
    results[0]["agents"][1]["average_reward"] = float("nan")
    with pytest.raises(InputError, match=r"agents\[1\]\.average_reward"):
        render_html(results)
    del results[1]["estimates"]
    with pytest.raises(InputError, match="'estimates'"):
        render_html(results[1:])


def test_edges_of_the_shapes_render(results: Results) -> None:
    exact, logged = results
    only_estimates = {**logged, "agents": []}
    one_agent = {**exact, "agents": exact["agents"][:1]}
    still = {
        **exact,
        "agents": [{**exact["agents"][0], "average_reward": 0.0, "low": 0.0, "high": 0.0, "std_error": 0.0}],
    }
    still["agents"][0]["curves"] = {name: [[1, 0.0]] for name in ("average_reward", "model_calls", "p_bandit")}
    nothing = {**logged, "agents": [], "comparisons": []}
    nothing["estimates"] = [
        {**row, "value": None, "low": None, "high": None, "truth": None} for row in logged["estimates"]
    ]
    huge = {**exact, "agents": [{**a, "average_reward": a["average_reward"] * 1e9} for a in exact["agents"]]}
    for result in (only_estimates, one_agent, still, nothing, huge):
        Page(render_html([result]))


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = ("matplotlib", "jinja2", "numpy", "rich", "duckdb")
    code = f"import sys, counterplay.reports; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
