"""From labels of actions to their indices, for whole columns and lists of candidates at once."""

from __future__ import annotations

import dataclasses

import duckdb

from counterplay.logs.sources.source import literal

_IMPORT = "import"
# A table of indices by whole number is made up to this width; beyond it numbers go the way of texts.
_WIDEST = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """SQL that turns labels of one log into indices; NULL (or an index that the log does not have) when unknown."""

    integer: str | None
    type_name: str

    def index(self, value: str) -> str:
        """SQL: the index of the label `value`."""
        if self.integer is not None:
            return self.integer.format(value=value)
        return f"CAST(enum_code(TRY_CAST(CAST({value} AS VARCHAR) AS {self.type_name})) AS INTEGER)"

    def indices(self, value: str) -> str:
        """SQL: the indices of the list of labels `value`."""
        if self.integer == _AS_IT_IS:
            return f"TRY_CAST({value} AS INTEGER[])"
        if self.integer is not None:
            return f"list_transform({value}, lambda one: {self.index('one')})"
        labels = f"TRY_CAST(CAST({value} AS VARCHAR[]) AS {self.type_name}[])"
        return f"list_transform({labels}, lambda one: CAST(enum_code(one) AS INTEGER))"


# A reader whose whole numbers only stand for labels leaves this temporary table for the time of its import: number,
# label, both without repeats, less than _WIDEST of them.
NUMBERED = "counterplay_numbered"
_AS_IT_IS = "TRY_CAST({value} AS INTEGER)"


def labels_of(connection: duckdb.DuckDBPyConnection, log: str, integers: bool, *, name: str = _IMPORT) -> Labels:
    """The labels that a log has now. `integers`: the incoming labels are whole numbers, not text.

    Leaves a type or a variable called after `name` in the connection, until the next call or `clear`.
    """
    clear(connection, name=name)
    integer = _for_integers(connection, log, f"counterplay_lookup_{name}") if integers else None
    type_name = f"counterplay_label_{name}"
    if integer is None:
        # Casting to an enumeration is the fastest way from texts to indices.
        rows = f"SELECT label FROM actions WHERE log = {literal(log)} ORDER BY action"
        connection.execute(f"CREATE TEMP TYPE {type_name} AS ENUM ({rows})")
    return Labels(integer=integer, type_name=type_name)


def clear(connection: duckdb.DuckDBPyConnection, *, name: str = _IMPORT) -> None:
    """Remove what `labels_of` left."""
    connection.execute(f"DROP TYPE IF EXISTS counterplay_label_{name}")
    connection.execute(f"RESET VARIABLE counterplay_lookup_{name}")


def is_numbered(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the whole numbers of this import stand for labels, see `NUMBERED`."""
    return bool(connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [NUMBERED]).fetchall())


def _for_integers(connection: duckdb.DuckDBPyConnection, log: str, variable: str) -> str | None:
    """The expression from a whole number to its index; None when a table of them would be too wide."""
    numbers = f"""(SELECT TRY_CAST(label AS BIGINT) AS number, action FROM actions WHERE log = {literal(log)}
                   AND CAST(TRY_CAST(label AS BIGINT) AS VARCHAR) = label)"""
    if is_numbered(connection):
        numbers = f"(SELECT number, action FROM {NUMBERED} JOIN actions USING (label) WHERE log = {literal(log)})"
    low, high, same = connection.execute(
        f"""SELECT min(number), max(number), coalesce(bool_and(number = action), false)
                AND count(*) = (SELECT count(*) FROM actions WHERE log = {literal(log)}) FROM {numbers}"""
    ).fetchall()[0]
    if same:
        return _AS_IT_IS
    if low is None:
        return "CAST(NULL AS INTEGER)"
    if high - low >= _WIDEST:
        return None
    connection.execute(
        f"""SET VARIABLE {variable} = (SELECT list(action ORDER BY place)
            FROM range({low}, {high} + 1) places(place) LEFT JOIN {numbers} ON number = place)"""
    )
    # Below the first place a list would count from its end.
    return f"getvariable('{variable}')[CASE WHEN {{value}} BETWEEN {low} AND {high} THEN {{value}} - {low} + 1 END]"
