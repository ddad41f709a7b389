"""The shipped data: complete, what the docs say of them, and provably the answers to their requests."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

import counterplay
from counterplay.demo import data
from counterplay.demo.data import DemoData, check_keys, llm_choice, load_demo, store_outputs
from counterplay.demo.task import ORDER_SALT, Triage, load_triage, shuffled
from counterplay.errors import FileError
from counterplay.llm.prompting.templates import load_template
from counterplay.logs import Workspace
from counterplay.logs.outputs import get_outputs, request_key


def test_the_counts_are_those_of_the_task(demo: DemoData) -> None:
    assert (len(demo.context_ids), len(demo.action_labels)) == (36_343, 285)
    assert len(set(demo.context_ids)) == len(set(demo.texts)) == 36_343
    assert len(set(demo.action_texts)) == 285
    assert sorted(set(demo.labels.tolist())) == list(range(285))
    assert (demo.features.shape, demo.features.dtype) == ((36_343, 64), np.float32)
    assert (demo.action_features.shape, demo.action_features.dtype) == ((285, 64), np.float32)
    assert (demo.shortlist.shape, demo.shortlist.dtype) == ((36_343, 10), np.int32)
    assert (demo.llm_scores.shape, demo.llm_scores.dtype) == ((36_343, 5), np.float32)


def test_every_context_has_an_output(demo: DemoData) -> None:
    assert np.isfinite(demo.llm_scores).all()
    assert (demo.llm_scores < 0).all()
    assert demo.provenance["outputs"]["count"] == 36_343


def test_a_shortlist_names_ten_different_actions(demo: DemoData) -> None:
    ordered = np.sort(demo.shortlist, axis=1)
    assert (ordered[:, 1:] > ordered[:, :-1]).all()
    assert (ordered[:, 0] >= 0).all()
    assert (ordered[:, -1] < 285).all()


def test_the_order_carries_no_alphabet(demo: DemoData) -> None:
    assert list(demo.context_ids) == shuffled(sorted(demo.context_ids), ORDER_SALT)
    places = np.argsort(np.argsort(demo.context_ids))
    # The correlation of a random order of n is about normal with deviation 1/sqrt(n).
    assert abs(np.corrcoef(places, np.arange(len(places)))[0, 1]) < 4 / np.sqrt(len(places))


def test_the_accuracies_are_those_that_the_docs_quote(demo: DemoData) -> None:
    right = demo.labels[:, None]
    found = {
        "nearest block": (demo.shortlist[:, :1] == right).mean(),
        "language model": (llm_choice(demo)[:, None] == right).mean(),
        "block among 5": (demo.shortlist[:, :5] == right).any(axis=1).mean(),
        "block among 10": (demo.shortlist == right).any(axis=1).mean(),
        "64 dimensions": ((demo.features @ demo.action_features.T).argmax(axis=1)[:, None] == right).mean(),
    }
    expected = {
        "nearest block": 0.4040,
        "language model": 0.3983,
        "block among 5": 0.6741,
        "block among 10": 0.7671,
        "64 dimensions": 0.3777,
    }
    assert found == pytest.approx(expected, abs=1e-4)
    page = (Path(counterplay.__file__).parents[1] / "docs" / "demo-data.md").read_text(encoding="utf-8")
    assert all(f"{value:.4f}" in page for value in expected.values())


def test_the_model_chooses_within_what_it_was_asked_about(demo: DemoData) -> None:
    assert (demo.shortlist[:, :5] == llm_choice(demo)[:, None]).any(axis=1).all()


def test_a_tie_goes_to_the_lowest_action_and_no_output_is_a_miss(demo: DemoData) -> None:
    scores = demo.llm_scores.copy()
    scores[0], scores[1] = -1.0, np.nan
    chosen = llm_choice(dataclasses.replace(demo, llm_scores=scores))
    assert chosen[0] == demo.shortlist[0, :5].min()
    assert chosen[1] == -1


def test_each_output_belongs_to_its_request(demo: DemoData) -> None:
    assert check_keys(demo, range(0, 36_343, 100)) == 364


@pytest.mark.slow
def test_all_outputs_belong_to_their_requests(demo: DemoData) -> None:
    assert check_keys(demo) == 36_343


def test_another_shortlist_would_be_another_request(demo: DemoData) -> None:
    swapped = demo.shortlist.copy()
    swapped[7, :2] = swapped[7, 1::-1]
    with pytest.raises(FileError, match=demo.context_ids[7].replace(".", r"\.")):
        check_keys(dataclasses.replace(demo, shortlist=swapped), [7])


def test_the_request_says_everything(demo: DemoData) -> None:
    request = demo.request(0)
    assert request["operation"] == "loglikelihood"
    assert request["template"] == load_template("triage").sha256
    assert len(request["revision"]) == len(request["tokenizer"]) == 64
    assert (request["dtype"], request["quantisation"], request["sampling"]) == ("float32", "Q4_1", None)
    assert request["continuations"] == [f" {demo.texts[0]}"] * 5
    assert request["prompts"][0] == f"Category: {demo.action_texts[demo.shortlist[0, 0]]}\nDiagnosis:"


def test_the_outputs_go_into_a_cache_and_come_out(demo: DemoData, workspace: Workspace) -> None:
    assert store_outputs(workspace.connection, demo, range(5)) == 5
    key = request_key(demo.request(3))
    found = get_outputs(workspace.connection, [key])[key]
    np.testing.assert_array_equal(np.float32(found["logprobs"]), demo.llm_scores[3])


def test_another_release_of_the_classification_is_refused(demo: DemoData, monkeypatch: pytest.MonkeyPatch) -> None:
    triage = load_triage()
    other = dataclasses.replace(triage, texts=("Another text", *triage.texts[1:]))

    def changed() -> Triage:
        return other

    monkeypatch.setattr(data, "load_triage", changed)
    with pytest.raises(FileError, match=r"simple-icd-10-cm==1\.5\.0"):
        load_demo()
    assert demo.provenance["task"]["requirement"] == "simple-icd-10-cm==1.5.0"


def test_the_shipped_files_fit_into_the_wheel() -> None:
    folder = Path(data.__file__).parent / "data"
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {"contexts.parquet", "actions.parquet", "provenance.json"}
    assert sum(sizes.values()) < 6_000_000


def test_the_provenance_names_what_made_the_data(demo: DemoData) -> None:
    made = demo.provenance["outputs"]
    assert made["identity"]["model"] == "SmolLM2-135M-Instruct"
    assert made["template"] == load_template("triage").source
    assert "Apache-2.0" in made["licence"]
    assert set(made["provenance"]["versions"]) == {"counterplay", "torch", "transformers", "numpy"}
    assert made["provenance"]["date"] == "2026-11-21"
    assert hashlib.sha256(made["template"].encode()).hexdigest() == demo.request(0)["template"]
