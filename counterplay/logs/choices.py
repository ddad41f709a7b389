"""What a policy that does not learn would do, from a file or frame: one row a context and action."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from counterplay.errors import FileError, InputError, nearest
from counterplay.logs.decisions.columns import SYNONYMS, resolve
from counterplay.logs.decisions.typed import label_text
from counterplay.logs.reading import Place, require_log
from counterplay.logs.relations import contexts_of
from counterplay.logs.sources.opening import open_source
from counterplay.logs.sources.source import literal, reading_errors
from counterplay.logs.sources.text import clear, rejected
from counterplay.logs.workspace import Workspace, borrowed
from counterplay.logs.writing import write_choices

if TYPE_CHECKING:
    import polars as pl

_ROUNDING = 1e-6
_WORDS = {word: SYNONYMS[word] for word in ("context_id", "action", "propensity")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChoicesReport:
    """What an import of choices did: in how many contexts of the log the policy has a choice, in how many it has none
    (`misses`), how many contexts of the source the log does not have (`unknown`, left out), and which columns of the
    source are none of ours (`ignored`).
    """

    policy: str
    contexts: int
    misses: int
    unknown: int
    ignored: tuple[str, ...]


def import_choices(source: Any, workspace: Place, log: str, policy: str) -> ChoicesReport:
    """Store a policy's probabilities for contexts of a log, instead of what was stored for it before.

    `source`: whatever `import_decisions` takes, with the columns `context_id`, `action` (the label) and, unless the
    policy is deterministic, `probability`, under these names or others of the field. The probabilities of a context
    must sum to 1. Contexts of the log that are not in the source are misses; experiments say what to do there. Contexts
    that the log does not have, such as those of quarantined rows, are left out.

    Errors: `FileError`, `ColumnError`, `InputError` (also when the log has none of the contexts); the workspace is then
    as it was.
    """
    import polars as pl

    if not policy:
        raise InputError("A policy needs a name.")
    with borrowed(workspace, read_only=False) as opened:
        require_log(opened.connection, log)
        rows, ignored = _rows(opened.connection, source)
        _check(rows)
        contexts = _index(opened, f"SELECT context_id FROM {contexts_of(opened.connection, log)} ORDER BY position")
        actions = _index(opened, f"SELECT label FROM actions WHERE log = {literal(log)} ORDER BY action")
        known = rows.filter(pl.col("context_id").is_in(list(contexts)))
        if known.is_empty():
            first = rows["context_id"][0]
            raise InputError(
                f"log '{log}' has none of the contexts in this source, the first of which is '{first}'. "
                f"{nearest(str(first), list(contexts))}"
            )
        chosen, weights = _matrix(known, contexts, actions, log)
        write_choices(opened, log, policy, chosen, weights)
    chosen_for = known["context_id"].n_unique()
    return ChoicesReport(
        policy=policy,
        contexts=chosen_for,
        misses=len(contexts) - chosen_for,
        unknown=rows["context_id"].n_unique() - chosen_for,
        ignored=ignored,
    )


def _rows(connection: duckdb.DuckDBPyConnection, source: Any) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The columns context_id, action and probability of a source, and the names of those that are none of these."""
    import polars as pl

    opened = open_source(connection, source)
    try:
        mapping = resolve(opened.types, None, required=("context_id", "action"), synonyms=_WORDS)
        values = {word: opened.columns[column.names[0]] for word, column in mapping.items()}
        chance = f"TRY_CAST({values['propensity'][0]} AS DOUBLE)" if "propensity" in values else "CAST(1 AS DOUBLE)"
        with reading_errors(opened.name):
            query = f"""SELECT {label_text(*values["context_id"])} AS context_id,
                {label_text(*values["action"])} AS action, {chance} AS probability
                FROM {opened.scan} ORDER BY ordinal"""
            frame = pl.from_arrow(connection.sql(query).to_arrow_table())
        for line, _, reason in rejected(connection)[:1]:
            raise FileError(f"line {line} of {opened.name} cannot be read ({reason}). Mend it, or take it out.")
    finally:
        clear(connection)
    assert isinstance(frame, pl.DataFrame)
    used = {name for column in mapping.values() for name in column.names}
    return frame, tuple(name for name in opened.columns if name not in used)


def _check(rows: pl.DataFrame) -> None:
    import polars as pl

    if rows.is_empty():
        raise FileError("there is no row in it.")
    for word in ("context_id", "action"):
        empty = rows[word].is_null().arg_true().to_list()
        if empty:
            raise InputError(f"row {empty[0] + 1} has no {word.removesuffix('_id')}. Fill it in, or take it out.")
    bad = rows.filter(~pl.col("probability").is_between(0, 1).fill_null(False) | pl.col("probability").is_nan())
    if not bad.is_empty():
        raise InputError(
            f"{bad.height} probabilities are missing or not between 0 and 1, the first at context "
            f"'{bad['context_id'][0]}'."
        )
    twice = rows.filter(rows.select("context_id", "action").is_duplicated())
    if not twice.is_empty():
        raise InputError(f"context '{twice['context_id'][0]}' has the action '{twice['action'][0]}' twice.")
    sums = rows.group_by("context_id", maintain_order=True).agg(pl.col("probability").sum())
    wrong = sums.filter((pl.col("probability") - 1).abs() > _ROUNDING)
    if not wrong.is_empty():
        raise InputError(
            f"the probabilities of {wrong.height} contexts do not sum to 1, the first is '{wrong['context_id'][0]}' "
            f"with {wrong['probability'][0]:.6g}."
        )


def _index(workspace: Workspace, query: str) -> dict[str, int]:
    rows = workspace.connection.execute(query).fetchall()
    return {name: i for i, (name,) in enumerate(rows)}


def _matrix(rows: pl.DataFrame, contexts: dict[str, int], actions: dict[str, int], log: str) -> tuple[Any, Any]:
    for name in rows["action"]:
        if name not in actions:
            raise InputError(f"log '{log}' has no action '{name}'. {nearest(str(name), actions)}")
    at = np.array([contexts[name] for name in rows["context_id"]])
    what = np.array([actions[name] for name in rows["action"]])
    order = np.lexsort((what, -rows["probability"].to_numpy(), at))
    at, what, probability = at[order], what[order], rows["probability"].to_numpy()[order]
    rank = np.arange(len(at)) - np.searchsorted(at, at)
    chosen = np.full((len(contexts), int(rank.max()) + 1), -1, np.int32)
    weights = np.zeros(chosen.shape)
    chosen[at, rank], weights[at, rank] = what, probability
    return chosen, weights
