"""What an import did, row by row."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did. `rows_read` = `rows_kept` + `rows_quarantined` + `rows_known`.

    `mapping`: our word to the file's column; `ignored`: columns that are none of our words; `reasons`: quarantined rows
    by the first thing that was wrong with them. `rows_replaced`: those of the kept rows that took the place of a known
    one with the same id.
    """

    log: str
    source: str
    sha256: str
    regime: str
    rows_read: int
    rows_kept: int
    rows_quarantined: int
    rows_known: int
    reasons: dict[str, int]
    mapping: dict[str, str]
    ignored: tuple[str, ...]
    rows_replaced: int = 0
