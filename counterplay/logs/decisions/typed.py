"""The SQL that turns raw values into our types and says, for each row by itself, what is wrong with it.

A reason reads "what is wrong: the value". What stands before the colon is the same for all rows with that fault, so
reasons can be counted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from counterplay.logs.decisions.columns import Column
from counterplay.logs.sources.source import Source

# The columns of incoming rows, in their order, with their types; labels that are whole numbers stay whole numbers.
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
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
# Wide enough for sums of labels and offsets; casting a hundred million candidates would take as long as checking them.
_AS_THEY_ARE = ("INTEGER", "BIGINT", "INTEGER[]", "BIGINT[]")
# Distributions are often logged in single precision, and rounded.
SUM_TOLERANCE = 1e-3
# Up to the last of these lengths a list is searched for each of its entries, which is five times faster than hashing
# them; a list of one of these lengths or less is searched for so many.
_SHORT = (5, 10, 16)

Case = tuple[str, str | None]


def labels_are_integers(source: Source, mapping: Mapping[str, Column]) -> bool:
    """Whether actions, and candidates if there are any, are columns of whole numbers, which need not become text."""
    kinds = [source.columns[mapping["action"].names[0]][1]]
    if "candidates" in mapping:
        kinds.append(source.columns[mapping["candidates"].names[0]][1].removesuffix("[]"))
    return all(kind in _INTEGERS for kind in kinds)


def incoming_query(source: Source, mapping: Mapping[str, Column]) -> str:
    """A query over the source: `ordinal`, every column of `STAGED`, and `reason` (NULL when the row is sound).

    A row without a decision id in the file has none; one without a context id has one made of its text and features.
    """
    integers = labels_are_integers(source, mapping)
    values, words = [], []
    for word, kind in STAGED.items():
        if word in mapping:
            columns = [source.columns[name] for name in mapping[word].names]
            values.append(f"{_value(word, columns, mapping[word].negate, integers)} AS typed_{word}")
            words.append(f"typed_{word} AS {word}")
        else:
            words.append(f"CAST(NULL AS {kind}) AS {word}")
    rejecting = [cases for word in mapping for cases in _judgements(word, mapping, source)]
    unsound = " OR ".join(_fires(cases) for cases in rejecting)
    reasons = ", ".join(_case(cases) for cases in rejecting)
    query = f"""SELECT ordinal, {", ".join(words)},
        CASE WHEN {source.broken} THEN 'the line is not a JSON object'
             WHEN ({source.fault}) IS NOT NULL THEN {source.fault}
             WHEN {unsound} THEN concat_ws('; ', {reasons}) END AS reason
        FROM (SELECT *, {", ".join(values)} FROM {source.scan})"""
    if "context_id" in mapping:
        return query
    content = "'h-' || md5(concat(text, chr(31), CAST(features AS VARCHAR)))"
    value = content if {"text", "features"} & set(mapping) else "'none'"
    return f"SELECT * REPLACE ({value} AS context_id) FROM ({query})"


def _value(word: str, columns: list[tuple[str, str]], negate: bool, integers: bool) -> str:
    (value, kind), *more = columns
    if word == "features":
        return number_list(columns, "FLOAT")
    assert not more, f"{word} comes from one column"
    if word in ("action", "candidates") and integers:
        return value if kind in _AS_THEY_ARE else f"CAST({value} AS BIGINT{'[]' if word == 'candidates' else ''})"
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


def _number(value: str, kind: str, truth: bool = False) -> str:
    number = f"TRY_CAST({value} AS DOUBLE)"
    if kind == "VARCHAR":
        # DuckDB takes 1_000 for a thousand; nobody who exports a file does.
        number = f"CASE WHEN NOT contains({value}, '_') THEN {number} END"
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
    """A time that begins with a year of four digits, or a number of seconds since 1970, from 1979 to 2033, or of
    milliseconds, microseconds or nanoseconds, told apart by size. Dates written as one number fall between these.
    """
    number = f"TRY_CAST({value} AS DOUBLE)"
    seconds = " ".join(
        f"WHEN {number} >= {3e8 * unit:.0f} AND {number} < {2e9 * unit:.0f} THEN {number} / {unit}"
        for unit in (1, 10**3, 10**6, 10**9)
    )
    since = f"to_timestamp(CASE {seconds} END)"
    if kind == "VARCHAR":
        dated = f"regexp_matches({value}, '^\\s*\\d{{4}}[-/]\\d')"
        time = f"CASE WHEN {dated} THEN TRY_CAST({value} AS TIMESTAMPTZ) ELSE {since} END"
    elif kind.startswith(("TIMESTAMP", "DATE")):
        time = f"TRY_CAST({value} AS TIMESTAMPTZ)"
    else:
        time = since
    return f"CASE WHEN isfinite({time}) THEN {time} END"


def _judgements(word: str, mapping: Mapping[str, Column], source: Source) -> list[list[Case]]:
    """What can be wrong with a word: lists of cases (condition, reason or None), of which the first that holds counts.

    The cheap typed value is asked first; the raw value becomes text only for a message.
    """
    columns = [source.columns[name] for name in mapping[word].names]
    typed, what = f"typed_{word}", word.replace("_", " ")
    absent, raw = _absent(columns), _raw(columns)
    verb = "are" if what.endswith("s") else "is"
    missing: list[Case] = [(absent, f"'{what} {verb} missing'" if word in _REQUIRED else None)]
    if word in ("propensity", "reward", "cost"):
        return [missing + _number_cases(word, typed, raw)]
    if word == "candidates":
        return [missing + _candidate_cases(raw), _choice_cases()]
    if word == "candidate_propensities":
        return [missing + _distribution_cases(raw, mapping)]
    if word == "features":
        return [missing + _feature_cases(raw)]
    kinds = {"timestamp": "a time", "step": "a whole number", "depth": "a whole number"}
    if word in kinds:
        return [[*missing, (f"{typed} IS NULL", f"'{what} is not {kinds[word]}: ' || {raw}")]]
    return [missing] if word in _REQUIRED else []


def _absent(columns: list[tuple[str, str]]) -> str:
    """Whether the value is missing. Several columns together never are."""
    (value, kind), *more = columns
    if more:
        return "false"
    return f"({value} IS NULL OR {value} = '')" if kind == "VARCHAR" else f"{value} IS NULL"


def _raw(columns: list[tuple[str, str]]) -> str:
    """The value as text, cut for messages."""
    return "''" if len(columns) > 1 else f"left(CAST({columns[0][0]} AS VARCHAR), 80)"


def _number_cases(word: str, typed: str, raw: str) -> list[Case]:
    cases: list[Case] = [
        (f"{typed} IS NULL OR isnan({typed})", f"'{word} is not a number: ' || {raw}"),
        (f"isinf({typed})", f"'{word} is infinite'"),
    ]
    if word == "propensity":
        cases += [
            (f"{typed} = 0", "'propensity is zero'"),
            (f"{typed} < 0", f"'propensity is negative: ' || {raw}"),
            (f"{typed} > 1", f"'propensity is above 1: ' || {raw}"),
        ]
    return cases


def _candidate_cases(raw: str) -> list[Case]:
    candidates = "typed_candidates"
    again = [f"list_position({candidates}, {candidates}[{i}]) < {i}" for i in range(2, max(_SHORT) + 1)]
    searched = " ".join(f"WHEN len({candidates}) <= {size} THEN {' OR '.join(again[: size - 1])}" for size in _SHORT)
    twice = f"CASE {searched} ELSE list_unique({candidates}) < len({candidates}) END"
    return [
        (f"{candidates} IS NULL", f"'candidates are not a list: ' || {raw}"),
        (f"len({candidates}) = 0", "'candidates are empty'"),
        (
            f"list_count({candidates}) < len({candidates})",
            f"'candidates hold an empty entry: ' || {raw}",
        ),
        (twice, f"'candidates name an action twice: ' || {raw}"),
    ]


def _choice_cases() -> list[Case]:
    outside = "len(typed_candidates) > 0 AND NOT list_contains(typed_candidates, typed_action)"
    return [(outside, "'action is not among the candidates: ' || left(CAST(typed_action AS VARCHAR), 80)")]


def _distribution_cases(raw: str, mapping: Collection[str]) -> list[Case]:
    """A whole distribution over the candidates: it must be one, and agree with the propensity of the action."""
    given = "typed_candidate_propensities"
    cases: list[Case] = [
        (f"{given} IS NULL", f"'candidate propensities are not a list of numbers: ' || {raw}"),
        (
            f"len(list_filter({given}, lambda one: one IS NULL OR NOT (one BETWEEN 0 AND 1))) > 0",
            f"'candidate propensities hold something outside 0 to 1: ' || {raw}",
        ),
        (
            f"coalesce(abs(list_sum({given}) - 1) > {SUM_TOLERANCE}, true)",
            f"'candidate propensities do not sum to 1: ' || coalesce(list_sum({given}), 0)",
        ),
    ]
    if "candidates" not in mapping:
        return cases
    candidates = "typed_candidates"
    cases.append(
        (
            f"len({given}) <> len({candidates})",
            f"'candidate propensities are not one for each candidate: ' || len({given}) || ' for ' || "
            f"len({candidates})",
        )
    )
    if "propensity" in mapping:
        own = f"{given}[list_position({candidates}, typed_action)]"
        disagrees = f"abs({own} - typed_propensity) > {SUM_TOLERANCE}"
        cases.append((disagrees, f"'candidate propensities give the action another propensity: ' || {own}"))
    return cases


def _feature_cases(raw: str) -> list[Case]:
    features = "typed_features"
    return [
        (f"{features} IS NULL", f"'features are not a list of numbers: ' || {raw}"),
        (f"len({features}) = 0", "'features are empty'"),
        (
            f"len(list_filter({features}, lambda one: one IS NULL OR NOT isfinite(one))) > 0",
            f"'features hold something that is no finite number: ' || left(CAST({features} AS VARCHAR), 80)",
        ),
    ]


def _fires(cases: list[Case]) -> str:
    """Whether any reason is given, without making its text."""
    return _case([(condition, None if reason is None else "true") for condition, reason in cases], "false")


def _case(cases: list[Case], otherwise: str = "NULL") -> str:
    branches = " ".join(f"WHEN {condition} THEN {reason or otherwise}" for condition, reason in cases)
    return f"CASE {branches} ELSE {otherwise} END"
