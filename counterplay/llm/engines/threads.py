"""How the threads of a model's library wait for each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "OMP_WAIT_POLICY"


@contextmanager
def patient_threads() -> Iterator[None]:
    """To be around the first import of a library that computes with OpenMP, which reads the policy then.

    Its threads meet some hundred times a token. Where another process has one of their processors, waiting actively
    makes each meeting last until that process is through: beside a busy process on two cores, Gemma 3 270M then took 19
    times as long. A policy that the user has set is left alone; other libraries need not have ours.
    """
    told = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = told or "PASSIVE"
    try:
        yield
    finally:
        if told is None:
            del os.environ[VARIABLE]
