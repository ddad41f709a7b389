"""The paper's tables on other data: what was published is typed right, and what holds of our runs."""

from __future__ import annotations

import re
import string
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import paper_tables
from paper import across, figures, published, tables, tasks
from paper.comparisons import comparisons, is_lacking
from paper.runs import WARM, Run, agents, budgets, error, expected_calls, mean, run, run_all, stretched
from paper.table import signed, with_error
from paper.tasks import Task
from paper.timing import Timing

from counterplay.replay.agents import Hybrid
from counterplay.replay.selectors import Exponential, Polynomial


@pytest.fixture(scope="module")
def icd() -> Task:
    pytest.importorskip("simple_icd_10_cm")
    return tasks.load("icd")


@pytest.fixture(scope="module")
def slice_of_icd(icd: Task) -> tuple[Task, dict[str, Run]]:
    task = icd.part(640)
    return task, run_all(task, seeds=2)


def test_the_published_shares_are_the_published_calls_over_the_published_rounds() -> None:
    # Table 3 repeats Tables 4 and 7 in another unit.
    calls = {"Flan-T5-large": published.SEVERAL["large"].calls, "Flan-T5-small": published.SEVERAL["small"].calls}
    for model, own in calls.items():
        assert own is not None
        assert own / published.ROUNDS == pytest.approx(published.CALL_SHARES[model], abs=5e-6)
    assert sum(published.TOGETHER) == pytest.approx(published.SEVERAL["small + large"].calls)
    assert published.DATA_SETS["OneShotWikiLinks-311"] == (published.ROUNDS, published.ACTIONS)


def test_one_run_that_stands_in_several_published_tables_has_one_number() -> None:
    default = published.BUDGETS["log-barrier (Algorithm 2)"]
    assert (
        default == published.STRATEGIES["log-barrier"] == published.SMOOTHING["clip .2"] == published.SEVERAL["large"]
    )
    assert published.INSIDE["bandit alone"] == published.BUDGETS["SpannerGreedy"].reward
    assert max(row.reward or 0 for row in published.SMOOTHING.values()) == default.reward
    alone = published.BUDGETS["LLM alone"].reward
    (own,) = (headline for headline in published.HEADLINES if headline.figure == 2)
    assert default.reward is not None
    assert alone is not None
    assert own.times == pytest.approx(default.reward / alone, abs=5e-3)
    assert (own.reward, own.share) == (default.reward, published.CALL_SHARES[own.model])


def test_the_papers_schedules_ask_as_often_as_it_says() -> None:
    # The published calls are means of five runs of a sum of coin tosses: standard deviation of a mean about 45.
    schedules: tuple[tuple[Polynomial | Exponential, str], ...] = (
        (Polynomial(), "polynomial"),
        (Exponential(), "exponential"),
    )
    for schedule, name in schedules:
        calls = published.STRATEGIES[name].calls
        assert calls is not None
        assert expected_calls(schedule, published.ROUNDS) == pytest.approx(calls, abs=4 * 45)


@pytest.mark.parametrize("rounds", [6_204, 36_343])
def test_stretched_schedules_ask_in_the_same_share_of_a_shorter_run(rounds: int) -> None:
    ours: tuple[Polynomial | Exponential, ...] = stretched(rounds)
    theirs: tuple[Polynomial | Exponential, ...] = (Polynomial(), Exponential())
    for schedule, original in zip(ours, theirs, strict=True):
        share = expected_calls(schedule, rounds) / rounds
        assert share == pytest.approx(expected_calls(original, published.ROUNDS) / published.ROUNDS, rel=0.1)
    assert budgets(published.ROUNDS) == {"10K": 10_000, "20K": 20_000}
    assert stretched(published.ROUNDS) == (Polynomial(), Exponential())


def test_every_table_has_the_papers_rows_with_the_published_numbers(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    task, runs = slice_of_icd
    made = {table.number: table for table in tables.tables(task, runs, Timing(0.059, "here"))}
    assert sorted(made) == [1, 2, 3, 4, 5, 6, 7]
    theirs = {4: published.BUDGETS, 5: published.STRATEGIES, 6: published.SMOOTHING}
    for number, rows in theirs.items():
        found = {row[0]: row for row in made[number].rows}
        for name, row in rows.items():
            assert float(found[name][3]) == row.reward
            assert found[name][1] == ("" if row.calls is None else f"{row.calls:,.1f}")
    assert [row[0] for row in made[7].rows[:3]] == [f"{name} (paper)" for name in published.SEVERAL]
    assert [float(row[1]) for row in made[2].rows[:3]] == list(published.TIME_RATIOS.values())
    ratio = 0.059 / runs["SpannerGreedy"].seconds
    assert float(made[2].rows[3][1].replace(",", "")) == pytest.approx(ratio, abs=0.5)
    assert [float(row[1]) for row in made[3].rows[:3]] == list(published.CALL_SHARES.values())
    for table in (*made.values(), *comparisons(task, runs)):
        assert {len(row) for row in table.rows} == {len(table.head)}
        assert "nan" not in table.markdown()


def test_what_is_written_beside_a_published_number_is_what_was_run(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    task, runs = slice_of_icd
    (table,) = (table for table in tables.tables(task, runs) if table.number == 4)
    last = {row[0]: row[-1] for row in table.rows}["log-barrier (Algorithm 2)"]
    value, margin = (float(part) for part in last.split(" ± "))
    again = run(task, agents(task)["log-barrier"], seeds=2)
    assert value == pytest.approx(again.reward.mean(), abs=5e-5)
    assert margin == pytest.approx(again.reward.std(ddof=1) / np.sqrt(2), abs=5e-5)


def test_no_budget_is_overrun_and_equal_calls_are_equal(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    task, runs = slice_of_icd
    for name, agent in agents(task).items():
        if isinstance(agent, Hybrid) and agent.budget is not None:
            assert (runs[name].calls <= agent.budget).all()
    for name, most in budgets(task.rounds).items():
        np.testing.assert_array_equal(runs[f"early stop, B = {name}"].calls, most)
    assert not runs["embedding prior"].asked
    assert not runs["bandit from the embedding prior"].asked
    np.testing.assert_array_equal(runs["LLM always"].calls, task.rounds)
    np.testing.assert_array_equal(runs["LLM always"].reward, runs["SmolLM2-135M"].reward)
    for own in (runs["hybrid with all"], runs["log-barrier"]):
        np.testing.assert_array_equal(own.by_model.sum(axis=1), own.calls)


def test_curves_end_where_the_tables_do(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    _, runs = slice_of_icd
    for own in runs.values():
        np.testing.assert_allclose(own.reward_so_far[:, -1], own.reward, rtol=1e-12)
    # A bandit alone earns what its own choices earn.
    np.testing.assert_allclose(runs["SpannerGreedy"].alone_so_far[:, -1], runs["SpannerGreedy"].reward, rtol=1e-12)


def test_a_time_stands_only_where_one_was_taken(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    task, runs = slice_of_icd
    untimed = tables.tables(task, runs)[1]
    assert untimed.rows[-1] == ("SmolLM2-135M (here)", "not timed")
    without = tables.tables(replace(task, llm=False), runs)[1]
    assert len(without.rows) == len(published.TIME_RATIOS)
    assert "No language model was run" in without.note


def test_two_agents_are_told_apart_only_beyond_three_standard_errors() -> None:
    assert across.verdict(np.array([0.01, 0.012])) == "more"
    assert across.verdict(np.array([-0.01, -0.012])) == "less"
    assert across.verdict(np.array([0.01, 0.05])) == "unclear"
    assert across.verdict(np.array([0.0, 0.0])) == "unclear"


def test_a_sentence_names_each_task_on_its_side(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    base = across.result(*slice_of_icd)

    def with_bandit(title: str, gaps: list[float]) -> across.Result:
        rewards = base.rewards | {
            "SpannerGreedy": [a - b for a, b in zip(base.rewards["log-barrier"], gaps, strict=True)]
        }
        return replace(base, title=title, rewards=rewards)

    own = [with_bandit("A", [0.1, 0.11]), with_bandit("B", [-0.1, -0.11]), with_bandit("C", [0.1, 0.12]),
           with_bandit("D", [0.1, -0.1])]  # fmt: skip
    assert across.sentences(own)[0] == (
        "The paper's hybrid earns more than SpannerGreedy alone on A and C, less on B, cannot be told from it on D."
    )
    row = across.beside(own).rows[0]
    assert row[1] == "-" + with_error(np.array([0.1, 0.11]))
    assert row[2] == "**+" + with_error(np.array([0.1, 0.11])) + "**"


def test_the_best_of_what_the_paper_lacks_is_not_the_model_in_disguise(
    slice_of_icd: tuple[Task, dict[str, Run]],
) -> None:
    own = across.result(*slice_of_icd)
    for rounds, wanted in ((0.5, True), (0.95, False)):
        changed = replace(
            own,
            rewards=own.rewards | {"Tsallis": [1.0, 1.0]},
            calls=own.calls | {"Tsallis": [rounds * own.rounds] * 2},
        )
        assert (across.best_lacking(changed) == "Tsallis") == wanted


def test_results_are_read_as_they_were_written(slice_of_icd: tuple[Task, dict[str, Run]], tmp_path: Path) -> None:
    own = across.result(*slice_of_icd)
    across.write(tmp_path / "results.json", {"clinc": own, "icd": own})
    again = across.read(tmp_path / "results.json")
    assert list(again) == ["icd", "clinc"]
    assert again["icd"] == own
    assert across.read(tmp_path / "none.json") == {}


def test_sections_stand_between_their_marks_and_nothing_else_changes(
    slice_of_icd: tuple[Task, dict[str, Run]], tmp_path: Path
) -> None:
    task, runs = slice_of_icd
    page, results = tmp_path / "paper.md", tmp_path / "results.json"
    page.write_text("before\n<!-- icd: written by scripts/paper_tables.py -->\nold\n<!-- end of icd -->\nafter\n")

    def written() -> list[bytes]:
        paper_tables.write(task, runs, page, results)
        return [place.read_bytes() for place in (page, results, *sorted((tmp_path / "images").iterdir()))]

    first = written()
    text = page.read_text()
    assert text.startswith("before\n")
    assert "\nafter\n" in text
    assert "old" not in text.splitlines()
    assert "## Across the tasks" in text
    assert written() == first
    assert len(first) == 5


ROOT = Path(__file__).parents[1]
MARKED = re.compile(r"<!-- (\w+): written by scripts/paper_tables.py -->(.*?)<!-- end of \1 -->", re.DOTALL)


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")


def test_the_page_shows_the_results_that_are_kept(page: str) -> None:
    results = across.read(paper_tables.RESULTS)
    sections = dict(MARKED.findall(page))
    assert list(results) == list(tasks.KEYS)
    assert sections.keys() == {"across", *results}
    assert sections["across"].strip() == "\n".join(across.section(results)).strip()
    for key, own in results.items():
        assert f"{own.title} (here) | {own.rounds:,} | {own.actions:,} |" in sections[key]
        for name in filter(is_lacking, own.rewards):
            row = rf"^\| {re.escape(name)}[^|]* \|[^|]*\| {re.escape(with_error(own.reward(name)))} \|$"
            assert re.search(row, sections[key], re.MULTILINE), f"{key}: {name}"
        polynomial = own.reward("log-barrier, the calls of polynomial") - own.reward("polynomial")
        assert f"| {signed(polynomial)} |" in sections[key]


def test_every_number_in_the_text_of_the_page_stands_in_a_table_of_it(page: str) -> None:
    tables_of_page = "\n".join(body for _, body in MARKED.findall(page))
    text = MARKED.sub("", page).split("## What to read from it")[1]
    numbers = set(re.findall(r"(?<![\w.,])[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d)?|\d*\.\d{2,}(?: ± \.\d+)?)", text))
    assert len(numbers) > 10
    missing = {own for own in numbers if not re.search(rf"(?<![\d.,]){re.escape(own)}(?!\d)", tables_of_page)}
    assert not missing


def test_what_the_page_says_of_all_tasks_holds_of_the_results() -> None:
    results = across.read(paper_tables.RESULTS)

    def gap(key: str, one: str, other: str) -> str:
        return across.verdict(results[key].reward(one) - results[key].reward(other))

    ours, careful = "log-barrier", "log-barrier over SpannerGreedy exploring a tenth"
    for key, own in results.items():
        assert gap(key, ours, "SpannerGreedy") == "more"
        assert gap(key, ours, "") == "less"
        assert gap(key, careful, ours) == "more"
        assert gap(key, "embedding prior", ours) == ("less" if key == "cities" else "more")
        smoothed = {name: mean(own.reward(name)) for name in own.rewards if name.startswith("smoothing ")}
        assert max(smoothed, key=lambda name: smoothed[name]) == "smoothing none"
        assert mean(own.reward(ours)) < smoothed["smoothing none"] < mean(own.reward(""))
    for key in ("icd", "clinc"):
        assert across.best_lacking(results[key]) == WARM
        assert gap(key, careful, "") == gap(key, careful, "SpannerGreedy") == "more"
        for share in ("10K", "20K"):
            assert results[key].asked(f"Eq. (1), B = {share}") < results[key].asked(f"early stop, B = {share}")
            assert mean(results[key].reward(f"Eq. (1), B = {share}")) > mean(
                results[key].reward(f"early stop, B = {share}")
            )
    schedules = ("polynomial", "exponential", "polynomial, stretched", "exponential, stretched")
    gaps = [
        own.reward(f"log-barrier, the calls of {name}") - own.reward(name)
        for own in results.values()
        for name in schedules
    ]
    assert len(gaps) == 16
    assert "more" not in map(across.verdict, gaps)
    behind = [mean(own) for own in gaps if across.verdict(own) == "less"]
    assert len(behind) == 7
    assert min(behind) == pytest.approx(-0.0153, abs=5e-5)


def test_nothing_of_the_paper_is_called_reproduced(page: str) -> None:
    assert "nothing here reproduces their numbers" in page
    assert "reproduced" not in page


def test_figures_label_their_axes(slice_of_icd: tuple[Task, dict[str, Run]]) -> None:
    for draw in (figures.rewards_and_calls, figures.by_model, figures.over_time):
        for panel in draw(*slice_of_icd).axes:
            assert panel.get_xlabel() == "round"
            assert panel.get_ylabel()
            assert len(panel.lines) == len(panel.collections) >= 2


def test_a_task_whose_data_are_not_here_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "DATA", tmp_path)
    with pytest.raises(tasks.AbsentError, match="COUNTERPLAY_DATA"):
        tasks.load("clinc", tmp_path)


@pytest.mark.slow
def test_on_icd_the_hybrid_beats_its_bandit_but_not_its_model_and_with_less_exploration_both(icd: Task) -> None:
    wanted = (
        "log-barrier", "SpannerGreedy", "SmolLM2-135M", "log-barrier over SpannerGreedy exploring a tenth",
        "SpannerGreedy, exploring a tenth", WARM, "LLM always",
    )  # fmt: skip
    runs = {name: run(icd, agents(icd)[name], seeds=3) for name in wanted}
    hybrid, bandit, model, careful, careful_bandit, warm, watching = (runs[name] for name in wanted)

    def clearly_more(one: Run, other: Run, by: float) -> bool:
        gap = one.reward - other.reward
        return mean(gap) > by and mean(gap) > 3 * error(gap)

    assert clearly_more(hybrid, bandit, 0.15)
    assert clearly_more(model, hybrid, 0.005)
    assert clearly_more(careful, model, 0.05)
    assert clearly_more(careful, careful_bandit, 0.2)
    assert clearly_more(warm, careful, 0.02)
    assert not warm.asked
    # Figure 4: a bandit learns most where it may act itself and the model also does.
    assert mean(hybrid.alone_so_far[:, -1]) > 0.1 + mean(bandit.alone_so_far[:, -1])
    assert mean(hybrid.alone_so_far[:, -1]) > 0.1 + mean(watching.alone_so_far[:, -1])


class Letters:
    """A tokenizer of 64 characters."""

    known = "\n :," + string.ascii_letters + "01234567"

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:  # noqa: ARG002
        return "".join(self.known[token] for token in tokens)


@pytest.mark.slow
def test_completing_many_prompts_at_once_says_what_asking_one_at_a_time_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from paper.completing import BATCH, complete_all

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,
    )
    module, letters = transformers.LlamaForCausalLM(config).eval(), Letters()
    model = SimpleNamespace(
        module=module, tokenizer=letters, encode=lambda text: [letters.known.index(letter) for letter in text]
    )
    monkeypatch.setattr("counterplay.llm.load_model", lambda _: model)
    preamble = "City: Osaka\nCountry: Japan\n\n"
    prompts = [f"City: {letter * (1 + i % 3)}{i % 7}\nCountry:" for i, letter in enumerate(string.ascii_letters * 4)]
    assert len(set(prompts)) > 2 * BATCH
    told: list[str] = []
    found = complete_all("any", preamble, prompts, tmp_path / "said.jsonl", told.append)
    assert found == [_greedy(model, preamble + prompt) for prompt in prompts]
    assert len(set(found)) > 10
    # What was said is kept, but for half a line of a run that was killed.
    with (tmp_path / "said.jsonl").open("a") as file:
        file.write('["City: ')
    told.clear()
    assert complete_all("any", preamble, prompts, tmp_path / "said.jsonl", told.append) == found
    assert not told


def _greedy(model: Any, prompt: str) -> str:
    """The textbook way: the whole text again for every token, nothing kept between them."""
    import torch

    ids = model.encode(prompt)
    own: list[int] = []
    with torch.inference_mode():
        while len(own) < 8 and "\n" not in model.tokenizer.decode(own):
            own.append(int(model.module(torch.tensor([ids + own])).logits[0, -1].argmax()))
    return str(model.tokenizer.decode(own)).strip("\r ").split("\n")[0].strip()
