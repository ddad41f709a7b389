"""The options of `counterplay generate` for a model behind an endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from counterplay.cli.answers import AnswerOptions
from counterplay.cli.screen import console
from counterplay.errors import ConfigurationError

if TYPE_CHECKING:
    from counterplay.llm.endpoint import Endpoint


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
        temperature: 0 takes the likeliest token each time.
        top_p: the share of probability that is drawn from.
        max_tokens: where a text is cut.
        seed: passed on to the server.
        stop: where a text ends, may be given several times, '' for nowhere; default: the end of the line.
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
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 24
    seed: int | None = None
    stop: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ("\n",)
    logprobs: bool = True
    parallel: int = 4
    timeout: float = 120.0
    to_batch: Path | None = None
    from_batch: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="", show_default=False)] = ()

    def place(self) -> Endpoint:
        """The endpoint that the options describe. Errors: `ConfigurationError`."""
        from counterplay.llm.endpoint import endpoint_from_environment
        from counterplay.llm.protocol import Sampling

        if self.to_batch is not None and self.from_batch:
            raise ConfigurationError("--to-batch writes and --from-batch reads. Give one of them.")
        sampling = Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(mark for mark in self.stop if mark),
            logprobs=self.logprobs,
        )
        return endpoint_from_environment(
            self.endpoint,
            key_variable=self.key_variable,
            provider=self.provider,
            chat=not self.completions,
            sampling=sampling,
            parallel=self.parallel,
            timeout=self.timeout,
        )


NO_ENDPOINT = EndpointOptions()


def behind_endpoint(model: str, options: EndpointOptions, *, check: bool) -> bool:
    """Whether a model stands behind an endpoint. Errors: `ConfigurationError` for options that do not go together."""
    from counterplay.llm.endpoint import PREFIX

    if not model.startswith(PREFIX):
        if options != NO_ENDPOINT:
            raise ConfigurationError(
                f"The options of an endpoint do nothing for '{model}', which runs here. Name the model {PREFIX}NAME."
            )
        return False
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
    prompt: str | None,
    sample: int | None,
    options: EndpointOptions,
    answers: AnswerOptions,
) -> None:
    """Ask, write or read, whichever the options say, and print what came of it.

    Exit code 1 for results that do not fit. Errors: those of `counterplay.llm.asking`.
    """
    from counterplay.llm import asking
    from counterplay.llm.batch_results import ImportReport
    from counterplay.llm.endpoint import PREFIX

    if prompt is None:
        raise ConfigurationError(
            "An endpoint needs --prompt: a template without the block 'continuation' (that of the demo ranks)."
        )
    terminal = console()
    asked: dict[str, Any] = {
        "model": model.removeprefix(PREFIX),
        "endpoint": options.place(),
        "prompt": prompt,
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
