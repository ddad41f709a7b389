"""From tables of settings to agents: a list in a field is a grid, an unknown key is refused by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn

from counterplay.errors import ConfigurationError, nearest
from counterplay.replay.agents import (
    Bandit,
    BuiltIn,
    Constant,
    FixedPolicy,
    Hybrid,
    Learner,
    LinTS,
    LinUCB,
    Uniform,
)
from counterplay.replay.selectors import SELECTORS, Selector

BANDITS: Mapping[str, type[Any]] = {"bandit": Bandit, "linucb": LinUCB, "lints": LinTS}
AGENTS: Mapping[str, type[Any]] = {
    "uniform": Uniform,
    "constant": Constant,
    "policy": FixedPolicy,
    **BANDITS,
    "hybrid": Hybrid,
}
_LISTS = {"models", "prices"}
Record = TypeVar("Record")


def agents_from(tables: Sequence[Mapping[str, Any]]) -> tuple[BuiltIn, ...]:
    """The agents that tables of settings describe, in order, each grid in the order of its lists.

    Every table has a ``kind`` (uniform, constant, policy, bandit, linucb, lints, hybrid), a hybrid's ``selector`` too
    (the names in ``selectors.SELECTORS``); a hybrid's ``bandit`` may have one, default ``bandit``. A list of values
    stands for one agent with each of them; lists in several fields for every combination. In a list, the word
    ``"none"`` means no value. Agents of a grid are named after what differs.

    Raises:
        ConfigurationError: an unknown key or kind (with the nearest right one), a value that makes no sense, or two
            agents with one name.
    """
    agents: list[BuiltIn] = []
    for number, table in enumerate(tables, start=1):
        where = f"agent {number}" + (f" ('{table['name']}')" if "name" in table else "")
        agents.extend(_agent(settings, where) for settings in _combinations(dict(table)))
    names = [agent.name for agent in agents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigurationError(f"two agents have the name '{twice[0]}': give each its own name.")
    return tuple(agents)


def _paths(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _paths(value, (*prefix, key))
        elif isinstance(value, list) and not (key in _LISTS and not any(isinstance(item, list) for item in value)):
            yield (*prefix, key), value


def _with(table: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _with(table[path[0]], path[1:], value)
    return {**table, path[0]: inner}


def _combinations(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    grid = list(_paths(table))
    for values in itertools.product(*(options for _, options in grid)):
        settings = table
        labels = []
        for (path, _), value in zip(grid, values, strict=True):
            settings = _with(settings, path, value)
            labels.append(f"{path[-1]} {value:,}" if isinstance(value, int) else f"{path[-1]} {value}")
        if labels:
            settings = {**settings, "name": ", ".join([str(table.get("name", table.get("kind", ""))), *labels])}
        yield settings


def _agent(settings: Mapping[str, Any], where: str) -> BuiltIn:
    agent: BuiltIn = structured(settings, _kind(settings, AGENTS, where), where)
    if isinstance(agent, FixedPolicy) and not agent.name:
        return structured({**settings, "name": agent.policy}, FixedPolicy, where)
    return agent


def _kind(table: Any, kinds: Mapping[str, type[Any]], where: str) -> type[Any]:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f"{where} must be a table with a 'kind', not {table!r}.")
    if "kind" not in table:
        raise ConfigurationError(f"{where} has no 'kind'. {nearest('', kinds)}")
    if table["kind"] not in kinds:
        raise ConfigurationError(f"{where}: there is no kind '{table['kind']}'. {nearest(str(table['kind']), kinds)}")
    return kinds[str(table["kind"])]


def structured(table: Mapping[str, Any], kind: type[Record], where: str) -> Record:
    """A frozen settings record from a table; ``where`` names it in errors.

    Raises:
        ConfigurationError: an unknown key, a missing one, or a value of the wrong type or out of range.
    """
    try:
        return _converter().structure(dict(table), kind)
    except ClassValidationError as error:
        raise ConfigurationError(f"{where}: {_explained(error)}") from error


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for plain in (int, float, str, bool):
        converter.register_structure_hook(plain, _strict_value)
    converter.register_structure_hook_func(_is_literal, _one_of)
    converter.register_structure_hook_func(lambda kind: kind == int | None, _optional(int))
    converter.register_structure_hook_func(lambda kind: kind == float | None, _optional(float))
    converter.register_structure_hook_func(
        lambda kind: kind == Selector,
        lambda value, _: converter.structure(value, _kind(value, SELECTORS, "it")),
    )
    converter.register_structure_hook_func(
        lambda kind: kind == Learner,
        lambda value, _: converter.structure(value, _kind({"kind": "bandit", **value}, BANDITS, "it")),
    )
    for kind in (*SELECTORS.values(), *AGENTS.values()):
        converter.register_structure_hook(kind, _without_kind(kind, converter))
    return converter


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _one_of(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ConfigurationError(f"{value!r} is not possible here. {nearest(str(value), get_args(kind))}")
    return value


def _without_kind(kind: type[Any], converter: cattrs.Converter) -> Any:
    inner = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)

    def structure(value: Any, _: Any) -> Any:
        return inner({key: item for key, item in dict(value).items() if key != "kind"}, kind)

    return structure


def _strict_value(value: Any, kind: type[Any]) -> Any:
    right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not right:
        wanted = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}[kind]
        raise ConfigurationError(f"{value!r} is not {wanted}.")
    return float(value) if kind is float else value


def _optional(kind: type[Any]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        return None if value is None or value == "none" else _strict_value(value, kind)

    return structure


def _explained(error: BaseException, path: str = "") -> str:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)] if is_dataclass(error.cl) else []
        key = sorted(error.extra_fields)[0]
        return f"there is no key '{path}{key}'. {nearest(key, known)}"
    if isinstance(error, ClassValidationError):
        grouped, loose = error.group_exceptions()
        if loose:
            return _explained(loose[0], path)
        inner, note = grouped[0]
        return _explained(
            inner, f"{path}{note.name}." if isinstance(inner, ClassValidationError) else f"{path}{note.name}"
        )
    if isinstance(error, KeyError):
        return f"the key '{path or error.args[0]}' is missing."
    return f"{path.rstrip('.')}: {error}" if path else str(error)


def settings_of(agent: BuiltIn) -> dict[str, Any]:
    """An agent as a table that ``agents_from`` reads back."""
    kinds = {kind: name for name, kind in (*AGENTS.items(), *SELECTORS.items())}

    def table(record: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"kind": kinds[type(record)]}
        for field in fields(record):
            value = getattr(record, field.name)
            result[field.name] = (
                table(value) if is_dataclass(value) else list(value) if isinstance(value, tuple) else value
            )
        return result

    return table(agent)
