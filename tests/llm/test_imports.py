"""What must work without torch never imports it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "code",
    [
        "import counterplay.demo, counterplay.logs, counterplay.logs.outputs",
        "import counterplay.llm, counterplay.llm.engines.scoring, counterplay.llm.answering",
        "from counterplay.demo.data import load_demo; load_demo().request(0)",
    ],
)
def test_no_torch(code: str) -> None:
    if "load_demo" in code:
        pytest.importorskip("simple_icd_10_cm", reason="the demo's texts need the extra 'demo'")
    check = "import sys; assert not {'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}\n{check}"], check=True, capture_output=True, timeout=120)


def test_without_the_extra_the_message_names_it() -> None:
    code = """
import sys
sys.modules["torch"] = None
from counterplay.errors import MissingExtraError
from counterplay.llm.engines.local import _libraries
try:
    _libraries()
except MissingExtraError as error:
    assert "pip install 'counterplay[llm]'" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)
