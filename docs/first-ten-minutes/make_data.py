"""Writes decisions.csv and router.csv: a made-up support desk that sends each ticket to one of three helpers.

The desk liked `small` for most tickets and tried the others at random; the router would send outages and invoices to
`large`. Six rows are broken, as in real exports.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

HELPERS = ("small", "large", "human")
TOPICS = {"password": (0.8, 0.82, 0.9), "invoice": (0.35, 0.7, 0.85), "outage": (0.2, 0.6, 0.8)}
BROKEN = {
    40: {"pscore": "0"},
    41: {"pscore": ""},
    500: {"solved": "maybe"},
    900: {"helper": ""},
    1200: {"pscore": "60"},
    1700: {"solved": ""},
}


def main() -> None:
    rng = np.random.default_rng(7)
    here = Path(__file__).parent
    topics = list(TOPICS)
    with (here / "decisions.csv").open("w", newline="") as file, (here / "router.csv").open("w", newline="") as routes:
        tickets = csv.writer(file, lineterminator="\n")
        choices = csv.writer(routes, lineterminator="\n")
        tickets.writerow(["event_id", "context_id", "timestamp", "customer", "text", "helper", "pscore", "solved"])
        choices.writerow(["context_id", "action"])
        for i in range(2000):
            topic = topics[rng.choice(3, p=(0.5, 0.3, 0.2))]
            shares = (0.6, 0.3, 0.1) if topic == "password" else (0.4, 0.4, 0.2)
            chosen = rng.choice(3, p=shares)
            row = {
                "event_id": f"e{i + 1}",
                "context_id": f"t{i + 1}",
                "timestamp": f"2026-03-{1 + i // 70:02}T{8 + i % 70 // 7:02}:{i % 7 * 8:02}:00Z",
                "customer": f"c{rng.integers(400) + 1}",
                "text": f"Help, it is about my {topic}",
                "helper": HELPERS[chosen],
                "pscore": f"{shares[chosen]:g}",
                "solved": str(int(rng.random() < TOPICS[topic][chosen])),
            }
            tickets.writerow((row | BROKEN.get(i, {})).values())
            choices.writerow([row["context_id"], "small" if topic == "password" else "large"])


if __name__ == "__main__":
    main()
