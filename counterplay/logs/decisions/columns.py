"""Which column of a file is which of our words: the field's synonyms, and the user's own mapping."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from counterplay.errors import ColumnError, nearest

Mapped: TypeAlias = Mapping[str, str | Sequence[str]]

# Our word first, then what other tools call it. A leading "-" turns the sign: a loss becomes a reward.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "decision_id": ("decision_id", "event_id", "eventid", "impression_id", "id"),
    "context_id": ("context_id",),
    "action": ("action", "a", "action_id", "item_id", "arm", "decision", "decisions", "chosen", "_label_action"),
    "propensity": (
        "propensity",
        "propensity_score",
        "pscore",
        "action_prob",
        "action_probability",
        "logging_prob",
        "probability",
        "prob",
        "p_log",
        "p",
        "_label_probability",
    ),
    "reward": ("reward", "rewards", "r", "click", "clicks", "label", "-_label_cost"),
    "cost": ("cost", "costs"),
    "candidates": ("candidates", "actions", "candidate_actions", "allowed_actions", "shortlist"),
    "candidate_propensities": ("candidate_propensities", "propensities", "action_probs", "probabilities", "pmf"),
    "text": ("text", "prompt", "query", "context_text"),
    "features": ("features", "x", "context_features"),
    "timestamp": ("timestamp", "time", "ts", "arrival_ts", "logged_at"),
    "cluster": ("cluster", "cluster_id", "user_id"),
    "episode": ("episode", "episode_id"),
    "step": ("step",),
    "parent": ("parent",),
    "depth": ("depth",),
    "kind": ("kind",),
}
_NUMBERED = re.compile(r"^(x|f|feature|features|context|ctx)_?(\d+)$", re.IGNORECASE)
_LEAVE_OUT = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """Where a word's values come from: one column, or for features several in order; `negate` turns the sign."""

    names: tuple[str, ...]
    negate: bool = False

    def __str__(self) -> str:
        return ("-" if self.negate else "") + ",".join(self.names)


def resolve(
    types: Mapping[str, str],
    explicit: Mapped | None,
    required: Iterable[str] = (),
    synonyms: Mapping[str, tuple[str, ...]] = SYNONYMS,
) -> dict[str, Column]:
    """Say for each of our words which columns hold it.

    `types`: the file's columns and their SQL types. `explicit` wins over synonyms: word to column, "-column" to turn
    the sign, "" to leave the word out; for features also a prefix "x_*", a list, or names with commas between them.
    `synonyms`: the words that this kind of file has, each with its names; those of logged decisions by default.
    Errors: `ColumnError` for an unknown word, a column that is not there, two synonyms of one word, or a required word
    without a column; each names the mend.
    """
    chosen: dict[str, Column] = {}
    closed: set[str] = set()
    for word, value in (explicit or {}).items():
        if word not in synonyms:
            raise ColumnError(f"'{word}' is no word that a column can be mapped to. {nearest(word, synonyms)}")
        closed.add(word)
        if value != _LEAVE_OUT:
            chosen[word] = _named(word, value, types)
    taken = {name for column in chosen.values() for name in column.names}
    free = {name: kind for name, kind in types.items() if name not in taken}
    for word, names in synonyms.items():
        found = None if word in closed else _found(word, names, free)
        if found is not None:
            chosen[word] = found
    for word in required:
        if word not in chosen:
            raise ColumnError(_missing(word, types))
    return {word: chosen[word] for word in synonyms if word in chosen}


def _named(word: str, value: str | Sequence[str], types: Mapping[str, str]) -> Column:
    if word == "features":
        return Column(names=_feature_names(value, types))
    if not isinstance(value, str):
        raise ColumnError(f"'{word}' comes from one column; {list(value)} are several. Only features can have several.")
    if value not in types and value.startswith("-") and _match(value[1:], types) is not None:
        if word not in ("reward", "cost"):
            raise ColumnError(f"'{word}' cannot have its sign turned. Map it to '{value[1:]}'.")
        return Column(names=(_exact(word, value[1:], types),), negate=True)
    return Column(names=(_exact(word, value, types),))


def _feature_names(value: str | Sequence[str], types: Mapping[str, str]) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(_exact("features", name, types) for name in value)
    if _match(value, types) is not None:
        return (_exact("features", value, types),)
    if value.endswith("*"):
        prefix = value[:-1]
        names = [name for name in types if name.startswith(prefix) and name != prefix]
        if names:
            return tuple(sorted(names, key=lambda name: _natural(name.removeprefix(prefix))))
        raise ColumnError(f"No column starts with '{prefix}' (features). {nearest(prefix, types)}")
    return tuple(_exact("features", name.strip(), types) for name in value.split(","))


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _match(name: str, types: Mapping[str, str]) -> str | None:
    if name in types:
        return name
    alike = [known for known in types if known.lower() == name.lower()]
    return alike[0] if len(alike) == 1 else None


def _exact(word: str, name: str, types: Mapping[str, str]) -> str:
    found = _match(name, types)
    if found is None:
        raise ColumnError(f"There is no column '{name}' (mapped to {word}). {nearest(name, types)}")
    return found


def _found(word: str, synonyms: tuple[str, ...], free: Mapping[str, str]) -> Column | None:
    found = []
    for synonym in synonyms:
        negate = synonym.startswith("-")
        found += [Column(names=(name,), negate=negate) for name in free if name.lower() == synonym.lstrip("-")]
    # A column `context` is a list of features in one tool and a plain text in another: its type tells.
    if word in ("features", "text"):
        is_list = word == "features"
        found += [
            Column(names=(name,))
            for name, kind in free.items()
            if name.lower() == "context" and kind.endswith("]") == is_list
        ]
    if word == "features":
        found += _numbered(free)
    if len(found) > 1:
        names = [str(column) if len(column.names) == 1 else f"{column.names[0]}.." for column in found]
        raise ColumnError(
            f"Columns {' and '.join(repr(name) for name in names)} can all be the {word}. Choose one: "
            f"columns={{'{word}': '{names[0]}'}}, or '' for none."
        )
    return found[0] if found else None


def _numbered(free: Mapping[str, str]) -> list[Column]:
    """One column of features for each prefix with numbers behind it: x_0, x_1, ..."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in free:
        match = _NUMBERED.match(name)
        if match:
            groups.setdefault(name[: match.start(2)], []).append((int(match.group(2)), name))
    return [Column(names=tuple(name for _, name in sorted(group))) for group in groups.values()]


def _missing(word: str, types: Mapping[str, str]) -> str:
    close = nearest(word, types)
    loss = next((name for name in types if name.lower() in ("cost", "costs", "loss")), None)
    if word == "reward" and loss:
        close = f"If '{loss}' is what should be small: columns={{'reward': '-{loss}'}}."
    return f"No column is the {word}. {close} Say which with columns={{'{word}': '...'}}."
