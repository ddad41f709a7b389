"""Which incoming rows a log has already: by their decision ids or, in a file without ids, by their place in it.

A file without ids belongs to a *stream*: the rows of a file and of the longer files that begin with the same rows.
`sources` says which rows of a stream stand at which positions, so that rows can be compared one by one. Two rows in
different places are two decisions, however equal they are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import duckdb

from counterplay.errors import InputError
from counterplay.logs.decisions.checks import sound
from counterplay.logs.decisions.columns import Column
from counterplay.logs.decisions.indices import labels_of
from counterplay.logs.relations import decisions_of
from counterplay.logs.sources.source import Source, literal

# What must be equal for a row to count as known; the text and features of contexts have a check of their own.
_COMPARED = (
    "context_id",
    "propensity",
    "candidate_propensities",
    "reward",
    "cost",
    "cluster",
    "timestamp",
    "episode",
    "step",
    "parent",
    "depth",
    "kind",
)
# A file of another name is taken for a longer copy of an earlier one if that many rows at least are the same.
_ENOUGH = 20
_GLANCE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """Rows `first_row` to `last_row` of a stream, which stand from `first_position` on."""

    first_row: int
    last_row: int
    first_position: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where an import puts its rows. `stream` None: rows have ids. `segments`: what the stream had before."""

    stream: int | None
    segments: tuple[Segment, ...]
    first_row: int
    first_position: int

    def position(self, ordinal: str) -> str:
        """SQL: the position of a row."""
        new = f"{ordinal} + {self.first_position - self.first_row}"
        return _position(self.segments, ordinal, new) if self.segments else new


def same_file(
    connection: duckdb.DuckDBPyConnection, log: str, sha256: str, mapping: Mapping[str, str]
) -> tuple[int, int] | None:
    """The rows and the stream of a file without ids that the log has whole, and read in the same way; else None.

    Decisions without ids are never replaced, so nothing needs to be compared.
    """
    found = connection.execute(
        """SELECT rows_read, stream FROM sources WHERE log = ? AND sha256 = ? AND CAST(mapping AS VARCHAR) = ?
           AND stream IS NOT NULL AND rows_quarantined = 0 LIMIT 1""",
        [log, sha256, json.dumps(mapping)],
    ).fetchall()
    return found[0] if found else None


def find_known(
    connection: duckdb.DuckDBPyConnection,
    log: str,
    source: Source,
    *,
    mapping: Mapping[str, Column],
    integers: bool,
    overwrite: bool,
    as_new: bool,
) -> Place:
    """Fill `known` (ordinal) and `replaced` (ordinal, position), and say where new rows go.

    A row with a known id and other values is rejected, or with `overwrite` put into `replaced`. With `as_new`
    all rows of a file without ids are new. Errors: `InputError` when such a file has the name of an earlier one and
    other rows.
    """
    connection.execute("CREATE TEMP TABLE known (ordinal BIGINT)")
    connection.execute("CREATE TEMP TABLE replaced (ordinal BIGINT, position BIGINT)")
    (last,) = connection.execute("SELECT max(position) FROM decisions WHERE log = ?", [log]).fetchall()[0]
    if last is None:
        return Place(stream=None if "decision_id" in mapping else 0, segments=(), first_row=1, first_position=0)
    labels, free = labels_of(connection, log, integers), last + 1
    pairs = {word: f"s.{word}" for word in _COMPARED} | {"action": labels.index("s.action")}
    pairs["candidates"] = labels.indices("s.candidates") if "candidates" in mapping else "NULL"
    if "decision_id" in mapping:
        _meet(connection, log, pairs, "s.decision_id = d.decision_id")
        _settle(connection, overwrite)
        return Place(stream=None, segments=(), first_row=1, first_position=free)
    streams = _streams(connection, log)
    for stream, names in [] if as_new else _candidates(connection, log, source, streams):
        segments = streams[stream]
        _meet(connection, log, pairs, f"d.position = {_position(segments, 's.ordinal', 'NULL')}")
        met, changed, row, what = connection.execute(
            "SELECT count(*), count(*) FILTER (changed <> ''), min(ordinal) FILTER (changed <> ''), "
            "arg_min(changed, ordinal) FILTER (changed <> '') FROM met"
        ).fetchall()[0]
        if changed == 0 and (source.name in names or met >= _ENOUGH):
            _settle(connection, overwrite)
            return Place(
                stream=stream, segments=segments, first_row=segments[-1].last_row + 1, first_position=free
            )  # fmt: skip
        connection.execute("DROP TABLE met")
        if source.name in names and changed:
            raise InputError(
                f"{source.name} was imported before with other rows: row {row} had another {what}. Without decision "
                "ids its rows cannot be told from new ones. Map a column to decision_id, import under another log "
                "name, or, if these are all new decisions, pass as_new=True (--as-new)."
            )
    return Place(stream=max(streams, default=-1) + 1, segments=(), first_row=1, first_position=free)


def _streams(connection: duckdb.DuckDBPyConnection, log: str) -> dict[int, tuple[Segment, ...]]:
    rows = connection.execute(
        """SELECT stream, first_row, rows_read, first_position FROM sources
           WHERE log = ? AND stream IS NOT NULL AND first_row <= rows_read ORDER BY stream, first_row""",
        [log],
    ).fetchall()
    found: dict[int, tuple[Segment, ...]] = {}
    for stream, first, last, position in rows:
        segment = Segment(first_row=first, last_row=last, first_position=position)
        found[stream] = (*found.get(stream, ()), segment)
    return found


def _candidates(
    connection: duckdb.DuckDBPyConnection, log: str, source: Source, streams: dict[int, tuple[Segment, ...]]
) -> list[tuple[int, set[str]]]:
    """Streams that the source may belong to, those with its name first, then the latest first.

    Of streams with other names only those whose first rows have the rewards and propensities of the incoming ones.
    """
    names: dict[int, set[str]] = {}
    rows = connection.execute("SELECT stream, source FROM sources WHERE log = ? AND stream IS NOT NULL", [log])
    for stream, name in rows.fetchall():
        names.setdefault(stream, set()).add(name)
    if not streams:
        return []
    starts = ", ".join(
        f"({stream}, {first.first_position}, {first.first_position + min(first.last_row, _GLANCE)})"
        for stream, (first, *_) in streams.items()
    )
    alike = connection.execute(
        f"""SELECT stream FROM (VALUES {starts}) starts(stream, start, stop)
            JOIN (SELECT position, reward, propensity FROM decisions WHERE log = {literal(log)}) d
                ON d.position >= start AND d.position < stop
            JOIN (SELECT ordinal, reward, propensity FROM {sound(connection)} WHERE ordinal <= {_GLANCE}) s
                ON s.ordinal = d.position - start + 1
            GROUP BY stream HAVING bool_and(d.reward = s.reward AND d.propensity IS NOT DISTINCT FROM s.propensity)"""
    ).fetchall()
    wanted = {stream for (stream,) in alike} | {stream for stream in streams if source.name in names[stream]}
    return [(one, names[one]) for one in sorted(wanted, key=lambda one: (source.name not in names[one], -one))]


def _position(segments: tuple[Segment, ...], ordinal: str, otherwise: str) -> str:
    branches = " ".join(
        f"WHEN {ordinal} BETWEEN {one.first_row} AND {one.last_row} "
        f"THEN {ordinal} + {one.first_position - one.first_row}"
        for one in segments
    )
    return f"CASE {branches} ELSE {otherwise} END"


def _meet(connection: duckdb.DuckDBPyConnection, log: str, pairs: Mapping[str, str], condition: str) -> None:
    """Put incoming rows beside the log's own: `met` (ordinal, decision_id, position, changed).

    `pairs`: what to compare, a column of the log and the incoming value as SQL.
    """
    parts = [f"CASE WHEN {value} IS DISTINCT FROM d.{word} THEN '{word}' END" for word, value in pairs.items()]
    connection.execute(
        f"""CREATE TEMP TABLE met AS
            SELECT s.ordinal, s.decision_id, d.position, concat_ws(', ', {", ".join(parts)}) AS changed
            FROM {sound(connection)} s JOIN {decisions_of(connection, log)} d ON {condition}"""
    )


def _settle(connection: duckdb.DuckDBPyConnection, overwrite: bool) -> None:
    connection.execute("INSERT INTO known SELECT ordinal FROM met WHERE changed = ''")
    connection.execute(
        "INSERT INTO replaced SELECT ordinal, position FROM met WHERE changed <> ''"
        if overwrite
        else """INSERT INTO rejected SELECT ordinal,
               'decision id is known with other values: ' || left(decision_id, 80) || ' (' || changed || ')', NULL
               FROM met WHERE changed <> ''"""
    )
    connection.execute("DROP TABLE met")
