"""What the stored outputs of a model say of the next ones: how long they took, and how many tokens they had."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import duckdb

from counterplay.llm.endpoints.dialects import TRUNCATED
from counterplay.llm.models import ModelIdentity
from counterplay.llm.plans.token_counts import bytes_read
from counterplay.llm.prompting.requests import Request
from counterplay.logs.outputs import OK

HASH = 12
"""Digits of a hash that are shown."""

LOOKED_AT = 1_000
"""Outputs that a rate is taken from at most: the first in the order of their keys, which is one by chance."""

_SAME = f"""FROM outputs WHERE model = $model AND operation = $operation AND status IN ('{OK}', '{TRUNCATED}')
    AND request ->> '/provider' = $provider AND request ->> '/revision' = $revision AND request ->> '/dtype' = $dtype"""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The median ``seconds`` of one output, over ``outputs`` timed ones that were made on ``devices``."""

    seconds: float
    outputs: int
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OtherWeights:
    """``outputs`` that the cache has of a model of the same name, but with other weights or another precision."""

    outputs: int
    revision: str
    quantisation: str
    dtype: str
    adapter: str | None

    def told(self, model: str) -> str:
        """In a sentence."""
        adapter = f", adapter {self.adapter[:HASH]}" if self.adapter else ""
        return (
            f"The cache has {self.outputs:,} outputs of {model} with other weights (revision {self.revision[:HASH]}, "
            f"{self.quantisation}, {self.dtype}{adapter}); these are not the same requests."
        )


def speed_of(connection: duckdb.DuckDBPyConnection, like: Request) -> Speed | None:
    """How long outputs took of the same model (revision, precision) and operation; None where none was timed.

    A model that runs here says the share of each output in its batch, an endpoint how long it took to answer.
    """
    found = connection.execute(
        f"""SELECT median(seconds), count(*), list(DISTINCT device ORDER BY device) FROM (
            SELECT TRY_CAST(coalesce(provenance ->> '/seconds', provenance ->> '/latency_seconds') AS DOUBLE)
                    AS seconds,
                coalesce(provenance ->> '/device_name', provenance ->> '/device') AS device
            {_SAME} AND seconds IS NOT NULL ORDER BY key LIMIT {LOOKED_AT})""",
        _same(like),
    ).fetchall()
    seconds, outputs, devices = found[0]
    if not outputs:
        return None
    return Speed(seconds=seconds, outputs=outputs, devices=tuple(name for name in devices or () if name))


def written_tokens(connection: duckdb.DuckDBPyConnection, like: Request) -> tuple[float, int] | None:
    """The mean tokens that an output of the same model, operation and template has, as they were billed where the
    service says it, and over how many; None where no output says it."""
    found = connection.execute(
        f"""SELECT avg(tokens), count(tokens) FROM (
            SELECT coalesce(TRY_CAST(provenance ->> '/usage/completion_tokens' AS BIGINT),
                list_sum(TRY_CAST(response -> '/tokens' AS BIGINT[]))) AS tokens
            {_SAME} AND request ->> '/template' = $template AND tokens IS NOT NULL ORDER BY key LIMIT {LOOKED_AT})""",
        {**_same(like), "template": like["template"]},
    ).fetchall()
    mean, outputs = found[0]
    return (float(mean), int(outputs)) if outputs else None


def tokens_a_byte(connection: duckdb.DuckDBPyConnection, like: Request) -> tuple[float, int] | None:
    """Tokens that a service billed for a byte that the model read, and over how many outputs; None where none says
    it."""
    rows = connection.execute(
        f"""SELECT TRY_CAST(provenance ->> '/usage/prompt_tokens' AS BIGINT) AS tokens, CAST(request AS VARCHAR)
            {_SAME} AND tokens IS NOT NULL ORDER BY key LIMIT {LOOKED_AT}""",
        _same(like),
    ).fetchall()
    read = sum(bytes_read(json.loads(request)) for _, request in rows)
    return (sum(tokens for tokens, _ in rows) / read, len(rows)) if read else None


def other_weights(connection: duckdb.DuckDBPyConnection, identity: ModelIdentity) -> tuple[OtherWeights, ...]:
    """What the cache has of models of the same name and provider with another revision, quantisation, precision or
    adapter, the most first."""
    rows = connection.execute(
        """SELECT count(*) AS outputs, revision, quantisation, dtype, adapter FROM (
               SELECT request ->> '/revision' AS revision, request ->> '/quantisation' AS quantisation,
                   request ->> '/dtype' AS dtype, request ->> '/adapter' AS adapter
               FROM outputs WHERE model = ? AND request ->> '/provider' = ?
                   AND operation IN ('loglikelihood', 'generate'))
           WHERE (revision, quantisation, dtype, adapter) IS DISTINCT FROM (?, ?, ?, ?)
           GROUP BY ALL ORDER BY outputs DESC, revision, quantisation, dtype, adapter""",
        [identity.model, identity.provider, identity.revision, identity.quantisation, identity.dtype, identity.adapter],
    ).fetchall()
    return tuple(
        OtherWeights(
            outputs=outputs, revision=str(revision), quantisation=str(quantisation), dtype=str(dtype), adapter=adapter
        )
        for outputs, revision, quantisation, dtype, adapter in rows
    )


def _same(request: Request) -> dict[str, Any]:
    return {name: request[name] for name in ("model", "operation", "provider", "revision", "dtype")}
