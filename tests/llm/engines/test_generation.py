"""What a model writes in a batch is what it writes alone, and what a loop over plain forward passes writes."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.local import LanguageModel
from counterplay.llm.prompting.sampling import Sampling
from tests.llm import tiny
from tests.llm.tiny import one_core  # noqa: F401

pytestmark = tiny.NOISE

PROMPTS = (
    "a",
    "the end of the thing",
    "one two three four five six seven eight nine ten, and then eleven twelve thirteen",
    "Ein Schluß: äöü",
    "x\ny\nz",
    "the tea, and the cake, " * 3,
)
ROOM = 20


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return tiny.load(request.param, tmp_path_factory.mktemp("tiny") / request.param)


def written(
    model: LanguageModel, prompts: Sequence[str], stop: tuple[str, ...] = (), best: int = 1, **sampling: Any
) -> list[list[Completion]]:
    asked = [Prompt(ids=model.prompt(text), key=f"key of {text}") for text in prompts]
    return model.complete(
        asked, Sampling(max_tokens=sampling.pop("max_tokens", ROOM), stop=stop, **sampling).fields(best)
    )


def greedy_ids(model: LanguageModel, text: str, stop: tuple[str, ...], room: int = ROOM) -> tuple[list[int], float]:
    """By forward passes over the whole sequence: no cache, no padding, no library but for the module itself."""
    prompt, ids, logprob = model.prompt(text), list[int](), 0.0
    while len(ids) < room and (not ids or ids[-1] != tiny.END):
        logprobs = tiny.plain_logprobs(model.module, (*prompt, *ids))[-1]
        ids.append(int(logprobs.argmax()))
        logprob += float(logprobs[ids[-1]])
        said = model.tokenizer.decode(ids, skip_special_tokens=True)
        if any(mark in said for mark in stop):
            break
    return ids, logprob


def greedy(model: LanguageModel, text: str, stop: tuple[str, ...], room: int = ROOM) -> Completion:
    ids, logprob = greedy_ids(model, text, stop, room)
    said = model.tokenizer.decode(ids, skip_special_tokens=True)
    ends = [place for mark in stop if (place := said.find(mark)) >= 0]
    return Completion(
        text=said[: min(ends, default=len(said))].strip(),
        logprob=logprob,
        tokens=len(ids),
        finished=bool(ends) or ids[-1] == tiny.END,
    )


def assert_same(found: Completion, wanted: Completion) -> None:
    assert (found.text, found.tokens, found.finished) == (wanted.text, wanted.tokens, wanted.finished)
    assert found.logprob == pytest.approx(wanted.logprob, abs=1e-3)


def marks_of(model: LanguageModel) -> dict[str, tuple[str, ...]]:
    """Stop strings, out of what the model writes when nothing stops it."""
    texts = [(one.text, one.tokens) for (one,) in written(model, PROMPTS)]
    long = next(text for text, tokens in texts if tokens == ROOM and len(text) > 12)
    straddling = long[7:10]
    assert len(model.encode(straddling)) > 1, "three signs that are one token straddle nothing"
    return {
        "none": (),
        "a sign": (long[5],),
        "several": (long[8], "\n", long[9:11]),
        "straddling tokens": (straddling,),
        "never written": ("ÿÿ",),
    }


@pytest.mark.parametrize("which", ["none", "a sign", "several", "straddling tokens", "never written"])
def test_a_batch_writes_what_plain_forward_passes_write(model: LanguageModel, which: str) -> None:
    stop = marks_of(model)[which]
    lengths = [len(model.prompt(text)) for text in PROMPTS]
    assert min(lengths) < tiny.WINDOW < max(lengths), "prompts on both sides of the sliding window"
    together = written(model, PROMPTS, stop)
    for text, (found,) in zip(PROMPTS, together, strict=True):
        assert_same(found, greedy(model, text, stop))
        ((alone,),) = written(model, [text], stop)
        assert_same(found, alone)
    if which not in ("none", "never written"):
        cut = [found for (found,) in together if found.finished and found.tokens < ROOM]
        assert cut, "no text was stopped"
        assert not any(mark in found.text for (found,) in together for mark in stop)


def test_a_log_likelihood_is_that_of_the_tokens_by_a_plain_pass(model: LanguageModel) -> None:
    texts = [text for text in PROMPTS if text.isascii()]
    for text, (found,) in zip(texts, written(model, texts, max_tokens=5), strict=True):
        ids, _ = greedy_ids(model, text, (), found.tokens)
        wanted = tiny.plain_loglikelihood(model, model.prompt(text), tuple(ids))
        assert found.logprob == pytest.approx(wanted, abs=1e-3)


def test_a_stop_string_in_the_prompt_ends_nothing(model: LanguageModel) -> None:
    # Neither one that stands there, nor one of which only the beginning does: what is written is looked at alone.
    ((free,),) = written(model, ["the end"])
    first = free.text[0]
    for text, stop in (("the end", "the end"), ("the end", "d" + first)):
        ((found,),) = written(model, [text], (stop,))
        assert_same(found, greedy(model, text, (stop,)))
        assert found.tokens > 1


def model_that_writes(folder: Path, after: dict[int, int]) -> LanguageModel:
    """A model that knows nothing but the last token, and goes on with the one that is named ``after`` it, else with the
    first of those named."""
    import torch

    model = tiny.load("llama", folder)
    size = len(model.tokenizer)
    steps = torch.zeros(size, dtype=torch.long) + next(iter(after))
    for token, following in after.items():
        steps[token] = following

    def forward(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.nn.functional.one_hot(steps[input_ids], size).float() * 9

    asked: list[torch.Tensor] = []
    model.module.get_output_embeddings().register_forward_hook(lambda *_: forward(asked[-1]))
    model.module.register_forward_pre_hook(lambda _m, _a, given: asked.append(given["input_ids"]), with_kwargs=True)
    return model


def test_a_stop_string_of_signs_of_several_bytes_ends_a_text(tmp_path: Path) -> None:
    words = tiny.tokenizer(beginning=True)
    first, second = words("é", add_special_tokens=False).input_ids
    (b,) = words("b", add_special_tokens=False).input_ids
    # The bytes of a sign come one after the other.
    model = model_that_writes(tmp_path, {first: second, second: b})
    ((found,),) = model.complete(
        [Prompt(ids=model.prompt("a"), key="k")], Sampling(max_tokens=9, stop=("é",)).fields(1)
    )
    assert (found.text, found.tokens, found.finished) == ("", 2, True)


@pytest.mark.parametrize("beams", [1, 2])
def test_a_special_token_that_is_a_stop_string_ends_a_text(tmp_path: Path, beams: int) -> None:
    # As a chat's end of turn, which is not always what the model's own file calls an end, and which no text shows.
    (b, c) = tiny.tokenizer(beginning=True)("bc", add_special_tokens=False).input_ids
    model = model_that_writes(tmp_path, {b: tiny.UNKNOWN, tiny.UNKNOWN: c, c: c})
    prompt = Prompt(ids=model.prompt("a"), key="k")
    for stop, told in ((("<unk>",), ("b", 2, True)), (("x",), ("bccccccc", 9, False))):
        ((found, *_),) = model.complete([prompt], Sampling(max_tokens=9, stop=stop).fields(beams))
        assert (found.text, found.tokens, found.finished) == told


def test_a_text_is_finished_or_cut_at_the_limit_itself(model: LanguageModel) -> None:
    ((free,),) = written(model, ["the end of the thing"])
    assert (free.tokens, free.finished) == (ROOM, False)
    stop = (free.text[6:8],)
    ((stopped,),) = written(model, ["the end of the thing"], stop)
    assert stopped.finished
    ((exact,),) = written(model, ["the end of the thing"], stop, max_tokens=stopped.tokens)
    assert_same(exact, stopped)
    ((short,),) = written(model, ["the end of the thing"], stop, max_tokens=stopped.tokens - 1)
    assert (short.tokens, short.finished) == (stopped.tokens - 1, False)
    assert short.logprob > stopped.logprob


def test_the_end_of_the_models_own_finishes_a_text_and_counts_as_a_token(tmp_path: Path) -> None:
    import torch

    model = tiny.load("llama", tmp_path)
    with torch.no_grad():
        head = model.module.get_output_embeddings()
        head.weight[tiny.END] *= 3
    found = [one for (one,) in written(model, PROMPTS)]
    ended = [one for one in found if one.finished]
    assert ended
    assert len(ended) < len(found)
    for text, one in zip(PROMPTS, found, strict=True):
        assert_same(one, greedy(model, text, ()))


def test_a_token_that_pads_may_be_written_too(tmp_path: Path) -> None:
    import torch

    model = tiny.load("llama", tmp_path)
    with torch.no_grad():
        head = model.module.get_output_embeddings()
        head.weight[tiny.PADDING] = head.weight[model.encode(greedy(model, "a", ()).text[3])[0]] * 1.1
    assert any(tiny.PADDING in greedy_ids(model, text, ())[0][:-1] for text in PROMPTS), "nowhere was it written"
    for text, (found,) in zip(PROMPTS, written(model, PROMPTS), strict=True):
        assert_same(found, greedy(model, text, ()))


@pytest.mark.parametrize("which", ["none", "a sign", "straddling tokens"])
def test_a_search_finds_the_same_in_a_batch_and_scores_what_it_found(model: LanguageModel, which: str) -> None:
    stop = marks_of(model)[which]
    together = written(model, PROMPTS, stop, best=3)
    for text, found in zip(PROMPTS, together, strict=True):
        (alone,) = written(model, [text], stop, best=3)
        assert len(found) == 3
        for one, other in zip(found, alone, strict=True):
            assert_same(one, other)
        assert [one.logprob for one in found] == sorted((one.logprob for one in found), reverse=True)
        assert all(not any(mark in one.text for mark in stop) for one in found)
        assert all(one.finished or one.tokens == ROOM for one in found)


def test_a_searchs_likelihoods_are_those_of_a_plain_pass(tmp_path: Path) -> None:
    import torch

    # A head with ten letters alone: each text then has one way to be written, and can be read back into tokens.
    model = tiny.load("llama", tmp_path)
    letters = {model.encode(letter)[0] for letter in string.ascii_uppercase[:10]}
    with torch.no_grad():
        head = model.module.get_output_embeddings()
        head.weight[[i for i in range(len(model.tokenizer)) if i not in letters]] = 0
    for text, found in zip(PROMPTS, written(model, PROMPTS, best=4, max_tokens=6), strict=True):
        assert len({one.text for one in found}) == 4
        for one in found:
            rest = tuple(model.encode(one.text))
            assert (len(rest), set(rest) <= letters) == (one.tokens, True)
            assert one.logprob == pytest.approx(tiny.plain_loglikelihood(model, model.prompt(text), rest), abs=1e-3)
        # No search can miss a likelier text than the greedy one and be worth the name.
        ((best,),) = written(model, [text], max_tokens=6)
        assert found[0].logprob >= best.logprob - 1e-3


def test_a_prompt_that_stands_twice_is_answered_twice(model: LanguageModel) -> None:
    first, other, again = (one for (one,) in written(model, ["the end", "a", "the end"]))
    assert_same(first, again)
    assert first.text != other.text
    assert np.isfinite([first.logprob, other.logprob]).all()


@pytest.mark.parametrize("beginning", ["go ", "the beginning of it, which is longer than the window: "])
def test_a_beginning_that_prompts_share_changes_nothing(model: LanguageModel, beginning: str) -> None:
    texts = [beginning + text for text in ("a", "the end", "x, y, and z", "the end of it")] + [beginning]
    together, apart = written(model, texts, ("e",)), written(model, ["x", *texts], ("e",))[1:]
    for text, (found,), (beside,) in zip(texts, together, apart, strict=True):
        assert_same(found, greedy(model, text, ("e",)))
        assert_same(beside, found)
    drawn, turned = (written(model, rows, temperature=1.0, best=3) for rows in (texts, texts[::-1]))
    for text, three, others in zip(texts, drawn, turned[::-1], strict=True):
        (alone,) = written(model, [text], temperature=1.0, best=3)
        assert [one.text for one in three] == [one.text for one in others] == [one.text for one in alone]
