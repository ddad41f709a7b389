"""Confidence sequences beside those of vw-estimators: decisions a second, and widths in units of the t interval.

Speed: one policy that always takes one of ten uniformly logged actions; the time ends with the interval. vw-estimators
adds decisions one by one in Python; its Cressie-Read interval is timed on the same decisions.

Widths: the mean width over several logs, divided by that of the t interval of IPS, which holds for one look at a length
chosen before. "k known": with the largest weight. "gamma-exponential": the boundary of vw-estimators, by its own code.
"plug-in Bernstein": the predictable plug-in empirical Bernstein bound (Waudby-Smith et al. 2024), here in numpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import arguments, finish, table
from numpy.typing import NDArray

from counterplay.estimators import Evidence, evaluate
from counterplay.estimators.sequences import ConfidenceSequence

Array = NDArray[np.float64]

WORLDS: dict[str, tuple[float, float | None]] = {
    "ten actions, 30 % rewarded": (0.3, 10.0),
    "ten actions, 1 % rewarded": (0.01, 10.0),
    "weights near 1, 50 % rewarded": (0.5, 3.0),
    "heavy weights, 40 % rewarded": (0.4, None),
}
"""name: (rate of reward, largest weight that can occur)."""


def drawn(world: str, n: int, seed: int) -> Evidence:
    """A log of one policy."""
    rng = np.random.default_rng(seed)
    reward = (rng.random(n) < WORLDS[world][0]).astype(np.float64)
    if world.startswith("ten"):
        agrees = rng.random(n) < 0.1
        return Evidence(reward=reward, propensity=np.full(n, 0.1), target=agrees, policies=("p",))
    if world.startswith("weights near"):
        weight = np.where(rng.random(n) < 0.5, 0.5, 1.5)
    else:
        weight = (1 + rng.pareto(2.2, n)) / (2.2 / 1.2)
    return Evidence.of_weights(reward=reward, weights=weight, policies=("p",))


def width(evidence: Evidence, largest_weight: float | None = None) -> float:
    """Of the confidence sequence."""
    sequence = ConfidenceSequence.start(evidence.policies, largest_weight=largest_weight)
    (found,) = sequence.add(evidence).interval()
    return float("nan") if found.low is None or found.high is None else found.high - found.low


def width_of_t(evidence: Evidence) -> float:
    """Of the t interval of IPS."""
    (found,) = evaluate(evidence, "ips")
    assert found.low is not None
    assert found.high is not None
    return found.high - found.low


def peer(interval: Any, evidence: Evidence) -> tuple[float, list[float]]:
    """Seconds and bounds of an interval of vw-estimators."""
    weight, reward = evidence.weight[0].tolist(), evidence.reward.tolist()
    started = time.perf_counter()
    for w, r in zip(weight, reward, strict=True):
        interval.add_example(1.0, r, w)
    bounds = interval.get(0.05)
    return time.perf_counter() - started, bounds


def peers_sequence(evidence: Evidence) -> tuple[float, list[float]]:
    """Seconds and bounds of the confidence sequence of vw-estimators."""
    from estimators.bandits import cs  # noqa: TID251

    return peer(cs.Interval(rmin=0, rmax=1), evidence)


def peers_cressie_read(evidence: Evidence) -> tuple[float, list[float]]:
    """Seconds and bounds of the Cressie-Read interval of vw-estimators."""
    from estimators.bandits import cressieread  # noqa: TID251

    return peer(cressieread.Interval(wmin=0, wmax=10, rmin=0, rmax=1), evidence)


def plug_in_bernstein(outcome: Array, alpha: float) -> float:
    """A lower bound of the mean of outcomes (n,) that are never negative."""
    n, needed = len(outcome), np.log(1 / alpha)
    i = np.arange(1, n + 1)
    before = np.concatenate([[0.0], outcome.cumsum()[:-1]])
    error = (outcome - np.minimum((before + 0.5) / i, 1)) ** 2
    variance = (np.concatenate([[0.0], error.cumsum()[:-1]]) + 0.25) / i
    bet = np.minimum(np.sqrt(2 * needed / (variance * i * np.log1p(i))), 0.5)
    return max(0.0, float((bet @ outcome - needed + (np.log1p(-bet) + bet) @ error) / bet.sum()))


def width_of_bernstein(evidence: Evidence) -> float:
    """Of both plug-in empirical Bernstein bounds."""
    weight, reward = evidence.weight[0], evidence.reward
    return 1 - plug_in_bernstein(weight * (1 - reward), 0.025) - plug_in_bernstein(weight * reward, 0.025)


def width_of_peer(evidence: Evidence) -> float:
    """Of the confidence sequence of vw-estimators."""
    _, (low, high) = peers_sequence(evidence)
    return high - low


def widths(quick: bool) -> dict[str, float]:
    """Print widths divided by that of the t interval; return those of ours divided by the peer's."""
    rows, ratios = [], {}
    for world, (_, k) in WORLDS.items():
        for n, logs in ((100, 40), (1_000, 40), (10_000, 4 if quick else 20), (100_000, 0 if quick else 4)):
            evidences = [drawn(world, n, seed) for seed in range(logs)]
            if not evidences:
                continue
            methods: list[Callable[[Evidence], float]] = [
                width_of_t, width, lambda e, k=k: width(e, k), width_of_peer, width_of_bernstein,
            ]  # fmt: skip
            mean = [float(np.nanmean([method(e) for e in evidences])) for method in methods]
            known = "-" if k is None else f"{mean[2] / mean[0]:.2f}"
            others = [f"{x / mean[0]:.2f}" for x in (mean[1], *mean[3:])]
            rows.append([world, f"{n:,}", f"{mean[0]:.4f}", others[0], known, *others[1:]])
            if n == 10_000:
                ratios[f"width_over_peer_{world.split(' %')[0].replace(', ', '_').replace(' ', '_')}"] = (
                    mean[1] / mean[3]
                )
    table(["width / t", "n", "t", "ours", "ours, k known", "gamma-exponential", "plug-in Bernstein"], rows)
    return ratios


def speed(quick: bool) -> dict[str, float]:
    """Print decisions a second, the best of three turns taken one after the other; return ours over the peers'."""
    many = drawn("ten actions, 30 % rewarded", 2_000_000 if quick else 10_000_000, 0)
    few = many.part(slice(0, 50_000 if quick else 200_000))
    width(few)  # compiles
    best: dict[str, float] = {}
    for _ in range(3):
        started = time.perf_counter()
        width(many)
        ours = time.perf_counter() - started
        started = time.perf_counter()
        width(many, 10.0)
        known = time.perf_counter() - started
        turn = {
            "ours": len(many) / ours,
            "ours, k known": len(many) / known,
            "vw-estimators, confidence sequence": len(few) / peers_sequence(few)[0],
            "vw-estimators, Cressie-Read": len(few) / peers_cressie_read(few)[0],
        }
        best = {name: max(rate, best.get(name, 0.0)) for name, rate in turn.items()}
    table(["decisions a second", "million"], [[name, f"{rate / 1e6:.3f}"] for name, rate in best.items()])
    return {"speed_over_peer": best["ours"] / best["vw-estimators, confidence sequence"],
            "peers_cressie_read_rows_per_second": best["vw-estimators, Cressie-Read"]}  # fmt: skip


def main() -> None:
    quick = arguments(__doc__).quick
    ratios = speed(quick)
    print()
    ratios |= widths(quick)
    cressie_read = ratios.pop("peers_cressie_read_rows_per_second")
    finish("confidence_sequences", ratios, {"peers_cressie_read_rows_per_second": round(cressie_read)})


if __name__ == "__main__":
    main()
