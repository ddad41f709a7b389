"""The options of `counterplay generate` for a model behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterplay.cli.answers import AnswerOptions
from counterplay.cli.prompts import PLAIN_ENGINE, EngineOptions, PromptOptions, SamplingOptions
from counterplay.cli.screen import console
from counterplay.errors import ConfigurationError

if TYPE_CHECKING:
    from counterplay.llm.endpoints.endpoint import Endpoint


@Parameter(name="*", group="Endpoint")
@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """Where and how a model is asked whose name begins with `endpoint:`, and what for.

    Attributes:
        endpoint: the server's address, up to and with /v1; default: the variable OPENAI_BASE_URL.
        key_variable: the environment variable that holds the key; default: OPENAI_API_KEY if the address is that of
            OPENAI_BASE_URL or of OpenAI, else no key is sent.
        provider: whose model it is, part of every key; default: the address.
        completions: ask /completions instead of /chat/completions.
        logprobs: ask for log-probabilities.
        parallel: requests under way at once.
        timeout: seconds for one attempt.
        to_batch: write the requests into this new folder as batch files, and ask nothing.
        from_batch: read results of a batch from these files, and ask nothing.
    """

    endpoint: str | None = None
    key_variable: str | None = None
    provider: Annotated[str, Parameter(show_default=False)] = ""
    completions: Annotated[bool, Parameter(negative="")] = False
    logprobs: bool = True
    parallel: int = 4
    timeout: float = 120.0
    to_batch: Path | None = None
    from_batch: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = ()

    def place(self, drawn: SamplingOptions) -> Endpoint:
        """The endpoint that the options describe. Errors: `ConfigurationError`."""
        from counterplay.llm.endpoints.endpoint import endpoint_from_environment

        if self.to_batch is not None and self.from_batch:
            raise ConfigurationError("--to-batch writes and --from-batch reads. Give one of them.")
        return endpoint_from_environment(
            self.endpoint,
            key_variable=self.key_variable,
            provider=self.provider,
            chat=not self.completions,
            sampling=drawn.sampling(logprobs=self.logprobs),
            parallel=self.parallel,
            timeout=self.timeout,
        )


NO_ENDPOINT = EndpointOptions()


def behind_endpoint(model: str, options: EndpointOptions, engine: EngineOptions, *, check: bool) -> bool:
    """Whether a model stands behind an endpoint. Errors: `ConfigurationError` for options that do not go together."""
    from counterplay.llm.endpoints.endpoint import PREFIX

    if not model.startswith(PREFIX):
        if options != NO_ENDPOINT:
            raise ConfigurationError(
                f"The options of an endpoint do nothing for '{model}', which runs here. Name the model {PREFIX}NAME."
            )
        return False
    if engine != PLAIN_ENGINE:
        raise ConfigurationError("--engine, --dtype and --adapter are of a model that runs here. Leave them out.")
    if check:
        raise ConfigurationError(
            "--check compares log-likelihoods of a model that runs here; asking an endpoint again is paid for again, "
            "and proves nothing about the first answer. Leave it out."
        )
    return True


def ask_behind_endpoint(
    workspace: Path,
    log: str,
    policy: str,
    model: str,
    sample: int | None,
    options: EndpointOptions,
    prompts: PromptOptions,
    drawn: SamplingOptions,
    answers: AnswerOptions,
) -> None:
    """Ask, write or read, whichever the options say, and print what came of it.

    Exit code 1 for results that do not fit. Errors: those of `counterplay.llm.endpoints.asking`.
    """
    from counterplay.llm import Sampling
    from counterplay.llm.endpoints import asking
    from counterplay.llm.endpoints.batch_results import ImportReport
    from counterplay.llm.endpoints.endpoint import PREFIX

    if prompts.prompt is None:
        raise ConfigurationError(
            "An endpoint needs --prompt: a template without the block 'continuation' (that of the demo ranks)."
        )
    terminal = console()
    asked: dict[str, Any] = {
        "model": model.removeprefix(PREFIX),
        "endpoint": options.place(drawn),
        "prompt": prompts.prompting(workspace, log, sampling=Sampling()),
        "best": answers.best,
        "sample": sample,
    }
    if options.to_batch is not None:
        report: object = asking.generate_to_batch(workspace, log, options.to_batch, **asked)
    else:
        asked |= {"embedder": answers.place(), "rule": answers.rule()}
        if options.from_batch:
            report = asking.generate_from_batch(workspace, log, options.from_batch, policy, **asked)
        else:
            report = asking.generate_from_endpoint(workspace, log, policy, console=terminal, **asked)
    terminal.print(str(report), markup=False, highlight=False)
    if isinstance(report, ImportReport) and not report.clean:
        raise SystemExit(1)
