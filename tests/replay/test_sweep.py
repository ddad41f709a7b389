"""A sweep that is stopped goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import FileError, HorizonError, WorkspaceBusyError
from counterplay.logs import DecisionArrays, open_workspace, write_choices, write_log
from counterplay.logs.reading import read_choices, read_log
from counterplay.logs.results import read_curves, read_experiments, read_runs, store_results
from counterplay.replay import replay_exact, replay_rejection, run_experiment, sweep
from counterplay.replay.evidence import with_outcomes
from counterplay.replay.experiment import experiment_from
from counterplay.replay.parts import Parts
from counterplay.replay.playing import Played
from counterplay.replay.prepared import PreparedLog
from counterplay.replay.summary import GROUPS, Trace, groups_of, summarise, trace_of
from counterplay.replay.tasks import Material, Task
from tests.command import counterplay
from tests.replay.worlds import world

DECISIONS, SEEDS, TRUTHS = 600, 3, 2
AGENTS: list[dict[str, Any]] = [
    {"kind": "uniform"},
    {"kind": "policy", "name": "model", "policy": "llm"},
    {
        "kind": "hybrid",
        "name": "hybrid",
        "selector": {"kind": "log-barrier", "clip": [0.1, 0.3]},
        "budget": ["none", 9],
    },
]
REPLAYS = 6 * (SEEDS + TRUTHS)


def settings(**changes: Any) -> dict[str, Any]:
    truth = {"truth": "full", "truth_seeds": TRUTHS}
    return {"name": "s", "log": "logged", "method": "rejection", **truth, "seeds": SEEDS, "agents": AGENTS, **changes}


EXACT = settings(method="exact", log="full", truth=None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk") / "desk.duckdb"
    prepared = world(decisions=DECISIONS, shortlist=4, uneven=True)
    log = prepared.log
    known = {
        "context_ids": log.context_ids,
        "action_labels": log.action_labels,
        "context_features": log.context_features,
        "action_features": log.action_features,
    }
    logged = DecisionArrays(
        context=log.context, candidates=log.candidates, action=log.action, propensity=log.propensity, reward=log.reward
    )
    with open_workspace(place) as workspace:
        write_log(workspace, log="full", regime="full", outcomes=log.outcomes, **known)
        write_log(workspace, log="logged", regime="propensity", decisions=logged, **known)
        for name in ("full", "logged"):
            write_choices(workspace, name, "llm", prepared._choices["llm"].actions)
    return place


@pytest.fixture
def desk(built: Path, tmp_path: Path) -> Path:
    shutil.copy(built, tmp_path / "desk.duckdb")
    return tmp_path / "desk.duckdb"


@pytest.fixture(scope="module")
def undisturbed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], str]:
    """The bytes of an experiment that nobody stops, found once."""
    found: dict[str, str] = {}
    place = tmp_path_factory.mktemp("undisturbed") / "desk.duckdb"
    shutil.copy(built, place)

    def run(experiment: dict[str, Any]) -> str:
        key = json.dumps(experiment)
        if key not in found:
            found[key] = written(run_experiment(experiment, workspace=place, workers=1))
        return found[key]

    return run


def written(results: dict[str, Any]) -> str:
    return json.dumps(results, allow_nan=False)


def kept(place: Path) -> list[Path]:
    return sorted(Path(f"{place}.sweep").glob("*/*-*"))


def stopped(desk: Path, experiment: dict[str, Any], at: int, workers: int = 1) -> None:
    """Run an experiment until so many replays are done, and press Ctrl-C."""

    def press(done: int, _total: int, _what: str) -> None:
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, workspace=desk, workers=workers, progress=press)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Task]]:
    """The replays that are played from here on."""
    tasks: list[Task] = []
    play = Material.play

    def counted(self: Material, task: Task, rounds: int | None) -> Any:
        tasks.append(task)
        return play(self, task, rounds)

    monkeypatch.setattr(Material, "play", counted)
    return tasks


# Killed -------------------------------------------------------------------------------------------------------------

KILLED = """
import json, os, signal, sys
from counterplay.replay import parts, run, run_experiment
place, experiment, workers, moment = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def hooked(module, name, times, before):
    inner, calls = getattr(module, name), []
    def hook(*given, **named):
        calls.append(None)
        if before and len(calls) == times:
            die()
        result = inner(*given, **named)
        if not before and len(calls) == times:
            die()
        return result
    setattr(module, name, hook)
if moment == "stored":
    hooked(run, "store_results", 1, False)
elif moment == "storing":
    hooked(run, "store_results", 1, True)
elif moment.startswith("moving"):
    hooked(parts.os, "replace", int(moment.split()[1]), True)
elif moment.startswith("moved"):
    hooked(parts.os, "replace", int(moment.split()[1]), False)
print("ready", flush=True)
run_experiment(experiment, workspace=place, workers=workers)
print("done", flush=True)
"""


def killed(place: Path, experiment: dict[str, Any], moment: str, workers: int = 2) -> None:
    """A process that dies by SIGKILL: after some milliseconds, or when a part or the results are written."""
    words = [sys.executable, "-c", KILLED, str(place), json.dumps(experiment), str(workers), moment]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if moment.isdigit():
        time.sleep(int(moment) / 1000)
        process.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    "experiment", [settings(), pytest.param(EXACT, marks=pytest.mark.slow)], ids=["rejection", "exact"]
)
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    desk: Path, undisturbed: Callable[[dict[str, Any]], str], experiment: dict[str, Any]
) -> None:
    expected = undisturbed(experiment)
    before = run_experiment(settings(name="before", agents=AGENTS[:1], seeds=1), workspace=desk)
    luck = random.Random(len(expected))
    moments = [f"{luck.choice(['moving', 'moved'])} {luck.randint(4, 9)}" for _ in range(2)]
    moments += [str(luck.randint(0, 300)), "storing", "stored"]
    progress = []
    for moment in moments:
        killed(desk, experiment, moment)
        progress.append(len(kept(desk)))
        stored = [one["name"] for one in read_experiments(desk)]
        assert stored == (["before", "s"] if moment == "stored" else ["before"])
        assert read_experiments(desk)[0] == before
    assert progress[0] > 0
    assert written(run_experiment(experiment, workspace=desk, workers=2)) == expected
    assert written(read_experiments(desk)[1]) == expected
    assert not Path(f"{desk}.sweep").exists()


# Interrupted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [settings(), EXACT, settings(horizon=15)], ids=["rejection", "exact", "horizon"])
def test_the_bytes_do_not_depend_on_workers_nor_on_where_it_was_stopped(
    desk: Path, undisturbed: Callable[[dict[str, Any]], str], experiment: dict[str, Any]
) -> None:
    expected = undisturbed(experiment)
    for workers in (2, 5):
        assert written(run_experiment(experiment, workspace=desk, workers=workers)) == expected
    for at in (1, 5, 8, 11, 17):
        if experiment is not EXACT or at < 6 * SEEDS:
            stopped(desk, experiment, at, workers=1 + at % 3)
    assert written(run_experiment(experiment, workspace=desk, workers=2)) == expected


def test_what_is_finished_is_not_played_again_and_ctrl_c_says_how_much_there_is(desk: Path, played: list[Task]) -> None:
    def press(done: int, total: int, _what: str) -> None:
        assert total == REPLAYS
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=rf"of {REPLAYS} replays are finished and kept in .*Run the same"):
        run_experiment(settings(), workspace=desk, workers=2, progress=press)
    before = list(played)
    assert 7 <= len(before) < REPLAYS
    seen: list[int] = []
    run_experiment(settings(), workspace=desk, workers=2, progress=lambda done, *_: seen.append(done))
    assert seen[0] == len(before)
    assert seen[-1] == REPLAYS
    assert len(played) == len(set(played)) == REPLAYS


def test_a_finished_experiment_that_is_started_again_is_replayed_and_replaced(desk: Path, played: list[Task]) -> None:
    first = run_experiment(settings(), workspace=desk)
    assert run_experiment(settings(), workspace=desk) == first
    assert len(played) == 2 * REPLAYS
    assert read_experiments(desk) == [first]
    assert not Path(f"{desk}.sweep").exists()


@pytest.mark.parametrize("change", [{"seeds": 4}, {"batch": 16}, {"first_seed": 1}, {"agents": AGENTS[1:]}])
def test_a_changed_experiment_takes_nothing_from_another(
    desk: Path, undisturbed: Callable[[dict[str, Any]], str], played: list[Task], change: dict[str, Any]
) -> None:
    stopped(desk, settings(), 8)
    others, count = kept(desk), len(played)
    changed = settings(**change)
    assert written(run_experiment(changed, workspace=desk)) == undisturbed(changed)
    assert len(set(played[count:])) >= 5 * (SEEDS + TRUTHS)
    assert kept(desk) == others
    assert written(run_experiment(settings(), workspace=desk)) == undisturbed(settings())


def test_parts_of_another_log_with_the_truth_or_of_other_software_are_dropped(tmp_path: Path) -> None:
    place = tmp_path / "desk.duckdb"
    for origin, there in (({"truth": "a"}, False), ({"truth": "a"}, True), ({"truth": "b"}, False)):
        with Parts(place, "e" * 64, origin) as parts:
            assert (parts.values("replay-0-0") is not None) == there
            parts.keep("replay-0-0", {"rounds": 1})
    with Parts(place, "e" * 16 + "f" * 48, {"truth": "b"}) as parts:
        assert parts.values("replay-0-0") is None


# Damaged, busy, full ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "number", "no part"])
def test_a_damaged_part_is_played_again(
    desk: Path, undisturbed: Callable[[dict[str, Any]], str], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(settings())
    play, left = Material.play, iter(range(27))

    def until_none_is_left(self: Material, task: Task, rounds: int | None) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return play(self, task, rounds)

    with monkeypatch.context() as patched:
        patched.setattr(Material, "play", until_none_is_left)
        with pytest.raises(KeyboardInterrupt):
            run_experiment(settings(), workspace=desk, workers=1)
    assert {file.name.split("-")[0] for file in kept(desk)} == {"agent", "replay", "online"}
    for file in kept(desk):
        content = file.read_bytes()
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        number = content.replace(b'"rounds": ', b'"rounds": -', 1)
        parts = {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "flipped": flipped,
            "number": number,
            "no part": b"0000000000000000[]\n",
        }
        file.write_bytes(parts[damage])
    assert written(run_experiment(settings(), workspace=desk)) == expected


def test_a_part_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"a": np.arange(5), "b": np.linspace(0, 1, 7, dtype=np.float32)}
    with Parts(tmp_path / "w", "e", {}) as parts:
        parts.keep("x", {"n": 1.5, "text": "ä\n"}, columns)
        part = parts.load("x")
        assert part is not None
        assert part.values == {"n": 1.5, "text": "ä\n"}
        for name, column in columns.items():
            assert part.columns[name].dtype == column.dtype
            assert (part.columns[name] == column).all()

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("counterplay.replay.parts.os.replace", full)
        with pytest.raises(FileError, match=r"No space left on device.*free space"):
            parts.keep("x", {"n": 2})
        assert (parts.values("x") or {})["n"] == 1.5
        assert [file.name for file in parts.folder.iterdir() if file.name.startswith(".")] == []
        parts.drop("x", "never there")
        assert parts.load("x") is None


def test_a_full_disk_is_named_and_nothing_is_lost(
    desk: Path, undisturbed: Callable[[dict[str, Any]], str], monkeypatch: pytest.MonkeyPatch, played: list[Task]
) -> None:
    expected = undisturbed(settings())
    played.clear()
    moves, move = [0], os.replace

    def full(source: Any, target: Any) -> None:
        moves[0] += 1
        if moves[0] > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target)

    with monkeypatch.context() as disk:
        disk.setattr("counterplay.replay.parts.os.replace", full)
        with pytest.raises(FileError, match="No space left on device"):
            run_experiment(settings(), workspace=desk, workers=1)
    assert read_experiments(desk) == []
    assert len(kept(desk)) == 7
    count = len(played)
    assert written(run_experiment(settings(), workspace=desk)) == expected
    assert len(played) == REPLAYS + count - 7


def test_a_file_where_the_folder_should_be_is_named(desk: Path) -> None:
    Path(f"{desk}.sweep").write_text("mine")
    with pytest.raises(FileError, match=r"desk\.duckdb\.sweep"):
        run_experiment(settings(), workspace=desk)
    assert Path(f"{desk}.sweep").read_text() == "mine"


def test_the_same_experiment_twice_at_once_is_refused_and_another_one_is_not(desk: Path) -> None:
    entered, leave = threading.Event(), threading.Event()
    done: list[dict[str, Any]] = []

    def wait(*_: object) -> None:
        entered.set()
        leave.wait(60)

    first = threading.Thread(target=lambda: done.append(run_experiment(settings(), workspace=desk, progress=wait)))
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(WorkspaceBusyError, match=f"by process {os.getpid()} "):
            run_experiment(settings(), workspace=desk)
        assert read_experiments(desk) == []
        other = run_experiment(settings(name="other", agents=AGENTS[:1]), workspace=desk)
    finally:
        leave.set()
        first.join()
    assert {one["name"] for one in read_experiments(desk)} == {"s", "other"}
    assert other["name"] == "other"
    assert len(done) == 1


def test_an_experiment_that_would_fail_again_leaves_nothing_behind(desk: Path) -> None:
    with pytest.raises(HorizonError):
        run_experiment(settings(horizon=DECISIONS - 1), workspace=desk)
    assert not Path(f"{desk}.sweep").exists()
    assert read_experiments(desk) == []


# Flat ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [settings(), EXACT], ids=["rejection", "exact"])
def test_no_more_replays_are_in_memory_than_are_being_played(
    desk: Path, monkeypatch: pytest.MonkeyPatch, experiment: dict[str, Any]
) -> None:
    alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
    most = [0]

    def watched(played: Any, seconds: float) -> Any:
        trace = trace_of(played, seconds)
        alive[id(trace)] = trace
        most[0] = max(most[0], len(alive))
        return trace

    monkeypatch.setattr(sweep, "trace_of", watched)
    run_experiment({**experiment, "seeds": 12}, workspace=desk, workers=2)
    assert 1 <= most[0] <= 3


def test_where_the_horizon_is_known_only_the_replays_of_open_agents_are_on_disk(desk: Path) -> None:
    most = [0]

    def count(*_: object) -> None:
        most[0] = max(most[0], sum(file.name.startswith("replay-") for file in kept(desk)))

    run_experiment(EXACT, workspace=desk, workers=2, progress=count)
    assert 1 <= most[0] <= 3 * SEEDS


def test_results_are_stored_from_runs_that_come_one_by_one(desk: Path) -> None:
    results = run_experiment(settings(), workspace=desk)
    runs = [{**run, "curves": read_curves(desk, run["run"])} for run in read_runs(desk, results["experiment"])]
    with open_workspace(desk) as workspace:
        store_results(workspace, results, (run for run in runs for _ in range(1)))
    assert [{**run, "curves": read_curves(desk, run["run"])} for run in read_runs(desk, results["experiment"])] == runs
    assert len(runs) == 6 * SEEDS


# The numbers --------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_replays_themselves_at_the_least_that_any_accepted(desk: Path) -> None:
    experiment = experiment_from(settings())
    with open_workspace(desk, read_only=True) as workspace:
        prepared = PreparedLog(read_log(workspace, "logged"), {"llm": read_choices(workspace, "logged", "llm")})
        full = PreparedLog(
            with_outcomes(prepared.log, read_log(workspace, "full")), {"llm": read_choices(workspace, "logged", "llm")}
        )
    replays = [[replay_rejection(prepared, agent, seed=s) for s in range(SEEDS)] for agent in experiment.agents]
    rounds = min(len(one.reward) for own in replays for one in own)
    group = groups_of(prepared.log.cluster)
    for agent, own, row in zip(
        experiment.agents, replays, run_experiment(experiment, workspace=desk)["agents"], strict=True
    ):
        assert row["rounds"] == rounds
        rewards = np.array([one.reward[:rounds] for one in own])
        assert row["per_seed"] == pytest.approx(rewards.mean(axis=1))
        assert row["std_error_seeds"] == pytest.approx(rewards.mean(axis=1).std(ddof=1) / SEEDS**0.5)
        errors = np.zeros((SEEDS, DECISIONS))
        for s, one in enumerate(own):
            errors[s, one.decision[:rounds]] = one.reward[:rounds] - rewards.mean()
        together, apart = (errors.sum(axis=0) ** 2).sum(), (errors**2).sum()
        assert row["std_error_log"] == pytest.approx(max(0, together - apart) ** 0.5 / (SEEDS * rounds))
        assert row["model_calls"] == np.mean([one.call[:rounds].sum() for one in own])
        assert row["curves"]["p_bandit"][-1] == [
            rounds,
            pytest.approx(np.mean([one.p_bandit[rounds - 1] for one in own])),
        ]
        online = [replay_exact(full, agent, seed=1_000_000 + s, horizon=rounds).reward.mean() for s in range(TRUTHS)]
        assert row["truth"]["value"] == pytest.approx(np.mean(online))
        for s, one in enumerate(own):
            for name, weights in (("rewards", one.reward[:rounds]), ("rounds", np.ones(rounds))):
                sums = [weights[group[one.decision[:rounds]] == g].sum() for g in range(GROUPS)]
                assert row["parts"][name][s] == pytest.approx(sums)


def test_groups_hold_whole_clusters_and_are_of_one_size() -> None:
    cluster = np.random.default_rng(0).integers(0, 200, 5000) * 7
    group = groups_of(cluster)
    assert all(len(set(group[cluster == code])) == 1 for code in np.unique(cluster))
    alone = np.bincount(groups_of(np.arange(1000)), minlength=GROUPS)
    assert set(alone) == {1000 // GROUPS}


def test_a_replay_that_meets_a_decision_twice_counts_it_twice(desk: Path) -> None:
    with open_workspace(desk, read_only=True) as workspace:
        prepared = PreparedLog(read_log(workspace, "logged"), {})
    replay = replay_rejection(prepared, experiment_from(settings()).agents[0])
    trace = trace_of(Played(history=replay), 0.0)
    doubled = trace.__class__(**{**vars(trace), "decision": np.zeros_like(trace.decision)})
    summary = summarise("a", [doubled], np.arange(DECISIONS))
    assert summary.std_error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seeds", [1, 3])
def test_decisions_of_one_cluster_that_say_the_same_say_it_once(seeds: int) -> None:
    def trace(seed: int, copies: int) -> Trace:
        rng = np.random.default_rng(seed)
        decision = np.repeat(rng.permutation(50)[:40] * copies, copies) + np.tile(np.arange(copies), 40)
        reward = np.repeat(rng.random(40), copies)
        zeros = np.zeros(len(decision))
        return Trace(
            seed=seed, decision=decision.astype(np.int32), reward=reward, p_bandit=zeros.astype(np.float32),
            call=zeros.astype(bool), alone=zeros[:0], length=len(zeros), acceptance=None, value=None,
            unsupported=None, prior_calls=0, seconds=0.0,
        )  # fmt: skip

    once = summarise("a", [trace(s, 1) for s in range(seeds)], np.arange(50))
    thrice = summarise("a", [trace(s, 3) for s in range(seeds)], np.arange(150) // 3)
    assert thrice.std_error == pytest.approx(once.std_error, rel=1e-12)
    assert thrice.std_error_log == pytest.approx(once.std_error_log, rel=1e-12)
    apart = summarise("a", [trace(s, 3) for s in range(seeds)], np.arange(150))
    assert apart.std_error < once.std_error


# The command line ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_says_how_to_go_on_and_the_best_is_told_afterwards(desk: Path) -> None:
    file = desk.parent / "long.toml"
    text = 'name = "long"\nworkspace = "desk.duckdb"\nlog = "logged"\nmethod = "rejection"\nseeds = SEEDS\n' + "".join(
        f'[[agents]]\nkind = "hybrid"\nname = "clip {clip}"\nselector = {{kind = "log-barrier", clip = {clip}}}\n'
        for clip in (0.1, 0.5)
    )
    file.write_text(text.replace("SEEDS", "5000"))
    words = [sys.executable, "-m", "counterplay.cli", "run", "long.toml", "--workers", "1"]
    process = subprocess.Popen(words, cwd=desk.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not kept(desk) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 10,000 replays are finished and kept in" in complaint
    assert "goes on from there" in complaint
    assert "Traceback" not in complaint
    file.write_text(text.replace("SEEDS", "4"))
    ran = counterplay(desk.parent, "run", "long.toml", "--out", "out")
    assert ran.returncode == 0, ran.stderr
    for place in ("desk.duckdb", "out/results.json"):
        told = counterplay(desk.parent, "best", place, "long")
        assert told.returncode == 0, told.stderr
        assert "has the highest average reward of 2 configurations" in told.stdout
    plain = json.loads(counterplay(desk.parent, "best", "desk.duckdb", "--json").stdout)
    assert {one["agent"] for one in plain["candidates"]} == {"clip 0.1", "clip 0.5"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("desk.duckdb",), "no results with agents"),
        (("absent.duckdb",), "absent.duckdb"),
        (("absent.json",), "cannot read absent.json"),
        (("broken.json",), "is no JSON file"),
        (("other.json",), "holds no results of experiments"),
        (("two.json",), "holds 2 such experiments: name one. Known: one, two"),
        (("two.json", "onne"), "Did you mean 'one'?"),
        (("twins.json", "one"), "holds 2 such experiments: name one. Known: e0, e1"),
    ],
)
def test_best_says_what_is_wrong(desk: Path, words: tuple[str, ...], message: str) -> None:
    def result(number: int, name: str) -> dict[str, Any]:
        return {"experiment": f"e{number}", "name": name, "agents": [{"agent": "a"}]}

    for name, content in {
        "broken.json": "{",
        "other.json": "[1]",
        "two.json": json.dumps([result(0, "one"), result(1, "two")]),
        "twins.json": json.dumps([result(0, "one"), result(1, "one")]),
    }.items():
        (desk.parent / name).write_text(content)
    done = counterplay(desk.parent, "best", *words)
    assert done.returncode == 2
    assert message in done.stderr
