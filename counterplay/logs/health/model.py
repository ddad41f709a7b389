"""What a check of a log finds: plain numbers, findings in one sentence each, and a verdict."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

Level = Literal["ok", "caution", "unreliable"]
Scope = Literal["log", "uniform", "policy"]

EXIT_CODES: dict[Level, int] = {"ok": 0, "caution": 1, "unreliable": 3}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. `code` is stable; `sentence` is for people; `numbers` are behind it.

    `scope`: whether it concerns the whole log, the question what uniform choice would earn, or the named policy.
    """

    code: str
    level: Level
    sentence: str
    scope: Scope = "log"
    numbers: dict[str, float | str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """What became of the rows of all imports; `reasons`: rows in quarantine by what was wrong, the commonest first."""

    read: int
    kept: int
    known: int
    quarantined: int
    reasons: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActionRow:
    """One action. `share` of the decisions; `reward` with its 95 % interval (Wilson for rewards of 0 and 1).

    `calibration`: sum of 1 / propensity over its decisions, divided by the decisions in which it was a candidate: 1 in
    expectation when propensities are right. `z`: how many standard errors that is away from 1; None where too few
    decisions tell.
    """

    action: int
    label: str
    decisions: int
    share: float
    reward: float | None
    reward_low: float | None
    reward_high: float | None
    propensity: float | None
    calibration: float | None
    z: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actions:
    """`known` to the log, `seen` in decisions, labels of some that never were, the rarest one that was seen.

    `shown`: the most frequent actions; `worst`: those whose propensities fit least, if any does not fit. `candidates`:
    smallest, mean and largest number a decision; None where all actions are candidates.
    """

    known: int
    seen: int
    unseen: tuple[str, ...]
    rarest: str | None
    rarest_share: float | None
    tested: int
    off: int
    off_share: float
    shown: tuple[ActionRow, ...]
    worst: tuple[ActionRow, ...]
    candidates: tuple[int, float, int] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smallest:
    """A decision with one of the smallest propensities; `decision` is its id, or None when it has none."""

    position: int
    decision: str | None
    action: str
    propensity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Propensities:
    """`quantiles`: (level, value); `histogram`: (from, to, decisions), edges evenly spaced in the logarithm.

    `one_in`: quantiles come from about one of so many decisions. `sums`: decisions with the whole distribution,
    smallest and largest sum over candidates, decisions whose sum is not 1 and whose logged propensity differs
    from its entry; None where the distribution is unknown.
    """

    known: int
    missing: int
    invalid: int
    share_one: float
    share_smallest: float
    distinct: int
    one_per_action: bool
    quantiles: tuple[tuple[float, float], ...]
    smallest: tuple[Smallest, ...]
    histogram: tuple[tuple[float, float, int], ...]
    sums: tuple[int, float, float, int, int] | None
    one_in: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Support:
    """How well the log covers a policy: weights w = pi / mu of its decisions with a propensity.

    `mean` is 1 in expectation when propensities are right and the policy only takes what could be logged; `std_error`
    counts clusters as units. `effective_sample_size` is (sum w)^2 / sum w^2. `constant`: the largest c with which
    rejection replay cuts nothing, min mu / pi; `accepted`: c times the sum of pi / mu, the rounds it is expected to
    replay. `covered`: share of decisions with pi > 0. `misses`: decisions in whose context the policy has no choice.
    """

    policy: str
    decisions: int
    mean: float | None
    std_error: float | None
    z: float | None
    p_value: float | None
    effective_sample_size: float
    largest: float | None
    largest_share: float | None
    covered: float
    constant: float | None
    accepted: float | None
    misses: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bucket:
    """Mean reward with its 95 % interval of decisions `first` to `last` (ISO times, or positions)."""

    first: str
    last: str
    decisions: int
    reward: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewards:
    """`kind`: 'none', 'equal', 'binary', 'unit' (within 0 and 1) or 'real'. `rarer`: decisions with the rarer of two.

    `over_time`: buckets of about equal size, by timestamp or else by position (`by`); `drift`: spread of their means in
    units of the mean (of the standard deviation where rewards have both signs), noise taken off; `drift_p` by
    chi-squared.
    """

    kind: str
    known: int
    missing: int
    mean: float | None
    std: float | None
    smallest: float | None
    largest: float | None
    rarer: int | None
    by: str
    over_time: tuple[Bucket, ...]
    drift: float | None
    drift_p: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """Decisions that share something: `groups` of them, the largest, and how many decisions are in groups of two
    or more.

    `one_in`: only about one of so many groups was looked at, and the counts are multiplied accordingly.
    `design_effect`: variance of the mean reward with these groups as units, over that with decisions as units.
    """

    groups: int
    largest: int
    repeated: int
    one_in: int = 1
    design_effect: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """`rows`: decisions equal in everything but id and position; `occasions`: in context, action and time (None without
    times); `clusters`: None where the log has none.
    """

    contexts: Groups
    rows: Groups
    occasions: Groups | None
    clusters: Groups | None
    stored_contexts: int
    contexts_with_features: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """`out_of_order`: stretches of `stretch` decisions that begin before an earlier one ended."""

    known: int
    missing: int
    first: str | None
    last: str | None
    out_of_order: int
    stretches: int
    stretch: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcomes:
    """The outcome table over contexts: share of pairs known, the best single action, and the mean of each
    context's best (`oracle`). `means`: (label, mean reward over contexts), the best first; only actions known
    in every context.
    """

    pairs: int
    known: int
    share: float
    complete_contexts: int
    contexts: int
    default: float | None
    best: str | None
    best_mean: float | None
    oracle: float | None
    means: tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Health:
    """Whether a log is fit for counterfactual questions, and why; made by `check_log`.

    `verdict`: the worst level of all findings, but what concerns uniform choice alone is never worse than a caution.
    `headline` says it in one sentence. `can`, `cannot`: what the log answers, in plain sentences.
    """

    log: str
    regime: str
    description: str | None
    decisions: int
    verdict: Level
    headline: str
    can: tuple[str, ...]
    cannot: tuple[str, ...]
    findings: tuple[Finding, ...]
    rows: Rows
    actions: Actions
    propensities: Propensities
    uniform: Support | None
    policy: Support | None
    rewards: Rewards
    repeats: Repeats
    times: Times
    outcomes: Outcomes | None

    @property
    def exit_code(self) -> int:
        """0 fit, 1 usable with the cautions named, 3 not fit."""
        return EXIT_CODES[self.verdict]

    def finding(self, code: str) -> Finding | None:
        """The finding of this code, or None."""
        return next((one for one in self.findings if one.code == code), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for `json.dumps(..., allow_nan=False)`: None stands where there is no number."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self)) | {"exit_code": self.exit_code}
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
