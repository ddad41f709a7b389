"""A log in chunks: arrays of some decisions at a time, with what belongs to them, however long the log is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb
import numpy as np

from counterplay.errors import InputError, UnsupportedError
from counterplay.logs.log import Choices, Floats, Ints, Log, Longs, Outcomes, Singles
from counterplay.logs.reading import Place, features_of, rectangle
from counterplay.logs.relations import contexts_of, decisions_of
from counterplay.logs.sources.source import literal
from counterplay.logs.streaming import in_order
from counterplay.logs.survey import Survey
from counterplay.logs.workspace import borrowed

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 262_144

Table: TypeAlias = tuple[Ints, Floats]
"""A stored policy for each decision: actions `(b, k)` padded with -1, probabilities `(b, k)` padded with 0; -1 in the
first column where it has no choice."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Chunk:
    """b decisions of a log that follow each other, the first at place `start`.

    `sizes` (b,) int64: how many actions each allows. `candidates` (b, S) int32 padded with -1: which; None where every
    action is allowed, or where they were not asked for. `distribution` (b, S) float64: the logging policy's probability
    of each candidate (of each of the K actions where there are no candidates), 0 where padded; None where it is not
    known. `propensity` (b,): None unless every decision of the log has one. `context` (b,): rows of `context_features`
    (c, d). `cluster` (b,) int64 or None. `choices`: stored policies. `outcomes`: over the contexts that `context`
    counts. The rest as in `Log`.
    """

    name: str
    start: int = 0
    action_labels: Sequence[str]
    action_features: Singles | None = None
    context: Ints
    context_features: Singles | None = None
    sizes: Longs
    candidates: Ints | None = None
    distribution: Floats | None = None
    action: Ints
    propensity: Floats | None
    reward: Floats
    cluster: Longs | None = None
    choices: Mapping[str, Table] = dataclasses.field(default_factory=dict)
    outcomes: Outcomes | None = None

    def __len__(self) -> int:
        """b."""
        return len(self.action)


def chunk_of(log: Log, choices: Mapping[str, Choices] | None = None) -> Chunk:
    """A whole log in memory as one chunk; its arrays are shared, not copied."""
    full = len(log.action_labels)
    sizes = np.full(len(log.action), full) if log.candidates is None else (log.candidates >= 0).sum(axis=1)
    return Chunk(
        name=log.name,
        action_labels=log.action_labels,
        action_features=log.action_features,
        context=log.context,
        context_features=log.context_features,
        sizes=sizes,
        candidates=log.candidates,
        action=log.action,
        propensity=log.propensity if np.isfinite(log.propensity).all() else None,
        reward=log.reward,
        cluster=log.cluster,
        choices={
            name: (stored.actions[log.context], stored.probabilities[log.context])
            for name, stored in (choices or {}).items()
        },
        outcomes=log.outcomes,
    )


def stream_chunks(
    workspace: Place,
    survey: Survey,
    *,
    candidates: bool = True,
    features: bool = True,
    policies: Sequence[str] = (),
    batch: int = BATCH,
) -> Iterator[Chunk]:
    """The decisions of a log in their order, at most `batch` at a time.

    `candidates`, `features`: whether to read them where there are any. `policies`: stored ones to read along.
    The arrays of all chunks together are those of `read_log`, cluster codes included; without clusters where none has
    two decisions.

    Memory: a few batches, however long the log. Features, stored policies and clusters are joined to the decisions,
    which DuckDB does on disk where its own memory (1 GB) is short; policies with several actions in a context need
    about 100 bytes for each of these in memory. Errors: `UnsupportedError` where that is too much.
    """
    with borrowed(workspace) as opened, opened.connection.cursor() as connection:
        vectors = _action_features(connection, survey.log) if features else None
        query = _query(connection, survey, candidates, features, policies)
        start = alone = 0
        with _memory():
            batches = connection.sql(query).to_arrow_reader(batch)
        while True:
            with _memory():
                found = next(batches, None)
            if found is None:
                return
            if found.num_rows:
                chunk, unclustered = _chunk(found, survey, start, alone, vectors, policies)
                yield chunk
                start, alone = start + found.num_rows, alone + unclustered


def _query(
    connection: duckdb.DuckDBPyConnection, survey: Survey, candidates: bool, features: bool, policies: Sequence[str]
) -> str:
    rows = decisions_of(connection, survey.log)
    own = {"action": "coalesce(action, -1)", "reward": "reward"}
    if survey.propensities == survey.decisions:
        own["propensity"] = "propensity"
    if survey.candidates and candidates:
        own["candidates"] = "candidates"
    elif survey.candidates:
        own["size"] = "len(candidates)"
    if survey.distributions and candidates:
        own["candidate_propensities"] = "candidate_propensities"
    fields, joins = [f"d.{name}" for name in own], []
    if survey.grouped:
        # Numbered by first appearance, as `read_log` does it.
        numbered = f"""(SELECT cluster, row_number() OVER (ORDER BY min(position)) - 1 AS code
            FROM {rows} WHERE cluster IS NOT NULL GROUP BY cluster)"""
        fields.append("coalesce(g.code, -1) AS cluster")
        joins.append(f"LEFT JOIN {numbered} g USING (cluster)")
    if survey.features and features:
        fields.append("c.features")
        contexts = f"(SELECT context_id, features FROM {contexts_of(connection, survey.log)})"
        joins.append(f"LEFT JOIN {contexts} c USING (context_id)")
    for i, policy in enumerate(policies):
        fields += [f"p{i}.actions AS actions_{i}", f"p{i}.probabilities AS probabilities_{i}"]
        joins.append(f"LEFT JOIN {_choices(connection, survey.log, policy)} p{i} USING (context_id)")
    order = "" if not joins and in_order(connection, rows) else "ORDER BY position"
    # The fields are made before the join: it would otherwise carry whole lists of which only the length is wanted.
    made = ", ".join(f"{value} AS {name}" for name, value in own.items())
    return f"""SELECT {", ".join(fields)} FROM (SELECT position, context_id, cluster, {made} FROM {rows}) d
        {" ".join(joins)} {order}"""


def _choices(connection: duckdb.DuckDBPyConnection, log: str, policy: str) -> str:
    """The rows of a stored policy: context_id, actions, probabilities."""
    own = f"FROM choices WHERE log = {literal(log)} AND policy = {literal(policy)}"
    if not connection.execute(f"SELECT 1 {own} AND rank > 0 LIMIT 1").fetchall():
        # Lists are what DuckDB can neither gather nor join on disk; a policy with one action a context needs none.
        return f"(SELECT context_id, action AS actions, probability AS probabilities {own})"
    lists = "list(action ORDER BY rank) AS actions, list(probability ORDER BY rank) AS probabilities"
    return f"(SELECT context_id, {lists} {own} GROUP BY context_id)"


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UnsupportedError(
            "There is not enough memory to join what belongs to the decisions (features, stored policies, clusters). "
            "Give DuckDB more: COUNTERPLAY_MEMORY=8GB in the environment."
        ) from error


def _chunk(
    batch: pa.RecordBatch,
    survey: Survey,
    start: int,
    alone: int,
    vectors: Singles | None,
    policies: Sequence[str],
) -> tuple[Chunk, int]:
    """The chunk, and how many of its decisions have no cluster; `alone` came before them."""
    columns = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
    listed = _lists(columns, "candidates", -1, np.int32)
    sizes = np.full(batch.num_rows, len(survey.action_labels))
    if listed is not None:
        sizes = (listed >= 0).sum(axis=1)
    elif "size" in columns:
        sizes = _array(columns["size"], np.int64)
    cluster, unclustered = None, 0
    if "cluster" in columns:
        cluster = _array(columns["cluster"], np.int64).copy()
        missing = cluster < 0
        unclustered = int(np.count_nonzero(missing))
        cluster[missing] = survey.clusters + alone + np.arange(unclustered)
    chunk = Chunk(
        name=survey.log,
        start=start,
        action_labels=survey.action_labels,
        action_features=vectors,
        context=np.arange(batch.num_rows, dtype=np.int32),
        context_features=_context_features(columns),
        sizes=sizes,
        candidates=listed,
        distribution=_lists(columns, "candidate_propensities", 0.0, np.float64),
        action=_array(columns["action"], np.int32),
        propensity=_array(columns["propensity"], np.float64) if "propensity" in columns else None,
        reward=_array(columns["reward"], np.float64),
        cluster=cluster,
        choices={
            name: (
                _lists(columns, f"actions_{i}", -1, np.int32),
                _lists(columns, f"probabilities_{i}", 0.0, np.float64),
            )
            for i, name in enumerate(policies)
        },
    )
    return chunk, unclustered


def _array(column: pa.Array, kind: Any) -> Any:
    # Arrow's own conversion imports pandas where it is installed, which takes longer than a small log.
    values = column.to_numpy(zero_copy_only=False) if column.null_count else np.from_dlpack(column)
    return values.astype(kind, copy=False)


def _lists(columns: Mapping[str, pa.Array], name: str, fill: float, kind: Any) -> Any:
    """A column of lists, or of one value each, as a matrix; None when it is not there."""
    import pyarrow as pa

    if name not in columns:
        return None
    column = columns[name]
    if pa.types.is_list(column.type):
        return rectangle(pa.chunked_array([column]), fill, kind)
    if column.null_count:
        column = column.fill_null(fill)
    return _array(column, kind)[:, None]


def _context_features(columns: Mapping[str, pa.Array]) -> Singles | None:
    import pyarrow as pa

    if "features" not in columns:
        return None
    found = features_of(pa.chunked_array([columns["features"]]), "contexts")
    if found is None:
        raise InputError("The contexts do not all have features. Import them again with equal lengths.")
    return found


def _action_features(connection: duckdb.DuckDBPyConnection, log: str) -> Singles | None:
    query = f"SELECT features FROM actions WHERE log = {literal(log)} ORDER BY action"
    table = connection.sql(query).to_arrow_table().combine_chunks()
    return features_of(table["features"], "actions")
