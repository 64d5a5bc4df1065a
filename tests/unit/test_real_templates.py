"""Templates as published models have them: every kind of chat is rendered, or refused in words."""

from __future__ import annotations

import json

import pytest

from herder.chat_forms import forms
from herder.rendering import render
from tests.real_templates import ASKED, CALLED, CALLED_WITH_TEXT, CASES, FOLDER, SYSTEM, TOLD, TOOLS, outcome

TEMPLATES = {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.jinja"))}
QWEN, QWEN_3, LLAMA = "Qwen-Qwen2.5-7B-Instruct", "Qwen-Qwen3-0.6B", "meta-llama-Llama-3.2-3B-Instruct"
NEMO, PHI, GEMMA = (
    "mistralai-Mistral-Nemo-Instruct-2407",
    "microsoft-Phi-3.5-mini-instruct",
    "google-gemma-2-2b-it",
)
R1, KIMI = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "Kimi-K2-Instruct"
CALLS = ("call", "call with text", "call, turns")
NO_TOOLS = dict.fromkeys(("tools", *CALLS), "takes no tools")
REFUSALS = {
    PHI: NO_TOOLS,
    R1: NO_TOOLS,
    GEMMA: dict.fromkeys(("system", "system, turns"), "System role not supported")
    | {"tools": "takes no tools"}
    | dict.fromkeys(CALLS, "must alternate"),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_published_template_takes_every_chat_that_it_knows(name: str, kind: str) -> None:
    found = outcome(TEMPLATES[name], CASES[kind])
    expected = REFUSALS.get(name, {}).get(kind)
    if expected is None:
        assert not found.startswith("refused: "), found
    else:
        assert found.startswith("refused: ")
        assert expected in found


def test_there_are_templates_to_test() -> None:
    assert TEMPLATES.keys() >= {QWEN, QWEN_3, LLAMA, NEMO, PHI, GEMMA, R1, KIMI}


def test_the_text_of_qwen() -> None:
    text = render(TEMPLATES[QWEN], [SYSTEM, ASKED], bos_token="", eos_token="<|im_end|>")
    assert text == (
        "<|im_start|>system\nAnswer in verse.<|im_end|>\n<|im_start|>user\nIs it warm in Paris?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", [QWEN, QWEN_3, LLAMA, NEMO, KIMI])
@pytest.mark.parametrize("called", [CALLED, CALLED_WITH_TEXT])
def test_arguments_are_written_as_json_however_they_came(name: str, called: dict[str, object]) -> None:
    """As text in a template that writes JSON itself, they would be a JSON string within JSON."""
    text = render(TEMPLATES[name], [ASKED, called, TOLD], TOOLS, bos_token="", eos_token="")
    assert '{"city": "Paris"}' in text


def test_arguments_of_a_text_stay_as_they_are_where_the_template_takes_a_text() -> None:
    """So that the cache of the turn before is of use: the model has written them."""
    template = (
        "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name }}("
        "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}{{ c.function.arguments | tojson }}"
        "{% endif %}){% endfor %}{% endfor %}{{ tools | length }}"
    )
    odd = json.loads(json.dumps(CALLED_WITH_TEXT))
    odd["tool_calls"][0]["function"]["arguments"] = '{ "city":"Paris" }'
    text = render(template, [ASKED, odd, TOLD], TOOLS, bos_token="", eos_token="")
    assert 'get_weather({ "city":"Paris" })' in text


def test_arguments_are_not_written_as_python_does() -> None:
    template = (
        "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}({{ c.function.arguments }}){% endfor %}{% endfor %}{{ tools | length }}"
    )
    text = render(template, [ASKED, CALLED, TOLD], TOOLS, bos_token="", eos_token="")
    assert 'get_weather({"city": "Paris"})' in text


def test_the_forms_of_a_chat_are_few_and_the_first_is_as_it_came() -> None:
    plain = forms([SYSTEM, ASKED], None)
    assert [form.tools for form in plain] == [None, []]
    assert plain[0].messages == [SYSTEM, ASKED]
    called = forms([ASKED, CALLED, TOLD], TOOLS)
    assert called[0] == ([ASKED, CALLED, TOLD], TOOLS)
    assert len(called) == 4
    mixed = forms([ASKED, CALLED, TOLD, CALLED_WITH_TEXT, TOLD], None)
    assert len(mixed) == 12


def test_a_template_cannot_change_what_it_is_asked_again() -> None:
    """It is rendered more than once, to find out what it leaves out: each time from what the caller sent."""
    template = "{% set _ = messages.append(messages[0]) %}{% set _ = tools.pop() %}{{ messages | length }}{{ tools }}"
    for _ in range(2):
        text = render(template + "{{ messages[1].content }}", [ASKED], TOOLS, bos_token="", eos_token="")
        assert text == "2[]Is it warm in Paris?"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}!", "Is it warm in Paris?!"),
        ("{{ {'b': 1, 'a': [2]} | tojson(separators=(',', ':'), sort_keys=true) }}", '{"a":[2],"b":1}'),
        ("{{ messages | map(attribute='role') | tojson }}", '["user"]'),
        ("{% for t in tools %}{{ t }}{% endfor %}none", "none"),
    ],
)
def test_what_published_templates_count_on(template: str, text: str) -> None:
    template += "|{{ messages[0].content }}"
    assert render(template, [ASKED], bos_token="", eos_token="") == text + "|Is it warm in Paris?"
