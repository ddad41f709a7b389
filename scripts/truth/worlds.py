"""Two full tables of outcomes as worlds: contexts, the reward of every action in each, policies, and what a model sees.

- BFCL: Berkeley function calling results of 2024-08-11 (gorilla-llm, Apache-2.0): 1,700 prompts in 12 categories; the
  actions are 71 models, the reward is 1 where the model's call was right.
- CLINC150: Larson et al. 2019 (clinc/oos-eval, CC BY 3.0): 22,500 utterances; the actions are 150 intents, the reward
  is 1 for the right one.

A part of the contexts is set aside and makes the scores that policies and features are built on: every fifth prompt of
BFCL (by a hash), the `val` split of CLINC150. The world is the rest, so no score has seen the contexts it is used on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.estimators import assign_folds, hash_features
from counterplay.estimators.problems.action_embeddings import cluster_actions
from counterplay.logs import Workspace, open_workspace, read_log, read_texts
from counterplay.logs.full.labels import import_labels
from counterplay.logs.full.outcomes import import_outcomes

Array = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

DATA = Path(os.environ.get("COUNTERPLAY_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = {"BFCL": DATA / "bfcl_20240811_full_information.csv.gz", "CLINC150": DATA / "clinc150.parquet"}

Policies = Iterator[tuple[str, Array]]

LOGGERS = ("uniform", "softmax", "poor support")

POLICIES = 20

EXPLORED = 0.1
"""How much the logging policy with poor support explores, over one action in seven."""


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """C contexts, K actions, P policies.

    - `reward` (C, K); `target` (C, K, P), the policies' probabilities; `logging`: by name, (C, K).
    - `pair_features` (C, K, d) and `context_features` (C, c); `indicators`: whether an indicator of each action is a
      feature as well.
    - `categories` (K,): clusters of actions, for category weights; made from what was set aside.
    """

    name: str
    reward: Array
    target: Array
    policies: tuple[str, ...]
    logging: Mapping[str, Array]
    pair_features: Array
    context_features: Array
    indicators: bool
    categories: Codes

    @cached_property
    def truth(self) -> Array:
        """(P,) the exact value of each policy: the mean over contexts of the sum over actions of pi r."""
        return np.asarray(np.einsum("ck,ckp->p", self.reward, self.target) / len(self.reward))

    @cached_property
    def mean_features(self) -> Array:
        """(P, C, features): the features of each context, averaged over the actions of each policy."""
        return np.stack([self._mean_features(self.target[:, :, p]) for p in range(len(self.policies))])

    def _mean_features(self, target: Array) -> Array:
        pairs = np.einsum("ck,ckd->cd", target, self.pair_features)
        return np.concatenate([pairs, self.context_features, *([target] if self.indicators else [])], axis=1)

    def features(self, context: Codes, action: Codes) -> Array:
        """(n, features) of pairs of context and action."""
        parts = [self.pair_features[context, action], self.context_features[context]]
        if self.indicators:
            parts.append(np.eye(self.reward.shape[1])[action])
        return np.concatenate(parts, axis=1)

    @cached_property
    def supported(self) -> dict[str, Array]:
        """By logger, (P,) the share of each policy's probability on actions that the logging policy can take."""
        possible = {name: (own > 0).astype(np.float64) for name, own in self.logging.items()}
        total = len(self.reward)
        return {name: np.einsum("ck,ckp->p", own, self.target) / total for name, own in possible.items()}


def load(name: str) -> World:
    """The world of that name, from the files in `FILES`."""
    with TemporaryDirectory() as folder, open_workspace(Path(folder) / "world.duckdb") as workspace:
        return _bfcl(workspace, FILES[name]) if name == "BFCL" else _clinc150(workspace, FILES[name])


def _bfcl(workspace: Workspace, path: Path) -> World:
    import_outcomes(path, workspace, "bfcl")
    log = read_log(workspace, "bfcl")
    assert log.outcomes is not None
    contexts, actions = len(log.context_ids), len(log.action_labels)
    reward = log.outcomes.reward(np.arange(contexts)[:, None], np.arange(actions))
    names, group = np.unique([own.rsplit("_", 1)[0] for own in log.context_ids], return_inverse=True)
    aside = assign_folds(contexts, 5, seed=0) == 0
    belongs = np.eye(len(names))[group]
    overall = reward[aside].mean(axis=0)
    # A category has 8 to 80 prompts aside: five prompts' worth of the overall mean of the model steady its scores.
    counts = belongs[aside].sum(axis=0)[:, None]
    by_group = (belongs[aside].T @ reward[aside] + 5 * overall) / (counts + 5)
    group, belongs = group[~aside], belongs[~aside]
    score = by_group[group]
    return _world(
        name="BFCL",
        reward=reward[~aside],
        policies=_bfcl_policies(score, overall, names[group] == "relevance"),
        crude=score,
        temperature=0.2,
        pair_features=score[:, :, None],
        context_features=belongs,
        indicators=True,
        categories=cluster_actions(by_group.T, 10),
    )


def _bfcl_policies(score: Array, overall: Array, relevance: npt.NDArray[np.bool_]) -> Policies:
    everywhere = np.broadcast_to(overall, score.shape)
    best, worst, uniform = _top(everywhere, 1), _top(-everywhere, 1), _top(everywhere, score.shape[1])
    greedy = _top(score, 1)
    middle = np.broadcast_to(np.eye(len(overall))[np.argsort(overall, kind="stable")[len(overall) // 2]], score.shape)
    yield "best model", best
    yield "worst model", worst
    yield "middle model", middle
    yield "uniform", uniform
    yield "best 5 models", _top(everywhere, 5)
    yield "best 20 models", _top(everywhere, 20)
    yield "worst 20 models", _top(-everywhere, 20)
    yield "softmax .02", _softmax(score, 0.02)
    yield "softmax .05", _softmax(score, 0.05)
    yield "softmax .1", _softmax(score, 0.1)
    yield "softmax .3", _softmax(score, 0.3)
    yield "softmax .1 of overall means", _softmax(everywhere, 0.1)
    yield "greedy", greedy
    yield "epsilon .1", _mix(greedy, uniform, 0.1)
    yield "epsilon .3", _mix(greedy, uniform, 0.3)
    yield "greedy on relevance, else best", np.where(relevance[:, None], greedy, best)
    yield "best 3 of the category", _top(score, 3)
    yield "half best, half uniform", _mix(best, uniform, 0.5)
    yield "half greedy, half worst", _mix(greedy, worst, 0.5)
    yield "softmax -.1", _softmax(-score, 0.1)


def _clinc150(workspace: Workspace, path: Path) -> World:
    import_labels(path, workspace, "aside", splits=("val",), leave_out=("oos",))
    import_labels(path, workspace, "world", splits=("train", "test"), leave_out=("oos",))
    (seen, seen_labels), (texts, labels) = _labelled(workspace, "aside"), _labelled(workspace, "world")
    names = sorted(set(labels))
    seen_intent, intent = np.searchsorted(names, seen_labels), np.searchsorted(names, labels)
    tokens = [text.split() for text in seen + texts]
    counts = hash_features(tokens={"word": tokens}, width=2**14).to_sparse()
    few = np.concatenate([np.flatnonzero(seen_intent == k)[:3] for k in range(len(names))])
    crude, _ = _cosines(counts, len(seen), few, seen_intent[few])
    score, centroids = _cosines(counts, len(seen), np.arange(len(seen)), seen_intent)
    pairs = np.stack([crude, _softmax(crude, 0.05), _top(crude, 1)], axis=2)
    short = np.array([len(own) for own in tokens[len(seen) :]]) <= 7
    return _world(
        name="CLINC150",
        reward=np.eye(len(names))[intent],
        policies=_clinc_policies(score, crude, short),
        crude=crude,
        temperature=0.1,
        pair_features=pairs,
        context_features=np.empty((len(texts), 0)),
        indicators=False,
        # Clusters are made of distances between 64 directions: k-means on 16,384 columns would see noise.
        categories=cluster_actions(_leading(centroids, 64), 30),
    )


def _labelled(workspace: Workspace, name: str) -> tuple[list[str], list[str]]:
    """The texts of a log and their one right label."""
    log, texts = read_log(workspace, name), read_texts(workspace, name)[0]
    assert log.outcomes is not None
    assert len(log.outcomes.actions) == len(texts)
    return [str(text) for text in texts], [log.action_labels[k] for k in log.outcomes.actions]


def _clinc_policies(score: Array, crude: Array, short: npt.NDArray[np.bool_]) -> Policies:
    intents = np.eye(score.shape[1])
    uniform, greedy, crude_greedy = _top(score, score.shape[1]), _top(score, 1), _top(crude, 1)
    yield "always the first intent", np.broadcast_to(intents[0], score.shape)
    yield "always the middle intent", np.broadcast_to(intents[len(intents) // 2], score.shape)
    yield "uniform", uniform
    yield "greedy", greedy
    yield "greedy, crude score", crude_greedy
    yield "second best", 2 * _top(score, 2) - greedy
    yield "best 2", _top(score, 2)
    yield "best 5", _top(score, 5)
    yield "best 20", _top(score, 20)
    yield "softmax .02", _softmax(score, 0.02)
    yield "softmax .05", _softmax(score, 0.05)
    yield "softmax .1", _softmax(score, 0.1)
    yield "softmax .2", _softmax(score, 0.2)
    yield "softmax .05, crude score", _softmax(crude, 0.05)
    yield "epsilon .1", _mix(greedy, uniform, 0.1)
    yield "epsilon .3", _mix(greedy, uniform, 0.3)
    yield "greedy on short texts, else crude", np.where(short[:, None], greedy, crude_greedy)
    yield "half greedy, half uniform", _mix(greedy, uniform, 0.5)
    yield "half greedy, half crude", _mix(greedy, crude_greedy, 0.5)
    yield "worst 75", _top(-score, 75)


def _cosines(counts: Any, aside: int, rows: Codes, intent: Codes) -> tuple[Array, Array]:
    """(C, K) cosines of the world's texts with the centroids of some texts set aside, and the centroids (K, words)."""
    from scipy.sparse import csr_array, diags_array

    present = (counts > 0).astype(np.float64)
    rarity = np.log((1 + aside) / (1 + np.asarray(present[:aside].sum(axis=0)).ravel()))
    words = present @ diags_array(rarity)
    length = np.sqrt(np.asarray(words.multiply(words).sum(axis=1)).ravel())
    words = diags_array(1 / np.maximum(length, 1e-12)) @ words
    chosen = csr_array((np.ones(len(rows)), (intent, np.arange(len(rows)))), shape=(intent.max() + 1, len(rows)))
    centroids = (chosen @ words[rows]).toarray()
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return np.asarray(words[aside:] @ centroids.T), centroids


def _leading(vectors: Array, dimensions: int) -> Array:
    left, size, _ = np.linalg.svd(vectors, full_matrices=False)
    return np.asarray(left[:, :dimensions] * size[:dimensions])


def _world(*, policies: Policies, crude: Array, temperature: float, **fields: Any) -> World:
    actions = crude.shape[1]
    # Filled one by one: all policies over all utterances are half a gigabyte, and twice that is too much.
    target = np.empty((*crude.shape, POLICIES))
    names: list[str] = []
    for name, own in policies:
        target[:, :, len(names)] = own
        names.append(name)
    assert len(names) == POLICIES
    explored = (np.arange(actions) % 7 == 0) / len(range(0, actions, 7))
    logging = {
        "uniform": np.full(crude.shape, 1 / actions),
        "softmax": _softmax(crude, temperature),
        "poor support": _mix(_top(crude, 1), np.broadcast_to(explored, crude.shape), EXPLORED),
    }
    assert tuple(logging) == LOGGERS
    return World(policies=tuple(names), target=target, logging=logging, **fields)


def _softmax(score: Array, temperature: float) -> Array:
    power = np.exp((score - score.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(power / power.sum(axis=1, keepdims=True))


def _top(score: Array, k: int) -> Array:
    """Uniform over the k actions of the highest score; the lower action first where scores tie."""
    chosen = np.argsort(-score, axis=1, kind="stable")[:, :k]
    found = np.zeros(score.shape)
    np.put_along_axis(found, chosen, 1 / k, axis=1)
    return found


def _mix(one: Array, other: Array, share: float) -> Array:
    """`other` with probability `share`, else `one`."""
    return (1 - share) * one + share * other
