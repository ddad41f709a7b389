"""The house keeps its floors, its front doors and its promises about imports."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import counterplay

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "counterplay"

MAY_IMPORT = {
    "errors": set(),
    "compiled": set(),
    "estimators": {"errors", "compiled"},
    "logs": {"errors"},
    "llm": {"errors", "compiled", "logs"},
    "replay": {"errors", "logs", "estimators"},
    "reports": {"errors", "logs", "estimators"},
    "demo": {"errors", "logs", "llm", "replay", "reports"},
    "cli": {"errors", "logs", "llm", "replay", "reports", "demo"},
}


def _imports(module: Path) -> set[str]:
    """The rooms that a module imports, wherever in it the import stands."""
    rooms = set()
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: import by full name, not relative"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("counterplay.")}
    return rooms


def _modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("module", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_floors_below(module: Path) -> None:
    room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    foreign = _imports(module) - {room} - MAY_IMPORT[room]
    assert not foreign, f"{room} must not import {', '.join(sorted(foreign))}"


def test_only_the_llm_room_names_torch() -> None:
    for module in _modules():
        if "llm" in module.relative_to(PACKAGE).parts:
            continue
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"torch", "transformers", "sentence_transformers"}


@pytest.mark.parametrize("name", ["replay", "estimators", "logs"])
def test_the_folders_at_the_top_level_are_links_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("counterplay") / name


@pytest.mark.parametrize("room", ["counterplay", "counterplay.replay", "counterplay.logs", "counterplay.estimators"])
def test_every_name_that_a_front_door_lists_is_there(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {room} as room\nfor name in room.__all__: getattr(room, name)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = counterplay.nothing


@pytest.mark.parametrize("command", ["import counterplay", "from counterplay.cli import app"])
def test_the_start_loads_nothing_heavy(command: str) -> None:
    heavy = {"torch", "numba", "duckdb", "polars", "pyarrow", "scipy", "matplotlib", "transformers", "numpy"}
    code = f"import sys\n{command}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())


def test_replay_logs_estimators_reports_and_demo_never_load_torch() -> None:
    rooms = [
        "counterplay.replay.run", "counterplay.logs", "counterplay.estimators.comparison", "counterplay.reports",
        "counterplay.demo.build",
    ]  # fmt: skip
    code = f"import sys, importlib\n[importlib.import_module(n) for n in {rooms}]\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_its_data_and_stays_small(tmp_path: Path) -> None:
    # A copy is built: a build leaves its work beside the source, and stale work would find its way into the next wheel.
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "counterplay", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["uv", "build", "--wheel", "--out-dir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": path},
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 8_000_000
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"counterplay"}
    for needed in ("py.typed", "demo/triage.toml", "demo/triage-logged.toml"):
        assert f"counterplay/{needed}" in names
    for folder in ("demo/data", "reports/templates", "llm/prompts"):
        assert any(name.startswith(f"counterplay/{folder}/") for name in names), folder
