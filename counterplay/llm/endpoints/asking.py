"""A log's contexts put to a model behind an endpoint: at once, or by batch files.

The workspace is open only while something is read or committed, so that other processes can use it while a server
thinks; what they have stored meanwhile is looked up before each chunk, and not asked again.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from counterplay.errors import ConfigurationError, InputError, UnsupportedError
from counterplay.llm.actions.choosing import ALGORITHM_1, AnswerRule
from counterplay.llm.endpoints.batch_results import ImportReport, import_batch
from counterplay.llm.endpoints.batches import BatchReport, outstanding, write_batch
from counterplay.llm.endpoints.endpoint import Endpoint
from counterplay.llm.generate import Filled, GenerateReport, progress, report_fill, store_choices
from counterplay.llm.opening import opened_for_writing
from counterplay.llm.plans.drafting import request_keys
from counterplay.llm.plans.planning import Plan, plan
from counterplay.llm.prompting.requests import Prompting, Request, prompting_of
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.vectors.embedding import EMBEDDER
from counterplay.logs.outputs import OK, Output, put_outputs, served_keys
from counterplay.logs.reading import Place, require_log
from counterplay.logs.workspace import borrowed

if TYPE_CHECKING:
    from rich.console import Console

CHUNK = 1024
"""Requests between two looks at what other processes have stored."""

Tick = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How many requests were sent: ``answered`` have an output that is served, ``failed`` have another status."""

    answered: int
    failed: int


def generate_from_endpoint(
    workspace: Place,
    log: str,
    policy: str = "llm",
    *,
    model: str,
    endpoint: Endpoint,
    prompt: str | Path | Prompting,
    best: int = 1,
    sample: int | None = None,
    embedder: str = EMBEDDER,
    rule: AnswerRule = ALGORITHM_1,
    console: Console | None = None,
) -> GenerateReport:
    """Ask a model behind an endpoint about every context of a log, once, and store what it would choose as a policy.

    What is in the cache is not asked again, and answers are stored as they come, so a run that was stopped, or killed,
    goes on where it was. A failed request (``error``) is asked again by the next run; what was cut short or refused is
    not, as it was paid for and would end the same way. The choices need the extra ``llm`` only where ``rule`` compares
    texts by embedding; the answers are stored before that.

    Parameters: ``model``: the server's name for it; ``prompt``: a template without the block ``continuation``, or a
    `Prompting` of one, without a chat format (the server has its own) and with the sampling of the endpoint;
    ``best``: texts a request, which share the choice by likelihood; the others as for `counterplay.generate`.

    Errors: those of `plan_for_endpoint`, `Endpoint.ask` and `counterplay.generate`.
    """
    asked = plan_for_endpoint(workspace, log, model, prompt, endpoint, best=best, sample=sample)
    started = time.monotonic()
    with progress(console, len(asked.keys), "asking the endpoint") as tick:
        sent = ask_endpoint(workspace, asked.requests, endpoint, tick=tick)
    seconds = time.monotonic() - started
    filled = Filled(model=model, answered=sent.answered, seconds=seconds)
    return report_fill(workspace, log, policy, asked, filled, rule=rule, best=best, embedder=embedder)


def generate_to_batch(
    workspace: Place,
    log: str,
    folder: str | os.PathLike[str],
    *,
    model: str,
    endpoint: Endpoint,
    prompt: str | Path | Prompting,
    best: int = 1,
    sample: int | None = None,
) -> BatchReport:
    """Write what `generate_from_endpoint` would ask as batch files; nothing is sent, and nothing stored.

    Errors: those of `plan_for_endpoint` and `write_batch`.
    """
    asked = plan_for_endpoint(workspace, log, model, prompt, endpoint, best=best, sample=sample)
    return write_batch(folder, _outstanding(workspace, asked.requests).values(), endpoint)


def generate_from_batch(
    workspace: Place,
    log: str,
    files: Sequence[str | os.PathLike[str]],
    policy: str = "llm",
    *,
    model: str,
    endpoint: Endpoint,
    prompt: str | Path | Prompting,
    best: int = 1,
    sample: int | None = None,
    embedder: str = EMBEDDER,
    rule: AnswerRule = ALGORITHM_1,
) -> ImportReport:
    """Store the results that batch files hold for a log, and what they choose as a policy.

    Model, endpoint, template and sampling must be those with which the batch was written, as they make the ids.
    Errors: those of `plan_for_endpoint` and `import_batch`.
    """
    asked = plan_for_endpoint(workspace, log, model, prompt, endpoint, best=best, sample=sample)
    with opened_for_writing(workspace) as place:
        report = import_batch(place, files, dict(zip(asked.keys, asked.requests, strict=True)))
        report.missing = len(set(asked.keys) - served_keys(place.connection, asked.keys))
    chosen = store_choices(workspace, log, policy, asked, rule=rule, best=best, embedder=embedder)
    report.choices = chosen.chosen if chosen is not None else 0
    return report


def plan_for_endpoint(
    workspace: Place,
    log: str,
    model: str,
    prompt: str | Path | Prompting,
    endpoint: Endpoint,
    *,
    best: int = 1,
    sample: int | None = None,
) -> Plan:
    """The requests for a log's contexts (its first ``sample``) in an endpoint's form, with their keys.

    ``model``: the server's name for it. Errors: `UnsupportedError` for a template that ranks, `FileError` for one that
    is not there; `InputError` for a sample of none, an unknown log, or one without texts; those of `Endpoint.request`.
    """
    if sample is not None and sample < 1:
        raise InputError(f"A sample of {sample} contexts cannot be taken. Give 1 or more.")
    prompting, template = prompting_of(prompt), prompting_of(prompt).template
    if prompting.chat is not None or prompting.sampling not in (Sampling(), endpoint.sampling):
        raise ConfigurationError(
            "The server applies a chat format of its own, and texts are drawn as the endpoint says: give a prompting "
            "with neither."
        )
    if template.ranks:
        raise UnsupportedError(
            f"The template '{template.name}' ranks candidates by their log-likelihood, which an endpoint does not "
            "give. Name one without the block 'continuation', or a local model."
        )
    with borrowed(workspace, read_only=False) as opened:
        # A workspace of an older version is brought to this one.
        require_log(opened.connection, log)
    drafted = plan(workspace, log, endpoint.identity(model), prompting, best=best, sample=sample)
    requests = tuple(endpoint.request(request) for request in drafted.requests)
    return replace(drafted, requests=requests, keys=request_keys(requests))


def ask_endpoint(
    workspace: Place, requests: Sequence[Request], endpoint: Endpoint, *, tick: Tick | None = None
) -> Asked:
    """Ask an endpoint what the workspace has no settled output for, and store what it says, once a second.

    Settled is what was answered, and what was cut short or refused: that was paid for too. ``tick(k)``: k requests more
    are done or need not be asked. Errors: those of `Endpoint.ask`; what came before them is stored.
    """
    todo = list(_outstanding(workspace, requests).values())
    # By chance, because two runs that go through them in one order would ask for the same chunk each time.
    random.shuffle(todo)
    tick = tick or (lambda _: None)
    tick(len(requests) - len(todo))
    ended = {True: 0, False: 0}

    def keep(outputs: Sequence[Output]) -> None:
        with opened_for_writing(workspace) as place, place.transaction() as connection:
            put_outputs(connection, outputs)
        for output in outputs:
            ended[output.status == OK] += 1

    for start in range(0, len(todo), CHUNK):
        chunk = todo[start : start + CHUNK]
        left = list(_outstanding(workspace, chunk).values()) if start else chunk
        tick(len(chunk) - len(left))
        endpoint.ask(left, keep, tick=tick)
    return Asked(answered=ended[True], failed=ended[False])


def _outstanding(workspace: Place, requests: Sequence[Request]) -> dict[str, Request]:
    with opened_for_writing(workspace) as place:
        return outstanding(place.connection, requests)
