"""From what a model said to what it would do.

Every rule gives, for each context, actions with probabilities that add up to one; a context without an output, or whose
outputs all abstain, is a miss (action -1), which is for the miss policy of an experiment to answer, not for us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from counterplay.errors import ConfigurationError, InputError
from counterplay.errors import nearest as nearest_name
from counterplay.llm.actions.nearest import MOST, Similar, Singles, most_similar, most_similar_among
from counterplay.llm.actions.parsers import NONE, Names, Pattern
from counterplay.llm.actions.shares import Answers, Floats, Ints, Places, Response, answers_of, rectangles, softmax

Part = tuple[Places, Ints, Floats]
Choice = tuple[list[int], list[float]]
MISS: Choice = ([-1], [0.0])

_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class AnswerRule:
    """How the text of an output becomes an action. The defaults are Algorithm 1 of Chen, Zhang and Zhu (EMNLP 2024).

    ``names``: an output that is the name of an action is that action (see `counterplay.llm.actions.parsers`).
    ``pattern``: the name is what the group ``action`` of this regular expression holds; implies ``names``.
    ``fallback``: what an output does that names no action that it may: it acts as the ``nearest`` one by embedding of
        what the pattern found, else of the whole text, or it is left out (``abstain``).
    ``among``: the actions that may be chosen: the context's ``candidates``, where the log has such lists, or all
        ``actions``. In replay an action outside of a decision's candidates is a miss.
    ``temperature``: T > 0 spreads an output over its ``kept`` (1 to 256) most similar actions, in proportion to
        exp(cosine / T); None: all to the most similar one, ties to the lowest.
    ``least_similarity``: an output is left out when no action has that cosine (-1 to 1); named ones stay.
    ``least_share``: a context is a miss when its best action has less than this share (0 to 1) of the likelihood of all
        its outputs, those that are left out included.
    """

    names: bool = False
    pattern: str | None = None
    fallback: str = "nearest"
    among: str = "candidates"
    temperature: float | None = None
    kept: int = 8
    least_similarity: float | None = None
    least_share: float | None = None

    def __post_init__(self) -> None:
        for field, known in (("fallback", ("nearest", "abstain")), ("among", ("candidates", "actions"))):
            value = getattr(self, field)
            if value not in known:
                raise ConfigurationError(f"{field} '{value}' is unknown. {nearest_name(value, known)}")
        if self.fallback == "abstain" and not self.reads_names:
            raise ConfigurationError(
                'With fallback = "abstain" nothing would ever act. Set names or a pattern as well.'
            )
        if self.temperature is not None and not 0.0 < self.temperature < np.inf:
            raise ConfigurationError(f"A temperature of {self.temperature} spreads nothing. Give one above 0, or None.")
        if not 1 <= self.kept <= MOST:
            raise ConfigurationError(f"kept = {self.kept} is not possible. Give 1 to {MOST}.")
        for field, low in (("least_similarity", -1.0), ("least_share", 0.0)):
            value = getattr(self, field)
            if value is not None and not low <= value <= 1.0:
                raise ConfigurationError(f"{field} = {value} is outside of {low:g} to 1.")
        if self.pattern is not None:
            Pattern(self.pattern)

    @property
    def reads_names(self) -> bool:
        return self.names or self.pattern is not None


ALGORITHM_1 = AnswerRule()


@dataclass(frozen=True, kw_only=True)
class Actions:
    """What can be chosen: ``texts`` and ``labels`` of the K actions; ``lists (C, S)``: the candidates of each context,
    padded with -1, or None where all actions are."""

    texts: Sequence[str]
    labels: Sequence[str] = ()
    lists: Ints | None = None


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Why contexts are misses: ``without_output``, ``without_text``, or ``abstained``, though there was a text.

    Of the outputs: ``outputs`` were read, ``named`` are an action's name, ``unnamed`` were left out because they are
    not, ``unlike`` because no action is as similar as asked (or none can be compared with them).
    """

    without_output: int = 0
    without_text: int = 0
    abstained: int = 0
    outputs: int = 0
    named: int = 0
    unnamed: int = 0
    unlike: int = 0

    def __str__(self) -> str:
        """What is worth saying: of outputs and contexts that choose nothing; or nothing."""
        counts = {
            "contexts without a text": f"{self.without_text}",
            "contexts that abstain": f"{self.abstained}",
            "outputs that name no action": f"{self.unnamed} of {self.outputs}",
            "outputs unlike every action": f"{self.unlike} of {self.outputs}",
        }
        return "; ".join(f"{what}: {count}" for what, count in counts.items() if not count.startswith("0"))


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """``actions (C, k)`` padded with -1 and ``probabilities (C, k)`` padded with 0, the likeliest first."""

    actions: Ints
    probabilities: Floats
    tally: Tally

    @property
    def chosen(self) -> int:
        """How many contexts have a choice."""
        return int((self.actions[:, 0] >= 0).sum())


def choose_by_text(
    responses: Sequence[Response | None],
    actions: Actions,
    rule: AnswerRule,
    encode: Callable[[Sequence[str]], Singles],
    *,
    best: int = 1,
    drawn: bool = False,
) -> Chosen:
    """What C contexts choose, by the ``best`` most likely texts of each one's response (None: it has no output); by
    texts that were ``drawn`` as often as they were.

    Output o_i with likelihood q_i becomes an action by the rule, played with probability q_i / sum_j q_j over the
    outputs that are not left out; the shares of outputs with the same action add up. ``encode`` gives vectors of texts,
    ``(n, d)``; it is not called when every output is named, or abstains.

    Errors: `InputError` for several outputs without likelihoods that were not drawn, or lists that do not fit.
    """
    lists = _lists(actions, rule, len(responses))
    answers = answers_of(responses, best, drawn=drawn)
    named, read = _named(answers, actions, rule, lists)
    sure, rest = named != NONE, np.flatnonzero(named == NONE)
    parts: list[Part] = [(answers.context[sure], named[sure], answers.share[sure])]
    unlike = 0
    if rule.fallback == "nearest" and len(rest):
        similar = _similar(answers, rest, read, actions.texts, rule, lists, encode)
        part, unlike = _acting(answers, rest, similar, rule)
        parts.append(part)
    context, action, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    chosen, probabilities = rectangles(context, action, weight, answers.contexts, rule.least_share)
    misses = int((chosen[:, 0] < 0).sum())
    tally = Tally(
        without_output=answers.without_output,
        without_text=answers.without_text,
        abstained=misses - answers.without_output - answers.without_text,
        outputs=len(answers.text),
        named=int(sure.sum()),
        unnamed=len(rest) if rule.fallback == "abstain" else 0,
        unlike=unlike,
    )
    return Chosen(actions=chosen, probabilities=probabilities, tally=tally)


def choose_by_rank(response: Mapping[str, Any], candidates: Sequence[int], best: int = 1) -> Choice:
    """The ``best`` candidates of highest log-likelihood, weighted by their likelihood; ties: the lowest action.

    Errors: `InputError` for log-likelihoods that are NaN, missing, or all -inf.
    """
    logprobs = response["logprobs"]
    usable = all(isinstance(one, int | float) and one < np.inf for one in logprobs)
    if len(logprobs) != len(candidates) or not usable or max(logprobs, default=-np.inf) == -np.inf:
        raise InputError(
            f"A ranking of {len(candidates)} candidates has the log-likelihoods {logprobs!r:.60}, which rank nothing. "
            "Score them again."
        )
    ranked = sorted(zip(logprobs, candidates, strict=True), key=lambda pair: (-pair[0], pair[1]))[:best]
    return [action for _, action in ranked], softmax([logprob for logprob, _ in ranked])


def as_arrays(choices: Sequence[Choice]) -> tuple[Ints, Floats]:
    """Choices as ``(C, k)`` actions padded with -1 and ``(C, k)`` probabilities padded with 0."""
    width = max((len(actions) for actions, _ in choices), default=1)
    actions = np.full((len(choices), width), -1, dtype=np.int32)
    probabilities = np.zeros((len(choices), width), dtype=np.float64)
    for row, (chosen, shares) in enumerate(choices):
        actions[row, : len(chosen)] = chosen
        probabilities[row, : len(shares)] = shares
    return actions, probabilities


def _lists(actions: Actions, rule: AnswerRule, contexts: int) -> Ints | None:
    if actions.lists is not None and len(actions.lists) != contexts:
        raise InputError(f"{len(actions.lists)} lists of candidates do not fit {contexts} contexts.")
    return actions.lists if rule.among == "candidates" else None


def _named(answers: Answers, actions: Actions, rule: AnswerRule, lists: Ints | None) -> tuple[Ints, Sequence[str]]:
    """The action that each output names, -1 where it names none that it may; and what to read of each text."""
    read: Sequence[str] = answers.texts
    if not rule.reads_names:
        return np.full(len(answers.text), NONE, dtype=np.int32), read
    found: Sequence[str | None] = answers.texts
    if rule.pattern is not None and answers.texts:
        found = Pattern(rule.pattern).read(answers.texts)
        read = [part if part and part.strip() else text for part, text in zip(found, answers.texts, strict=True)]
    names = Names(actions.texts, actions.labels)
    by_text = np.array([NONE if part is None else names.action(part) for part in found], dtype=np.int32)
    named = by_text[answers.text]
    if lists is not None:
        named[~_allowed(named, answers.context, lists)] = NONE
    return named, read


def _allowed(action: Ints, context: Places, lists: Ints) -> npt.NDArray[np.bool_]:
    """Whether each action is in its context's list; in blocks, so that lists may be long."""
    inside = np.zeros(len(action), dtype=np.bool_)
    for low in range(0, len(action), _BLOCK):
        mine = slice(low, low + _BLOCK)
        inside[mine] = (lists[context[mine]] == action[mine, None]).any(axis=1)
    return inside


def _similar(
    answers: Answers,
    rest: Places,
    read: Sequence[str],
    action_texts: Sequence[str],
    rule: AnswerRule,
    lists: Ints | None,
    encode: Callable[[Sequence[str]], Singles],
) -> Similar:
    """The most similar actions of each output that names none, without any for a text that has no direction."""
    used, place = np.unique(answers.text[rest], return_inverse=True)
    vectors, columns = encode([read[text] for text in used]), encode(action_texts)
    count = 1 if rule.temperature is None else rule.kept
    if lists is None:
        similar = most_similar(vectors, columns, count)
        similar = Similar(actions=similar.actions[place], similarity=similar.similarity[place])
    else:
        similar = most_similar_among(vectors, columns, lists, text=place, row=answers.context[rest], count=count)
    blank = ~np.any(vectors, axis=1)[place]
    similar.actions[blank], similar.similarity[blank] = NONE, -np.inf
    return similar


def _acting(answers: Answers, rest: Places, similar: Similar, rule: AnswerRule) -> tuple[Part, int]:
    """Context, action and weight of what the outputs do by similarity; and how many are left out."""
    least = -np.inf if rule.least_similarity is None else rule.least_similarity
    like = (similar.actions[:, 0] != NONE) & (similar.similarity[:, 0] >= least)
    mine, actions = rest[like], similar.actions[like]
    weight = _spread(similar.similarity[like], rule.temperature) * answers.share[mine, None]
    context = np.broadcast_to(answers.context[mine, None], actions.shape)
    present = actions != NONE
    return (context[present], actions[present], weight[present]), int((~like).sum())


def _spread(similarity: Floats, temperature: float | None) -> Floats:
    """What share of an output goes to each of its most similar actions; none to padding."""
    if temperature is None:
        return np.ones_like(similarity)
    with np.errstate(over="ignore"):
        weights = np.exp((similarity - similarity[:, :1]) / temperature)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)
