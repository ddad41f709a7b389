"""`counterplay cache`, as a person would use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from counterplay.logs import open_workspace
from counterplay.logs.outputs import Output, canonical_json, export_outputs, put_outputs
from tests.command import counterplay

REQUEST = {"operation": "generate", "model": "large", "prompt": "Say yes.", "sampling": {"max_tokens": 24}}


def output(answer: str = "yes", status: str = "ok", **changes: object) -> Output:
    provenance = {"date": "2026-11-21", "input_tokens": 3}
    return Output(request={**REQUEST, **changes}, response={"texts": [answer]}, status=status, provenance=provenance)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    with open_workspace(tmp_path / "desk.duckdb") as opened:
        put_outputs(opened.connection, [output(), output(status="truncated", sampling={"max_tokens": 1})])
    return tmp_path


def test_stats_are_a_table_or_json(desk: Path) -> None:
    done = counterplay(desk, "cache", "stats", "desk.duckdb")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("large", "truncated", "tokens in", "2026-11-21"))
    assert "2 outputs; 1 prompts stand in more than one request" in done.stdout
    assert "sampling.max_tokens: differs in 1 of the 1 prompts" in done.stdout
    done = counterplay(desk, "cache", "stats", "desk.duckdb", "--json")
    found = json.loads(done.stdout)
    assert found["outputs"] == 2
    assert [(group["status"], group["input_tokens"]) for group in found["groups"]] == [("ok", 3), ("truncated", 3)]
    assert found["repeated"]["fields"] == {"sampling.max_tokens": 1}


def test_a_miss_is_explained_and_ends_with_1(desk: Path) -> None:
    (desk / "request.json").write_text(json.dumps({**REQUEST, "sampling": {"max_tokens": 25}}))
    done = counterplay(desk, "cache", "explain", "desk.duckdb", "request.json")
    assert done.returncode == 1, done.stderr
    assert "differs in sampling.max_tokens: asked 25, stored" in done.stdout
    (desk / "request.json").write_text(json.dumps(REQUEST))
    done = counterplay(desk, "cache", "explain", "desk.duckdb", "request.json")
    assert (done.returncode, done.stdout.endswith("is stored, and is served.\n")) == (0, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("explain", "desk.duckdb"), "either a JSON file"),
        (("explain", "desk.duckdb", "request.json", "--log", "march"), "either a JSON file"),
        (("explain", "desk.duckdb", "--log", "march"), "either a JSON file"),
        (("explain", "desk.duckdb", "absent.json"), "cannot be read as a request"),
        (("explain", "desk.duckdb", "list.json"), "holds no request"),
        (("explain", "absent.duckdb", "request.json"), "no workspace"),
        (("verify", "desk.duckdb", "--live", "3"), "--model"),
        (("verify", "desk.duckdb", "--live", "3", "--model", "m", "--remove"), "never stored or removed"),
        (("import", "list.json", "--into", "new.duckdb"), "no Parquet file"),
        (("export", "desk.duckdb", "out.parquet", "--model", "larg"), "Did you mean 'large'"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(desk: Path, words: tuple[str, ...], says: str) -> None:
    (desk / "list.json").write_text("[]")
    (desk / "request.json").write_text("{}")
    done = counterplay(desk, "cache", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (desk / "new.duckdb").exists()
    assert not (desk / "out.parquet").exists()


def test_outputs_go_from_one_workspace_to_another(desk: Path) -> None:
    done = counterplay(desk, "cache", "export", "desk.duckdb", "cache.parquet")
    assert (done.returncode, done.stdout) == (0, "wrote 2 outputs to cache.parquet\n"), done.stderr
    assert counterplay(desk, "cache", "export", "desk.duckdb", "cache.parquet").returncode == 2
    done = counterplay(desk, "cache", "import", "cache.parquet", "--into", "new.duckdb")
    assert done.returncode == 0, done.stderr
    assert "2 outputs: 2 new" in done.stdout
    with open_workspace(desk / "other.duckdb") as opened:
        put_outputs(opened.connection, [output("no")])
    done = counterplay(desk, "cache", "import", "cache.parquet", "--into", "other.duckdb")
    assert done.returncode == 1, done.stderr
    assert f"conflicting: {output().key}" in done.stdout


def test_damaged_outputs_are_named_and_removed_when_asked(desk: Path) -> None:
    assert counterplay(desk, "cache", "verify", "desk.duckdb").returncode == 0
    with open_workspace(desk / "desk.duckdb") as opened:
        changed = canonical_json({**REQUEST, "prompt": "Say no."})
        opened.connection.execute("UPDATE outputs SET request = ? WHERE key = ?", [changed, output().key])
    done = counterplay(desk, "cache", "verify", "desk.duckdb")
    assert done.returncode == 1, done.stderr
    assert "2 outputs: 1 are what they say, 1 damaged, 0 removed" in done.stdout
    assert f"damaged: {output().key}: the key does not belong to the request" in done.stdout
    done = counterplay(desk, "cache", "verify", "desk.duckdb", "--remove")
    assert (done.returncode, "1 removed" in done.stdout) == (0, True)
    with open_workspace(desk / "desk.duckdb") as opened:
        assert export_outputs(opened.connection, desk / "rest.parquet") == 1
