"""Importing labelled texts: a log of full information whose actions are the labels; right ones earn 1, others 0."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import duckdb

from counterplay.errors import ColumnError, InputError, nearest
from counterplay.logs.decisions.columns import Mapped, resolve
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.full.plan import Plan, context_columns, counted_id, reasons_of
from counterplay.logs.full.run import FullReport, import_full
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source, literal, reading_errors

WORDS: dict[str, tuple[str, ...]] = {
    "context_id": ("context_id", "text_id", "example_id", "id", "uid"),
    "text": ("text", "utterance", "sentence", "query", "question", "prompt", "content", "document"),
    "label": ("label", "intent", "class", "category", "target", "tag", "entity", "y"),
    "labels": ("labels", "intents", "classes", "categories", "targets", "tags"),
    "features": ("features", "x", "context_features"),
    "split": ("split",),
    "cluster": ("cluster", "cluster_id"),
}
# An entry says no more than that the label is right.
MEASURED = """1.0 AS reward, CAST(NULL AS DOUBLE) AS cost, CAST(NULL AS DOUBLE) AS seconds,
    CAST(NULL AS BIGINT) AS input_tokens, CAST(NULL AS BIGINT) AS output_tokens"""


def import_labels(
    source: Any,
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    splits: Collection[str] = (),
    leave_out: Collection[str] = (),
    description: str | None = None,
    progress: Progress | None = None,
) -> FullReport:
    """Bring labelled texts into a log of full information, which is made when there is none of that name.

    `source`: a path or a polars, pandas or Arrow frame, as for `import_decisions`; a row for each text. `columns`: our
    word to the file's column; `label` is one label, `labels` a list of those that are right: a list, or in a text
    `["a", "b"]`, `[a, b]` or `a|b`. `splits`: take rows of these splits only; default: all. `leave_out`: labels that
    are no actions; a row that has no other is left out, and counted in `rows_left_out`. The text of an action is its
    label, with spaces for underscores. Bad rows go to the quarantine,
    with line and reason. Errors: `FileError`, `ColumnError`, `InputError`; after any error the workspace is as it was.
    """
    wanted = [splits] if isinstance(splits, str) else list(splits)
    dropped = [leave_out] if isinstance(leave_out, str) else list(leave_out)

    def opener(connection: duckdb.DuckDBPyConnection) -> tuple[Source, Plan]:
        opened = open_source(connection, source)
        with reading_errors(opened.name):
            return opened, _plan(connection, opened, columns, wanted, dropped)

    return import_full(opener, workspace, log, description, progress)


def _plan(
    connection: duckdb.DuckDBPyConnection, source: Source, columns: Mapped | None, splits: list[str], dropped: list[str]
) -> Plan:
    mapping = resolve(source.types, columns, synonyms=WORDS)
    _check_words(source, set(mapping), splits)
    context, text, features = context_columns(source, mapping)
    word = "label" if "label" in mapping else "labels"
    value, kind = source.columns[mapping[word].names[0]]
    labels = _labels(word, value, kind)
    split = label_text(*source.columns[mapping["split"].names[0]]) if "split" in mapping else "NULL"
    # A name that no row has is misspelt: all rows would be left out, or none.
    _check_known(connection, source, "split", f"[{split}]", splits)
    _check_known(connection, source, "label", labels, dropped)
    outside = f"{split} IS NULL OR NOT list_contains({_texts(splits)}, {split})" if splits else "false"
    inner = [f"{found} AS {name}" for name, found in context.items()]
    inner += [f"{labels} AS labels", f"CAST({value} AS VARCHAR) AS raw_labels", f"{outside} AS outside"]
    left = f"list_filter(labels, lambda one: NOT list_contains({_texts(dropped)}, one))" if dropped else "labels"
    empty = "CASE WHEN missing IS NULL AND body IS NULL THEN 'text is missing' ELSE missing END"
    checked = f"""SELECT *, {reasons_of([empty, "unsound", _label_reason(word)])} AS reason
        FROM (SELECT ordinal, {", ".join(inner)} FROM {source.scan})"""
    return Plan(
        shape="labels",
        # All rows are counted for the ids, also those that are left out: the ids do not depend on the options.
        staging=f"""SELECT ordinal, {counted_id("context_id" in mapping)} AS context_id, body, width, cluster,
                list_distinct({left}) AS labels, reason,
                outside OR coalesce(len(labels) > 0 AND len({left}) = 0, false) AS left_out
            FROM ({checked})""",
        entries=f"SELECT ordinal, unnest(labels) AS label, {MEASURED} FROM incoming",
        key="context_id",
        text=text,
        features=features,
        default=0.0,
        mapping=mapping,
        settings={name: given for name, given in (("splits", splits), ("leave_out", dropped)) if given},
    )


def _check_words(source: Source, found: set[str], splits: list[str]) -> None:
    if not {"label", "labels"} & found:
        raise ColumnError(
            f"No column is the label. {nearest('label', source.columns)} Say which with columns={{'label': '...'}}, or "
            "with columns={'labels': '...'} where a text can have several."
        )
    if {"label", "labels"} <= found:
        raise ColumnError(
            "One column can be the label and another the labels. Choose one: columns={'labels': ''} or "
            "columns={'label': ''}."
        )
    if not {"text", "features"} & found:
        raise ColumnError(
            f"No column is the text. {nearest('text', source.columns)} Say which with columns={{'text': '...'}}."
        )
    if splits and "split" not in found:
        raise ColumnError(
            f"No column is the split. {nearest('split', source.columns)} Say which with columns={{'split': '...'}}."
        )


def _check_known(
    connection: duckdb.DuckDBPyConnection, source: Source, what: str, values: str, named: list[str]
) -> None:
    if not named:
        return
    rows = connection.execute(f"SELECT DISTINCT unnest({values}) FROM {source.scan} WHERE NOT ({source.broken})")
    known = {value for (value,) in rows.fetchall() if value is not None}
    for name in named:
        if name not in known:
            raise InputError(f"No row of {source.name} has the {what} '{name}'. {nearest(name, known)}")


def _labels(word: str, value: str, kind: str) -> str:
    """SQL: the labels of a row as a list of texts."""
    if kind.endswith("]"):
        return f"list_transform({value}, lambda one: {label_text('one', kind[: kind.rindex('[')])})"
    if word == "label":
        return f"CASE WHEN {label_text(value, kind)} IS NOT NULL THEN [{label_text(value, kind)}] END"
    text = f"CAST({value} AS VARCHAR)"
    listed = f"coalesce(TRY_CAST(TRY_CAST({text} AS JSON) AS VARCHAR[]), TRY_CAST({text} AS VARCHAR[]))"
    split = f"list_transform(string_split({text}, '|'), lambda one: nullif(trim(one), ''))"
    return f"CASE WHEN ltrim({text}) LIKE '[%' THEN {listed} WHEN {text} <> '' THEN {split} END"


def _label_reason(word: str) -> str:
    """SQL: what is wrong with the labels of a row, or NULL."""
    missing = "label is missing" if word == "label" else "labels are missing"
    return f"""CASE WHEN raw_labels IS NULL OR raw_labels = '' THEN '{missing}'
        WHEN labels IS NULL THEN 'labels are not a list: ' || left(raw_labels, 80)
        WHEN len(labels) = 0 THEN 'labels are empty'
        WHEN len(list_filter(labels, lambda one: one IS NULL OR one = '')) > 0
            THEN 'labels hold an empty entry: ' || left(raw_labels, 80) END"""


def _texts(values: list[str]) -> str:
    return f"CAST([{', '.join(literal(value) for value in values)}] AS VARCHAR[])"
