"""Batches: every prompt once, as many as memory holds, fewer where that was too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from counterplay.errors import InputError
from counterplay.llm.engines.batching import Batches, Footprint, footprint, free_bytes
from counterplay.llm.engines.generation import Prompt
from counterplay.llm.engines.local import LanguageModel
from counterplay.llm.prompting.sampling import Sampling
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

FITS = 4
"""Rows that the narrow module can take."""


def out_of_memory(kind: str) -> BaseException:
    import torch

    return {
        "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "mps": RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB, max allowed: 18.13 GB)."),
        "cpu": RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."
        ),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        "python": MemoryError(),
    }[kind]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save("llama", tmp_path_factory.mktemp("llama")))


@pytest.fixture
def narrow(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[BaseException, int], tuple[LanguageModel, list[int]]]:
    """A model that has no room for more than some rows, and how many rows it was asked for each time."""
    from counterplay.llm.engines.local import load_model

    def made(error: BaseException, fits: int) -> tuple[LanguageModel, list[int]]:
        model, asked = load_model(folder), list[int]()
        own = model.module.generate

        def generate(*, input_ids: Any, **options: Any) -> Any:
            asked.append(len(input_ids))
            if len(input_ids) > fits:
                raise error
            return own(input_ids=input_ids, **options)

        monkeypatch.setattr(model.module, "generate", generate)
        return model, asked

    return made


def prompts(model: LanguageModel, count: int) -> list[Prompt]:
    return [Prompt(ids=model.prompt("ab" * (i % 5 + 1)), key=str(i)) for i in range(count)]


@pytest.mark.parametrize(
    ("kind", "best"), [("cuda", 1), ("cuda", 3), ("mps", 1), ("cpu", 1), ("cublas", 1), ("python", 1)]
)
def test_a_batch_that_was_too_much_is_cut_and_no_later_one_is_larger(
    narrow: Any, folder: str, kind: str, best: int
) -> None:
    from counterplay.llm.engines.local import load_model

    model, asked = narrow(out_of_memory(kind), FITS)
    sampling = Sampling(max_tokens=3, stop=(), temperature=1.0 if best > 1 else 0.0).fields(best)
    ticks = list[float]()
    found = model.complete(prompts(model, 23), sampling, tick=ticks.append)
    assert asked[0] > FITS
    good = [rows for rows in asked if rows <= FITS]
    assert (sum(good), sum(ticks)) == (23 * best, 23), "every prompt is answered once"
    first = next(at for at, rows in enumerate(asked) if rows <= FITS)
    assert all(rows <= FITS for rows in asked[first:]), "what was too much once is not tried again"
    roomy = load_model(folder)
    wanted = roomy.complete(prompts(roomy, 23), sampling)
    assert [[one.text for one in group] for group in found] == [[one.text for one in group] for group in wanted]
    asked.clear()
    model.complete(prompts(model, 23), sampling)
    assert max(asked) <= FITS, "the next run remembers"


def test_a_prompt_that_alone_does_not_fit_is_refused_with_the_mend(narrow: Any) -> None:
    model, asked = narrow(out_of_memory("cuda"), 0)
    with pytest.raises(InputError, match=r"does not fit into the memory of cpu.*Shorten the prompts.*bfloat16"):
        model.complete(prompts(model, 5), Sampling(max_tokens=3, stop=()).fields(1))
    assert asked == [5, 2, 1]


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), KeyboardInterrupt(), ValueError("out of range")])
def test_another_error_is_raised_as_it_is(narrow: Any, error: BaseException) -> None:
    model, asked = narrow(error, 0)
    with pytest.raises(type(error)) as raised:
        model.complete(prompts(model, 5), Sampling(max_tokens=3, stop=()).fields(1))
    assert raised.value is error
    assert asked == [5]


def test_batches_hold_every_position_once_the_longest_first() -> None:
    import torch

    batches = Batches(torch.device("cpu"), Footprint(row=1, token=1))
    lengths = [3, 900, 20, 5_000, 7, 7, 20_000, 1]
    taken = [rows for rows, found in batches.run(lengths, lambda rows: rows) if rows == found]
    assert Counter(at for rows in taken for at in rows) == Counter(range(len(lengths)))
    assert taken[0] == [6], "one that is longer than a batch may be is a batch of its own"
    longest = [max(lengths[at] for at in rows) for rows in taken]
    assert longest == sorted(longest, reverse=True)
    assert list(batches.run([], lambda rows: rows)) == []


def test_as_many_rows_go_together_as_fit_into_memory() -> None:
    import torch

    device = torch.device("cpu")
    share = free_bytes(device) * 0.6
    large = Batches(device, Footprint(row=int(share / 6.5), token=0))
    sizes = [len(rows) for rows, _ in large.run([10] * 20, lambda rows: rows)]
    # Free memory moves between two looks at it.
    assert set(sizes[:-1]) <= {5, 6, 7}
    by_three = [len(rows) for rows, _ in large.run([10] * 20, lambda rows: rows, rows_each=3)]
    assert set(by_three[:-1]) <= {1, 2}


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_footprint_has_room_for_the_keys_and_values_of_a_row(kind: str, tmp_path: Any) -> None:
    import torch
    from transformers import DynamicCache

    model = tiny.load(kind, tmp_path)
    rows, length = 3, 100
    # Without the configuration, so that sliding layers keep all that they were given, as a prompt of that length does.
    cache: Any = DynamicCache()
    with torch.inference_mode():
        model.module(input_ids=torch.ones((rows, length), dtype=torch.long), past_key_values=cache)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    estimate = footprint(model.module.config, itemsize=4)
    assert kept > 0
    assert rows * estimate.token * length >= kept
    assert rows * estimate.of(length) >= kept + rows * 4 * len(model.tokenizer)
    assert footprint(model.module.config, itemsize=2).token * 2 == estimate.token
    # Not so generous that memory stays empty: within twenty times what is kept, activations included.
    assert rows * estimate.token * length <= 20 * kept
