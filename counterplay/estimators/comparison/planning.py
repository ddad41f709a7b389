"""Planning: how many decisions an answer takes, and how small a difference a log of a given size can show.

Every standard error here falls with the square root of the number of decisions, so one pilot says what a longer log
would know: off-policy from a log that was made like the pilot, or in an experiment that lets two policies act
(`two_sample_error`). A difference d is found with probability `power` where

    |d| = (z_level + z_power) * standard error,     z_level two-sided, divided among the comparisons (Bonferroni)

Normal approximation (Cohen 1988): right where the answer is some hundred units or more, and where the pilot's
standard error is right. A pilot with a small effective sample size has seen few of the large weights that a longer log
will contain, so its plan is too short. With clusters n counts decisions: new ones come in clusters of the same sizes.
"""

from __future__ import annotations

import math

from counterplay.errors import ConfigurationError

POWER = 0.8

MOST = 10**15
"""Plans beyond this number of decisions are no plans."""


def decisions_needed(
    std_error: float | None,
    n: int,
    effect: float,
    *,
    level: float = 0.95,
    power: float = POWER,
    comparisons: int = 1,
) -> int:
    """How many decisions in all a log like the pilot needs to find `effect` with probability `power`.

    - `std_error`, `n`: of a difference or a value on the pilot's n decisions (`difference.std_error, difference.n`).
    - `effect`: the difference to be found, in units of reward; its sign does not matter.
    - `level`: 1 - level is the chance of any false alarm, shared by so many `comparisons` (Bonferroni: a little more
      than the max-t intervals of `compare` need).

    Raises `ConfigurationError` for what is no plan: an effect of 0, a pilot without variation, a number out of range.
    Do not take the pilot's own difference for the effect: the largest of several differences is larger than the truth.
    """
    reach = _reach(_pilot(std_error, n), level, power, comparisons)
    if not math.isfinite(effect) or effect == 0:
        raise ConfigurationError(f"effect is {effect:g}; give the smallest difference that would matter, not 0.")
    needed = n * _square(reach / abs(effect))
    if needed > MOST:
        raise ConfigurationError(f"An effect of {effect:g} would take {needed:.1g} decisions: no log is that long.")
    return max(2, math.ceil(needed))


def minimal_detectable_effect(
    std_error: float | None,
    n: int,
    planned: int,
    *,
    level: float = 0.95,
    power: float = POWER,
    comparisons: int = 1,
) -> float:
    """The smallest difference that a log of `planned` decisions like the pilot's finds with probability `power`.

    In units of reward; the arguments and errors are those of `decisions_needed`, of which this is the inverse.
    """
    reach = _reach(_pilot(std_error, n), level, power, comparisons)
    if planned < 1:
        raise ConfigurationError(f"planned is {planned}; at least one decision must be planned.")
    return reach * math.sqrt(n / planned)


def two_sample_error(n: int, deviations: tuple[float, float], share: float = 0.5) -> float:
    """Standard error of the difference of two mean rewards in an experiment in which two policies act themselves.

    - `n`: decisions of both together, of which the first policy makes `share`, in (0, 1).
    - `deviations`: standard deviation of the reward under each policy.

    sqrt(s1^2 / (share n) + s2^2 / ((1 - share) n)), for `decisions_needed` and `minimal_detectable_effect` at this n.
    Holds where decisions are independent of each other and the two policies meet the same contexts on average.
    """
    if n < 1:
        raise ConfigurationError(f"n is {n}; at least one decision is needed.")
    if not 0 < share < 1:
        raise ConfigurationError(f"share is {share:g}; both policies must act, so it lies between 0 and 1.")
    if not all(math.isfinite(s) and s >= 0 for s in deviations):
        raise ConfigurationError(f"deviations are {deviations}; standard deviations are finite and not negative.")
    first, second = deviations
    return math.hypot(first / math.sqrt(share), second / math.sqrt(1 - share)) / math.sqrt(n)


def decisions_to_settle(value: float, std_error: float, n: int, critical: float) -> int | None:
    """How many more decisions make |value| a finding at `critical` with power 0.8; 0 where it is one."""
    if value == 0:
        return None
    if abs(value) > critical * std_error:
        return 0
    needed = n * _square((critical + _z(POWER)) * (std_error / abs(value)))
    return max(1, math.ceil(needed - n)) if needed <= MOST else None


def _square(x: float) -> float:
    return x * x  # not x**2, which raises where a product is infinite


def _pilot(std_error: float | None, n: int) -> float:
    if std_error is None or not math.isfinite(std_error) or std_error <= 0:
        raise ConfigurationError(
            f"std_error is {std_error}; a plan needs a positive number: a pilot without variation cannot plan."
        )
    if n < 1:
        raise ConfigurationError(f"n is {n}; it counts the decisions behind std_error, at least one.")
    return std_error


def _reach(std_error: float, level: float, power: float, comparisons: int) -> float:
    """The difference that is found with this power on the pilot's own number of decisions."""
    if not 0 < level < 1:
        raise ConfigurationError(f"level is {level:g}; it must lie between 0 and 1, for example 0.95.")
    if not 0.5 <= power < 1:
        raise ConfigurationError(f"power is {power:g}; it must lie between 0.5 and 1, for example 0.8.")
    if comparisons < 1:
        raise ConfigurationError(f"comparisons is {comparisons}; at least one comparison is planned.")
    return (_z(1 - (1 - level) / (2 * comparisons)) + _z(power)) * std_error


def _z(below: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(below))
