"""The outcome table: how much of it is known, the mean of every action, and the best that could be had."""

from __future__ import annotations

from counterplay.logs.health.model import Outcomes
from counterplay.logs.health.scan import Scan, drawn, thin
from counterplay.logs.health.thresholds import EXACT_ROWS
from counterplay.logs.relations import contexts_of
from counterplay.logs.sources.source import literal

SHOWN = 20


def describe_outcomes(scan: Scan) -> Outcomes | None:
    """None for a log without an outcome table. Means are over contexts, each counted once."""
    (default,) = scan.connection.execute("SELECT default_reward FROM logs WHERE log = ?", [scan.log]).fetchall()[0]
    own = f"(SELECT context_id, action, reward FROM outcomes WHERE log = {literal(scan.log)} AND isfinite(reward))"
    stored = int(scan.one(f"SELECT count(*) AS n FROM {own}")["n"])
    if default is None and stored == 0:
        return None
    contexts = int(scan.one(f"SELECT count(*) AS n FROM {contexts_of(scan.connection, scan.log)}")["n"])
    pairs = contexts * scan.actions
    full, oracle = _best(scan, own, stored, contexts, default)
    means = _means(scan, own, contexts, default)
    known = pairs if default is not None else stored
    return Outcomes(
        pairs=pairs,
        known=known,
        share=known / pairs if pairs else 0.0,
        complete_contexts=contexts if default is not None else full,
        contexts=contexts,
        default=default,
        best=means[0][0] if means else None,
        best_mean=means[0][1] if means else None,
        oracle=oracle,
        means=means,
    )


def _best(scan: Scan, own: str, stored: int, contexts: int, default: float | None) -> tuple[int, float | None]:
    """Contexts in which every action is known, and the mean of their best rewards."""
    one_in = thin(min(stored, contexts), EXACT_ROWS)
    row = scan.one(
        f"""SELECT count(*) AS n, count(*) FILTER (known >= {scan.actions}) AS full,
            coalesce(sum(CASE WHEN known >= {scan.actions} THEN best ELSE greatest(best, ?) END), 0) AS total,
            coalesce(sum(best) FILTER (known >= {scan.actions}), 0) AS full_total
            FROM (SELECT count(*) AS known, max(reward) AS best FROM {own} WHERE {drawn("context_id", one_in)}
                  GROUP BY context_id)""",
        [default],
    )
    full = int(row["full"]) * one_in
    if default is None:
        return full, row["full_total"] / row["full"] if row["full"] else None
    rest = max(0, contexts - row["n"] * one_in)
    return full, (row["total"] * one_in + rest * default) / contexts if contexts else None


def _means(scan: Scan, own: str, contexts: int, default: float | None) -> tuple[tuple[str, float], ...]:
    """The best actions first; without a default, those known in every context."""
    rows = scan.connection.execute(
        f"""SELECT label, (coalesce(total, 0) + CASE WHEN coalesce(n, 0) < $contexts
                THEN $default * ($contexts - coalesce(n, 0)) ELSE 0 END) / $contexts AS mean
            FROM (SELECT action, label FROM actions WHERE log = $log)
            LEFT JOIN (SELECT action, count(*) AS n, sum(reward) AS total FROM {own} GROUP BY action) USING (action)
            WHERE $contexts > 0 AND ($default IS NOT NULL OR n >= $contexts)
            ORDER BY mean DESC, action LIMIT {SHOWN}""",
        {"log": scan.log, "contexts": contexts, "default": default},
    ).fetchall()
    return tuple((label, float(mean)) for label, mean in rows)
