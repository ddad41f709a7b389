"""Tiny models with weights of chance, built on the spot and saved as any model is: for what must hold of every model.

Their weights are large, so that one token is much likelier than the next, and their output layer prefers printable
ASCII, so that what they write is text.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from counterplay.llm.engines.local import LanguageModel, load_model

if TYPE_CHECKING:
    import torch

PADDING, BEGINNING, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
MERGES = (("t", "h"), ("th", "e"), ("a", "n"), ("i", "n"), ("Ġ", "t"), ("Ġ", "a"), (",", "Ġ"), ("e", ","), (".", "Ċ"))
WINDOW = 16
"""Tokens that Gemma's sliding layers look at."""

LIMIT = 192
"""Tokens that Llama can look at."""

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

NOISE = [
    # From torch, transformers and their dependencies, on import and on loading; none is about our use of them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers|peft).*"),
]


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """For the modules that import it: these models are too small for a GPU, or to share, and threads that wait for a
    core that another process has take a hundred times as long."""
    require()
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for backend in (torch.cuda, torch.backends.mps):
            # With its attributes: torch looks behind the decorators of its own functions.
            patch.setattr(backend, "is_available", wraps(backend.is_available)(lambda: False))
        yield
    torch.set_num_threads(before)


def require() -> None:
    """Skip where the extra that runs models is not installed."""
    for name in ("torch", "transformers", "psutil"):
        pytest.importorskip(name, reason="running a model needs the extra 'llm'")


def tokenizer(beginning: bool) -> Any:
    """A byte-level BPE: any text can be encoded. ``beginning``: every text begins with ``<s>``, as with Llama; without
    it, every text ends with ``</s>``, as with T5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    own = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(MERGES)))
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own.decoder = decoders.ByteLevel()
    own.add_special_tokens(list(SPECIAL))
    around, special = ("<s> $A", ("<s>", BEGINNING)) if beginning else ("$A </s>", ("</s>", END))
    own.post_processor = processors.TemplateProcessing(single=around, special_tokens=[special])
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=own, **names)  # type: ignore[no-untyped-call]


def build(kind: str, size: int, **settings: Any) -> Any:
    """A module of ``transformers`` with random weights; ``settings`` replace those of its configuration."""
    import transformers

    common: dict[str, Any] = {
        "vocab_size": size,
        "pad_token_id": PADDING,
        "eos_token_id": END,
        "tie_word_embeddings": False,
    }
    if kind == "t5":
        common |= {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": PADDING,
        }
        config = transformers.T5Config(**common | settings)
        return transformers.T5ForConditionalGeneration(config)
    common |= {"bos_token_id": BEGINNING, "intermediate_size": 64, "initializer_range": 0.3, **SIZES}
    if kind == "llama":
        common |= {"num_key_value_heads": 2, "max_position_embeddings": LIMIT}
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common | settings))
    if kind == "gemma3":
        common |= {
            "num_key_value_heads": 1,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        }
        return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**common | settings))
    if kind == "mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(**common | {"state_size": 4} | settings))
    raise AssertionError(kind)


def save(kind: str, folder: Path, **settings: Any) -> Path:
    """A folder with a tiny model, the same each time: of ``llama``, ``gemma3``, ``mamba`` or ``t5``."""
    import torch
    from transformers.utils import logging

    words = tokenizer(beginning=kind != "t5")
    # Aside from the generator of everyone else, and of pytest-randomly.
    with torch.random.fork_rng():
        torch.manual_seed(20261121)
        module = build(kind, len(words), **settings)
        if kind == "t5":
            torch.nn.init.normal_(module.lm_head.weight, std=0.7)
    _prefer_text(module.get_output_embeddings().weight, words)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def load(kind: str, folder: Path, **settings: Any) -> LanguageModel:
    """A tiny model, saved into a folder and loaded from there."""
    return load_model(str(save(kind, folder, **settings)))


def _prefer_text(weight: torch.Tensor, words: Any) -> None:
    """Of the output layer: the logit of what is no printable ASCII is 0, far below the highest."""
    import torch

    texts = words.batch_decode([[token] for token in range(len(words))])
    quiet = [
        i for i, text in enumerate(texts) if i != END and not (text.isascii() and (text.isprintable() or "\n" in text))
    ]
    with torch.no_grad():
        weight[quiet] = 0


def plain_logprobs(module: Any, ids: tuple[int, ...], **inputs: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """``(len(ids), vocabulary)``: log p of what comes after each place, by one forward pass over one sequence."""
    import torch

    with torch.inference_mode():
        logits = module(input_ids=torch.tensor([ids]), use_cache=False, **inputs).logits[0]
    logprobs: np.ndarray[Any, np.dtype[np.float64]] = logits.double().log_softmax(-1).numpy()
    return logprobs


def plain_loglikelihood(model: LanguageModel, prompt: tuple[int, ...], rest: tuple[int, ...]) -> float:
    """log p(rest | prompt), the sum over its tokens."""
    import torch

    if model.encoder_decoder:
        labels = torch.tensor([rest])
        with torch.inference_mode():
            logits = model.module(input_ids=torch.tensor([prompt]), labels=labels).logits[0]
        return float(logits.double().log_softmax(-1).gather(1, labels.T).sum())
    logprobs = plain_logprobs(model.module, prompt + rest)
    return float(sum(logprobs[len(prompt) - 1 + place, token] for place, token in enumerate(rest)))
