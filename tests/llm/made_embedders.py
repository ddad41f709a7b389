"""Embedders of a few words, written file by file as sentence-transformers and model2vec write theirs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

WORDS = ("[UNK]", "broken", "arm", "cold", "burn", "hand", "ankle", "fever", "limbs", "infections", "burns", "injuries")

# Each word lies near one of four subjects, so that texts about one subject are alike.
SUBJECTS = {"limbs": (1, 2, 6, 8, 11), "illness": (3, 7, 9), "burns": (4, 10), "hand": (5,)}


def weights(width: int = 6, seed: int = 0) -> npt.NDArray[np.float32]:
    """A vector for each word; that of an unknown word is 0."""
    rows = 0.1 * np.random.default_rng(seed).normal(size=(len(WORDS), width))
    for axis, members in enumerate(SUBJECTS.values()):
        rows[list(members), axis] += 1
    rows[0] = 0
    return np.asarray(rows, dtype=np.float32)


def static_folder(folder: Path, *, width: int = 6, seed: int = 0, limit: int | None = None) -> Path:
    """As sentence-transformers saves static vectors: with modules.json, without config.json."""
    _write(folder, {"embedding.weight": weights(width, seed)}, limit)
    kind = "sentence_transformers.sentence_transformer.modules.static_embedding.StaticEmbedding"
    _modules(folder, [("", kind)])
    return folder


def nested_folder(folder: Path, *, seed: int = 0) -> Path:
    """The same with the files of the module in a folder of its own."""
    _write(folder / "0_StaticEmbedding", {"embedding.weight": weights(seed=seed)}, None)
    _modules(folder, [("0_StaticEmbedding", "sentence_transformers.models.StaticEmbedding")])
    return folder


def model2vec_folder(folder: Path, *, modules: bool) -> Path:
    """As model2vec saves them; its earlier versions write no modules.json."""
    _write(folder, {"embeddings": weights()}, None)
    (folder / "config.json").write_text(json.dumps({"model_type": "model2vec", "normalize": True}))
    if modules:
        static, unit = "sentence_transformers.models.StaticEmbedding", "sentence_transformers.models.Normalize"
        _modules(folder, [(".", static), ("1_Normalize", unit)])
    return folder


def _write(folder: Path, tensors: dict[str, npt.NDArray[np.float32]], limit: int | None) -> None:
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if limit is not None:
        words.enable_truncation(limit)
    words.save(str(folder / "tokenizer.json"))
    save_file(tensors, str(folder / "model.safetensors"))


def _modules(folder: Path, modules: list[tuple[str, str]]) -> None:
    lines = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(lines))
