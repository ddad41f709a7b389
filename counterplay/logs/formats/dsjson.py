"""Vowpal Wabbit's decision-service JSON: one event a line, with its context, actions, distribution and label.

What can be wrong with an event, and what its keys are called here; how the file is read is in ``dsjson_events``.
"""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from counterplay.errors import FileError, InputError
from counterplay.logs.decisions.indices import is_numbered
from counterplay.logs.decisions.report import ImportReport
from counterplay.logs.decisions.table import import_source
from counterplay.logs.formats.dsjson_events import (
    ACTIONS,
    EVENTS,
    LISTS,
    drop_events,
    first_row,
    name_actions,
    read_events,
)
from counterplay.logs.progress import Progress
from counterplay.logs.reading import Place
from counterplay.logs.sources import lines
from counterplay.logs.sources.files import existing_file, file_hash, open_binary, refuse_marked, refuse_utf16
from counterplay.logs.sources.source import Source, literal, reading_errors
from counterplay.logs.workspace import borrowed

_SKIPPED = "coalesce(_skipLearn, 'false') NOT IN ('false', '0')"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Reader:
    path: Path
    identify: str
    pdrop: float


def import_dsjson(
    path: str | os.PathLike[str],
    workspace: Place,
    log: str,
    *,
    identify: str = "features",
    pdrop: float = 0.0,
    description: str | None = None,
    overwrite: bool = False,
    as_new: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Bring a Vowpal Wabbit decision-service log (dsjson, one event a line, also .gz) into a log.

    The reward is the label's cost with its sign turned, the candidates are the actions in `a` with the distribution
    `p`, the text of the context is the JSON of `c` without `_multi`. `identify`: what makes two actions of different
    events one action: "features" (their object in `_multi`, whose JSON is then label and text; at most 100,000), a JSON
    pointer into that object such as "/id", or "position" (the number that the event gave them, from 1).

    `pdrop`: the probability with which every event of this log was dropped before it was written. Vowpal Wabbit gives
    such an event the weight 1 / (1 - pdrop); a log has no weights, and only equal ones cancel in an average. An event
    with another `pdrop` than this therefore stops the import.

    Events without a label, with several slots, marked `_skipLearn`, or whose label contradicts itself go to the
    quarantine, as do broken lines. `overwrite`, `as_new` and `progress` are those of `import_decisions`. Errors:
    `FileError`, `InputError`; after any error the workspace is as it was.
    """
    if identify not in ("features", "position") and not identify.startswith("/"):
        raise InputError(
            f"Actions cannot be identified by '{identify}'. Pass 'features', 'position', or a JSON pointer such as "
            "'/id'."
        )
    if not 0 <= pdrop < 1:
        raise InputError(f"pdrop must be a probability below 1, not {pdrop}. Leave it out when no event was dropped.")
    reader = _Reader(path=existing_file(path), identify=identify, pdrop=pdrop)
    with borrowed(workspace, read_only=False) as opened:
        try:
            with opened.transaction() as connection:
                source = _open(connection, reader)
                columns = {word: name if name in source.columns else "" for word, name in _MAPPING.items()}
                report = import_source(
                    lambda _: source,
                    opened,
                    log,
                    columns=columns,
                    description=description,
                    overwrite=overwrite,
                    as_new=as_new,
                    progress=progress,
                )
                if identify != "position":
                    connection.execute(
                        f"UPDATE actions SET text = found.text FROM {ACTIONS} found "
                        "WHERE log = ? AND actions.label = found.label AND actions.text IS NULL",
                        [log],
                    )
            return report
        finally:
            drop_events(opened.connection)


_MAPPING = {
    "decision_id": "EventId",
    "action": "_multi[_label_Action]",
    "propensity": "_label_probability",
    "reward": "-_label_cost",
    "candidates": "_multi[a]",
    "candidate_propensities": "p",
    "text": "c",
    "timestamp": "Timestamp",
}


def _open(connection: duckdb.DuckDBPyConnection, reader: _Reader) -> Source:
    with ThreadPoolExecutor(1) as pool, reading_errors(str(reader.path)):
        refuse_marked(reader.path)
        digest = pool.submit(file_hash, reader.path)
        read_events(connection, reader.path)
        sha256 = digest.result()
    _check_events(connection, reader)
    name_actions(connection, reader.path, reader.identify)
    return Source(
        name=reader.path.name,
        sha256=sha256,
        scan=f"""(SELECT e.*, l.labels, l.numbers, e.rowid - {first_row(connection)} + 1 AS ordinal
                  FROM {EVENTS} e LEFT JOIN {LISTS} l USING (multi))""",
        columns=_columns(connection, reader),
        broken="broken",
        fault=_fault(reader.identify),
        locate=lambda _: lines.json_places(lambda: open_binary(reader.path)),
    )


def _columns(connection: duckdb.DuckDBPyConnection, reader: _Reader) -> dict[str, tuple[str, str]]:
    number = "TRY_CAST(_label_Action AS BIGINT)"
    # list_select stops the whole query at a position that is NULL.
    chosen = "CASE WHEN list_count(a) = len(a) THEN list_select({0}, a) END"
    action, candidates = {
        "position": ((number, "BIGINT"), ("a", "BIGINT[]")),
        "numbers": ((f"numbers[{number}]", "BIGINT"), (chosen.format("numbers"), "BIGINT[]")),
        "labels": ((f"labels[{number}]", "VARCHAR"), (chosen.format("labels"), "VARCHAR[]")),
    }["position" if reader.identify == "position" else "numbers" if is_numbered(connection) else "labels"]
    ids, times = connection.execute(f"SELECT count(EventId), count(Timestamp) FROM {EVENTS}").fetchall()[0]
    return {
        **({"EventId": ("EventId", "VARCHAR")} if ids else {}),
        **({"Timestamp": ("Timestamp", "VARCHAR")} if times else {}),
        "_multi[_label_Action]": action,
        "_multi[a]": candidates,
        "_label_Action": ("_label_Action", "DOUBLE"),
        "_labelIndex": ("_labelIndex", "DOUBLE"),
        "_label_probability": ("_label_probability", "DOUBLE"),
        # Taken from zero, so that the reward of a cost of 0 is 0 and not -0.
        "-_label_cost": ("0 - TRY_CAST(_label_cost AS DOUBLE)", "DOUBLE"),
        "a": ("a", "BIGINT[]"),
        "p": ("p", "DOUBLE[]"),
        "c": ("text", "VARCHAR"),
        "_multi": ("multi", "VARCHAR"),
        "pdrop": ("pdrop", "VARCHAR"),
        "_skipLearn": ("_skipLearn", "VARCHAR"),
    }


def _check_events(connection: duckdb.DuckDBPyConnection, reader: _Reader) -> None:
    found = connection.execute(f"SELECT 1 FROM {EVENTS} WHERE a IS NOT NULL OR text IS NOT NULL LIMIT 1").fetchall()
    if not found:
        refuse_utf16(reader.path)
        raise FileError(
            f"No line of {reader.path} is an event with the keys 'a', 'c' and 'p'. Export the log as dsjson; other "
            "JSON lines can be imported as a table of decisions."
        )
    # A value that is no such probability is a fault of its row.
    dropped = "TRY_CAST(coalesce(pdrop, '0') AS DOUBLE)"
    ((count, ordinal, first),) = connection.execute(
        f"""SELECT count(*), min(rowid) - {first_row(connection)} + 1, arg_min({dropped}, rowid) FROM {EVENTS}
            WHERE {dropped} <> $pdrop AND {dropped} >= 0 AND {dropped} < 1
            AND _label_cost IS NOT NULL AND NOT slots AND NOT {_SKIPPED}""",
        {"pdrop": reader.pdrop},
    ).fetchall()
    if count:
        raise InputError(
            f"{count} events of {reader.path} (the first is event {ordinal}) have pdrop {first:g}, not "
            f"{reader.pdrop:g}: each stands for 1 / (1 - pdrop) events, and a log has no weights. Export the log "
            "without dropping; or, when every event has that pdrop, so that the weights cancel, pass it as pdrop."
        )


def _fault(identify: str) -> str:
    """SQL: what is wrong with an event that the checks of every import would not see, or would name badly."""
    dropped = "TRY_CAST(pdrop AS DOUBLE)"
    cases = [
        ("slots", "'the event has several slots (_outcomes)'"),
        (_SKIPPED, "'the event is marked _skipLearn'"),
        ("a IS NULL AND multi IS NULL", "'the line is no decision: it has neither a nor _multi'"),
        ("_label_cost IS NULL AND _label_probability IS NULL", "'the event has no label'"),
        ("TRY_CAST(_label_cost AS DOUBLE) IS NULL AND _label_cost IS NOT NULL",
         "'_label_cost is not a number: ' || left(_label_cost, 80)"),
        (f"pdrop IS NOT NULL AND NOT coalesce({dropped} >= 0 AND {dropped} < 1, false)",
         "'pdrop is not a probability below 1: ' || left(pdrop, 80)"),
        # Beyond that size a number is no index, and casting it would stop the whole import.
        ("_label_Action IS NULL OR _label_Action < 1 OR _label_Action > 1e15 OR _label_Action <> floor(_label_Action)",
         "'_label_Action is not the number of an action: ' || coalesce(printf('%g', _label_Action), 'missing')"),
        ("_labelIndex <> _label_Action - 1",
         "printf('_label_Action and _labelIndex disagree: %g and %g', _label_Action, _labelIndex)"),
        ("labels IS NULL OR len(labels) = 0", "'the context has no list of actions (_multi)'"),
        ("_label_Action > len(labels)", "'the label is not among the actions: ' || TRY_CAST(_label_Action AS BIGINT)"),
        ("a IS NULL OR p IS NULL", "'the event has no actions with probabilities (a and p)'"),
        ("len(a) = 0 OR list_count(a) < len(a) OR list_min(a) < 1 OR list_max(a) > len(labels)",
         "'a holds something that is not the number of an action: ' || left(CAST(a AS VARCHAR), 80)"),
        ("NOT list_contains(a, TRY_CAST(_label_Action AS BIGINT))",
         "'the label is not among the actions in a: ' || TRY_CAST(_label_Action AS BIGINT)"),
    ]  # fmt: skip
    if identify.startswith("/"):
        cases.append(("list_count(labels) < len(labels)", f"{literal(f'an action has nothing at {identify}')}"))
    return f"CASE {' '.join(f'WHEN {condition} THEN {reason}' for condition, reason in cases)} END"
