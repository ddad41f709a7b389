"""Greedy completions of many prompts with one beginning, faster than one at a time and without padding.

The common beginning is read once and prompts of the same number of tokens go together, so nothing is padded; in float32
that leaves rounding (about 1e-5 in a logit) beside ``counterplay generate``. What was completed is kept by batches.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BATCH, TOKENS = 64, 8


def complete_all(
    spec: str, preamble: str, prompts: Sequence[str], cache: Path, tell: Callable[[str], None]
) -> list[str]:
    """The first line of each greedy completion of ``preamble + prompt``, of at most 8 tokens.

    Args:
        spec: a model, as ``counterplay.llm.load_model`` takes it.
        cache: a file of JSON lines [prompt, completion]; what it holds is not asked again.
        tell: called with the progress.
    """
    known = _known(cache)
    missing = sorted({prompt for prompt in prompts if prompt not in known})
    if missing:
        from counterplay.llm import load_model

        tell(f"loading {spec}")
        model = load_model(spec)
        beginning = _beginning(model, preamble)
        encoded = sorted((len(ids), prompt, ids) for prompt in missing for ids in [model.encode(prompt)])
        cache.parent.mkdir(parents=True, exist_ok=True)
        with cache.open("a", encoding="utf-8") as file:
            for batch in _batches(encoded):
                texts = _complete(model, beginning, [ids for _, _, ids in batch])
                for (_, prompt, _), text in zip(batch, texts, strict=True):
                    known[prompt] = text
                    file.write(json.dumps([prompt, text]) + "\n")
                file.flush()
                tell(f"{spec}: {sum(prompt in known for prompt in missing):,} of {len(missing):,} completed")
    return [known[prompt] for prompt in prompts]


def _known(cache: Path) -> dict[str, str]:
    if not cache.exists():
        return {}
    lines = cache.read_text(encoding="utf-8").splitlines(keepends=True)
    # A run that was killed may have left half a line.
    return dict(json.loads(line) for line in lines if line.endswith("\n"))


def _batches(encoded: list[tuple[int, str, list[int]]]) -> list[list[tuple[int, str, list[int]]]]:
    batches: list[list[tuple[int, str, list[int]]]] = []
    for one in encoded:
        if not batches or len(batches[-1]) == BATCH or batches[-1][0][0] != one[0]:
            batches.append([])
        batches[-1].append(one)
    return batches


def _beginning(model: Any, preamble: str) -> Any:
    import torch

    with torch.inference_mode():
        return model.module(torch.tensor([model.encode(preamble)]), use_cache=True).past_key_values


def _complete(model: Any, beginning: Any, ids: list[list[int]]) -> list[str]:
    import torch

    cache = copy.deepcopy(beginning)
    cache.batch_repeat_interleave(len(ids))
    tokens = torch.tensor(ids)
    found: list[list[int]] = [[] for _ in ids]
    with torch.inference_mode():
        for _ in range(TOKENS):
            logits = model.module(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
            tokens = logits.argmax(dim=1, keepdim=True)
            for own, token in zip(found, tokens[:, 0].tolist(), strict=True):
                own.append(token)
            if all("\n" in model.tokenizer.decode(own) for own in found):
                break
    texts = [model.tokenizer.decode(own, skip_special_tokens=True) for own in found]
    return [text.strip("\r ").split("\n")[0].strip() for text in texts]
