"""`counterplay import KIND`: one command for each kind of log."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from counterplay.cli.screen import console, progress
from counterplay.errors import InputError

if TYPE_CHECKING:
    from counterplay.logs import ImportReport
    from counterplay.logs.full.run import FullReport

_HELP = """Bring a log, or a policy's choices, into a workspace.

Every row is kept, known already, or put into quarantine with its line and the reason; the counts add up. The same file
again adds nothing. Exit code 1 if rows went into quarantine.
"""

Pairs = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]
Map = Annotated[list[str] | None, Parameter(name="--map", consume_multiple=True, negative="")]
Names = Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")]

import_app = App(name="import", help=_HELP, help_format="markdown")


@import_app.command(name="table")
def import_table(
    path: Path,
    *,
    into: Path,
    log: str,
    map_: Map = None,
    actions: Path | None = None,
    candidates: Path | None = None,
    overwrite: bool = False,
    as_new: bool = False,
    regime: str | None = None,
) -> None:
    """A table of logged decisions, one a row.

    Args:
        path: a Parquet, Arrow, CSV, TSV or JSONL file (the texts also as .gz), or a folder or pattern of Parquet files.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        map_: columns whose names are not recognised, as `propensity=my_column`; `reward=-loss` turns a loss round.
        actions: a table of the actions that there are: label, perhaps text, and features (a list of numbers each) that
            bandits need. Rows with another action go into quarantine.
        candidates: a table with a row for each action that a decision allowed: decision_id or context_id, action, and
            perhaps its propensity; needed only if candidates are not a list in each row.
        overwrite: a row with a known decision id and other values takes the place of the old one; by default it goes
            into quarantine.
        as_new: a file without decision ids holds new decisions only; no row of it is taken for a known one.
        regime: `propensity` or `observed`; default: the first if there is a column of propensities.
    """
    from counterplay.logs import import_decisions

    with progress(console()) as tell:
        report = import_decisions(
            path,
            into,
            log,
            columns=_pairs(map_),
            actions=actions,
            candidates=candidates,
            regime=regime,
            overwrite=overwrite,
            as_new=as_new,
            progress=tell,
        )
    _tell(report)


@import_app.command(name="obd")
def import_open_bandit(path: Path, *, into: Path, log: str, items: Path | None = None, as_new: bool = False) -> None:
    """A campaign of the Open Bandit Dataset.

    Args:
        path: the campaign's folder as it is distributed, its CSV file, or a Parquet file of the same columns.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        items: the item context, if it is not `item_context.csv` beside the rows.
        as_new: a file of a known name holds new rows.
    """
    from counterplay.logs import import_obd

    with progress(console()) as tell:
        report = import_obd(path, into, log, items=items, as_new=as_new, progress=tell)
    _tell(report)


@import_app.command(name="dsjson")
def import_decision_service(
    path: Path, *, into: Path, log: str, identify: str = "features", pdrop: float = 0.0, overwrite: bool = False
) -> None:
    """A decision service log of Vowpal Wabbit, one event a line.

    Args:
        path: the file, also as .gz.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        identify: what makes two actions one: `features`, a JSON pointer into an action such as `/id`, or `position`.
        pdrop: the probability with which events were dropped before they were written; the same for all events.
        overwrite: an event with a known id and other values takes the place of the old one.
    """
    from counterplay.logs import import_dsjson

    with progress(console()) as tell:
        report = import_dsjson(
            path, into, log, identify=identify, pdrop=pdrop, overwrite=overwrite, progress=tell
        )  # fmt: skip
    _tell(report)


@import_app.command(name="obp")
def import_bandit_feedback(path: Path, *, into: Path, log: str) -> None:
    """The `bandit_feedback` of the Open Bandit Pipeline, saved with `numpy.savez`.

    Args:
        path: the .npz file, with the entries of the dictionary that are not None.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
    """
    from counterplay.logs import import_obp

    with progress(console()) as tell:
        report = import_obp(path, into, log, progress=tell)
    _tell(report)


@import_app.command(name="coba")
def import_interactions(path: Path, *, into: Path, log: str) -> None:
    """Coba's logged interactions, one JSON object a line: context, action, reward, probability, actions.

    Args:
        path: the file of lines.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
    """
    from counterplay.logs import import_coba, read_interactions

    with progress(console()) as tell:
        report = import_coba(read_interactions(path), into, log, progress=tell)
    _tell(report)


@import_app.command(name="outcomes")
def import_full_information(
    path: Path,
    *,
    into: Path,
    log: str,
    map_: Map = None,
    shape: str | None = None,
    models: Names = None,
    costs: Pairs = None,
    zero_means_unknown: Names = None,
) -> None:
    """What every model earned for every prompt: one row a prompt and a column a model, or one row for each of both.

    Args:
        path: a Parquet, Arrow, CSV, TSV or JSONL file.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        map_: columns whose names are not recognised, as `reward=score`.
        shape: `wide` or `long`; default: told from the columns.
        models: for a wide table, the columns of rewards; default: told from the columns.
        costs: for a wide table, columns of costs, as `gpt-4=gpt4_usd`.
        zero_means_unknown: which of cost, seconds, input_tokens, output_tokens hold 0 where nothing was measured.
    """
    from counterplay.logs import import_outcomes

    with progress(console()) as tell:
        report = import_outcomes(
            path,
            into,
            log,
            columns=_pairs(map_),
            shape=shape,
            models=models,
            costs=_pairs(costs) or None,
            zero_means_unknown=zero_means_unknown or (),
            progress=tell,
        )
    _tell_full(report)


@import_app.command(name="labels")
def import_labelled(
    path: Path, *, into: Path, log: str, map_: Map = None, splits: Names = None, leave_out: Names = None
) -> None:
    """Labelled texts: the labels are the actions, the right ones earn 1.

    Args:
        path: a Parquet, Arrow, CSV, TSV or JSONL file with a text and a label, or a list of labels, in each row.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        map_: columns whose names are not recognised, as `label=intent`.
        splits: take rows of these splits only.
        leave_out: labels that are none, such as `oos`.
    """
    from counterplay.logs import import_labels

    with progress(console()) as tell:
        report = import_labels(
            path, into, log, columns=_pairs(map_), splits=splits or (), leave_out=leave_out or (), progress=tell
        )
    _tell_full(report)


@import_app.command(name="oneshotwiki")
def import_one_shot(path: Path, *, into: Path, log: str, at_least: int = 2000, mention: bool = False) -> None:
    """OneShotWikiLinks: the entity that a gap in a text stands for.

    Args:
        path: `shuffled_dedup_entities.tsv`, also as .gz.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
        at_least: leave out entities of fewer lines (2000 leaves 311), and take so many lines of each.
        mention: put the linked words into the gap.
    """
    from counterplay.logs import import_oneshotwiki

    with progress(console()) as tell:
        report = import_oneshotwiki(path, into, log, at_least=at_least, mention=mention, progress=tell)
    _tell_full(report)


@import_app.command(name="amazoncat")
def import_amazon(path: Path, *, names: Path, into: Path, log: str) -> None:
    """AmazonCat-13K, or another set of the extreme classification repository in the same files.

    Args:
        path: `trn.json.gz`.
        names: `Yf.txt`, the names of the labels in ISO-8859-1.
        into: the workspace; made if it is not there.
        log: the name of the log in the workspace.
    """
    from counterplay.logs import import_amazoncat

    with progress(console()) as tell:
        report = import_amazoncat(path, names, into, log, progress=tell)
    _tell_full(report)


@import_app.command(name="choices")
def import_policy(path: Path, *, into: Path, log: str, policy: str) -> None:
    """What a policy of yours would do, so that agents of kind `policy` and `hybrid` can use it.

    Args:
        path: a Parquet, CSV or JSONL file with the columns context_id, action and (unless deterministic) probability.
        into: the workspace.
        log: the log whose contexts they are.
        policy: the name to store it under; what was stored under it before is replaced.
    """
    from counterplay.logs import import_choices

    report = import_choices(path, into, log, policy)
    print(f"policy '{policy}' of log '{log}': choices in {report.contexts:,} contexts, none in {report.misses:,}")
    if report.unknown:
        print(
            f"  {report.unknown:,} contexts of the file are not in the log (in quarantine, perhaps) and were left out"
        )


def attach(path: Path, *, into: Path, log: str, map_: Map = None, actions: Path | None = None) -> None:
    """Make a log of Parquet files that stay where they are; they are checked now, and read whenever the log is.

    Args:
        path: a Parquet file, or a folder or pattern of them.
        into: the workspace; made if it is not there.
        log: the name of the log; attaching it again checks its files again.
        map_: columns whose names are not recognised, as `propensity=my_column`.
        actions: a table of the actions that there are, as for `import table`.
    """
    from counterplay.logs import attach_decisions

    with progress(console()) as tell:
        report = attach_decisions(path, into, log, columns=_pairs(map_), actions=actions, progress=tell)
    _tell(report)


def _pairs(items: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items or []:
        word, sign, column = item.partition("=")
        if not (word and sign):
            raise InputError(
                f"A pair is word=column, such as propensity=pscore, or propensity= to leave it out, not '{item}'."
            )
        if word in pairs:
            raise InputError(f"'{word}' is mapped twice, to '{pairs[word]}' and to '{column}'. Choose one.")
        pairs[word] = column
    return pairs


def _tell_full(report: FullReport) -> None:
    print(f"{report.contexts:,} contexts, {report.actions:,} actions, {report.unknown:,} pairs without a reward.")
    for label, column in report.models.items():
        print(f"  model {label} = {column}")
    if report.rows_left_out:
        print(f"  {report.rows_left_out:,} rows left out, as you asked")
    _tell(report)


def _tell(report: ImportReport) -> None:
    replaced = f" ({report.rows_replaced:,} in place of older ones)" if report.rows_replaced else ""
    print(
        f"{report.rows_read:,} rows read: {report.rows_kept:,} kept{replaced}, {report.rows_known:,} known already, "
        f"{report.rows_quarantined:,} in quarantine. Regime of log '{report.log}': {report.regime}."
    )
    for word, column in report.mapping.items():
        print(f"  {word} = {column}")
    if report.ignored:
        print(f"  ignored: {', '.join(report.ignored)}")
    for reason, count in report.reasons.items():
        print(f"  {count:,} in quarantine: {reason}")
    if report.rows_quarantined:
        raise SystemExit(1)
