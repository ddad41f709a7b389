"""Whatever a log of another tool holds: every row is kept or in quarantine, and the same log again adds nothing."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from counterplay.errors import CounterplayError, FileError
from counterplay.logs import (
    ImportReport,
    Workspace,
    import_coba,
    import_dsjson,
    import_obd,
    import_obp,
    open_workspace,
    read_interactions,
    read_log,
    read_quarantine,
    to_obp,
)

FEW = settings(max_examples=17, deadline=None, suppress_health_check=list(HealthCheck))
ODD_NUMBERS = st.sampled_from([0, -0.0, 1, 0.5, -1, 2, 1.5, 1e-300, 1e300, np.nan, np.inf, -np.inf, 2**63, 10**40])
ODD_WORDS = st.sampled_from(["", "a", "0.5", "1", "x'\"; --", "a\x00b", "\x00", "é½", "\ud800", "\n"])
SCALARS = st.one_of(ODD_NUMBERS, ODD_WORDS, st.none(), st.booleans(), st.integers(-2, 3), st.text(max_size=4))
NONSENSE = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with open_workspace(tmp_path_factory.mktemp("shared") / "w.duckdb") as workspace:
        yield workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


class UndoneError(Exception):
    """Rolls an example back, which is faster than removing what it wrote."""


def check(workspace: Workspace, bring: Callable[[], ImportReport], rows: int, sound: int = 0) -> None:
    """Import twice into a new log: the counts add up, what is kept is sound, and nothing is added the second time.

    `sound`: how many rows at least nothing can be said against.
    """

    def look_and_undo() -> None:
        with workspace.transaction():
            look(workspace, bring, rows, sound)
            raise UndoneError

    with pytest.raises(UndoneError):
        look_and_undo()


def look(workspace: Workspace, bring: Callable[[], ImportReport], rows: int, sound: int) -> None:
    first, second = bring(), bring()
    assert first.rows_read == second.rows_read == rows
    assert first.rows_read == first.rows_kept + first.rows_quarantined
    assert first.rows_kept >= sound
    assert (second.rows_kept, second.rows_known) == (0, first.rows_kept)
    assert second.rows_quarantined == first.rows_quarantined
    log = read_log(workspace, "l")
    assert len(log.decision_ids) == len(set(log.decision_ids)) == first.rows_kept
    assert np.isfinite(log.reward).all()
    assert ((log.action >= 0) & (log.action < len(log.action_labels))).all()
    if first.regime == "propensity":
        assert ((log.propensity > 0) & (log.propensity <= 1)).all()
    if log.candidates is not None:
        assert (log.candidates == log.action[:, None]).any(axis=1).all()
    if log.context_features is not None:
        assert np.isfinite(log.context_features).all()
    lines = read_quarantine(workspace, "l")["line"]
    assert lines.n_unique() == len(lines) == first.rows_quarantined


def attempt(workspace: Workspace, bring: Callable[[], ImportReport], rows: int) -> None:
    """As `check`, for what may also be refused as a whole; nothing is left of it then."""
    try:
        check(workspace, bring, rows)
    except CounterplayError:
        assert workspace.connection.execute("SELECT count(*) FROM logs").fetchall() == [(0,)]


MULTI = [{"id": "x", "F": {"t": 1}}, {"id": "y", "F": {"t": 2}}]
EVENT = {
    "_label_cost": -1,
    "_label_probability": 0.25,
    "_label_Action": 2,
    "_labelIndex": 1,
    "EventId": "first",
    "Timestamp": "2024-03-01T10:00:00Z",
    "a": [2, 1],
    "c": {"User": 7, "_multi": MULTI},
    "p": [0.25, 0.75],
}
ENTRIES = {
    "_label_cost": st.one_of(ODD_NUMBERS, ODD_WORDS),
    "_label_probability": st.one_of(ODD_NUMBERS, ODD_WORDS),
    "_label_Action": st.sampled_from([1, 2, 3, 0, -1, 1.5, 1e30, -1e30, 2**62, "2", "two", None]),
    "_labelIndex": st.sampled_from([0, 1, 7, 1e30, "x", None]),
    "EventId": st.sampled_from(["first", "", "one", 1, "\x00", "é"]),
    "Timestamp": ODD_WORDS,
    "a": st.lists(st.sampled_from([1, 2, 3, 0, -1, 1.5, 2**63, "1", None]), max_size=3),
    "p": st.lists(st.one_of(ODD_NUMBERS, st.none()), max_size=3),
    "pdrop": st.sampled_from([0, 1, -1, "x", np.nan, 1e300, None]),
    "_skipLearn": st.sampled_from([True, False, 0, 1, "true", None]),
    "_outcomes": NONSENSE,
    "c": st.one_of(
        st.sampled_from([{}, {"_multi": {}}, {"_multi": []}, {"_multi": [1, None, "x"]}, {"_multi": [MULTI, MULTI]}]),
        st.fixed_dictionaries({"_multi": st.lists(NONSENSE, max_size=3)}),
        st.fixed_dictionaries({"_multi": st.just(MULTI), "User": NONSENSE}),
        st.fixed_dictionaries({"User": NONSENSE, "_multi": st.just([MULTI[1], {"id": ""}, *MULTI[:1]])}),
        st.fixed_dictionaries({"User": st.just({"_multi": [1]}), "_multi": st.just(MULTI)}),
    ),
}


FAULTS = [*((name,) for name in ENTRIES), ("_label_Action", "_labelIndex"), ("a", "p"), ("c", "a")]


@st.composite
def events(draw: st.DrawFn) -> str:
    """A line of a decision-service log: a sound event with some of its entries replaced or gone, perhaps torn."""
    event: dict[str, Any] = {**EVENT, "EventId": draw(st.sampled_from(["1", "2", "3"]))}
    for name in draw(st.sampled_from(FAULTS)):
        event[name] = draw(NONSENSE if draw(st.integers(0, 7)) == 7 else ENTRIES[name])
    event.pop(draw(st.sampled_from(["", "", "", "", *EVENT])), None)
    text = json.dumps(event, ensure_ascii=draw(st.booleans()))
    cut = draw(st.sampled_from([*[None] * 12, 20, len(text) // 2, len(text) - 1]))
    return text[:cut]


NO_EVENTS = st.sampled_from(["[1]", "3", "{", "{}", "null", '"x"', "nul", '{"EventId": "1", "RewardValue": 1}', "{}{}"])


@FEW
@given(
    lines=st.lists(st.one_of(events(), events(), events(), NO_EVENTS), min_size=1, max_size=10),
    blanks=st.sampled_from(["\n", "\n\n", "\r\n", "\n  \n"]),
    identify=st.sampled_from(["features", "position", "/id", "/F/t"]),
)
@example(lines=[json.dumps(EVENT | {"EventId": "2", "_label_Action": 1e30})], blanks="\n", identify="position")
def test_events_of_any_dsjson_file_are_kept_or_quarantined(
    shared: Workspace, folder: Path, lines: list[str], blanks: str, identify: str
) -> None:
    path = folder / "any.dsjson"
    path.write_bytes(blanks.join([json.dumps(EVENT), *lines]).encode("utf-8", "surrogatepass"))
    check(shared, lambda: import_dsjson(path, shared, "l", identify=identify), 1 + len(lines), sound=1)


def test_half_a_place_is_not_rounded_to_another_action(shared: Workspace, folder: Path) -> None:
    path = folder / "half.dsjson"
    path.write_text("\n".join(json.dumps(EVENT | changes) for changes in ({}, {"EventId": "2", "a": [1.5, 1]})))

    def bring() -> ImportReport:
        report = import_dsjson(path, shared, "l")
        assert report.rows_quarantined == 1
        return report

    check(shared, bring, 2)


CELLS = {
    "timestamp": st.one_of(st.sampled_from(["2019-11-24 00:00:01+00:00", "1e30", "-5"]), ODD_WORDS),
    "item_id": st.sampled_from(["0", "1", "2", "3", "-1", "1.0", "01", "", "x", "\x00"]),
    "position": st.one_of(st.sampled_from(["1", "2", "3", "0", "01", "1.0", "٣", "²", "-1", "9" * 5000]), ODD_WORDS),
    "click": st.one_of(st.sampled_from(["0", "1", "true", "", "x"]), ODD_NUMBERS.map(repr)),
    "propensity_score": st.one_of(st.sampled_from(["0.5", "0.25", "", "x"]), ODD_NUMBERS.map(repr)),
    "user_feature_0": st.one_of(st.sampled_from(["m", "f", "=", ",", "%2C"]), ODD_WORDS, st.text(max_size=3)),
    "user_feature_1": st.sampled_from(["u", "v", ""]),
    "user-item_affinity_0": st.sampled_from(["0", "1.5"]),
    "user-item_affinity_1": st.sampled_from(["0", "", "x", "nan", "1e300"]),
}
SHOWN = dict(zip(CELLS, ["2019-11-24 00:00:01+00:00", "1", "3", "1", "0.25", "m", "u", "0", "2"], strict=True))
ITEMS = "item_id,item_feature_0,item_feature_1\n0,0.5,red\n1,-1,blue\n"


@FEW
@given(
    rows=st.lists(st.fixed_dictionaries(CELLS) | st.just(SHOWN), max_size=6),
    torn=st.lists(st.sampled_from(["a,0.5", "x", "1,2,3,4,5,6,7,8,9,10,11", ",,,,,,,,"]), max_size=2),
    items=st.booleans(),
    affinities=st.booleans(),
)
def test_rows_of_any_campaign_are_kept_or_quarantined(
    shared: Workspace, folder: Path, rows: list[dict[str, str]], torn: list[str], items: bool, affinities: bool
) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(CELLS), quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    writer.writerows([SHOWN, *rows])
    path = folder / "campaign" / "all.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((text.getvalue() + "\n".join(torn)).encode("utf-8", "surrogatepass"))
    (path.parent / "item_context.csv").unlink(missing_ok=True)
    if items:
        (path.parent / "item_context.csv").write_text(ITEMS)
    check(shared, lambda: import_obd(path, shared, "l", affinities=affinities), 1 + len(rows) + len(torn), sound=1)


@FEW
@given(
    gone=st.sets(st.sampled_from(["timestamp", "user_feature", "affinity"])),
    more=st.lists(st.sampled_from(["", "click", "item_feature_0", "position=1", "\x00"]), max_size=1),
    rows=st.lists(st.lists(ODD_WORDS, min_size=9, max_size=10), max_size=2),
    items=st.none() | st.lists(st.sampled_from(["0,1", "1,", '"', "", "1,1e300", "0,nan", "٣,x", "\x00,1", "0,½,2"])),
)
def test_what_is_no_campaign_is_refused_or_quarantined(
    shared: Workspace, folder: Path, gone: set[str], more: list[str], rows: list[list[str]], items: list[str] | None
) -> None:
    place = folder / "none"
    place.mkdir(exist_ok=True)
    names = [name for name in CELLS if not any(part in name for part in gone)]
    lines = [[*names, *more], [SHOWN[name] for name in names] + more, *rows]
    text = "\n".join(",".join(cells[: len(lines[0])]) for cells in lines)
    (place / "all.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
    (place / "item_context.csv").unlink(missing_ok=True)
    if items is not None:
        (place / "item_context.csv").write_text("\n".join(["item_id,item_feature_0", *items]))

    def bring() -> None:
        with shared.transaction():
            report = import_obd(place, shared, "l")
            assert report.rows_read == report.rows_kept + report.rows_quarantined
            raise UndoneError

    with pytest.raises((UndoneError, CounterplayError)):
        bring()


def arrays(shape: Any, elements: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.float64, shape, elements=elements)


FLOATS = st.sampled_from([0.5, 1, 0, -1, 2, 1.5, 1e-300, 1e300, np.nan, np.inf, -np.inf, -0.0])


@st.composite
def rounds(draw: st.DrawFn) -> dict[str, Any]:
    """Bandit feedback whose arrays fit each other and hold anything."""
    n, actions, positions = draw(st.integers(1, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    flat = positions == 1 and draw(st.booleans())
    usual = np.full((n, actions) if flat else (n, actions, positions), 1 / actions)
    numbers = arrays(n, FLOATS)
    position = arrays(n, st.sampled_from([0, 0, 1, 2, 3, -1, 0.5, np.nan, np.inf]))
    return {
        "n_actions": actions,
        "context": draw(arrays((n, draw(st.integers(1, 2))), FLOATS)),
        "action": draw(arrays(n, st.one_of(st.sampled_from([0, 1, 2]), FLOATS, st.just(2.0**63)))),
        "reward": draw(numbers),
        "pscore": draw(st.one_of(st.none(), numbers, st.just(np.full(n, 1 / actions)))),
        "position": draw(position if positions > 1 else st.none() | position),
        "pi_b": draw(st.one_of(st.none(), st.just(usual), arrays(usual.shape, FLOATS))),
        "action_context": draw(st.none() | arrays((actions, 2), st.floats(-1, 1, width=32))),
    }


@FEW
@given(feedback=rounds())
def test_rounds_of_any_feedback_are_kept_or_quarantined(shared: Workspace, feedback: dict[str, Any]) -> None:
    check(shared, lambda: import_obp(feedback, shared, "l"), len(feedback["action"]))


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
KINDS = ["i8", "u8", "f2", "f8", "?", "U3", "M8[s]", "c16", "O", "g", "S2"]
NO_ARRAYS = st.one_of(
    NONSENSE,
    st.just(object()),
    SHAPES.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=FLOATS)),
    st.builds(lambda shape, kind: np.ones(shape, int).astype(kind), SHAPES, st.sampled_from(KINDS)),
)


@FEW
@given(
    feedback=rounds(),
    changes=st.dictionaries(st.sampled_from(["n_rounds", "other"]) | SCALARS, NO_ARRAYS),
    data=st.data(),
)
def test_what_is_no_feedback_is_refused_or_quarantined(
    shared: Workspace, feedback: dict[str, Any], changes: dict[str, Any], data: st.DataObject
) -> None:
    changed = data.draw(st.lists(st.sampled_from(list(feedback)), min_size=1, max_size=2, unique=True))
    given = {**feedback, **changes, **{name: data.draw(NO_ARRAYS) for name in changed}}
    action = given["action"]
    attempt(
        shared, lambda: import_obp(given, shared, "l"), len(action) if isinstance(action, list) else np.size(action)
    )


@FEW
@given(feedback=rounds(), place=st.floats(0, 1), patch=st.binary(max_size=4), cut=st.booleans(), data=st.booleans())
def test_a_damaged_npz_file_is_refused_or_quarantined(
    shared: Workspace, folder: Path, feedback: dict[str, Any], place: float, patch: bytes, cut: bool, data: bool
) -> None:
    path = folder / "damaged.npz"
    save = np.savez_compressed if data else np.savez
    save(path, **{name: value for name, value in feedback.items() if value is not None})
    whole = path.read_bytes()
    at = int(place * len(whole))
    path.write_bytes(whole[:at] + patch + (b"" if cut else whole[at + len(patch) :]))
    attempt(shared, lambda: import_obp(path, shared, "l"), len(feedback["action"]))


@st.composite
def valid_feedback(draw: st.DrawFn) -> dict[str, Any]:
    """Feedback that obp could have made; features are what single precision holds."""
    n, actions, positions = draw(st.integers(1, 8)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    single = st.floats(-(2.0**100), 2.0**100, width=32)
    position = draw(hnp.arrays(np.int64, n, elements=st.integers(0, positions - 1)))
    action = draw(hnp.arrays(np.int64, n, elements=st.integers(0, actions - 1)))
    weights = draw(arrays((n, actions, positions), st.floats(0.01, 1)))
    pi_b = weights / weights.sum(axis=1, keepdims=True)
    return {
        "n_rounds": n,
        "n_actions": actions,
        "context": draw(arrays((n, draw(st.integers(1, 3))), single)),
        "action": action,
        "position": position if positions > 1 else None,
        "reward": draw(arrays(n, st.floats(-1e300, 1e300))),
        "pscore": pi_b[np.arange(n), action, position],
        "pi_b": pi_b,
        "action_context": draw(st.none() | arrays((actions, draw(st.integers(1, 2))), single)),
    }


@FEW
@given(feedback=valid_feedback(), dropped=st.sets(st.sampled_from(["pscore", "pi_b"])))
def test_feedback_comes_out_of_a_log_as_it_went_in(
    shared: Workspace, feedback: dict[str, Any], dropped: set[str]
) -> None:
    positions = feedback["pi_b"].shape[2]
    if "pi_b" in dropped and positions > 1:
        # Without a distribution the positions are as many as there are in the rounds.
        positions = 1 + int(feedback["position"].max())
        feedback["position"] = feedback["position"] if positions > 1 else None
    without = {name: None if name in dropped else value for name, value in feedback.items()}

    def go_and_undo() -> None:
        with shared.transaction():
            assert import_obp(without, shared, "l").rows_kept == feedback["n_rounds"]
            out = to_obp(read_log(shared, "l"), positions=positions)
            for name, value in feedback.items():
                if name == "pi_b" or value is None or dropped == {"pscore", "pi_b"} == {name, "pi_b"}:
                    assert out[name] is None
                else:
                    np.testing.assert_array_equal(out[name], value, err_msg=name)
            raise UndoneError

    with pytest.raises(UndoneError):
        go_and_undo()


class Endless:
    """A sequence of itself."""

    def __iter__(self) -> Iterator[Any]:
        return iter([self])


class Sparse:
    """A mapping that says no more than what its items are."""

    def items(self) -> Any:
        return {"x": 1}.items()


OBJECTS = st.one_of(
    st.sampled_from([object(), object, dict, list, Endless(), Sparse(), 1j, b"ab", {1, 2}, {1: 2}, {"x": {None: 1}}]),
    st.sampled_from([np.float32(1), np.int64(2), np.bool_(True), *(np.ones(shape) for shape in ((), 0, 1, 2, (2, 2)))]),
    st.sampled_from([np.array(["a"]), range(2), [10**400, 1], [1e300, 1], "a\x00", 0.1, True]),
)
THINGS = st.one_of(NONSENSE, OBJECTS)
USUAL = {"context": [1, 2], "action": "b", "reward": 0.5, "probability": 0.25, "actions": ["a", "b"]}
VECTORS = [[1, 0], [0, 1]]


@st.composite
def interactions(draw: st.DrawFn) -> Any:
    base = draw(st.sampled_from([USUAL, USUAL | {"action": VECTORS[0], "actions": VECTORS}]))
    changes = draw(st.dictionaries(st.sampled_from(list(base)), THINGS, max_size=2))
    row = base | changes
    for name in draw(st.lists(st.sampled_from(list(base)), max_size=1)):
        row.pop(name)
    if draw(st.booleans()) and isinstance(row.get("actions"), list):
        row["actions"] = [*row["actions"], draw(THINGS), row.get("action")]
    return row


@FEW
@given(
    rows=st.lists(interactions() | THINGS.filter(lambda one: not hasattr(one, "read")), max_size=6),
    context=st.one_of(st.just([1, 2]), st.just("hot"), THINGS),
    vectors=st.booleans(),
)
def test_any_interactions_are_kept_or_quarantined(
    shared: Workspace, rows: list[Any], context: Any, vectors: bool
) -> None:
    first = USUAL | {"context": context} | ({"action": VECTORS[0], "actions": VECTORS} if vectors else {})
    check(shared, lambda: import_coba([first, *rows], shared, "l"), 1 + len(rows))


@FEW
@given(
    rows=st.lists(st.one_of(NONSENSE, st.fixed_dictionaries(dict.fromkeys(USUAL, NONSENSE))), max_size=6),
    lines=st.lists(
        st.sampled_from(["{", "nul", "[" * 20_000, "9" * 5000, "NaN", "\x00", "{}{}"]) | st.binary(), max_size=4
    ),
)
def test_lines_of_any_file_of_interactions_are_kept_or_quarantined(
    shared: Workspace, folder: Path, rows: list[Any], lines: list[str | bytes]
) -> None:
    path = folder / "any.jsonl"
    texts = [json.dumps(one).encode() for one in (USUAL, *rows)]
    texts += [one.encode() if isinstance(one, str) else one for one in lines]
    path.write_bytes(b"\n".join(texts))
    count = sum(bool(line.decode("utf-8", "replace").strip()) for line in path.read_bytes().split(b"\n"))
    check(shared, lambda: import_coba(read_interactions(path), shared, "l"), count)


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_what_python_cannot_even_show_is_quarantined(shared: Workspace) -> None:
    things = [10**5000, [10**5000, "b"], _nested(100_000)]
    rows = [USUAL | {name: thing} for name in USUAL for thing in things]
    check(shared, lambda: import_coba([USUAL, *rows, *things], shared, "l"), 1 + len(rows) + len(things), sound=1)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-12], lambda _: b"none", lambda whole: whole[:20] + b"\xff" * 20]
)
def test_a_damaged_gz_file_of_interactions_is_refused(
    shared: Workspace, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = folder / "damaged.jsonl.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(USUAL).encode() * 100)))
    with pytest.raises(FileError, match="cut short or not of the kind"):
        import_coba(read_interactions(path), shared, "l")
