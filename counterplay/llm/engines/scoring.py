"""Log-likelihood of continuations, each token computed once.

Requests share beginnings: the same instruction, the same candidate, sibling descriptions that differ in the last word.
The token sequences of a batch are therefore sorted and packed as a *prefix tree*: a node is a token in its place, it
attends to its ancestors only, and its position is its depth. One forward pass over a tree of some hundred nodes gives
what one pass for each sequence would give, up to rounding (1e-4 in float32), without padding and with two to four times
fewer tokens. What all prompts begin with (instruction, examples) is the *trunk*: it is read once, and every tree stands
on its keys and values.

A tree is told to the model by a mask of attention alone, which does not suit every model: not one that keeps a state
(Mamba, linear attention), nor one that counts distances in the order of tokens (ALiBi), nor a sliding window that is
shorter than the sequence. What does not suit is scored a row each (``counterplay.llm.engines.padded``).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from counterplay.llm.engines.beginnings import common, read_beginning, shared_length
from counterplay.llm.engines.logits import term_values
from counterplay.llm.engines.padded import loglikelihoods as padded_loglikelihoods

if TYPE_CHECKING:
    from counterplay.llm.engines.local import LanguageModel

MAX_TOKENS = 384

WINDOWED = {"full_attention": None, "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Kinds of layers that a mask describes, and the setting that says how many tokens they look at."""

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its continuation; neither may be empty."""


@dataclass(kw_only=True)
class Tree:
    """A prefix tree of at most ``MAX_TOKENS`` tokens (more only if a single sequence is longer).

    ``ids``: the token of each node; ``rows[i]``: the ancestors of node i and itself, from the root on; ``terms[p]``:
    for pair p the (node, next token) whose log-probabilities add up to its log-likelihood.
    """

    ids: list[int] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)
    terms: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def mask(self) -> npt.NDArray[np.bool_]:
        """``(nodes, nodes)``: which node may look at which."""
        mask = np.zeros((len(self.ids), len(self.ids)), dtype=np.bool_)
        for node, row in enumerate(self.rows):
            mask[node, row] = True
        return mask


def loglikelihoods(
    model: LanguageModel, pairs: Sequence[Pair], *, tick: Callable[[int], None] | None = None
) -> npt.NDArray[np.float64]:
    """log p(continuation | prompt) of each pair, in nats: shape ``(len(pairs),)``, in the order given.

    ``tick(k)`` is called as k more pairs are done.
    """
    limit = longest_masked(model.module)
    packed = [i for i, (prompt, continuation) in enumerate(pairs) if len(prompt) + len(continuation) - 1 <= limit]
    scores = np.full(len(pairs), np.nan)
    for rows, found in _packed(model, [pairs[i] for i in packed]):
        scores[[packed[row] for row in rows]] = found
        if tick is not None:
            tick(sum(bool(np.isfinite(value)) for value in found))
    # In a tree what is no number spreads: a weight of zero times it is no number either. A row keeps it to itself.
    left = np.flatnonzero(~np.isfinite(scores)).tolist()
    scores[left] = padded_loglikelihoods(model, [pairs[i] for i in left], tick=tick)
    return scores


def longest_masked(module: Any) -> float:
    """Tokens of the longest sequence that a tree may hold for this model: infinite where only full attention is, 0
    where a mask does not describe what a token sees."""
    config = module.config.get_text_config(decoder=True)
    # GPT-Neo has its own name for windows; ALiBi shows by a flag, or by a body that takes no positions.
    kinds = set(getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or WINDOWED)
    placed = "position_ids" in inspect.signature(module.base_model.forward).parameters
    if getattr(module, "_is_stateful", False) or getattr(config, "alibi", False) or not placed or kinds - set(WINDOWED):
        return 0
    windows = [getattr(config, name, None) for kind in kinds if (name := WINDOWED[kind])]
    return min((int(window) for window in windows if window), default=float("inf"))


def _packed(model: LanguageModel, pairs: Sequence[Pair]) -> Iterator[tuple[list[int], list[float]]]:
    """Places of pairs and their log-likelihoods, a tree at a time."""
    if not pairs:
        return
    size = shared_length([prompt for prompt, _ in pairs])
    trunk = _Trunk(model, pairs[0][0][:size])
    for tree in pack([(prompt[size:], continuation) for prompt, continuation in pairs]):
        found = trunk.evaluate(tree)
        yield list(found), list(found.values())


def pack(pairs: Sequence[Pair], max_tokens: int = MAX_TOKENS) -> Iterator[Tree]:
    """Prefix trees that together hold every pair once."""
    tree, path = Tree(), list[int]()
    previous: tuple[int, ...] = ()
    for index in sorted(range(len(pairs)), key=lambda i: pairs[i][0] + pairs[i][1]):
        prompt, continuation = pairs[index]
        # The last token is predicted, never read.
        sequence = (prompt + continuation)[:-1]
        shared = common(previous, sequence)
        if tree.ids and len(tree.ids) + len(sequence) - shared > max_tokens:
            yield tree
            tree, path, shared = Tree(), [], 0
        path = path[:shared]
        for token in sequence[shared:]:
            path.append(len(tree.ids))
            tree.ids.append(token)
            tree.rows.append(path.copy())
        tree.terms[index] = list(zip(path[len(prompt) - 1 :], continuation, strict=True))
        previous = sequence
    if tree.ids:
        yield tree


class _Trunk:
    """The keys and values of the tokens that every sequence begins with."""

    def __init__(self, model: LanguageModel, ids: tuple[int, ...]) -> None:
        self._model, self._size = model, len(ids)
        self._cache = read_beginning(model, ids)

    def evaluate(self, tree: Tree) -> dict[int, float]:
        """The log-likelihood of each pair of a tree, by the pair's index."""
        import torch

        model, terms = self._model, sorted({term for pair in tree.terms.values() for term in pair})
        allowed = np.pad(tree.mask(), ((0, 0), (self._size, 0)), constant_values=True)
        mask = torch.from_numpy(allowed).to(model.device)[None, None]
        if model.module.config._attn_implementation != "sdpa":
            # Written out (Gemma 2), attention adds its mask to the scores.
            kind = model.module.dtype
            mask = torch.zeros_like(mask, dtype=kind).masked_fill(~mask, torch.finfo(kind).min)
        with torch.inference_mode():
            output = model.module.base_model(
                input_ids=torch.tensor([tree.ids], device=model.device),
                position_ids=torch.tensor([[self._size + len(row) - 1 for row in tree.rows]], device=model.device),
                attention_mask=mask,
                # A copy, because the forward pass appends to the cache that it is given.
                past_key_values=copy.deepcopy(self._cache),
                use_cache=True,
            )
            values = term_values(model.module, output, terms)
        value = dict(zip(terms, values, strict=True))
        return {index: float(np.sum([value[term] for term in pair])) for index, pair in tree.terms.items()}
