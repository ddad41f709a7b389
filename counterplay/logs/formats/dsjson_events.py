"""The events of a dsjson file as temporary tables: parsed once, with every distinct list of actions taken apart once.

`EVENTS` has the file's lines in their order, `LISTS` (multi, labels, numbers) the distinct lists of actions, `ACTIONS`
(label, text) the distinct actions.
"""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path

import duckdb

from counterplay.errors import InputError
from counterplay.logs.decisions.indices import NUMBERED
from counterplay.logs.sources.source import literal

EVENTS, LISTS, ACTIONS = "counterplay_dsjson", "counterplay_dsjson_lists", "counterplay_dsjson_actions"
MOST_ACTIONS = 100_000
_MULTIS, _LABEL = "counterplay_dsjson_multis", "counterplay_dsjson_label"
_FIELDS = {
    "_label_cost": "VARCHAR",
    "_label_probability": "DOUBLE",
    "_label_Action": "DOUBLE",
    "_labelIndex": "DOUBLE",
    "_skipLearn": "VARCHAR",
    "_outcomes": "JSON",
    "pdrop": "VARCHAR",
    "EventId": "VARCHAR",
    "Timestamp": "VARCHAR",
    "a": "DOUBLE[]",
    "p": "DOUBLE[]",
    "c": "JSON",
}
# As BIGINT[] the reader would round 1.5 to 2, another action. Nearly always the two lists are equal, and nothing is
# looked at one by one.
_PLACES = """CASE WHEN CAST(TRY_CAST(a AS BIGINT[]) AS DOUBLE[]) = a THEN TRY_CAST(a AS BIGINT[])
    ELSE list_transform(a, lambda one: CASE WHEN one = floor(one) THEN TRY_CAST(one AS BIGINT) END) END AS a"""


def read_events(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Parse the file into a table of events, in its order: `text` and `multi` are the two parts of the context."""
    # `_multi` usually comes last, and then the context can be cut in two as text, without parsing it a second time.
    cut = "strpos(CAST(c AS VARCHAR), ',\"_multi\":')"
    text = f"left(CAST(c AS VARCHAR), {cut} - 1) || '}}'"
    multi = f"substr(CAST(c AS VARCHAR), {cut} + 10, len(CAST(c AS VARCHAR)) - {cut} - 10)"
    _fill(connection, path, text, multi)
    # What was cut off is `_multi` itself exactly when it is a JSON array: deeper down, brackets would be left over.
    (odd,) = connection.execute(
        f"""SELECT count(*) FROM {_MULTIS}
            WHERE NOT coalesce(CASE WHEN json_valid(multi) THEN json_type(multi) = 'ARRAY' END, false)"""
    ).fetchall()[0]
    if odd:
        connection.execute(f"DROP TABLE {EVENTS}")
        connection.execute(f"DROP TABLE {_MULTIS}")
        is_object = "CASE WHEN json_type(c) = 'OBJECT' THEN"
        text = f"""{is_object} CAST(json_merge_patch(c, '{{"_multi": null}}') AS VARCHAR) END"""
        multi = f"{is_object} CAST(json_extract(c, '/_multi') AS VARCHAR) END"
        _fill(connection, path, text, multi)


def _fill(connection: duckdb.DuckDBPyConnection, path: Path, text: str, multi: str) -> None:
    fields = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in _FIELDS.items())
    kept = ", ".join(_PLACES if name == "a" else name for name in _FIELDS if name not in ("c", "_outcomes"))
    connection.execute(
        f"""CREATE TEMP TABLE {EVENTS} AS SELECT {kept}, {text} AS text, {multi} AS multi,
                coalesce(json_type(_outcomes) <> 'NULL', false) AS slots,
                {" AND ".join(f"{name} IS NULL" for name in _FIELDS)} AS broken
            FROM read_json({literal(glob.escape(str(path)))}, format = 'newline_delimited', columns = {{{fields}}},
                           ignore_errors = true)"""
    )
    connection.execute(
        f"CREATE TEMP TABLE {_MULTIS} AS SELECT multi, min(rowid) AS first FROM {EVENTS} WHERE multi IS NOT NULL "
        "GROUP BY multi"
    )


def first_row(connection: duckdb.DuckDBPyConnection) -> int:
    """The row id of the first event: rows of a table that is not committed yet are not counted from 0."""
    (first,) = connection.execute(f"SELECT min(rowid) FROM {EVENTS}").fetchall()[0]
    return int(first)


def name_actions(connection: duckdb.DuckDBPyConnection, path: Path, identify: str) -> None:
    """Give every distinct list of actions its labels, and every label its text.

    Errors: `InputError` when there are too many labels, or none where a pointer looks for them.
    """
    items = """from_json(multi, '["JSON"]')"""
    label = "one" if identify in ("features", "position") else f"one ->> {literal(identify)}"
    connection.execute(
        f"""CREATE TEMP TABLE {LISTS} AS SELECT multi, CAST(items AS VARCHAR[]) AS texts,
                list_transform(items, lambda one: CAST({label} AS VARCHAR)) AS labels, first,
                CAST(NULL AS BIGINT[]) AS numbers
            FROM (SELECT multi, first, {items} AS items FROM {_MULTIS} WHERE json_type(multi) = 'ARRAY')"""
    )
    if identify == "position":
        return
    connection.execute(
        f"""CREATE TEMP TABLE {ACTIONS} AS SELECT label, arg_min(text, first) AS text
            FROM (SELECT unnest(labels) AS label, unnest(texts) AS text, first FROM {LISTS})
            WHERE label IS NOT NULL GROUP BY label"""
    )
    (size,) = connection.execute(f"SELECT count(*) FROM {ACTIONS}").fetchall()[0]
    if identify != "features" and not size:
        raise InputError(
            f"No action of {path} has anything at '{identify}'. Pass a JSON pointer into the objects of "
            "_multi, such as '/id', or 'features' or 'position'."
        )
    if identify == "features" and size > MOST_ACTIONS:
        raise InputError(
            f"{path} has {size:,} distinct actions by their features; at most {MOST_ACTIONS:,} can be told "
            "apart in this way. Pass identify='position', or a JSON pointer to what names them, such as identify='/id'."
        )
    if 0 < size <= MOST_ACTIONS:
        _number_labels(connection)


def _number_labels(connection: duckdb.DuckDBPyConnection) -> None:
    """Let numbers stand for the labels of this file: lists of numbers are several times faster than lists of texts."""
    order = "TRY_CAST(label AS HUGEINT) NULLS LAST, label"
    connection.execute(
        f"CREATE TEMP TABLE {NUMBERED} AS "
        f"SELECT row_number() OVER (ORDER BY {order}) - 1 AS number, label FROM {ACTIONS}"
    )
    connection.execute(f"CREATE TEMP TYPE {_LABEL} AS ENUM (SELECT label FROM {NUMBERED} ORDER BY number)")
    connection.execute(
        f"""UPDATE {LISTS} SET numbers =
            list_transform(CAST(labels AS {_LABEL}[]), lambda one: CAST(enum_code(one) AS BIGINT))"""
    )


def drop_events(connection: duckdb.DuckDBPyConnection) -> None:
    """Remove the tables again."""
    # In a transaction of the caller's that has failed nothing can be dropped, and its rollback will do it.
    with contextlib.suppress(duckdb.TransactionException):
        for name in (EVENTS, _MULTIS, LISTS, ACTIONS, NUMBERED):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
        connection.execute(f"DROP TYPE IF EXISTS {_LABEL}")
