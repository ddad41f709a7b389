"""Many actions: weights of categories of actions instead of weights of actions (MIPS and OffCEM).

With thousands of actions a weight pi(a|x) / mu(a|x) is enormous or zero. Where actions have categories, the weight of
the logged action's category is far smaller. MIPS (Saito & Joachims 2022) is IPS or SNIPS with such weights, and OffCEM
(Saito, Ren & Joachims 2023) is DR with them and a reward model of single actions:

    log = Marginalised.join(marginalise(categories=..., logging=..., ...) for each block of the log)
    evaluate(log.mips(), ("ips", "snips"))
    evaluate(log.offcem(), ("dr", "sndr"))

| | unbiased where |
|---|---|
| MIPS | actions of one category earn the same in a context: no direct effect of the action |
| OffCEM | the model's differences between actions of one category are right, whatever its level: local correctness |

and every category that a policy may choose could have been logged; its single actions need not. Both are assumptions
about rewards. `direct_effect.py` tests them on the log; until that is done the estimates say that they rest on them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, EvidenceError, MissingEvidenceError
from counterplay.estimators.evidence import Array, Codes, Evidence
from counterplay.estimators.problems.action_embeddings import (
    ROW_SUM,
    block_of,
    draw_placebos,
    of_categories,
    of_posterior,
    predictions_of,
    weigh,
)

if TYPE_CHECKING:
    from counterplay.estimators.problems.direct_effect import DirectEffect

Assumption = Literal["no direct effect", "local correctness"]

GRANTED: dict[Assumption, str] = {
    "no direct effect": "actions of one category are taken to earn the same in a context (no direct effect)",
    "local correctness": (
        "within a category the reward model's differences between actions are taken to be right (local correctness)"
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Marginalised:
    """n decisions with weights of categories, for P policies; a few numbers a decision and policy.

    - `evidence`: target and propensity (or the weights) of the logged action's category, and the reward model.
    - `action` (n,): the logged action. `within` (n,): the logging policy's probability of it, given its category.
    - `placebo` (J, n): actions that might have been logged in its place, drawn with the same probabilities.
    - `difference` (P, n): the weight of the action minus the weight of its category, both over actions that the
      logging policy could take. Its mean given context and category is zero.
    - `categories` (K,): the category of each action; None where a posterior was given.
    - `unsupported` (P,): each policy's probability, summed over decisions, of actions that the logging policy never
      takes. `out_of_reach` (P,): of those, what lies in categories that it never takes, where MIPS is blind as well.
    """

    evidence: Evidence
    action: Codes
    within: Array
    placebo: npt.NDArray[np.int32]
    difference: Array
    categories: Codes | None
    unsupported: Array
    out_of_reach: Array

    @classmethod
    def join(cls, blocks: Iterable[Marginalised]) -> Marginalised:
        """The blocks of one log, in order. Raises `EvidenceError` where they do not belong together."""
        parts = list(blocks)
        if not parts:
            raise EvidenceError("There are no blocks to join: nothing was logged, or a filter removed every decision.")
        for before, part in pairwise(parts):
            _check_next(before, part)
        first = parts[0]
        return cls(
            evidence=_joined([part.evidence for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            within=np.concatenate([part.within for part in parts]),
            placebo=np.concatenate([part.placebo for part in parts], axis=1),
            difference=np.concatenate([part.difference for part in parts], axis=1),
            categories=first.categories,
            unsupported=np.sum([part.unsupported for part in parts], axis=0),
            out_of_reach=np.sum([part.out_of_reach for part in parts], axis=0),
        )

    def mips(self, test: DirectEffect | None = None) -> Evidence:
        """Evidence for MIPS: evaluate with "ips", "snips" or a shrunken one.

        `test`: what `check_no_direct_effect` said of this log. The estimates are a caution, unless every action was
        tested, nothing was found, and the policies choose nothing that the logging policy never takes. That proves no
        absence: a small effect is found only in a large log, and the test says how large a bias it cannot exclude.
        """
        return replace(self.evidence, q_logged=None, q_target=None, assumption=self._granted("no direct effect", test))

    def offcem(self, test: DirectEffect | None = None) -> Evidence:
        """Evidence for OffCEM: evaluate with "dr" or "sndr".

        `test`: what `check_local_correctness` said of this log. The estimates are always a caution: a fitted model's
        differences are never quite right, and a test can only say that the error was too small to be seen.

        Raises `MissingEvidenceError` where the blocks had no reward model.
        """
        if self.evidence.q_logged is None:
            raise MissingEvidenceError("OffCEM needs a reward model: give marginalise its predictions, q (n, S).")
        return replace(self.evidence, assumption=self._granted("local correctness", test))

    def _granted(self, assumption: Assumption, test: DirectEffect | None) -> str:
        if test is None:
            doubt = f"{GRANTED[assumption]}; that was not tested"
        else:
            test.require(assumption, len(self.evidence), self.evidence.policies)
            doubt = test.doubt
        worst = int(np.argmax(self.out_of_reach))
        share = self.out_of_reach[worst] / len(self.evidence)
        if share <= ROW_SUM:
            return doubt
        name = self.evidence.policies[worst]
        blind = f"'{name}' has {share:.1%} of its probability in categories that logging never takes"
        return f"{doubt}; {blind}" if doubt else blind


def marginalise(
    *,
    action: npt.ArrayLike,
    reward: npt.ArrayLike,
    logging: npt.ArrayLike | None,
    target: npt.ArrayLike | Iterable[npt.ArrayLike],
    categories: npt.ArrayLike | None = None,
    posterior: npt.ArrayLike | None = None,
    candidates: npt.ArrayLike | None = None,
    q: npt.ArrayLike | None = None,
    cluster: npt.ArrayLike | None = None,
    policies: tuple[str, ...] = (),
    start: int = 0,
    seed: int = 0,
) -> Marginalised:
    """Weights of categories for a block of n decisions with S candidates each.

    Args:
        action: (n,) the logged action, in [0, K).
        reward: (n,) what it earned.
        logging: (n, S) the logging policy's probability of every candidate.
        target: for each of P policies its (n, S) probabilities, one array after the other (a generator keeps one in
            memory at a time); (n, S) alone stands for one policy.
        categories: (K,) the category of each action, a code below K; `combine_categories` makes them of any values,
            `cluster_actions` of vectors.
        posterior: (n, S) instead of categories: p(a|x, e), how probable each candidate is under the logging policy
            given the context and the embedding e seen with the logged action. Weights are then the mean of pi / mu
            over it, as the paper has it for embeddings that are vectors, or that an action draws at random. It must be
            right: it is estimated from other decisions, or known. What mu never takes is lost to these weights.
        candidates: (n, S) the actions behind the columns, padded with -1; None: column j is action j.
        q: (n, S) a reward model's prediction for each candidate, for OffCEM; of other folds than these decisions.
        cluster: (n,) integer codes of decisions that are not independent of each other.
        policies: P names.
        start: the place of the block's first decision in the log.
        seed: of the placebos that test the assumption; a decision's own depend on the seed and its place only.

    Raises:
        MissingEvidenceError: the logging policy's probabilities are not known.
        EvidenceError: arrays that do not fit, or are no probabilities.
        ConfigurationError: both categories and posterior were given, or neither.
    """
    if logging is None:
        raise MissingEvidenceError(
            "Weights of categories need the logging policy's probability of every candidate, not only of the logged "
            "action: a category's is the sum over its actions. Give the logging policy itself (a uniform one: 1/S)."
        )
    if (categories is None) == (posterior is None):
        raise ConfigurationError("Give either the categories of actions or the posterior of actions, one of the two.")
    block = block_of(action, logging, candidates)
    embedding = of_categories(block, categories) if categories is not None else of_posterior(block, posterior)
    predicted = None if q is None else predictions_of(q, block)
    found = [weigh(one, block, embedding, predicted) for one in _each(target)]
    if not found:
        raise EvidenceError("target is empty: the probabilities (n, S) of at least one policy are needed.")
    marginal = np.stack([one.marginal for one in found])
    given: dict[str, Any] = {"reward": reward, "cluster": cluster, "policies": policies, "start": start}
    if embedding.propensity is None:
        given |= {"target": np.ones(marginal.shape), "weights": marginal}
    else:
        given |= {"target": marginal, "propensity": embedding.propensity}
    if predicted is not None:
        given["q_logged"] = predicted[block.rows, block.place]
        given["q_target"] = np.array([one.q_target for one in found])
    return Marginalised(
        evidence=Evidence(**given),
        action=block.action,
        within=embedding.within,
        placebo=draw_placebos(block, embedding, start, seed),
        difference=np.stack([one.difference for one in found]),
        categories=embedding.categories,
        unsupported=np.array([one.unsupported for one in found]),
        out_of_reach=np.array([one.out_of_reach for one in found]),
    )


def _each(target: Any) -> Iterable[npt.ArrayLike]:
    return [target] if isinstance(target, np.ndarray) and target.ndim == 2 else target


def _joined(parts: list[Evidence]) -> Evidence:
    given: dict[str, Any] = {}
    for name in ("reward", "target", "propensity", "q_logged", "q_target", "cluster", "weights"):
        arrays = [getattr(part, name) for part in parts]
        given[name] = None if arrays[0] is None else np.concatenate(arrays, axis=-1)
    return Evidence(**given, policies=parts[0].policies, start=parts[0].start)


def _check_next(one: Marginalised, other: Marginalised) -> None:
    ours, theirs = one.evidence, other.evidence
    if theirs.start != ours.start + len(ours):
        raise EvidenceError(
            f"After decisions {ours.start} to {ours.start + len(ours)} comes a block with start {theirs.start}: "
            "give marginalise the place of each block's first decision, and join the blocks in order."
        )
    if ours.policies != theirs.policies:
        raise EvidenceError(f"One block has the policies {list(ours.policies)} and another {list(theirs.policies)}.")
    for name in ("cluster", "q_logged", "weights"):
        if (getattr(ours, name) is None) != (getattr(theirs, name) is None):
            raise EvidenceError(f"One block has {name} and another has none: give it to all blocks, or to none.")
    if one.categories is not other.categories and not np.array_equal(one.categories, other.categories):  # type: ignore[arg-type]
        raise EvidenceError("Two blocks have different categories of actions; one log has one set of categories.")
