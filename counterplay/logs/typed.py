"""The SQL that turns raw values into our types and says, for each row by itself, what is wrong with it.

A reason reads "what is wrong: the value". What stands before the colon is the same for all rows with that fault, so
reasons can be counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from counterplay.logs.columns import Column
from counterplay.logs.sources import Source

# The columns of the staged table, in its order, with their types.
STAGED: dict[str, str] = {
    "decision_id": "VARCHAR",
    "context_id": "VARCHAR",
    "action": "VARCHAR",
    "propensity": "DOUBLE",
    "reward": "DOUBLE",
    "cost": "DOUBLE",
    "cluster": "VARCHAR",
    "timestamp": "TIMESTAMPTZ",
    "candidates": "VARCHAR[]",
    "candidate_propensities": "DOUBLE[]",
    "episode": "VARCHAR",
    "step": "INTEGER",
    "parent": "VARCHAR",
    "depth": "INTEGER",
    "kind": "VARCHAR",
    "text": "VARCHAR",
    "features": "FLOAT[]",
}
_REQUIRED = ("decision_id", "context_id", "action", "propensity", "reward", "candidates", "features")
# Distributions are often logged in single precision, and rounded.
SUM_TOLERANCE = 1e-3


def staging_query(source: Source, mapping: Mapping[str, Column]) -> str:
    """A query over the source: `ordinal`, every column of `STAGED`, and `reason` (NULL when the row is sound)."""
    values, raws = [], []
    for word, kind in STAGED.items():
        if word in mapping:
            columns = [source.columns[name] for name in mapping[word].names]
            values.append(f"{_value(word, columns, mapping[word].negate)} AS {word}")
            raws.append(f"{_raw(columns)} AS raw_{word}")
        else:
            values.append(f"CAST(NULL AS {kind}) AS {word}")
    typed = f"SELECT ordinal, {source.broken} AS broken, {', '.join(values + raws)} FROM {source.scan}"
    reasons = ", ".join(reason for word in mapping for reason in _reasons(word, mapping.keys()))
    checked = f"""SELECT ordinal, {", ".join(STAGED)},
        CASE WHEN broken THEN 'the line is not a JSON object' ELSE nullif(concat_ws('; ', {reasons}), '') END AS reason
        FROM ({typed})"""
    return _with_ids(checked, mapping)


def _with_ids(checked: str, mapping: Mapping[str, Column]) -> str:
    """Ids from the content where the file has none: the same rows get the same ids in whatever file they come again."""
    if "context_id" not in mapping:
        content = "'h-' || md5(concat(text, chr(31), CAST(features AS VARCHAR)))"
        value = content if {"text", "features"} & set(mapping) else "'none'"
        checked = f"SELECT * REPLACE ({value} AS context_id) FROM ({checked})"
    if "decision_id" not in mapping:
        parts = ", ".join(f"coalesce(CAST({word} AS VARCHAR), '')" for word in STAGED if word in mapping)
        hashed = f"SELECT *, md5(concat_ws(chr(31), context_id, {parts})) AS content FROM ({checked})"
        # Equal rows are told apart by counting them, so that each is kept and none is added when the file comes again.
        count = "row_number() OVER (PARTITION BY content, reason IS NULL ORDER BY ordinal)"
        checked = f"SELECT * EXCLUDE (content) REPLACE (content || '-' || {count} AS decision_id) FROM ({hashed})"
    return checked


def _value(word: str, columns: list[tuple[str, str]], negate: bool) -> str:
    (value, kind), *more = columns
    if word == "features":
        return number_list(columns, "FLOAT")
    assert not more, f"{word} comes from one column"
    if word == "candidates":
        return _label_list(value, kind)
    if word == "candidate_propensities":
        return number_list([(value, kind)], "DOUBLE")
    if word == "timestamp":
        return _timestamp(value, kind)
    if word in ("propensity", "reward", "cost"):
        number = _number(value, kind, truth=word == "reward")
        return f"-({number})" if negate else number
    if word in ("step", "depth"):
        number = _number(value, kind)
        return f"CASE WHEN {number} = floor({number}) THEN TRY_CAST({number} AS INTEGER) END"
    return label_text(value, kind)


def _raw(columns: list[tuple[str, str]]) -> str:
    """The value as text, cut for messages; NULL when it is missing. Several columns together are never missing."""
    value, kind = columns[0]
    if len(columns) > 1:
        return "''"
    return (
        f"nullif(left(CAST({value} AS VARCHAR), 80), '')"
        if kind == "VARCHAR"
        else f"left(CAST({value} AS VARCHAR), 80)"
    )


def _number(value: str, kind: str, truth: bool = False) -> str:
    number = f"TRY_CAST({value} AS DOUBLE)"
    if truth and kind == "VARCHAR":
        return f"coalesce({number}, CASE lower({value}) WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END)"
    return number


def label_text(value: str, kind: str) -> str:
    """A label or id as text; 3.0 becomes 3: a column of whole numbers turns to decimals when one is missing."""
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"{value} = floor({value}) AND abs({value}) < 9e15"
        return f"CASE WHEN {whole} THEN CAST(CAST({value} AS BIGINT) AS VARCHAR) ELSE CAST({value} AS VARCHAR) END"
    if kind == "VARCHAR":
        return f"nullif({value}, '')"
    return f"CAST({value} AS VARCHAR)"


def _label_list(value: str, kind: str) -> str:
    if kind.endswith("]"):
        return f"list_transform({value}, lambda one: {label_text('one', kind[: kind.rindex('[')])})"
    text = f"CAST({value} AS VARCHAR)"
    as_list = f"coalesce(TRY_CAST(TRY_CAST({text} AS JSON) AS VARCHAR[]), TRY_CAST({text} AS VARCHAR[]))"
    split = f"list_transform(string_split({text}, '|'), lambda one: nullif(trim(one), ''))"
    return f"CASE WHEN ltrim({text}) LIKE '[%' THEN {as_list} ELSE {split} END"


def number_list(columns: list[tuple[str, str]], number: str) -> str:
    """A list of numbers of the SQL type `number`, from a list, a text, or several columns of one number each."""
    if len(columns) == 1 and columns[0][1].endswith("]"):
        return f"TRY_CAST({columns[0][0]} AS {number}[])"
    if len(columns) == 1 and columns[0][1] == "VARCHAR":
        value = columns[0][0]
        alone = f"TRY_CAST({value} AS {number})"
        return f"coalesce(TRY_CAST({value} AS {number}[]), CASE WHEN {alone} IS NOT NULL THEN [{alone}] END)"
    return f"[{', '.join(f'TRY_CAST({value} AS {number})' for value, _ in columns)}]"


def _timestamp(value: str, kind: str) -> str:
    """A time, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size."""
    number = f"TRY_CAST({value} AS DOUBLE)"
    seconds = f"""CASE WHEN abs({number}) < 1e11 THEN {number} WHEN abs({number}) < 1e14 THEN {number} / 1e3
        WHEN abs({number}) < 1e17 THEN {number} / 1e6 WHEN abs({number}) < 1e20 THEN {number} / 1e9 END"""
    if kind == "VARCHAR":
        return f"coalesce(TRY_CAST({value} AS TIMESTAMPTZ), to_timestamp({seconds}))"
    if kind.startswith(("TIMESTAMP", "DATE")):
        return f"TRY_CAST({value} AS TIMESTAMPTZ)"
    return f"to_timestamp({seconds})"


def _reasons(word: str, mapped: Collection[str]) -> list[str]:
    """SQL expressions, each a reason or NULL, over `word` (typed) and `raw_word` (text)."""
    what = word.replace("_", " ")
    raw = f"raw_{word}"
    missing = (
        [(f"{raw} IS NULL", f"'{what} {'are' if what.endswith('s') else 'is'} missing'")] if word in _REQUIRED else []
    )
    if word in ("propensity", "reward", "cost"):
        cases = [
            *missing,
            (f"{raw} IS NULL", "NULL"),
            (f"{word} IS NULL OR isnan({word})", f"'{what} is not a number: ' || {raw}"),
            (f"isinf({word})", f"'{what} is infinite'"),
        ]
        if word == "propensity":
            cases += [
                ("propensity = 0", "'propensity is zero'"),
                ("propensity < 0", f"'propensity is negative: ' || {raw}"),
                ("propensity > 1", f"'propensity is above 1: ' || {raw}"),
            ]
        return [_case(cases)]
    if word == "candidates":
        return [_case(missing + _candidate_cases()), _case(_choice_cases())]
    if word == "candidate_propensities":
        return [_case(_candidate_propensity_cases(mapped))]
    if word == "features":
        return [_case(missing + _feature_cases())]
    kinds = {"timestamp": "a time", "step": "a whole number", "depth": "a whole number"}
    if word in kinds:
        return [_case([(f"{raw} IS NOT NULL AND {word} IS NULL", f"'{what} is not {kinds[word]}: ' || {raw}")])]
    return [_case(missing)] if missing else []


def _candidate_cases() -> list[tuple[str, str]]:
    return [
        ("candidates IS NULL", "'candidates are not a list: ' || raw_candidates"),
        ("len(candidates) = 0", "'candidates are empty'"),
        (
            "len(list_filter(candidates, lambda one: one IS NULL)) > 0",
            "'candidates hold an empty entry: ' || raw_candidates",
        ),
        ("list_unique(candidates) < len(candidates)", "'candidates name an action twice: ' || raw_candidates"),
    ]


def _choice_cases() -> list[tuple[str, str]]:
    outside = "len(candidates) > 0 AND action IS NOT NULL AND NOT list_contains(candidates, action)"
    return [(outside, "'action is not among the candidates: ' || left(action, 80)")]


def _candidate_propensity_cases(mapped: Collection[str]) -> list[tuple[str, str]]:
    """A whole distribution over the candidates: it must be one, and agree with the propensity of the action."""
    what, given = "candidate_propensities", "candidate_propensities IS NOT NULL"
    cases = [
        ("raw_candidate_propensities IS NULL", "NULL"),
        (f"{what} IS NULL", "'candidate propensities are not a list of numbers: ' || raw_candidate_propensities"),
        (
            f"{given} AND len(list_filter({what}, lambda one: one IS NULL OR NOT (one BETWEEN 0 AND 1))) > 0",
            "'candidate propensities hold something outside 0 to 1: ' || raw_candidate_propensities",
        ),
        (
            f"abs(list_sum({what}) - 1) > {SUM_TOLERANCE}",
            f"'candidate propensities do not sum to 1: ' || list_sum({what})",
        ),
    ]
    if "candidates" in mapped:
        cases.append(
            (
                f"len({what}) <> len(candidates)",
                f"'candidate propensities are not one for each candidate: ' || len({what}) || ' for ' || "
                "len(candidates)",
            )
        )
        if "propensity" in mapped:
            cases.append(
                (
                    f"abs({what}[list_position(candidates, action)] - propensity) > {SUM_TOLERANCE}",
                    f"'candidate propensities give the action another propensity: ' || "
                    f"{what}[list_position(candidates, action)]",
                )
            )
    return cases


def _feature_cases() -> list[tuple[str, str]]:
    return [
        ("features IS NULL", "'features are not a list of numbers: ' || raw_features"),
        ("len(features) = 0", "'features are empty'"),
        (
            "len(list_filter(features, lambda one: one IS NULL OR NOT isfinite(one))) > 0",
            "'features hold something that is no finite number: ' || left(CAST(features AS VARCHAR), 80)",
        ),
    ]


def _case(cases: list[tuple[str, str]]) -> str:
    return f"CASE {' '.join(f'WHEN {condition} THEN {reason}' for condition, reason in cases)} END"
