"""`counterplay cache`: what models said, looked at, checked, and taken from one workspace to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from counterplay.cli.answers import PLAIN, AnswerOptions
from counterplay.cli.endpoint import NO_ENDPOINT, EndpointOptions
from counterplay.cli.plan import as_asked
from counterplay.cli.prompts import (
    PLAIN_ENGINE,
    PLAIN_PROMPT,
    PLAIN_SAMPLING,
    EngineOptions,
    PromptOptions,
    SamplingOptions,
)
from counterplay.cli.screen import console, progress
from counterplay.errors import InputError

if TYPE_CHECKING:
    from counterplay.logs.outputs import CacheOverview, Miss

_SHOWN = 20

cache_app = App(
    name="cache",
    help="Look at the outputs of language models that a workspace holds, check them, and take them to another one.",
    help_format="markdown",
)


@cache_app.command
def stats(workspace: Path, *, as_json: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Count the outputs by model, revision, operation and status, and the prompts that were asked more than once.

    Args:
        workspace: the workspace file.
        as_json: print JSON for a program instead of a table.
    """
    from dataclasses import asdict

    from counterplay.logs.outputs import survey_outputs
    from counterplay.logs.workspace import borrowed

    with borrowed(workspace) as opened:
        found = survey_outputs(opened.connection)
    if as_json:
        print(json.dumps({"outputs": found.outputs, **asdict(found)}, indent=1))
    else:
        _print_overview(found)


@cache_app.command
def explain(
    workspace: Path,
    request: Path | None = None,
    *,
    log: str | None = None,
    model: str | None = None,
    sample: int | None = None,
    prompts: PromptOptions = PLAIN_PROMPT,
    drawn: SamplingOptions = PLAIN_SAMPLING,
    answers: AnswerOptions = PLAIN,
    engine: EngineOptions = PLAIN_ENGINE,
    options: EndpointOptions = NO_ENDPOINT,
) -> None:
    """Say why requests have no output: the nearest stored request, and the fields in which it differs.

    Exit code 0: everything that was asked for is stored. 1: something is not.

    Args:
        workspace: the workspace file.
        request: a JSON file with one request; or give a log and a model.
        log: explain the first misses of what `counterplay generate` would ask about this log.
        model: the model for that, as for `generate`; its files are hashed, it is not run.
        sample: only so many contexts, the first of the log.
    """
    if (request is None) == (log is None or model is None) or (request is not None and (log or model)):
        raise InputError("Give either a JSON file with a request, or --log and --model.")
    if request is not None:
        misses, count = _explained(workspace, request), 1
    else:
        asked = as_asked(workspace, str(log), str(model), sample, prompts, drawn, answers, engine, options)
        misses, count = _explained_plan(workspace, str(log), asked)
    for miss in misses:
        print(miss)
    if count > len(misses):
        print(f"... and {count - len(misses):,} misses more")
    if any(miss.status != "ok" or miss.differences for miss in misses):
        raise SystemExit(1)


@cache_app.command
def export(workspace: Path, file: Path, *, model: str | None = None, overwrite: bool = False) -> None:
    """Write the outputs to a Parquet file, with requests, statuses and provenance.

    Args:
        workspace: the workspace file.
        file: the Parquet file.
        model: the outputs of this model only, by the name that `cache stats` shows.
        overwrite: replace the file if it is there.
    """
    from counterplay.logs.outputs import export_outputs
    from counterplay.logs.workspace import borrowed

    with borrowed(workspace) as opened, progress(console()) as tell:
        count = export_outputs(opened.connection, file, model=model, overwrite=overwrite, progress=tell)
    print(f"wrote {count:,} outputs to {file}")


@cache_app.command(name="import")
def import_(file: Path, *, into: Path) -> None:
    """Add the outputs of a file that `cache export` wrote; what is stored and good is never replaced.

    Every key is computed again from its request. Exit code 1 if the file has other answers than the workspace.

    Args:
        file: the Parquet file.
        into: the workspace; made if it is not there.
    """
    from counterplay.logs.outputs import import_outputs
    from counterplay.logs.workspace import borrowed

    with borrowed(into, read_only=False) as opened, progress(console()) as tell:
        report = import_outputs(opened.connection, file, progress=tell)
    print(report)
    for key in report.conflicts[:_SHOWN]:
        print(f"  conflicting: {key}")
    if report.conflicting > _SHOWN:
        print(f"  conflicting: {report.conflicting - _SHOWN:,} more")
    if report.conflicting:
        raise SystemExit(1)


@cache_app.command
def verify(
    workspace: Path,
    *,
    remove: bool = False,
    live: int | None = None,
    model: str | None = None,
    engine: EngineOptions = PLAIN_ENGINE,
) -> None:
    """Hash every request again and report damaged outputs; or ask a model again for some of them.

    Exit code 1 if outputs are damaged and were left.

    Args:
        workspace: the workspace file.
        remove: take damaged outputs out, so that they are asked for again.
        live: ask `model` again for so many of its outputs and compare; needs the extra `llm`. Stores nothing.
        model: for `live`: a folder with a model, a GGUF file, or `package:NAME`, run as it was (`--dtype` and so on).
    """
    if (live is None) != (model is None) or (live is None and engine != PLAIN_ENGINE):
        raise InputError("To ask a model again, give both --live and --model.")
    if remove and live is not None:
        raise InputError("What a model says again is compared, never stored or removed. Leave out --remove or --live.")
    if live is not None and model is not None:
        from counterplay.llm.verifying import verify_live

        with progress(console()) as tell:
            done = iter(range(1, live + 1))
            report = verify_live(
                workspace,
                model=model,
                count=live,
                engine=engine.engine,
                dtype=engine.dtype,
                adapter=engine.adapter,
                tick=lambda _: tell(next(done, live), live, "asking again"),
            )
        print(report)
        return
    _verify(workspace, remove)


def _verify(workspace: Path, remove: bool) -> None:
    from counterplay.logs.outputs import find_damaged_outputs, remove_outputs
    from counterplay.logs.outputs.store import count_outputs
    from counterplay.logs.workspace import borrowed

    with borrowed(workspace, read_only=not remove) as opened, progress(console()) as tell:
        total = count_outputs(opened.connection)
        damaged = list(find_damaged_outputs(opened.connection, progress=tell))
        removed = remove_outputs(opened.connection, [one.key for one in damaged]) if remove and damaged else 0
    print(
        f"{total:,} outputs: {total - len(damaged):,} are what they say, {len(damaged):,} damaged, {removed:,} removed"
    )
    for one in damaged[:_SHOWN]:
        print(f"  damaged: {one.key}: {one.fault}")
    if len(damaged) > _SHOWN:
        print(f"  damaged: {len(damaged) - _SHOWN:,} more")
    if len(damaged) > removed:
        raise SystemExit(1)


def _explained(workspace: Path, file: Path) -> list[Miss]:
    from counterplay.logs.outputs import explain_miss
    from counterplay.logs.workspace import borrowed

    try:
        request = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as a request ({error}). Write one JSON object, as UTF-8.") from error
    if not isinstance(request, dict):
        raise InputError(f"{file} holds no request. Write one JSON object with the fields of docs/outputs.md.")
    with borrowed(workspace) as opened:
        return [explain_miss(opened.connection, request)]


def _explained_plan(workspace: Path, log: str, arguments: dict[str, Any]) -> tuple[list[Miss], int]:
    """The first misses of a plan, explained, and how many there are."""
    from counterplay.llm.plans.forecast import planned
    from counterplay.logs.outputs import explain_miss, served_keys
    from counterplay.logs.workspace import borrowed

    _, asked = planned(workspace, log, **arguments)
    with borrowed(workspace) as opened:
        known = served_keys(opened.connection, asked.keys)
        missing = [request for key, request in zip(asked.keys, asked.requests, strict=True) if key not in known]
        print(f"{len(asked.keys):,} requests: {len(asked.keys) - len(missing):,} stored, {len(missing):,} are not")
        return [explain_miss(opened.connection, request) for request in missing[:5]], len(missing)


def _print_overview(found: CacheOverview) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    # Most caches say nothing of tokens and money; what no group says gets no column.
    sums = {"input_tokens": "tokens in", "output_tokens": "tokens out", "cost": "cost"}
    said = [name for name in sums if any(getattr(group, name) is not None for group in found.groups)]
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("model", "revision", "operation", "status", "outputs", "MB", "made", *(sums[name] for name in said)):
        table.add_column(name, overflow="fold", justify="left" if name in ("model", "revision", "made") else "right")
    for group in found.groups:
        texts = (group.model, (group.revision or "")[:8], group.operation, group.status)
        made = " to ".join(dict.fromkeys(date for date in (group.first, group.last) if date))
        numbers = (getattr(group, name) for name in said)
        table.add_row(
            *map(escape, texts), f"{group.outputs:,}", f"{group.bytes / 1e6:,.1f}", escape(made),
            *("" if number is None else f"{number:,}" for number in numbers),
        )  # fmt: skip
    console().print(table)
    repeated = found.repeated
    print(f"{found.outputs:,} outputs; {repeated.prompts:,} prompts stand in more than one request")
    for field, count in sorted(repeated.fields.items(), key=lambda item: -item[1])[:_SHOWN]:
        print(f"  {field}: differs in {count:,} of the {repeated.looked_at:,} prompts looked at")
