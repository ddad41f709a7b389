"""Rejection replay of LinUCB from a uniform log on one thread, beside coba, obp, mabwiser and Vowpal Wabbit.

A million decisions (100,000 with ``--quick``), 10 actions, contexts of 20 dimensions, made-up rewards linear in the
context. Everybody's LinUCB has a ridge model for each action (penalty 1, width 1, no intercept) and learns from each
accepted decision at once; ours also in batches of 32. The peers in Python read a slice of the log and are compared by
rate. How they are called, and how to install them: `peers_replay`.

Vowpal Wabbit has no LinUCB: its rows are linear models of its own for each action, learned by its default (mtr),
exploring as the row says; `--explore_eval` is its rejection replay, the others learn from every decision. It reads the
whole log from its binary cache, made beforehand; it parses in a thread of its own, so beside the processor seconds of
both threads there is a row by the clock.

Times are processor seconds, which others on the machine disturb less than the clock, and the least of several turns
(one for the peers in Python). "accepted" and "reward": of the decisions read.
Where both read the same slice in the same order, ours must accept exactly what mabwiser does: both break ties by the
lowest action.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import arguments, finish, table
from peers_replay import AbsentError, Run, UniformLog, coba_loop, mabwiser_loop, obp_loop, vw_pass, write_vw
from threadpoolctl import threadpool_limits

from counterplay.logs.log import Log
from counterplay.replay.agents import LinUCB
from counterplay.replay.history import Replay
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.single import replay_rejection

ARMS, WIDTH = 10, 20
AGENT = LinUCB(width=1.0, ridge=1.0, dimensions=WIDTH, intercept=False)
PEERS = {"coba": (coba_loop, 2_000), "obp": (obp_loop, 20_000), "mabwiser": (mabwiser_loop, 10_000)}
VW = {
    "explore_eval, epsilon 0.1": "--explore_eval --epsilon 0.1",
    "explore_eval, squarecb": "--explore_eval --squarecb",
    "epsilon 0.1": "--epsilon 0.1",
    "squarecb": "--squarecb",
}


def made_up(count: int) -> UniformLog:
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((count, WIDTH), dtype=np.float32)
    truth = rng.standard_normal((ARMS, WIDTH)) / WIDTH**0.5
    actions = rng.integers(0, ARMS, count)
    rewards = 0.5 + 0.2 * np.einsum("nd,nd->n", contexts, truth[actions]) + 0.1 * rng.standard_normal(count)
    return UniformLog(contexts=contexts, actions=actions, rewards=rewards, arms=ARMS)


def prepared(log: UniformLog) -> PreparedLog:
    count, names = len(log.actions), [str(i) for i in range(len(log.actions))]
    return PreparedLog(
        Log(
            name="made up", regime="propensity", decision_ids=names, context=np.arange(count, dtype=np.int32),
            context_ids=names, context_features=log.contexts, action_labels=[f"a{k}" for k in range(log.arms)],
            action_features=None, candidates=None, action=log.actions.astype(np.int32),
            propensity=np.full(count, 1 / log.arms), reward=log.rewards, cost=np.full(count, np.nan),
            cluster=np.arange(count), outcomes=None, fingerprint="made up",
        )
    )  # fmt: skip


def ours(ready: PreparedLog, batch: int) -> tuple[Run, Replay]:
    started = time.process_time()
    replay = replay_rejection(ready, AGENT, order="logged", batch=batch)
    took = time.process_time() - started
    assert replay.acceptance is not None
    read, accepted = replay.acceptance.read, replay.acceptance.accepted
    return Run(seconds=took, events=read, accepted=accepted, reward=float(replay.reward.mean())), replay


def all_ours(log: UniformLog, count: int) -> dict[str, Run]:
    """Ours, the first time on a log and afterwards."""
    ours(prepared(log.first(1000)), 1)  # the first time it is compiled
    started = time.process_time()
    ready = prepared(log)
    first, _ = ours(ready, 1)
    whole = replace(first, seconds=time.process_time() - started)
    found = {
        "ours, learning at once": min((ours(ready, 1)[0] for _ in range(count)), key=lambda run: run.seconds),
        "ours, batches of 32": min((ours(ready, 32)[0] for _ in range(count)), key=lambda run: run.seconds),
    }
    return {**found, "ours, preparing the log": whole}


def all_peers(log: UniformLog, shorter: int) -> tuple[dict[str, Run], list[str]]:
    """The peers that are there; why the others are not."""
    found, absent = {}, []
    for name, (loop, count) in PEERS.items():
        try:
            found[name] = loop(log.first(count // shorter))
        except AbsentError as error:
            absent.append(f"skipped {error}")
    return found, absent


def all_vw(log: UniformLog, explorations: dict[str, str], count: int) -> tuple[dict[str, Run], list[str]]:
    """Passes over VW's cache, by exploration."""
    if find_spec("vowpalwabbit") is None:
        return {}, ["skipped vowpalwabbit: not installed (uv pip install vowpalwabbit)"]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "log.vw"
        write_vw(log, text)
        vw_pass(text, "--epsilon 0.1")
        for name, flags in explorations.items():
            clock, processor, said = vw_pass(text, flags, turns=count)
            loss, updates = (re.search(rf"{what} = (\S+)", said) for what in ("average loss", "update count"))
            assert loss is not None
            for row, seconds in ((name, processor), (f"{name}, by the clock", clock)):
                found[f"vw, {row}"] = Run(
                    seconds=seconds,
                    events=len(log.actions),
                    accepted=round(float(updates[1])) if updates else len(log.actions),
                    reward=-float(loss[1]),
                )
    return found, []


def agree(log: UniformLog, peers: dict[str, Run]) -> None:
    """Say whether ours accepts on mabwiser's slice what mabwiser accepts."""
    if "mabwiser" in peers:
        theirs = peers["mabwiser"]
        same, _ = ours(prepared(log.first(theirs.events)), 1)
        print(
            f"mabwiser's slice: ours accepts {same.accepted}, mabwiser {theirs.accepted}; "
            f"mean rewards {same.reward:.6f} and {theirs.reward:.6f}"
        )


def main() -> None:
    quick = arguments(__doc__).quick
    log = made_up(100_000 if quick else 1_000_000)
    with threadpool_limits(1, user_api="blas"):
        found = all_ours(log, 5)
        peers, absent = all_peers(log, 2 if quick else 1)
        others, more = all_vw(log, dict(list(VW.items())[:2]) if quick else VW, 1 if quick else 3)
        rates = {name: run.events / run.seconds for name, run in {**found, **peers, **others}.items()}
        mine = rates["ours, learning at once"]
        table(
            ["LinUCB, 10 actions, 20 features", "events", "s", "events/s", "ours over it", "accepted", "reward"],
            [
                [name, f"{run.events:,}", f"{run.seconds:.3f}", f"{rates[name]:,.0f}", f"{mine / rates[name]:.1f}",
                 f"{run.accepted:,}", f"{run.reward:.4f}"]
                for name, run in {**found, **peers, **others}.items()
            ],
        )  # fmt: skip
        agree(log, peers)
    print(*absent, *more, sep="\n")
    ratios = {
        f"ours_over_{name.replace(', ', '_').replace(' ', '_')}": mine / rates[name] for name in (*peers, *others)
    }
    finish(
        "rejection_replay",
        {"million_events_a_second": mine / 1e6, **ratios},
        {"decisions": len(log.actions), "actions": ARMS, "features": WIDTH},
    )


if __name__ == "__main__":
    main()
