"""Asking a model again what the cache says that it said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from counterplay.errors import InputError
from counterplay.llm.answering import answer
from counterplay.llm.engines.engine import Engine, engine_identity, load_engine
from counterplay.llm.generate import compare
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.requests import Request
from counterplay.logs.outputs import OK
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed


@dataclass(frozen=True, kw_only=True)
class LiveReport:
    """What a model says today, beside what is stored.

    ``asked``: outputs that were made again. ``changed``: how many are not the stored response, digit for digit.
    ``other_choice``: how many lead to another choice (another text, or another candidate of highest log-likelihood).
    ``median_difference`` and ``largest_difference``: of each output's largest absolute difference of a log-likelihood,
    in nats; None where no two log-likelihoods could be compared.
    """

    model: str
    asked: int
    changed: int
    other_choice: int
    median_difference: float | None
    largest_difference: float | None

    def __str__(self) -> str:
        moved = (
            "no log-likelihoods could be compared"
            if self.median_difference is None
            else f"log-likelihoods moved by {self.median_difference:.2g} nats in the median and "
            f"{self.largest_difference:.2g} at most"
        )
        return (
            f"{self.model}: {self.asked} outputs asked again, one at a time: {self.changed} changed, "
            f"{self.other_choice} of them to another choice; {moved}. Small changes are expected: sums are rounded in "
            "another order for another size of batch, library or processor (about 1e-4 nats in float32, 0.2 in "
            "bfloat16). Another choice is not, unless two candidates were as good as tied."
        )


def verify_live(
    workspace: Place,
    *,
    model: str,
    count: int,
    engine: str = "transformers",
    dtype: str = "float32",
    adapter: str | Path | None = None,
    tick: Callable[[float], None] | None = None,
) -> LiveReport:
    """Ask a model again for some of its stored outputs, and compare; nothing is stored.

    ``model``: a spec as for `generate`, run as there; only outputs of its very files are asked again (same revision,
    tokenizer, quantisation, ``dtype`` and ``adapter``). ``count``: the first so many in the order of their keys, which
    is a fixed sample without pattern, since keys are hashes. ``tick(1.0)`` is called after each.

    Errors: `InputError` where the cache has no output of this model, or for a count below 1; `MissingExtraError`
    without the extra ``llm``.
    """
    if count < 1:
        raise InputError(f"{count} outputs cannot be asked again. Give 1 or more.")
    identity = engine_identity(model, engine=engine, dtype=dtype, adapter=adapter)
    with borrowed(workspace) as opened:
        stored = _stored(opened.connection, identity, count)
    return _compare(load_engine(model, engine=engine, dtype=dtype, adapter=adapter), stored, tick)


def _stored(connection: Any, identity: ModelIdentity, count: int) -> list[tuple[Request, dict[str, Any]]]:
    rows = connection.execute(
        """SELECT CAST(request AS VARCHAR), CAST(response AS VARCHAR) FROM outputs
           WHERE status = ? AND model = ? AND request ->> '/revision' = ? AND request ->> '/tokenizer' = ?
             AND request ->> '/quantisation' = ? AND request ->> '/dtype' = ? AND request ->> '/provider' = ?
             AND coalesce(request ->> '/adapter', '') = ?
             AND operation IN ('loglikelihood', 'generate') ORDER BY key LIMIT ?""",
        [OK, identity.model, identity.revision, identity.tokenizer, identity.quantisation, identity.dtype,
         identity.provider, identity.adapter or "", count],
    ).fetchall()  # fmt: skip
    if rows:
        return [(json.loads(request), json.loads(response)) for request, response in rows]
    known = connection.execute(
        "SELECT DISTINCT model, left(request ->> '/revision', 12), request ->> '/dtype' FROM outputs ORDER BY ALL"
    ).fetchall()
    held = "; ".join(f"{name}, revision {revision}, {kind}" for name, revision, kind in known[:10])
    raise InputError(
        f"The cache has no outputs of {identity.model}, revision {identity.revision[:12]}, {identity.dtype}. "
        f"{f'It has those of: {held}. Name one of these models.' if known else 'It is empty.'}"
    )


def _compare(
    model: Engine, stored: Sequence[tuple[Request, dict[str, Any]]], tick: Callable[[float], None] | None
) -> LiveReport:
    changed, other, moved = 0, 0, list[float]()
    for request, response in stored:
        # One at a time, so that no answer depends on what else was asked.
        (output,) = answer(model, [request], tick=tick)
        same, difference = compare(response, output.response)
        changed += response != dict(output.response)
        other += not same
        moved += [difference] if np.isfinite(difference) else []
    return LiveReport(
        model=stored[0][0]["model"],
        asked=len(stored),
        changed=changed,
        other_choice=other,
        median_difference=float(np.median(moved)) if moved else None,
        largest_difference=max(moved) if moved else None,
    )
