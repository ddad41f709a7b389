"""The Open Bandit Dataset: campaigns of ZOZOTOWN, as distributed (CSV with item context) or as one Parquet file.

The context features are the user's features and the position, one column for each value. The values that a log was
first imported with stay its encoding, so that a later file cannot silently mean something else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote as escape
from urllib.parse import unquote

import duckdb

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.logs.decisions.report import ImportReport
from counterplay.logs.decisions.table import import_source
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources.files import existing, existing_file
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source, literal, reading_errors
from counterplay.logs.sources.text import clear, rejected
from counterplay.logs.workspace import borrowed

if TYPE_CHECKING:
    import polars as pl

_ITEMS = "item_context.csv"
_NEEDED = ("timestamp", "item_id", "position", "click", "propensity_score")
_USER = re.compile(r"^user_feature_\d+$")
_AFFINITY = re.compile(r"^user-item_affinity_\d+$")
_ITEM = re.compile(r"^item_feature_\d+$")
# Python makes no number of texts that are much longer, and takes digits of other scripts for those of ours.
_NUMBER = re.compile(r"^[0-9]{1,18}$")


def import_obd(
    path: str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    items: str | os.PathLike[str] | None = None,
    affinities: bool = False,
    description: str | None = None,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring a campaign of the Open Bandit Dataset into a log.

    `path`: the campaign's folder ({campaign}.csv with item_context.csv beside it), its CSV file, or a Parquet file with
    the same columns. `items`: the item context; by default item_context.csv in the same folder, if there is one.

    Every item of the campaign is an action and a candidate of every decision, shown or not: those of the item context,
    or else as many as there are affinities. An action's features are `item_feature_0` and its other features one-hot.

    The context's features are `user_feature_*` and then `position`, each one-hot. obp leaves out the first value of
    each feature; here it stays, so that a value which only a later file has is seen (its row goes to the quarantine)
    and is not taken for that first one. obp keeps the position in an array of its own; here it is part of the context,
    because it changes both the click rate and what was shown. `affinities` adds the user's affinities to all items,
    which obp leaves out. The columns and their values are the mapping in the report.

    Rows have no ids: they are known by their place in the file; `as_new` says that a file of a known name holds new
    rows. `progress(done, total, what)` is called now and then. Errors: `FileError`, `ColumnError`, `InputError`; after
    any error the workspace is as it was.
    """
    rows, table = _files(Path(path), None if items is None else existing_file(items))
    with borrowed(workspace, read_only=False) as opened, opened.transaction() as connection:
        actions = None if table is None else _item_table(connection, table)
        source, features = _source(connection, rows, log, affinities)
        count = sum(bool(_AFFINITY.match(name)) for name in source.columns)
        if actions is None and count == 0:
            raise InputError(
                f"Which items there are cannot be told: {rows.name} has no affinities, and there is no {_ITEMS} "
                "beside it. Pass the item context as items."
            )
        if actions is not None and count not in (0, len(actions)):
            raise InputError(
                f"{table} has {len(actions)} items, {rows.name} has affinities to {count}: they are of different "
                "campaigns. Pass the item context of this one as items."
            )
        return import_source(
            lambda _: source,
            opened,
            log,
            columns=_mapping(features),
            regime="propensity",
            actions=[str(item) for item in range(count)] if actions is None else actions,
            description=description,
            as_new=as_new,
            progress=progress,
        )


def _mapping(features: list[str]) -> dict[str, str | list[str]]:
    plain = {"action": "item_id", "propensity": "propensity_score", "reward": "click", "timestamp": "timestamp"}
    return {**plain, "features": features}


def _files(path: Path, items: Path | None) -> tuple[Path, Path | None]:
    """The file of rows and the item context."""
    existing(path)
    folder = path if path.is_dir() else path.parent
    beside = folder / _ITEMS
    items = items or (beside if beside.is_file() else None)
    if not path.is_dir():
        return existing_file(path), items
    found = sorted(
        one for pattern in ("*.csv", "*.csv.gz", "*.parquet") for one in path.glob(pattern) if one.name != _ITEMS
    )
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise FileError(
            f"A campaign's folder has one file of rows, such as all.csv, beside {_ITEMS}; {path} has: {names}. "
            "Pass the file itself."
        )
    return existing_file(found[0]), items


def _source(connection: duckdb.DuckDBPyConnection, path: Path, log: str, affinities: bool) -> tuple[Source, list[str]]:
    """The source, and the names of its feature columns in their order."""
    source = open_source(connection, path)
    missing = [name for name in _NEEDED if name not in source.columns]
    if missing:
        raise ColumnError(
            f"{path} has no column '{missing[0]}', so it is no log of the Open Bandit Dataset. Pass the campaign's CSV "
            "or Parquet file; other tables are imported with import_decisions."
        )
    texts = {name: label_text(*source.columns[name]) for name in source.columns}
    encoded = [*sorted(name for name in texts if _USER.match(name)), "position"]
    encoding = _known_encoding(connection, log)
    if encoding is None:
        with reading_errors(str(path)):
            encoding = _encoding(connection, source, {name: texts[name] for name in encoded})
        empty = next((name for name, values in encoding.items() if not values), None)
        if empty is not None:
            raise FileError(f"{path} has no rows with a value in '{empty}'. Export it again, or leave it out.")
    if list(encoding) != encoded:
        raise ColumnError(
            f"{path} has the features {', '.join(encoded)}, log '{log}' has {', '.join(encoding) or 'none of them'}. "
            "Import it under another name."
        )
    columns = dict(source.columns)
    columns["item_id"] = (texts["item_id"], "VARCHAR")
    features = []
    for name, values in encoding.items():
        for value in values:
            features.append(f"{name}={escape(value, safe='')}")
            columns[features[-1]] = (f"CAST({texts[name]} = {literal(value)} AS TINYINT)", "TINYINT")
    features += [name for name in source.columns if affinities and _AFFINITY.match(name)]
    return dataclasses.replace(source, columns=columns, fault=_fault(texts, encoding)), features


def _known_encoding(connection: duckdb.DuckDBPyConnection, log: str) -> dict[str, list[str]] | None:
    """The encoding that the log was first imported with: for each encoded column its values in order."""
    rows = connection.execute(
        "SELECT mapping ->> '/features' FROM sources WHERE log = ? ORDER BY imported_at LIMIT 1", [log]
    ).fetchall()
    if not rows:
        return None
    encoding: dict[str, list[str]] = {}
    for name in (rows[0][0] or "").split(","):
        column, equals, value = name.partition("=")
        if equals:
            encoding.setdefault(column, []).append(unquote(value))
    return encoding


def _encoding(connection: duckdb.DuckDBPyConnection, source: Source, texts: dict[str, str]) -> dict[str, list[str]]:
    """For each column its values: text sorted, numbers by size."""
    lists = ", ".join(f"list(DISTINCT {text})" for text in texts.values())
    (found,) = connection.execute(f"SELECT {lists} FROM {source.scan}").fetchall()
    known = {
        name: [value for value in some or [] if value is not None] for name, some in zip(texts, found, strict=True)
    }
    known["position"] = [value for value in known["position"] if _NUMBER.match(value)]
    return {name: sorted(values, key=_by_size) for name, values in known.items()}


def _by_size(value: str) -> tuple[int, int, str]:
    return (0, int(value), value) if _NUMBER.match(value) else (1, 0, value)


def _fault(texts: dict[str, str], encoding: dict[str, list[str]]) -> str:
    """SQL: which encoded value of a row is missing, or is none of the log's."""
    cases = []
    for name, values in encoding.items():
        known = ", ".join(literal(value) for value in values) or "NULL"
        cases.append(f"WHEN {texts[name]} IS NULL THEN {literal(f'{name} is missing')}")
        cases.append(
            f"WHEN NOT coalesce({texts[name]} IN ({known}), false) "
            f"THEN {literal(f'{name} is none of the values that the log has: ')} || left({texts[name]}, 80)"
        )
    return f"CASE {' '.join(cases)} END"


def _item_table(connection: duckdb.DuckDBPyConnection, path: Path) -> pl.DataFrame:
    """The items by number: label, text (their features as JSON) and features."""
    import polars as pl

    source = open_source(connection, path)
    names = [name for name in source.columns if _ITEM.match(name)]
    if "item_id" not in source.columns:
        raise ColumnError(f"{path} has no column 'item_id', so it is no item context. Pass item_context.csv as items.")
    texts = {name: label_text(*source.columns[name]) for name in ("item_id", *names)}
    with reading_errors(str(path)):
        rows = connection.execute(f"SELECT {', '.join(texts.values())} FROM {source.scan}").fetchall()
    broken = rejected(connection)
    clear(connection)
    if broken or any(None in row for row in rows):
        raise InputError(f"A row of {path} is broken or lacks a value. Give every item its number and features.")
    rows.sort(key=lambda row: _by_size(row[0]))
    frame = {"label": [row[0] for row in rows]}
    if not names:
        return pl.DataFrame(frame)
    held = [dict(zip(names, row[1:], strict=True)) for row in rows]
    return pl.DataFrame({**frame, "text": [json.dumps(one) for one in held], "features": _item_features(names, held)})


def _item_features(names: list[str], items: list[dict[str, str]]) -> list[list[float]]:
    """Numbers as they are, categories one-hot."""
    columns: list[list[float]] = []
    for name in names:
        values = [item[name] for item in items]
        try:
            columns.append([float(value) for value in values])
        except ValueError:
            columns += [[float(value == one) for value in values] for one in sorted(set(values))]
    return [list(row) for row in zip(*columns, strict=True)]
