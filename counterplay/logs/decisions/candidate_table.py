"""Candidates that stand in a table of their own: a row for each decision (or context) and action that was allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import duckdb

from counterplay.errors import ColumnError, InputError, nearest
from counterplay.logs.decisions.columns import SYNONYMS, Column, Mapped, resolve
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source
from counterplay.logs.sources.text import clear

CANDIDATES = "counterplay_candidates"
_LISTS = {"candidates": "candidates from their table", "candidate_propensities": "their propensities"}
_WORDS = {word: SYNONYMS[word] for word in ("decision_id", "context_id", "action", "propensity")}


def read_candidate_table(connection: duckdb.DuckDBPyConnection, source: Any) -> tuple[str, bool]:
    """Put a table of candidates into the temporary table `CANDIDATES` (key, candidates, propensities), a row for each
    key, candidates in the order of their rows.

    `source`: a path or frame with `action`, with `decision_id` or `context_id`, and perhaps `propensity`, the
    probability of each candidate. Gives the word that the key is, and whether there are propensities. Errors:
    `ColumnError` for a missing column, `InputError` for an entry without a key or an action.
    """
    opened = open_source(connection, source)
    mapping = resolve(opened.types, None, required=("action",), synonyms=_WORDS)
    key = next((word for word in ("decision_id", "context_id") if word in mapping), None)
    if key is None:
        raise ColumnError(
            "The table of candidates says neither decision nor context: it needs a column decision_id or context_id. "
            f"{nearest('decision_id', opened.columns)}"
        )
    values = {word: opened.columns[column.names[0]] for word, column in mapping.items()}
    chance = f"TRY_CAST({values['propensity'][0]} AS DOUBLE)" if "propensity" in values else "NULL"
    connection.execute(
        f"""CREATE TEMP TABLE {CANDIDATES} AS SELECT key, list(label ORDER BY ordinal) AS candidates,
            list(chance ORDER BY ordinal) AS propensities, count(*) FILTER (label IS NULL) AS missing
            FROM (SELECT ordinal, {label_text(*values[key])} AS key, {label_text(*values["action"])} AS label,
                  {chance} AS chance FROM {opened.scan}) GROUP BY key"""
    )
    clear(connection)
    wrong = connection.execute(f"SELECT key FROM {CANDIDATES} WHERE key IS NULL OR missing > 0 LIMIT 1").fetchall()
    if wrong:
        what = f"an entry without a {key}" if wrong[0][0] is None else f"an empty action for {key} '{wrong[0][0]}'"
        raise InputError(f"The table of candidates holds {what}. Take it out, or fill it in.")
    return key, "propensity" in values


def with_candidates(
    source: Source, columns: Mapped | None, key: str, propensities: bool
) -> tuple[Source, dict[str, Any]]:
    """The source with its candidates from `CANDIDATES`, and the mapping that takes them from there.

    A decision whose key is not in the table has none, and goes to the quarantine. Errors: `ColumnError` when the
    decisions lack the key.
    """
    found = resolve(source.types, columns).get(key)
    if found is None:
        raise ColumnError(
            f"The table of candidates goes by {key}, which no column of {source.name} is. Say which with "
            f"columns={{'{key}': '...'}}."
        )
    held = label_text(*source.columns[Column(names=found.names).names[0]])
    scan = f"""(SELECT * FROM {source.scan} LEFT JOIN (SELECT key AS counterplay_key, candidates AS
        counterplay_allowed, propensities AS counterplay_chances FROM {CANDIDATES}) ON {held} = counterplay_key)"""
    added = {_LISTS["candidates"]: ("counterplay_allowed", "VARCHAR[]")}
    mapped: dict[str, Any] = {**(columns or {}), "candidates": _LISTS["candidates"], "candidate_propensities": ""}
    if propensities:
        added[_LISTS["candidate_propensities"]] = ("counterplay_chances", "DOUBLE[]")
        mapped["candidate_propensities"] = _LISTS["candidate_propensities"]
    return dataclasses.replace(source, scan=scan, columns=source.columns | added), mapped
