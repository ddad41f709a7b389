"""`counterplay plan`: what a log needs from a model and does not have, and what that costs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterplay.cli.answers import PLAIN, AnswerOptions
from counterplay.cli.endpoint import NO_ENDPOINT, EndpointOptions, behind_endpoint
from counterplay.cli.prompts import (
    PLAIN_ENGINE,
    PLAIN_PROMPT,
    PLAIN_SAMPLING,
    EngineOptions,
    PromptOptions,
    SamplingOptions,
)
from counterplay.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from counterplay.llm.plans.forecast import Forecast


def plan(
    workspace: Path,
    *,
    log: str | None = None,
    model: str | None = None,
    policy: str = "llm",
    sample: int | None = None,
    price: Annotated[tuple[float, float] | None, Parameter(negative="")] = None,
    experiment: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    prompts: PromptOptions = PLAIN_PROMPT,
    drawn: SamplingOptions = PLAIN_SAMPLING,
    answers: AnswerOptions = PLAIN,
    engine: EngineOptions = PLAIN_ENGINE,
    options: EndpointOptions = NO_ENDPOINT,
) -> None:
    """Say what `counterplay generate` would ask and what it would cost; nothing is asked, and no model is loaded.

    Or, with `--experiment`, which stored policies an experiment needs, and which of them the workspace lacks.

    Args:
        workspace: the workspace file.
        log: the log whose contexts would be asked about.
        model: as for `generate`: a folder, a GGUF file, `package:NAME`, `endpoint:NAME`, or `cache:NAME`.
        policy: as for `generate`; what is asked does not depend on it.
        sample: only so many contexts, the first of the log.
        price: what a million tokens read and a million tokens written cost, two numbers; half of the usual ones for a
            batch service that charges half.
        experiment: an experiment's TOML file, in place of a log and a model.
        as_json: print JSON for a program.
    """
    if experiment is not None:
        if any(given is not None for given in (log, model, sample, price)):
            raise InputError("An experiment names its own log. Give --experiment alone, or --log and --model.")
        _print_policies(workspace, experiment, as_json)
        return
    if log is None or model is None:
        raise InputError("Give --log and --model, or --experiment.")
    if options.to_batch is not None or options.from_batch:
        raise ConfigurationError("A plan writes and reads no batch. Leave --to-batch and --from-batch to generate.")
    from counterplay.llm.plans.forecast import forecast

    asked = as_asked(workspace, log, model, sample, prompts, drawn, answers, engine, options)
    found = forecast(workspace, log, prices=price, **asked)
    if as_json:
        print(json.dumps(asdict(found), indent=1, allow_nan=False))
        return
    words = {"log": log, "model": model, "policy": None if policy == "llm" else policy}
    given = [
        *_options(words),
        *(word for group in (prompts, drawn, answers, engine, options) for word in _chosen(group)),
    ]
    for line in _lines(found, price, shlex.join(["counterplay", "generate", str(workspace), *given])):
        print(line)


def as_asked(
    workspace: Path,
    log: str,
    model: str,
    sample: int | None,
    prompts: PromptOptions,
    drawn: SamplingOptions,
    answers: AnswerOptions,
    engine: EngineOptions,
    options: EndpointOptions,
) -> dict[str, Any]:
    """What the options of `generate` say, as the library takes it: see `counterplay.llm.plans.forecast.planned`."""
    from counterplay.llm import Sampling
    from counterplay.llm.endpoints.endpoint import PREFIX

    behind = behind_endpoint(model, options, engine, check=False)
    prompting = (
        prompts.prompting(workspace, log, sampling=Sampling())
        if behind
        else prompts.prompting(workspace, log, model=model, sampling=drawn.sampling())
    )
    return {
        "model": model.removeprefix(PREFIX) if behind else model,
        "prompt": prompting,
        "endpoint": options.place(drawn) if behind else None,
        "best": answers.best,
        "sample": sample,
        "engine": engine.engine,
        "dtype": engine.dtype,
        "adapter": engine.adapter,
        "embedder": answers.place(),
    }


def _lines(found: Forecast, price: tuple[float, float] | None, command: str) -> Iterator[str]:
    yield f"{found.model} on '{found.log}'"
    rows = {
        "requests": f"{found.requests:,}",
        "different": f"{found.different:,}",
        "in the cache": f"{found.served:,}",
        **{f"stored: {status}": _unusable(status, count) for status, count in found.unusable.items()},
        "still to ask": f"{found.to_ask:,}",
    }
    if found.to_ask:
        rows["tokens to read"] = f"{found.prompt_tokens.count:,} ({found.prompt_tokens.basis})"
        rows["tokens to write"] = f"{found.written_tokens.count:,} ({found.written_tokens.basis})"
        rows["seconds"] = _seconds(found, command)
    if found.money is not None and price is not None:
        rows["money"] = f"{found.money:,.4g} (at {price[0]:g} and {price[1]:g} a million tokens)"
    width = max(map(len, rows))
    yield from (f"  {name:<{width}}  {value}" for name, value in rows.items())
    yield from (other.told(found.model) for other in found.other_weights)
    if found.first_miss is not None:
        yield f"First to ask: {found.first_miss}"


def _unusable(status: str, count: int) -> str:
    return f"{count:,} (asked again)" if status == "error" else f"{count:,} (not asked again, and not served)"


def _seconds(found: Forecast, command: str) -> str:
    if found.seconds is None or found.speed is None:
        words = f"{command} --sample {found.sample}"
        return f"unknown: no output of this model was timed yet; `{words}` measures it"
    where = f" on {', '.join(found.speed.devices)}" if found.speed.devices else ""
    long = f", {found.seconds / 3600:,.1f} hours" if found.seconds >= 3600 else ""
    return f"{found.seconds:,.1f}{long} (median of {found.speed.outputs:,} timed outputs{where})"


def _chosen(options: Any) -> Iterator[str]:
    """The options of a group that are not the default, as they would be written."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return _options({name: value for name, value in values.items() if value != getattr(type(options)(), name)})


def _options(values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        elif value is not None:
            for one in value if isinstance(value, tuple) else (value,):
                yield from (f"--{option}", str(one))


def _print_policies(workspace: Path, file: Path, as_json: bool) -> None:
    from counterplay.logs import read_choices, read_texts
    from counterplay.logs.workspace import borrowed
    from counterplay.replay.experiment import load_experiment

    wanted = load_experiment(file)
    with borrowed(workspace) as opened:
        contexts = len(read_texts(opened, wanted.log)[0])
        query = "SELECT DISTINCT policy FROM choices WHERE log = ?"
        stored = {policy for (policy,) in opened.connection.execute(query, [wanted.log]).fetchall()}
        choices = {
            name: int((read_choices(opened, wanted.log, name).actions[:, 0] >= 0).sum()) if name in stored else None
            for name in wanted.models
        }
    if as_json:
        print(json.dumps({"log": wanted.log, "contexts": contexts, "policies": choices}, indent=1))
        return
    if not choices:
        print(f"The agents of {file} need no stored policy.")
    for name, count in choices.items():
        if count is not None:
            print(f"{name}: choices in {count:,} of {contexts:,} contexts of '{wanted.log}'")
            continue
        place = shlex.join([str(workspace), "--log", wanted.log, "--policy", name])
        into = shlex.join(["--into", str(workspace), "--log", wanted.log, "--policy", name])
        print(
            f"{name}: not stored for '{wanted.log}'. A language model makes it with `counterplay generate {place} "
            f"--model MODEL`; choices of your own come in with `counterplay import choices FILE {into}`."
        )
