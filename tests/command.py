"""The command line in a process of its own, as a person would use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def counterplay(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, before a wide terminal."""
    return subprocess.run(
        [sys.executable, "-m", "counterplay.cli", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
