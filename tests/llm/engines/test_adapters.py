"""Adapters: another identity, other log-likelihoods, those of PEFT itself."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, FileError, MissingExtraError
from counterplay.llm.answering import answer
from counterplay.llm.engines.local import load_model
from counterplay.llm.models import identify
from counterplay.llm.prompting.requests import Prompting, ranking_request
from counterplay.llm.prompting.templates import Template
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

RANKS = Template(
    name="ranks", source="{% block prompt %}{{ text }}{% endblock %}{% block continuation %}{{ action }}{% endblock %}"
)


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """A LoRA on a model's attention, with weights of chance on both sides."""
    peft = pytest.importorskip("peft", reason="adapters need peft")
    import torch
    from transformers import AutoModelForCausalLM

    settings = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save("llama", tmp_path_factory.mktemp("llama"))


def test_an_adapters_log_likelihoods_are_pefts_own(base: Path, tmp_path: Path) -> None:
    import torch

    folder = adapter(base, tmp_path / "lora", seed=1)
    plain, adapted = load_model(str(base)), load_model(str(base), adapter=folder)
    requests = [
        ranking_request(model.identity, Prompting(template=RANKS), "the end", ["a cake", "the tea"])
        for model in (plain, adapted)
    ]
    before, after = (
        answer(model, [request])[0].response["logprobs"]
        for model, request in zip((plain, adapted), requests, strict=True)
    )
    assert np.abs(np.subtract(before, after)).min() > 0.05

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    own = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
    prompt = adapted.prompt("the end")
    for text, found in zip(("a cake", "the tea"), after, strict=True):
        rest = adapted.encode(text)
        with torch.inference_mode():
            logprobs = own(torch.tensor([[*prompt, *rest]])).logits[0].double().log_softmax(-1)
        wanted = sum(float(logprobs[len(prompt) - 1 + at, token]) for at, token in enumerate(rest))
        assert found == pytest.approx(wanted, abs=1e-3)


def test_an_adapter_is_part_of_the_identity(base: Path, tmp_path: Path) -> None:
    one, other = adapter(base, tmp_path / "one", seed=1), adapter(base, tmp_path / "other", seed=2)
    plain, first, second = identify(str(base)), identify(str(base), adapter=one), identify(str(base), adapter=other)
    assert plain.adapter is None
    assert len({plain.adapter, first.adapter, second.adapter}) == 3
    assert (first.revision, first.tokenizer) == (plain.revision, plain.tokenizer)
    settings = one / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert identify(str(base), adapter=one).adapter != first.adapter
    request = ranking_request(first, Prompting(template=RANKS), "x", ["a"])
    with pytest.raises(ConfigurationError, match="Load that one"):
        answer(load_model(str(base)), [request])


def test_a_folder_without_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is no adapter: give a folder with adapter_config\.json"):
        load_model(str(base), adapter=tmp_path)


def test_without_peft_the_message_names_it(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="pip install peft"):
        load_model(str(base), adapter=tmp_path)
