"""Requests and outputs, made up."""

from __future__ import annotations

from typing import Any

from counterplay.logs.outputs import Output


def request(**changes: Any) -> dict[str, Any]:
    return {"operation": "loglikelihood", "model": "m", "dtype": "float32", "prompts": ["a", "b"], **changes}


def output(status: str = "ok", value: float = -1.5, **changes: Any) -> Output:
    return Output(request=request(**changes), response={"logprobs": [value]}, status=status, provenance={"date": "d"})
