"""Random numbers inside kernels: pure functions of a key, so that luck stays a function of (seed, decision, purpose).

A caller has one uniform for a decision (or a batch); ``key_of`` turns it into a key, and ``uniform_at`` and
``normal_at`` give as many independent numbers as wanted at the places j = 0, 1, ... of that key. They are the outputs
of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) started at the key, and the same bits compiled and interpreted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from counterplay.replay.kernels.compiled import compiled

# Python integers never overflow and compiled ones wrap around: after the mask both are the same 64 bits.
_MASK = 0xFFFFFFFFFFFFFFFF
_STEP = 0x9E3779B97F4A7C15
_TAIL = 0.075


@compiled
def _bits_at(key: int, j: int) -> np.uint64:
    """Output j (from 0) of splitmix64 started at ``key``, at least 0."""
    bits = (int(np.uint64(key)) + (int(np.uint64(j)) * _STEP & _MASK) + _STEP) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return np.uint64(bits ^ (bits >> 31))


@compiled
def key_of(luck: float) -> int:
    """The key of a uniform draw: 63 of its mixed bits.

    Not 64: a compiled function gives Python a number beyond 2^63 that it would not take back.
    """
    return int(np.int64(int(_bits_at(int(np.float64(luck).view(np.int64)), 0)) >> 1))


@compiled
def uniform_at(key: int, j: int) -> float:
    """The number in [0, 1) at the place ``j``, at least 0, of a key: a multiple of 2^-53."""
    return (int(_bits_at(key, j)) >> 11) * 2.0**-53


@compiled
def normal_at(key: int, j: int) -> float:
    """The standard normal number at the place ``j``, at least 0, of a key, within +-8.3.

    Made of the same bits as ``uniform_at(key, j)``: use other places, or another key, where both are needed.
    """
    bits = int(_bits_at(key, j))
    p = _tail_probability(bits)
    value = _tail_quantile(p) if p < _TAIL else _central_quantile(p)
    return -value if bits & 1 else value


@compiled
def write_normals(key: int, out: NDArray[np.float64]) -> None:
    """Write ``normal_at(key, j)`` of every place j into ``out`` `(D,)`.

    First as if none were in a tail, which needs no branch and so runs on vector instructions, then the tails.
    """
    for j in range(out.shape[0]):
        bits = int(_bits_at(key, j))
        value = _central_quantile(_tail_probability(bits))
        out[j] = -value if bits & 1 else value
    for j in range(out.shape[0]):
        bits = int(_bits_at(key, j))
        p = _tail_probability(bits)
        if p < _TAIL:
            value = _tail_quantile(p)
            out[j] = -value if bits & 1 else value


@compiled
def _tail_probability(bits: int) -> float:
    """A number in (0, 1/2), never 0. The lowest bit, which it leaves out, is the sign: the law is exactly symmetric."""
    return ((bits >> 12) + 0.5) * 2.0**-53


@compiled
def _central_quantile(p: float) -> float:
    """The standard normal quantile of ``p`` in [0.075, 1/2), to 1e-15 of its size (Wichura, 1988, AS 241)."""
    q = p - 0.5
    r = 0.180625 - q * q
    above = 2.5090809287301226727e3
    above = above * r + 3.3430575583588128105e4
    above = above * r + 6.7265770927008700853e4
    above = above * r + 4.5921953931549871457e4
    above = above * r + 1.3731693765509461125e4
    above = above * r + 1.9715909503065514427e3
    above = above * r + 1.3314166789178437745e2
    above = above * r + 3.3871328727963666080
    below = 5.2264952788528545610e3
    below = below * r + 2.8729085735721942674e4
    below = below * r + 3.9307895800092710610e4
    below = below * r + 2.1213794301586595867e4
    below = below * r + 5.3941960214247511077e3
    below = below * r + 6.8718700749205790830e2
    below = below * r + 4.2313330701600911252e1
    return q * above / (below * r + 1.0)


@compiled
def _tail_quantile(p: float) -> float:
    """The standard normal quantile of ``p`` in (0, 0.075), to 1e-15 of its size (Wichura, 1988, AS 241)."""
    r = math.sqrt(-math.log(p))
    if r <= 5.0:
        r -= 1.6
        above = 7.74545014278341407640e-4
        above = above * r + 2.27238449892691845833e-2
        above = above * r + 2.41780725177450611770e-1
        above = above * r + 1.27045825245236838258
        above = above * r + 3.64784832476320460504
        above = above * r + 5.76949722146069140550
        above = above * r + 4.63033784615654529590
        above = above * r + 1.42343711074968357734
        below = 1.05075007164441684324e-9
        below = below * r + 5.47593808499534494600e-4
        below = below * r + 1.51986665636164571966e-2
        below = below * r + 1.48103976427480074590e-1
        below = below * r + 6.89767334985100004550e-1
        below = below * r + 1.67638483018380384940
        below = below * r + 2.05319162663775882187
    else:
        r -= 5.0
        above = 2.01033439929228813265e-7
        above = above * r + 2.71155556874348757815e-5
        above = above * r + 1.24266094738807843860e-3
        above = above * r + 2.65321895265761230930e-2
        above = above * r + 2.96560571828504891230e-1
        above = above * r + 1.78482653991729133580
        above = above * r + 5.46378491116411436990
        above = above * r + 6.65790464350110377720
        below = 2.04426310338993978564e-15
        below = below * r + 1.42151175831644588870e-7
        below = below * r + 1.84631831751005468180e-5
        below = below * r + 7.86869131145613259100e-4
        below = below * r + 1.48753612908506148525e-2
        below = below * r + 1.36929880922735805310e-1
        below = below * r + 5.99832206555887937690e-1
    return -above / (below * r + 1.0)
