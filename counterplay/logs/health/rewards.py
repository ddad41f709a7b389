"""Rewards as a whole and over time, and the times themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from counterplay.logs.health.actions import interval
from counterplay.logs.health.model import Bucket, Rewards, Times
from counterplay.logs.health.scan import Scan, drawn, thin
from counterplay.logs.health.thresholds import BUCKETS, NEARLY_ALL, QUANTILE_ROWS, STRETCHES

_TIME = "%Y-%m-%d %H:%M:%S"


def describe_rewards(scan: Scan, totals: Mapping[str, Any]) -> Rewards:
    """What is told of the rewards; two scans."""
    known = totals["rewarded"]
    kind = _kind(totals)
    timed = totals["timed"] >= NEARLY_ALL * totals["n"] > 0 and totals["first_us"] < totals["last_us"]
    buckets, drift, p = _over_time(scan, totals, "us" if timed else "position") if known else ((), None, None)
    return Rewards(
        kind=kind,
        known=known,
        missing=totals["n"] - known,
        mean=totals["reward_mean"],
        std=math.sqrt(max(0.0, totals["reward_var"])) if known else None,
        smallest=totals["reward_low"],
        largest=totals["reward_high"],
        rarer=min(totals["ones"], known - totals["ones"]) if kind == "binary" else None,
        by="time" if timed else "position",
        over_time=buckets,
        drift=drift,
        drift_p=p,
    )


def _kind(totals: Mapping[str, Any]) -> str:
    if not totals["rewarded"]:
        return "none"
    if totals["reward_low"] == totals["reward_high"]:
        return "equal"
    if totals["binary"] == totals["rewarded"]:
        return "binary"
    return "unit" if totals["reward_low"] >= 0 and totals["reward_high"] <= 1 else "real"


def _over_time(
    scan: Scan, totals: Mapping[str, Any], key: str
) -> tuple[tuple[Bucket, ...], float | None, float | None]:
    levels = [i / BUCKETS for i in range(1, BUCKETS)]
    one_in = thin(totals["n"], QUANTILE_ROWS)
    edges = scan.one(f"SELECT quantile_disc({key}, {levels}) AS q FROM {scan.rows} WHERE {drawn('position', one_in)}")[
        "q"
    ]
    place = " + ".join(f"CAST({key} > {int(edge)} AS INTEGER)" for edge in sorted(set(edges or ()))) or "0"
    said = f"strftime(make_timestamp({{}}), '{_TIME}')" if key == "us" else "CAST({} AS VARCHAR)"
    rows = scan.connection.execute(
        f"""SELECT {said.format(f"min({key})")}, {said.format(f"max({key})")}, count(reward), avg(reward),
            coalesce(var_samp(reward), 0) FROM {scan.rows} WHERE {key} IS NOT NULL AND reward IS NOT NULL
            GROUP BY {place} ORDER BY min({key})"""
    ).fetchall()
    binary = totals["rewarded"] == totals["binary"]
    buckets = []
    for first, last, n, mean, variance in rows:
        low, high = interval(mean, variance, n, binary)
        buckets.append(
            Bucket(
                first=first,
                last=last,
                decisions=n,
                reward=mean,
                low=mean if low is None else low,
                high=mean if high is None else high,
            )
        )
    return tuple(buckets), *_drift([(n, mean, variance) for _, _, n, mean, variance in rows], totals)


def _drift(buckets: list[tuple[int, float, float]], totals: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Spread of the bucket means, noise taken off, in units of the mean; and the chi-squared test that it is noise."""
    from scipy.special import chdtrc

    n = sum(count for count, _, _ in buckets)
    inside = sum((count - 1) * variance for count, _, variance in buckets)
    if len(buckets) < 2 or n <= len(buckets) or inside <= 0:
        return None, None
    noise = inside / (n - len(buckets))
    mean = sum(count * value for count, value, _ in buckets) / n
    between = sum(count * (value - mean) ** 2 for count, value, _ in buckets)
    spread = math.sqrt(max(0.0, between - (len(buckets) - 1) * noise) / n)
    one_sign = totals["reward_low"] >= 0 or totals["reward_high"] <= 0
    unit = abs(mean) if one_sign and mean else math.sqrt(noise)
    return spread / unit, float(chdtrc(len(buckets) - 1, between / noise))


def describe_times(scan: Scan, totals: Mapping[str, Any]) -> Times:
    """Range and order of the timestamps; one scan into at most `STRETCHES` groups."""
    if not totals["timed"]:
        return Times(known=0, missing=totals["n"], first=None, last=None, out_of_order=0, stretches=0, stretch=1)
    span = totals["last_position"] - totals["first_position"] + 1
    stretch = thin(span, STRETCHES)
    row = scan.one(
        f"""SELECT count(*) AS stretches, count(*) FILTER (low < before) AS late FROM (
            SELECT low, max(high) OVER (ORDER BY place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM (SELECT (position - ?) // {stretch} AS place, min(us) AS low, max(us) AS high
                  FROM {scan.rows} WHERE us IS NOT NULL GROUP BY place))""",
        [totals["first_position"]],
    )
    ends = scan.one(
        f"SELECT strftime(make_timestamp(?), '{_TIME}') AS first, strftime(make_timestamp(?), '{_TIME}') AS last",
        [totals["first_us"], totals["last_us"]],
    )
    return Times(
        known=totals["timed"],
        missing=totals["n"] - totals["timed"],
        first=ends["first"],
        last=ends["last"],
        out_of_order=row["late"],
        stretches=row["stretches"],
        stretch=stretch,
    )
