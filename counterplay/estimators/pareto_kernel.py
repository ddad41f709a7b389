"""Many sums of logarithms, as products: the whole price of a Pareto fit."""

from __future__ import annotations

import math

import numpy as np

from counterplay.compiled import in_any_order
from counterplay.estimators.evidence import Array

LANES = 64
FACTORS = 8

_MANTISSA = 2**52 - 1
_ONE = 1023 << 52
_LOG_2 = math.log(2)


@in_any_order
def mean_logs(theta: Array, excess: Array, means: Array) -> None:
    """means (t,) of log(1 - theta excess) over excesses (m,); factors must be positive, and eight not overflow.

    Factors are multiplied in 64 products side by side. After eight of them the binary exponents are taken off and
    counted, which is exact, so that there is a logarithm for each product in the end and not for each factor.
    """
    step = LANES * FACTORS
    padded = np.zeros(-(-len(excess) // step) * step)
    padded[: len(excess)] = excess
    product, exponents = np.empty(LANES), np.empty(LANES, np.int64)
    bits = product.view(np.int64)
    for t in range(len(theta)):
        slope = theta[t]
        product[:], exponents[:] = 1.0, 0
        for start in range(0, len(padded), step):
            x = padded[start : start + step]
            for j in range(LANES):
                p = product[j]
                for f in range(FACTORS):
                    p *= 1.0 - slope * x[f * LANES + j]
                product[j] = p
            for j in range(LANES):
                exponents[j] += (bits[j] >> 52) - 1023
                bits[j] = (bits[j] & _MANTISSA) | _ONE
        logs, twos = 0.0, 0
        for j in range(LANES):
            logs += math.log(product[j])
            twos += exponents[j]
        means[t] = (logs + twos * _LOG_2) / len(excess)
