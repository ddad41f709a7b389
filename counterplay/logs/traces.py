"""Where the texts of contexts stand besides their table: rejected rows, cached outputs, results.

Templates may trim a text, turn its case, or write it as JSON or HTML, so texts are looked for in each of these forms,
with white space and case set aside. What a template cuts or rewords is not found.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import duckdb

from counterplay.logs.attachments import attached_files
from counterplay.logs.relations import contexts_of

_BATCH = 5_000
# Tables with texts of their own, and the columns that hold them.
_QUOTING = {
    "actions": ("label", "text"),
    "logs": ("description",),
    "runs": ("configuration", "result"),
    "estimates": ("estimate",),
    "experiments": ("definition", "results"),
}


class Texts:
    """A set of texts to look for."""

    def __init__(self, texts: Iterable[str]) -> None:
        forms = {_plain(form) for text in texts for form in _forms(text)}
        self._patterns = sorted(forms - {""})

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def found_in(self, values: Sequence[str]) -> list[bool]:
        """For each value, whether one of the texts stands in it. A JSON value is looked into unescaped."""
        import polars as pl

        if not self._patterns:
            return [False] * len(values)
        searched = pl.Series([_plain("\n".join(_strings(value))) for value in values], dtype=pl.String)
        found: list[bool] = searched.str.contains_any(self._patterns).to_list()
        return found


def texts_of(connection: duckdb.DuckDBPyConnection, log: str, ids: Sequence[str]) -> Texts:
    """The texts that a log still holds for some of its contexts."""
    rows = connection.execute(
        f"SELECT text FROM {contexts_of(connection, log)} WHERE text IS NOT NULL AND context_id IN (SELECT unnest(?))",
        [list(ids)],
    ).fetchall()
    return Texts(text for (text,) in rows)


def outputs_with(connection: duckdb.DuckDBPyConnection, texts: Texts) -> list[str]:
    """The keys of cached outputs that quote a text, in request, response or provenance."""
    rows = _read(connection, "SELECT key, json_array(request, response, provenance) FROM outputs")
    return [key for batch in rows for (key, _), hit in _with(texts, batch, 1) if hit]


def rejected_with(
    connection: duckdb.DuckDBPyConnection, log: str, ids: Sequence[str], texts: Texts
) -> tuple[list[int], set[str]]:
    """The row ids of the quarantine that belong to the contexts of a log or, in any log, quote a text; and those of the
    contexts that have such rows.

    A broken line belongs to a context whose id stands in it as a word.
    """
    mapped: dict[str, set[str]] = {}
    for source, column in connection.execute(
        "SELECT DISTINCT source, mapping ->> '$.context_id' FROM sources WHERE log = ?", [log]
    ).fetchall():
        mapped.setdefault(source, {"context_id"}).add(column or "context_id")
    wanted, rows, met = set(ids), [], set[str]()
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(name) for name in ids)})(?!\w)")
    query = "SELECT rowid, log, source, CAST(row AS VARCHAR), reason FROM quarantine"
    for batch in _read(connection, query):
        for (rowid, where, source, row, _), hit in _with(texts, batch, 3):
            columns = mapped.get(source, {"context_id"})
            mine = _named(row, columns, wanted, pattern) if where == log else set()
            met |= mine
            if hit or mine:
                rows.append(rowid)
    return rows, met


def elsewhere(connection: duckdb.DuckDBPyConnection, log: str, ids: Sequence[str], texts: Texts) -> list[str]:
    """Where the texts are quoted that forgetting leaves alone: a sentence part each, with the count."""
    same = connection.execute(
        """WITH gone AS (SELECT text FROM contexts WHERE log = $log AND context_id IN (SELECT unnest($ids)))
           SELECT log, count(*) FROM contexts WHERE text IN (SELECT text FROM gone WHERE text IS NOT NULL)
           AND NOT (log = $log AND context_id IN (SELECT unnest($ids))) GROUP BY log ORDER BY log""",
        {"log": log, "ids": list(ids)},
    ).fetchall()
    left = [f"{count} other contexts of log '{name}' with the same text" for name, count in same]
    for table, columns in _QUOTING.items():
        rows = _read(connection, f"SELECT json_array({', '.join(columns)}) FROM {table}")
        count = sum(hit for batch in rows for _, hit in _with(texts, batch, 0))
        left += [f"{count} rows of the table '{table}'"] if count else []
    files = attached_files(connection, log)
    return left + [f"perhaps the attached file {file.path}; change it, and attach the log again" for file in files]


def _read(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[list[tuple[Any, ...]]]:
    # A cursor of its own: the caller may ask something else between two batches.
    with connection.cursor() as cursor:
        cursor.execute(query)
        while batch := cursor.fetchmany(_BATCH):
            yield batch


def _with(texts: Texts, batch: list[tuple[Any, ...]], first: int) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """Each row, and whether one of its columns from `first` on quotes a text."""
    hits = [texts.found_in([str(row[i]) for row in batch]) for i in range(first, len(batch[0]))]
    yield from zip(batch, (any(hit) for hit in zip(*hits, strict=True)), strict=True)


def _named(row: str, columns: set[str], ids: set[str], pattern: re.Pattern[str]) -> set[str]:
    """The wanted contexts that a rejected row belongs to; `pattern` finds their ids in a broken line."""
    held = json.loads(row)
    if not isinstance(held, dict):
        return set()
    # A column of whole numbers turns to decimals when one is missing.
    values = {str(held[name]) for name in columns if held.get(name) is not None}
    found = (values | {value.removesuffix(".0") for value in values}) & ids
    if set(held) == {"line"}:
        found |= set(pattern.findall(str(held["line"])))
    return found


def _forms(text: str) -> Iterator[str]:
    yield text
    escaped = json.dumps(text)[1:-1]
    yield escaped
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    # How Jinja's filters `tojson` and `escape` write a text.
    yield re.sub("[<>&']", lambda found: f"\\u{ord(found[0]):04x}", escaped)
    yield html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    yield html.escape(text)
    yield text.replace('"', '""')


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _strings(value: str) -> Iterator[str]:
    """Every text in a JSON value, names included; the value itself when it is no JSON."""
    try:
        found = json.loads(value)
    except ValueError:
        yield value
        return
    pending = [found]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            pending += [*one, *one.values()]
        elif isinstance(one, list):
            pending += one
