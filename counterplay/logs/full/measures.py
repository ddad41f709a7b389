"""The SQL for what an outcome consists of: reward, cost, seconds, tokens; and what can be wrong with each."""

from __future__ import annotations

_COUNTS = ("input_tokens", "output_tokens")


def number(value: str, kind: str, truth: bool = False) -> str:
    """SQL: a value as a DOUBLE, NULL when it is no number; with `truth`, true and false are 1 and 0."""
    found = f"TRY_CAST({value} AS DOUBLE)"
    if truth and kind == "VARCHAR":
        return f"coalesce({found}, CASE lower({value}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END)"
    return found


def shown(value: str) -> str:
    """SQL: a value as text, cut for messages; NULL when it is missing."""
    return f"nullif(left(CAST({value} AS VARCHAR), 80), '')"


def stored(word: str, value: str, zero_unknown: bool) -> str:
    """SQL: a checked DOUBLE as the table `outcomes` holds it."""
    kept = f"nullif({value}, 0)" if zero_unknown else value
    return f"TRY_CAST({kept} AS BIGINT)" if word in _COUNTS else kept


def reason(word: str, value: str, raw: str, whose: str = "") -> str:
    """SQL: what is wrong with a value, or NULL. `raw`: its text; `whose`: SQL of a text that is put behind it."""
    what = word.replace("_", " ")
    are = "are" if what.endswith("s") else "is"
    behind = f" || {whose}" if whose else ""
    cases = [
        (f"{raw} IS NOT NULL AND ({value} IS NULL OR isnan({value}))", f"{what} {are} not a number"),
        (f"isinf({value})", f"{what} {are} infinite"),
    ]
    if word not in ("reward", "cost"):
        cases.append((f"{value} < 0", f"{what} {are} negative"))
    if word in _COUNTS:
        cases.append((f"{value} <> floor({value}) OR {value} > 9e15", f"{what} {are} not a whole number"))
    whens = " ".join(f"WHEN {condition} THEN '{text}: ' || {raw}{behind}" for condition, text in cases)
    return f"CASE {whens} END"
