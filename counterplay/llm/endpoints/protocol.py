"""What an endpoint is asked: the request of the cache, and the body that goes over the wire.

A request for an endpoint has the fields of those in ``counterplay.llm.prompting.requests``, with the differences that a
server makes:

- ``revision``, ``quantisation``, ``dtype`` and ``tokenizer`` are ``unknown``: the server's word is all there is;
- a chat has ``messages`` in place of ``prompt``, its preamble as the system message (none where the template has no
  preamble), and ``chat_template`` is ``server``;
- ``sampling`` has ``logprobs`` besides, and ``beams`` is 1.

Everything that changes the body is in the request, hence in the key; address, parallelism and retries are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from counterplay.errors import ConfigurationError, UnsupportedError
from counterplay.llm.models import ModelIdentity
from counterplay.llm.prompting.requests import Request
from counterplay.llm.prompting.sampling import Sampling

COMPLETIONS = "/completions"
CHAT = "/chat/completions"
UNKNOWN = "unknown"

_SAMPLING = {"beams", "logprobs", "max_tokens", "n", "seed", "stop", "temperature", "top_k", "top_p"}


def endpoint_identity(model: str, provider: str) -> ModelIdentity:
    """The identity of a model behind an address: a name and whose name it is; its weights cannot be hashed."""
    return ModelIdentity(
        model=model, revision=UNKNOWN, quantisation=UNKNOWN, dtype=UNKNOWN, tokenizer=UNKNOWN, provider=provider
    )


def endpoint_request(request: Request, sampling: Sampling, *, chat: bool) -> Request:
    """A planned request in the form for an endpoint; ``sampling["n"]``, how many texts, stays as planned.

    `UnsupportedError` for a ranking: these interfaces score no given text. `ConfigurationError` for several texts at
    temperature 0.
    """
    if request["operation"] != "generate":
        raise UnsupportedError(
            f"An endpoint cannot do the operation '{request['operation']}': it returns texts, not the log-likelihood "
            "of given ones. Use a template without the block 'continuation', or a local model."
        )
    count = int(request["sampling"]["n"])
    if count > 1 and sampling.temperature == 0:
        raise ConfigurationError(
            f"{count} texts at temperature 0 are {count} times the same, and an endpoint has no beam search. "
            "Give a temperature above 0, or ask for 1."
        )
    form: Request = {
        **request,
        "sampling": {
            "beams": 1,
            "logprobs": sampling.logprobs,
            "max_tokens": sampling.max_tokens,
            "n": count,
            "seed": sampling.seed,
            "stop": list(sampling.stop),
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        },
    }
    if chat:
        system = [{"role": "system", "content": form["preamble"]}] if form["preamble"] else []
        user = {"role": "user", "content": form.pop("prompt")}
        form |= {"messages": [*system, user], "preamble": "", "chat_template": "server"}
    return form


def wire_body(request: Mapping[str, Any], *, limit: str = "max_tokens") -> tuple[str, dict[str, Any]]:
    """The path below ``/v1`` and the JSON body of a request; fields that are None are left out.

    ``limit``: the name under which the server takes ``max_tokens`` in a chat. `UnsupportedError` names what the
    protocol has no word for.
    """
    if request["operation"] != "generate":
        raise UnsupportedError(f"An endpoint cannot do the operation '{request['operation']}'; only 'generate'.")
    sampling = request["sampling"]
    strange = sorted(set(sampling) - _SAMPLING)
    if strange or sampling.get("top_k") is not None or sampling.get("beams", 1) != 1:
        name = strange[0] if strange else "top_k" if sampling.get("top_k") is not None else "beams"
        raise UnsupportedError(f"An endpoint cannot do the sampling '{name}'. Leave it out, or use a local model.")
    chat = "messages" in request
    body: dict[str, Any] = {"model": request["model"]}
    if chat:
        if request["preamble"]:
            raise UnsupportedError("A request with messages has a preamble besides. Put it into the first message.")
        body["messages"] = request["messages"]
    else:
        body["prompt"] = request["preamble"] + request["prompt"]
    values = {name: sampling.get(name) for name in ("n", "temperature", "top_p", "seed")}
    values |= {limit if chat else "max_tokens": sampling["max_tokens"], "stop": sampling.get("stop") or None}
    if sampling.get("logprobs"):
        values["logprobs"] = True if chat else 1
    body |= {name: value for name, value in values.items() if value is not None}
    return (CHAT if chat else COMPLETIONS), body
