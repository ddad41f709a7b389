"""Speed and memory of the estimators: beside the dense formulation and vw-estimators, and how they grow.

- dense: 20 policies over 100 actions by IPS, SNIPS and DR with 95 % intervals, beside the dense formulation of obp
  (`dense_estimators.py`), on one thread each. Its time is twenty times that of its fastest policy. Ours takes pi of the
  logged action and the sum of pi times prediction; "with gathering" makes these from the same dense arrays, block by
  block. Making the dense arrays is nobody's time. Memory: what a process of its own reaches above one that has imported
  everything and evaluated a thousand decisions; inputs count.
- grids: 20 values of a parameter against one, one policy. policies: 100 policies against one. Both from arrays, which
  are checked when evidence is made of them; and of evidence that was checked before ("checked").
- Cressie-Read: value and interval, beside vw-estimators, which adds decisions one by one in Python.
- stream: chunks of a million decisions through `Statistic.add` in a process of its own; shards merged in random orders.
- clusters: decisions in pairs against decisions alone, in memory and in ten chunks.
- bootstrap: 1,000 Poisson replicates.

Times are the least of several turns, both sides taking turns. Ours uses all cores where not said otherwise.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import numpy as np
from common import arguments, finish, table
from dense_estimators import Feedback, with_deviation, with_resampling
from numpy.typing import NDArray

from counterplay.estimators import Estimate, Evidence, Statistic, evaluate, fold_shards, statistic_of
from counterplay.estimators.intervals import Bounds, Resampling

Array = NDArray[np.float64]

ESTIMATORS = ("ips", "snips", "dr")
POLICIES, ACTIONS = 20, 100
GATHERED = 2048
"""Rows of dense arrays gathered at once."""

GRIDS: dict[str, Array] = {
    "clipped_ips": np.geomspace(1, 100, 20),
    "subgaussian_ips": np.geomspace(1e-3, 1, 20),
    "switch_dr": np.geomspace(1, 100, 20),
    "dros": np.geomspace(1, 10_000, 20),
}


def drawn(n: int, policies: int = 1, seed: int = 0, **fields: Any) -> Evidence:
    """A log whose weights are lognormal with mean 1: one in a thousand above 13, one in a million above 70."""
    rng = np.random.default_rng(seed)
    propensity = 10 ** rng.uniform(-3, -0.3, n)
    target, q_target = np.empty((policies, n)), np.empty((policies, n))
    for p in range(policies):
        np.minimum(1, propensity * np.exp(rng.standard_normal(n) - 0.5), out=target[p])
        rng.random(out=q_target[p])
    reward, q_logged = (rng.random(n) < 0.3).astype(np.float64), rng.random(n)
    return Evidence(reward=reward, propensity=propensity, target=target, q_logged=q_logged, q_target=q_target, **fields)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turns(works: Mapping[str, Callable[[], object]], count: int) -> dict[str, float]:
    """The least seconds of each in so many turns, taken one after the other; the first turn is not counted."""
    for work in works.values():
        work()
    found = [{name: seconds(work) for name, work in works.items()} for _ in range(count)]
    return {name: min(turn[name] for turn in found) for name in works}


def one_thread() -> Any:
    """Our estimators ask for the number of cores."""
    return patch.object(os, "cpu_count", return_value=1)


def _reached(task: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    evaluate(drawn(1000), ESTIMATORS)
    found = task(*given)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, found


def alone(task: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """The peak of resident memory in MB of a process that does only this, and what it found.

    To be called while this process is small itself: a child is born with its parent's peak.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_reached, task, *given).result()


def feedback(n: int) -> tuple[Feedback, np.random.Generator]:
    """A log of uniformly drawn actions and a dense reward model."""
    rng = np.random.default_rng(0)
    action = rng.integers(0, ACTIONS, n)
    reward = (rng.random(n) < 0.3).astype(np.float64)
    return Feedback(action, reward, np.full(n, 1 / ACTIONS), rng.random((n, ACTIONS, 1))), rng


def dense_policy(n: int, rng: np.random.Generator) -> Array:
    """Probabilities (n, actions, 1)."""
    policy = rng.random((n, ACTIONS, 1))
    policy /= policy.sum(axis=1, keepdims=True)
    return policy


def gathered(log: Feedback, policy: Array) -> tuple[Array, Array]:
    """(n,) pi of the logged action, and the sum of pi times prediction."""
    target, q_target = np.empty(len(log.action)), np.empty(len(log.action))
    for start in range(0, len(target), GATHERED):
        rows = slice(start, start + GATHERED)
        here = policy[rows, :, 0]
        target[rows] = here[np.arange(len(here)), log.action[rows]]
        np.einsum("na,na->n", here, log.predicted[rows, :, 0], out=q_target[rows])
    return target, q_target


def dense_memory(n: int) -> object:
    """The dense formulation of one policy: the next one takes its place."""
    log, rng = feedback(n)
    return with_deviation(log, dense_policy(n, rng))


def own_memory(n: int, policies: int, calls: int) -> object:
    """Ours, policies in so many calls."""
    return [evaluate(drawn(n, policies // calls, seed), ESTIMATORS) for seed in range(calls)][-1]


def streamed_memory(n: int, policies: int, chunk: int) -> object:
    """Ours, all policies together, the log in chunks."""
    return streamed(n, policies, chunk)[1].estimate()


def memory(n: int) -> dict[str, float]:
    """Print the memory of the dense formulation and of ours; the ratios."""
    idle, _ = alone(int)
    chunk = n // 10
    found = {
        "dense, one policy after another": alone(dense_memory, n)[0] - idle,
        "ours, one policy after another": alone(own_memory, n, POLICIES, POLICIES)[0] - idle,
        "ours, 20 policies at once": alone(own_memory, n, POLICIES, 1)[0] - idle,
        f"ours, 20 policies, chunks of {chunk:,}": alone(streamed_memory, n, POLICIES, chunk)[0] - idle,
    }
    table([f"{n:,} decisions, {ACTIONS} actions", "MB"], [[name, f"{peak:,.0f}"] for name, peak in found.items()])
    dense, alike, at_once, in_chunks = found.values()
    return {
        "memory_dense_over_ours": dense / alike,
        "memory_dense_one_policy_over_ours_20": dense / at_once,
        "memory_dense_one_policy_over_ours_20_in_chunks": dense / in_chunks,
    }


def dense(n: int, policies: int) -> dict[str, float]:
    """Print times of 20 policies; each turn has one dense policy, which is also one of ours."""
    log, rng = feedback(n)
    q_logged = log.predicted[np.arange(n), log.action, 0]
    target, q_target = np.empty((POLICIES, n)), np.empty((POLICIES, n))

    def own() -> list[Estimate]:
        evidence = Evidence(
            reward=log.reward, propensity=log.pscore, target=target, q_logged=q_logged, q_target=q_target
        )
        return evaluate(evidence, ESTIMATORS)

    found, apart = [], 0.0
    for p in range(policies):
        policy = dense_policy(n, rng)
        theirs = with_deviation(log, policy)
        # Those that are still to come are the same as this one until then.
        target[p:], q_target[p:] = gathered(log, policy)
        ours = own()[len(ESTIMATORS) * p :]
        apart = max(apart, *(abs((o.value or 0) / value - 1) for o, (value, _, _) in zip(ours, theirs, strict=False)))
        turn = {
            "gathering": POLICIES * seconds(partial(gathered, log, policy)),
            "deviation": POLICIES * seconds(partial(with_deviation, log, policy)),
            "resampling": POLICIES * seconds(partial(with_resampling, log, policy)),
            "all cores": seconds(own),
        }
        with one_thread():
            found.append({**turn, "ours": seconds(own)})
    least = {name: min(turn[name] for turn in found) for name in found[0]}
    with_gathering = least["ours"] + least["gathering"]
    rows = {
        "dense, interval by resampling (obp)": least["resampling"],
        "dense, interval by deviation, unchecked": least["deviation"],
        "ours with gathering": with_gathering,
        "ours": least["ours"],
        "ours, all cores": least["all cores"],
    }
    table([f"20 policies, {n:,} decisions, one thread", "s"], [[name, f"{took:.3f}"] for name, took in rows.items()])
    print(f"values differ by {apart:.1e} relative at most")
    return {
        "time_obp_over_ours": least["resampling"] / least["ours"],
        "time_obp_over_ours_with_gathering": least["resampling"] / with_gathering,
        "time_dense_unchecked_over_ours": least["deviation"] / least["ours"],
        "time_dense_unchecked_over_ours_with_gathering": least["deviation"] / with_gathering,
    }


def of_arrays(fields: Mapping[str, Any], estimators: str | Sequence[str]) -> list[Estimate]:
    """Evidence made, and so checked, and evaluated."""
    return evaluate(Evidence(**fields), estimators)


def grids(sizes: list[int]) -> dict[str, float]:
    """Print times of 20 values of a parameter and of one; the ratios."""
    rows, ratios = [], {}
    for n in sizes:
        evidence = drawn(n)
        for name, values in GRIDS.items():
            grid = [f"{name}({value:.4g})" for value in values]
            needed = ("reward", "propensity", "target", *(() if name.endswith("ips") else ("q_logged", "q_target")))
            fields = {field: getattr(evidence, field) for field in needed}
            works = {
                "one": partial(of_arrays, fields, grid[10]),
                "all": partial(of_arrays, fields, grid),
                "one, checked": partial(evaluate, evidence, grid[10]),
                "all, checked": partial(evaluate, evidence, grid),
            }
            took = turns(works, 7 if n < 5_000_000 else 3)
            row = [name, f"{n:,}"]
            for checked in ("", ", checked"):
                one, twenty = took[f"one{checked}"], took[f"all{checked}"]
                place = f"at_{n // 1_000_000}_million{checked.replace(', ', '_')}"
                ratios[f"{name}_20_over_1_{place}"] = twenty / one
                row += [f"{one * 1e3:.1f}", f"{twenty * 1e3:.1f}", f"{twenty / one:.2f}"]
            rows.append(row)
    head = ["values of a parameter", "decisions", "1, ms", "20, ms", "ratio", "1 checked", "20 checked", "ratio"]
    table(head, rows)
    return ratios


def many_policies(n: int) -> dict[str, float]:
    """Print times of 100 policies and of one; the ratios."""
    evidence = drawn(n, 100)
    first = evidence.part(slice(None), slice(0, 1))
    names = ("reward", "propensity", "target", "q_logged", "q_target")
    one, hundred = ({name: getattr(part, name) for name in names} for part in (first, evidence))
    works = {
        "1": partial(of_arrays, one, ESTIMATORS),
        "100": partial(of_arrays, hundred, ESTIMATORS),
        "1 checked": partial(evaluate, first, ESTIMATORS),
        "100 checked": partial(evaluate, evidence, ESTIMATORS),
    }
    with one_thread():
        single = turns(works, 3)
    took = turns(works, 5)
    rows = [[p, f"{single[p] * 1e3:.1f}", f"{took[p] * 1e3:.1f}"] for p in works]
    table([f"policies, {n:,} decisions", "one thread, ms", "all cores, ms"], rows)
    return {
        "policies_100_over_1": took["100"] / took["1"],
        "policies_100_over_1_one_thread": single["100"] / single["1"],
        "policies_100_over_1_checked": took["100 checked"] / took["1 checked"],
        "policies_100_over_1_checked_one_thread": single["100 checked"] / single["1 checked"],
    }


def cressie_read(n: int, few: int) -> dict[str, float]:
    """Print decisions a second of value and interval; the ratio."""
    from estimators.bandits import cressieread  # noqa: TID251

    evidence = drawn(n)
    part = evidence.part(slice(0, few))
    logged, target, reward = (a.tolist() for a in (part.propensity, part.target[0], part.reward) if a is not None)

    def ours(evidence: Evidence = evidence) -> list[Estimate]:
        return evaluate(evidence, "cressie_read", interval="empirical_likelihood", bounds=Bounds(reward=(0, 1)))

    def peer() -> list[float]:
        interval = cressieread.Interval(rmin=0, rmax=1)
        for propensity, r, pi in zip(logged, reward, target, strict=True):
            interval.add_example(propensity, r, pi)
        return list(interval.get(0.05))

    took = turns({"ours": ours, "vw-estimators": peer}, 4)
    rates = {"ours": n / took["ours"], "vw-estimators": few / took["vw-estimators"]}
    table(
        ["Cressie-Read, decisions a second", "million"], [[name, f"{rate / 1e6:.2f}"] for name, rate in rates.items()]
    )
    (one,) = ours(part)
    low, high = peer()
    print(f"ends differ by {max(abs((one.low or 0) - low), abs((one.high or 0) - high)):.1e} at most")
    return {"cressie_read_over_peer": rates["ours"] / rates["vw-estimators"]}


def streamed(n: int, policies: int, chunk: int) -> tuple[float, Statistic]:
    """Seconds of checking and adding all chunks, without those of making them; and the statistic."""
    took, statistic = 0.0, None
    for batch in _chunks(n, policies, chunk):
        started = time.perf_counter()
        fields = {name: getattr(batch, name) for name in ("reward", "propensity", "target", "q_logged", "q_target")}
        checked = Evidence(**fields)
        statistic = statistic_of(checked, ESTIMATORS) if statistic is None else statistic.add(checked)
        took += time.perf_counter() - started
    assert statistic is not None
    return took, statistic


def _chunks(n: int, policies: int, chunk: int) -> Iterator[Evidence]:
    for start in range(0, n, chunk):
        yield drawn(min(chunk, n - start), policies, seed=start)


def _seconds_of_stream(n: int) -> float:
    return streamed(n, 1, 1_000_000)[0]


def stream(n: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Print the rate and the peak memory of a long log; ratios and sizes."""
    peak, took = alone(_seconds_of_stream, n)
    rows = [[f"{n:,}", f"{n / took / 1e6:.0f}", f"{peak:,.0f}"]]
    table(["streamed, chunks of a million", "million/s", "peak MB, with Python"], rows)
    return {}, {
        "stream_decisions": n,
        "stream_million_a_second": round(n / took / 1e6),
        "stream_peak_megabytes": round(peak),
    }


def merging(n: int, shards: int, orders: int) -> dict[str, float]:
    """Print how far shards merged in random orders are from the whole."""
    rng = np.random.default_rng(1)
    whole = drawn(n, 3)
    truth = evaluate(whole, ESTIMATORS)
    cuts = np.sort(rng.choice(np.arange(1, n), shards - 1, replace=False))
    parts = [statistic_of(whole.part(slice(a, b)), ESTIMATORS) for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    apart = 0.0
    for _ in range(orders):
        heap = list(parts)
        while len(heap) > 1:
            i, j = rng.choice(len(heap), 2, replace=False)
            merged = heap[i].merge(heap[j])
            heap = [part for k, part in enumerate(heap) if k not in (i, j)] + [merged]
        for one, other in zip(truth, heap[0].estimate(), strict=True):
            for name in ("value", "std_error", "low", "high"):
                apart = max(apart, abs(getattr(other, name) / getattr(one, name) - 1))
    print(f"{shards} shards of {n:,} decisions merged in {orders} random orders: {apart:.1e} relative at most")
    return {"merged_times_1e12": apart * 1e12}


def clusters(n: int) -> dict[str, float]:
    """Print times of clustered decisions and of the same without clusters; the ratios."""
    plain = drawn(n)
    paired = replace(plain, cluster=np.arange(n) // 2)

    def in_chunks(evidence: Evidence) -> list[Estimate]:
        parts = (evidence.part(slice(start, start + n // 10)) for start in range(0, n, n // 10))
        return fold_shards(parts, ESTIMATORS).estimate()

    works = {
        "alone": partial(evaluate, plain, ESTIMATORS),
        "in pairs": partial(evaluate, paired, ESTIMATORS),
        "alone, ten chunks": partial(in_chunks, plain),
        "in pairs, ten chunks": partial(in_chunks, paired),
    }
    took = turns(works, 3)
    table([f"{n:,} decisions, three estimators", "ms"], [[name, f"{one * 1e3:.0f}"] for name, one in took.items()])
    return {
        "clustered_over_alone": took["in pairs"] / took["alone"],
        "clustered_over_alone_in_chunks": took["in pairs, ten chunks"] / took["alone, ten chunks"],
    }


def bootstrap(n: int) -> dict[str, int]:
    """Print decisions a second of 1,000 replicates of three estimators."""
    found = {}
    for policies, size in ((1, n), (20, n // 4)):
        evidence = drawn(size, policies)
        work = partial(evaluate, evidence, ESTIMATORS, interval="percentile", resampling=Resampling())
        took = turns({"": work}, 2)
        found[policies] = size / took[""]
    rows = [[str(policies), f"{rate:,.0f}"] for policies, rate in found.items()]
    table(["policies, 3 estimators, 1,000 replicates", "decisions a second"], rows)
    return {f"bootstrap_decisions_a_second_{policies}_policies": round(rate) for policies, rate in found.items()}


def main() -> None:
    quick = arguments(__doc__).quick
    # Children first: they are born with their parent's peak of memory.
    ratios = memory(200_000 if quick else 1_000_000)
    print()
    more, sizes = stream(10_000_000 if quick else 100_000_000)
    ratios |= more
    print()
    ratios |= merging(300_000, 40, 5)
    print()
    ratios |= grids([1_000_000] if quick else [1_000_000, 10_000_000])
    print()
    ratios |= many_policies(200_000 if quick else 1_000_000)
    print()
    ratios |= cressie_read(1_000_000 if quick else 10_000_000, 50_000 if quick else 200_000)
    print()
    ratios |= clusters(200_000 if quick else 1_000_000)
    print()
    sizes |= bootstrap(20_000 if quick else 100_000)
    print()
    ratios |= dense(200_000 if quick else 1_000_000, 3 if quick else 5)
    finish("estimators_speed", ratios, sizes)


if __name__ == "__main__":
    main()
