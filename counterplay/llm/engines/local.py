"""A model that runs in this process, by ``transformers``."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import MissingExtraError
from counterplay.llm.engines.batching import Batches, footprint
from counterplay.llm.engines.generation import Completion, Prompt, complete
from counterplay.llm.engines.padded import loglikelihoods as padded_loglikelihoods
from counterplay.llm.engines.scoring import Pair, loglikelihoods
from counterplay.llm.engines.stopping import StopStrings
from counterplay.llm.engines.threads import patient_threads
from counterplay.llm.files import quiet
from counterplay.llm.models import ModelIdentity, identify, resolve

if TYPE_CHECKING:
    import torch

LIBRARIES = ("counterplay", "torch", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A loaded model: ``module`` is a model of ``transformers`` in evaluation mode.

    ``beginning``: token ids that its tokenizer puts before every text; ``ending``: after it (of an encoder's input).
    ``ends``: the tokens that end a text. ``padding``: what a shorter row is filled with. ``limit``: how many tokens it
    can look at, None where nothing says so. ``batches``: what fits into memory; ``stops``: of stop strings.
    """

    identity: ModelIdentity
    tokenizer: Any
    module: Any
    device: torch.device
    batches: Batches
    beginning: tuple[int, ...] = ()
    ending: tuple[int, ...] = ()
    ends: frozenset[int] = frozenset()
    padding: int = 0
    limit: int | None = None
    stops: dict[tuple[str, ...], StopStrings] = field(default_factory=dict, repr=False)

    @property
    def encoder_decoder(self) -> bool:
        """Whether what is written stands in another sequence than what is read (T5 and its like)."""
        return bool(self.module.config.is_encoder_decoder)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it stands: no beginning or end is added."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of what the model is to read, with the beginning and end that its tokenizer gives every text; a
        beginning that stands in the text already, as in a chat, is not repeated."""
        ids = tuple(self.encode(text))
        before = () if ids[: len(self.beginning)] == self.beginning else self.beginning
        return before + ids + self.ending

    def stop_strings(self, marks: tuple[str, ...]) -> StopStrings | None:
        """What is known of these stop strings, worked out at the first use; None for no string."""
        if marks and marks not in self.stops:
            size = int(self.module.get_output_embeddings().weight.shape[0])
            self.stops[marks] = StopStrings(self.tokenizer, marks, size, self.device)
        return self.stops.get(marks)

    def ends_with(self, marks: tuple[str, ...]) -> frozenset[int]:
        """The tokens that end a text where these are its stop strings."""
        stops = self.stop_strings(marks)
        return self.ends if stops is None else self.ends | stops.ends

    def complete(
        self, prompts: Sequence[Prompt], sampling: Mapping[str, Any], *, tick: Callable[[float], None] | None = None
    ) -> list[list[Completion]]:
        """See `counterplay.llm.engines.generation`."""
        return complete(self, prompts, sampling, tick=tick)

    def loglikelihoods(
        self, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float64]:
        """log p(continuation | prompt) of each pair of token ids, in nats."""
        score = padded_loglikelihoods if self.encoder_decoder else loglikelihoods
        return score(self, pairs, tick=tick)

    def provenance(self) -> dict[str, Any]:
        """What runs, and where."""
        import torch

        cuda = self.device.type == "cuda"
        return {
            "engine": "transformers",
            "device": str(self.device),
            **({"device_name": torch.cuda.get_device_name(self.device)} if cuda else {}),
            "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        }


def load_model(spec: str, *, dtype: str = "float32", adapter: str | Path | None = None) -> LanguageModel:
    """Load a model for scoring and generation: on CUDA, else on Apple's MPS, else on the processor.

    float32 is the default because only float32 gives the same log-likelihoods on other hardware and in other packings
    of the same requests (differences around 1e-4); bfloat16 moves them by some 0.2 nats. On a GPU bfloat16 reads half
    as many bytes a token: take it where texts are wanted rather than likelihoods, and say so from the start, since it
    is part of every request. ``adapter``: a folder that PEFT has saved, put on top of the model.

    Errors: those of `identify`; `MissingExtraError` without the extra ``llm``, or without ``peft`` for an adapter.
    """
    identity = identify(spec, dtype=dtype, adapter=adapter)
    torch, transformers = _libraries()
    path = resolve(spec)
    folder, options = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    device = torch.device(
        "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    )
    with quiet():
        config = transformers.AutoConfig.from_pretrained(str(folder), **options)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
        kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        module = kind.from_pretrained(str(folder), dtype=getattr(torch, dtype), **options)
        if adapter is not None:
            module = _adapted(module, adapter)
    return language_model(identity, tokenizer, module.to(device))


def language_model(identity: ModelIdentity, tokenizer: Any, module: Any) -> LanguageModel:
    """A model of ``transformers`` where it stands, with what its tokenizer and its configuration say of beginnings,
    ends and limits; its generation settings are replaced by those."""
    import transformers

    config, own = module.config, module.generation_config
    said = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    ends = [] if said is None else [said] if isinstance(said, int) else list(said)
    plain, marked = tokenizer("a", add_special_tokens=False).input_ids, tokenizer("a").input_ids
    start = next(i for i in range(len(marked)) if marked[i : i + len(plain)] == plain)
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends or [0])[0]
    # Only what the request says: a penalty or a temperature in the model's own file would be in no key.
    module.generation_config = transformers.GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=ends or None,
        pad_token_id=padding,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )
    limit = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    return LanguageModel(
        identity=identity,
        tokenizer=tokenizer,
        module=module.eval(),
        device=module.device,
        batches=Batches(module.device, footprint(config, module.dtype.itemsize)),
        beginning=tuple(marked[:start]),
        # Only an encoder reads a text to its end; a decoder would take the end for the end of its own writing.
        ending=tuple(marked[start + len(plain) :]) if config.is_encoder_decoder else (),
        ends=frozenset(ends),
        padding=int(padding),
        limit=int(limit) if limit else None,
    )


def _adapted(module: Any, adapter: str | Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError(
            "An adapter needs peft, which is not installed. Install it with: pip install peft"
        ) from error
    return PeftModel.from_pretrained(module, str(adapter)).merge_and_unload()


def _libraries() -> tuple[Any, Any]:
    try:
        with patient_threads():
            import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"Running a language model needs {error.name}, which is not installed. "
            "Install it with: pip install 'counterplay[llm]'"
        ) from error
    return torch, transformers
