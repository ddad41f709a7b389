"""Small results with every case that a report must show, made by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest


def curve(last: float, rounds: int = 200) -> list[list[float]]:
    return [[t, last * t / rounds] for t in range(10, rounds + 1, 10)]


def agent(name: str, reward: float, settings: dict[str, Any], *, calls: float = 0.0, **more: Any) -> dict[str, Any]:
    return {
        "agent": name,
        "settings": {"name": name, **settings},
        "seeds": 3,
        "rounds": 200,
        "average_reward": reward,
        "low": reward - 0.02,
        "high": reward + 0.02,
        "std_error": 0.01,
        "std_error_seeds": 0.006,
        "std_error_log": 0.008,
        "model_calls": calls,
        "model_share": calls / 200,
        "final_p_bandit": 0.9,
        "per_seed": [reward, reward, reward],
        "acceptance": None,
        "truth": None,
        "curves": {
            "average_reward": curve(reward),
            "model_calls": curve(calls),
            "p_bandit": curve(0.9),
        },
        **more,
    }


def hybrid(name: str, reward: float, selector: str, **more: Any) -> dict[str, Any]:
    settings = {"kind": "hybrid", "models": ["llm"], "selector": {"kind": selector}, "budget": None}
    return agent(name, reward, settings, calls=20.0, **more)


def agents(logged: bool = False) -> list[dict[str, Any]]:
    found = [
        agent("uniform", 0.01, {"kind": "uniform"}),
        agent("embedding prior", 0.40, {"kind": "policy", "policy": "nearest", "calls": False}),
        agent("LLM alone", 0.21, {"kind": "policy", "policy": "llm", "calls": True}, calls=200.0),
        agent("bandit", 0.07, {"kind": "bandit", "start": "zero"}),
        agent("prior bandit", 0.41, {"kind": "bandit", "start": "embedding-prior"}, std_error_seeds=None),
        *(hybrid(f"hybrid {i}", 0.30 + 0.002 * i, ("polynomial", "log-barrier")[i % 2]) for i in range(6)),
    ]
    if logged:
        for i, one in enumerate(found):
            exact = one["average_reward"] + (0.03 if i == 0 else 0.005)
            one["truth"] = {"value": exact, "std_error": 0.004, "seeds": 40, "covered": i != 0}
            one["acceptance"] = {
                "constant": 0.1, "read": 2000.0, "accepted": 200.0, "expected": 199.5, "violations": 0.0, "excess": 0.0,
            }  # fmt: skip
    return found


def estimate(policy: str, estimator: str, value: float | None, **more: Any) -> dict[str, Any]:
    known = value is not None
    low, high = (value - 0.02, value + 0.02) if value is not None else (None, None)
    return {
        "policy": policy, "estimator": estimator, "value": value, "low": low, "high": high, "level": 0.95, "n": 1000,
        "std_error": 0.01 if known else None, "gate": "ok" if known else "unreliable",
        "reason": "" if known else "the log has no propensities", "truth": 0.2, "covered": True if known else None,
        "diagnostics": {
            "n": 1000, "units": 1000, "effective_sample_size": 512.3, "largest_weight": 10.0,
            "largest_weight_share": 0.01, "mean_weight": 1.02,
            "mean_weight_p": 0.4, "share_zero_weight": 0.9, "share_without_support": 0.0,
            "pareto_k": None, "note": "no Pareto k: the largest weights take a few values only",
        },
        **more,
    }  # fmt: skip


def difference(policy: str, estimator: str, value: float | None) -> dict[str, Any]:
    row = estimate(policy, estimator, value)
    del row["diagnostics"]
    low, high = row["low"], row["high"]
    p = None if value is None else 0.0001
    return {**row, "baseline": "uniform", "low_all": low, "high_all": high, "p_value": p, "p_holm": p, "p_max_t": p}


def result(name: str, experiment: str, *, logged: bool) -> dict[str, Any]:
    method = "rejection" if logged else "exact"
    return {
        "experiment": experiment * 64,
        "name": name,
        "definition": {
            "name": name, "log": "desk", "method": method, "seeds": 3, "order": "shuffled", "horizon": None,
            "truth": "full" if logged else None, "truth_seeds": 40,
            "estimate": {"estimators": ["ips", "dr"], "frozen": ["bandit"]} if logged else None,
        },
        "log": {
            "name": "desk", "regime": "propensity" if logged else "full", "decisions": 2000, "actions": 30,
            "hash": "ab" * 32,
        },
        "outputs_hash": "cd" * 32,
        "agents": agents(logged),
        "estimates": [
            estimate("uniform", "ips", 0.05, truth=0.055),
            estimate("embedding prior", "ips", 0.39, truth=0.45, covered=False, gate="caution", reason="a heavy tail"),
            estimate("LLM alone", "ips", None),
            estimate("uniform", "dr", 0.05, truth=0.055),
            estimate("embedding prior", "dr", 0.44, truth=0.45),
            estimate("LLM alone", "dr", 0.2, truth=None, covered=None),
        ] if logged else [],
        "comparisons": [
            difference("embedding prior", "ips", 0.3),
            difference("LLM alone", "ips", None),
            difference("embedding prior", "dr", -0.3),
        ] if logged else [],
    }  # fmt: skip


_RESULTS = [result("Full information", "1", logged=False), result("One action logged", "2", logged=True)]


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return copy.deepcopy(_RESULTS)
