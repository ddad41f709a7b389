"""What the columns of a table of outcomes are: long (a row for each context and action) or wide (a column for each).

In a wide table nothing but the columns themselves says which of them are models, so only clear signs count: columns
that go with it (`gpt-4|total_cost`, `gpt-4_response`), or nothing but right and wrong. Anything else is asked for.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import duckdb

from counterplay.errors import ColumnError, InputError, nearest
from counterplay.logs.decisions.columns import Column, Mapped, resolve
from counterplay.logs.full.measures import number
from counterplay.logs.full.plan import MEASURES
from counterplay.logs.sources.source import Source

Models: TypeAlias = Sequence[str] | Mapping[str, str]

_CONTEXT: dict[str, tuple[str, ...]] = {
    "context_id": (
        *("context_id", "prompt_id", "sample_id", "question_id", "query_id", "task_id", "problem_id", "instance_id"),
        *("example_id", "id", "uid"),
    ),
    "text": ("text", "prompt", "query", "question", "context_text"),
    "features": ("features", "x", "context_features"),
    "cluster": ("cluster", "cluster_id"),
}
LONG: dict[str, tuple[str, ...]] = _CONTEXT | {
    "action": ("action", "model", "model_name", "model_id", "llm", "arm"),
    "reward": ("reward", "score", "correct", "is_correct", "performance", "accuracy", "passed"),
    "cost": ("cost", "total_cost", "cost_usd"),
    "seconds": ("seconds", "latency", "latency_s", "latency_seconds", "time_taken", "duration", "duration_s"),
    "input_tokens": ("input_tokens", "prompt_tokens", "input_token_count"),
    "output_tokens": ("output_tokens", "completion_tokens", "output_token_count"),
}
# Columns that go with a model's column in a wide table: its name, one of the signs, one of these.
_COMPANIONS: dict[str, tuple[str, ...]] = {
    "cost": ("total_cost", "cost"),
    "seconds": ("latency_s", "latency", "seconds"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
    "response": ("model_response", "response", "output"),
}
_SIGNS = ("|", "_", ".")
_ROW_NUMBERS = re.compile(r"(Unnamed: |column |level_|__index_level_)\d+(__)?|index")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape of a table, and where things stand in it.

    `mapping`: our words to columns. `models`, for a wide table: each label's columns by word (`reward`, `cost`, ...).
    `taken`: further columns that were understood, such as the texts of responses.
    """

    shape: str
    mapping: dict[str, Column]
    models: dict[str, dict[str, str]]
    taken: frozenset[str] = frozenset()


def recognise(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    shape: str | None,
    columns: Mapped | None,
    models: Models | None,
    costs: Mapping[str, str] | None,
) -> Layout:
    """Say what the columns are. Errors: `ColumnError` when that is not clear; it says how to name them."""
    if shape not in (None, "wide", "long"):
        raise InputError(f"'{shape}' is no shape of a table of outcomes. Known: long, wide.")
    if shape is None:
        shape = _shape(source, columns, models or costs)
    if shape == "long":
        if models is not None or costs is not None:
            raise InputError("models and costs name columns of a wide table; in a long one the models stand in rows.")
        mapping = resolve(source.types, columns, required=("action", "reward"), synonyms=LONG)
        _require_context(mapping, source)
        return Layout(shape="long", mapping=mapping, models={})
    mapping = resolve(source.types, columns, synonyms=_CONTEXT)
    _require_context(mapping, source)
    used = {name for column in mapping.values() for name in column.names}
    rewards = _guessed(connection, source, used) if models is None else _named(models, source)
    return _with_companions(source, mapping, rewards, costs or {})


def _shape(source: Source, columns: Mapped | None, models: object) -> str:
    if models:
        return "wide"
    said = set(columns or {})
    names = {name.lower() for name in source.columns}
    is_long = all(word in said or names & set(LONG[word]) for word in ("action", "reward"))
    known = {name for synonyms in LONG.values() for name in synonyms}
    companions = [name for name in _companions(source.columns) if name.lower() not in known]
    if is_long and companions and not said & {"action", "reward"}:
        raise ColumnError(
            f"This can be a long table (a column for the action, one for the reward) or a wide one "
            f"('{companions[0]}' has columns that go with it). Pass shape='long' or shape='wide'."
        )
    return "long" if is_long or said & (LONG.keys() - _CONTEXT.keys()) else "wide"


def _require_context(mapping: Mapping[str, Column], source: Source) -> None:
    if not {"context_id", "text", "features"} & set(mapping):
        raise ColumnError(
            f"No column says which context a row belongs to. {nearest('context_id', source.columns)} Say which with "
            "columns={'context_id': '...'} or columns={'text': '...'}."
        )


def _named(models: Models, source: Source) -> dict[str, str]:
    rewards = dict(models) if isinstance(models, Mapping) else {name: name for name in models}
    if not rewards:
        raise InputError("models is empty. Name the columns of rewards, or leave it out.")
    for label, name in rewards.items():
        if name not in source.columns:
            raise ColumnError(
                f"There is no column '{name}' (the rewards of '{label}'). {nearest(name, source.columns)}"
            )
    twice = sorted({name for name in rewards.values() if list(rewards.values()).count(name) > 1})
    if twice:
        raise ColumnError(f"Column '{twice[0]}' is named for two models. Give each its own.")
    return rewards


def _guessed(connection: duckdb.DuckDBPyConnection, source: Source, used: set[str]) -> dict[str, str]:
    """The columns of rewards; `ColumnError` when that is not clear."""
    companions = _companions(source.columns)
    theirs = {name for found in companions.values() for name in found.values()}
    free = [name for name in source.columns if name not in used | theirs and not _ROW_NUMBERS.fullmatch(name)]
    filled, numbers, verdicts = _look(connection, source, free)
    scores = [name for name in free if filled[name] and 2 * numbers[name] >= filled[name]]
    models = [name for name in free if name in companions and (name in scores or not filled[name])]
    rest = [name for name in scores if name not in models]
    if models and not rest:
        return {name: name for name in models}
    # One wrong cell must not hide a column, so what is no number is left to the quarantine.
    if not models and len(rest) > 1 and all(verdicts[name] == numbers[name] for name in rest):
        return {name: name for name in rest}
    if not scores:
        raise ColumnError(
            "No column holds rewards. A wide table has a column of numbers, or of true and false, for each model: "
            "models=['...']; a long one has columns={'action': '...', 'reward': '...'}."
        )
    sure = f" ({_shown(models)} clearly {'is' if len(models) == 1 else 'are'})" if models else ""
    raise ColumnError(
        f"Columns of numbers that may or may not be rewards of models: {_shown(rest)}{sure}. Say which are: "
        f"models={(models + rest)[:3]!r}, or shape='long' with columns={{'action': '...', 'reward': '...'}}."
    )


def _look(
    connection: duckdb.DuckDBPyConnection, source: Source, names: Sequence[str]
) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """How many cells of each column hold anything, a finite number or truth value, and 0 or 1 (false or true)."""
    parts = ["count(*)"]
    for name in names:
        value, kind = source.columns[name]
        score = number(value, kind, truth=True)
        parts += [
            f"count(nullif(CAST({value} AS VARCHAR), ''))",
            f"count(*) FILTER (isfinite({score}))",
            f"count(*) FILTER ({score} IN (0, 1))",
        ]
    (row,) = connection.execute(f"SELECT {', '.join(parts)} FROM {source.scan} WHERE NOT ({source.broken})").fetchall()
    filled, numbers, verdicts = (dict(zip(names, row[1 + i :: 3], strict=True)) for i in range(3))
    return filled, numbers, verdicts


def _companions(columns: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """For each column that others go with: word to column."""
    found: dict[str, dict[str, str]] = {}
    for name in columns:
        for word, ends in _COMPANIONS.items():
            for sign, end in ((sign, end) for end in ends for sign in _SIGNS):
                if f"{name}{sign}{end}" in columns:
                    found.setdefault(name, {}).setdefault(word, f"{name}{sign}{end}")
    return found


def _with_companions(
    source: Source, mapping: dict[str, Column], rewards: Mapping[str, str], costs: Mapping[str, str]
) -> Layout:
    companions = _companions(source.columns)
    models = {}
    for label, name in rewards.items():
        found = companions.get(name, {})
        models[label] = {"reward": name} | {word: found[word] for word in MEASURES if word in found}
    for label, name in costs.items():
        if label not in models:
            raise ColumnError(f"costs names '{label}', which is no model of this table. {nearest(label, models)}")
        if name not in source.columns:
            raise ColumnError(f"There is no column '{name}' (the cost of '{label}'). {nearest(name, source.columns)}")
        models[label]["cost"] = name
    taken = {name for places in models.values() for name in places.values()}
    taken |= {companions[name]["response"] for name in rewards.values() if "response" in companions.get(name, {})}
    return Layout(shape="wide", mapping=mapping, models=models, taken=frozenset(taken))


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"'{name}'" for name in names[:5]) + more
