"""Random numbers inside kernels: the right laws, independent, and the same bits compiled and interpreted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats

from counterplay.replay.kernels.compiled import compiled
from counterplay.replay.kernels.draws import (
    _central_quantile,
    _tail_quantile,
    key_of,
    normal_at,
    uniform_at,
    write_normals,
)


@compiled
def _fill(lucks: NDArray[np.float64], uniforms: NDArray[np.float64], normals: NDArray[np.float64]) -> None:
    for i in range(lucks.shape[0]):
        key = key_of(lucks[i])
        for j in range(uniforms.shape[1]):
            uniforms[i, j] = uniform_at(key, j)
            normals[i, j] = normal_at(key, j)


def _drawn(lucks: NDArray[np.float64], places: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    uniforms, normals = np.empty((len(lucks), places)), np.empty((len(lucks), places))
    _fill(lucks, uniforms, normals)
    return uniforms, normals


# Lucks as alike as they can be, and lucks as a replay has them.
ALIKE = np.arange(1000) * 2.0**-53
USUAL = np.random.default_rng(0).random(1000)


def test_the_uniforms_of_a_key_are_the_published_numbers_of_splitmix64() -> None:
    # The reference program of Vigna, seeded with 1234567; the numbers as Rosetta Code prints them.
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431)
    assert [uniform_at(1234567, j) for j in range(4)] == [(bits >> 11) / 2**53 for bits in published]


@pytest.mark.parametrize("lucks", [ALIKE, USUAL], ids=["alike", "usual"])
def test_uniforms_are_uniform_and_normals_are_normal(lucks: NDArray[np.float64]) -> None:
    uniforms, normals = _drawn(lucks, 200)
    assert ((uniforms >= 0.0) & (uniforms < 1.0)).all()
    assert stats.kstest(uniforms.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normals.ravel(), "norm").pvalue > 1e-3
    # First places of many keys, and many places of one key.
    for some in (normals[:, 0], normals[0], normals[:, 199]):
        assert stats.kstest(some, "norm").pvalue > 1e-3
    n = normals.size
    for power, moment, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0), (6, 15.0, 10170.0)):
        assert abs((normals**power).mean() - moment) < 4.5 * np.sqrt(variance / n)


@pytest.mark.parametrize("lucks", [ALIKE, USUAL], ids=["alike", "usual"])
def test_neighbouring_keys_and_places_know_nothing_of_each_other(lucks: NDArray[np.float64]) -> None:
    for drawn in _drawn(lucks, 200):
        centred = (drawn - drawn.mean()) / drawn.std()
        for here, there in (
            (centred[1:], centred[:-1]),
            (centred[:, 1:], centred[:, :-1]),
            (centred[1:, 1:], centred[:-1, :-1]),
            (centred[1:, :-1], centred[:-1, 1:]),
        ):
            assert abs((here * there).mean()) < 4.5 / np.sqrt(here.size)
            assert abs(((here**2 - 1.0) * (there**2 - 1.0)).mean()) < 4.5 * 2.0 / np.sqrt(here.size)


def test_different_lucks_have_different_keys_and_no_draw_comes_twice() -> None:
    lucks = np.unique(np.concatenate([ALIKE, USUAL]))
    assert len({int(key_of(luck)) for luck in lucks}) == len(lucks)
    uniforms, normals = _drawn(lucks, 100)
    assert len(np.unique(uniforms)) == uniforms.size
    assert len(np.unique(normals)) == normals.size


def test_a_normal_is_the_exact_quantile_of_its_bits() -> None:
    middle, tail = np.linspace(0.075, 0.5 - 1e-9, 3000), np.geomspace(2.0**-54, 0.0749, 3000)
    for quantile, places in ((_central_quantile, middle), (_tail_quantile, tail)):
        found = np.array([quantile(p) for p in places])
        np.testing.assert_allclose(found, special.ndtri(places), rtol=3e-15)


def test_the_tails_are_as_heavy_as_they_should_be_on_both_sides() -> None:
    normals = np.empty(4_000_000)
    write_normals(key_of(0.25), normals)
    for limit in (2.0, 3.0, 4.0, 4.75):
        expected = len(normals) * special.ndtr(-limit)
        for count in ((normals > limit).sum(), (normals < -limit).sum()):
            assert abs(count - expected) < 4.5 * np.sqrt(expected)


def test_normals_written_together_are_those_at_their_places() -> None:
    normals = np.empty(2000)
    for luck in (0.0, 0.3, 1.0 - 2.0**-53):
        key = key_of(luck)
        write_normals(key, normals)
        assert normals.tolist() == [normal_at(key, j) for j in range(2000)]


def test_a_key_is_the_same_key_as_an_integer_of_any_kind() -> None:
    for key in (0, 5, 2**31, 2**63 - 1, key_of(0.9)):
        for kind in (np.int64, np.uint64):
            assert normal_at(key, 3) == normal_at(kind(key), np.int32(3))
            assert uniform_at(key, 3) == uniform_at(kind(key), np.int32(3))


def _told() -> list[str]:
    bits = []
    for luck in (0.0, 2.0**-53, 0.1, 0.5, 0.9, 1.0 - 2.0**-53):
        key = key_of(luck)
        normals = np.empty(1500)
        write_normals(key, normals)
        bits.append(str(int(key)))
        bits.extend(value.hex() for value in normals.tolist())
        for j in (*range(300), 2**31, 2**40):
            bits.extend((float(uniform_at(key, j)).hex(), float(normal_at(key, j)).hex()))
    return bits


def test_the_bits_are_the_same_compiled_and_interpreted() -> None:
    command = [sys.executable, "-W", "error", __file__]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == _told()


if __name__ == "__main__":
    json.dump(_told(), sys.stdout)
