"""Importing two public sets of labelled texts in the files that they are published in.

OneShotWikiLinks (`shuffled_dedup_entities.tsv`): lines of entity, text before, mention, text after; no header, no
quotes. AmazonCat-13K of the Extreme Classification Repository: JSON lines with the numbers of the right labels, and
the labels' names in a file of their own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np

from counterplay.errors import ColumnError, FileError, InputError
from counterplay.logs.decisions.columns import Column
from counterplay.logs.full.labels import MEASURED
from counterplay.logs.full.plan import Plan, context_columns, counted_id, reasons_of
from counterplay.logs.full.run import FullReport, import_full
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources import lines
from counterplay.logs.sources.files import existing_file, file_hash
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import Source, literal, reading_errors
from counterplay.logs.sources.text import REJECTS, rejected

_CHOSEN, _NAMES = "counterplay_chosen", "counterplay_names"
_GAP = "___"


def import_oneshotwiki(
    source: str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    at_least: int = 2000,
    rows_each: int | None = None,
    mention: bool = False,
    description: str | None = None,
    progress: Progress | None = None,
) -> FullReport:
    """Bring OneShotWikiLinks into a log: the context is a text with a gap, the actions are the entities linked there.

    `source`: `shuffled_dedup_entities.tsv`, also as .gz. `at_least`: entities that stand in fewer lines are left out
    (2000 leaves 311, 200 leaves 14,031). `rows_each`: take the first so many lines of each entity, so that no constant
    action is better than another; default: `at_least`; 0: all of them. `mention`: put the linked words into the gap,
    which gives most entities away; by default it holds `___`. Errors: `FileError`, `InputError`.
    """
    if at_least < 1 or (rows_each is not None and rows_each < 0):
        raise InputError("at_least must be 1 or more, rows_each 0 (all) or more.")
    most = at_least if rows_each is None else rows_each

    def opener(connection: duckdb.DuckDBPyConnection) -> tuple[Source, Plan]:
        opened = _open_lines(existing_file(source))
        with reading_errors(opened.name):
            entities, left_out = _choose(connection, opened, at_least, most)
        settings = {"at_least": at_least, "rows_each": most, "mention": mention}
        chosen = dataclasses.replace(
            opened, scan=f"(SELECT * FROM {opened.scan} WHERE ordinal IN (SELECT ordinal FROM {_CHOSEN}))"
        )
        return chosen, _oneshot_plan(chosen, entities, left_out, settings)

    return import_full(opener, workspace, log, description, progress)


def import_amazoncat(
    source: str | os.PathLike[str],
    names: str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    description: str | None = None,
    progress: Progress | None = None,
) -> FullReport:
    """Bring AmazonCat-13K into a log: the context is a product's title and content, the actions are all labels.

    `source`: `trn.json.gz`, with uid, title, content and target_ind in each line. `names`: `Yf.txt`, the name of label
    i in line i + 1, in ISO-8859-1. Any other set of the repository in these files will do. Errors: `FileError`,
    `ColumnError`.
    """
    labels = _read_names(existing_file(names))

    def opener(connection: duckdb.DuckDBPyConnection) -> tuple[Source, Plan]:
        opened = open_source(connection, source)
        for name in ("uid", "title", "target_ind"):
            if name not in opened.columns:
                raise ColumnError(
                    f"{opened.name} has no '{name}', so it is not the raw text of the Extreme Classification "
                    "Repository (trn.json.gz). Import other files as labelled texts, with columns={'labels': '...'}."
                )
        connection.execute(
            f"CREATE TEMP TABLE {_NAMES} AS SELECT unnest($places) AS place, unnest($labels) AS label",
            {"places": list(range(len(labels))), "labels": [label for label, _ in labels]},
        )
        return opened, _amazon_plan(opened, labels)

    return import_full(opener, workspace, log, description, progress)


def _open_lines(path: Path) -> Source:
    # Quotes are plain characters here, and lines are cut at tabs by us, so that a line with too few or too many fields
    # is seen. No line holds the separator that the reader is given.
    compression = "gzip" if path.suffix.lower() == ".gz" else "none"
    reader = (
        f"read_csv({literal(str(path))}, auto_detect = false, header = false, delim = {literal(chr(1))}, quote = '', "
        f"escape = '', strict_mode = false, compression = '{compression}', columns = {{'line': 'VARCHAR'}}, "
        f"store_rejects = true, rejects_table = '{REJECTS}', rejects_scan = 'counterplay_reject_scans')"
    )
    parts = f"""SELECT ordinal, string_split(line, chr(9)) AS parts
        FROM (SELECT line, row_number() OVER () AS ordinal FROM {reader}) WHERE trim(line) <> ''"""
    return Source(
        name=path.name,
        sha256=file_hash(path),
        scan=f"""(SELECT ordinal, trim(parts[1]) AS entity, parts[2] AS pre, parts[3] AS mention,
            rtrim(array_to_string(parts[4:], chr(9))) AS post, len(parts) AS fields FROM ({parts}))""",
        columns={name: (name, "VARCHAR") for name in ("entity", "pre", "mention", "post")},
        locate=_line_places,
    )


def _line_places(connection: duckdb.DuckDBPyConnection) -> lines.Places:
    """The lines of the rows: all but those that could not be read."""
    broken = rejected(connection)
    (last,) = connection.execute("SELECT coalesce(max(ordinal), 0) FROM incoming").fetchall()[0]
    every = np.arange(1, last + len(broken) + 1, dtype=np.int64)
    return lines.Places(
        lines=np.setdiff1d(every, np.array([line for line, _, _ in broken], dtype=np.int64), assume_unique=True),
        broken=tuple(lines.Broken(line=line, raw=raw, reason=reason) for line, raw, reason in broken),
    )


def _choose(
    connection: duckdb.DuckDBPyConnection, source: Source, at_least: int, rows_each: int
) -> tuple[list[str], int]:
    """Note which rows to take in a table; the entities that are frequent enough, and how many rows are left out."""
    counts = dict(connection.execute(f"SELECT coalesce(entity, ''), count(*) FROM {source.scan} GROUP BY 1").fetchall())
    entities = sorted(entity for entity, count in counts.items() if count >= at_least and entity)
    if not entities:
        most = max(counts.values(), default=0)
        raise InputError(
            f"No entity stands in {at_least:,} lines of {source.name}; the commonest stands in {most:,}. Lower "
            "at_least."
        )
    connection.execute(
        f"""CREATE TEMP TABLE {_CHOSEN} AS SELECT ordinal FROM (
                SELECT ordinal, reason,
                    row_number() OVER (PARTITION BY entity, reason IS NULL ORDER BY ordinal) AS place
                FROM (SELECT ordinal, entity, {_line_reason()} AS reason FROM {source.scan})
                WHERE entity IN (SELECT unnest($entities)))
            WHERE $most = 0 OR reason IS NOT NULL OR place <= $most""",
        {"entities": entities, "most": rows_each},
    )
    (chosen,) = connection.execute(f"SELECT count(*) FROM {_CHOSEN}").fetchall()[0]
    return entities, sum(counts.values()) - int(chosen)


def _line_reason() -> str:
    """SQL: what is wrong with a line; the same lines are passed over in the code of the papers that use this set."""
    return """CASE WHEN fields <> 4 THEN 'the line does not have 4 fields: ' || fields
        WHEN post = '' THEN 'the text after the mention is missing' END"""


def _oneshot_plan(source: Source, entities: list[str], left_out: int, settings: Mapping[str, object]) -> Plan:
    text = f"concat_ws(' ', nullif(trim(pre), ''), {'mention' if settings['mention'] else literal(_GAP)}, ltrim(post))"
    mapping = {"text": Column(names=("pre", "mention", "post")), "label": Column(names=("entity",))}
    context, _, _ = context_columns(source, mapping, text)
    inner = ", ".join(f"{value} AS {name}" for name, value in context.items())
    # The whole line, not the text: two lines that differ in the hidden mention only are two contexts in any case.
    content = "md5(concat_ws(chr(9), entity, pre, mention, post)) AS content"
    checked = f"SELECT ordinal, {inner}, {content}, entity, {_line_reason()} AS reason FROM {source.scan}"
    return Plan(
        shape="labels",
        staging=f"""SELECT ordinal, {counted_id(False, "content")} AS context_id, body, width, cluster,
            entity AS label, false AS left_out, reason FROM ({checked})""",
        entries=f"SELECT ordinal, label, {MEASURED} FROM incoming",
        key="context_id",
        text=text,
        features="NULL",
        default=0.0,
        mapping=mapping,
        labels=[(entity, entity.replace("_", " ")) for entity in entities],
        settings=settings,
        left_out=left_out,
    )


def _amazon_plan(source: Source, labels: list[tuple[str, str]]) -> Plan:
    values = [f"nullif({source.columns[name][0]}, '')" for name in ("title", "content") if name in source.columns]
    text = f"nullif(concat_ws(chr(10), {', '.join(values)}), '')"
    names = tuple(name for name in ("title", "content") if name in source.columns)
    mapping = {"context_id": Column(names=("uid",)), "text": Column(names=names)}
    context, _, _ = context_columns(source, mapping, text)
    inner = [f"{value} AS {name}" for name, value in context.items()]
    raw = source.columns["target_ind"][0]
    inner += [f"{raw} AS raw", f"list_distinct(TRY_CAST({raw} AS INTEGER[])) AS labels"]
    outside = f"list_filter(labels, lambda one: one < 0 OR one >= {len(labels)})"
    reasons = [
        "missing",
        "CASE WHEN body IS NULL THEN 'text is missing' END",
        f"""CASE WHEN raw IS NULL THEN 'labels are missing'
            WHEN labels IS NULL THEN 'labels are not a list of numbers: ' || left(raw, 80)
            WHEN len(labels) = 0 THEN 'labels are empty'
            WHEN len({outside}) > 0 THEN 'label is unknown: ' || {outside}[1] END""",
    ]
    mapping["labels"] = Column(names=("target_ind",))
    return Plan(
        shape="labels",
        staging=f"""SELECT ordinal, context_id, body, width, cluster, labels, false AS left_out,
                {reasons_of(reasons)} AS reason
            FROM (SELECT ordinal, {", ".join(inner)} FROM {source.scan})""",
        entries=f"""SELECT ordinal, label, {MEASURED}
            FROM (SELECT ordinal, unnest(labels) AS place FROM incoming) JOIN {_NAMES} USING (place)""",
        key="context_id",
        text=text,
        features="NULL",
        default=0.0,
        mapping=mapping,
        labels=labels,
    )


def _read_names(path: Path) -> list[tuple[str, str]]:
    """The label and the name of each line; a name that came before, or is blank, gets its line put behind it."""
    # Not splitlines: ISO-8859-1 has characters that it takes for ends of lines.
    names = [line.strip() for line in path.read_text("iso-8859-1").rstrip("\r\n").split("\n")]
    if names == [""]:
        raise FileError(f"{path} holds no names of labels. Download it again.")
    seen: set[str] = set()
    labels = []
    for line, name in enumerate(names, 1):
        label = name if name and name not in seen else f"{name} (line {line})".strip()
        seen.add(label)
        labels.append((label, name or label))
    return labels
