"""What tables of outcomes and labelled texts have in common: a log that knows what every action earns.

A plan says how the rows of a file become contexts and entries; here they are staged, judged and inserted, in one
transaction. rows read = rows kept + rows quarantined + rows known, always; an import that cannot say so fails whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import duckdb

from counterplay.errors import FileError, InputError
from counterplay.logs.decisions import quarantine
from counterplay.logs.decisions.report import ImportReport, enter_source, require_balance
from counterplay.logs.full import checks as full_checks
from counterplay.logs.full import insert as full_insert
from counterplay.logs.full.checks import KNOWN, SOUND
from counterplay.logs.full.plan import Plan
from counterplay.logs.progress import Progress, watched
from counterplay.logs.reading import Place
from counterplay.logs.sources.source import Source, reading_errors
from counterplay.logs.sources.text import clear, rejected
from counterplay.logs.workspace import borrowed

_TEMPORARY = (
    "incoming",
    "rejected",
    "arriving",
    "compared",
    KNOWN,
    "counterplay_entries",
    "counterplay_names",
    "counterplay_chosen",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullReport(ImportReport):
    """What an import of outcomes or labels did. `rows_read` = `rows_kept` + `rows_quarantined` + `rows_known`.

    `shape`: 'wide', 'long' or 'labels'; `models`: for a wide table, each action's label and the column of its rewards;
    `contexts`, `actions`: how many the log has now; `unknown`: pairs of them whose reward is not known ('partial' when
    there are any); `rows_left_out`: rows that the caller's options left out, which `rows_read` does not count.
    """

    shape: str
    models: dict[str, str]
    contexts: int
    actions: int
    unknown: int
    rows_left_out: int


def import_full(
    opener: Callable[[duckdb.DuckDBPyConnection], tuple[Source, Plan]],
    workspace: Place,
    log: str,
    description: str | None,
    progress: Progress | None,
) -> FullReport:
    """Bring what `opener` finds into a log, which is made when there is none of that name.

    Errors: `FileError`, `ColumnError`, `InputError`; after any error the workspace is as it was.
    """
    if not log:
        raise InputError("A log needs a name.")
    with borrowed(workspace, read_only=False) as opened:
        try:
            with opened.transaction() as connection, watched(connection, progress) as stage:
                stage("reading")
                source, plan = opener(connection)
                _check_log(connection, log, plan.default)
                left_out = _stage(connection, source, plan)
                stage("checking")
                full_checks.judge(connection, log, plan)
                stage("writing")
                _insert(connection, log, source, plan, description)
                broken, reasons = quarantine.store(connection, log, source)
                report = _report(connection, log, source, plan, (broken, left_out), reasons)
                models = {"models": report.models} if report.models else {}
                enter_source(connection, report, {**report.mapping, **models, **plan.settings})
                return report
        finally:
            _tidy(opened.connection)


def _insert(
    connection: duckdb.DuckDBPyConnection, log: str, source: Source, plan: Plan, description: str | None
) -> None:
    if not connection.execute("SELECT 1 FROM logs WHERE log = ?", [log]).fetchall():
        connection.execute(
            "INSERT INTO logs (log, regime, default_reward, description, created_at, stores_contexts) "
            "VALUES (?, 'full', ?, ?, now(), true)",
            [log, plan.default, description],
        )
    full_insert.add_actions(connection, log, plan)
    full_insert.add_contexts(connection, log, source, plan)
    full_insert.add_outcomes(connection, log, plan)


def _check_log(connection: duckdb.DuckDBPyConnection, log: str, default: float | None) -> None:
    found = connection.execute("SELECT regime, default_reward FROM logs WHERE log = ?", [log]).fetchall()
    if not found:
        return
    regime, has = found[0]
    if regime not in ("full", "partial"):
        raise InputError(
            f"Log '{log}' holds logged decisions (regime '{regime}'), so outcomes of every action cannot go into it. "
            "Import them under another name."
        )
    if has != default:
        words = ["has no reward" if value is None else f"has the reward {value:g}" for value in (has, default)]
        raise InputError(
            f"In log '{log}' an action without an entry {words[0]}, in this file it {words[1]}. Import it under "
            "another name."
        )


def _stage(connection: duckdb.DuckDBPyConnection, source: Source, plan: Plan) -> int:
    """Read the source into the temporary table `incoming`; the number of rows that were left out."""
    with reading_errors(source.name):
        connection.execute(f"CREATE TEMP TABLE incoming AS {plan.staging}")
    rows, left_out = connection.execute("SELECT count(*), count(*) FILTER (left_out) FROM incoming").fetchall()[0]
    broken = len(rejected(connection))
    source.check_count(rows + broken + plan.left_out)
    if rows == 0 and not broken:
        raise FileError(f"{source.name} has no rows. Export it again, or leave it out.")
    if left_out:
        connection.execute("DELETE FROM incoming WHERE left_out")
    return int(left_out) + plan.left_out


def _report(
    connection: duckdb.DuckDBPyConnection,
    log: str,
    source: Source,
    plan: Plan,
    counts: tuple[int, int],
    reasons: dict[str, int],
) -> FullReport:
    broken, left_out = counts
    staged, sound, known = connection.execute(
        f"SELECT (SELECT count(*) FROM incoming), (SELECT count(*) FROM {SOUND}), (SELECT count(*) FROM {KNOWN})"
    ).fetchall()[0]
    contexts, actions, unknown = _settle(connection, log, plan.default)
    used = {name for column in plan.mapping.values() for name in column.names} | plan.taken
    report = FullReport(
        log=log,
        source=source.name,
        sha256=source.sha256,
        regime="partial" if unknown else "full",
        rows_read=staged + broken,
        rows_kept=sound - known,
        rows_quarantined=sum(reasons.values()),
        rows_known=known,
        reasons=reasons,
        mapping={word: str(column) for word, column in plan.mapping.items()},
        ignored=tuple(name for name in source.columns if name not in used),
        shape=plan.shape,
        models=dict(plan.models),
        contexts=contexts,
        actions=actions,
        unknown=unknown,
        rows_left_out=left_out,
    )
    require_balance(report)
    return report


def _settle(connection: duckdb.DuckDBPyConnection, log: str, default: float | None) -> tuple[int, int, int]:
    """Contexts, actions, and pairs without a reward; the last decides the regime."""
    contexts, actions, stored, known = connection.execute(
        """SELECT (SELECT count(*) FROM contexts WHERE log = $log), (SELECT count(*) FROM actions WHERE log = $log),
                  count(*), count(reward) FROM outcomes WHERE log = $log""",
        {"log": log},
    ).fetchall()[0]
    unknown = contexts * actions - known if default is None else stored - known
    connection.execute("UPDATE logs SET regime = ? WHERE log = ?", ["partial" if unknown else "full", log])
    return int(contexts), int(actions), int(unknown)


def _tidy(connection: duckdb.DuckDBPyConnection) -> None:
    # In a transaction of the caller's that has failed nothing can be dropped, and its rollback will do it.
    with contextlib.suppress(duckdb.TransactionException):
        for name in _TEMPORARY:
            connection.execute(f"DROP TABLE IF EXISTS temp.{name}")
        clear(connection)
