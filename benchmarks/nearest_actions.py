"""The most similar of 46,881 actions for 36,343 texts, beside the bare product of the same size.

As many actions as ICD-10-CM has codes, as many texts as it has leaves, 384 dimensions, made-up unit vectors of single
precision. All sides take the product in the same blocks with one thread of the same BLAS, and keep no more than one
block of it.

- bare product: numpy's sgemm, whose result nobody looks at.
- product and argmax: the same, and numpy's argmax of each block: the nearest action, with ties and near ties decided by
  what rounding left.
- nearest, 5, 32: `most_similar`, which includes making vectors unit and deciding near ties exactly.
- names: `choose_by_text` by names alone, no vectors: every output is the name of an action, in capitals.

Times are processor seconds, the least of several turns, all sides taking turns (one turn at full size).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from common import arguments, finish, table
from threadpoolctl import threadpool_limits

from counterplay.llm.actions.choosing import Actions, AnswerRule, choose_by_text
from counterplay.llm.actions.nearest import ACTIONS, TEXTS, most_similar

WIDTH, CODES, LEAVES = 384, 46_881, 36_343

Singles = npt.NDArray[np.float32]


def made_up(seed: int, count: int) -> Singles:
    vectors = np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def products(texts: Singles, actions: Singles) -> Iterator[tuple[int, int, Singles]]:
    scratch = np.empty(TEXTS * ACTIONS, dtype=np.float32)
    for low in range(0, len(texts), TEXTS):
        rows = texts[low : low + TEXTS]
        for start in range(0, len(actions), ACTIONS):
            columns = actions[start : start + ACTIONS]
            block = scratch[: len(rows) * len(columns)].reshape(len(rows), len(columns))
            np.dot(rows, columns.T, out=block)
            yield low, start, block


def bare(texts: Singles, actions: Singles) -> None:
    for _ in products(texts, actions):
        pass


def argmax(texts: Singles, actions: Singles) -> npt.NDArray[np.int64]:
    nearest, value = np.zeros(len(texts), dtype=np.int64), np.full(len(texts), -np.inf, dtype=np.float32)
    for low, start, block in products(texts, actions):
        place = block.argmax(axis=1)
        best = block[np.arange(len(block)), place]
        better = best > value[low : low + len(block)]
        nearest[low : low + len(block)][better] = start + place[better]
        value[low : low + len(block)][better] = best[better]
    return nearest


def names(count: int) -> None:
    texts = [f"code {i} of the list" for i in range(CODES)]
    responses = [{"texts": [texts[i].upper()]} for i in range(count)]
    choose_by_text(responses, Actions(texts=texts), AnswerRule(names=True, fallback="abstain"), no_vectors)


def no_vectors(_: object) -> Singles:
    raise AssertionError


def turns(works: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    took: dict[str, float] = {}
    for _ in range(count):
        for name, work in works.items():
            started = time.process_time()
            work()
            took[name] = min(took.get(name, np.inf), time.process_time() - started)
    return took


def main() -> None:
    quick = arguments(__doc__).quick
    texts, actions = made_up(1, 2_048 if quick else LEAVES), made_up(2, CODES)
    most_similar(texts[:1], actions[:1])  # compiled before the clock starts
    works: dict[str, Callable[[], object]] = {
        "bare product": partial(bare, texts, actions),
        "product and argmax": partial(argmax, texts, actions),
        "nearest": partial(most_similar, texts, actions),
        "5 nearest": partial(most_similar, texts, actions, 5),
        "32 nearest": partial(most_similar, texts, actions, 32),
        "names": partial(names, len(texts)),
    }
    with threadpool_limits(1, user_api="blas"):
        took = turns(works, 2 if quick else 1)
    same = (argmax(texts[:2_048], actions) == most_similar(texts[:2_048], actions).actions[:, 0]).mean()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table(
        [f"{len(texts):,} texts, {CODES:,} actions", "s", "us a text", "of bare"],
        [
            [name, f"{each:.2f}", f"{each / len(texts) * 1e6:.0f}", f"{each / took['bare product']:.2f}"]
            for name, each in took.items()
        ],
    )
    print(f"argmax in single precision and the exact nearest agree in {same:.2%}; peak memory {peak:,.0f} MB")
    finish(
        "nearest_actions",
        {
            "nearest_over_bare": took["nearest"] / took["bare product"],
            "nearest_5_over_bare": took["5 nearest"] / took["bare product"],
            "nearest_32_over_bare": took["32 nearest"] / took["bare product"],
            "nearest_over_argmax": took["nearest"] / took["product and argmax"],
        },
        {"texts": len(texts), "actions": CODES, "width": WIDTH, "peak_mb": round(peak)},
    )


if __name__ == "__main__":
    main()
