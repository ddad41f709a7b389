"""What is known of rewards and weights before anybody looks at the log; intervals without a normal mean rest on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from counterplay.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The range of the rewards, in their units, and the largest importance weight that could have been met.

    - `reward`: (least, greatest) possible reward, and possible prediction of a reward model.
    - `weight`: the largest possible target / propensity. With a uniform choice of k candidates it is k, with an
      exploration of epsilon over k candidates k / epsilon. inf where nobody knows: only intervals that need none are
      left then.

    What the log happens to show is no bound: the next decision may lie outside. Raises `ConfigurationError` for ranges
    that are empty or not finite, and for a weight below 1.
    """

    reward: tuple[float, float]
    weight: float = math.inf

    def __post_init__(self) -> None:
        low, high = self.reward
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigurationError(
                f"The range of rewards is ({low:g}, {high:g}); two finite numbers are needed, the lower first."
            )
        if not self.weight >= 1:
            raise ConfigurationError(
                f"The largest weight is {self.weight:g}; weights average 1, so the largest is at least 1."
            )
