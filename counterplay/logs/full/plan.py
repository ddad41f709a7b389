"""The plan of an import with full information: how the rows of a file become contexts and what actions earned there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from counterplay.logs.decisions.columns import Column
from counterplay.logs.decisions.typed import label_text, number_list
from counterplay.logs.sources.source import Source

# What an entry says of a context and an action: columns of the table `outcomes`.
MEASURES = ("reward", "cost", "seconds", "input_tokens", "output_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How the rows of one source become contexts and entries; SQL throughout.

    `staging`: a query with the columns ordinal, context_id, body (a hash of text and features, NULL without both),
    width (of the features), cluster, reason (NULL when the row is sound), left_out, and what `entries` needs.
    `entries`: a query over the table `incoming` with ordinal, label and the columns `MEASURES`; rows that are not sound
    may stand in it. `key`: the columns that together may come once only. `text`, `features`: expressions over the
    source, or 'NULL'. `labels`: (label, text) in order; None: the sorted labels of the entries. `default`: the reward
    of pairs without an entry, None when it is not known. `taken`: columns that were used beside those of `mapping`.
    `settings`: options to be noted in the table `sources`. `left_out`: rows that the scan already left out.
    """

    shape: str
    staging: str
    entries: str
    key: str
    text: str
    features: str
    default: float | None
    mapping: Mapping[str, Column]
    labels: Sequence[tuple[str, str | None]] | None = None
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    left_out: int = 0


def body(text: str, features: str) -> str:
    """SQL: a hash of what a context holds; NULL when it holds neither text nor features.

    A context without an id is named after it, so the same text has the same id in whatever log it stands.
    """
    given = f"{text} IS NOT NULL OR {features} IS NOT NULL"
    return f"CASE WHEN {given} THEN md5(concat({text}, chr(31), CAST({features} AS VARCHAR))) END"


def context_columns(
    source: Source, mapping: Mapping[str, Column], text: str | None = None
) -> tuple[dict[str, str], str, str]:
    """SQL over the source for what stands in `incoming` of a context, and for its text and features.

    The first: context_id, cluster, body, width, and the reasons `fault` (the row could not be read), `unsound`
    (features) and `missing` (nothing to tell the context by). Text and features are 'NULL' without a column. `text`:
    SQL that stands for the column of that name.
    """
    places = {word: [source.columns[name] for name in column.names] for word, column in mapping.items()}
    if text is None:
        text = f"nullif(CAST({places['text'][0][0]} AS VARCHAR), '')" if "text" in places else "NULL"
    features = number_list(places["features"], "FLOAT") if "features" in places else "NULL"
    values = {
        word: label_text(*places[word][0]) if word in places else "CAST(NULL AS VARCHAR)"
        for word in ("context_id", "cluster")
    }
    values["body"] = body(text, features)
    values["fault"] = f"CASE WHEN {source.broken} THEN 'the line is not a JSON object' ELSE {source.fault} END"
    values["width"] = f"len({features})" if "features" in places else "NULL"
    values["unsound"] = "NULL"
    if "features" in places:
        wrong = f"len(list_filter({features}, lambda one: one IS NULL OR NOT isfinite(one))) > 0"
        values["unsound"] = f"""CASE WHEN {features} IS NULL THEN 'features are missing or not a list of numbers'
            WHEN len({features}) = 0 THEN 'features are empty'
            WHEN {wrong} THEN 'features hold something that is no finite number' END"""
    if "context_id" in places:
        values["missing"] = f"CASE WHEN {values['context_id']} IS NULL THEN 'context id is missing' END"
    else:
        values["missing"] = f"CASE WHEN {values['body']} IS NULL THEN 'text is missing' END"
    return values, text, features


def reasons_of(reasons: list[str]) -> str:
    """SQL: everything that is wrong with a row, as one text; NULL when nothing is."""
    return f"coalesce(fault, nullif(concat_ws('; ', {', '.join(reasons)}), ''))"


def counted_id(given: bool, content: str = "body") -> str:
    """SQL: the id of the context of a row: the file's, or else from what it holds and how often that came before.

    `content`: a hash of what it holds. By default the first of equal rows gets the id that a log of decisions gives to
    the same context.
    """
    if given:
        return "context_id"
    count = f"row_number() OVER (PARTITION BY {content}, reason IS NULL ORDER BY ordinal)"
    return f"'h-' || {content} || CASE {count} WHEN 1 THEN '' ELSE '-' || {count} END"
