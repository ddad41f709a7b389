"""The forecast: what a log needs from a model and does not have, and what that will cost.

Nothing is asked, and no model is loaded; of a model that runs here the tokenizer is, where something is still to ask.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from counterplay.errors import InputError
from counterplay.llm.endpoints.asking import plan_for_endpoint
from counterplay.llm.endpoints.endpoint import Endpoint
from counterplay.llm.known_models import model_identity
from counterplay.llm.models import CACHED, ModelIdentity
from counterplay.llm.plans.measured import OtherWeights, Speed, other_weights, speed_of, tokens_a_byte, written_tokens
from counterplay.llm.plans.planning import Plan, plan
from counterplay.llm.plans.token_counts import BYTES, Tokens, count_read, estimate_read
from counterplay.llm.prompting.requests import Prompting, Request, prompting_of
from counterplay.llm.vectors.embedding import EMBEDDER
from counterplay.logs.outputs import ERROR, OK, explain_miss
from counterplay.logs.reading import Place
from counterplay.logs.workspace import borrowed

LOCAL = "local"
"""The provider of models that run here."""

TIMED = 64
"""Outputs that a sample makes to measure a speed."""

_NOTHING = Tokens(count=0, basis="nothing is to be asked")


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the cache has of a log's requests, and what the rest will cost.

    ``requests``: one for each context; ``different``: those that have a key of their own. Of the different ones
    ``served`` have an output that a replay gets; ``unusable``: how many have one of another status, by status;
    ``to_ask``: without an output, or with one of the status ``error``. What was cut short or refused is not asked
    again.

    ``prompt_tokens`` to read and ``written_tokens`` to write, for ``to_ask`` alone, as all that follows. ``seconds``:
    None where no output of this model was timed; ``speed`` is what it was taken from, loading the model is not in it.
    ``sample``: with so many contexts `generate` would ask enough (64) to measure it. ``money``: in the unit of the
    prices, None without prices. ``other_weights``: outputs of the same name that are of no use here. ``first_miss``:
    in what the first request to ask differs from the nearest stored one.
    """

    log: str
    model: str
    requests: int
    different: int
    served: int
    unusable: Mapping[str, int]
    to_ask: int
    prompt_tokens: Tokens
    written_tokens: Tokens
    seconds: float | None
    speed: Speed | None
    sample: int
    money: float | None
    other_weights: tuple[OtherWeights, ...]
    first_miss: str | None


def forecast(
    workspace: Place,
    log: str,
    *,
    model: str,
    prompt: str | Path | Prompting = "triage",
    endpoint: Endpoint | None = None,
    candidates: int = 5,
    best: int = 1,
    sample: int | None = None,
    dtype: str = "float32",
    engine: str = "transformers",
    adapter: str | Path | None = None,
    embedder: str = EMBEDDER,
    prices: tuple[float, float] | None = None,
) -> Forecast:
    """What `counterplay.generate` would ask with the same arguments, and what it would cost.

    ``endpoint``: where the model is asked, as for `counterplay.llm.generate_from_endpoint`; ``model`` is then the
    server's name for it. ``prices``: of a million tokens read, and of a million written, in any unit of money.

    Tokens to read are counted by the model's own tokenizer, over 2,000 requests at most; behind an endpoint they are
    estimated from what was billed for stored outputs, else from bytes. Tokens to write are the mean of stored outputs
    of the same model and template, else the most that there can be. Seconds are the median of timed outputs of the same
    model; they do not hold on another device, or where the rest of the texts is longer than those that were timed.

    Errors: those of `counterplay.generate` and `plan_for_endpoint`; `InputError` for prices below 0.
    """
    if prices is not None and not all(0 <= price < math.inf for price in prices):
        raise InputError(f"The prices {prices[0]} and {prices[1]} are none. Give two numbers of 0 or more.")
    identity, asked = planned(
        workspace, log, model=model, prompt=prompt, endpoint=endpoint, candidates=candidates, best=best, sample=sample,
        dtype=dtype, engine=engine, adapter=adapter, embedder=embedder,
    )  # fmt: skip
    return _forecast(workspace, log, identity, asked, endpoint, model, prices)


def planned(
    workspace: Place,
    log: str,
    *,
    model: str,
    prompt: str | Path | Prompting = "triage",
    endpoint: Endpoint | None = None,
    candidates: int = 5,
    best: int = 1,
    sample: int | None = None,
    dtype: str = "float32",
    engine: str = "transformers",
    adapter: str | Path | None = None,
    embedder: str = EMBEDDER,
) -> tuple[ModelIdentity, Plan]:
    """Who would be asked with the arguments of `forecast`, and what, whether it is stored or not."""
    _check(best, sample)
    if endpoint is not None:
        asked = plan_for_endpoint(workspace, log, model, prompt, endpoint, best=best, sample=sample)
        return endpoint.identity(model), asked
    identity = model_identity(workspace, model, engine=engine, dtype=dtype, adapter=adapter)
    asked = plan(
        workspace, log, identity, prompting_of(prompt),
        candidates=candidates, best=best, sample=sample, embedder=embedder,
    )  # fmt: skip
    return identity, asked


def _check(best: int, sample: int | None) -> None:
    if sample is not None and sample < 1:
        raise InputError(f"A sample of {sample} contexts cannot be taken. Give 1 or more.")
    if best < 1:
        raise InputError(f"The {best} most likely outputs cannot act. Give 1 or more.")


def _forecast(
    workspace: Place,
    log: str,
    identity: ModelIdentity,
    asked: Plan,
    endpoint: Endpoint | None,
    model: str,
    prices: tuple[float, float] | None,
) -> Forecast:
    requests = dict(zip(asked.keys, asked.requests, strict=True))
    with borrowed(workspace) as opened:
        statuses = _statuses(opened.connection, list(requests))
        missing = {key: request for key, request in requests.items() if statuses.get(key, ERROR) == ERROR}
        known = _look_up(opened.connection, identity, list(missing.values()))
    # The workspace is closed while tokens are counted.
    counted_here = endpoint is None and not model.startswith(CACHED)
    prompt_tokens = _to_read(list(missing.values()), model if counted_here else None, known)
    parallel = 1 if endpoint is None else endpoint.parallel
    return Forecast(
        log=log,
        model=identity.model,
        requests=len(asked.keys),
        different=len(requests),
        served=sum(status == OK for status in statuses.values()),
        unusable=dict(sorted(Counter(status for status in statuses.values() if status != OK).items())),
        to_ask=len(missing),
        prompt_tokens=prompt_tokens,
        written_tokens=known.written,
        seconds=_seconds(known.speed, len(missing), parallel),
        speed=known.speed,
        sample=_sample(asked.keys, missing),
        money=None if prices is None else (prompt_tokens.count * prices[0] + known.written.count * prices[1]) / 1e6,
        other_weights=known.other_weights,
        first_miss=known.first_miss,
    )


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What the cache says of requests that it cannot serve."""

    written: Tokens = _NOTHING
    speed: Speed | None = None
    tokens_a_byte: tuple[float, int] | None = None
    other_weights: tuple[OtherWeights, ...] = ()
    first_miss: str | None = None


def _look_up(connection: duckdb.DuckDBPyConnection, identity: ModelIdentity, missing: Sequence[Request]) -> _Known:
    if not missing:
        return _Known()
    first = missing[0]
    return _Known(
        written=_to_write(connection, missing),
        speed=speed_of(connection, first),
        tokens_a_byte=None if identity.provider == LOCAL else tokens_a_byte(connection, first),
        other_weights=other_weights(connection, identity),
        first_miss=str(explain_miss(connection, first)),
    )


def _statuses(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> dict[str, str]:
    """The status of the output of each key that has one."""
    rows = connection.execute(
        "SELECT key, status FROM outputs SEMI JOIN (SELECT unnest(CAST(? AS VARCHAR[])) AS key) USING (key)", [keys]
    ).fetchall()
    return dict(rows)


def _to_read(missing: Sequence[Request], local: str | None, known: _Known) -> Tokens:
    """``local``: the spec of a model that runs here."""
    if not missing:
        return _NOTHING
    if local is not None:
        return count_read(missing, local)
    if known.tokens_a_byte is not None:
        rate, outputs = known.tokens_a_byte
        return estimate_read(missing, rate, f"an estimate, from bytes, by what was billed for {outputs:,} outputs")
    return estimate_read(missing, 1 / BYTES, f"an estimate, {BYTES:.0f} bytes a token")


def _to_write(connection: duckdb.DuckDBPyConnection, missing: Sequence[Request]) -> Tokens:
    sampling = missing[0]["sampling"]
    if sampling is None:
        return Tokens(count=0, basis="a ranking writes nothing")
    limit = int(sampling["max_tokens"]) * int(sampling["n"])
    found = written_tokens(connection, missing[0])
    if found is None:
        return Tokens(count=limit * len(missing), basis=f"an upper bound, {limit:,} a request")
    mean, outputs = found
    basis = f"about, by the mean of {outputs:,} stored outputs, {mean:,.1f}"
    return Tokens(count=round(min(mean, limit) * len(missing)), basis=basis)


def _seconds(speed: Speed | None, count: int, parallel: int) -> float | None:
    if not count:
        return 0.0
    return None if speed is None else speed.seconds * count / parallel


def _sample(keys: Sequence[str], missing: Mapping[str, Request]) -> int:
    """How many contexts have `TIMED` requests that are still to ask; all where they have not."""
    different = list(dict.fromkeys(key for key in keys if key in missing))
    return keys.index(different[TIMED - 1]) + 1 if len(different) >= TIMED else len(keys)
