"""Putting rejected rows away: each with its line, its reason and what it held."""

from __future__ import annotations

import duckdb
import numpy as np

from counterplay.logs.sources.lines import Places
from counterplay.logs.sources.source import Source, literal
from counterplay.logs.sources.text import rejected

_LINES, _RAW, _ENTRIES = "counterplay_lines", "counterplay_raw", "counterplay_entries"


def store(connection: duckdb.DuckDBPyConnection, log: str, source: Source) -> tuple[int, dict[str, int]]:
    """Store what `rejected` names and what the reader could not read at all.

    Returns the number of pieces that never became rows, and the count of everything by reason (what stands before its
    colon), the commonest first. What stands in the quarantine already, from the same file, is not stored again.
    """
    (count,) = connection.execute("SELECT count(*) FROM rejected").fetchall()[0]
    if count == 0 and not rejected(connection):
        return 0, {}
    places = source.locate(connection)
    connection.execute(f"CREATE TEMP TABLE {_ENTRIES} (line BIGINT, reason VARCHAR, row VARCHAR)")
    if count:
        _collect(connection, source, places)
    if places.broken:
        columns = [
            list(values) for values in zip(*((one.line, one.reason, one.raw) for one in places.broken), strict=True)
        ]
        connection.execute(
            f"INSERT INTO {_ENTRIES} SELECT line, reason, json_object('line', raw) "
            "FROM (SELECT unnest(?) AS line, unnest(?) AS reason, unnest(?) AS raw)",
            columns,
        )
    connection.execute(
        f"""INSERT INTO quarantine SELECT $log, $source, line, reason, row, now() FROM {_ENTRIES} e WHERE NOT EXISTS (
                SELECT 1 FROM quarantine q WHERE q.log = $log AND q.source = $source AND q.line = e.line
                AND q.reason = e.reason AND CAST(q.row AS VARCHAR) = e.row)
            ORDER BY line""",
        {"log": log, "source": source.name},
    )
    reasons = connection.execute(
        f"""SELECT split_part(split_part(reason, '; ', 1), ':', 1) AS why, count(*)
            FROM {_ENTRIES} GROUP BY 1 ORDER BY 2 DESC, 1"""
    ).fetchall()
    connection.execute(f"DROP TABLE {_ENTRIES}")
    return len(places.broken), dict(reasons)


def _collect(connection: duckdb.DuckDBPyConnection, source: Source, places: Places) -> None:
    """Read the rejected rows again from the source, whole, with the columns that are none of our words."""
    import pyarrow as pa

    ordinals = np.arange(1, len(places.lines) + 1)
    connection.register(_LINES, pa.table({"ordinal": ordinals, "line": places.lines}))
    broken = connection.execute(
        f"SELECT line FROM rejected JOIN {_LINES} USING (ordinal) WHERE reason = 'the line is not a JSON object'"
    ).fetchall()
    raw = places.raw({line for (line,) in broken})
    connection.register(
        _RAW, pa.table({"line": pa.array(list(raw), pa.int64()), "raw": pa.array(list(raw.values()), pa.string())})
    )
    held = ", ".join(f"{literal(name)}, CAST({value} AS VARCHAR)" for name, (value, _) in source.columns.items())
    connection.execute(
        f"""INSERT INTO {_ENTRIES}
            SELECT coalesce(here.line, r.ordinal + {places.header}),
                r.reason || CASE WHEN r.other IS NULL THEN ''
                            ELSE ', first in line ' || coalesce(there.line, r.other + {places.header}) END,
                CASE WHEN raw.raw IS NULL THEN rows.held ELSE json_object('line', raw.raw) END
            FROM rejected r
            JOIN (SELECT ordinal, json_object({held}) AS held FROM {source.scan}
                  WHERE ordinal IN (SELECT ordinal FROM rejected)) rows USING (ordinal)
            LEFT JOIN {_LINES} here ON here.ordinal = r.ordinal
            LEFT JOIN {_LINES} there ON there.ordinal = r.other
            LEFT JOIN {_RAW} raw ON raw.line = here.line"""
    )
    connection.unregister(_LINES)
    connection.unregister(_RAW)
