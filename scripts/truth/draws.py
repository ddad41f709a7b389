"""One log drawn from a world, and what every estimator says of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from truth.worlds import Array, Codes, World

from counterplay.estimators import CrossFittedRidge, Estimate, Evidence, assign_folds, evaluate
from counterplay.estimators.intervals import Bounds, Interval
from counterplay.estimators.models import MRDRSums
from counterplay.estimators.problems.large_action_sets import Marginalised, marginalise

SHRUNKEN = (
    "clipped_ips", "clipped_snips", "subgaussian_ips", "switch_dr", "dros", "drps", "subgaussian_dr",
)  # fmt: skip

FIXED = (
    "clipped_ips(10)", "clipped_snips(10)", "subgaussian_ips(0.1)", "switch_dr(10)", "dros(100)", "drps(10)",
    "subgaussian_dr(0.1)",
)  # fmt: skip

ESTIMATORS = ("on_policy", "all", *(f"{name}(mse)" for name in SHRUNKEN), *FIXED)

DEAR = ("dr, same logs", "mrdr", "mips", "mips, normalised", "offcem")
"""Estimators that cost several times what all others together cost, so fewer logs see them; before them DR on these."""

INTERVALS: dict[Interval, tuple[str, ...]] = {
    "t": ("ips", "snips", "dr", "sndr", "cressie_read"),
    "normal": ("ips", "snips", "dr", "sndr", "cressie_read"),
    "percentile": ("ips", "snips", "dr", "sndr"),
    "bca": ("ips", "snips", "dr", "sndr"),
    "empirical_likelihood": ("cressie_read",),
    "clopper_pearson": ("ips", "snips"),
    "bernstein": ("ips", "snips"),
    "hoeffding": ("ips", "snips"),
}

GATES = ("ok", "caution", "unreliable")

FOLDS = 5

BLOCK = 2000
"""Decisions whose candidates are looked at at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Draw:
    """n decisions of one logging policy: `context` and `action` (n,), and a reward model fitted on their own folds."""

    world: World
    logger: str
    context: Codes
    action: Codes
    fold: Codes

    @cached_property
    def reward(self) -> Array:
        """(n,) what the logged actions earned."""
        return self.world.reward[self.context, self.action]

    @cached_property
    def features(self) -> Array:
        """(n, p) features of the logged pairs."""
        return self.world.features(self.context, self.action)

    @cached_property
    def model(self) -> CrossFittedRidge:
        """Ridge on the logged pairs."""
        return CrossFittedRidge(self.features, self.reward, self.fold)

    @cached_property
    def evidence(self) -> Evidence:
        """What every estimator but those of categories and MRDR needs."""
        return Evidence(
            reward=self.reward,
            propensity=self.world.logging[self.logger][self.context, self.action],
            target=self.world.target[self.context, self.action].T,
            q_logged=self.model.predict(self.features, self.fold),
            q_target=np.stack([self.model.predict(mean[self.context], self.fold) for mean in self.world.mean_features]),
            policies=self.world.policies,
        )

    def mrdr(self) -> Evidence:
        """The same with a model for each policy that makes the variance of DR small."""
        plain, means = self.evidence, self.world.mean_features
        sums = MRDRSums.empty(FOLDS, self.features.shape[1], len(means))
        for rows in self._blocks():
            part = self.features[rows], means[:, self.context[rows]], self.reward[rows], plain.weight[:, rows]
            sums = sums.add(*part, self.fold[rows])
        models = sums.solve()
        both = zip(models, means, strict=True)
        return replace(
            plain,
            q_logged=np.stack([model.predict(self.features, self.fold) for model in models]),
            q_target=np.stack([model.predict(mean[self.context], self.fold) for model, mean in both]),
        )

    def _blocks(self) -> Iterator[slice]:
        for start in range(0, len(self.context), BLOCK):
            yield slice(start, start + BLOCK)

    def marginalised(self) -> Marginalised:
        """The same with weights of categories of actions."""
        return Marginalised.join(self._marginalised(rows) for rows in self._blocks())

    def _marginalised(self, rows: slice) -> Marginalised:
        context, fold = self.context[rows], self.fold[rows]
        actions = range(self.world.reward.shape[1])
        q = [self.model.predict(self.world.features(context, np.full(len(context), a)), fold) for a in actions]
        target = self.world.target[context]
        return marginalise(
            action=self.action[rows],
            reward=self.reward[rows],
            logging=self.world.logging[self.logger][context],
            target=(target[:, :, p] for p in range(target.shape[2])),
            categories=self.world.categories,
            q=np.stack(q, axis=1),
            policies=self.world.policies,
            start=rows.start,
        )


def draw_log(world: World, logger: str, n: int, seed: Iterable[int]) -> Draw:
    """n contexts drawn with replacement, each with an action of the logging policy."""
    rng = np.random.default_rng(list(seed))
    context = rng.integers(0, len(world.reward), n)
    cumulative = world.logging[logger].cumsum(axis=1)[context]
    # The last sum may end an ulp below 1, and an action that is never taken must not be drawn for it.
    action = (cumulative <= rng.random((n, 1)) * cumulative[:, -1:]).sum(axis=1)
    return Draw(world=world, logger=logger, context=context, action=action, fold=assign_folds(n, FOLDS))


def estimates(draw: Draw, *, dear: bool = True) -> Iterator[tuple[str, list[Estimate]]]:
    """Each estimator's name and its estimates of the P policies; those of `DEAR` only where asked for."""
    yield from _by_estimator(evaluate(draw.evidence, ESTIMATORS))
    if dear:
        log = draw.marginalised()
        dr, mrdr, offcem = ((evidence, "dr") for evidence in (draw.evidence, draw.mrdr(), log.offcem()))
        asked = (dr, mrdr, (log.mips(), "ips"), (log.mips(), "snips"), offcem)
        for name, (evidence, estimator) in zip(DEAR, asked, strict=True):
            yield name, evaluate(evidence, estimator)


def intervals(draw: Draw) -> Iterator[tuple[str, list[Estimate]]]:
    """Each "interval, estimator" of `INTERVALS` and its estimates, on a uniform log: no weight is above K."""
    bounds = Bounds(reward=(0, 1), weight=draw.world.reward.shape[1])
    for kind, names in INTERVALS.items():
        for name, own in _by_estimator(evaluate(draw.evidence, names, interval=kind, bounds=bounds)):
            yield f"{kind}, {name}", own


def _by_estimator(found: list[Estimate]) -> Iterator[tuple[str, list[Estimate]]]:
    for name in dict.fromkeys(estimate.estimator for estimate in found):
        yield name, [estimate for estimate in found if estimate.estimator == name]


def numbers(found: list[Estimate]) -> Array:
    """(P, 4): value, low, high (NaN where there are none) and the place of the gate in `GATES`."""
    rows = [(e.value, e.low, e.high, GATES.index(e.gate)) for e in found]
    return np.array(rows, dtype=np.float64)
