"""Whether the actions taken depend on the context, or on the time, when their propensities say that they do not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from counterplay.logs.health.model import Repeats
from counterplay.logs.health.scan import Array, Scan, drawn, thin
from counterplay.logs.health.thresholds import DEPENDS, DEPENDS_P
from counterplay.logs.relations import contexts_of

_DECISIONS = 200_000
_FEATURES = 16
_CONTEXTS, _REPEATS = 200, 20
_ACTIONS = 50
_PARTS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dependence:
    """What the actions were seen to depend on, which share of its spread they explain, and the p-value.

    `tested`: what could be looked at. `on` is "" where nothing was found.
    """

    on: str
    share: float
    p_value: float
    tested: tuple[str, ...]


def dependence(scan: Scan, n: int, repeats: Repeats) -> Dependence:
    """The strongest dependence that is there beyond chance; looks at a sample of 200,000 decisions at most."""
    found: list[tuple[str, float, float]] = []
    if repeats.contexts_with_features:
        found += _on_features(scan, n)
    if repeats.contexts.groups > 1 and repeats.contexts.largest >= _REPEATS:
        found += _on_contexts(scan)
    found += _on_time(scan)
    tested = tuple(dict.fromkeys(name.split(" ")[0] for name, _, _ in found))
    limit = DEPENDS_P / max(1, len(found))
    clear = [one for one in found if one[2] < limit and one[1] > DEPENDS]
    if not clear:
        return Dependence(on="", share=0.0, p_value=1.0, tested=tested)
    on, share, p = max(clear, key=lambda one: one[1])
    return Dependence(on=on, share=share, p_value=p, tested=tested)


def _on_features(scan: Scan, n: int) -> list[tuple[str, float, float]]:
    """An analysis of variance of each of the first features, with actions as groups."""
    from scipy.special import fdtrc

    parts = ", ".join(
        f"count({one}) AS n{i}, avg({one}) AS m{i}, coalesce(var_pop({one}), 0) AS v{i}"
        for i, one in ((i, f"features[{i + 1}]") for i in range(_FEATURES))
    )
    table = scan.columns(
        f"""SELECT action, {parts} FROM (SELECT context_id, action FROM {scan.rows}
            WHERE action IS NOT NULL AND {drawn("position", thin(n, _DECISIONS))})
            JOIN (SELECT context_id, features FROM {contexts_of(scan.connection, scan.log)}) USING (context_id)
            GROUP BY action"""
    )
    found = []
    for i in range(_FEATURES):
        count, mean, variance = table[f"n{i}"], table[f"m{i}"], table[f"v{i}"]
        kept = count > 0
        count, mean, variance = count[kept], mean[kept], variance[kept]
        total, groups = count.sum(), len(count)
        if groups < 2 or total <= groups + 1:
            continue
        centre = (count * mean).sum() / total
        between, inside = (count * (mean - centre) ** 2).sum(), (count * variance).sum()
        if between + inside <= 0:
            continue
        f = (between / (groups - 1)) / (inside / (total - groups)) if inside > 0 else math.inf
        share = (between - (groups - 1) * inside / (total - groups)) / (between + inside)
        found.append((f"feature {i + 1}", float(share), float(fdtrc(groups - 1, total - groups, f))))
    return found


def _on_contexts(scan: Scan) -> list[tuple[str, float, float]]:
    """The most frequent contexts against the most frequent actions."""
    table = scan.columns(
        f"""SELECT dense_rank() OVER (ORDER BY context_id) AS part, action, count(*) AS n FROM {scan.rows}
            SEMI JOIN (SELECT context_id FROM {scan.rows} GROUP BY context_id HAVING count(*) >= {_REPEATS}
                       ORDER BY count(*) DESC, context_id LIMIT {_CONTEXTS}) USING (context_id)
            WHERE action IS NOT NULL GROUP BY context_id, action"""
    )
    return _crossed("context", table)


def _on_time(scan: Scan) -> list[tuple[str, float, float]]:
    """Twenty parts of the log against the most frequent actions."""
    ends = scan.one(f"SELECT min(position) AS low, max(position) AS high FROM {scan.rows}")
    if ends["low"] is None or ends["low"] == ends["high"]:
        return []
    width = (ends["high"] - ends["low"] + 1) / _PARTS
    table = scan.columns(
        f"""SELECT CAST(floor((position - ?) / ?) AS INTEGER) AS part, action, count(*) AS n FROM {scan.rows}
            WHERE action IS NOT NULL GROUP BY part, action""",
        [ends["low"], width],
    )
    return _crossed("time", table)


def _crossed(name: str, table: dict[str, Array]) -> list[tuple[str, float, float]]:
    """Chi-squared test of a table of counts, and Cramer's V squared with its expectation by chance taken off."""
    from scipy.special import chdtrc

    if not len(table["n"]):
        return []
    rows, row = np.unique(table["part"], return_inverse=True)
    actions, column = np.unique(table["action"], return_inverse=True)
    counts = np.zeros((len(rows), min(len(actions), _ACTIONS) + 1))
    order = np.argsort(-np.bincount(column, table["n"]))
    place = np.full(len(actions), counts.shape[1] - 1)
    place[order[:_ACTIONS]] = np.arange(min(len(actions), _ACTIONS))
    np.add.at(counts, (row, place[column]), table["n"])
    counts = counts[:, counts.sum(axis=0) > 0]
    total = counts.sum()
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / total
    # The approximation by chi-squared wants five expected decisions in a cell.
    counts, expected = counts[:, expected.min(axis=0) >= 5], expected[:, expected.min(axis=0) >= 5]
    freedom = (counts.shape[0] - 1) * (counts.shape[1] - 1)
    if freedom < 1:
        return []
    chi = float(((counts - expected) ** 2 / expected).sum())
    share = max(0.0, chi - freedom) / (float(counts.sum()) * min(counts.shape[0] - 1, counts.shape[1] - 1))
    return [(name, share, float(chdtrc(freedom, chi)))]
