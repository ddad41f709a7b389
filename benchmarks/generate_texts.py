"""Texts a second of `answer`, beside a bare loop over ``model.generate`` with the same batches, and beside what memory
allows.

The model has the sizes of a real one and weights of chance, so nothing is downloaded: SmolLM2-135M on a processor,
Gemma 2B on CUDA, in bfloat16. Prompts are words of chance; every text is written to its limit.

- overhead: prompts of 24 tokens with nothing in common. Ours: requests to outputs with their log-likelihoods, stored in
  a workspace. Bare: token ids are given, batches are cut as ours, padded and passed to ``model.generate``; texts are
  decoded.
- examples: the same behind 160 tokens that all prompts share (24 with ``--quick``).
- decoding: the last tokens of a batch, by time of the limit less time of one token, beside the floor: the weights, read
  once a step at the rate at which this device reads memory.
- embedding: MiniLM, 2,000 short texts (where the package is installed).

Sides take turns; times are the least of the turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, finish, table

from counterplay.llm.answering import answer
from counterplay.llm.engines.local import LanguageModel, language_model
from counterplay.llm.engines.padded import padded
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.requests import Prompting, Request, generation_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import Template
from counterplay.logs import open_workspace
from counterplay.logs.outputs import put_outputs

OWN, SHARED, TOKENS = 24, 160, 24
SMOLLM2 = {
    "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "vocab_size": 49_152, "tie_word_embeddings": True,
}  # fmt: skip
GEMMA_2B = {
    "hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256,
    "intermediate_size": 16_384, "vocab_size": 256_000,
}  # fmt: skip


def build() -> tuple[str, LanguageModel]:
    """The model's name, and the model with weights of chance, where it runs fastest."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

    cuda = torch.cuda.is_available()
    torch.manual_seed(0)
    config = GemmaConfig(**GEMMA_2B) if cuda else LlamaConfig(**SMOLLM2)
    with torch.device("cuda" if cuda else "cpu"):
        module = (GemmaForCausalLM if cuda else LlamaForCausalLM)(config).to(torch.bfloat16)
    name = "Gemma 2B" if cuda else "SmolLM2-135M"
    identity = ModelIdentity(
        model=f"{name} with weights of chance", revision="0" * 64, quantisation="none", dtype="bfloat16",
        tokenizer="0" * 64,
    )  # fmt: skip
    return name, language_model(identity, words(config.vocab_size), module)


def words(size: int) -> Any:
    """A tokenizer whose tokens are words: "w7 w8" is 7, 8."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"<pad>": 0, "a": 1, **{f"w{i}": i for i in range(2, size)}}, unk_token="<pad>"))
    made.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")


def texts(count: int, length: int, size: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{i}" for i in rng.integers(2, size, length)) for _ in range(count)]


def requests(model: LanguageModel, own: Sequence[str], shared: str) -> list[Request]:
    source = "{% block prompt %}{{ text }}{% endblock %}"
    if shared:
        source = f"{{% block preamble %}}{shared} {{% endblock %}}{source}"
    template = Template(name="words", source=source)
    prompting = Prompting(template=template, sampling=Sampling(max_tokens=TOKENS, stop=()))
    return [generation_request(model.identity, prompting, text) for text in own]


def bare(model: LanguageModel, ids: Sequence[tuple[int, ...]], batch: int, tokens: int = TOKENS) -> list[str]:
    """What one would write by hand."""
    import torch

    found = []
    for start in range(0, len(ids), batch):
        rows = ids[start : start + batch]
        with torch.inference_mode():
            written = model.module.generate(
                input_ids=padded(rows, model.padding, left=True).to(model.device),
                attention_mask=padded([[1] * len(row) for row in rows], 0, left=True).to(model.device),
                max_new_tokens=tokens,
                do_sample=False,
            )
        found += model.tokenizer.batch_decode(written[:, len(rows[0]) :])
    return found


def ours(model: LanguageModel, asked: Sequence[Request]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, open_workspace(Path(folder) / "cache.duckdb") as workspace:
        outputs = answer(model, asked)
        with workspace.transaction() as connection:
            put_outputs(connection, outputs)
    return [output.response["texts"][0] for output in outputs]


def batch_size(model: LanguageModel, length: int, count: int) -> int:
    """The batches that ours are cut into."""
    return len(next(model.batches.run([length] * count, lambda rows: rows))[0])


def turns(works: dict[str, Callable[[], Any]], count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for _ in range(count):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            found[name] = min(found.get(name, np.inf), time.perf_counter() - started)
    return found


def bytes_a_second(model: LanguageModel) -> float:
    """How fast the device reads memory: the sum over half a gigabyte of bfloat16."""
    import torch

    block = torch.ones(2**28, dtype=torch.int16, device=model.device).view(torch.int64)

    def read() -> None:
        block.sum().item()

    read()
    return 2**29 / turns({"": read}, 7)[""]


def decoding(model: LanguageModel, own: Sequence[tuple[int, ...]], batch: int) -> dict[str, float]:
    """Seconds a step after the first, and the least that reading the weights takes."""
    rows = own[:batch]
    took = turns({"one": lambda: bare(model, rows, batch, 1), "all": lambda: bare(model, rows, batch)}, 2)
    weights = sum(
        tensor.numel() * tensor.itemsize for tensor in {t.data_ptr(): t for t in model.module.parameters()}.values()
    )
    return {"step": (took["all"] - took["one"]) / (TOKENS - 1), "floor": weights / bytes_a_second(model)}


def embedding(count: int) -> float | None:
    """Texts a second, or None where MiniLM is not installed."""
    from counterplay.errors import CounterplayError
    from counterplay.llm.vectors.embedding import embed

    rng = np.random.default_rng(0)
    parts = ["burn", "fracture", "of", "left", "right", "hand", "ankle", "infection", "acute", "chronic", "other"]
    said = [" ".join(rng.choice(parts, 8)) + f" {i}" for i in range(count)]
    try:
        embed(said[:32])
    except CounterplayError:
        return None
    started = time.perf_counter()
    embed(said)
    return count / (time.perf_counter() - started)


def main() -> None:
    quick = arguments(__doc__).quick
    name, model = build()
    cuda = model.device.type == "cuda"
    count, times = ((512 if cuda else 32), 1) if quick else ((2048, 5) if cuda else (256, 3))
    size = int(model.module.config.vocab_size)
    own = texts(count, OWN, size, 1)
    (shared,) = texts(1, OWN if quick else SHARED, size, 2)
    plain, behind = requests(model, own, ""), requests(model, own, shared)
    ids = [model.prompt(text) for text in own]
    ids_behind = [model.prompt(f"{shared} {text}") for text in own]
    batch = batch_size(model, OWN + TOKENS, count)
    batch_behind = batch_size(model, len(ids_behind[0]) + TOKENS, count)
    agree = sum(a == b for a, b in zip(ours(model, plain[:batch]), bare(model, ids[:batch], batch), strict=True))
    took = turns(
        {
            "ours": lambda: ours(model, plain),
            "bare": lambda: bare(model, ids, batch),
            "ours, examples": lambda: ours(model, behind),
            "bare, examples": lambda: bare(model, ids_behind, batch_behind),
        },
        times,
    )
    rows = [[side, f"{count / s:.1f}", f"{count * TOKENS / s:,.0f}", f"{s:.2f}"] for side, s in took.items()]
    table([f"{name}, {count} prompts, batches of {batch} and {batch_behind}", "prompts/s", "tokens/s", "s"], rows)
    print(f"texts that agree with the bare loop's: {agree} of {batch}\n")
    steps = {rows: decoding(model, ids, rows) for rows in (1, batch)}
    shown = [
        [rows, f"{s['step'] * 1e3:.2f}", f"{s['floor'] * 1e3:.2f}", f"{s['step'] / s['floor']:.1f}"]
        for rows, s in steps.items()
    ]
    table(["rows decoded at once", "ms a step", "floor, ms", "ratio"], shown)
    rate = embedding(64 if quick else 2000)
    print(f"\nMiniLM: {'not installed' if rate is None else f'{rate:,.0f} texts/s'}")
    finish(
        "generate_texts",
        {
            "overhead": took["ours"] / took["bare"] - 1,
            "bare_over_ours_with_examples": took["bare, examples"] / took["ours, examples"],
            "step_over_floor_one_row": steps[1]["step"] / steps[1]["floor"],
            "step_over_floor_batch": steps[batch]["step"] / steps[batch]["floor"],
        },
        {
            "model": name,
            "device": str(model.device),
            "prompts": count,
            "prompts_a_second": round(count / took["ours"], 1),
            "tokens_a_second": round(count * TOKENS / took["ours"]),
            "embeddings_a_second": None if rate is None else round(rate),
        },
    )


if __name__ == "__main__":
    main()
