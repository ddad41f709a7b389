"""Importing tables of outcomes: what each of several models (actions) earned in each context."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import duckdb

from counterplay.errors import InputError, nearest
from counterplay.logs.decisions.columns import Mapped
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.full.measures import number, reason, shown, stored
from counterplay.logs.full.models import Layout, Models, recognise
from counterplay.logs.full.plan import MEASURES, Plan, context_columns, counted_id, reasons_of
from counterplay.logs.full.run import FullReport, import_full
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source, literal, reading_errors

_MAY_BE_UNKNOWN = ("cost", "seconds", "input_tokens", "output_tokens")


def import_outcomes(
    source: Any,
    workspace: Place,
    log: str,
    *,
    columns: Mapped | None = None,
    shape: str | None = None,
    models: Models | None = None,
    costs: Mapping[str, str] | None = None,
    zero_means_unknown: Collection[str] = (),
    description: str | None = None,
    progress: Progress | None = None,
) -> FullReport:
    """Bring a table of outcomes into a log of full information, which is made when there is none of that name.

    `source`: a path or a polars, pandas or Arrow frame, as for `import_decisions`. Long: a row for each context and
    model; wide: a row for each context, a column of rewards for each model. `shape`: 'long'
    or 'wide'; by default told from the columns. `columns`: our word to the file's column. `models`, for a wide table:
    the columns of rewards, or label to column; `costs`: label to column; by default both told from the columns.
    `zero_means_unknown`: which of cost, seconds, input_tokens and output_tokens hold 0 where nothing was measured. The
    log is 'full' when every action has a reward in every context, else 'partial'; an empty cell is an unknown reward.
    Bad rows go to the quarantine, with line and reason. Errors: `FileError`, `ColumnError`, `InputError`; after any
    error the workspace is as it was.
    """
    zeros = [zero_means_unknown] if isinstance(zero_means_unknown, str) else list(zero_means_unknown)
    for word in zeros:
        if word == "reward":
            raise InputError("A reward of 0 is a reward. Leave the cell empty where the reward is not known.")
        if word not in _MAY_BE_UNKNOWN:
            raise InputError(f"'{word}' cannot be in zero_means_unknown. {nearest(word, _MAY_BE_UNKNOWN)}")

    def opener(connection: duckdb.DuckDBPyConnection) -> tuple[Source, Plan]:
        opened = open_source(connection, source)
        with reading_errors(opened.name):
            layout = recognise(connection, opened, shape, columns, models, costs)
        return opened, (_long if layout.shape == "long" else _wide)(opened, layout, zeros)

    return import_full(opener, workspace, log, description, progress)


def _long(source: Source, layout: Layout, zeros: list[str]) -> Plan:
    """Each row is one entry; contexts without an id are told apart by what they hold."""
    mapping = layout.mapping
    context, text, features = context_columns(source, mapping)
    inner = [f"{value} AS {name}" for name, value in context.items()]
    inner.append(f"{label_text(*source.columns[mapping['action'].names[0]])} AS label")
    for word in MEASURES:
        if word in mapping:
            inner += _cell(source, word, mapping[word].names[0], word, mapping[word].negate)
        else:
            inner.append(f"CAST(NULL AS DOUBLE) AS {word}")
    given = [word for word in MEASURES if word in mapping]
    reasons = ["missing", "unsound", "CASE WHEN label IS NULL THEN 'action is missing' END"]
    reasons += [reason(word, word, f"raw_{word}") for word in given]
    named = "context_id" if "context_id" in mapping else "'h-' || body AS context_id"
    values = ", ".join(f"{stored(word, word, word in zeros)} AS {word}" for word in MEASURES)
    return Plan(
        shape="long",
        staging=f"""SELECT ordinal, {named}, body, width, cluster, label, {values}, false AS left_out,
                {reasons_of(reasons)} AS reason
            FROM (SELECT ordinal, {", ".join(inner)} FROM {source.scan})""",
        entries=f"SELECT ordinal, label, {', '.join(MEASURES)} FROM incoming",
        key="context_id, label",
        text=text,
        features=features,
        default=None,
        mapping=mapping,
        settings={"zero_means_unknown": zeros} if zeros else {},
    )


def _wide(source: Source, layout: Layout, zeros: list[str]) -> Plan:
    """Each row is a context with an entry for each model; rows without an id that hold the same are counted."""
    context, text, features = context_columns(source, layout.mapping)
    inner = [f"{value} AS {name}" for name, value in context.items()]
    reasons, lists = ["missing", "unsound"], []
    for word in MEASURES:
        cells = []
        for i, (label, places) in enumerate(layout.models.items()):
            name = f"{word}_{i}"
            if word in places:
                inner += _cell(source, word, places[word], name)
                reasons.append(reason(word, name, f"raw_{name}", literal(f" ({label})")))
            cells.append(stored(word, name, word in zeros) if word in places else "NULL")
        lists.append(f"CAST([{', '.join(cells)}] AS {'BIGINT' if 'tokens' in word else 'DOUBLE'}[]) AS {word}")
    checked = f"""SELECT *, {reasons_of(reasons)} AS reason
        FROM (SELECT ordinal, {", ".join(inner)} FROM {source.scan})"""
    labels = ", ".join(literal(label) for label in layout.models)
    unnested = ", ".join(f"unnest({word}) AS {word}" for word in MEASURES)
    return Plan(
        shape="wide",
        staging=f"""SELECT ordinal, {counted_id("context_id" in layout.mapping)} AS context_id, body, width, cluster,
                {", ".join(lists)}, false AS left_out, reason FROM ({checked})""",
        entries=f"SELECT ordinal, unnest([{labels}]) AS label, {unnested} FROM incoming",
        key="context_id",
        text=text,
        features=features,
        default=None,
        mapping=layout.mapping,
        labels=[(label, None) for label in layout.models],
        models={label: places["reward"] for label, places in layout.models.items()},
        taken=layout.taken,
        settings={"zero_means_unknown": zeros} if zeros else {},
    )


def _cell(source: Source, word: str, column: str, name: str, negate: bool = False) -> list[str]:
    value, kind = source.columns[column]
    found = number(value, kind, truth=word == "reward")
    return [f"{f'-({found})' if negate else found} AS {name}", f"{shown(value)} AS raw_{name}"]
