"""The templates that come with the herd, byte by byte; tools and what a template would leave out."""

from __future__ import annotations

from typing import Any

import pytest

from herder import templates
from herder.prompts import without_doubled_bos
from herder.protocol import ModelCard
from herder.rendering import TemplateError, render

SYSTEM = {"role": "system", "content": "You are a pirate.\nSay arg matey!"}
HI = {"role": "user", "content": "How are you?"}
FINE = {"role": "assistant", "content": " Arg, fine. "}
MORE = {"role": "user", "content": "\nWhat is 2 + 2?  "}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "content": "4", "name": "add"}
TOOLS: list[dict[str, Any]] = [{"type": "function", "function": {"name": "add", "parameters": {"x": 1.5}}}]
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def made(name: templates.Name, *messages: dict[str, Any], bos: str = "<s>", eos: str = "</s>") -> str:
    return render(templates.text_of(name), messages, bos_token=bos, eos_token=eos)


def meta_of(dialog: list[dict[str, Any]]) -> str:
    """Meta's own reference, `chat_completion` of Llama 2, with the tokens that it puts around each pair as text."""
    if dialog[0]["role"] == "system":
        joined = "<<SYS>>\n" + dialog[0]["content"] + "\n<</SYS>>\n\n" + dialog[1]["content"]
        dialog = [{"role": dialog[1]["role"], "content": joined}, *dialog[2:]]
    text = ""
    for asked, answered in zip(dialog[::2], dialog[1::2], strict=False):
        text += f"<s>[INST] {asked['content'].strip()} [/INST] {answered['content'].strip()} </s>"
    return text + f"<s>[INST] {dialog[-1]['content'].strip()} [/INST]"


@pytest.mark.parametrize(
    ("chat", "text"),
    [
        ([HI], "<s>[INST] How are you? [/INST]"),
        (
            [SYSTEM, HI],
            "<s>[INST] <<SYS>>\nYou are a pirate.\nSay arg matey!\n<</SYS>>\n\nHow are you? [/INST]",
        ),
        (
            [SYSTEM, HI, FINE, MORE],
            "<s>[INST] <<SYS>>\nYou are a pirate.\nSay arg matey!\n<</SYS>>\n\nHow are you? [/INST] Arg, fine. </s>"
            "<s>[INST] What is 2 + 2? [/INST]",
        ),
        (
            [HI, FINE, MORE],
            "<s>[INST] How are you? [/INST] Arg, fine. </s><s>[INST] What is 2 + 2? [/INST]",
        ),
        ([SYSTEM, MORE], None),
        ([{"role": "system", "content": " \n"}, {"role": "user", "content": "{{ '<&>' }}"}], None),
    ],
)
def test_llama_2_is_metas(chat: list[dict[str, Any]], text: str | None) -> None:
    assert made("llama-2", *chat) == meta_of(chat)
    assert text is None or meta_of(chat) == text


@pytest.mark.parametrize(
    "chat",
    [[SYSTEM], [FINE], [HI, HI], [HI, FINE], [HI, SYSTEM, MORE], [SYSTEM, SYSTEM, HI], [SYSTEM, FINE, HI]],
)
def test_llama_2_refuses_what_does_not_alternate(chat: list[dict[str, Any]]) -> None:
    with pytest.raises(TemplateError, match=r"alternate|last message"):
        made("llama-2", *chat)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_there_is_one_start_token(adds_bos: bool) -> None:
    card = ModelCard("toy", 512, 257, 8, None, "<s>", "</s>", adds_bos)
    read = without_doubled_bos(made("llama-2", HI, FINE, MORE), card)
    tokenized = ("<s>" if adds_bos else "") + read
    assert tokenized.startswith("<s>[INST]")
    assert tokenized.count("<s>") == 2, "one for each pair of turns"


def test_llama_2_has_the_models_own_tokens() -> None:
    assert made("llama-2", HI, FINE, MORE, bos="", eos="<end>").startswith(
        "[INST] How are you? [/INST] Arg, fine. <end>[INST]"
    )


def test_chatml() -> None:
    assert made("chatml", SYSTEM, HI) == (
        "<|im_start|>system\nYou are a pirate.\nSay arg matey!<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    with pytest.raises(TemplateError, match="roles"):
        made("chatml", HI, CALLED, MORE)
    with pytest.raises(TemplateError, match="roles"):
        made("chatml", HI, ANSWERED)
    with pytest.raises(TemplateError, match="no tool calls"):
        made("llama-2", HI, CALLED, MORE)


def test_every_name_is_a_file() -> None:
    assert all(templates.text_of(name).startswith("{#-") for name in templates.NAMES)


# --- tools ---------------------------------------------------------------------------------------------------


def with_tools(template: str, *messages: dict[str, Any]) -> str:
    return render(template, messages or [HI], TOOLS, bos_token="", eos_token="")


def test_tools_reach_a_template_that_takes_them() -> None:
    assert with_tools("{{ tools | tojson }}{{ messages[0].content }}") == (
        '[{"type": "function", "function": {"name": "add", "parameters": {"x": 1.5}}}]How are you?'
    )
    # As Llama 3.1 begins.
    opening = "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}{{ tools[0].function.name }}"
    assert with_tools(opening + "{{ messages[0].content }}") == "addHow are you?"


@pytest.mark.parametrize(
    "template",
    [
        TURNS,
        "{# tools #}tools " + TURNS,
        "{% set tools = [] %}{{ tools }}" + TURNS,
        "{% macro f(tools) %}{{ tools }}{% endmacro %}{{ f(1) }}" + TURNS,
        "{{ messages[0].tools }}" + TURNS,
        *(templates.text_of(name) for name in templates.NAMES),
    ],
)
def test_tools_that_a_template_does_not_take_are_refused(template: str) -> None:
    with pytest.raises(TemplateError, match="takes no tools"):
        with_tools(template)
    assert render(template, [HI], bos_token="", eos_token="")


CALLS = "{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}{% endif %}"


def test_calls_and_their_answers_reach_the_template() -> None:
    template = TURNS.replace("{% endfor %}", CALLS + "{% endfor %}")
    text = render(template, [HI, CALLED, ANSWERED], bos_token="", eos_token="")
    assert text == '[user]How are you?[assistant]None{"name": "add", "arguments": {"a": 2}}[tool]4'


@pytest.mark.parametrize(
    ("template", "chat", "says"),
    [
        (TURNS, [HI, CALLED, ANSWERED], "leaves tool_calls out"),
        ("{% for m in messages %}{% if m.role != 'tool' %}{{ m.content }}" + CALLS + "{% endif %}{% endfor %}",
         [HI, CALLED, ANSWERED], "leaves messages of the role tool out"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         [SYSTEM, HI], "leaves system messages out"),
        ("{{ raise_exception('System role not supported') if messages[0].role == 'system' }}",
         [SYSTEM, HI], "System role not supported"),
        ("hello", [HI], "leaves the last message of the user out"),
        ("{{ messages[0].content }}", [HI, FINE, MORE], "leaves the last message of the user out"),
        ("H{{ messages[0].role }}", [{"role": "user", "content": "H"}], "leaves the last message of the user out"),
        ("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
         [HI, FINE, MORE], "leaves messages of the role assistant out"),
        ("{{ messages[1].content }}{{ messages[-1].content }}",
         [HI, FINE | {"content": "Arg, I am quite fine."}, MORE, {"role": "assistant", "content": "4"}, HI],
         "leaves messages of the role assistant out"),
    ],
)  # fmt: skip
def test_nothing_is_left_out_in_silence(template: str, chat: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(TemplateError, match=says):
        render(template, chat, bos_token="", eos_token="")


@pytest.mark.parametrize(
    ("written", "chat"),
    [
        ("m.content | trim", [HI, FINE, MORE]),
        (
            "m.content.split('</think>')[-1]",
            [HI, {"role": "assistant", "content": "<think>so</think>"}, MORE],
        ),
        ("m.content.split('[END]')[0]", [HI, {"role": "assistant", "content": "4[END] of it"}, MORE]),
        ("m.content", [HI, {"role": "assistant", "content": " "}, {"role": "user", "content": ""}]),
        ("m.content or ''", [HI, CALLED | {"content": "Let me see."}, ANSWERED]),
    ],
)
def test_what_templates_rightly_leave_out_of_a_turn_is_no_refusal(
    written: str, chat: list[dict[str, Any]]
) -> None:
    turn = f"{{% if not m.tool_calls %}}{{{{ {written} }}}}{{% endif %}}{CALLS}"
    template = f"{{% for m in messages %}}{turn}{{% endfor %}}"
    assert render(template, chat, bos_token="", eos_token="")
