"""What a cache holds, counted."""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb

from counterplay.logs.outputs.differences import READ, differences

_EXAMPLES = 1_000


@dataclass(frozen=True, kw_only=True)
class OutputGroup:
    """The outputs of one model, revision, operation and status.

    ``bytes``: of requests, responses and provenance as text; the file takes less. ``first`` and ``last``: the least and
    the greatest ``date`` of provenance. ``input_tokens``, ``output_tokens``, ``cost``: sums of what provenance says
    under these names, or of tokens under ``usage.prompt_tokens`` and ``usage.completion_tokens``; None where none of
    the group says it.
    """

    model: str
    revision: str | None
    operation: str
    status: str
    outputs: int
    bytes: int
    first: str | None
    last: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class RepeatedPrompts:
    """Prompts that stand in more than one request of an operation.

    ``prompts``: how many such prompts; ``outputs``: how many outputs they have together. ``fields``: in how many of
    these prompts (of the first ``looked_at``) the requests differ in a field.
    """

    prompts: int
    outputs: int
    looked_at: int
    fields: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class CacheOverview:
    """All outputs of a workspace by group, and the prompts that were asked more than once."""

    groups: tuple[OutputGroup, ...]
    repeated: RepeatedPrompts

    @property
    def outputs(self) -> int:
        return sum(group.outputs for group in self.groups)


def survey_outputs(connection: duckdb.DuckDBPyConnection) -> CacheOverview:
    """Count the outputs of a cache, whatever their status."""
    rows = connection.execute(
        """SELECT model, request ->> '/revision' AS revision, operation, status, count(*),
               sum(strlen(request) + strlen(response) + strlen(provenance)),
               min(provenance ->> '/date'), max(provenance ->> '/date'),
               sum(TRY_CAST(coalesce(provenance ->> '/usage/prompt_tokens', provenance ->> '/input_tokens') AS BIGINT)),
               sum(TRY_CAST(coalesce(provenance ->> '/usage/completion_tokens', provenance ->> '/output_tokens')
                   AS BIGINT)),
               sum(TRY_CAST(provenance ->> '/cost' AS DOUBLE))
           FROM outputs GROUP BY ALL ORDER BY ALL"""
    ).fetchall()
    groups = tuple(
        OutputGroup(
            model=row[0],
            revision=row[1],
            operation=row[2],
            status=row[3],
            outputs=int(row[4]),
            bytes=int(row[5]),
            first=row[6],
            last=row[7],
            input_tokens=None if row[8] is None else int(row[8]),
            output_tokens=None if row[9] is None else int(row[9]),
            cost=row[10],
        )
        for row in rows
    )
    return CacheOverview(groups=groups, repeated=_repeated(connection))


def _repeated(connection: duckdb.DuckDBPyConnection) -> RepeatedPrompts:
    paths = ", ".join(f"'/{name}'" for name in READ)
    prompt = f"md5(operation || CAST(json_extract(request, [{paths}]) AS VARCHAR))"
    grouped = f"SELECT {prompt} AS prompt, count(*) AS requests FROM outputs GROUP BY prompt HAVING requests > 1"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE counterplay_repeated AS {grouped}")
    try:
        prompts, outputs = connection.execute(
            "SELECT count(*), coalesce(sum(requests), 0) FROM counterplay_repeated"
        ).fetchall()[0]
        examples = (
            []
            if not prompts
            else connection.execute(
                f"""SELECT list(CAST(request AS VARCHAR) ORDER BY key)[:10] FROM outputs SEMI JOIN
                (SELECT prompt FROM counterplay_repeated ORDER BY prompt LIMIT {_EXAMPLES}) r ON {prompt} = r.prompt
                GROUP BY {prompt}"""
            ).fetchall()
        )
    finally:
        connection.execute("DROP TABLE temp.counterplay_repeated")
    fields: dict[str, int] = {}
    for (texts,) in examples:
        first, *others = (json.loads(text) for text in texts)
        for field in {one.field for other in others for one in differences(first, other)}:
            fields[field] = fields.get(field, 0) + 1
    return RepeatedPrompts(
        prompts=int(prompts), outputs=int(outputs), looked_at=len(examples), fields=dict(sorted(fields.items()))
    )
